"""What a CTR prediction must beat: five rates that need no fitting, on the same rows and with the same hindsight."""

from typing import Final

import numpy as np

from core.learning.decayed import DecayedCounts, Ints, Past, with_columns
from core.learning.predictive import Floats

PLATFORM_MEAN: Final = "platform_mean"
LAST_VALUE: Final = "last_value"
CUMULATIVE_MEAN: Final = "cumulative_mean"
DECAYED_MEAN: Final = "decayed_mean"
DECAYED_EB: Final = "decayed_eb"
BASELINES: Final = (PLATFORM_MEAN, LAST_VALUE, CUMULATIVE_MEAN, DECAYED_MEAN, DECAYED_EB)

MEAN_HALF_LIFE: Final = 7.0
EB_HALF_LIFE: Final = 4.0
EB_STRENGTH: Final = 20.0
PROFILE_STRENGTH: Final = 20.0
"""Impressions that the profile's rate is worth, until a platform has shown its own."""


class Baselines:
    """The baselines of n series of p platforms.

    ``platform_mean``: all clicks over all impressions of the platform so far. ``last_value``, ``cumulative_mean`` and
    ``decayed_mean`` (half-life 7 steps): the series' own, unshrunk, and the platform's mean until it has any.
    ``decayed_eb``: counts with a half-life of 4 steps, shrunk to the platform's mean worth 20 impressions.
    """

    def __init__(self, platform: Ints, base_rate: Floats) -> None:
        self._platform = platform
        self.counts = DecayedCounts(np.array([np.inf, MEAN_HALF_LIFE, EB_HALF_LIFE]), platform.size)
        self.last = np.full(platform.size, np.nan)
        self.impressions = np.full(base_rate.size, PROFILE_STRENGTH)
        self.clicks = PROFILE_STRENGTH * base_rate

    def extend(self, platform: Ints) -> None:
        """Append series that have shown nothing yet."""
        self._platform = np.concatenate((self._platform, platform))
        self.counts.extend(platform.size)
        self.last = with_columns(self.last, platform.size, np.nan)

    def predict(self, series: Ints) -> dict[str, Floats]:
        """Each baseline's rate for some series, by name in the order of ``BASELINES``."""
        mean = (self.clicks / self.impressions)[self._platform[series]]
        seen, clicked = self.counts.impressions[:, series], self.counts.clicks[:, series]
        own = np.where(seen > 0, clicked / np.where(seen > 0, seen, 1.0), mean)
        last = self.last[series]
        shrunk = (clicked[2] + EB_STRENGTH * mean) / (seen[2] + EB_STRENGTH)
        rates = (mean, np.where(np.isnan(last), mean, last), own[0], own[1], shrunk)
        return dict(zip(BASELINES, rates, strict=True))

    def advance(self, series: Ints, impressions: Floats, clicks: Floats) -> None:
        """Take the counts of a window for the series that have a row in it, each once."""
        count = np.zeros((2, self._platform.size))
        count[0, series], count[1, series] = impressions, clicks
        self.counts.advance(count[0], count[1])
        shown = impressions > 0
        self.last[series[shown]] = clicks[shown] / impressions[shown]
        group, groups = self._platform[series], self.impressions.size
        self.impressions += np.bincount(group, weights=impressions, minlength=groups)
        self.clicks += np.bincount(group, weights=clicks, minlength=groups)

    def absorb(self, late: Past) -> None:
        """Add rows of past windows to the series' own counts."""
        self.counts.absorb(late)
        first = (late.impressions > 0) & np.isnan(self.last[late.series])
        self.last[late.series[first]] = late.clicks[first] / late.impressions[first]
