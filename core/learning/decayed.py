"""Counts that fade: what a series has shown lately, for all series at once."""

import numpy as np

from core.learning.predictive import Floats


def retention(half_life: Floats | float) -> Floats:
    """The share of a count that is left after one step: ``2 ** (-1 / half_life)``.

    >>> retention(np.array([1.0, np.inf])).tolist()
    [0.5, 1.0]
    """
    kept: Floats = np.exp2(-1.0 / np.asarray(half_life, dtype=np.float64))
    return kept


class DecayedCounts:
    """Impressions and clicks of n series under h half-lives (in steps), each of shape [h, n].

    ``advance`` takes one step's counts of all series. What a step adds counts in full until the next one.
    """

    def __init__(self, half_lives: Floats, series: int) -> None:
        self._kept = retention(half_lives)[:, None]
        self.impressions: Floats = np.zeros((len(half_lives), series))
        self.clicks: Floats = np.zeros((len(half_lives), series))

    def advance(self, impressions: Floats, clicks: Floats) -> None:
        """Take the counts of a step, [n] each."""
        self.impressions = self.impressions * self._kept + impressions
        self.clicks = self.clicks * self._kept + clicks
