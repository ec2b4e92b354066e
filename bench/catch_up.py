"""How fast the production worker catches up: ``parallax worker``, with Redis, on a backlog that waits for it."""

import os
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench.process import cpu_seconds, peak_rss_bytes
from bench.trial import Measured, TooSlow, load_average, own_topics
from bench.workload import METRICS, Workload
from stream_app.embedded import embedded_redis
from stream_app.errors import ParallaxError
from stream_app.feed import Feed
from stream_app.local_worker import Drained, LocalWorker
from stream_app.outputs import Outputs
from stream_app.settings import PREFIX, UNPREFIXED, Settings, shown, variable
from stream_app.topics import create

STARTED_S: Final = 90.0
SLOWEST: Final = 2_000
"""Events per second below which a run is given up."""
BUSY_POLL_S: Final = 0.1
NEAR_POLL_S: Final = 0.02


def measure(bootstrap: str, workload: Workload, partitions: int) -> Measured:
    """Publish everything, then start a worker with default settings and time it until nothing is left to do.

    The clock runs from the worker's first batch until every hop is read to its end, all insights are out, Redis is
    written, and nothing is owed. Raises ``ParallaxError``.
    """
    with (
        own_topics(bootstrap) as prefix,
        embedded_redis() as (redis_host, redis_port),
        tempfile.TemporaryDirectory(prefix="parallax-bench-") as folder,
    ):
        settings = Settings(
            kafka_bootstrap=bootstrap,
            topic_prefix=prefix,
            partitions=partitions,
            datadir=Path(folder) / "data",
            cache_enabled=True,
            redis_host=redis_host,
            redis_port=redis_port,
        )
        create(settings)
        feed = Feed(settings, keep=False)
        feed.publish(workload.links())
        feed.publish(workload.stream())
        load = load_average()
        started = time.time()
        worker = LocalWorker(worker_environment(settings), Path(folder) / "worker.log")
        drained = Drained(settings)
        try:
            clock = _Clock(worker, drained, feed.count)
            clock.run(STARTED_S + workload.events / SLOWEST)
            rss = peak_rss_bytes(worker.process.process.pid)
        finally:
            drained.close()
            worker.process.stop()
        return Measured(
            events=workload.events,
            seconds=clock.ended - clock.began,
            cpu_seconds=clock.cpu_seconds,
            peak_rss_bytes=rss,
            load=load,
            seconds_from_start=clock.ended - started,
            wrong=[*_miscounted(clock.status, feed.count), *_wrong_sums(settings, workload)],
        )


def worker_environment(settings: Settings) -> dict[str, str]:
    """These settings for the worker, and nothing that this process was told of others."""
    theirs = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(PREFIX) and name not in {field.upper() for field in UNPREFIXED}
    }
    return theirs | {variable(field): shown(getattr(settings, field)) for field in settings.model_fields_set}


class _Quiet(NamedTuple):
    """A look at a worker that has nothing left: when, its CPU time, checkpoints written a stage, insights published."""

    at: float
    cpu_seconds: float
    checkpoints: dict[str, int]
    published: int


class _Clock:
    """Watches a worker. ``began`` and ``ended`` are in seconds since the epoch."""

    def __init__(self, worker: LocalWorker, drained: Drained, records: int) -> None:
        self._worker = worker
        self._drained = drained
        self._records = records
        self._cpu_before = 0.0
        self.began = 0.0
        self.ended = 0.0
        self.cpu_seconds = 0.0
        self.status: dict[str, Any] = {}

    def run(self, deadline_seconds: float) -> None:
        """Watch until nothing is left and nothing is being written.

        A checkpoint takes what is owed before it writes it. So nothing may be left from one look on until both stages
        have ended a checkpoint after it, with no insight published meanwhile. The time of that first look counts.
        """
        end = time.monotonic() + deadline_seconds
        quiet: _Quiet | None = None
        while time.monotonic() < end:
            look = self._look()
            if look is None or quiet is None or look.published != quiet.published:
                quiet = look
            elif all(look.checkpoints[stage] > count for stage, count in quiet.checkpoints.items()):
                self.ended, self.cpu_seconds = quiet.at, quiet.cpu_seconds - self._cpu_before
                return
        raise TooSlow(f"the worker was not done within {deadline_seconds:.0f} s: {self._worker.last_line()}")

    def _look(self) -> "_Quiet | None":
        """What there is to see of a worker that has nothing left, None of any other."""
        cpu = self._cpu()
        status = self._worker.status()
        if status is None or status["ingest"]["first_at"] is None:
            self._cpu_before = cpu
            time.sleep(NEAR_POLL_S)
            return None
        self.began, self.status = status["ingest"]["first_at"], status
        if status["accounting"]["records"] < self._records:
            time.sleep(BUSY_POLL_S)
            return None
        at, cpu = time.time(), self._cpu()
        left = sum(status["lag"].values()) + self._drained.remaining([status], self._records)
        time.sleep(NEAR_POLL_S)
        if left:
            return None
        checkpoints = {stage: written["count"] for stage, written in status["checkpoints"].items()}
        return _Quiet(at, cpu, checkpoints, status["published"])

    def _cpu(self) -> float:
        return cpu_seconds(self._worker.process.process.pid)


def _miscounted(status: dict[str, Any], records: int) -> list[str]:
    applied = status["accounting"]["applied"]
    return [] if applied == records else [f"{applied} of {records} records count as applied"]


def _wrong_sums(settings: Settings, workload: Workload) -> list[str]:
    """Where the 24h insights in their topic differ from what the events add up to."""
    with Outputs(settings) as outputs:
        if not outputs.catch_up(60.0):
            raise ParallaxError("the insights could not be read to their end")
    found: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0] * len(METRICS))
    for insight in outputs.insights.values():
        if insight.window != "24h":
            continue
        for platform, breakdown in insight.platform_breakdown.items():
            (campaign,) = breakdown.platform_campaigns
            own = found[campaign, platform]
            for position, metric in enumerate(METRICS):
                own[position] += getattr(breakdown.totals, metric) or 0
    expected = workload.sums(workload.events)
    wrong = [key for key in expected.keys() | found.keys() if tuple(found.get(key, ())) != expected.get(key)]
    if not wrong:
        return []
    example = ":".join(min(wrong))
    return [f"{len(wrong)} of {len(expected)} sums are wrong in the 24h insights, that of {example} for one"]
