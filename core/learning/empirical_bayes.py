"""The default predictor: empirical Bayes on decayed counts, pooled series -> platform -> profile, with every strength
and half-life fitted online.

A series' rate wanders (``core.learning.rate_filter``) and returns to its own slow rate: decayed clicks over
impressions, shrunk to the platform's with a prior strength in impressions. The platform's rate wanders around the
profile's. What all series of a platform did together lately that their rates did not foresee is the platform's level,
which wanders around 1.

How fast, how far, how strong and how long are hypotheses on a grid. Each is filtered along and weighted by how well it
foretold the counts of the past, older ones counting less: dynamic model averaging (Raftery, Karny and Ettler,
Technometrics 52, 2010). The weights of a platform are sums of logarithms over rows, so evidence from several workers
merges by addition.
"""

from itertools import product
from math import exp
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.learning.decayed import DecayedCounts, retention
from core.learning.predictive import Floats
from core.learning.rate_filter import GREATEST_LOG_RATE, forward, log_score, observed

Ints = NDArray[np.int64]

MOST_LEVEL: Final = 2.0
"""Logarithm of the greatest common level."""


class Grid(msgspec.Struct, frozen=True):
    """The hypotheses. Each tuple holds the values that are tried; all combinations are.

    ``half_lives``: of a series' slow rate, steps. ``strengths``: of the platform's rate as a prior, impressions.
    ``volatilities``: variance of a log rate's step. ``reversions``: share of its distance that it keeps in a step.
    ``noises``: relative variance of a window's own rate. ``platform_volatilities`` and ``level_volatilities``: steps
    of the platforms' log rates and common levels. ``memory``: the half-life of evidence, steps.
    """

    half_lives: tuple[float, ...] = (15.0, 40.0, 120.0)
    strengths: tuple[float, ...] = (20.0, 80.0, 1000.0, 1e6)
    volatilities: tuple[float, ...] = (0.0005, 0.01, 0.04, 0.12)
    reversions: tuple[float, ...] = (0.98, 0.93, 0.8)
    noises: tuple[float, ...] = (0.0, 0.06)
    platform_volatilities: tuple[float, ...] = (1e-5, 1e-3, 1e-2)
    level_volatilities: tuple[float, ...] = (1e-6, 3e-4, 3e-3)
    group_noises: tuple[float, ...] = (0.001, 0.01, 0.1)
    memory: float = 90.0


DEFAULT_GRID: Final = Grid()


class Evidence:
    """How well each of m hypotheses has foretold each of p groups: log scores, [p, m], forgotten with a half-life."""

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


class GroupRate:
    """One wandering rate for each of p groups that returns to a fixed target, averaged over hypotheses."""

    def __init__(
        self,
        target: Floats,
        strength: Floats,
        volatilities: tuple[float, ...],
        noises: tuple[float, ...],
        reversion: float,
        memory: float,
        most: float,
    ) -> None:
        grid = np.array(list(product(volatilities, noises)))
        self._volatility, self._noise = grid[:, :1], grid[:, 1:]
        self._target, self._reversion, self._most = np.log(target)[None, :], np.array(reversion), most
        self._log_rate = np.broadcast_to(self._target, (len(grid), target.size)).copy()
        self._shape = np.broadcast_to(strength[None, :], self._log_rate.shape).copy()
        self._evidence = Evidence(target.size, len(grid), memory)

    def rate(self) -> tuple[Floats, Floats]:
        """Mean and relative variance of each group's rate in the coming window."""
        weights = self._evidence.weights().T
        rates = np.exp(self._log_rate)
        mean = np.sum(weights * rates, axis=0)
        second = np.sum(weights * rates**2 * (1 + 1 / self._shape + self._noise), axis=0)
        return mean, np.maximum(second / mean**2 - 1, 1e-9)

    def advance(self, impressions: Floats, clicks: Floats, known: Floats) -> None:
        """Take a window's counts of each group, [p]; impressions may be expected clicks. ``known`` is the relative
        variance that the groups' members bring with them, which is no noise of the group.
        """
        noise = self._noise + known
        scores = log_score(self._log_rate, self._shape, noise, impressions[None, :], clicks[None, :])
        self._evidence.add(scores, np.arange(clicks.size))
        state = observed(self._log_rate, self._shape, noise, impressions, clicks, self._most)
        self._log_rate, self._shape = forward(*state, self._target, self._reversion, self._volatility)


class EmpiricalBayes:
    """Rates of n series of p platforms, predicted one step ahead.

    ``platform`` gives each series' platform, [n]; ``base_rate`` the profile's CTR of each platform, [p]. Prediction
    and learning take only the series that have a row in the window.
    """

    def __init__(self, platform: Ints, base_rate: Floats, grid: Grid = DEFAULT_GRID) -> None:
        self._platform, self._groups = platform, base_rate.size
        slow = list(product(grid.half_lives, grid.strengths))
        hypotheses = list(product(range(len(slow)), grid.volatilities, grid.reversions, grid.noises))
        self._slow_of = np.array([row[0] for row in hypotheses])
        numbers = np.array([row[1:] for row in hypotheses])
        self.volatility, self.reversion, self.noise = numbers[:, 0:1], numbers[:, 1:2], numbers[:, 2:3]
        self.half_life = np.array([slow[at][0] for at in self._slow_of])
        self.strength = np.array([slow[at][1] for at in self._slow_of])[:, None]
        self._slow = DecayedCounts(np.array(grid.half_lives), platform.size)
        self._half_life_at = np.array([grid.half_lives.index(half_life) for half_life, _ in slow])
        self._slow_strength = np.array([strength for _, strength in slow])[:, None]
        self.evidence = Evidence(self._groups, len(hypotheses), grid.memory)
        self.platform_rate = GroupRate(
            base_rate,
            20.0 * base_rate,
            grid.platform_volatilities,
            grid.group_noises,
            0.999,
            grid.memory,
            GREATEST_LOG_RATE,
        )
        self.level = GroupRate(
            np.ones(self._groups),
            np.full(self._groups, 1e3),
            grid.level_volatilities,
            grid.group_noises,
            0.95,
            grid.memory,
            MOST_LEVEL,
        )
        self._seen = np.zeros(platform.size, dtype=bool)
        self._log_rate = np.zeros((len(hypotheses), platform.size))
        self._shape = np.ones_like(self._log_rate)
        self._settle()

    def predict(self, series: Ints) -> tuple[Floats, Floats]:
        """The mean rate in the coming window and its shape (1 over its relative variance) for some series."""
        mean, second = self._without_level(series)
        level, strayed = self.level.rate()
        group = self._platform[series]
        rate = np.clip(mean * level[group], 1e-7, 0.999)
        return rate, 1 / (np.maximum(second / mean**2 - 1, 1e-9) + strayed[group])

    def advance(self, series: Ints, impressions: Floats, clicks: Floats) -> None:
        """Take the counts of a window for the series that have a row in it, each once, and go to the next one."""
        group = self._platform[series]
        rate, second = self._without_level(series)
        expected = impressions * rate
        log_rate, shape = self._log_rate[:, series], self._shape[:, series]
        self.evidence.add(log_score(log_rate, shape, self.noise, impressions[None, :], clicks[None, :]), group)
        grown = observed(log_rate, shape, self.noise, impressions, clicks, GREATEST_LOG_RATE)
        self._log_rate[:, series], self._shape[:, series] = grown
        self._seen[series[impressions > 0]] = True
        count = np.zeros((2, self._platform.size))
        count[0, series], count[1, series] = impressions, clicks
        self._slow.advance(count[0], count[1])
        totals = [
            np.bincount(group, weights=values, minlength=self._groups).astype(np.float64)
            for values in (impressions, clicks, expected, expected**2 * np.maximum(second / rate**2 - 1, 0.0))
        ]
        known = totals[3] / np.maximum(totals[2], 1e-12) ** 2
        self.platform_rate.advance(totals[0], totals[1], known)
        self.level.advance(totals[2], totals[1], known)
        self._settle()

    def fitted(self) -> list[dict[str, float]]:
        """The average hypothesis of each platform, by name."""
        weights = self.evidence.weights()
        return [
            {
                "half_life": exp(float(own @ np.log(self.half_life))),
                "strength": exp(float(own @ np.log(self.strength[:, 0]))),
                "volatility": float(own @ self.volatility[:, 0]),
                "reversion": float(own @ self.reversion[:, 0]),
                "noise": float(own @ self.noise[:, 0]),
            }
            for own in weights
        ]

    def _without_level(self, series: Ints) -> tuple[Floats, Floats]:
        weights = self.evidence.weights()[self._platform[series]].T
        rates = np.exp(self._log_rate[:, series])
        mean = np.sum(weights * rates, axis=0)
        return mean, np.sum(weights * rates**2 * (1 + 1 / self._shape[:, series] + self.noise), axis=0)

    def _settle(self) -> None:
        """Carry every series to the next window; one without a row yet starts from its platform."""
        platform, _ = self.platform_rate.rate()
        prior = platform[self._platform]
        at, strength = self._half_life_at, self._slow_strength
        slow = np.log((self._slow.clicks[at] + strength * prior) / (self._slow.impressions[at] + strength))
        target = slow[self._slow_of]
        log_rate, shape = forward(self._log_rate, self._shape, target, self.reversion, self.volatility)
        self._log_rate = np.where(self._seen, log_rate, target)
        self._shape = np.where(self._seen, shape, self.strength * prior)
