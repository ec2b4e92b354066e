"""The wire contract of in-house pullers: one canonical event as one JSON object, version 1.

Counts are ints; money and conversions are int micros. A snapshot restates one local calendar day or one hour, and the
latest observation holds. A delta adds to the hour and local day of its ``period_start``, once for each ``event_id``.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal

import msgspec

from schemas.calendar import Accounts, local_day, start_of_day
from schemas.dates import EARLIEST_MS, LATEST_MS, instant_of, is_zone
from schemas.event import (
    DAY_MS,
    HOUR_MS,
    Grain,
    Ignored,
    IgnoreReason,
    Kind,
    MetricEvent,
    Outcome,
    RejectCode,
    Rejection,
)
from schemas.metrics import MAX_COUNT, MAX_MICROS
from schemas.numbers import quality
from schemas.platform import Platform
from schemas.refusal import Refused, show

QUARTER_HOUR_MS: Final = 900_000

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
OptionalId = Annotated[str, msgspec.Meta(max_length=128)]
Time = Annotated[int | str, msgspec.Meta(description="Epoch milliseconds, or RFC 3339 with an offset; 2000 to 2099.")]
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]
Micros = Annotated[int, msgspec.Meta(ge=0, le=MAX_MICROS, description="Millionths of a unit.")]
Signal = Annotated[float, msgspec.Meta(ge=1, le=10)]
Currency = Annotated[str, msgspec.Meta(max_length=3, pattern=r"^(?:[A-Z]{3})?(?!\n)$", description="ISO 4217.")]


class CanonicalEvent(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=False, kw_only=True):
    """Version 1. An absent or null metric is not carried, which is not zero.

    ``time_zone`` (IANA) is the account's; without it the account's setting holds, else UTC is assumed. ``event_id`` is
    needed by a delta, ``period_end`` by a snapshot. ``observed_at`` is when a snapshot was pulled, by default when it
    arrived.
    """

    version: Literal[1]
    kind: Literal["snapshot", "delta"]
    platform: Literal["meta", "tiktok", "google_ads"]
    campaign_id: Id
    period_start: Time
    event_id: OptionalId = ""
    account_id: OptionalId = ""
    ad_group_id: OptionalId = ""
    ad_id: OptionalId = ""
    segments: dict[str, str] = {}
    report: OptionalId = ""
    period_end: Time | None = None
    observed_at: Time | None = None
    time_zone: str = ""
    currency: Currency = ""
    impressions: Count | None = None
    clicks: Count | None = None
    link_clicks: Count | None = None
    spend_micros: Micros | None = None
    conversions_micros: Micros | None = None
    revenue_micros: Micros | None = None
    engagements: Count | None = None
    video_views: Count | None = None
    quality: Signal | None = None


decoder: Final = msgspec.json.Decoder(CanonicalEvent)

KINDS: Final = {kind.value: kind for kind in Kind}
PLATFORMS: Final = {platform.value: platform for platform in Platform}
NO_VALUES: Final = (None,) * 10


def is_canonical(row: Mapping[str, object]) -> bool:
    """Whether an object claims to be a canonical event, of whatever version."""
    return "version" in row and "kind" in row and "stream" not in row and "type" not in row


def to_event(wire: CanonicalEvent, reader_accounts: Accounts, arrival_ms: int, account_hint: str = "") -> Outcome:
    """The metric event of a canonical event that has the right types."""
    try:
        return _event(wire, reader_accounts, arrival_ms, account_hint)
    except Refused as refused:
        return refused.rejection


def _event(wire: CanonicalEvent, accounts: Accounts, arrival_ms: int, account_hint: str) -> MetricEvent | Ignored:
    platform = PLATFORMS[wire.platform]
    account_id = wire.account_id or account_hint
    zone, currency = wire.time_zone, wire.currency
    if zone and not is_zone(zone):
        raise Refused(RejectCode.BAD_TIME, f"time_zone must be an IANA name, not {show(zone)}")
    if not zone or not currency:
        account = accounts.of(platform, account_id)
        zone = zone or (account.time_zone if is_zone(account.time_zone) else "")
        currency = currency or account.currency
    start = _instant(wire.period_start, "period_start")
    end = None if wire.period_end is None else _instant(wire.period_end, "period_end")
    day = local_day(start, zone)
    if wire.kind == "delta":
        grain = _delta_grain(wire, start, end)
        observed = start if wire.observed_at is None else _instant(wire.observed_at, "observed_at")
    else:
        grain = _snapshot_grain(start, end, day, zone)
        observed = arrival_ms if wire.observed_at is None else _instant(wire.observed_at, "observed_at")
    values = (
        wire.impressions,
        wire.clicks,
        wire.link_clicks,
        wire.spend_micros,
        wire.conversions_micros,
        wire.revenue_micros,
        wire.engagements,
        wire.video_views,
        *quality(wire.quality, wire.impressions),
    )
    if values == NO_VALUES:
        return Ignored(IgnoreReason.NO_METRICS)
    return MetricEvent(
        KINDS[wire.kind],
        platform,
        account_id,
        wire.campaign_id,
        wire.ad_group_id,
        wire.ad_id,
        wire.report,
        tuple(sorted(wire.segments.items())),
        grain,
        day,
        start,
        zone,
        observed,
        wire.event_id,
        currency,
        values,
    )


def _instant(value: int | str, field: str) -> int:
    if type(value) is int and EARLIEST_MS <= value < LATEST_MS:
        return value
    return instant_of(value, field)


def _delta_grain(wire: CanonicalEvent, start: int, end: int | None) -> Grain:
    if not wire.event_id:
        raise Refused(RejectCode.MISSING_FIELD, "a delta needs a non-empty event_id, by which it is counted once")
    if end is not None and not 0 <= end - start <= DAY_MS:
        raise Refused(RejectCode.BAD_PERIOD, "a delta's period must end at most 24 hours after it began")
    return Grain.HOUR


def _snapshot_grain(start: int, end: int | None, day: int, zone: str) -> Grain:
    if end is None:
        raise Refused(RejectCode.MISSING_FIELD, "a snapshot needs period_end: the period that it restates")
    if end - start == HOUR_MS and start % QUARTER_HOUR_MS == 0:
        return Grain.HOUR
    if start == start_of_day(day, zone) and end == start_of_day(day + 1, zone):
        return Grain.DAY
    raise Refused(
        RejectCode.BAD_PERIOD,
        f"a snapshot must cover one calendar day of {zone or 'UTC'} from midnight to midnight, or one clock hour",
    )


MISSING: Final = re.compile(r"missing required field `(\w+)`")
PLACE: Final = re.compile(r" - at `\$\.?(\w*)")
BELOW_ZERO: Final = "` >= 0"
OUTSIDE: Final = ("` >= ", "` <= ", "of length", "out of range")


def explain(error: msgspec.ValidationError, event: Mapping[str, object]) -> Rejection:
    """The rejection of a canonical event that breaks its contract. The sentence is made from msgspec's message."""
    version = event.get("version")
    if type(version) is int and version != 1:
        # First of all: whatever else differs from version 1 may be right in its own version.
        return Rejection(
            RejectCode.UNSUPPORTED_VERSION, f"version {show(version)} is not supported; this reader takes version 1"
        )
    message = str(error)
    missing = MISSING.search(message)
    if missing:
        return Rejection(RejectCode.MISSING_FIELD, f"a canonical event needs {missing[1]}")
    place = PLACE.search(message)
    field = place[1] if place and place[1] else "the event"
    problem = message.partition(" - at ")[0].replace("`", "")
    rule = problem[:1].lower() + problem[1:]
    if problem.startswith("Invalid enum value"):
        if field == "platform":
            return Rejection(RejectCode.UNKNOWN_PLATFORM, "platform must be meta, tiktok or google_ads")
        return Rejection(RejectCode.WRONG_TYPE, f"{field} must be snapshot or delta")
    if BELOW_ZERO in message:
        return Rejection(RejectCode.NEGATIVE, f"{field} must not be negative")
    if field == "currency":
        return Rejection(RejectCode.WRONG_TYPE, "currency must be three upper-case letters (ISO 4217)")
    if "of length" in message and field.endswith("_id"):
        return Rejection(RejectCode.BAD_ID, f"{field} is not an id: {rule}")
    if any(mark in message for mark in OUTSIDE):
        return Rejection(RejectCode.OUT_OF_RANGE, f"{field} is out of range: {rule}")
    return Rejection(RejectCode.WRONG_TYPE, f"{field} has the wrong type: {rule}")
