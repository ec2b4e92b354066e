"""Aggregate: the state of one partition of the routed log, by platform campaign and day.

Everything here is a function of a prefix of that log: applying it again from any checkpoint gives the same blocks
under the same revisions. Snapshots are idempotent by pull time and content, deltas by event id, links by their time;
source positions (the fence) only tell a redelivered row, which is not counted again, from a duplicate, which is.

A checkpoint's table writes are ordered: event ids, blocks, links, then the mark, then deletes. The mark carries the
position up to which all else is whole. After a crash between them, ids past the mark are dropped and the log is applied
again from the mark: a block that is already ahead refuses what it holds, and no delta is lost or added twice. Rollups
wait until the log has been applied as far as any block or link was ahead: only then is the state again that of one
prefix.

With a ``Retention`` the watermark of each prefix says which days take rows, and which blocks and event ids go. What
goes is deleted by the first checkpoint after the one that sent its last rollup; links, tallies and the fence stay.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import msgspec
import numpy as np

from core.accounting import RECORDS
from core.aggregate_table import (
    MARK_KEY,
    BlockKey,
    Mark,
    PlatformCampaign,
    TableWrite,
    decode_key,
    decode_mark,
    link_key,
    pack,
)
from core.block import Block, revision_of
from core.blocks import IN_MEMORY, REFUSED, Blocks, CorruptTable
from core.cell import Merge, cell_of, merge
from core.delta_rows import DeltaRows
from core.event_ids import EventIds
from core.late_rows import LateRow, late_deltas, late_snapshot
from core.links import Linked, own_name
from core.retention import NEVER, NO_FLOORS, Retention
from core.rollups import rollup, rollup_record, withdrawn
from core.watermark import Watermarks
from schemas import envelope as envelope_codec
from schemas.envelope import DeltaColumns, Envelope, LinkRow, SnapshotRow
from schemas.event import RejectCode
from schemas.platform import Platform
from schemas.rollup import Rollup, Watermark
from schemas.topics import FACT_TOPICS

__all__ = ["MARK_KEY", "Aggregate", "CorruptTable", "LateRow", "Mark", "TableWrite", "rollup_record"]

Source = tuple[str, int]
Position = tuple[int, int]

_decode_linked: Final = msgspec.msgpack.Decoder(Linked).decode
_PLATFORMS: Final = {str(platform): platform for platform in Platform}


class Redelivery(NamedTuple):
    """Which rows of an envelope the fence has seen already."""

    fence: Position

    def __contains__(self, position: object) -> bool:
        return isinstance(position, tuple) and position <= self.fence


class Aggregate:
    """One partition. ``sources`` are the (topic, partition) pairs whose watermarks it waits for.

    ``table`` is where the writes of a checkpoint end up before the next one is taken: from there blocks come back that
    have left memory, in which ``in_memory`` of them stay. Without a table all stay, and without ``retention`` nothing
    ever goes.
    """

    def __init__(
        self,
        partition: int = 0,
        sources: Iterable[Source] = (),
        *,
        retention: Retention | None = None,
        table: Mapping[bytes, bytes] | None = None,
        in_memory: int = IN_MEMORY,
    ) -> None:
        self.partition = partition
        self.mark = Mark()
        self.position = -1
        self.tallies: dict[str, Counter[str]] = defaultdict(Counter)
        self.watermarks: Watermarks[Source] = Watermarks(list(sources))
        self._settled = -1
        self.lags: dict[Source, int] = {}
        self.blocks = Blocks(table, in_memory)
        self.ids = EventIds()
        self._retention = retention
        self._undated = {source for source, _, _ in self.watermarks.dump() if source[0] in FACT_TOPICS}
        self._floors = NO_FLOORS
        self._fences: dict[Source, Position] = {}
        self._links: dict[PlatformCampaign, Linked] = {}
        self._dirty_links: set[PlatformCampaign] = set()
        self._owed: set[BlockKey] = set()
        self._owed_links: set[PlatformCampaign] = set()
        self._deletes: list[TableWrite] = []
        self._late: list[LateRow] = []
        self._changed = False
        self._told_watermark = -1
        self._furthest = -1

    @classmethod
    def restore(
        cls,
        table: Mapping[bytes, bytes],
        partition: int = 0,
        sources: Iterable[Source] = (),
        *,
        retention: Retention | None = None,
        in_memory: int = IN_MEMORY,
    ) -> "Aggregate":
        """The state that a partition's table holds. Rollups that may not have been sent are owed again, and so are
        the deletes of what is past its floor. No block is decoded.

        Raises ``ValueError`` for a table of another version.
        """
        state = cls(partition, sources, retention=retention, table=table, in_memory=in_memory)
        if MARK_KEY in table:
            state._restore_mark(decode_mark(table[MARK_KEY]))
        published = state.mark.published
        shared: dict[int, int] = {}
        for key, value in table.items():
            kind, platform, campaign_id, number = decode_key(key)
            if kind == "block":
                owner, day = (_PLATFORMS[platform], campaign_id), shared.setdefault(number, number)
                revision = revision_of(value)
                state.blocks.restore(owner, day)
                state._furthest = max(state._furthest, revision - 1)
                if revision > published:
                    state._owed.add((*owner, day))
            elif kind == "link":
                linked = _decode_linked(value)
                owner = (linked.platform, linked.platform_campaign_id)
                state._links[owner] = linked
                state._furthest = max(state._furthest, linked.revision - 1)
                if linked.revision > published:
                    state._owed_links.add(owner)
            elif kind == "ids":
                state.ids.restore(int(platform), key, value if int(campaign_id) <= state.mark.position else None)
        state._expire()
        return state

    def _restore_mark(self, mark: Mark) -> None:
        self.mark = mark
        self.position = mark.position
        sources = [source for source, _, _ in self.watermarks.dump()]
        self.watermarks = Watermarks(sources, mark.reached, mark.settled)
        self._fences = {(topic, partition): (offset, index) for topic, partition, offset, index in mark.fences}
        for topic, partition, watermark, idle in mark.watermarks:
            self.watermarks.observe((topic, partition), watermark, idle=idle)
        for topic, tally in mark.tallies.items():
            self.tallies[topic].update(tally)
        self._raise_floors()

    def _raise_floors(self) -> None:
        if self._retention is not None:
            self._settled = self.watermarks.settled(self._retention.quiet_ms, self._undated)
            self._floors = self._retention.floors(self._settled)

    def _expire(self) -> None:
        """Let go of what is past its floor and owes nothing."""
        self._deletes += self.blocks.expire(
            self._floors.block, lambda key: key in self._owed or key[:2] in self._owed_links
        )
        self._deletes += self.ids.expire(self._floors.delta)

    def apply(self, offset: int, payload: bytes) -> None:
        """Apply one envelope of the routed log. Offsets at or below the position are skipped: their effects are here.

        Raises ``ValueError`` for bytes that are no envelope.
        """
        if offset <= self.position:
            return
        message = envelope_codec.decode(payload)
        source = (message.topic, message.partition)
        fence = self._fences.get(source, (-1, -1))
        seen = Redelivery(fence)
        tally = self.tallies[message.topic]
        last = fence
        for outcome in message.outcomes:
            place = (outcome.offset, outcome.index)
            if place not in seen:
                self._count(tally, outcome.code, place)
            last = max(last, place)
        for link in message.links:
            last = max(last, self._apply_link(link, offset + 1, tally, seen))
        for snapshot in message.snapshots:
            if snapshot.event.day < self._floors.snapshot:
                last = max(last, self._refuse_snapshot(message, snapshot, tally, seen))
            else:
                last = max(last, self._apply_snapshot(snapshot, offset + 1, tally, seen))
        if message.deltas is not None:
            last = max(last, self._apply_deltas(message, message.deltas, offset + 1, tally, seen))
        self._fences[source] = last
        self._observe(source, message)
        self._raise_floors()
        self.position = offset
        self._changed = True

    def _observe(self, source: Source, message: Envelope) -> None:
        self.lags[source] = message.lag
        if message.watermark_ms >= 0 or message.idle:
            self.watermarks.observe(source, message.watermark_ms, idle=message.idle)

    @staticmethod
    def _count(tally: Counter[str], outcome: str, place: Position) -> None:
        tally[outcome] += 1
        if place[1] == 0:
            tally[RECORDS] += 1

    def _apply_link(self, row: LinkRow, revision: int, tally: Counter[str], seen: Redelivery) -> Position:
        link = row.link
        owner = (link.platform, link.platform_campaign_id)
        linked = self._links.get(owner)
        if linked is None:
            linked = self._links[owner] = Linked(*owner)
        outcome = linked.merge(link, revision)
        if outcome is Merge.APPLIED:
            self._dirty_links.add(owner)
            if linked.revision == revision:
                self._owed_links.add(owner)
        place = (row.offset, row.index)
        if place not in seen:
            self._count(tally, outcome, place)
        return place

    def _apply_snapshot(self, row: SnapshotRow, revision: int, tally: Counter[str], seen: Redelivery) -> Position:
        event = row.event
        block = self.blocks.block((event.platform, event.campaign_id, event.day))
        key, cell = cell_of(event)
        held = block.cells.get(key)
        kept, outcome = merge(held, cell)
        if kept is not held:
            block.cells[key] = kept
            self._touch(block, revision)
        place = (row.offset, row.index)
        if place not in seen:
            self._count(tally, outcome, place)
        return place

    def _refuse_snapshot(self, message: Envelope, row: SnapshotRow, tally: Counter[str], seen: Redelivery) -> Position:
        place = (row.offset, row.index)
        if place not in seen:
            self._count(tally, RejectCode.TOO_LATE, place)
            self._late.append(late_snapshot(message, row, self._settled))
        return place

    def _touch(self, block: Block, revision: int) -> None:
        self.blocks.touch(block, revision)
        self._owed.add((block.platform, block.campaign_id, block.day))

    def _apply_deltas(
        self, message: Envelope, deltas: DeltaColumns, revision: int, tally: Counter[str], seen: Redelivery
    ) -> Position:
        pane_rows = [self.blocks.pane_row(key, self._floors.delta) for key in deltas.keys]
        rows = DeltaRows.of(deltas)
        last = max(zip(rows.offsets[-1:].tolist(), rows.indexes[-1:].tolist(), strict=True), default=(-1, -1))
        first_time = rows.beyond(seen.fence)
        tally[RECORDS] += int((first_time & (rows.indexes == 0)).sum())
        if REFUSED in pane_rows:
            refused = (np.array(pane_rows) == REFUSED)[rows.key_index]
            late = late_deltas(message, deltas.keys, rows.where(refused & first_time), self._settled)
            tally[RejectCode.TOO_LATE] += len(late)
            self._late += late
            rows, first_time = rows.where(~refused), first_time[~refused]
        days = [NEVER if row == REFUSED else self.blocks.panes.key(row).day for row in pane_rows]
        fresh = self.ids.fresh(rows.ids.tolist(), rows.key_index, days)
        tally[Merge.APPLIED] += int((first_time & fresh).sum())
        tally[Merge.DUPLICATE] += int((first_time & ~fresh).sum())
        ahead = [row != REFUSED and self.blocks.of_pane(row).restored >= revision for row in pane_rows]
        wanted = fresh & ~np.array(ahead, dtype=bool)[rows.key_index]
        if wanted.any():
            rows = rows.where(wanted)
            for row in self.blocks.panes.add(np.array(pane_rows)[rows.key_index], rows.values, rows.observed):
                self._touch(self.blocks.of_pane(row), revision)
        return last

    @property
    def owes(self) -> int:
        """How many blocks and links have rollups to send."""
        return len(self._owed) + len(self._owed_links)

    @property
    def pending(self) -> bool:
        """Whether a checkpoint would write or send anything."""
        return self._changed or bool(self._deletes) or (self._whole and (self.owes > 0 or self.blocks.waiting))

    @property
    def _whole(self) -> bool:
        """Whether the state is that of a prefix of the log, and not ahead of it in part since a crash."""
        return self.position >= self._furthest

    def take_late(self) -> list[LateRow]:
        """The rows refused since the last checkpoint, to be durable as dead letters when the next one is."""
        late, self._late = self._late, []
        return late

    def take_writes(self, *, publish: bool) -> tuple[list[TableWrite], list[Rollup | Watermark]]:
        """The next checkpoint: table writes in the order in which they must be durable, and rollups to send after them.

        With ``publish`` false rollups stay owed, across a crash too, and so they do while the log is being applied
        again after one. ``published`` is told by the mark of the next checkpoint, so a crash between the two writes
        sends them again under the same revisions.
        """
        messages: list[Rollup | Watermark] = []
        mark_published = self.mark.published
        publish = publish and self._whole
        # What went out with the last checkpoint is known to be out by now, and what goes out with this one is not.
        self._expire()
        if publish:
            messages = self._take_messages()
        writes = [*self.ids.take_writes(self.position), *self.blocks.take_writes(), *self._link_writes()]
        self.mark = Mark(
            position=self.position,
            published=mark_published,
            fences=[(topic, part, offset, index) for (topic, part), (offset, index) in self._fences.items()],
            watermarks=[(topic, part, value, idle) for (topic, part), value, idle in self.watermarks.dump()],
            tallies={topic: dict(tally) for topic, tally in self.tallies.items()},
            reached=self.watermarks.value,
            settled=self._settled,
        )
        writes += [TableWrite(MARK_KEY, pack(self.mark)), *self._deletes]
        self._deletes = []
        if publish:
            self.mark.published = self.position + 1
        self._changed = False
        return writes, messages

    def _link_writes(self) -> list[TableWrite]:
        writes = [TableWrite(link_key(owner), pack(self._links[owner])) for owner in self._dirty_links]
        self._dirty_links.clear()
        return writes

    def _take_messages(self) -> list[Rollup | Watermark]:
        messages: list[Rollup | Watermark] = []
        for owner in self._owed_links:
            for day in self.blocks.days(owner):
                self._owed.add((*owner, day))
                messages += withdrawn(self._links[owner], day)
        messages += [rollup(*self.blocks.glance(key), self._links.get(key[:2])) for key in self._owed]
        self._owed.clear()
        self._owed_links.clear()
        watermark = self.watermarks.value
        if watermark > self._told_watermark:
            self._told_watermark = watermark
            messages.append(Watermark(partition=self.partition, watermark_ms=watermark))
        return messages

    def unlinked(self) -> list[str]:
        """Platform campaigns that stand for themselves, sorted."""
        return sorted(
            own_name(*owner)
            for owner in self.blocks.owners()
            if owner not in self._links or not self._links[owner].campaign_id
        )
