"""Batch delivery: what was fetched of a partition reaches the agent as one Faust event, and offsets are committed
from the front.

Stock Faust pays four tasks, a lock and an acknowledgement a message, acknowledges what an agent failed on, commits
past messages that are still in flight, and takes a failed commit for done. Here an agent gets a ``Batch``, and calls
``finish`` when all effects of its records are durable; a commit takes the longest finished run from the front of what
was delivered.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

from faust.transport.drivers import aiokafka as driver
from faust.types import TP, Message

FETCH_WAIT_MS = 100
ROOM_WAIT_S = 1.0
RECOVERY_POLL_S = 0.05


class Batch(NamedTuple):
    """Records of one partition in offset order, and the group generation in which they were fetched."""

    records: list[Any]
    generation: int


class _Delivered:
    """Last offsets of delivered batches of one partition, and which of them are finished."""

    def __init__(self) -> None:
        self._open: deque[int] = deque()
        self._finished: set[int] = set()
        self.committable = -1

    def deliver(self, first_offset: int, last_offset: int) -> None:
        # What is fetched again after a seek replaces its first delivery, which may have been dropped on its way.
        while self._open and self._open[-1] >= first_offset:
            self._open.pop()
        if last_offset >= self.committable:
            self._open.append(last_offset)

    def finish(self, last_offset: int) -> None:
        self._finished.add(last_offset)
        while self._open and self._open[0] in self._finished:
            done = self._open.popleft()
            self._finished.discard(done)
            self.committable = done + 1


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Fetches without the stock wait of 1.5 s, in which new data of other partitions would have to wait as well."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        if not hasattr(consumer, "_fetch_max_wait_ms"):
            raise RuntimeError("this aiokafka keeps its fetch wait elsewhere: use the pinned version")
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        return consumer


class BatchConsumer(driver.Consumer):
    """Delivers batches for ``batch_topics``; ``before_revoke`` is awaited while the partitions are still ours."""

    batch_topics: ClassVar[frozenset[str]] = frozenset()
    before_revoke: ClassVar[Any] = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._delivered: dict[TP, _Delivered] = {}
        self._durable: dict[TP, int] = {}
        self._room = asyncio.Event()
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        """Fetch, and while partitions are being assigned and recovered, from changelogs alone.

        Stock Faust fetches from all, and empties the streams' queues when recovery is done: what had been put there
        is lost.
        """
        if active_partitions is not None and self.app.rebalancing:
            active_partitions = {tp for tp in active_partitions if self._is_changelog_tp(tp)}
            if not active_partitions:
                await self.sleep(RECOVERY_POLL_S)
                return {}
        records: Any = await super()._getmany(active_partitions, timeout)
        if records and self.app.rebalancing:
            await self._give_back(records)
        return records

    async def _give_back(self, records: dict[TP, list[Any]]) -> None:
        """A fetch that a rebalance overtook: what it read of streams is to be read again."""
        for tp in [tp for tp in records if not self._is_changelog_tp(tp)]:
            first = records.pop(tp)[0].offset
            if tp in self.assignment():
                await self.seek(tp, first)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Message]]:
        """Yield one message a fetched partition, its value a ``Batch``."""
        if self.flow_active and self._buffered_partitions and not self._get_active_partitions():
            self._room.clear()
            try:
                await asyncio.wait_for(self._room.wait(), ROOM_WAIT_S)
            except TimeoutError:
                return
        records, active = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        if not records or self.should_stop:
            return
        if not self.flow_active:
            await self.perform_seek()
            return
        for tp, fetched in records.items():
            if not self.flow_active or self.app.consumer_generation_id != generation:
                return
            if not fetched or not (active is None or tp in active or tp in self._buffered_partitions):
                continue
            self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
            message = self._to_message(tp, fetched[-1])
            carrier: Any = message
            carrier.key, carrier.value = None, Batch(fetched, generation)
            self._delivered.setdefault(tp, _Delivered()).deliver(fetched[0].offset, message.offset)
            yield tp, message

    def on_buffer_drop(self, tp: TP) -> None:
        """A stream has room again."""
        super().on_buffer_drop(tp)
        self._room.set()

    def finish(self, tp: TP, last_offset: int) -> None:
        """All effects of the batch that ended with this offset are durable."""
        delivered = self._delivered.get(tp)
        if delivered is not None:
            delivered.finish(last_offset)

    def lag(self, tp: TP) -> int:
        """How many offsets of the partition, as far as it is known, have not been finished."""
        end = self.highwater(tp) or 0
        delivered = self._delivered.get(tp)
        done = self._read_offset[tp] or 0 if delivered is None else delivered.committable
        return max(0, end - max(done, 0))

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Gaps between batches need no bookkeeping."""

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (tp for tp in self._delivered if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        delivered = self._delivered.get(tp)
        return None if delivered is None or delivered.committable < 0 else delivered.committable

    def _should_commit(self, tp: TP, offset: int) -> bool:
        return offset > self._durable.get(tp, -1) and self.app.topics.acks_enabled_for(tp.topic)

    async def _commit_offsets(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:
        committed = await super()._commit_offsets(offsets, start_new_transaction)
        if committed:
            self._durable.update(offsets)
        return committed

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Finish and commit what is in flight, and only then let go."""
        if self.before_revoke is not None:
            await self.before_revoke(revoked)
        await self.commit()
        await super().on_partitions_revoked(revoked)
        for tp in revoked:
            self._delivered.pop(tp, None)
            self._durable.pop(tp, None)


class BatchTransport(driver.Transport):
    """The transport of a ``BatchConsumer``."""

    Consumer = BatchConsumer
