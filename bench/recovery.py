"""``python -m bench.recovery``: from an empty worker to a running one, beside a raw read of the same changelogs.

One campaign's state is made by ``core`` and copied under other campaign ids, so that the changelogs hold what a worker
would have written, without the hours that it would have taken.
"""

import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
from confluent_kafka import KafkaError, Producer, TopicPartition
from rich.console import Console

from bench.catch_up import worker_environment
from bench.process import peak_rss_bytes, require_proc
from bench.trial import TooSlow, load_average, own_topics
from core.aggregate import Aggregate, TableWrite, rollup_record
from core.campaigns import Campaigns
from core.ingest import Ingest
from schemas import topics as names
from schemas.envelope import target_partition
from schemas.event import DAY_MS
from schemas.platform import Platform
from stream_app.domain import insight_config
from stream_app.errors import ParallaxError
from stream_app.groupless import groupless
from stream_app.local_worker import LocalWorker
from stream_app.records import Record
from stream_app.settings import Settings
from stream_app.topics import blocks_changelog, campaigns_changelog, create, name
from tests.servers import running_kafka

STAND_IN: Final = b"zzzzzz"
META: Final = names.METRICS_TOPICS[Platform.META]
STARTED_S: Final = 600.0
CHUNK: Final = 10_000

Table = dict[bytes, bytes]


class State(NamedTuple):
    """One campaign's table contents, and how many records of the hops they rest on."""

    blocks: Table
    campaigns: Table
    routed: list[bytes]
    rollups: list[tuple[bytes, bytes]]


@click.command()
@click.option("--campaigns", type=click.IntRange(1, 999_999), default=100_000, show_default=True)
@click.option("--days", type=click.IntRange(1, 60), default=14, show_default=True)
@click.option("--partitions", type=click.IntRange(1, 64), default=4, show_default=True)
@click.option("--store", type=click.Choice(["memory", "rocksdb"]), default="memory", show_default=True)
def main(campaigns: int, days: int, partitions: int, store: str) -> None:
    """Measure a worker's recovery on the tests' Kafka (PARALLAX_TEST_KAFKA, else one of its own)."""
    console = Console()
    try:
        require_proc()
        with running_kafka() as bootstrap, tempfile.TemporaryDirectory(prefix="parallax-bench-") as folder:
            empty, _, _ = _measure(bootstrap, Path(folder), 0, days, partitions, store, console)
            seconds, raw, rss = _measure(bootstrap, Path(folder), campaigns, days, partitions, store, console)
    except ParallaxError as error:
        click.echo(f"bench: {error}", err=True)
        sys.exit(error.exit_code)
    recovery = seconds - empty
    console.print(
        f"{campaigns:,} campaigns of {days} days, {store}: raw read {raw:.1f} s; ready after {seconds:.1f} s, without"
        f" state after {empty:.1f} s; recovery {recovery:.1f} s, [bold]{recovery / raw:.2f}[/bold] times the raw read;"
        f" peak memory {rss / 2**20:,.0f} MiB"
    )


def _measure(
    bootstrap: str, folder: Path, campaigns: int, days: int, partitions: int, store: str, console: Console
) -> tuple[float, float, int]:
    """Seconds until the worker is ready, seconds of a raw read, and the worker's peak memory in bytes."""
    with own_topics(bootstrap) as prefix:
        settings = Settings(
            kafka_bootstrap=bootstrap,
            topic_prefix=prefix,
            partitions=partitions,
            datadir=folder / prefix,
            cache_enabled=False,
            store=store,  # type: ignore[arg-type] # click has checked it
        )
        create(settings)
        if campaigns:
            records, size = _fill(settings, campaigns, days)
            console.print(f"{records:,} records, {size / 2**20:,.0f} MiB in the changelogs; load {load_average()}")
        raw = _raw_read(settings)
        began = time.monotonic()
        worker = LocalWorker(worker_environment(settings), folder / f"{prefix}.log")
        try:
            while not ((status := worker.status()) and status["ready"]):
                if time.monotonic() - began > STARTED_S:
                    raise TooSlow(f"the worker was not ready within {STARTED_S:.0f} s: {worker.last_line()}")
                time.sleep(0.02)
            return time.monotonic() - began, raw, peak_rss_bytes(worker.process.process.pid)
        finally:
            worker.process.kill()


def one_campaign(settings: Settings, days: int) -> State:
    """What ``core`` holds of one campaign that has reported for some days, the last one today."""
    now_ms = time.time_ns() // 1_000_000
    today = now_ms // DAY_MS
    records = [
        Record(
            topic=META,
            partition=0,
            offset=number,
            timestamp=now_ms,
            timestamp_type=1,
            key=None,
            value=_row(today - days + 1 + number, now_ms),
            headers=(),
        )
        for number in range(days)
    ]
    ingested = Ingest(partitions=1).batch(records[0].topic, 0, records)
    aggregate, campaigns = Aggregate(), Campaigns(insight_config(settings))
    blocks: Table = {}
    held: Table = {}
    rollups: list[tuple[bytes, bytes]] = []
    routed = [payload for _, payload in ingested.envelopes]
    for offset, payload in enumerate([*routed, *(payload for _, payload in _heartbeat(records[0].topic))]):
        aggregate.apply(offset, payload)
        writes, messages = aggregate.take_writes(publish=True)
        _put(blocks, writes)
        rollups += [rollup_record(message) for message in messages]
    for offset, (_, payload) in enumerate([*rollups, rollups[-1]]):
        campaigns.apply(offset, payload)
        _put(held, campaigns.take(offset * 10_000, preliminary=True).writes)
    return State(blocks, held, routed, rollups)


def _heartbeat(topic: str) -> list[tuple[int, bytes]]:
    return Ingest(partitions=1).heartbeat(topic, 0, 1, idle=False)


def _put(table: Table, writes: Iterable[TableWrite]) -> None:
    for key, value in writes:
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value


def _row(day: int, now_ms: int) -> bytes:
    return (
        b'{"version": 1, "kind": "snapshot", "platform": "meta", "campaign_id": "zzzzzz", "account_id": "act_1",'
        b' "time_zone": "UTC", "currency": "USD", "period_start": %d, "period_end": %d, "observed_at": %d,'
        b' "impressions": 12345, "clicks": 321, "spend_micros": 45670000, "conversions": 7}'
        % (day * DAY_MS, (day + 1) * DAY_MS, now_ms)
    )


def _fill(settings: Settings, campaigns: int, days: int) -> tuple[int, int]:
    """Write the changelogs, and hops as long as the state says that they are. Records and bytes written."""
    state = one_campaign(settings, days)
    producer = Producer(
        settings.confluent_config()
        | {"linger.ms": 50, "batch.size": 1 << 20, "queue.buffering.max.messages": 1_000_000}
    )
    written = size = 0

    def send(topic: str, partition: int, key: bytes | None, value: bytes) -> None:
        nonlocal written, size
        while True:
            try:
                producer.produce(topic, value, key, partition)
                break
            except BufferError:
                producer.poll(0.1)
        written += 1
        size += len(value) + len(key or b"")

    for partition in range(settings.partitions):
        for _ in range(1 + len(state.routed) + 1):
            send(name(settings, names.ROUTED), partition, None, _heartbeat(META)[0][1])
        for key, value in [*state.rollups, state.rollups[-1]]:
            send(name(settings, names.ROLLUPS), partition, key, value)
    written = size = 0
    for topic, table in ((blocks_changelog(settings), state.blocks), (campaigns_changelog(settings), state.campaigns)):
        shared = [(key, value) for key, value in table.items() if STAND_IN not in key]
        own = [(key, value) for key, value in table.items() if STAND_IN in key]
        for number in range(campaigns):
            campaign = b"%06d" % number
            partition = target_partition(f"meta:{campaign.decode()}", settings.partitions)
            for key, value in own:
                send(topic, partition, key.replace(STAND_IN, campaign), value.replace(STAND_IN, campaign))
        for partition in range(settings.partitions):
            for key, value in shared:
                send(topic, partition, key, value)
    if left := producer.flush(60):
        raise TooSlow(f"{left} records could not be written")
    return written, size


def _raw_read(settings: Settings) -> float:
    """Seconds in which a client reads both changelogs and does nothing with what it reads."""
    consumer = groupless(settings, "raw", {"fetch.wait.max.ms": 50, "queued.max.messages.kbytes": 65_536})
    waiting = {
        (topic, partition)
        for topic in (blocks_changelog(settings), campaigns_changelog(settings))
        for partition in range(settings.partitions)
    }
    began = time.monotonic()
    consumer.assign([TopicPartition(topic, partition, 0) for topic, partition in sorted(waiting)])
    while waiting:
        messages: list[Any] = consumer.consume(CHUNK, 0.2)
        for message in messages:
            error = message.error()
            if error is not None and error.code() == KafkaError._PARTITION_EOF:
                waiting.discard((message.topic(), message.partition()))
    seconds = time.monotonic() - began
    consumer.close()
    return seconds


if __name__ == "__main__":
    main()
