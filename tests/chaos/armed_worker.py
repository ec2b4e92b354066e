"""A worker that ends or stalls at a chosen step of its work, when a file tells it so: ``python -m`` this module.

The file holds ``point action count``: at the count-th time that the point is reached, the file is removed and the
worker ends at once as by kill -9 (``exit``), or is stopped as by SIGSTOP (``stop``), which the harness may continue.
"""

import functools
import importlib
import inspect
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

TRIGGER: Final = "PARALLAX_TEST_TRIGGER"
EXIT_CODE: Final = 86
NO_SUCH_POINT: Final = 87


class Point(NamedTuple):
    """A method of some class of a module, and whether the point lies before its call or after its end."""

    module: str
    method: str
    after: bool = False


POINTS: Final = {
    "decoded": Point("ingest_stage", "_outgoing", after=True),
    "source batch durable": Point("batch_transport", "finish"),
    "checkpoint taken": Point("table", "outgoing"),
    "records sent": Point("producer", "send", after=True),
    "changelog written": Point("table", "written"),
    "before redis": Point("hot_writer", "flush"),
    "after redis": Point("hot_writer", "flush", after=True),
    "before commit": Point("batch_transport", "_commit_offsets"),
    "after commit": Point("batch_transport", "_commit_offsets", after=True),
    "partitions revoked": Point("app", "_before_revoke"),
    "checkpoint before revocation": Point("app", "_before_revoke", after=True),
}


class Trigger:
    """Looks for the file whenever a point is reached."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reached: dict[tuple[int, str], int] = {}

    def reached(self, point: str) -> None:
        """End or stop here, if that is what the file says."""
        try:
            stamp = self._path.stat().st_mtime_ns
            wanted, action, count = self._path.read_text().rsplit(" ", 2)
        except (OSError, ValueError):
            return
        if wanted != point:
            return
        seen = self._reached[stamp, point] = self._reached.get((stamp, point), 0) + 1
        if seen < int(count):
            return
        self._path.unlink(missing_ok=True)
        os.write(2, f"armed worker: {action} at {point!r}\n".encode())
        if action == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        else:
            os._exit(EXIT_CODE)


def arm(trigger: Trigger) -> list[str]:
    """Put the trigger at every point; the names of those that there are not."""
    missing = []
    for name, point in POINTS.items():
        module = importlib.import_module(f"stream_app.{point.module}")
        owners = [
            found
            for found in vars(module).values()
            if inspect.isclass(found) and found.__module__ == module.__name__ and point.method in vars(found)
        ]
        if not owners:
            missing.append(name)
        for owner in owners:
            setattr(owner, point.method, _armed(vars(owner)[point.method], name, point.after, trigger))
    return missing


def _armed(method: Callable[..., Any], name: str, after: bool, trigger: Trigger) -> Callable[..., Any]:
    @functools.wraps(method)
    async def waiting(*args: Any, **kwargs: Any) -> Any:
        if not after:
            trigger.reached(name)
        result = await method(*args, **kwargs)
        if after:
            trigger.reached(name)
        return result

    @functools.wraps(method)
    def direct(*args: Any, **kwargs: Any) -> Any:
        if not after:
            trigger.reached(name)
        result = method(*args, **kwargs)
        if after:
            trigger.reached(name)
        return result

    return waiting if inspect.iscoroutinefunction(method) else direct


def main() -> None:
    """Run ``parallax worker`` with the trigger in place; ends the process."""
    missing = arm(Trigger(Path(os.environ[TRIGGER])))
    if missing:
        print(f"armed worker: there is no such point any more: {', '.join(missing)}", file=sys.stderr)
        sys.exit(NO_SUCH_POINT)
    sys.argv = ["parallax", "worker"]
    importlib.import_module("stream_app.cli").main()


if __name__ == "__main__":
    main()
