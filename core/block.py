"""Blocks: all that is known of one platform campaign for one calendar day.

A block is the unit of the table: a change writes one block, not a campaign's history. Its revision is one more than
the offset, in the routed log, of the envelope that changed it last. That log is ordered and a block is a function of
a prefix of it, so two workers that hold the same revision hold the same content, and a stale one is told by its lower
revision.

In the table a block is its version (one byte), its revision (eight, big-endian), and msgpack of its cells and panes: so
a revision is read without decoding the rest.
"""

import struct
from typing import Final

import msgspec

from core.cell import Cell, CellKey
from core.panes import Panes
from schemas.platform import Platform

VERSION: Final = 2


class Block:
    """Mutable state of one platform campaign and day. ``pane_rows`` are rows of the partition's ``Panes``.

    ``restored`` is the revision with which the block came from the table, 0 for a new one.
    """

    __slots__ = ("campaign_id", "cells", "day", "pane_rows", "platform", "restored", "revision")

    def __init__(self, platform: Platform, campaign_id: str, day: int) -> None:
        self.platform = platform
        self.campaign_id = campaign_id
        self.day = day
        self.revision = 0
        self.restored = 0
        self.cells: dict[CellKey, Cell] = {}
        self.pane_rows: list[int] = []


class _Wire(msgspec.Struct, array_like=True, gc=False):
    cells: list[tuple[CellKey, Cell]]
    panes: list[tuple[bytes, bytes]]


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(_Wire)
_head: Final = struct.Struct(">BQ")
_FORMER: Final = 0x94
"""How version 1 began: msgpack of four fields, of which the version is the first."""


def encode(block: Block, panes: Panes) -> bytes:
    """The block's bytes, cells in a fixed order, so that equal blocks give equal bytes."""
    cells = sorted(block.cells.items(), key=lambda item: _encoder.encode(item[0])) if block.cells else []
    rows = sorted(panes.dump(block.pane_rows))
    return _head.pack(VERSION, block.revision) + _encoder.encode(_Wire(cells, rows))


def revision_of(payload: bytes) -> int:
    """The revision of a block's bytes. Raises ``ValueError`` for another version or bytes that are no block."""
    try:
        version, revision = _head.unpack_from(payload)
    except struct.error as error:
        raise ValueError(f"not a block: {error}") from error
    if version != VERSION:
        known = f"is not known here; version {VERSION} is"
        raise ValueError(f"block version {payload[1] if version == _FORMER else version} {known}")
    return int(revision)


def decode(payload: bytes, block: Block, panes: Panes) -> None:
    """Fill a new block from its bytes. Raises ``ValueError`` for another version or bytes that are no block."""
    revision = revision_of(payload)
    try:
        wire = _decoder.decode(memoryview(payload)[_head.size :])
    except msgspec.DecodeError as error:
        raise ValueError(f"not a block: {error}") from error
    block.revision = block.restored = revision
    block.cells = dict(wire.cells)
    block.pane_rows = [panes.load(key, cells) for key, cells in wire.panes]
