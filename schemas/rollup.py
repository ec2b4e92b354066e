"""Rollups: what one platform campaign reported for one calendar day, for the campaign that it belongs to.

A rollup is a whole, not a difference: the highest revision of a key holds. When a link moves a platform campaign
away, its old campaign gets a rollup with ``withdrawn`` set and nothing in it. Beside rollups the topic carries
watermarks, one record for each aggregate partition, and exchange rates, each of them in every partition.
"""

from typing import Final

import msgspec

from schemas.metrics import Values
from schemas.platform import Platform

VERSION: Final = 1


class Money(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Micros of one currency; an empty currency is an unknown one. None says that no row carried the amount."""

    currency: str
    spend_micros: int | None
    revenue_micros: int | None


class Totals(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Counts in the order of ``METRICS``, in which spend and revenue stay None: money is kept by currency."""

    values: Values
    money: tuple[Money, ...] = ()


class Rollup(msgspec.Struct, frozen=True, array_like=True, tag="rollup", kw_only=True):
    """One platform campaign's day. ``hours`` maps UTC hours since the epoch to what fell into them.

    ``covered_ms`` is up to when, within the day, the platform has reported; ``as_of_ms`` the newest pull or event in
    it. ``link_revision`` is that of the link that gave it to its campaign, 0 without one.
    """

    version: int = VERSION
    campaign_id: str
    platform: Platform
    platform_campaign_id: str
    account_id: str = ""
    day: int
    revision: int
    withdrawn: bool = False
    day_totals: Totals | None = None
    hours: tuple[tuple[int, Totals], ...] = ()
    start_ms: int = 0
    zone: str = ""
    covered_ms: int = 0
    as_of_ms: int = 0
    basis: str = ""
    link_revision: int = 0


class Watermark(msgspec.Struct, frozen=True, array_like=True, tag="watermark", kw_only=True):
    """What an aggregate partition has observed on all of its sources, in UTC milliseconds."""

    version: int = VERSION
    partition: int
    watermark_ms: int


class RateFact(msgspec.Struct, frozen=True, array_like=True, tag="rate", kw_only=True):
    """The rate of a currency for one date: one unit of it is ``nanos`` billionths of a unit of ``per``.

    ``day`` counts from 1970-01-01. ``nanos`` of 0 says that there is none.
    """

    version: int = VERSION
    currency: str
    day: int
    per: str
    nanos: int
    updated_ms: int


Message = Rollup | Watermark | RateFact

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final[msgspec.msgpack.Decoder[Message]] = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """Msgpack of the message."""
    return _encoder.encode(message)


def decode(payload: bytes) -> Message:
    """The message of its bytes. Raises ``ValueError`` for another version or no message at all."""
    try:
        message = _decoder.decode(payload)
    except msgspec.DecodeError as error:
        raise ValueError(f"not a rollup: {error}") from error
    if message.version != VERSION:
        raise ValueError(f"rollup version {message.version} is not known here; version {VERSION} is")
    return message


def key(message: Message) -> bytes:
    """The compaction key: one for each campaign, platform campaign and day, or for each aggregate partition.

    A rate's is the whole of it. The one that holds need not be the last in the log, so only repetitions may go.
    """
    if isinstance(message, Watermark):
        return _encoder.encode(("watermark", message.partition))
    if isinstance(message, RateFact):
        facts = (message.currency, message.day, message.per, message.nanos, message.updated_ms)
        return _encoder.encode(("rate", *facts))
    return _encoder.encode((message.campaign_id, message.platform, message.platform_campaign_id, message.day))
