"""What predictions of a batch of campaigns start from: each campaign's labels, and what it had shown before them.

A label's window is the first that begins neither before the end of the campaign's newest one nor before the end of the
last day that was learned. Features end where it begins: what was learned of closed days, and the counts of the open
ones.

Campaigns are walked over once, into columns; numpy does the rest for all of them together.
"""

from array import array
from collections.abc import Sequence
from math import ceil
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.campaign import COLUMNS, Campaign
from core.ctr_stream import CtrStream
from core.learning.decayed import Ints
from core.learning.predictive import Floats
from core.window import HOURS_A_DAY, Window
from schemas.calendar import end_of_day
from schemas.event import DAY_MS, HOUR_MS
from schemas.metrics import CLICKS, IMPRESSIONS
from schemas.platform import Platform
from schemas.rollup import Rollup

DAYS: Final = 7
LEAST_COVERED: Final = 1 / HOURS_A_DAY
ABSENT: Final = -1


class Label(NamedTuple):
    """A window to predict: its first hour or day, its start, and where the features end. ``newest`` is the last day
    that features are looked for on.
    """

    first: int
    start_ms: int
    feature_end_ms: int
    newest: int


class Counts(NamedTuple):
    """What had been shown before the labels of one length, [cells] each: on the days that are not learned, on the last
    ``DAYS``, and how much of these was reported, in days; and whether anything was reported at all.
    """

    impressions: Floats
    clicks: Floats
    recent: Floats
    recent_clicks: Floats
    covered: Floats
    present: NDArray[np.bool_]


class Batch(NamedTuple):
    """Campaigns' labels of an hour and of days, None where there is no such window, and the counts before each. A cell
    is the campaign's place times the number of ``CtrStream.platforms``, and the platform's place.
    """

    labels: tuple[list[Label | None], list[Label | None]]
    counts: tuple[Counts, Counts]


def batch(campaigns: Sequence[Campaign], windows: Sequence[Window], learned: CtrStream) -> Batch:
    """Labels and counts for the windows that are wanted."""
    until = learned.learned_until_ms
    hourly = next((window for window in windows if not window.days), None)
    daily = next((window for window in windows if window.days), None)
    hours = [None if hourly is None else _hour(campaign, hourly, until) for campaign in campaigns]
    days = [None if daily is None else _day(campaign, daily, until) for campaign in campaigns]
    rows = _Rows(campaigns, hours, days, learned.platforms)
    last = learned.predictor.last_day
    return Batch((hours, days), (rows.before(hours, last), rows.before(days, last)))


def _hour(campaign: Campaign, window: Window, learned_until_ms: int) -> Label | None:
    latest = campaign.latest(window)
    if latest is None:
        return None
    first = max(latest + 1, ceil(learned_until_ms / HOUR_MS))
    feature_end_ms = max(campaign.end_ms(window, latest), learned_until_ms)
    return Label(first, first * HOUR_MS, feature_end_ms, latest // HOURS_A_DAY + 1)


def _day(campaign: Campaign, window: Window, learned_until_ms: int) -> Label | None:
    latest = campaign.latest(window)
    if latest is None:
        return None
    first, start_ms = latest + 1, campaign.end_ms(window, latest)
    feature_end_ms = max(start_ms, learned_until_ms)
    if start_ms < learned_until_ms:
        zones = {rollup.zone for rollup in campaign.by_day.get(latest, {}).values() if not rollup.withdrawn}
        first = max(first, learned_until_ms // DAY_MS - 1)
        while (start_ms := max(end_of_day(first - 1, zone) for zone in zones)) < learned_until_ms:
            first += 1
    return Label(first, start_ms, feature_end_ms, latest)


class _Rows:
    """The rollups with content on the days that any label looks at, newest first within a campaign."""

    def __init__(
        self,
        campaigns: Sequence[Campaign],
        hours: Sequence[Label | None],
        days: Sequence[Label | None],
        platforms: tuple[str, ...],
    ) -> None:
        self._campaigns = campaigns
        told, held = array("q"), list[int]()
        for campaign, *labels in zip(campaigns, hours, days, strict=True):
            before, newest = len(told), [label.newest for label in labels if label is not None]
            if newest:
                for day in range(max(newest), min(newest) - DAYS, -1):
                    told += campaign.columns(day)
            held.append((len(told) - before) // len(COLUMNS))
        columns = np.frombuffer(told, dtype=np.int64).reshape(-1, len(COLUMNS))
        owner = np.repeat(np.arange(len(campaigns)), held)
        place = {platform: at for at, platform in enumerate(platforms)}
        place_of = np.array([place.get(platform, ABSENT) for platform in Platform])[columns[:, 0]]
        known = place_of != ABSENT
        self._owner = owner[known]
        self._cell = self._owner * len(platforms) + place_of[known]
        columns = columns[known].T
        _, self._day, self._number, self._impressions, self._clicks, self._start, self._covered = columns
        self._cells = len(campaigns) * len(platforms)
        latest = int(self._day.max(initial=0))
        spread = latest - int(self._day.min(initial=latest)) + 1
        days_of_cells, self._of_day = np.unique(self._cell * spread + latest - self._day, return_inverse=True)
        self._cell_of_day = days_of_cells // spread

    def before(self, labels: Sequence[Label | None], last_learned: int | None) -> Counts:
        """What they tell of the time before some labels, by cell."""
        none = (0, 0, 0, -1)
        table = np.array([label or none for label in labels], dtype=np.int64).reshape(-1, len(none))
        end_ms, newest = table[self._owner, 2], table[self._owner, 3]
        seen = (self._day <= newest) & (self._day > newest - DAYS)
        impressions, clicks = self._impressions * seen, self._clicks * seen
        for at in np.flatnonzero(seen & (self._covered > end_ms)).tolist():
            rollups = self._campaigns[self._owner[at]].reported(int(self._day[at]))
            impressions[at], clicks[at] = _hours_before(int(end_ms[at]), rollups[self._number[at]])
        still_open = True if last_learned is None else self._day > last_learned
        part = (np.minimum(self._covered, end_ms) - self._start) / DAY_MS
        best = np.zeros(self._cell_of_day.size)
        np.maximum.at(best, self._of_day, np.where(seen, np.minimum(part, 1.0), 0.0))
        return Counts(
            self._summed(impressions * still_open),
            self._summed(clicks * still_open),
            self._summed(impressions),
            self._summed(clicks),
            np.maximum(np.bincount(self._cell_of_day, weights=best, minlength=self._cells), LEAST_COVERED),
            self._summed(seen) > 0,
        )

    def _summed(self, values: Ints | NDArray[np.bool_]) -> Floats:
        return np.bincount(self._cell, weights=values, minlength=self._cells).astype(np.float64, copy=False)


def _hours_before(instant_ms: int, rollup: Rollup) -> tuple[int, int]:
    """Impressions and clicks of the hours of a day that ended before an instant."""
    found = [totals.values for hour, totals in rollup.hours if (hour + 1) * HOUR_MS <= instant_ms]
    return sum(values[IMPRESSIONS] or 0 for values in found), sum(values[CLICKS] or 0 for values in found)
