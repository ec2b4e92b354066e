"""How fast the plain Faust agent of ``bench.plain_agent`` goes, on the first events of the same workload."""

import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import msgspec
from confluent_kafka.admin import NewTopic

from bench.plain_agent import Result, Table
from bench.trial import ANSWER_S, Measured, TooSlow, admin_of, load_average, own_topics
from bench.workload import METRICS, Sums, Workload
from stream_app.embedded import Tethered
from stream_app.feed import Feed
from stream_app.settings import Settings

STARTED_S: Final = 90.0
SLOWEST: Final = 100
"""Events per second below which a run is given up."""
POLL_S: Final = 0.1


def measure(bootstrap: str, workload: Workload, events: int, partitions: int, *, send: bool) -> Measured:
    """Publish ``events``, then start the agent and wait for its result. Raises ``ParallaxError``."""
    with (
        own_topics(bootstrap) as prefix,
        tempfile.TemporaryDirectory(prefix="parallax-bench-") as folder,
    ):
        # Left to the agent, the changelog is now and then made by the broker first, with one partition.
        _create(bootstrap, [f"{prefix}plain-campaign-totals-changelog"], partitions, {"cleanup.policy": "compact"})
        _create(bootstrap, [f"{prefix}events", f"{prefix}totals"], partitions, {"retention.ms": "-1"})
        feed = Feed(Settings(kafka_bootstrap=bootstrap, topic_prefix=prefix), keep=False)
        feed.publish(workload.plain("events", events))
        load = load_average()
        started = time.monotonic()
        result = _run(bootstrap, prefix, events, partitions, Path(folder), send=send)
        seconds_from_start = time.monotonic() - started
    return Measured(
        events=events,
        seconds=result.seconds,
        cpu_seconds=result.cpu_seconds,
        peak_rss_bytes=result.peak_rss_bytes,
        load=load,
        seconds_from_start=seconds_from_start,
        wrong=[] if _sums(result.table) == workload.sums(events) else ["the plain agent's sums are wrong"],
    )


def _create(bootstrap: str, topics: list[str], partitions: int, config: dict[str, str]) -> None:
    wanted = [NewTopic(topic, num_partitions=partitions, replication_factor=1, config=config) for topic in topics]
    admin = admin_of(bootstrap)
    for answer in admin.create_topics(wanted, operation_timeout=ANSWER_S).values():
        answer.result(timeout=ANSWER_S)


def _run(bootstrap: str, prefix: str, events: int, partitions: int, folder: Path, *, send: bool) -> Result:
    result = folder / "result.json"
    command: list[str | Path] = [sys.executable, "-m", "bench.plain_agent", bootstrap, prefix, str(events), result]
    command += ["--partitions", str(partitions), *(["--send"] if send else [])]
    log = folder / "agent.log"
    with log.open("ab") as output:
        agent = Tethered(command, output=output, cwd=Path.cwd(), env=None)
    deadline_seconds = STARTED_S + events / SLOWEST
    end = time.monotonic() + deadline_seconds
    try:
        while not result.exists():
            if time.monotonic() > end or not agent.running:
                last = log.read_text(errors="replace").strip().rpartition("\n")[2]
                raise TooSlow(f"the plain agent gave no result within {deadline_seconds:.0f} s: {last}")
            time.sleep(POLL_S)
    finally:
        # It may hang on SIGTERM, and nothing of it is needed any more.
        agent.kill()
    return msgspec.json.decode(result.read_bytes(), type=Result)


def _sums(table: Table) -> Sums:
    return {
        (campaign, platform): tuple(sums[metric] for metric in METRICS)
        for campaign, by_platform in table.items()
        for platform, sums in by_platform.items()
    }
