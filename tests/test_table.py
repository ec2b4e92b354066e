"""Recovery of a table: one at a time, however suddenly the one before was called off."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from aiokafka.structs import TopicPartition
from confluent_kafka import KafkaError

from core.aggregate import TableWrite
from schemas import topics as names
from stream_app.app import ParallaxApp
from stream_app.settings import Settings
from stream_app.store import MemoryStore
from stream_app.table import ChangelogTable
from tests.memory_kafka import MemoryKafka, until
from tests.stock_faust import Worker, no_kafka, play

__all__ = ["no_kafka"]


class EndOfPartition:
    def code(self) -> int:
        return int(KafkaError._PARTITION_EOF)


class Message(NamedTuple):
    at: int
    written: TableWrite | None

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self.at

    def error(self) -> EndOfPartition | None:
        return EndOfPartition() if self.written is None else None

    def key(self) -> bytes:
        assert self.written is not None
        return self.written.key

    def value(self) -> bytes | None:
        assert self.written is not None
        return self.written.value


class Changelog:
    """What stands in for ``confluent_kafka.Consumer``: some fetches, each of which may have to wait for something."""

    def __init__(self, *fetches: tuple[Callable[[], object], list[Message]]) -> None:
        self._fetches = list(fetches)

    def __call__(self, _settings: Any) -> "Changelog":
        return self

    def get_watermark_offsets(self, _tp: Any, **_: Any) -> tuple[int, int]:
        return 0, 2

    def assign(self, _partitions: Any) -> None: ...

    def consume(self, _count: int, _timeout: float) -> list[Message]:
        wait, messages = self._fetches.pop(0)
        wait()
        return messages

    def close(self) -> None: ...


OLD = Message(0, TableWrite(b"key", b"old"))
NEW = Message(1, TableWrite(b"key", b"new"))
END = Message(2, None)


def test_a_recovery_that_was_called_off_writes_nothing_over_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenario: a rebalance calls a recovery off while its thread holds what it has just fetched; the partition comes
    back, and is recovered in another thread.

    Expectation: the store holds the newest values, whichever thread is the slower.
    """
    asked, answer = threading.Event(), threading.Event()

    def slow() -> None:
        asked.set()
        answer.wait(30)

    recovered = ChangelogTable(Settings(), "changelog", lambda _partition: MemoryStore())
    called_off = threading.Event()
    monkeypatch.setattr("stream_app.groupless.Consumer", Changelog((slow, [OLD]), (lambda: None, [])))
    first = threading.Thread(target=recovered.recover, args=({0}, called_off))
    first.start()
    assert asked.wait(30)
    called_off.set()
    monkeypatch.setattr("stream_app.groupless.Consumer", Changelog((lambda: None, [OLD, NEW]), (lambda: None, [END])))
    second = threading.Thread(target=recovered.recover, args=({0}, threading.Event()))
    second.start()
    second.join(0.2)
    answer.set()
    first.join(30)
    second.join(30)
    assert dict(recovered.contents(0)) == {b"key": b"new"}


def test_what_was_called_off_lets_go_of_nothing_that_came_back() -> None:
    held = ChangelogTable(Settings(), "changelog", lambda _partition: MemoryStore())
    held.written(0, [TableWrite(b"key", b"value")], {})
    called_off = threading.Event()
    called_off.set()
    held.keep(set(), called_off)
    assert dict(held.contents(0)) == {b"key": b"value"}
    held.keep(set(), threading.Event())
    assert dict(held.contents(0)) == {}


@pytest.mark.usefixtures("no_kafka")
def test_a_worker_stops_while_it_recovers() -> None:
    """What is being opened is called off and given up too: a recovery may take minutes, a stop may not."""
    recovering, ended = threading.Event(), threading.Event()

    def recover(_partitions: set[int], cancelled: threading.Event) -> None:
        recovering.set()
        cancelled.wait(20)
        ended.set()

    def opening_worker(kafka: MemoryKafka) -> Worker:
        settings = Settings(
            kafka_bootstrap="127.0.0.1:9", cache_enabled=False, health_port=0, partitions=1, fencing="none"
        )
        app = ParallaxApp(settings)
        app.aggregate._table.recover = recover  # type: ignore[method-assign,assignment]
        return Worker(app, kafka, names.INGEST_TOPICS[0], names.DEAD_LETTERS)

    async def script(worker: Worker) -> None:
        await worker.assign(TopicPartition(names.ROUTED, 0))
        opening = asyncio.create_task(worker.app.open_assigned())
        await until(recovering.is_set, "a recovery is under way")
        assert worker.app.aggregate.held == {0}
        await asyncio.wait_for(worker.app.on_stop(), 5)
        assert await asyncio.to_thread(ended.wait, 5)
        await asyncio.wait_for(opening, 5)
        assert worker.app.aggregate.held == set()
        # The last resort is the worker's, whose process this is not.
        assert not [one for one in threading.enumerate() if isinstance(one, threading.Timer)]

    play(opening_worker, script)
