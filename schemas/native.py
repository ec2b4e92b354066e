"""What the native rows of all platforms share: ids, levels, segments, zones, and the snapshot that they become."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
import orjson

from schemas.calendar import Accounts, start_of_hour
from schemas.dates import is_zone
from schemas.event import Grain, Ignored, IgnoreReason, Kind, MetricEvent, RejectCode
from schemas.metrics import WIDTH, Values
from schemas.platform import Platform
from schemas.refusal import Refused, show

Row = Mapping[str, object]
"""A decoded JSON object."""
Segments = tuple[tuple[str, str], ...]

NO_ID: Final = frozenset({"", "-", "0"})
LONGEST_ID: Final = 128
CURRENCY: Final = re.compile(r"[A-Za-z]{3}", re.ASCII)
NO_VALUES: Final[Values] = (None,) * WIDTH


class Pull(msgspec.Struct, frozen=True):
    """What is known of a row beside itself: the connector's stream, when it was pulled, and the accounts."""

    report: str
    observed_ms: int
    accounts: Accounts
    account_hint: str = ""


class Entity(msgspec.Struct, frozen=True):
    """The ids of a row, empty where it has none."""

    account: str
    campaign: str
    ad_group: str
    ad: str


def id_of(value: object, field: str) -> str:
    """An id as a string, exactly as it is on the wire; empty where it is absent. Raises ``Refused``.

    Ids reach 7e18, so one that arrives as a JSON float has already lost digits and is refused.
    """
    if type(value) is str:
        text = value
    elif type(value) is int:
        text = str(value)
        if value < 0:
            raise Refused(RejectCode.BAD_ID, f"{field} must not be negative, but is {text}")
    elif value is None:
        return ""
    else:
        raise Refused(RejectCode.BAD_ID, f"{field} must be a string or an integer, not {show(value)}")
    if text in NO_ID:
        return ""
    if len(text) > LONGEST_ID or not text.isprintable() or text.isspace():
        raise Refused(RejectCode.BAD_ID, f"{field} must be 1 to {LONGEST_ID} printable characters, not {show(value)}")
    return text


def segments_of(pairs: Iterable[tuple[str, object]]) -> Segments:
    """Sorted ``(name, value)`` pairs, each value as text. Raises ``Refused``."""
    return tuple(sorted((name, value if type(value) is str else _text(value, name)) for name, value in pairs))


def text_of(value: object, field: str) -> str:
    """A text; empty where it is absent. Raises ``Refused``."""
    if value is None or value == "-":
        return ""
    if type(value) is not str:
        raise Refused(RejectCode.WRONG_TYPE, f"{field} must be a text, not {show(value)}")
    return value


def currency_of(value: object, field: str) -> str:
    """An ISO 4217 code in capitals; empty where it is absent. Raises ``Refused``."""
    text = text_of(value, field)
    if text and not CURRENCY.fullmatch(text):
        raise Refused(RejectCode.WRONG_TYPE, f"{field} must be an ISO 4217 code, not {show(value)}")
    return text.upper()


def snapshot(
    pull: Pull,
    platform: Platform,
    entity: Entity,
    *,
    segments: Segments,
    day: int | None,
    hour: int | None,
    values: Values,
    zone: str = "",
    currency: str = "",
) -> MetricEvent | Ignored:
    """The event of a native row, or why it has no place in the state.

    ``day`` and ``hour`` are the account's own. The zone is the row's, else the account's, else UTC, assumed. Raises
    ``Refused``.
    """
    if not entity.campaign:
        return _without_campaign(entity, values)
    if day is None:
        return Ignored(IgnoreReason.NO_PERIOD)
    if values == NO_VALUES:
        return Ignored(IgnoreReason.NO_METRICS)
    account_id = entity.account or pull.account_hint
    if not zone or not currency or not is_zone(zone):
        account = pull.accounts.of(platform, account_id)
        zone = next((name for name in (zone, account.time_zone) if name and is_zone(name)), "")
        currency = currency or account.currency
    return MetricEvent(
        Kind.SNAPSHOT,
        platform,
        account_id,
        entity.campaign,
        entity.ad_group,
        entity.ad,
        pull.report,
        segments,
        Grain.DAY if hour is None else Grain.HOUR,
        day,
        start_of_hour(day, hour or 0, zone),
        zone,
        pull.observed_ms,
        "",
        currency,
        values,
    )


def _without_campaign(entity: Entity, values: Values) -> Ignored:
    if entity.ad or entity.ad_group:
        return Ignored(IgnoreReason.NO_CAMPAIGN)
    if entity.account:
        return Ignored(IgnoreReason.ACCOUNT_LEVEL)
    if values == NO_VALUES:
        return Ignored(IgnoreReason.NO_METRICS)
    raise Refused(RejectCode.MISSING_FIELD, "the row carries metrics but no id: it needs at least the campaign's")


def _text(value: object, name: str) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case _:
            try:
                return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
            except TypeError as error:
                raise Refused(RejectCode.TOO_DEEP, f"the segment {show(name)} is nested too deep") from error
