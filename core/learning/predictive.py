"""How many of a window's impressions will be clicked: a count distribution from a rate's mean and shape.

The rate has mean ``rate`` and relative variance ``1 / shape``; the clicks of ``trials`` impressions then have mean
``m = trials * rate`` and variance ``v = m(1 - rate) + m(m - rate) / shape``, those of a binomial whose rate itself
varies. The distribution is the member of the Katz family with these two moments: negative binomial where v > m,
binomial where v < m (Johnson, Kemp and Kotz, Univariate Discrete Distributions, 3rd ed., 2.3.1). Both have closed
distribution functions in the incomplete beta function, so a batch costs one call.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc

Floats: TypeAlias = NDArray[np.float64]

# Nearer to 1 than this, variance over mean is a Poisson distribution's to every digit that matters.
LEAST_DISPERSION: Final = 1e-6
LEAST_MEAN: Final = 1e-12
# Up to 10**12 impressions are told apart.
BISECTIONS: Final = 41


def moments(rate: Floats, shape: Floats, trials: Floats) -> tuple[Floats, Floats]:
    """Mean and variance of the clicks."""
    mean = np.maximum(trials * rate, LEAST_MEAN)
    variance = mean * (1 - rate) + mean * np.maximum(mean - rate, 0.0) / shape
    return mean, np.maximum(variance, LEAST_MEAN)


def distribution(clicks: Floats, mean: Floats, variance: Floats) -> Floats:
    """The probability of at most so many clicks, continuous in ``clicks``; 0 below 0."""
    ratio = variance / mean
    ratio = np.where(np.abs(ratio - 1) < LEAST_DISPERSION, 1 + LEAST_DISPERSION, ratio)
    over = ratio > 1
    size = mean / np.abs(ratio - 1)
    first = np.where(over, size, np.maximum(size - clicks, 0.0))
    inside = (clicks >= 0) & (first > 0)
    at = np.where(over, 1 / ratio, ratio)
    value = betainc(np.where(inside, first, 1.0), np.where(inside, np.maximum(clicks, 0.0) + 1, 1.0), at)
    result: Floats = np.where(inside, value, np.where(clicks < 0, 0.0, 1.0))
    return result


def mid_probability(clicks: Floats, mean: Floats, variance: Floats) -> Floats:
    """``P(fewer) + P(as many) / 2``: the mid-P value, uniform on average whatever the size of the count (Lancaster,
    JASA 56, 1961).
    """
    middle: Floats = (distribution(clicks - 1, mean, variance) + distribution(clicks, mean, variance)) / 2
    return middle


def centrality(clicks: Floats, mean: Floats, variance: Floats) -> Floats:
    """How central a count is: 1 at the median, 0 in either tail. A count is inside of the interval at a level where
    its centrality is at least that level.
    """
    middle = mid_probability(clicks, mean, variance)
    central: Floats = 2 * np.minimum(middle, 1 - middle)
    return central


def covered_share(clicks: Floats, mean: Floats, variance: Floats, inside: float) -> Floats:
    """The part of a count's probability that the exact central interval holds, 0 to 1.

    Its mean over well-predicted counts is ``inside``, however small they are: the coverage of the non-randomized
    probability integral transform (Czado, Gneiting and Held, Biometrics 65, 2009).
    """
    below, upto = distribution(clicks - 1, mean, variance), distribution(clicks, mean, variance)
    tail = (1 - inside) / 2
    held = np.minimum(upto, 1 - tail) - np.maximum(below, tail)
    share: Floats = np.clip(held / np.maximum(upto - below, 1e-300), 0.0, 1.0)
    return np.where(upto > below, share, 0.0)


def count_interval(mean: Floats, variance: Floats, trials: Floats, level: Floats) -> tuple[Floats, Floats]:
    """The least and the greatest whole count whose centrality is at least ``level`` (0 to 1).

    Where none is, both are the count nearest to the median.
    """
    most = np.ceil(trials)
    tail = level / 2
    low = _first(lambda clicks: mid_probability(clicks, mean, variance) >= tail, most)
    beyond = _first(lambda clicks: mid_probability(clicks, mean, variance) > 1 - tail, most + 1)
    high = np.maximum(beyond - 1, 0.0)
    middle = _first(lambda clicks: distribution(clicks, mean, variance) >= 0.5, most)
    empty = high < low
    return np.where(empty, middle, low), np.where(empty, middle, high)


def _first(reached: Callable[[Floats], NDArray[np.bool_]], most: Floats) -> Floats:
    """The least whole number up to ``most`` at which a monotone condition holds; ``most`` where it never does."""
    low, high = np.zeros_like(most), most.copy()
    for _ in range(BISECTIONS):
        if not np.any(low < high):
            break
        middle = np.floor((low + high) / 2)
        holds = reached(middle)
        high = np.where(holds, middle, high)
        low = np.where(holds, low, np.minimum(middle + 1, high))
    return high
