"""How well each of several hypotheses has foretold what happened, and what that makes them worth."""

import numpy as np

from core.learning.decayed import Ints, retention
from core.learning.predictive import Floats


class Evidence:
    """How well each of m hypotheses has foretold each of p groups: log scores, [p, m], forgotten with a half-life.

    Evidence of disjoint rows of the same steps adds up.
    """

    def __init__(self, groups: int, hypotheses: int, memory: float) -> None:
        self.scores: Floats = np.zeros((groups, hypotheses))
        self._kept = float(retention(memory))

    def add(self, scores: Floats, groups: Ints) -> None:
        """Take the scores of a step's rows, [m, r], and the group of each."""
        self.scores *= self._kept
        for group in np.unique(groups):
            self.scores[group] += scores[:, groups == group].sum(axis=1)

    def weights(self) -> Floats:
        """The hypotheses' probabilities in each group, [p, m]."""
        odds = np.exp(self.scores - self.scores.max(axis=1, keepdims=True))
        weights: Floats = odds / odds.sum(axis=1, keepdims=True)
        return weights
