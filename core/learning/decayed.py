"""Counts that fade: what a series has shown lately, for all series at once."""

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from core.learning.predictive import Floats

Ints: TypeAlias = NDArray[np.int64]


class Past(NamedTuple):
    """Rows of past steps, [r] each, the oldest first: the series, how many steps before the last one, the counts."""

    series: Ints
    age: Ints
    impressions: Floats
    clicks: Floats


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

    def extend(self, series: int) -> None:
        """Append series that have shown nothing yet."""
        self.impressions = with_columns(self.impressions, series)
        self.clicks = with_columns(self.clicks, series)

    def advance(self, impressions: Floats, clicks: Floats) -> None:
        """Take the counts of a step, [n] each."""
        self.impressions = self.impressions * self._kept + impressions
        self.clicks = self.clicks * self._kept + clicks

    def absorb(self, late: Past) -> None:
        """Add what is left by now of rows of past steps."""
        left, size = self._kept**late.age, self.clicks.shape[1]
        shown, clicked = (
            np.stack(
                [np.bincount(late.series, weights=row, minlength=size).astype(np.float64) for row in left * counts]
            )
            for counts in (late.impressions, late.clicks)
        )
        self.impressions, self.clicks = self.impressions + shown, self.clicks + clicked


def with_columns(values: Floats, columns: int, fill: float = 0.0) -> Floats:
    """The array with columns of one value appended to its last axis."""
    return np.concatenate((values, np.full((*values.shape[:-1], columns), fill)), axis=-1)
