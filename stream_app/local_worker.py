"""A worker in a process of its own on this machine, and how far it is: for the demo, tests and benchmarks."""

import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaException, TopicPartition

from schemas import topics as names
from stream_app.embedded import Tethered, free_port
from stream_app.errors import ParallaxError
from stream_app.groupless import groupless
from stream_app.settings import Settings
from stream_app.topics import name

POLL_S: Final = 0.1


class WorkerEnded(ParallaxError):
    """The worker's process ended on its own."""


class LocalWorker:
    """Runs ``parallax worker``. ``environment`` is its whole environment; its output goes to ``log``."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self.port = free_port()
        self.log = log
        with log.open("ab") as output:
            self.process = Tethered(
                [sys.executable, "-m", "stream_app", "worker"],
                output=output,
                cwd=Path.cwd(),
                env={**environment, "PARALLAX_HEALTH_PORT": str(self.port), "PYTHONUNBUFFERED": "1"},
            )

    def status(self) -> dict[str, Any] | None:
        """What the worker says of itself, None while it does not answer. Raises ``WorkerEnded``."""
        if not self.process.running:
            raise WorkerEnded(f"the worker ended with exit code {self.process.process.returncode}: {self.last_line()}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health/", timeout=10) as answer:
                found: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            found = json.load(error)
        except (OSError, ValueError):
            return None
        return found

    def last_line(self) -> str:
        """The last line that the worker wrote."""
        lines = self.log.read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing")


class Drained:
    """Tells when workers have nothing left to do for what has been published.

    Positions are compared with the topics' ends, and nothing may be owed: rollups not sent, windows not published,
    Redis entries not written. Two looks in a row must agree, since one hop may fill the next between them.
    """

    def __init__(self, settings: Settings) -> None:
        self._hops = {base: name(settings, base) for base in (names.ROUTED, names.ROLLUPS)}
        self._partitions = settings.partitions
        self._consumer = groupless(settings, "drained", {})

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()

    def remaining(self, statuses: Iterable[dict[str, Any] | None], records: int) -> int:
        """How much is left to do, in the units of whatever is left; ``records`` have been published to the inputs."""
        known = [status for status in statuses if status is not None]
        counted = sum(status["accounting"]["records"] for status in known)
        left: int = abs(records - counted)
        for base, topic in self._hops.items():
            positions = {int(p): at for status in known for p, at in status["positions"][base].items()}
            for partition in range(self._partitions):
                end = int(self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)[1])
                left += max(0, end - 1 - positions.get(partition, -1))
        for status in known:
            left += sum(stage["writing"] for stage in status["checkpoints"].values())
            left += status["owed_rollups"] + status["waiting_windows"] + status["redis"].get("pending", 0)
        return left

    def wait(self, workers: Iterable[LocalWorker], records: int, deadline_seconds: float) -> bool:
        """Wait until nothing remains; whether that came about in time. Raises ``WorkerEnded``."""
        workers = list(workers)
        end = time.monotonic() + deadline_seconds
        quiet = 0
        while time.monotonic() < end:
            try:
                left = self.remaining([worker.status() for worker in workers], records)
            except KafkaException:
                # A broker that comes back leads its partitions only a moment later.
                left = 1
            quiet = quiet + 1 if left == 0 else 0
            if quiet == 2:
                return True
            time.sleep(POLL_S)
        return False
