"""Dates, hours and instants as report rows and envelopes write them."""

import re
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Final

import msgspec

from schemas.calendar import EPOCH, EPOCH_ORDINAL, zone
from schemas.event import DAY_MS, RejectCode
from schemas.refusal import Refused, show

EARLIEST_MS: Final = 946_684_800_000
"""2000-01-01, before any of the platforms. An instant before it is a unit error."""
LATEST_MS: Final = 4_102_444_800_000
"""2100-01-01."""

# Singer casts dates to midnight instants, TikTok writes them with a time.
DATE: Final = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ]00:00(?::00(?:\.0+)?)?(?:Z|[+-]00:00)?)?", re.ASCII)
HOUR: Final = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d):00(?::00(?:\.0+)?)?Z?", re.ASCII)
ZonedTime = Annotated[datetime, msgspec.Meta(tz=True)]


@lru_cache(maxsize=4096)
def _day(text: str) -> int | None:
    try:
        day = date.fromisoformat(text).toordinal() - EPOCH_ORDINAL
    except ValueError:
        return None
    return day if EARLIEST_MS <= day * DAY_MS < LATEST_MS else None


def day_of(value: object, field: str) -> int | None:
    """The date as days from 1970-01-01; None where it is absent. Raises ``Refused``."""
    if value is None or value in ("", "-"):
        return None
    match = DATE.fullmatch(value) if type(value) is str else None
    day = _day(match[1]) if match else None
    if day is None:
        raise Refused(RejectCode.BAD_TIME, f"{field} must be a date from 2000 to 2099, not {show(value)}")
    return day


def hour_of(value: object, field: str) -> tuple[int, int] | None:
    """``(day, hour)`` of a zone-less hour stamp; None where it is absent. Raises ``Refused``."""
    if value is None or value in ("", "-"):
        return None
    match = HOUR.fullmatch(value) if type(value) is str else None
    day = _day(match[1]) if match else None
    if match is None or day is None or (hour := int(match[2])) > 23:
        raise Refused(RejectCode.BAD_TIME, f"{field} must be a whole hour of a date, not {show(value)}")
    return day, hour


def instant_of(value: object, field: str) -> int:
    """UTC milliseconds of epoch milliseconds or of an RFC 3339 string with an offset. Raises ``Refused``."""
    if type(value) is int:
        instant = value
    elif type(value) is str:
        try:
            instant = (msgspec.convert(value, ZonedTime) - EPOCH) // timedelta(milliseconds=1)
        except (msgspec.ValidationError, OverflowError) as error:
            raise Refused(
                RejectCode.BAD_TIME, f"{field} must be RFC 3339 with a date and an offset, not {show(value)}"
            ) from error
    else:
        raise Refused(RejectCode.BAD_TIME, f"{field} must be epoch milliseconds or RFC 3339, not {show(value)}")
    if not EARLIEST_MS <= instant < LATEST_MS:
        raise Refused(RejectCode.BAD_TIME, f"{field} must lie from 2000 to 2099 (milliseconds), but is {show(value)}")
    return instant


@lru_cache(maxsize=4096)
def is_zone(name: str) -> bool:
    """Whether a name is an IANA time zone of this machine. The empty name stands for UTC."""
    try:
        zone(name)
    except ValueError:
        return False
    return True
