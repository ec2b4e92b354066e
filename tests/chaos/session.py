"""A run of faults, one after another: a seed, a folder for logs, an application for as long as nothing is wrong."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.chaos.cluster import Application, Servers
from tests.chaos.trial import Fault, Result, Trial

SHORT: Final = {"values": 150, "per_second": 800}
LONG: Final = {"values": 1_000, "per_second": 1_500}
KEPT_ACKNOWLEDGEMENTS: Final = 200_000


class Session:
    """Runs faults. With ``long`` each has an application of its own; else they share one until something is wrong."""

    def __init__(self, on: Servers, seed: int, *, long: bool, kept: Path | None = None) -> None:
        self._servers = on
        self._seed = seed
        self._long = long
        self._applications = 0
        self.kept = kept or Path(tempfile.mkdtemp(prefix="parallax-chaos-"))

    def run(
        self, faults: Sequence[type[Fault]], told: Callable[[Result], None] = lambda _result: None
    ) -> Iterator[tuple[Result, Application]]:
        """Each fault's result and its application, which lives until the next is asked for."""
        waiting = list(faults)
        while waiting:
            with self._application(waiting[0]) as app:
                while waiting:
                    fault = waiting.pop(0)
                    result = Trial(app, fault(), self._seed, long=self._long).run()
                    if not result.ok:
                        self._keep(app, result)
                    told(result)
                    yield result, app
                    if self._long or not result.ok:
                        break

    @contextlib.contextmanager
    def _application(self, first: type[Fault]) -> Iterator[Application]:
        self._applications += 1
        run = f"s{self._seed}-{self._applications}-{self.kept.name[-8:]}"
        with tempfile.TemporaryDirectory(prefix="parallax-chaos-app-", ignore_cleanup_errors=True) as folder:
            app = Application(
                self._servers,
                Path(folder),
                run,
                self._seed,
                workers=first.workers,
                **(LONG if self._long else SHORT),
            )
            try:
                yield app
            finally:
                app.close()

    def _keep(self, app: Application, result: Result) -> None:
        """The history and logs of what went wrong."""
        folder = self.kept / result.fault.replace(" ", "-").replace(">", "")
        app.keep(folder)
        broker = self._servers.kafka.log
        if broker.exists():
            shutil.copy(broker, folder / "kafka.log")
        (folder / "result.json").write_text(json.dumps(result.as_dict(), indent=1, default=str))
        stream = app.stream
        _write(folder / "acknowledged.jsonl", (list(told) for told in stream.acknowledged[-KEPT_ACKNOWLEDGEMENTS:]))
        _write(folder / "indeterminate.jsonl", (list(map(str, told)) for told in stream.indeterminate))
        _write(folder / "exits.jsonl", (gone._asdict() for gone in app.supervisor.exits))
        _write(folder / "pages.jsonl", ({str(w.number): page} for w, page in app.statuses().items()))


def _write(path: Path, rows: Iterable[object]) -> None:
    with path.open("w") as file:
        for row in rows:
            file.write(json.dumps(row, default=str) + "\n")
