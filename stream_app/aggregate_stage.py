"""AGGREGATE: envelopes of the routed topic change blocks; rollups of what changed go to the campaigns' partitions."""

import logging
import time
from typing import Any

from faust.types import TP

from core.aggregate import Aggregate, TableWrite, rollup_record
from schemas import topics as names
from schemas.envelope import target_partition
from schemas.rollup import Rollup, Watermark
from stream_app.batch_transport import Batch, BatchConsumer
from stream_app.checkpoint import Checkpoints
from stream_app.producer import BatchProducer, Outgoing
from stream_app.settings import Settings
from stream_app.table import PartitionedTable
from stream_app.topics import name

log = logging.getLogger(__name__)

EAGER = 1_000
"""Rollups that one checkpoint sends without waiting for ``emit_interval``: few are cheap, and news is fresh."""
LONGEST_WAIT_S = 10.0
"""A source that never catches up must not keep rollups back for good."""


class AggregateStage:
    """One worker's partitions of the routed topic."""

    def __init__(self, settings: Settings, table: PartitionedTable, producer: BatchProducer, consumer: Any) -> None:
        self._settings = settings
        self._table = table
        self._producer = producer
        self._rollups = name(settings, names.ROLLUPS)
        self._sources = [(base, p) for base in names.INGEST_TOPICS for p in range(settings.partitions)]
        self._states: dict[int, Aggregate] = {}
        self._published_at: dict[int, float] = {}
        self.malformed = 0
        self.checkpoints = Checkpoints(
            self._write,
            lambda tp, offset: consumer().finish(tp, offset),
            interval_seconds=settings.checkpoint_interval.seconds,
        )

    async def take(self, event: Any, consumer: BatchConsumer) -> None:
        """Apply one batch, and write a checkpoint when one is due."""
        batch: Batch = event.message.value
        tp: TP = event.message.tp
        state = self._state(tp.partition)
        for record in batch.records:
            try:
                state.apply(record.offset, record.value)
            except ValueError:
                self.malformed += 1
                log.exception("routed record %s/%s@%s is skipped", tp.topic, tp.partition, record.offset)
        self.checkpoints.applied(tp, batch.records[-1].offset, len(batch.records) * 100)
        if self.checkpoints.due:
            await self.checkpoints.run()

    def _state(self, partition: int) -> Aggregate:
        state = self._states.get(partition)
        if state is None:
            state = Aggregate.restore(self._table.contents[partition], partition, self._sources)
            self._states[partition] = state
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
            self._published_at.pop(partition, None)

    @property
    def partitions(self) -> dict[int, Aggregate]:
        """The open partitions' states."""
        return self._states

    def _publishes(self, partition: int, state: Aggregate) -> bool:
        if not state.owes:
            return True
        waited = time.monotonic() - self._published_at.get(partition, 0.0)
        if max(state.lags.values(), default=0) > self._settings.catchup_lag:
            return waited >= LONGEST_WAIT_S
        return state.owes <= EAGER or waited >= self._settings.emit_interval.seconds

    async def _write(self) -> None:
        writes: list[tuple[int, list[TableWrite]]] = []
        messages: list[Outgoing] = []
        for partition, state in self._states.items():
            if not state.pending:
                continue
            publish = self._publishes(partition, state)
            own, rollups = state.take_writes(publish=publish)
            if publish:
                self._published_at[partition] = time.monotonic()
            writes.append((partition, own))
            for message in rollups:
                messages += self._outgoing(message)
        await self._producer.send(
            [record for partition, own in writes for record in self._table.outgoing(partition, own)]
        )
        for partition, own in writes:
            self._table.written(partition, own)
        await self._producer.send(messages)

    def _outgoing(self, message: Rollup | Watermark) -> list[Outgoing]:
        key, payload = rollup_record(message)
        if isinstance(message, Watermark):
            return [Outgoing(self._rollups, p, key, payload) for p in range(self._settings.partitions)]
        partition = target_partition(message.campaign_id, self._settings.partitions)
        return [Outgoing(self._rollups, partition, key, payload)]
