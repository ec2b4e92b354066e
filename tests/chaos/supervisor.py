"""Worker processes under a supervisor that starts again what has ended, as it would be in production, and counts."""

import contextlib
import json
import re
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from stream_app.embedded import Tethered, free_port
from tests.chaos.armed_worker import EXIT_CODE, TRIGGER
from tests.live import ROOT

LOOK_S: Final = 0.05
PAUSES_S: Final = (1.0, 2.0, 4.0, 8.0)
"""How long a worker that ended on its own stays away, time after time; one that was killed is back at once."""
LIVED_S: Final = 20.0
ANSWER_S: Final = 2.0
START: Final = "--- start"
CONTROL: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Exit(NamedTuple):
    """One end of a process. ``by_us``: the harness ended it. ``line`` is the last that it wrote."""

    worker: int
    code: int
    at: float
    by_us: bool
    line: str


class Worker:
    """One place for a worker, and the process that is in it, if any."""

    def __init__(self, number: int, folder: Path, environment: Mapping[str, str]) -> None:
        self.number = number
        self.log = folder / f"worker-{number}.log"
        self.port = free_port()
        self.wanted = True
        self.by_us = False
        self.starts = 0
        self.failures = 0
        self._started_at = time.monotonic()
        self._trigger = folder / f"worker-{number}.trigger"
        self._environment = dict(environment) | {
            "PARALLAX_HEALTH_PORT": str(self.port),
            "PYTHONUNBUFFERED": "1",
            TRIGGER: str(self._trigger),
        }
        self._process: Tethered | None = None

    def start(self) -> None:
        """A new process."""
        self.by_us = False
        self.starts += 1
        self._started_at = time.monotonic()
        self._trigger.unlink(missing_ok=True)
        with self.log.open("ab") as output:
            output.write(f"{START} {self.starts}\n".encode())
            output.flush()
            self._process = Tethered(
                [sys.executable, "-m", "tests.chaos.armed_worker"], output=output, cwd=ROOT, env=self._environment
            )

    @property
    def running(self) -> bool:
        """Whether there is a process that has not ended."""
        return self._process is not None and self._process.running

    @property
    def lived(self) -> float:
        """Seconds since the last start."""
        return time.monotonic() - self._started_at

    @property
    def pid(self) -> int | None:
        """The process's id."""
        return None if self._process is None else self._process.process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if there is anything to send it to. One that ends the process is ours."""
        if self._process is not None:
            self.by_us = self.by_us or number in (signal.SIGKILL, signal.SIGTERM)
            self._process.process.send_signal(number)

    def arm(self, point: str, action: str, count: int) -> None:
        """Let the process end or stop when it comes to a point of its work."""
        written = self._trigger.with_suffix(".new")
        written.write_text(f"{point} {action} {count}")
        written.replace(self._trigger)

    @property
    def armed(self) -> bool:
        """Whether the point has not been reached."""
        return self._trigger.exists()

    def disarm(self) -> None:
        """Let it pass the point."""
        self._trigger.unlink(missing_ok=True)

    def status(self) -> dict[str, Any] | None:
        """The health page, None where there is none."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health/", timeout=ANSWER_S) as answer:
                found: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            with error, contextlib.suppress(ValueError, OSError):
                found = json.load(error)
                return found
            return None
        except (OSError, ValueError):
            return None
        return found

    def wait(self, seconds: float) -> bool:
        """Whether the process has ended within some time."""
        end = time.monotonic() + seconds
        while self.running and time.monotonic() < end:
            time.sleep(0.005)
        return not self.running

    def reap(self) -> int | None:
        """The exit code of a process that has ended, once."""
        if self._process is None or self._process.running:
            return None
        process, self._process = self._process, None
        code = process.process.returncode
        process.kill()
        return int(code)

    def last_line(self) -> str:
        """Why its last process ended: the first error, else the last line that it wrote."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        lines = [CONTROL.sub("", line).strip() for line in text.rpartition(START)[2].split("\n")[1:]]
        told = [line for line in lines if line]
        errors = (line for line in told if "ERROR" in line or line.startswith("parallax:"))
        return next(errors, told[-1] if told else "it wrote nothing")[:300]

    def kill(self) -> None:
        """End it for good."""
        self.wanted = False
        if self._process is not None:
            self._process.kill()


class Supervisor:
    """Keeps the wanted workers running, in a thread, until it is closed."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = environment
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="supervisor")
        self._back_at: dict[int, float] = {}
        self.workers: list[Worker] = []
        self.exits: list[Exit] = []
        self._thread.start()

    def add(self) -> Worker:
        """One more worker."""
        with self._lock:
            worker = Worker(len(self.workers) + 1, self._folder, self._environment)
            worker.start()
            self.workers.append(worker)
        return worker

    @property
    def wanted(self) -> list[Worker]:
        """The workers that are to run."""
        return [worker for worker in self.workers if worker.wanted]

    @property
    def running(self) -> list[Worker]:
        """The workers that do run."""
        return [worker for worker in self.workers if worker.running]

    def terminate(self, worker: Worker, seconds: float) -> tuple[float, int | None]:
        """SIGTERM, for good: in how many seconds it has ended, and its exit code, None when it had to be killed."""
        began = time.monotonic()
        worker.wanted = False
        worker.signal(signal.SIGTERM)
        ended = worker.wait(seconds)
        took = time.monotonic() - began
        if not ended:
            worker.signal(signal.SIGCONT)
            worker.signal(signal.SIGKILL)
            worker.wait(5)
        code = self._collect(worker)
        return took, code if ended else None

    def resume(self, worker: Worker) -> None:
        """Start again a worker that was terminated."""
        self._collect(worker)
        with self._lock:
            worker.wanted = True
            worker.start()

    def _collect(self, worker: Worker) -> int | None:
        with self._lock:
            code = worker.reap()
            if code is None:
                return next((gone.code for gone in reversed(self.exits) if gone.worker == worker.number), None)
            by_us = worker.by_us or code == EXIT_CODE
            self.exits.append(Exit(worker.number, code, time.time(), by_us, worker.last_line()))
            worker.failures = 0 if by_us or worker.lived > LIVED_S else min(worker.failures + 1, len(PAUSES_S))
            self._back_at[worker.number] = time.monotonic() + (0.0 if by_us else PAUSES_S[max(0, worker.failures - 1)])
            return code

    def _run(self) -> None:
        while not self._closing.wait(LOOK_S):
            for worker in list(self.workers):
                if worker.running:
                    continue
                self._collect(worker)
                with self._lock:
                    due = time.monotonic() >= self._back_at.get(worker.number, 0.0)
                    if worker.wanted and not worker.running and due and not self._closing.is_set():
                        worker.start()

    def close(self) -> None:
        """End everything."""
        self._closing.set()
        self._thread.join()
        for worker in self.workers:
            worker.kill()
