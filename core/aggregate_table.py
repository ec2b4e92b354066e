"""The table of an aggregate partition: its keys, its mark, and the writes of a checkpoint."""

from typing import Final, NamedTuple

import msgspec

from schemas.platform import Platform

PlatformCampaign = tuple[Platform, str]
BlockKey = tuple[Platform, str, int]


class Mark(msgspec.Struct, array_like=True):
    """The last write of a checkpoint but for deletes. ``position`` is the routed offset up to which the table is
    whole, −1 for none; ``published`` the revision up to which every rollup has been sent; ``reached`` the watermark
    over all sources; ``settled`` the one that idle sources hold back too.
    """

    position: int = -1
    published: int = 0
    fences: list[tuple[str, int, int, int]] = []
    watermarks: list[tuple[str, int, int, bool]] = []
    tallies: dict[str, dict[str, int]] = {}
    reached: int = -1
    settled: int = -1


class TableWrite(NamedTuple):
    """One write to the partition's table. No value deletes the key."""

    key: bytes
    value: bytes | None


pack: Final = msgspec.msgpack.Encoder().encode
decode_key: Final = msgspec.msgpack.Decoder(tuple[str, str, str, int]).decode
decode_mark: Final = msgspec.msgpack.Decoder(Mark).decode

MARK_KEY: Final = pack(("mark", "", "", 0))


def block_key(key: BlockKey) -> bytes:
    """The table key of a block."""
    return pack(("block", *key))


def link_key(owner: PlatformCampaign) -> bytes:
    """The table key of a platform campaign's link."""
    return pack(("link", *owner, 0))


def ids_key(day: int, position: int, chunk: int) -> bytes:
    """The table key of one chunk of the event ids that the checkpoint at a position added to a day."""
    return pack(("ids", str(day), str(position), chunk))
