"""A partition's checkpoints on a real broker: one owner at a time, whole or not at all, recovered as they were."""

import asyncio
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import ProducerFenced
from confluent_kafka.admin import AdminClient, NewTopic

from core.aggregate import TableWrite
from stream_app.partition_writer import TenureLost, TransactionalWriter
from stream_app.producer import Outgoing
from stream_app.settings import Settings
from stream_app.store import MemoryStore, RocksStore, Store
from stream_app.table import ChangelogTable

pytestmark = pytest.mark.kafka
ROUNDS = 60


@pytest.fixture
def settings(kafka: str, tmp_path: Path) -> Iterator[Settings]:
    settings = Settings(
        kafka_bootstrap=kafka, topic_prefix=f"fencing-{uuid.uuid4().hex[:8]}.", datadir=tmp_path, partitions=2
    )
    admin = AdminClient(settings.confluent_config() | {"log_level": 0})
    topics = [settings.topic_prefix + topic for topic in ("changelog", "outputs")]
    for future in admin.create_topics([NewTopic(topic, 2, 1) for topic in topics]).values():
        future.result(timeout=30)
    yield settings
    for future in admin.delete_topics(topics).values():
        future.result(timeout=30)


def table_of(settings: Settings, open_store: Callable[[int], Store] | None = None) -> ChangelogTable:
    return ChangelogTable(
        settings, settings.topic_prefix + "changelog", open_store or (lambda _partition: MemoryStore())
    )


def recovered(settings: Settings, topic: str = "changelog", partition: int = 0) -> dict[bytes, bytes]:
    table = ChangelogTable(settings, settings.topic_prefix + topic, lambda _partition: MemoryStore())
    table.recover({partition}, threading.Event())
    return dict(table.contents(partition))


def one(settings: Settings, topic: str, key: bytes, value: bytes | None) -> Outgoing:
    return Outgoing(settings.topic_prefix + topic, 0, key, value)


async def stalled_in_a_transaction(writer: TransactionalWriter, records: list[Outgoing]) -> Any:
    """What a worker leaves behind that stops between its sends and its commit: both are the broker's by then."""
    producer = writer._producer
    await producer._producer.begin_transaction()
    await producer.send(records)
    return producer


def test_what_a_zombie_writes_is_refused_60_times_of_60(settings: Settings) -> None:
    """Scenario: an owner stalls, before its checkpoint or in the middle of it; another takes over and writes; the first
    goes on.

    Expectation: each of its writes is refused, and nobody ever reads one, in the changelog or in the outputs.
    """

    async def run() -> int:
        refused = 0
        for number in range(ROUNDS):
            zombie, heir = TransactionalWriter(settings, "s", 0), TransactionalWriter(settings, "s", 0)
            await zombie.open()
            stale = [one(settings, "changelog", b"block", b"zombie %d" % number)]
            told = [one(settings, "outputs", b"insight", b"zombie %d" % number)]
            half = await stalled_in_a_transaction(zombie, [*stale, *told]) if number % 2 else None
            await heir.open()
            await heir.write(
                [one(settings, "changelog", b"block", b"heir %d" % number)],
                [one(settings, "outputs", b"insight", b"heir %d" % number)],
            )
            with pytest.raises(TenureLost if half is None else ProducerFenced):
                await (zombie.write(stale, told) if half is None else half._producer.commit_transaction())
            refused += 1
            zombie._lost = True
            await asyncio.gather(zombie.close(), heir.close())
            if number % 10 == 9:
                for topic, key in (("changelog", b"block"), ("outputs", b"insight")):
                    held = await asyncio.to_thread(recovered, settings, topic)
                    assert held == {key: b"heir %d" % number}
        return refused

    assert asyncio.run(run()) == ROUNDS


def test_a_writer_that_lost_its_tenure_writes_nothing_more(settings: Settings) -> None:
    async def run() -> None:
        first, second = TransactionalWriter(settings, "s", 0), TransactionalWriter(settings, "s", 0)
        await first.open()
        await second.open()
        for _ in range(2):
            with pytest.raises(TenureLost):
                await first.write([one(settings, "changelog", b"k", b"v")], [])
        await second.write([one(settings, "changelog", b"k", b"w")], [])
        await asyncio.gather(first.close(), second.close())

    asyncio.run(run())
    assert recovered(settings) == {b"k": b"w"}


@pytest.mark.parametrize("kind", ["memory", "rocksdb"])
def test_recovery_reads_what_was_committed_and_only_what_is_not_held(
    settings: Settings, tmp_path: Path, kind: str
) -> None:
    """Scenario: two checkpoints, one that is never committed, a recovery, a third checkpoint, a recovery again.

    Expectation: the committed ones alone, tombstones heeded; the second recovery reads the third checkpoint alone. One
    that comes back to its disk reads nothing.
    """

    def open_store(partition: int) -> Store:
        return MemoryStore() if kind == "memory" else RocksStore(tmp_path / f"p{partition}")

    def changelog(*writes: tuple[bytes, bytes | None]) -> list[Outgoing]:
        return [one(settings, "changelog", key, value) for key, value in writes]

    async def write(*checkpoints: list[Outgoing]) -> None:
        writer = TransactionalWriter(settings, "s", 0)
        await writer.open()
        for checkpoint in checkpoints:
            await writer.write(checkpoint, [])
        await stalled_in_a_transaction(writer, changelog((b"a", b"never"), (b"d", b"never")))
        writer._lost = True
        await writer.close()

    many = [(b"n%06d" % number, b"x" * 100) for number in range(20_000)]
    asyncio.run(write(changelog((b"a", b"1"), (b"b", b"1"), *many), changelog((b"a", b"2"), (b"b", None))))
    asyncio.run(write())
    table = table_of(settings, open_store)
    table.recover({0, 1}, threading.Event())
    assert dict(table.contents(0).items()) == {b"a": b"2", **dict(many)}
    assert not dict(table.contents(1).items())
    assert table.recovered.records == 20_004

    asyncio.run(write(changelog((b"c", b"3"))))
    asyncio.run(write())
    table.recover({0}, threading.Event())
    assert table.contents(0)[b"c"] == b"3"
    assert table.recovered.records == 1
    table.keep(set(), threading.Event())
    if kind == "rocksdb":
        again = table_of(settings, open_store)
        again.recover({0}, threading.Event())
        assert again.recovered.records == 0
        assert dict(again.contents(0).items()) == {b"a": b"2", b"c": b"3", **dict(many)}
        again.keep(set(), threading.Event())


def test_a_store_of_another_changelog_is_not_believed(settings: Settings) -> None:
    store = MemoryStore()
    store.put([TableWrite(b"old", b"1")], 1_000)
    table = table_of(settings, lambda _partition: store)
    table.recover({0}, threading.Event())
    assert dict(table.contents(0)) == {}
