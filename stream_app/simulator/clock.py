"""The simulation's fixed calendar: when each day was, when its pull arrived, and when "today" is."""

from datetime import date
from typing import Final

from schemas.calendar import EPOCH_ORDINAL, iso_date
from schemas.event import DAY_MS, HOUR_MS

LAST_DAY: Final = date(2025, 6, 15).toordinal() - EPOCH_ORDINAL
TODAY: Final = LAST_DAY + 1

# By 10:00 UTC the day before has ended in every account's zone; Los Angeles is the last at 07:00.
PULL_MS: Final = 10 * HOUR_MS
# The in-house events of today begin after the pull, at an hour that has the same date in every account's zone.
TODAY_FIRST_HOUR: Final = TODAY * DAY_MS + 12 * HOUR_MS
TODAY_HOURS: Final = 6


def calendar_day(step: int, days: int) -> int:
    """The date of a step, in days from 1970-01-01; the last step is the fixed last day."""
    return LAST_DAY - days + 1 + step


def pull_ms(step: int, days: int) -> int:
    """When the connectors start their pull after a step's day, in UTC milliseconds."""
    return (calendar_day(step, days) + 1) * DAY_MS + PULL_MS


def day_label(step: int, days: int) -> str:
    """A step's date, such as ``2025-06-15``."""
    return iso_date(calendar_day(step, days))
