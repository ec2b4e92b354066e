"""A Faust agent as it is usually written: a table of sums by campaign, one event at a time.

``python -m bench.plain_agent BOOTSTRAP PREFIX EVENTS RESULT [--send]`` consumes ``PREFIX`` + ``events`` and, after
EVENTS of them and a flush of the producer, writes what it measured to the file RESULT. With ``--send`` the updated
totals go to ``PREFIX`` + ``totals`` too.
"""

import argparse
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faust
import msgspec

from bench.workload import METRICS

Table = dict[str, dict[str, dict[str, int]]]


class Result(msgspec.Struct, frozen=True):
    """Seconds and CPU seconds from the first event to the flush behind the last, peak memory, and the table."""

    seconds: float
    cpu_seconds: float
    peak_rss_bytes: int
    table: Table


def application(bootstrap: str, prefix: str, partitions: int, datadir: Path, *, send: bool, meter: "Meter") -> Any:
    """The Faust application. ``meter`` is told of every event; nothing of the rest is about measuring."""
    app = faust.App(
        f"{prefix}plain",
        broker=f"kafka://{bootstrap}",
        topic_partitions=partitions,
        datadir=str(datadir),
        web_enabled=False,
    )
    events = app.topic(f"{prefix}events", key_type=str, value_serializer="json")
    updates = app.topic(f"{prefix}totals", key_type=str, value_serializer="json", partitions=partitions)
    totals = app.Table("campaign-totals", default=dict, partitions=partitions)

    @app.agent(events)
    async def count(stream: Any) -> None:
        async for event in stream:
            meter.began()
            campaign = event["campaign_id"]
            by_platform = totals[campaign]
            sums = by_platform.setdefault(event["platform"], dict.fromkeys(METRICS, 0))
            for metric in METRICS:
                sums[metric] += event[metric]
            totals[campaign] = by_platform
            if send:
                await updates.send(key=campaign, value=by_platform)
            if meter.is_last():
                await app.producer.flush()
                meter.ended(dict(totals.items()))

    return app


class Meter:
    """Counts events, and writes a ``Result`` when told that all is done."""

    def __init__(self, events: int, result: Path) -> None:
        self._left = events
        self._result = result
        self._started: tuple[float, float] | None = None

    def began(self) -> None:
        """Work on an event begins."""
        if self._started is None:
            self._started = time.perf_counter(), _cpu_seconds()
        self._left -= 1

    def is_last(self) -> bool:
        """Whether the event in work is the last one."""
        return self._left == 0

    def ended(self, table: Table) -> None:
        """Everything is done and sent."""
        wall, cpu = self._started or (0.0, 0.0)
        result = Result(
            time.perf_counter() - wall,
            _cpu_seconds() - cpu,
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            table,
        )
        unfinished = self._result.with_suffix(".unfinished")
        unfinished.write_bytes(msgspec.json.encode(result))
        unfinished.rename(self._result)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the agent until it is killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bootstrap")
    parser.add_argument("prefix")
    parser.add_argument("events", type=int)
    parser.add_argument("result", type=Path)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--send", action="store_true")
    given = parser.parse_args(arguments)
    meter = Meter(given.events, given.result)
    app = application(
        given.bootstrap, given.prefix, given.partitions, given.result.parent, send=given.send, meter=meter
    )
    app.Worker(loglevel="WARNING", redirect_stdouts=False, console_port=0).execute_from_commandline()


if __name__ == "__main__":
    main()
