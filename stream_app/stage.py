"""A stage with state: one worker's partitions of a topic, applied as batches come and made durable by checkpoints."""

import asyncio
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from faust.types import TP

from core.aggregate import TableWrite
from stream_app.batch_transport import Batch, BatchConsumer
from stream_app.checkpoint import Checkpoints
from stream_app.partition_writer import PartitionWriter, TenureLost
from stream_app.producer import Outgoing
from stream_app.settings import Settings
from stream_app.table import ChangelogTable, Recovered

log = logging.getLogger(__name__)


class Applied(Protocol):
    """State of one partition: a function of the records applied to it."""

    position: int

    def apply(self, offset: int, payload: bytes) -> None:
        """Apply one record. Raises ``ValueError`` for bytes that mean nothing."""


State = TypeVar("State", bound=Applied)


class Work(NamedTuple):
    """What one partition's checkpoint writes, and what is to be done when that is durable."""

    writes: list[TableWrite]
    outputs: list[Outgoing]
    then: Callable[[], None]


class PartitionedStage(ABC, Generic[State]):
    """``writer_of`` gives a partition's writer, ``consumer`` the consumer that is told of finished batches.
    ``WEIGHT``: a record's weight in a checkpoint's size.
    """

    WEIGHT = 1

    def __init__(
        self,
        settings: Settings,
        table: ChangelogTable,
        writer_of: Callable[[int], PartitionWriter],
        consumer: Callable[[], BatchConsumer],
    ) -> None:
        self._settings = settings
        self._table = table
        self._writer_of = writer_of
        self._consumer = consumer
        self._states: dict[int, State] = {}
        self._writers: dict[int, PartitionWriter] = {}
        self.malformed = 0
        self.fenced = 0
        self.checkpoints = Checkpoints(
            self._write,
            lambda tp, offset: consumer().finish(tp, offset),
            interval_seconds=settings.checkpoint_interval.seconds,
        )

    @abstractmethod
    def _restore(self, partition: int) -> State:
        """The state that the table holds of a partition."""

    @abstractmethod
    def _take(self, partition: int, state: State) -> Work | None:
        """The partition's next checkpoint, if there is anything to write."""

    async def _finish(self) -> None:
        """What a checkpoint does last, when all that it wrote is durable."""

    @property
    def partitions(self) -> dict[int, State]:
        """The open partitions' states."""
        return self._states

    @property
    def held(self) -> set[int]:
        """The partitions that are open, or being opened."""
        return {*self._states, *self._writers}

    @property
    def recovered(self) -> Recovered:
        """The last recovery of partitions."""
        return self._table.recovered

    async def take(self, event: Any, _consumer: BatchConsumer) -> None:
        """Apply one batch, and write a checkpoint when one is due."""
        batch: Batch = event.message.value
        tp: TP = event.message.tp
        state = self._states.get(tp.partition)
        if state is None:
            # Its tenure was lost: whoever is assigned the partition next is given the batch again.
            return
        for record in batch.records:
            try:
                state.apply(record.offset, record.value)
            except ValueError:
                self.malformed += 1
                log.exception("%s/%s@%s means nothing and is skipped", tp.topic, tp.partition, record.offset)
        self.checkpoints.applied(tp, batch.records[-1].offset, len(batch.records) * self.WEIGHT)
        if self.checkpoints.due:
            await self.checkpoints.run()

    async def open(self, partitions: set[int], cancelled: threading.Event) -> None:
        """Own the partitions that were assigned: fence off earlier owners, recover, and restore.

        What they owe is then sent without waiting for input.
        """
        await self.close(partitions)
        writers = {partition: self._writer_of(partition) for partition in partitions}
        self._writers |= writers
        await asyncio.gather(*(writer.open() for writer in writers.values()))
        await asyncio.to_thread(self._table.recover, partitions, cancelled)
        if cancelled.is_set():
            return
        for partition in sorted(partitions):
            self._states[partition] = self._restore(partition)
            await asyncio.sleep(0)

    async def close(self, partitions: set[int]) -> None:
        """Give up partitions."""
        writers = [self._writers.pop(partition) for partition in partitions if partition in self._writers]
        self._drop(partitions)
        await asyncio.gather(*(writer.close() for writer in writers))

    def _drop(self, partitions: set[int]) -> None:
        """Forget states, and the batches that are in them alone: no later checkpoint may finish those."""
        for partition in partitions:
            self._states.pop(partition, None)
        self.checkpoints.forget(partitions)

    async def keep(self, partitions: set[int], cancelled: threading.Event) -> None:
        """Forget what is held of all other partitions."""
        await asyncio.to_thread(self._table.keep, partitions, cancelled)

    async def _write(self) -> set[int]:
        begun: set[int] = set()
        tenures = dict(self._writers)
        taken: list[tuple[int, Work]] = []
        try:
            for partition, state in list(self._states.items()):
                begun.add(partition)
                work = self._take(partition, state)
                if work is not None:
                    taken.append((partition, work))
                    await asyncio.sleep(0)
            puts = (self._put(partition, work, tenures.get(partition)) for partition, work in taken)
            outcomes = await asyncio.gather(*puts, return_exceptions=True)
            lost = await self._give_up(
                tenures, ((partition, outcome) for (partition, _), outcome in zip(taken, outcomes, strict=True))
            )
        except BaseException:
            # A state holds what was taken of it no more: a later checkpoint would leave it out and say that it is in.
            self._drop(begun)
            raise
        for partition, work in taken:
            if partition not in lost:
                work.then()
        await self._finish()
        return lost

    async def _put(self, partition: int, work: Work, writer: PartitionWriter | None) -> None:
        if writer is None or self._writers.get(partition) is not writer:
            raise TenureLost("the partition was given up")
        ends = await writer.write(self._table.outgoing(partition, work.writes), work.outputs)
        if self._writers.get(partition) is not writer:
            raise TenureLost("the partition was given up while its checkpoint was written")
        self._table.written(partition, work.writes, ends)

    async def _give_up(
        self, tenures: Mapping[int, PartitionWriter], outcomes: Iterable[tuple[int, BaseException | None]]
    ) -> set[int]:
        lost: dict[int, TenureLost] = {}
        for partition, outcome in outcomes:
            if isinstance(outcome, TenureLost):
                lost[partition] = outcome
            elif outcome is not None:
                raise outcome
        # What a rebalance has taken already is not to be taken from its next tenure, which may be here.
        ours = {partition for partition in lost if self._writers.get(partition, ...) is tenures.get(partition)}
        for partition in ours:
            log.warning(
                "%s/%s has another owner; joining the group again: %s", self._table.topic, partition, lost[partition]
            )
        self.fenced += len(ours)
        if ours:
            await self.close(ours)
            self._consumer().rejoin()
        return set(lost)
