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

from stream_app.assignor import StickyByTopic

FETCH_WAIT_MS = 100
ROOM_WAIT_S = 1.0
REBALANCE_POLL_S = 0.05


class Batch(NamedTuple):
    """Records of one partition in offset order, and the assignment under which they were fetched: how many rebalances
    this worker had seen begin. The group's generation does not tell: a member that joins again may be given its own.
    """

    records: list[Any]
    assignment: int


class _Delivered:
    """Last offsets of delivered batches of one partition, and which of them are finished."""

    def __init__(self) -> None:
        self._open: deque[int] = deque()
        self._finished: set[int] = set()
        self.committable = -1

    @property
    def unfinished(self) -> bool:
        """Whether something that was delivered is not finished."""
        return bool(self._open)

    def deliver(self, first_offset: int, last_offset: int) -> None:
        # What is fetched again after a seek replaces its first delivery, which may have been dropped on its way.
        while self._open and self._open[-1] >= first_offset:
            self._finished.discard(self._open.pop())
        if last_offset >= self.committable:
            self._open.append(last_offset)

    def finish(self, last_offset: int) -> None:
        if last_offset in self._open:
            self._finished.add(last_offset)
        while self._open and self._open[0] in self._finished:
            done = self._open.popleft()
            self._finished.discard(done)
            self.committable = done + 1


class Fetched(dict[Any, Any]):
    """Records by partition. ``positions`` are the next offsets to fetch, past markers and aborted records too."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.positions: dict[Any, int] = {}


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Fetches without the stock wait of 1.5 s, in which new data of other partitions would have to wait as well."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        wanted = {
            "_fetch_max_wait_ms": FETCH_WAIT_MS,
            # What a transaction has not committed is not there yet.
            "_isolation_level": "read_committed" if transport.committed_only else "read_uncommitted",
            "_partition_assignment_strategy": (StickyByTopic,),
        }
        for attribute, value in wanted.items():
            if not hasattr(consumer, attribute):
                raise RuntimeError(f"this aiokafka has no {attribute}: use the pinned version")
            setattr(consumer, attribute, value)
        return consumer

    async def _fetch_records(self, consumer: Any, *args: Any, **kwargs: Any) -> "Fetched":
        fetched = Fetched(await super()._fetch_records(consumer, *args, **kwargs))
        subscription = consumer._subscription.subscription
        if subscription is not None and subscription.assignment is not None:
            for tp in subscription.assignment.tps:
                state = subscription.assignment.state_value(tp)
                if state.has_valid_position:
                    fetched.positions[tp] = state.position
        return fetched

    def rejoin(self) -> None:
        """Join the group again, as if its membership had changed."""
        consumer: Any = self._consumer
        self.thread_loop.call_soon_threadsafe(consumer._coordinator.request_rejoin)

    async def committed(self, tp: TP) -> int | None:
        """The offset that the group has committed, None where it has none."""
        consumer: Any = self._consumer
        found: int | None = await self.call_thread(consumer.committed, tp)
        return found


class BatchConsumer(driver.Consumer):
    """Delivers batches; ``before_revoke`` is awaited while the partitions are still ours."""

    before_revoke: ClassVar[Any] = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._delivered: dict[TP, _Delivered] = {}
        self._durable: dict[TP, int] = {}
        self._passed: dict[TP, int] = {}
        self._room = asyncio.Event()
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        """Fetch, but not while partitions are being assigned.

        Stock Faust does, and empties the streams' queues when that is done: what had been put there is lost.
        """
        if self._rebalances():
            await self.sleep(REBALANCE_POLL_S)
            return {}
        records: Any = await super()._getmany(active_partitions, timeout)
        if records and self._rebalances():
            await self._give_back(records)
            return {}
        return records

    def _rebalances(self) -> bool:
        return bool(self.app.rebalancing)

    async def _give_back(self, records: dict[TP, list[Any]]) -> None:
        """A fetch that a rebalance overtook: what it read of streams is to be read again."""
        for tp, fetched in records.items():
            if fetched and tp in self.assignment():
                await self.seek(tp, fetched[0].offset)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Message]]:
        """Yield one message a fetched partition, its value a ``Batch``."""
        if self.flow_active and self._buffered_partitions and not self._get_active_partitions():
            self._room.clear()
            try:
                await asyncio.wait_for(self._room.wait(), ROOM_WAIT_S)
            except TimeoutError:
                return
        records, active = await self._wait_next_records(timeout)
        generation = self.app.rebalancing_count
        if self.should_stop or records is None:
            return
        if not self.flow_active:
            if records:
                await self.perform_seek()
            return
        for tp, fetched in records.items():
            if not self.flow_active or self.app.rebalancing_count != generation:
                return
            if not fetched or not (active is None or tp in active or tp in self._buffered_partitions):
                continue
            self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
            message = self._to_message(tp, fetched[-1])
            carrier: Any = message
            carrier.key, carrier.value = None, Batch(fetched, generation)
            self._delivered.setdefault(tp, _Delivered()).deliver(fetched[0].offset, message.offset)
            yield tp, message
        if self.flow_active and self.app.rebalancing_count == generation:
            # All that was fetched before these positions has been delivered.
            self._passed.update(getattr(records, "positions", {}))

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
        return max(0, (self.highwater(tp) or 0) - self.reached(tp))

    def at_end(self, tp: TP) -> bool:
        """Whether everything is finished. While nothing has been fetched of a partition, nobody knows."""
        return self.highwater(tp) is not None and self.lag(tp) == 0

    def reached(self, tp: TP) -> int:
        """The offset up to which everything is finished. Behind the last record it counts transaction markers too."""
        delivered = self._delivered.get(tp)
        if delivered is not None and delivered.unfinished:
            return max(delivered.committable, 0)
        done = self._read_offset[tp] or 0 if delivered is None else delivered.committable
        return max(done, self._passed.get(tp, 0))

    @property
    def _own_thread(self) -> ConsumerThread:
        thread: Any = self._thread
        own: ConsumerThread = thread
        return own

    def rejoin(self) -> None:
        """Join the group again: a partition that is assigned to this worker has, or may have, another owner."""
        self._own_thread.rejoin()

    async def committed(self, tp: TP) -> int | None:
        """The offset that the group has committed, None where it has none."""
        return await self._own_thread.committed(tp)

    async def skip(self, tp: TP, offset: int) -> bool:
        """Commit an offset before which there is nothing any more; whether that came about."""
        return bool(await self._commit({tp: offset}))

    @property
    def durable(self) -> Mapping[TP, int]:
        """The offsets that this consumer has committed of its partitions."""
        return self._durable

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Gaps between batches need no bookkeeping."""

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (tp for tp in self._delivered if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        delivered = self._delivered.get(tp)
        return None if delivered is None or delivered.committable < 0 else self.reached(tp)

    def _should_commit(self, tp: TP, offset: int) -> bool:
        return offset > self._durable.get(tp, -1) and self.app.topics.acks_enabled_for(tp.topic)

    async def maybe_wait_for_commit_to_finish(self) -> bool:
        """Wait for the commit that is under way. It has not taken what was finished since, so another one is due."""
        while await super().maybe_wait_for_commit_to_finish():
            pass
        return False

    async def commit_and_end_transactions(self) -> None:
        """The last commit. One that crashed makes none: its thread is ending too, and may never answer."""
        if not self.crashed:
            await super().commit_and_end_transactions()

    async def _commit_offsets(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:
        committed = await super()._commit_offsets(offsets, start_new_transaction)
        if committed:
            self._durable.update(offsets)
        return committed

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """The rebalance that began last has come to an assignment."""
        application: Any = self.app
        application.revoking = False
        await super().on_partitions_assigned(assigned, generation_id)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Finish and commit what is in flight, and only then let go."""
        if self.before_revoke is not None:
            await self.before_revoke(revoked)
        await self.commit()
        await super().on_partitions_revoked(revoked)
        for tp in revoked:
            self._delivered.pop(tp, None)
            self._durable.pop(tp, None)
            self._passed.pop(tp, None)


class BatchTransport(driver.Transport):
    """The transport of a ``BatchConsumer``. With ``committed_only`` it reads nothing that may yet be taken back."""

    Consumer = BatchConsumer
    committed_only: ClassVar[bool] = True
