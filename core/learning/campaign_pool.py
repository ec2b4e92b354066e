"""What a campaign's other platforms say of it on this one: a multiplier of the platform's rate.

``(clicks + k) / (expected + k)`` over the campaign's other series, where expected are their impressions at their own
platforms' rates: the posterior mean of a gamma-Poisson ratio whose prior mean is 1. The strength k, in clicks, is
fitted: each candidate is weighted by how well the platform's rate with its multiplier alone has foretold the rows.
Where platforms share nothing, an endless k wins and the multiplier is 1; so it is, exactly, for a campaign on one
platform.

For series over time, beside ``core.learning.borrowing`` for totals: its evidence is added up window by window, and
the linear predictor in its place leaves twice the error of a cold start (RMSE of planted log rates 0.32, not 0.14).
"""

from typing import Final

import numpy as np

from core.learning.decayed import DecayedCounts, Ints, Past
from core.learning.evidence import Evidence
from core.learning.predictive import Floats
from core.learning.rate_filter import log_score

STRENGTHS: Final = (2.0, 10.0, 50.0, 1e9)
SHAPES: Final = (0.5, 2.0, 8.0, 32.0, 128.0)
"""How near a series' rate lies to the platform's times its multiplier, as a gamma shape."""
HALF_LIFE: Final = 30.0


class CampaignPool:
    """Multipliers of n series, each of a campaign and a platform."""

    def __init__(self, campaign: Ints, platform: Ints, platforms: int, memory: float) -> None:
        self._campaign, self._platform = campaign, platform
        self.counts = DecayedCounts(np.array([HALF_LIFE]), campaign.size)
        """The impressions are expected clicks."""
        self.evidence = Evidence(platforms, len(STRENGTHS) * len(SHAPES), memory)

    def extend(self, campaign: Ints, platform: Ints) -> None:
        """Append series that have shown nothing yet."""
        self._campaign = np.concatenate((self._campaign, campaign))
        self._platform = np.concatenate((self._platform, platform))
        self.counts.extend(campaign.size)

    def multipliers(self) -> tuple[Floats, Floats]:
        """The multiplier of every series and what it is worth, in clicks, [n] each: 0 for a campaign on one platform.

        The worth is a gamma shape: the relative variances of the multiplier and of the rate around it add up.
        """
        weights = self.evidence.weights().reshape(-1, len(SHAPES), len(STRENGTHS))[self._platform]
        others = self._others()
        multiplier = np.sum(weights.sum(axis=1).T * _ratios(others), axis=0)
        spread = weights.sum(axis=2) @ (1 / np.array(SHAPES))
        for at, strength in enumerate(STRENGTHS):
            spread = spread + weights[:, :, at].sum(axis=1) / (others[1] + strength)
        return multiplier, np.where(others[1] > 0, 1 / spread, 0.0)

    def advance(self, series: Ints, impressions: Floats, clicks: Floats, platform_rate: Floats) -> None:
        """Take a window's counts for the series that have a row in it, and the platforms' rates before it, [p]."""
        group = self._platform[series]
        rate = platform_rate[group]
        candidates = _ratios(self._others()[:, series])
        told = np.any(candidates != 1.0, axis=0)
        if told.any():
            log_rate = np.tile(np.log(rate[told] * candidates[:, told]), (len(SHAPES), 1))
            shape = np.repeat(np.array(SHAPES), len(STRENGTHS))[:, None]
            scores = log_score(log_rate, shape, np.zeros(1), impressions[told][None, :], clicks[told][None, :])
            self.evidence.add(scores, group[told])
        count = np.zeros((2, self._campaign.size))
        count[0, series], count[1, series] = impressions * rate, clicks
        self.counts.advance(count[0], count[1])

    def absorb(self, late: Past, platform_rate: Floats) -> None:
        """Add rows of past windows, with the platforms' present rates."""
        self.counts.absorb(late._replace(impressions=late.impressions * platform_rate[self._platform[late.series]]))

    def _others(self) -> Floats:
        """The clicks and expected clicks of the campaign's other series, [2, n]."""
        others = []
        for own in (self.counts.clicks[0], self.counts.impressions[0]):
            total = np.bincount(self._campaign, weights=own)
            others.append(np.maximum(total[self._campaign] - own, 0.0))
        return np.stack(others)


def _ratios(others: Floats) -> Floats:
    """The multiplier under each strength, [strengths, n]."""
    strength = np.array(STRENGTHS)[:, None]
    ratio: Floats = (others[0] + strength) / (others[1] + strength)
    return ratio
