"""A Kafka in memory behind the two client classes of aiokafka: everything above them is the real code of its caller."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

from aiokafka.errors import KafkaTimeoutError
from aiokafka.structs import ConsumerRecord, OffsetAndMetadata, RecordMetadata, TopicPartition

POLL_S = 0.002


async def until(holds: Callable[[], object], what: str, seconds: float = 10.0) -> None:
    """Waits until something holds; fails when it does not in time."""
    try:
        async with asyncio.timeout(seconds):
            while not holds():  # noqa: ASYNC110 what is awaited has no event of its own
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise AssertionError(f"not within {seconds:.0f} s: {what}") from None


class MemoryKafka:
    """Partitions, committed offsets, one consumer, and the failures that a test wants.

    ``accepting``: cleared, nothing is taken over from producers, as when their buffers are full. ``refused`` values
    raise when they are handed over, ``failing`` ones when they are acknowledged. ``before_storing`` is awaited with
    each value before it is stored and acknowledged, ``while_seeking`` before a seek to the committed offsets is
    answered. ``commit_failures`` are raised by the next commits. ``fetch_limit``: records of a partition in one fetch.
    """

    def __init__(self) -> None:
        self.records: dict[TopicPartition, list[ConsumerRecord[bytes, bytes]]] = defaultdict(list)
        self.committed: dict[TopicPartition, int] = {}
        self.consumer = MemoryConsumer(self)
        self.accepting = asyncio.Event()
        self.accepting.set()
        self.refused: set[bytes] = set()
        self.failing: set[bytes] = set()
        self.before_storing: Callable[[bytes], Awaitable[None]] | None = None
        self.commit_failures: list[Exception] = []
        self.fetch_limit = 100
        self.while_seeking: Callable[[], Awaitable[None]] | None = None

    def end(self, tp: TopicPartition) -> int:
        """The offset that comes next."""
        return self.records[tp][-1].offset + 1 if self.records[tp] else 0

    def append(
        self, tp: TopicPartition, value: bytes | None, key: bytes | None = None, offset: int | None = None
    ) -> int:
        """Store a record, beyond a gap when an offset is given."""
        at = self.end(tp) if offset is None else offset
        self.records[tp].append(
            ConsumerRecord(tp.topic, tp.partition, at, 1_767_225_600_000, 0, key, value, 0, 0, 0, ())
        )
        return at

    def values(self, topic: str) -> list[bytes | None]:
        """What a topic holds, by partition and offset."""
        return [record.value for tp, found in sorted(self.records.items()) if tp.topic == topic for record in found]

    def producer(self, **_settings: Any) -> "MemoryProducer":
        """What stands in for ``aiokafka.AIOKafkaProducer``."""
        return MemoryProducer(self)

    def reader(self, **_settings: Any) -> "MemoryReader":
        """What stands in for an ``aiokafka.AIOKafkaConsumer`` without a group."""
        return MemoryReader(self)

    async def take(self, tp: TopicPartition, records: Sequence[tuple[bytes | None, bytes | None]]) -> Any:
        """Take over records of a producer; a future for their acknowledgement."""
        await self.accepting.wait()
        values = {value for _, value in records if value is not None}
        if self.refused & values:
            raise KafkaTimeoutError
        return asyncio.create_task(self._store(tp, records, values))

    async def _store(
        self, tp: TopicPartition, records: Sequence[tuple[bytes | None, bytes | None]], values: set[bytes]
    ) -> Any:
        if self.before_storing is not None:
            for value in values:
                await self.before_storing(value)
        if self.failing & values:
            raise KafkaTimeoutError
        first, *_ = [self.append(tp, value, key) for key, value in records]
        return RecordMetadata(tp.topic, tp.partition, tp, first, None, 0, 0)


class MemoryProducer:
    """The part of ``AIOKafkaProducer`` that is called."""

    def __init__(self, kafka: MemoryKafka) -> None:
        self._kafka = kafka
        self._message_accumulator = SimpleNamespace(_batch_ttl=0.0)
        self._request_timeout_ms = 0.0
        self._under_way: set[asyncio.Task[Any]] = set()

    async def start(self) -> None: ...

    async def stop(self) -> None:
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def flush(self) -> None:
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def create_batch(self) -> "MemoryBatch":
        return MemoryBatch()

    async def send(
        self, topic: str, value: bytes | None = None, key: bytes | None = None, partition: int | None = None, **_: Any
    ) -> Any:
        return await self._hand_over(TopicPartition(topic, partition or 0), [(key, value)])

    async def send_batch(self, batch: "MemoryBatch", topic: str, *, partition: int) -> Any:
        return await self._hand_over(TopicPartition(topic, partition), batch.records)

    async def _hand_over(self, tp: TopicPartition, records: Sequence[tuple[bytes | None, bytes | None]]) -> Any:
        task = await self._kafka.take(tp, records)
        self._under_way.add(task)
        # Who gives up waiting for a record does not keep it from being sent.
        return asyncio.shield(task)


class MemoryBatch:
    """The part of aiokafka's ``BatchBuilder`` that is called."""

    def __init__(self) -> None:
        self.records: list[tuple[bytes | None, bytes | None]] = []

    def append(self, *, key: bytes | None, value: bytes | None, **_: Any) -> object:
        self.records.append((key, value))
        return self

    def close(self) -> None: ...


class _OnePartitionEach(dict[str, int]):
    def get(self, _topic: str, _default: object = None) -> int:
        return 1


class MemoryConsumer:
    """The part of ``AIOKafkaConsumer`` that Faust calls."""

    def __init__(self, kafka: MemoryKafka) -> None:
        self._kafka = kafka
        self._max_poll_records: int | None = None
        self._closed = False
        self._fetcher = self
        self._subscriptions = SimpleNamespace(fetch_context=nullcontext)
        self._subscription = SimpleNamespace(subscription=None)
        self._coordinator = SimpleNamespace(generation=0, _metadata_snapshot=_OnePartitionEach())
        self.positions: dict[TopicPartition, int] = {}

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """What the group coordinator does at the end of a rebalance."""
        self._coordinator.generation += 1
        self.positions = {tp: self._kafka.committed.get(tp, 0) for tp in partitions}

    def assignment(self) -> set[TopicPartition]:
        return set(self.positions)

    async def fetched_records(
        self, partitions: set[TopicPartition], timeout: float, max_records: int | None = None
    ) -> dict[TopicPartition, list[Any]]:
        end = asyncio.get_running_loop().time() + timeout
        while asyncio.get_running_loop().time() < end:
            found = {}
            for tp in self.positions.keys() & partitions:
                new = [record for record in self._kafka.records[tp] if record.offset >= self.positions[tp]]
                if new:
                    found[tp] = new[: self._kafka.fetch_limit]
                    self.positions[tp] = found[tp][-1].offset + 1
            if found:
                return found
            await asyncio.sleep(POLL_S)
        return {}

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self.positions[tp] = offset

    async def seek_to_committed(self) -> dict[TopicPartition, int | None]:
        committed = {tp: self._kafka.committed.get(tp) for tp in self.positions}
        self.positions |= {tp: offset for tp, offset in committed.items() if offset}
        if self._kafka.while_seeking is not None:
            await self._kafka.while_seeking()
        return committed

    async def commit(self, offsets: dict[TopicPartition, OffsetAndMetadata]) -> None:
        if self._kafka.commit_failures:
            raise self._kafka.commit_failures.pop(0)
        self._kafka.committed |= {TopicPartition(*tp): found.offset for tp, found in offsets.items()}

    async def committed(self, tp: TopicPartition) -> int | None:
        return self._kafka.committed.get(tp)

    async def position(self, tp: TopicPartition) -> int:
        return self.positions[tp]

    def highwater(self, tp: TopicPartition) -> int:
        return self._kafka.end(tp)

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: self._kafka.end(tp) for tp in partitions}

    async def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)


class MemoryReader(MemoryConsumer):
    """What more is called of a consumer without a group."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        self.positions |= dict.fromkeys(partitions, 0)

    def pause(self, *partitions: TopicPartition) -> None: ...

    def resume(self, *partitions: TopicPartition) -> None: ...

    async def getmany(self, *, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        return await self.fetched_records(self.assignment(), timeout_ms / 1_000)
