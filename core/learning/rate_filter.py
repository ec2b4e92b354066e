"""A rate that wanders: the dynamic gamma-Poisson filter, for many hypotheses and series at once.

Between steps the logarithm of a rate keeps the share ``reversion`` of its distance to a target and strays by a normal
deviate of variance ``volatility``. Its posterior is a gamma distribution of mean ``exp(log_rate)`` and shape ``a``:
relative variance 1/a, which a step turns into ``reversion^2 / a + volatility`` (moment matching; West and Harrison,
Bayesian Forecasting and Dynamic Models, 2nd ed., 14.2). So ``a`` is a decayed number of clicks and ``a / rate`` a
decayed number of impressions whose half-life is fitted and shortens where there is much to learn from.

A window's own rate strays from it further, by a relative variance ``noise`` that does not last; a window with e
expected clicks therefore counts for ``1 / (1 + noise e)`` of what it shows.
"""

from typing import Final

import numpy as np
from scipy.special import gammaln

from core.learning.predictive import Floats

LEAST_LOG_RATE: Final = float(np.log(1e-7))
GREATEST_LOG_RATE: Final = float(np.log(0.999))


def forward(
    log_rate: Floats, shape: Floats, target: Floats, reversion: Floats, volatility: Floats
) -> tuple[Floats, Floats]:
    """The log rate and shape at the next step, before anything is seen of it."""
    return reversion * log_rate + (1 - reversion) * target, 1 / (reversion**2 / shape + volatility)


def observed(
    log_rate: Floats, shape: Floats, noise: Floats, impressions: Floats, clicks: Floats, most: float
) -> tuple[Floats, Floats]:
    """The posterior after a window's counts: log rate (at most ``most``) and shape."""
    expected = impressions * np.exp(log_rate)
    trust = 1 / (1 + noise * expected)
    grown = shape + trust * clicks
    return np.clip(log_rate + np.log(grown / (shape + trust * expected)), LEAST_LOG_RATE, most), grown


def log_score(log_rate: Floats, shape: Floats, noise: Floats, impressions: Floats, clicks: Floats) -> Floats:
    """The log probability of a window's clicks: negative binomial, without the term that no hypothesis changes."""
    size = shape / (1 + noise * shape)
    expected = impressions * np.exp(log_rate)
    score: Floats = -(size + clicks) * np.log1p(expected / size) + clicks * (log_rate - np.log(size))
    clicked = np.flatnonzero(np.any(clicks > 0, axis=tuple(range(clicks.ndim - 1))))
    if clicked.size:
        some = np.broadcast_to(clicks, score.shape)[..., clicked]
        shared = np.broadcast_to(size, score.shape)[..., clicked]
        score[..., clicked] += gammaln(shared + some) - gammaln(shared)
    return score
