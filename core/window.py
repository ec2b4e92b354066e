"""Windows: a UTC hour, an account's calendar day, or several days sliding by one.

A day window is a calendar date, each account's own: exactly what its reports call that day. A window of days exists
for every day that the campaign reported, and ends with it.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from schemas.calendar import iso_date, iso_instant
from schemas.event import DAY_MS, HOUR_MS

HOURS_A_DAY: Final = 24


class Window(msgspec.Struct, frozen=True):
    """A kind of window. ``days`` is 0 for the hour."""

    name: str
    days: int

    @property
    def span_ms(self) -> int:
        """Its length, days taken as 24 hours."""
        return self.days * DAY_MS or HOUR_MS


class WindowKey(NamedTuple):
    """One window of a campaign. ``ordinal`` is the UTC hour since the epoch, or the last day (its date, from
    1970-01-01).
    """

    name: str
    ordinal: int


def parse_window(name: str) -> Window:
    """The window of a name: ``1h``, ``24h``, or ``2d`` to ``366d``. Raises ``ValueError`` for any
    other.
    """
    if name == "1h":
        return Window(name, 0)
    if name == "24h":
        return Window(name, 1)
    days = re.fullmatch(r"([1-9]\d{0,2})d", name)
    if days is None or not 2 <= int(days[1]) <= 366:
        raise ValueError(f"window {name!r} is not known: use 1h, 24h, or 2d to 366d")
    return Window(name, int(days[1]))


def days_of(window: Window, index: int) -> range:
    """The calendar days that a window's rollups may lie on. An hour's may lie on three dates, depending on the zone."""
    if window.days:
        return range(index - window.days + 1, index + 1)
    day = index // HOURS_A_DAY
    return range(day - 1, day + 2)


def last_day(window: Window, index: int) -> int:
    """The day on which a window ends; an hour's is its UTC day."""
    return index if window.days else index // HOURS_A_DAY


def touched(windows: Iterable[Window], day: int, hours: Iterable[int]) -> Iterator[WindowKey]:
    """The windows that a rollup of a day, with content in some UTC hours, may change."""
    hours = list(hours)
    for window in windows:
        if window.days:
            yield from (WindowKey(window.name, end) for end in range(day, day + window.days))
        else:
            yield from (WindowKey(window.name, hour) for hour in hours)


def bounds(window: Window, index: int) -> tuple[str, str]:
    """Start and exclusive end as text: dates for windows of days, instants for the hour."""
    if window.days:
        return iso_date(index - window.days + 1), iso_date(index + 1)
    return iso_instant(index * HOUR_MS), iso_instant((index + 1) * HOUR_MS)
