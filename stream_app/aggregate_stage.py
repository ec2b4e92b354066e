"""AGGREGATE: envelopes of the routed topic change blocks; rollups of what changed go to the campaigns' partitions.

Rows that come too late for their day become dead letters here.
"""

import time
from collections.abc import Callable

from core.aggregate import Aggregate, LateRow, rollup_record
from schemas import dead_letter
from schemas import topics as names
from schemas.dead_letter import SourcePosition
from schemas.envelope import target_partition
from schemas.event import RejectCode
from schemas.rollup import Rollup, Watermark
from stream_app.batch_transport import BatchConsumer
from stream_app.domain import retention
from stream_app.partition_writer import PartitionWriter
from stream_app.producer import Outgoing
from stream_app.settings import Settings
from stream_app.stage import PartitionedStage, Work
from stream_app.table import ChangelogTable
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
        table: ChangelogTable,
        writer_of: Callable[[int], PartitionWriter],
        consumer: Callable[[], BatchConsumer],
    ) -> None:
        super().__init__(settings, table, writer_of, consumer)
        self._rollups = name(settings, names.ROLLUPS)
        self._dead_letters = name(settings, names.DEAD_LETTERS)
        self._retention = retention(settings)
        self._sources = [(base, p) for base in names.INGEST_TOPICS for p in range(settings.partitions)]
        self._published_at: dict[int, float] = {}

    def _restore(self, partition: int) -> Aggregate:
        self._published_at.pop(partition, None)
        contents = self._table.contents(partition)
        return Aggregate.restore(contents, partition, self._sources, retention=self._retention)

    def _publishes(self, partition: int, state: Aggregate) -> bool:
        if not state.owes:
            return True
        waited = time.monotonic() - self._published_at.get(partition, 0.0)
        if max(state.lags.values(), default=0) > self._settings.catchup_lag:
            return waited >= LONGEST_WAIT_S
        return state.owes <= EAGER or waited >= self._settings.emit_interval.seconds

    def _take(self, partition: int, state: Aggregate) -> Work | None:
        if not state.pending:
            return None
        publish = self._publishes(partition, state)
        writes, messages = state.take_writes(publish=publish)
        if publish:
            self._published_at[partition] = time.monotonic()
        outputs = [self._letter(late) for late in state.take_late()]
        outputs += [record for message in messages for record in self._outgoing(message)]
        return Work(writes, outputs, _nothing)

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


def _nothing() -> None:
    """Rollups are all that this stage tells of."""
