"""The blocks of one aggregate partition: an index of all of them, and those in memory that are worked on.

A block is decoded from the table when a row, a rollup or a link touches it. Whatever the table may not hold yet stays
in memory: writes are in the table before the next checkpoint is taken, so what one checkpoint writes, the next may
let go of.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Final

from core import block as block_codec
from core.aggregate_table import BlockKey, PlatformCampaign, TableWrite, block_key
from core.block import Block
from core.panes import Panes
from core.retention import NEVER
from schemas.envelope import decode_pane_key

IN_MEMORY: Final = 20_000
"""Blocks that stay decoded between checkpoints."""
AT_ONCE: Final = 10_000
"""Blocks that one checkpoint looks at to delete them."""
REFUSED: Final = -1


class CorruptTable(RuntimeError):
    """A block that the table should hold is not there or cannot be read."""


class Blocks:
    """``table`` is where writes end up once they are durable; without it every block stays in memory. ``len`` is how
    many there are, ``decoded`` how many of them are in memory.
    """

    def __init__(self, table: Mapping[bytes, bytes] | None = None, in_memory: int = IN_MEMORY) -> None:
        self.panes = Panes()
        self._table = table
        self._in_memory = in_memory
        self._days: dict[PlatformCampaign, list[int]] = {}
        self._decoded: dict[BlockKey, Block] = {}
        self._pane_blocks: list[Block] = []
        self._dirty: set[Block] = set()
        self._floor = NEVER
        self._expired: deque[BlockKey] = deque()

    def __len__(self) -> int:
        return sum(map(len, self._days.values()))

    @property
    def decoded(self) -> int:
        """How many blocks are in memory."""
        return len(self._decoded)

    @property
    def waiting(self) -> bool:
        """Whether there are blocks past the floor."""
        return bool(self._expired)

    def restore(self, owner: PlatformCampaign, day: int) -> None:
        """Index a block of the table."""
        days = self._days.get(owner)
        if days is None:
            self._days[owner] = [day]
        else:
            days.append(day)

    def owners(self) -> Iterator[PlatformCampaign]:
        """The platform campaigns that have blocks."""
        return iter(self._days)

    def days(self, owner: PlatformCampaign) -> list[int]:
        """The days for which a platform campaign has blocks."""
        return self._days.get(owner, [])

    def block(self, key: BlockKey) -> Block:
        """A block to work on: in memory, from the table, or a new one, which is not counted before it is touched.

        Raises ``CorruptTable``.
        """
        block = self._decoded.get(key)
        if block is None:
            block = self._decoded[key] = self._load(key, self.panes)
            for row in block.pane_rows:
                self._own(row, block)
        return block

    def glance(self, key: BlockKey) -> tuple[Block, Panes]:
        """A block to read, and the panes that hold its rows; one that is not in memory is not kept there.

        Raises ``CorruptTable``.
        """
        block = self._decoded.get(key)
        if block is not None:
            return block, self.panes
        panes = Panes(room=16)
        return self._load(key, panes), panes

    def _load(self, key: BlockKey, panes: Panes) -> Block:
        block = Block(*key)
        if self._table is not None and block.day in self._days.get((block.platform, block.campaign_id), ()):
            payload = self._table.get(block_key(key))
            if payload is None:
                raise CorruptTable(f"the table does not hold the block {key}")
            try:
                block_codec.decode(payload, block, panes)
            except ValueError as error:
                raise CorruptTable(f"the table's block {key} cannot be read: {error}") from error
        return block

    def _own(self, row: int, block: Block) -> None:
        if row == len(self._pane_blocks):
            self._pane_blocks.append(block)
        else:
            self._pane_blocks[row] = block

    def pane_row(self, encoded: bytes, floor: int) -> int:
        """The row of an encoded pane key, ``REFUSED`` for one of a day before a floor."""
        row = self.panes.find(encoded)
        key = decode_pane_key(encoded) if row is None else self.panes.key(row)
        if key.day < floor:
            return REFUSED
        if row is not None:
            return row
        block = self.block((key.platform, key.campaign_id, key.day))
        row = self.panes.find(encoded)
        if row is None:
            row = self.panes.row(encoded)
            block.pane_rows.append(row)
            self._own(row, block)
        return row

    def of_pane(self, row: int) -> Block:
        """The block that a pane belongs to."""
        return self._pane_blocks[row]

    def touch(self, block: Block, revision: int) -> None:
        """A block has changed."""
        if block.revision == 0:
            self.restore((block.platform, block.campaign_id), block.day)
        block.revision = max(block.revision, revision)
        self._dirty.add(block)

    def take_writes(self) -> list[TableWrite]:
        """What changed since the last checkpoint. What did not change may leave memory."""
        writes = [
            TableWrite(block_key((block.platform, block.campaign_id, block.day)), block_codec.encode(block, self.panes))
            for block in self._dirty
        ]
        surplus = len(self._decoded) - self._in_memory
        if self._table is not None and surplus > 0:
            clean = (key for key, block in self._decoded.items() if block not in self._dirty)
            for key in list(islice(clean, surplus)):
                self._forget(key)
        self._dirty.clear()
        return writes

    def _forget(self, key: BlockKey) -> None:
        self.panes.free(self._decoded.pop(key).pane_rows)

    def expire(self, floor: int, kept: Callable[[BlockKey], bool]) -> list[TableWrite]:
        """Let go of blocks of days before a floor but for those to be kept, so many at once; the deletes."""
        if floor > self._floor:
            self._floor = floor
            self._expired = deque(
                (*owner, day) for owner, days in self._days.items() if min(days) < floor for day in days if day < floor
            )
        deletes = []
        for _ in range(min(len(self._expired), AT_ONCE)):
            key = self._expired.popleft()
            if kept(key):
                self._expired.append(key)
                continue
            deletes.append(TableWrite(block_key(key), None))
            if key in self._decoded:
                self._forget(key)
            platform, campaign_id, day = key
            days = self._days[platform, campaign_id]
            days.remove(day)
            if not days:
                del self._days[platform, campaign_id]
        return deletes
