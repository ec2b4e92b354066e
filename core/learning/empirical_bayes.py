"""The default predictor: empirical Bayes on decayed counts, pooled series -> platform -> profile, with every strength
and half-life fitted online.

A series' rate wanders (``core.learning.rate_filter``) and returns to its own slow rate: decayed clicks over
impressions, shrunk with a prior strength in impressions to the platform's rate, times what the campaign's other
platforms say (``core.learning.campaign_pool``). The platform's rate wanders around the profile's. What all series of a
platform did together lately that their rates did not foresee is the platform's level, which wanders around 1.

How fast, how far, how strong and how long are hypotheses on a grid. Each is filtered along and weighted by how well it
foretold the counts of the past, older ones counting less: dynamic model averaging (Raftery, Karny and Ettler,
Technometrics 52, 2010). The weights of a platform are sums of logarithms over rows, so evidence from several workers
merges by addition.
"""

from collections.abc import Sequence
from itertools import product
from math import exp
from typing import Final

import msgspec
import numpy as np

from core.learning.campaign_pool import CampaignPool
from core.learning.decayed import DecayedCounts, Ints, Past
from core.learning.evidence import Evidence
from core.learning.group_rate import GroupRate
from core.learning.predictive import Floats
from core.learning.rate_filter import GREATEST_LOG_RATE, forward, log_score, observed

MOST_LEVEL: Final = 2.0
"""Logarithm of the greatest common level."""
LEAST_WEIGHT: Final = 1e-5
PROFILE_STRENGTH: Final = 20.0
"""Impressions that the profile's rate is worth at first."""
LEVEL_STRENGTH: Final = 1_000.0
"""Expected clicks that the level 1 is worth at first."""
PLATFORM_REVERSION: Final = 0.999
LEVEL_REVERSION: Final = 0.95


class Grid(msgspec.Struct, frozen=True):
    """The hypotheses. Each tuple holds the values that are tried; all combinations are.

    ``half_lives``: of a series' slow rate, steps. ``strengths``: of the platform's rate as a prior, impressions.
    ``volatilities``: variance of a log rate's step. ``reversions``: share of its distance that it keeps in a step.
    ``noises``: relative variance of a window's own rate. ``platform_volatilities`` and ``level_volatilities``: steps
    of the platforms' log rates and common levels. ``memory``: the half-life of evidence, steps.
    """

    half_lives: tuple[float, ...] = (20.0, 80.0)
    strengths: tuple[float, ...] = (30.0, 1000.0, 1e6)
    volatilities: tuple[float, ...] = (0.001, 0.008, 0.03, 0.12)
    reversions: tuple[float, ...] = (0.97, 0.9)
    noises: tuple[float, ...] = (0.0, 0.06)
    platform_volatilities: tuple[float, ...] = (1e-5, 1e-3, 1e-2)
    level_volatilities: tuple[float, ...] = (1e-6, 3e-4, 3e-3)
    group_noises: tuple[float, ...] = (0.001, 0.01, 0.1)
    memory: float = 90.0


DEFAULT_GRID: Final = Grid()


class EmpiricalBayes:
    """Rates of n series of p platforms, predicted one step ahead.

    ``platform`` and ``campaign`` number each series' platform and campaign, [n]; ``base_rate`` is the profile's CTR of
    each platform, [p]. Prediction and learning take only the series that have a row in the window.
    """

    def __init__(self, platform: Ints, campaign: Ints, base_rate: Floats, grid: Grid = DEFAULT_GRID) -> None:
        self._platform, self._groups = platform, base_rate.size
        slow = list(product(grid.half_lives, grid.strengths))
        hypotheses = list(product(range(len(slow)), grid.volatilities, grid.reversions, grid.noises))
        self._slow_of = np.array([row[0] for row in hypotheses])
        numbers = np.array([row[1:] for row in hypotheses])
        self.volatility, self.reversion, self.noise = numbers[:, 0:1], numbers[:, 1:2], numbers[:, 2:3]
        self.half_life = np.array([slow[at][0] for at in self._slow_of])
        self.strength = np.array([slow[at][1] for at in self._slow_of])[:, None]
        self._half_life_at = np.array([grid.half_lives.index(half_life) for half_life, _ in slow])
        self._slow_strength = np.array([strength for _, strength in slow])[:, None]
        self.slow = DecayedCounts(np.array(grid.half_lives), platform.size)
        self.pool = CampaignPool(campaign, platform, base_rate.size, grid.memory)
        self.evidence = Evidence(self._groups, len(hypotheses), grid.memory)
        self.platform_rate = GroupRate(
            base_rate,
            PROFILE_STRENGTH * base_rate,
            grid.platform_volatilities,
            grid.group_noises,
            reversion=PLATFORM_REVERSION,
            memory=grid.memory,
            most=GREATEST_LOG_RATE,
        )
        self.level = GroupRate(
            np.ones(self._groups),
            np.full(self._groups, LEVEL_STRENGTH),
            grid.level_volatilities,
            grid.group_noises,
            reversion=LEVEL_REVERSION,
            memory=grid.memory,
            most=MOST_LEVEL,
        )
        self.seen = np.zeros(platform.size, dtype=bool)
        self.log_rate: Floats = np.zeros((len(hypotheses), platform.size))
        self.shape: Floats = np.ones_like(self.log_rate)
        self._settle()

    def extend(self, platform: Ints, campaign: Ints) -> None:
        """Append series that have shown nothing yet; they start from their platform and campaign."""
        first = self._platform.size
        self._platform = np.concatenate((self._platform, platform))
        self.pool.extend(campaign, platform)
        self.slow.extend(platform.size)
        self.seen = np.concatenate((self.seen, np.zeros(platform.size, dtype=bool)))
        target, worth = self._targets(slice(first, None))
        self.log_rate = np.concatenate((self.log_rate, target), axis=1)
        self.shape = np.concatenate((self.shape, worth), axis=1)

    def predict(self, series: Ints) -> tuple[Floats, Floats]:
        """The mean rate in the coming window and its shape (1 over its relative variance) for some series."""
        mean, second = self._without_level(series)
        return self._with_level(series, mean, second)

    def predict_ahead(
        self, series: Ints, ahead: Sequence[float], impressions: Floats, clicks: Floats
    ) -> tuple[Floats, Floats]:
        """As ``predict``, for several windows so many steps after the coming one, [r, windows] each, given what the
        coming window has shown so far, [r, windows] each, which is not kept. Hypotheses that weigh next to nothing on
        every platform are left out.
        """
        weights = self.evidence.weights()
        kept = np.flatnonzero(weights.max(axis=0) > LEAST_WEIGHT)
        weights = (weights[:, kept] / weights[:, kept].sum(axis=1, keepdims=True))[self._platform[series]].T
        place = np.ix_(kept, series)
        before, noise = (self.log_rate[place], self.shape[place]), self.noise[kept]
        reversion, volatility = self.reversion[kept], self.volatility[kept]
        target = self._targets(series)[0][kept] if any(ahead) else None
        found = []
        for at, steps in enumerate(ahead):
            shown, clicked = impressions[:, at], clicks[:, at]
            if not at or not (
                np.array_equal(shown, impressions[:, at - 1]) and np.array_equal(clicked, clicks[:, at - 1])
            ):
                log_rate, shape = observed(*before, noise, shown, clicked, GREATEST_LOG_RATE)
                spread = 1 / shape
            now, strayed = log_rate, spread
            if steps and target is not None:
                left = reversion**steps
                now = left * log_rate + (1 - left) * target
                strayed = left**2 * spread + volatility * (1 - left**2) / (1 - reversion**2)
            rates = np.exp(now)
            mean = _by_row(weights * rates)
            second = _by_row(weights * rates**2 * (1 + strayed + noise))
            found.append(self._with_level(series, mean, second, steps))
        return np.stack([rate for rate, _ in found], axis=1), np.stack([shape for _, shape in found], axis=1)

    def _with_level(self, series: Ints, mean: Floats, second: Floats, ahead: float = 0.0) -> tuple[Floats, Floats]:
        level, strayed = self.level.rate()
        group = self._platform[series]
        rate = np.clip(mean * (level ** (self.level.reversion**ahead))[group], 1e-7, 0.999)
        return rate, 1 / (np.maximum(second / mean**2 - 1, 1e-9) + strayed[group])

    def advance(self, series: Ints, impressions: Floats, clicks: Floats) -> None:
        """Take the counts of a window for the series that have a row in it, each once, and go to the next one."""
        group = self._platform[series]
        rate, second = self._without_level(series)
        expected = impressions * rate
        log_rate, shape = self.log_rate[:, series], self.shape[:, series]
        self.evidence.add(log_score(log_rate, shape, self.noise, impressions[None, :], clicks[None, :]), group)
        grown = observed(log_rate, shape, self.noise, impressions, clicks, GREATEST_LOG_RATE)
        self.log_rate[:, series], self.shape[:, series] = grown
        self.seen[series[impressions > 0]] = True
        count = np.zeros((2, self._platform.size))
        count[0, series], count[1, series] = impressions, clicks
        self.slow.advance(count[0], count[1])
        self.pool.advance(series, impressions, clicks, self.platform_rate.rate()[0])
        totals = [
            np.bincount(group, weights=values, minlength=self._groups).astype(np.float64)
            for values in (impressions, clicks, expected, expected**2 * np.maximum(second / rate**2 - 1, 0.0))
        ]
        known = totals[3] / np.maximum(totals[2], 1e-12) ** 2
        self.platform_rate.advance(totals[0], totals[1], known)
        self.level.advance(totals[2], totals[1], known)
        self._settle()

    def absorb(self, late: Past, whole: Past) -> None:
        """Add rows of past windows. Only the counts and rates of their series change, nothing that a platform shares.

        ``whole``: all rows of these series in the last windows, late or not, along which they are filtered anew from
        their slow rates.
        """
        self.slow.absorb(late)
        self.pool.absorb(late, self.platform_rate.rate()[0])
        shown = late.series[late.impressions > 0]
        self.seen[shown] = True
        target, worth = self._targets(slice(None))
        self.log_rate = np.where(self.seen, self.log_rate, target)
        self.shape = np.where(self.seen, self.shape, worth)
        chosen = np.unique(shown)
        if chosen.size:
            self._filter_anew(chosen, target[:, chosen], worth[:, chosen], whole)

    def _filter_anew(self, chosen: Ints, target: Floats, worth: Floats, whole: Past) -> None:
        place = np.full(self._platform.size, -1)
        place[chosen] = np.arange(chosen.size)
        at, told = place[whole.series], (place[whole.series] >= 0) & (whole.impressions > 0)
        oldest = np.zeros(chosen.size, dtype=np.int64)
        np.maximum.at(oldest, at[told], whole.age[told])
        log_rate, shape = target, worth
        for steps in range(int(oldest.max()), -1, -1):
            rows = told & (whole.age == steps)
            if rows.any():
                count = np.zeros((2, chosen.size))
                count[:, at[rows]] = whole.impressions[rows], whole.clicks[rows]
                log_rate, shape = observed(log_rate, shape, self.noise, count[0], count[1], GREATEST_LOG_RATE)
            further, spread = forward(log_rate, shape, target, self.reversion, self.volatility)
            begun = oldest >= steps
            log_rate, shape = np.where(begun, further, log_rate), np.where(begun, spread, shape)
        self.log_rate[:, chosen], self.shape[:, chosen] = log_rate, shape

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
        """Mean and mean square of the rates, averaged over hypotheses."""
        weights = self.evidence.weights()[self._platform[series]].T
        rates = np.exp(self.log_rate[:, series])
        mean = np.sum(weights * rates, axis=0)
        return mean, np.sum(weights * rates**2 * (1 + 1 / self.shape[:, series] + self.noise), axis=0)

    def _targets(self, series: Ints | slice) -> tuple[Floats, Floats]:
        """The slow log rates that some series return to under each hypothesis, and the clicks that their priors are
        worth: the hypothesis' strength or, where more, what the campaign's other platforms say.
        """
        multiplier, told = self.pool.multipliers()
        prior = self.platform_rate.rate()[0][self._platform[series]] * multiplier[series]
        prior = np.clip(prior, 1e-7, 0.9)
        at, strength = self._half_life_at, np.maximum(self._slow_strength, told[series] / prior)
        clicks, impressions = self.slow.clicks[:, series][at], self.slow.impressions[:, series][at]
        return np.log((clicks + strength * prior) / (impressions + strength))[self._slow_of], (strength * prior)[
            self._slow_of
        ]

    def _settle(self) -> None:
        """Carry every series to the next window; one without a row yet starts from its platform and campaign."""
        target, worth = self._targets(slice(None))
        log_rate, shape = forward(self.log_rate, self.shape, target, self.reversion, self.volatility)
        self.log_rate = np.where(self.seen, log_rate, target)
        self.shape = np.where(self.seen, shape, worth)


def _by_row(values: Floats) -> Floats:
    """Sums over hypotheses, [r] of [m, r], that are the same to the last bit however many rows there are."""
    sums: Floats = np.ascontiguousarray(values.T).sum(axis=1)
    return sums
