"""AGGREGATE: envelopes of the routed topic change blocks; rollups of what changed go to the campaigns' partitions.

Rows that come too late for their day become dead letters here. They are durable before the mark that says so, which a
crash leaves behind: then they are refused, and sent, again.
"""

import time
from collections.abc import Callable

from core.aggregate import Aggregate, LateRow, TableWrite, rollup_record
from schemas import dead_letter
from schemas import topics as names
from schemas.dead_letter import SourcePosition
from schemas.envelope import target_partition
from schemas.event import RejectCode
from schemas.rollup import Rollup, Watermark
from stream_app.batch_transport import BatchConsumer
from stream_app.domain import retention
from stream_app.producer import BatchProducer, Outgoing
from stream_app.settings import Settings
from stream_app.stage import PartitionedStage
from stream_app.table import PartitionedTable
from stream_app.topics import name

EAGER = 1_000
"""Rollups that one checkpoint sends without waiting for ``emit_interval``: few are cheap, and news is fresh."""
LONGEST_WAIT_S = 10.0
"""A source that never catches up must not keep rollups back for good."""


class AggregateStage(PartitionedStage[Aggregate]):
    """One worker's partitions of the routed topic."""

    # An envelope holds many rows.
    WEIGHT = 100

    def __init__(
        self,
        settings: Settings,
        table: PartitionedTable,
        producer: BatchProducer,
        consumer: Callable[[], BatchConsumer],
    ) -> None:
        super().__init__(settings, table, producer, consumer)
        self._rollups = name(settings, names.ROLLUPS)
        self._dead_letters = name(settings, names.DEAD_LETTERS)
        self._retention = retention(settings)
        self._sources = [(base, p) for base in names.INGEST_TOPICS for p in range(settings.partitions)]
        self._published_at: dict[int, float] = {}

    def _restore(self, partition: int) -> Aggregate:
        table = self._table.contents[partition]
        return Aggregate.restore(table, partition, self._sources, retention=self._retention)

    def close(self, partitions: set[int]) -> None:
        """Forget partitions that were revoked."""
        super().close(partitions)
        for partition in partitions:
            self._published_at.pop(partition, None)

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
        letters: list[Outgoing] = []
        for partition, state in self._states.items():
            if not state.pending:
                continue
            publish = self._publishes(partition, state)
            letters += [self._letter(late) for late in state.take_late()]
            own, rollups = state.take_writes(publish=publish)
            if publish:
                self._published_at[partition] = time.monotonic()
            writes.append((partition, own))
            for message in rollups:
                messages += self._outgoing(message)
        await self._producer.send(letters)
        await self._producer.send(
            [record for partition, own in writes for record in self._table.outgoing(partition, own)]
        )
        for partition, own in writes:
            self._table.written(partition, own)
        await self._producer.send(messages)

    def _letter(self, late: LateRow) -> Outgoing:
        """A dead letter of a row whose record is not at hand: its value is the row, and no key or time is known."""
        source = SourcePosition(late.topic, late.partition, late.offset, late.index, -1)
        letter = dead_letter.describe(source, RejectCode.TOO_LATE, late.sentence)
        header = (dead_letter.HEADER, dead_letter.encode(letter))
        return Outgoing(self._dead_letters, late.partition % self._settings.partitions, None, late.row, [header])

    def _outgoing(self, message: Rollup | Watermark) -> list[Outgoing]:
        key, payload = rollup_record(message)
        if isinstance(message, Watermark):
            return [Outgoing(self._rollups, p, key, payload) for p in range(self._settings.partitions)]
        partition = target_partition(message.campaign_id, self._settings.partitions)
        return [Outgoing(self._rollups, partition, key, payload)]
