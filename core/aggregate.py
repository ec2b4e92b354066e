"""Aggregate: the state of one partition of the routed log, by platform campaign and day.

Everything here is a function of a prefix of that log: applying it again from any checkpoint gives the same blocks
under the same revisions. Snapshots are idempotent by pull time and content, deltas by event id, links by their time;
source positions (the fence) only tell a redelivered row, which is not counted again, from a duplicate, which is.

A checkpoint's table writes are ordered: event ids, blocks, links, then the mark. The mark carries the position up to
which all else is whole. After a crash between them, ids past the mark are dropped and the log is applied again from
the mark: a block that is already ahead refuses what it holds, and no delta is lost or added twice. Rollups wait until
the log has been applied as far as any block or link was ahead: only then is the state again that of one prefix.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from itertools import repeat
from typing import Final, NamedTuple

import msgspec
import numpy as np

from core import block as block_codec
from core.accounting import RECORDS
from core.block import Block
from core.cell import Merge, cell_of, merge
from core.links import Linked, own_name
from core.panes import Panes
from core.view import day_view
from core.watermark import Watermarks
from schemas import envelope as envelope_codec
from schemas import rollup as rollup_codec
from schemas.envelope import ID_BYTES, DeltaColumns, Envelope, LinkRow, SnapshotRow, column_matrix
from schemas.platform import Platform
from schemas.rollup import Rollup, Watermark

Source = tuple[str, int]
Position = tuple[int, int]
PlatformCampaign = tuple[Platform, str]
BlockKey = tuple[Platform, str, int]

IDS_PER_CHUNK: Final = 32_768
_pack: Final = msgspec.msgpack.Encoder().encode


class Mark(msgspec.Struct, array_like=True):
    """The last write of a checkpoint. ``position`` is the routed offset up to which the table is whole, −1 for none;
    ``published`` the revision up to which every rollup has been sent; ``reached`` the watermark over all sources.
    """

    position: int = -1
    published: int = 0
    fences: list[tuple[str, int, int, int]] = []
    watermarks: list[tuple[str, int, int, bool]] = []
    tallies: dict[str, dict[str, int]] = {}
    reached: int = -1


class TableWrite(NamedTuple):
    """One write to the partition's table. No value deletes the key."""

    key: bytes
    value: bytes | None


class Redelivery(NamedTuple):
    """Which rows of an envelope the fence has seen already."""

    fence: Position

    def __contains__(self, position: object) -> bool:
        return isinstance(position, tuple) and position <= self.fence


_mark_decoder: Final = msgspec.msgpack.Decoder(Mark)
_key_decoder: Final = msgspec.msgpack.Decoder(tuple[str, str, str, int])
_linked_decoder: Final = msgspec.msgpack.Decoder(Linked)

MARK_KEY: Final = _pack(("mark", "", "", 0))


class Aggregate:
    """One partition. ``sources`` are the (topic, partition) pairs whose watermarks it waits for."""

    def __init__(self, partition: int = 0, sources: Iterable[Source] = ()) -> None:
        self.partition = partition
        self.mark = Mark()
        self.position = -1
        self.tallies: dict[str, Counter[str]] = defaultdict(Counter)
        self.watermarks: Watermarks[Source] = Watermarks(list(sources))
        self.lags: dict[Source, int] = {}
        self._fences: dict[Source, Position] = {}
        self._blocks: dict[BlockKey, Block] = {}
        self._days: dict[PlatformCampaign, set[int]] = defaultdict(set)
        self._links: dict[PlatformCampaign, Linked] = {}
        self._panes = Panes()
        self._pane_blocks: list[Block] = []
        self._seen: dict[int, set[bytes]] = defaultdict(set)
        self._new_ids: dict[int, list[bytes]] = defaultdict(list)
        self._dirty: set[Block] = set()
        self._dirty_links: set[PlatformCampaign] = set()
        self._owed: set[BlockKey] = set()
        self._owed_links: set[PlatformCampaign] = set()
        self._changed = False
        self._told_watermark = -1
        self._furthest = -1

    @classmethod
    def restore(cls, table: Mapping[bytes, bytes], partition: int = 0, sources: Iterable[Source] = ()) -> "Aggregate":
        """The state that a partition's table holds. Rollups that may not have been sent are owed again."""
        state = cls(partition, sources)
        if MARK_KEY in table:
            state._restore_mark(_mark_decoder.decode(table[MARK_KEY]))
        for key, value in table.items():
            kind, platform, campaign_id, number = _key_decoder.decode(key)
            if kind == "block":
                state._restore_block(Block(Platform(platform), campaign_id, number), value)
            elif kind == "link":
                linked = _linked_decoder.decode(value)
                state._links[linked.platform, linked.platform_campaign_id] = linked
                state._furthest = max(state._furthest, linked.revision - 1)
                if linked.revision > state.mark.published:
                    state._owed_links.add((linked.platform, linked.platform_campaign_id))
            elif kind == "ids":
                day, position = int(platform), int(campaign_id)
                if position <= state.mark.position:
                    state._seen[day].update(_split_ids(value))
        return state

    def _restore_mark(self, mark: Mark) -> None:
        self.mark = mark
        self.position = mark.position
        self.watermarks = Watermarks([source for source, _, _ in self.watermarks.dump()], mark.reached)
        self._fences = {(topic, partition): (offset, index) for topic, partition, offset, index in mark.fences}
        for topic, partition, watermark, idle in mark.watermarks:
            self.watermarks.observe((topic, partition), watermark, idle=idle)
        for topic, tally in mark.tallies.items():
            self.tallies[topic].update(tally)

    def _restore_block(self, block: Block, value: bytes) -> None:
        block_codec.decode(value, block, self._panes)
        self._keep(block)
        self._furthest = max(self._furthest, block.revision - 1)
        self._pane_blocks += [block] * (len(self._panes) - len(self._pane_blocks))
        if block.revision > self.mark.published:
            self._owed.add((block.platform, block.campaign_id, block.day))

    def _keep(self, block: Block) -> None:
        self._blocks[block.platform, block.campaign_id, block.day] = block
        self._days[block.platform, block.campaign_id].add(block.day)

    def _block(self, key: BlockKey) -> Block:
        block = self._blocks.get(key)
        if block is None:
            block = Block(*key)
            self._keep(block)
        return block

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
            last = max(last, self._apply_snapshot(snapshot, offset + 1, tally, seen))
        if message.deltas is not None:
            last = max(last, self._apply_deltas(message.deltas, offset + 1, tally, seen))
        self._fences[source] = last
        self._observe(source, message)
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
        block = self._block((event.platform, event.campaign_id, event.day))
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

    def _touch(self, block: Block, revision: int) -> None:
        block.revision = max(block.revision, revision)
        self._dirty.add(block)
        self._owed.add((block.platform, block.campaign_id, block.day))

    def _apply_deltas(self, deltas: DeltaColumns, revision: int, tally: Counter[str], seen: Redelivery) -> Position:
        rows = np.array([self._pane_row(key) for key in deltas.keys], dtype=np.int64)
        key_index = np.frombuffer(deltas.key_index, dtype="<u4")
        offsets = np.frombuffer(deltas.offsets, dtype="<i8")
        indexes = np.frombuffer(deltas.indexes, dtype="<u4")
        days = [self._panes.key(row).day for row in rows.tolist()]
        fresh = self._fresh(deltas.ids, key_index, days)
        self._count_deltas(offsets, indexes, fresh, tally, seen)
        ahead = np.array([self._pane_blocks[row].restored >= revision for row in rows.tolist()])[key_index]
        wanted = fresh & ~ahead
        if wanted.any():
            targets = rows[key_index][wanted]
            observed = np.frombuffer(deltas.observed, dtype="<i8")[wanted]
            self._panes.add(targets, column_matrix(deltas)[wanted], observed)
            for row in np.unique(targets).tolist():
                self._touch(self._pane_blocks[row], revision)
        return max(zip(offsets[-1:].tolist(), indexes[-1:].tolist(), strict=True), default=(-1, -1))

    def _pane_row(self, encoded: bytes) -> int:
        row = self._panes.row(encoded)
        if row == len(self._pane_blocks):
            key = self._panes.key(row)
            block = self._block((key.platform, key.campaign_id, key.day))
            block.pane_rows.append(row)
            self._pane_blocks.append(block)
        return row

    def _fresh(self, ids: bytes, key_index: "np.ndarray", days: list[int]) -> "np.ndarray":
        """Which rows carry an event id for the first time."""
        fresh = np.ones(len(key_index), dtype=bool)
        row_days = repeat(days[0]) if len(set(days)) == 1 else [days[index] for index in key_index.tolist()]
        for row, (digest, day) in enumerate(zip(_split_ids(ids), row_days, strict=False)):
            seen = self._seen[day]
            if digest in seen:
                fresh[row] = False
            else:
                seen.add(digest)
                self._new_ids[day].append(digest)
        return fresh

    def _count_deltas(
        self, offsets: "np.ndarray", indexes: "np.ndarray", fresh: "np.ndarray", tally: Counter[str], seen: Redelivery
    ) -> None:
        offset, index = seen.fence
        first_time = (offsets > offset) | ((offsets == offset) & (indexes > index))
        tally[Merge.APPLIED] += int((first_time & fresh).sum())
        tally[Merge.DUPLICATE] += int((first_time & ~fresh).sum())
        tally[RECORDS] += int((first_time & (indexes == 0)).sum())

    @property
    def owes(self) -> int:
        """How many blocks and links have rollups to send."""
        return len(self._owed) + len(self._owed_links)

    @property
    def pending(self) -> bool:
        """Whether a checkpoint would write or send anything."""
        return self._changed or (self.owes > 0 and self._whole)

    @property
    def _whole(self) -> bool:
        """Whether the state is that of a prefix of the log, and not ahead of it in part since a crash."""
        return self.position >= self._furthest

    def take_writes(self, *, publish: bool) -> tuple[list[TableWrite], list[Rollup | Watermark]]:
        """The next checkpoint: table writes in the order in which they must be durable, and rollups to send after them.

        With ``publish`` false rollups stay owed, across a crash too, and so they do while the log is being applied
        again after one. ``published`` is told by the mark of the next checkpoint, so a crash between the two writes
        sends them again under the same revisions.
        """
        messages: list[Rollup | Watermark] = []
        mark_published = self.mark.published
        publish = publish and self._whole
        if publish:
            messages = self._take_messages()
        writes = [*self._id_writes(), *self._block_writes(), *self._link_writes()]
        self.mark = Mark(
            position=self.position,
            published=mark_published,
            fences=[(topic, part, offset, index) for (topic, part), (offset, index) in self._fences.items()],
            watermarks=[(topic, part, value, idle) for (topic, part), value, idle in self.watermarks.dump()],
            tallies={topic: dict(tally) for topic, tally in self.tallies.items()},
            reached=self.watermarks.value,
        )
        writes.append(TableWrite(MARK_KEY, _pack(self.mark)))
        if publish:
            self.mark.published = self.position + 1
        self._changed = False
        return writes, messages

    def _id_writes(self) -> list[TableWrite]:
        writes = []
        for day, ids in self._new_ids.items():
            for chunk, start in enumerate(range(0, len(ids), IDS_PER_CHUNK)):
                key = _pack(("ids", str(day), str(self.position), chunk))
                writes.append(TableWrite(key, b"".join(ids[start : start + IDS_PER_CHUNK])))
        self._new_ids.clear()
        return writes

    def _block_writes(self) -> list[TableWrite]:
        writes = [
            TableWrite(
                _pack(("block", block.platform, block.campaign_id, block.day)), block_codec.encode(block, self._panes)
            )
            for block in self._dirty
        ]
        self._dirty.clear()
        return writes

    def _link_writes(self) -> list[TableWrite]:
        writes = [
            TableWrite(_pack(("link", platform, campaign_id, 0)), _pack(self._links[platform, campaign_id]))
            for platform, campaign_id in self._dirty_links
        ]
        self._dirty_links.clear()
        return writes

    def _take_messages(self) -> list[Rollup | Watermark]:
        moved = self._owed_links
        messages: list[Rollup | Watermark] = []
        for platform, campaign_id in moved:
            for day in self._days.get((platform, campaign_id), ()):
                self._owed.add((platform, campaign_id, day))
                messages += self._withdrawn(self._links[platform, campaign_id], day)
        messages += [self._rollup(self._blocks[key]) for key in self._owed]
        self._owed.clear()
        self._owed_links.clear()
        watermark = self.watermarks.value
        if watermark > self._told_watermark:
            self._told_watermark = watermark
            messages.append(Watermark(partition=self.partition, watermark_ms=watermark))
        return messages

    @staticmethod
    def _withdrawn(linked: Linked, day: int) -> list[Rollup]:
        return [
            Rollup(
                campaign_id=campaign,
                platform=linked.platform,
                platform_campaign_id=linked.platform_campaign_id,
                day=day,
                revision=linked.revision,
                withdrawn=True,
            )
            for campaign in linked.former
        ]

    def _rollup(self, block: Block) -> Rollup:
        linked = self._links.get((block.platform, block.campaign_id))
        view = day_view(block, self._panes)
        return Rollup(
            campaign_id=linked.canonical if linked else own_name(block.platform, block.campaign_id),
            platform=block.platform,
            platform_campaign_id=block.campaign_id,
            account_id=view.account_id,
            day=block.day,
            revision=max(block.revision, linked.revision if linked else 0),
            day_totals=view.totals,
            hours=view.hours,
            start_ms=view.start_ms,
            zone=view.zone,
            covered_ms=view.covered_ms,
            as_of_ms=view.as_of_ms,
            basis=view.basis,
        )

    def unlinked(self) -> list[str]:
        """Platform campaigns that stand for themselves, sorted."""
        return sorted(
            own_name(*owner) for owner in self._days if owner not in self._links or not self._links[owner].campaign_id
        )


def _split_ids(ids: bytes) -> list[bytes]:
    return [ids[start : start + ID_BYTES] for start in range(0, len(ids), ID_BYTES)]


def rollup_record(message: rollup_codec.Message) -> tuple[bytes, bytes]:
    """Key and value of a record of the rollups topic."""
    return rollup_codec.key(message), rollup_codec.encode(message)
