"""Keys and values of a campaigns table.

A value begins with a version byte and with what a restart must know, so that it decodes nothing else. A campaign's
windows that end on one day share a value: most of a day's windows change together, and 26 values would mostly be keys.

=========================================  =========================================================================
``("rollup/<platform>", campaign,          position (8 bytes), the rollup as it came
platform campaign, day)``
``("windows", campaign, "", last day)``    highest sequence (8), when the first preliminary one is final (8), windows
``("rate", currency, "", day)``            position (8), the rate as it came
``("again", campaign, window, ordinal)``   sequence (8), changed (1), an insight that a crash may have kept back
``("ctr", "day", "", day)``                a closed day's counts that wait to be learned
``("ctr", "state", "a" or "b", n)``        generation (8), chunks (4), the n-th chunk of what was learned
``("ctr", "late", "a" or "b", n)``         as above, of what came for days that were taken
``("ctr", "captured", "", 0)``             the last day that was closed (8)
``("mark", "", "", 0)``                    ``Mark``
=========================================  =========================================================================
"""

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from core.published import Published
from core.window import WindowKey
from schemas import rollup as rollup_codec
from schemas.rollup import RateFact, Rollup

VERSION: Final = b"\x01"
WINDOWS: Final = "windows"
AGAIN: Final = "again"
RATE: Final = "rate"
CTR: Final = "ctr"
CHUNK: Final = 512 * 1024
SLOTS: Final = ("a", "b")
OPEN_END: Final = (1 << 62).to_bytes(8, "big")
"""Of windows none of which is preliminary."""

_pack: Final = msgspec.msgpack.Encoder().encode
_Group = list[tuple[str, int, Published]]
_windows: Final = msgspec.msgpack.Decoder(_Group)
parse_key: Final = msgspec.msgpack.Decoder(tuple[str, str, str, int]).decode
"""Kind, campaign id, platform campaign or window, and day or ordinal."""


class Unreadable(RuntimeError):
    """A stored value is broken. No ``ValueError``: the record in hand is not to blame, and must not be skipped."""


class Mark(msgspec.Struct, array_like=True):
    """The last write of a checkpoint but for deletes. ``settled`` is the rollup offset up to which no window waits to
    be published; what ends before the day ``floor`` is deleted, or is after this mark.
    """

    position: int = -1
    settled: int = -1
    sequence: int = 0
    published: int = 0
    watermarks: list[tuple[int, int]] = []
    floor: int = 0


MARK_KEY: Final = _pack(("mark", "", "", 0))
_mark: Final = msgspec.msgpack.Decoder(Mark)


def pack_mark(mark: Mark) -> bytes:
    """The mark's bytes."""
    return _pack(mark)


def unpack_mark(value: bytes) -> Mark:
    """The mark of its bytes."""
    return _mark.decode(value)


def rollup_key(rollup: Rollup) -> bytes:
    """Where a rollup is kept."""
    return _pack((f"rollup/{rollup.platform}", rollup.campaign_id, rollup.platform_campaign_id, rollup.day))


def rate_key(currency: str, day: int) -> bytes:
    """Where a rate is kept."""
    return _pack((RATE, currency, "", day))


def windows_key(campaign_id: str, last_day: int) -> bytes:
    """Where what was published of a campaign's windows that end on a day is kept."""
    return _pack((WINDOWS, campaign_id, "", last_day))


def again_key(campaign_id: str, key: WindowKey) -> bytes:
    """Where an insight is kept until it is known to have been published."""
    return _pack((AGAIN, campaign_id, *key))


def ctr_key(what: str, slot: str, number: int) -> bytes:
    """Where something of what is learned of CTR is kept."""
    return _pack((CTR, what, slot, number))


CAPTURED_KEY: Final = ctr_key("captured", "", 0)


def in_slots(what: str, generation: int, payload: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of bytes that may fill several values. They are written to two places in turn: one of them is
    always whole.
    """
    chunks = [payload[at : at + CHUNK] for at in range(0, len(payload), CHUNK)]
    head = VERSION + generation.to_bytes(8, "big") + len(chunks).to_bytes(4, "big")
    slot = SLOTS[generation % len(SLOTS)]
    for at, chunk in enumerate(chunks):
        yield ctr_key(what, slot, at), head + chunk


def from_slots(table: Mapping[bytes, bytes], what: str) -> tuple[int, bytes] | None:
    """The generation and bytes of the newest that was written to its end."""
    return max((held for slot in SLOTS if (held := _whole(table, what, slot)) is not None), default=None)


def _whole(table: Mapping[bytes, bytes], what: str, slot: str) -> tuple[int, bytes] | None:
    first = table.get(ctr_key(what, slot, 0))
    if first is None:
        return None
    head, count = first[:13], int.from_bytes(first[9:13], "big")
    chunks = [table.get(ctr_key(what, slot, at)) for at in range(count)]
    if not all(chunk is not None and chunk[:13] == head for chunk in chunks):
        return None
    return int.from_bytes(head[1:9], "big"), b"".join(chunk[13:] for chunk in chunks if chunk is not None)


def check_version(key: bytes, value: bytes) -> None:
    """Raises ``ValueError`` for a value of another version."""
    if value[:1] != VERSION:
        raise ValueError(
            f"the campaigns table holds a value of version {value[0] if value else 'none'} under {parse_key(key)}; "
            f"version {VERSION[0]} is known here: rebuild the table from the rollups"
        )


def number(value: bytes) -> int:
    """The 8 bytes after the version: a rollup's position, or a sequence."""
    return int.from_bytes(value[1:9], "big")


def pack_rollup(position: int, payload: bytes) -> bytes:
    """A rollup or a rate with its offset in the rollups log."""
    return VERSION + position.to_bytes(8, "big") + payload


def unpack_rollup(value: bytes) -> Rollup:
    """The rollup. Raises ``Unreadable``."""
    try:
        rollup = rollup_codec.decode(value[9:])
    except ValueError as error:
        raise Unreadable(f"the campaigns table holds a rollup that cannot be read: {error}") from error
    if not isinstance(rollup, Rollup):
        raise Unreadable("the campaigns table holds something else as a rollup")
    return rollup


def unpack_rate(value: bytes) -> RateFact:
    """The rate. Raises ``Unreadable``."""
    try:
        rate = rollup_codec.decode(value[9:])
    except ValueError as error:
        raise Unreadable(f"the campaigns table holds a rate that cannot be read: {error}") from error
    if not isinstance(rate, RateFact):
        raise Unreadable("the campaigns table holds something else as a rate")
    return rate


def pack_windows(group: Mapping[WindowKey, Published]) -> bytes:
    """What was published of some windows."""
    sequence = max(published.sequence for published in group.values())
    ends = [published.final_ms for published in group.values() if published.preliminary]
    closes = min(ends).to_bytes(8, "big") if ends else OPEN_END
    return VERSION + sequence.to_bytes(8, "big") + closes + _pack([(*key, each) for key, each in group.items()])


def closes_ms(value: bytes) -> int | None:
    """When the first of the preliminary windows was to become final."""
    closes = value[9:17]
    return None if closes == OPEN_END else int.from_bytes(closes, "big")


def unpack_windows(value: bytes) -> dict[WindowKey, Published]:
    """What was published of some windows. Raises ``Unreadable``."""
    try:
        group = _windows.decode(value[17:])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unreadable(f"the campaigns table holds windows that cannot be read: {error}") from error
    return {WindowKey(name, ordinal): published for name, ordinal, published in group}


def pack_again(sequence: int, payload: bytes, *, changed: bool) -> bytes:
    """An insight, the checkpoint that was to publish it, and whether its window has ``changed`` since."""
    return VERSION + sequence.to_bytes(8, "big") + bytes((changed,)) + payload


def unpack_again(value: bytes) -> tuple[bool, bytes]:
    """Whether the window has changed since, and the insight's bytes."""
    return value[9] > 0, value[10:]
