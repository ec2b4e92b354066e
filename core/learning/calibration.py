"""Intervals that hold what they promise: the level of each volume band is the one that would have held lately.

A count is inside of an interval where its centrality (``core.learning.predictive``) reaches a level. A perfect
prediction of large counts needs the level ``1 - inside``; small counts are lumpy, and no prediction is perfect. So the
level is the empirical quantile of the centralities of counts already seen in the same band of expected clicks, older
ones counting less: conformal prediction with fixed decaying weights (Barber, Candes, Ramdas and Tibshirani, Annals of
Statistics 51, 2023). The state is a histogram for each band and merges by addition.

Below about a tenth of an expected click even the least interval, no click at all, holds more than 90 %; a band reaches
90 % only as a whole.
"""

from typing import Final

import numpy as np

from core.learning.decayed import Ints, retention
from core.learning.predictive import Floats, centrality, count_interval, moments

BAND_EDGES: Final = np.array([0.25, 0.4, 0.6, 1.0, 2.0, 4.0, 8.0, 16.0, 64.0])
"""Expected clicks."""
BINS: Final = 400
GREATEST_LEVEL: Final = 0.5
"""The median's own centrality is at least this, so that no interval is empty."""
PRIOR_COUNTS: Final = 50.0
"""Counts that the nominal level is worth in each band."""


class AdaptiveIntervals:
    """90 % intervals, or of another ``inside``, with the levels' memory as a half-life in steps."""

    def __init__(self, inside: float = 0.9, memory: float = 30.0) -> None:
        self.inside = inside
        self._kept = float(retention(memory))
        self.histogram: Floats = np.zeros((BAND_EDGES.size + 1, BINS))

    def levels(self) -> Floats:
        """The level of each band, [bands]: with ``PRIOR_COUNTS`` evenly spread centralities beside those seen."""
        prior = PRIOR_COUNTS / BINS
        mass = np.cumsum(self.histogram + prior, axis=1)
        wanted = (1 - self.inside) * mass[:, -1]
        at = np.argmax(mass >= wanted[:, None], axis=1)
        band = np.arange(at.size)
        before = mass[band, at] - self.histogram[band, at] - prior
        within = (wanted - before) / (self.histogram[band, at] + prior)
        level: Floats = np.minimum((at + within) / BINS, GREATEST_LEVEL)
        return level

    def interval(self, rate: Floats, shape: Floats, trials: Floats) -> tuple[Floats, Floats]:
        """The least and greatest share of ``trials`` (impressions, at least 1) to be clicked; holds the rate."""
        whole = np.maximum(trials, 1.0)
        mean, variance = moments(rate, shape, whole)
        ends = count_interval(mean.ravel(), variance.ravel(), whole.ravel(), self.levels()[_band(mean.ravel())])
        low, high = (end.reshape(mean.shape) for end in ends)
        return np.minimum(low / whole, rate), np.clip(high / whole, rate, 1.0)

    def covers(
        self, rate: Floats, shape: Floats, impressions: Floats, clicks: Floats, levels: Floats | None = None
    ) -> tuple[Floats, Ints, Floats]:
        """Whether each row's clicks lie in its interval (1 or 0), and the row's band and centrality. ``levels``: those
        of the bands when the interval was told, where that is not now.
        """
        level = self.levels() if levels is None else levels
        mean, variance = moments(rate, shape, impressions)
        central, band = centrality(clicks, mean, variance), _band(mean)
        return (central >= level[band]).astype(np.float64), band, central

    def advance(self, band: Ints, central: Floats) -> None:
        """Take a step's rows, as ``covers`` gave them."""
        at = np.minimum((central * BINS).astype(np.int64), BINS - 1)
        new = np.bincount(band * BINS + at, minlength=self.histogram.size).reshape(self.histogram.shape)
        self.histogram = self.histogram * self._kept + new


def _band(expected: Floats) -> Ints:
    return np.searchsorted(BAND_EDGES, expected, side="right").astype(np.int64)
