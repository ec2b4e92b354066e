"""A stage with state: one worker's partitions of a topic, applied as batches come and made durable by checkpoints."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from faust.types import TP

from stream_app.batch_transport import Batch, BatchConsumer
from stream_app.checkpoint import Checkpoints
from stream_app.producer import BatchProducer
from stream_app.settings import Settings
from stream_app.table import PartitionedTable

log = logging.getLogger(__name__)


class Applied(Protocol):
    """State of one partition: a function of the records applied to it."""

    def apply(self, offset: int, payload: bytes) -> None:
        """Apply one record. Raises ``ValueError`` for bytes that mean nothing."""


State = TypeVar("State", bound=Applied)


class PartitionedStage(ABC, Generic[State]):
    """``consumer`` gives the consumer that is told of finished batches. ``WEIGHT``: a record's weight in a
    checkpoint's size.
    """

    WEIGHT = 1

    def __init__(
        self,
        settings: Settings,
        table: PartitionedTable,
        producer: BatchProducer,
        consumer: Callable[[], BatchConsumer],
    ) -> None:
        self._settings = settings
        self._table = table
        self._producer = producer
        self._states: dict[int, State] = {}
        self.malformed = 0
        self.checkpoints = Checkpoints(
            self._write,
            lambda tp, offset: consumer().finish(tp, offset),
            interval_seconds=settings.checkpoint_interval.seconds,
        )

    @abstractmethod
    def _restore(self, partition: int) -> State:
        """The state that the table holds of a partition."""

    @abstractmethod
    async def _write(self) -> None:
        """Write one checkpoint. Raises when anything could not be made durable."""

    @property
    def partitions(self) -> dict[int, State]:
        """The open partitions' states."""
        return self._states

    async def take(self, event: Any, _consumer: BatchConsumer) -> None:
        """Apply one batch, and write a checkpoint when one is due."""
        batch: Batch = event.message.value
        tp: TP = event.message.tp
        state = self._state(tp.partition)
        for record in batch.records:
            try:
                state.apply(record.offset, record.value)
            except ValueError:
                self.malformed += 1
                log.exception("%s/%s@%s means nothing and is skipped", tp.topic, tp.partition, record.offset)
        self.checkpoints.applied(tp, batch.records[-1].offset, len(batch.records) * self.WEIGHT)
        if self.checkpoints.due:
            await self.checkpoints.run()

    def _state(self, partition: int) -> State:
        state = self._states.get(partition)
        if state is None:
            state = self._states[partition] = self._restore(partition)
        return state

    def open(self, partitions: set[int]) -> None:
        """Restore the partitions that were assigned, so that what they owe is sent without waiting for input."""
        self.close(partitions)
        for partition in partitions:
            self._state(partition)

    def close(self, partitions: set[int]) -> None:
        """Forget partitions that were revoked."""
        for partition in partitions:
            self._states.pop(partition, None)
