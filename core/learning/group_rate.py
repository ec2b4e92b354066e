"""The rates of a few groups that everything below them is pooled to: platforms, and what their series share."""

from itertools import product

import numpy as np

from core.learning.evidence import Evidence
from core.learning.predictive import Floats
from core.learning.rate_filter import forward, log_score, observed


class GroupRate:
    """One wandering rate for each of p groups that returns to a fixed target, averaged over hypotheses.

    ``strength``: what the target is worth at first, clicks. ``most``: the greatest log rate.
    """

    def __init__(
        self,
        target: Floats,
        strength: Floats,
        volatilities: tuple[float, ...],
        noises: tuple[float, ...],
        *,
        reversion: float,
        memory: float,
        most: float,
    ) -> None:
        grid = np.array(list(product(volatilities, noises)))
        self._volatility, self._noise = grid[:, :1], grid[:, 1:]
        self._target, self.reversion, self._most = np.log(target)[None, :], reversion, most
        self.log_rate: Floats = np.broadcast_to(self._target, (len(grid), target.size)).copy()
        self.shape: Floats = np.broadcast_to(strength[None, :], self.log_rate.shape).copy()
        self.evidence = Evidence(target.size, len(grid), memory)

    def rate(self) -> tuple[Floats, Floats]:
        """Mean and relative variance of each group's rate in the coming window."""
        weights = self.evidence.weights().T
        rates = np.exp(self.log_rate)
        mean = np.sum(weights * rates, axis=0)
        second = np.sum(weights * rates**2 * (1 + 1 / self.shape + self._noise), axis=0)
        return mean, np.maximum(second / mean**2 - 1, 1e-9)

    def advance(self, impressions: Floats, clicks: Floats, known: Floats) -> None:
        """Take a window's counts of each group, [p]; impressions may be expected clicks. ``known`` is the relative
        variance that the groups' members bring with them, which is no noise of the group.
        """
        noise = self._noise + known
        scores = log_score(self.log_rate, self.shape, noise, impressions[None, :], clicks[None, :])
        self.evidence.add(scores, np.arange(clicks.size))
        state = observed(self.log_rate, self.shape, noise, impressions, clicks, self._most)
        self.log_rate, self.shape = forward(*state, self._target, np.array(self.reversion), self._volatility)
