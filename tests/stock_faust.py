"""Workers whose Kafka is in memory: the same situation for stock Faust and for Parallax."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Any

import aiokafka
import faust
import pytest
from aiokafka.structs import TopicPartition
from faust.assignor.client_assignment import ClientAssignment
from faust.types import TP
from mode.utils.futures import notify

from schemas import topics as names
from stream_app.app import ParallaxApp
from stream_app.settings import Settings
from tests.memory_kafka import MemoryKafka, until


class Worker:
    """An application that reads ``source`` and forwards each value to ``sink``, once assigned.

    For Parallax the values are no rows, so ``sink`` is its topic of dead letters.
    """

    def __init__(self, app: Any, kafka: MemoryKafka, source: str, sink: str) -> None:
        self.app = app
        self.kafka = kafka
        self.source = TopicPartition(source, 0)
        self.sink = sink
        self._slow: dict[bytes, asyncio.Event] = {}

    def hold(self, *values: bytes) -> None:
        """Work on these values takes until they are released: in a plain agent its own, in Parallax the broker's."""
        self._slow |= {value: asyncio.Event() for value in values}

    def release(self, *values: bytes) -> None:
        """Let the work on these values, or on all, come to its end."""
        for value in values or list(self._slow):
            self._slow.pop(value).set()

    async def work(self, value: bytes) -> None:
        """The work on a value."""
        if value in self._slow:
            await self._slow[value].wait()

    @property
    def sent(self) -> list[bytes | None]:
        """Values that have come out, in their order."""
        return self.kafka.values(self.sink)

    @property
    def committed(self) -> int | None:
        """The source's committed offset."""
        return self.kafka.committed.get(self.source)

    @property
    def lost(self) -> list[bytes | None]:
        """Values below the committed offset that have not come out: nobody will read them again."""
        read = [record for record in self.kafka.records[self.source] if record.offset < (self.committed or 0)]
        return [record.value for record in read if record.value not in self.sent]

    @property
    def repeated(self) -> list[bytes | None]:
        """Values that have come out more than once."""
        return [value for value, times in Counter(self.sent).items() if times > 1]

    def finished(self, offset: int) -> bool:
        """Whether the consumer was told that a record, or the batch that it ended, is done."""
        consumer, tp = self.app.consumer, TP(*self.source)
        if isinstance(self.app, ParallaxApp):
            delivered = consumer._delivered.get(tp)
            return delivered is not None and (offset < delivered.committable or offset in delivered._finished)
        return offset in consumer._acked_index[tp] or offset < (consumer._committed_offset[tp] or 0)

    def feed(self, *values: bytes, offset: int | None = None) -> None:
        """Append to the source, the first value at a given offset."""
        for index, value in enumerate(values):
            self.kafka.append(self.source, value, offset=None if offset is None else offset + index)

    async def commit(self) -> int | None:
        """Commit what the application thinks is done, as its timer would; the source's committed offset."""
        await self.app.consumer.commit()
        return self.committed

    async def assign(self, *others: TopicPartition) -> None:
        """The end of a rebalance, and the recovery after it."""
        partitions = {self.source, *others}
        self.app.assignor._assignment = ClientAssignment(
            actives={tp.topic: [tp.partition] for tp in partitions}, standbys={}
        )
        self.kafka.consumer.assign(partitions)
        await self._listener.on_partitions_assigned(partitions)
        await until(lambda: not self.app.rebalancing, "the application is done with the rebalance")

    async def revoke(self) -> None:
        """The beginning of a rebalance, in which all partitions are given back."""
        await self._listener.on_partitions_revoked(self.kafka.consumer.assignment())

    async def rebalance(self) -> None:
        """All partitions are given back, and assigned again."""
        await self.revoke()
        await self.assign()

    async def fetched_or_waited(self) -> None:
        """Wait until records of the source stand in a queue of its stream, or for half a second, if none come."""
        queues = [topic.queue for topic in self.app.topics if self.source.topic in topic.topics]
        with suppress(AssertionError):
            await until(lambda: any(queue.qsize() for queue in queues), "records are queued", 0.5)

    @property
    def _listener(self) -> Any:
        return self.app.consumer._thread._rebalance_listener


@asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[Worker]:
    """Start what an application needs to consume, with its consumer's thread inside the test's own event loop.

    No timer runs: a test commits when it wants to. The first rebalance is left to the test.
    """
    app = worker.app
    app.finalize()
    consumer = app.consumer
    thread = consumer._thread
    thread.thread_loop.close()
    thread.thread_loop = asyncio.get_running_loop()
    thread._consumer = worker.kafka.consumer
    if isinstance(app, ParallaxApp):
        await app.batches.start()
        await app.accounts.start()
    services = [app.producer, consumer._method_queue, thread.method_queue, *app.agents.values()]
    for service in services:
        await service.start()
    await app.tables._update_channels()
    await app.tables.recovery.start()
    await app.topics._update_indices()
    notify(app.topics._subscription_done)
    await worker.revoke()
    try:
        yield worker
    finally:
        worker.kafka.accepting.set()
        worker.release()
        app.agents.cancel()
        for service in (app._fetcher, app.tables.recovery, *reversed(services)):
            await service.stop()
        if isinstance(app, ParallaxApp):
            await app.batches.stop()
            await app.accounts.stop()


def stock_worker(kafka: MemoryKafka, agent: Callable[[Any, Any], Any] | None = None, *, concurrency: int = 1) -> Worker:
    """A plain Faust worker. Its agent, called with the stream and the sink, by default awaits the work on each value
    and then that it is durable.
    """
    app = faust.App(
        "stock",
        broker="kafka://127.0.0.1:9",
        value_serializer="raw",
        topic_partitions=1,
        topic_allow_declare=False,
        topic_disable_leader=True,
    )
    worker = Worker(app, kafka, "source", "sink")
    sink = app.topic("sink", value_type=bytes)

    async def forward(stream: Any, sink: Any) -> None:
        async for value in stream:
            await worker.work(value)
            await (await sink.send(value=value))

    process = agent or forward

    async def consume(stream: Any) -> None:
        await process(stream, sink)

    app.agent(app.topic("source", value_type=bytes), name="forward", concurrency=concurrency)(consume)
    return worker


def parallax_worker(kafka: MemoryKafka) -> Worker:
    """The application of a Parallax worker."""
    app = ParallaxApp(Settings(kafka_bootstrap="127.0.0.1:9", cache_enabled=False, health_port=0, partitions=1))
    worker = Worker(app, kafka, names.INGEST_TOPICS[0], names.DEAD_LETTERS)
    kafka.before_storing = worker.work
    return worker


@pytest.fixture
def no_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    """Producers and readers are those of the worker that is played, and nobody connects."""
    monkeypatch.setattr(aiokafka, "AIOKafkaProducer", lambda **_: _PLAYED.get().producer())
    monkeypatch.setattr(aiokafka, "AIOKafkaConsumer", lambda **_: _PLAYED.get().reader())


_PLAYED: ContextVar[MemoryKafka] = ContextVar("played")


def play(make: Callable[[MemoryKafka], Worker], script: Callable[[Worker], Awaitable[None]]) -> None:
    """Run a script on a worker of its own."""

    async def played() -> None:
        kafka = MemoryKafka()
        _PLAYED.set(kafka)
        async with running(make(kafka)) as worker:
            await script(worker)

    asyncio.run(asyncio.wait_for(played(), 30))
