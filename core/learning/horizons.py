"""Forecasts of an hour and of a week, judged as those of a day are: once, when their windows have closed.

Of each series one week at a time is on its way. Its first begins up to six days after it appeared, by its campaign's
name, so that weeks begin on all days; the next one on the first day with a row after the one before has ended. So the
weeks of a series never overlap, and what is kept is one forecast a series. A week ends with its last day, whether or
not it was reported.

Of a day's hours one is judged, another one each day, by the campaign's name: with what the day had shown before it.

Intervals have the levels of those of a day (``core.learning.calibration``): on real weeks they hold their share too.
"""

from typing import Final, NamedTuple

import numpy as np

from core.learning.calibration import BAND_EDGES
from core.learning.decayed import Ints, with_columns
from core.learning.predictive import Floats
from core.learning.scorecard import Scorecard
from core.learning.walk import PREDICTORS, Predicted, Walk, judged

DAYS: Final = 7
MIDDLE: Final = (DAYS - 1) / 2
"""Steps from the first day of a week to its middle."""
READY: Final = -1
"""No week is on its way. Below it: so many more days are waited for the first one."""
ARRAYS: Final = ("until", "rates", "shape", "impressions", "clicks")
"""One value a series, or a row of them."""


class Hours(NamedTuple):
    """An hour of a day in which some of its rows had one: their places among the day's rows, what the day had shown
    before the hour, and what the hour showed, [h] each.
    """

    rows: Ints
    before_impressions: Floats
    before_clicks: Floats
    impressions: Floats
    clicks: Floats


def judge(
    card: Scorecard,
    walk: Walk,
    said: Predicted,
    begun: int,
    impressions: Floats,
    clicks: Floats,
    levels: Floats | None = None,
) -> None:
    """Score predictions of windows that began on a day, and have closed. ``levels``: of the intervals, if not now's."""
    names = [walk.platforms[at] for at in walk.platform[said.series].tolist()]
    ages = (begun - np.minimum(walk.first[said.series], begun)).astype(np.float64)
    scored = judged(walk.intervals, said, impressions, clicks, levels)[0]
    card.add(said.window, impressions, clicks, scored, names, ages)


class WeekAhead:
    """The week on its way of each series, and how those that have ended were judged.

    ``until``: its last day, or ``READY`` and below. ``rates``: every predictor's, [predictors, n], NaN where there is
    none; ``shape`` the default's, [n]; ``impressions`` and ``clicks`` what it has shown so far, [n]. ``levels``: of
    the intervals when a week began, [7, bands], by the rest of its last day over 7.
    """

    def __init__(self) -> None:
        self.scorecard = Scorecard(PREDICTORS)
        self.until: Ints = np.zeros(0, dtype=np.int64)
        self.rates: np.ndarray = np.zeros((len(PREDICTORS), 0), dtype=np.float32)
        self.levels: Floats = np.zeros((DAYS, BAND_EDGES.size + 1))
        self.shape: Floats = np.zeros(0)
        self.impressions: Floats = np.zeros(0)
        self.clicks: Floats = np.zeros(0)

    def extend(self, waits: Ints) -> None:
        """Append series by the days that each waits with its first week, 0 to 6."""
        self.until = np.concatenate((self.until, READY - waits))
        self.rates = np.concatenate((self.rates, np.full((len(PREDICTORS), waits.size), np.nan, np.float32)), axis=1)
        for name in ("shape", "impressions", "clicks"):
            setattr(self, name, with_columns(getattr(self, name), waits.size, 0.0))

    def close(self, walk: Walk, day: int, series: Ints, impressions: Floats, clicks: Floats) -> None:
        """Take a day that ``walk`` has learned, and begin the weeks that follow it."""
        self._end(walk, day - 1)
        self.impressions[series] += impressions
        self.clicks[series] += clicks
        self._end(walk, day)
        free = series[self.until[series] <= READY]
        waits = READY - self.until[free]
        waiting, ready = free[waits > 0], free[waits == 0]
        self.until[waiting] = day + waits[waits > 0]
        if ready.size:
            nothing = np.zeros(ready.size)
            said = walk.predict_ahead(day + 1, ready, MIDDLE, nothing, nothing)
            self.until[ready] = day + DAYS
            self.levels[(day + DAYS) % DAYS] = walk.intervals.levels()
            self.rates[:, ready] = np.stack([said.rates[name] for name in PREDICTORS])
            self.shape[ready] = said.shape
            self.impressions[ready] = self.clicks[ready] = 0.0

    def _end(self, walk: Walk, day: int) -> None:
        """Judge the weeks that have ended by a day."""
        over = np.flatnonzero((self.until > READY) & (self.until <= day))
        if not over.size:
            return
        told = over[~np.isnan(self.rates[0, over])]
        for last in np.unique(self.until[told]).tolist():
            ended = told[self.until[told] == last]
            rates = dict(zip(PREDICTORS, self.rates[:, ended].astype(np.float64), strict=True))
            said = Predicted(last, ended, rates, self.shape[ended])
            counts = self.impressions[ended], self.clicks[ended]
            judge(self.scorecard, walk, said, last - DAYS + 1, *counts, self.levels[last % DAYS])
        self.until[over] = READY
        self.rates[:, over] = np.nan
        self.impressions[over] = self.clicks[over] = 0.0


class HourAhead:
    """How the forecasts of an hour were judged."""

    def __init__(self) -> None:
        self.scorecard = Scorecard(PREDICTORS)

    def close(self, walk: Walk, day: int, series: Ints, hours: Hours) -> None:
        """Take the hours of a day that ``walk`` is about to learn. ``series`` are the day's rows."""
        own = series[hours.rows]
        said = walk.predict_ahead(day, own, 0.0, hours.before_impressions, hours.before_clicks)
        judge(self.scorecard, walk, said, day, hours.impressions, hours.clicks)
