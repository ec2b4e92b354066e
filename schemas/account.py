"""Facts of ad accounts: the zone of their dates and the currency of their money, for rows that carry neither.

Wire: JSON on ``ads.accounts``, keyed ``platform:account``; a record without a value withdraws what was said. A row is
read by what had arrived of its account when it arrived: of that, what has the highest ``updated_at`` holds, and equal
ones are settled by their content. What a record leaves out, and all before the first one, is as the settings say.
"""

from typing import Annotated, Final, Literal

import msgspec

from schemas.currency import CODES
from schemas.dates import LATEST_MS, is_zone
from schemas.event import Ignored, IgnoreReason, RejectCode, Rejection
from schemas.link import Id
from schemas.platform import Platform
from schemas.refusal import show


class AccountRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Version 1 of the wire contract. ``time_zone`` is an IANA name, ``currency`` an ISO 4217 code.

    ``updated_at`` is in epoch milliseconds; without it the record's arrival counts.
    """

    version: Literal[1]
    platform: Literal["meta", "tiktok", "google_ads"]
    account_id: Id
    time_zone: str | None = None
    currency: str | None = None
    updated_at: Annotated[int, msgspec.Meta(ge=0, le=LATEST_MS)] | None = None


class AccountFact(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is said of an account. Empty says nothing; an empty zone and currency withdraw."""

    platform: Platform
    account_id: str
    time_zone: str
    currency: str
    updated_ms: int


_decoder: Final = msgspec.json.Decoder(AccountRecord)


def decode_account(
    key: bytes | None, payload: bytes | None, *, arrival_ms: int, max_bytes: int
) -> AccountFact | Rejection | Ignored:
    """An account record's fact. Total: any bytes give an outcome."""
    if payload is None:
        platform, _, account = (key or b"").decode("utf-8", "replace").partition(":")
        if platform not in set(Platform) - {Platform.UNKNOWN} or not account:
            return Ignored(IgnoreReason.TOMBSTONE)
        return AccountFact(Platform(platform), account, "", "", arrival_ms)
    if len(payload) > max_bytes:
        return Rejection(RejectCode.OVERSIZE, f"the account has {len(payload)} bytes; at most {max_bytes} are taken")
    try:
        wire = _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Rejection(RejectCode.BAD_ACCOUNT, f"not an account: {str(error)[:160]}")
    zone, currency = wire.time_zone or "", wire.currency or ""
    if not is_zone(zone):
        return Rejection(RejectCode.BAD_ACCOUNT, f"time_zone must be an IANA name, not {show(zone)}")
    if currency and currency not in CODES:
        return Rejection(RejectCode.BAD_ACCOUNT, f"currency must be an ISO 4217 code, not {show(currency)}")
    updated = arrival_ms if wire.updated_at is None else wire.updated_at
    return AccountFact(Platform(wire.platform), wire.account_id, zone, currency, updated)
