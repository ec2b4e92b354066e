"""Accounts' reporting zones and currencies: what turns an account's dates and hours into instants."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from schemas.platform import Platform

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_ORDINAL: Final = EPOCH.toordinal()


class Account(msgspec.Struct, frozen=True):
    """What is known of an ad account beside its rows. Empty says unknown."""

    time_zone: str = ""
    currency: str = ""


class Accounts(msgspec.Struct, frozen=True):
    """The known accounts by ``platform:account``, for rows that carry neither zone nor currency."""

    known: dict[str, Account] = {}

    def of(self, platform: Platform, account_id: str) -> Account:
        """The account's entry, else the platform's (key ``platform:``), else one that knows nothing.

        Meta's ids are the same account with and without ``act_``.
        """
        bare = account_id.removeprefix("act_")
        for key in (f"{platform}:{account_id}", f"{platform}:{bare}", f"{platform}:act_{bare}", f"{platform}:"):
            if (account := self.known.get(key)) is not None:
                return account
        return Account()


@lru_cache(maxsize=4096)
def zone(name: str) -> ZoneInfo:
    """The zone of an IANA name; UTC for the empty one. Raises ``ValueError`` for an unknown name."""
    try:
        return ZoneInfo(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"unknown time zone {name!r}") from error


@lru_cache(maxsize=65536)
def start_of_hour(day: int, hour: int, zone_name: str) -> int:
    """The UTC millisecond at which an hour (0 to 23) of an account's date began."""
    midnight = datetime.fromordinal(EPOCH_ORDINAL + day)
    local = midnight.replace(hour=hour, tzinfo=zone(zone_name))
    return (local - EPOCH) // timedelta(milliseconds=1)


def start_of_day(day: int, zone_name: str) -> int:
    """The UTC millisecond at which an account's date began."""
    return start_of_hour(day, 0, zone_name)


def end_of_day(day: int, zone_name: str) -> int:
    """The UTC millisecond at which an account's date ends, 23 to 25 hours after it began."""
    return start_of_day(day + 1, zone_name)


def local_day(instant_ms: int, zone_name: str) -> int:
    """The account's date, in days from 1970-01-01, on which an instant falls. Raises ``OverflowError`` past year
    9999.
    """
    if zone_name in ("", "UTC"):
        return instant_ms // 86_400_000
    return (EPOCH + timedelta(milliseconds=instant_ms)).astimezone(zone(zone_name)).toordinal() - EPOCH_ORDINAL


def iso_date(day: int) -> str:
    """``2026-01-31`` for a count of days from 1970-01-01."""
    return datetime.fromordinal(EPOCH_ORDINAL + day).date().isoformat()


@lru_cache(maxsize=8192)
def iso_instant(instant_ms: int) -> str:
    """``2026-01-31T10:00:00.000Z`` for UTC milliseconds."""
    return (EPOCH + timedelta(milliseconds=instant_ms)).strftime("%Y-%m-%dT%H:%M:%S.") + f"{instant_ms % 1000:03d}Z"


def instant_ms(text: str) -> int:
    """UTC milliseconds of an instant as ``iso_instant`` writes it. Raises ``ValueError`` for other text."""
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(milliseconds=1)
