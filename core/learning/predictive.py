"""How many of a window's impressions will be clicked: a count distribution from a rate's mean and shape.

The rate has mean ``rate`` and relative variance ``1 / shape``; the clicks of ``trials`` impressions then have mean
``m = trials * rate`` and variance ``v = m(1 - rate) + m(m - rate) / shape``, those of a binomial whose rate itself
varies. The distribution is the member of the Katz family with these two moments: negative binomial where v > m,
binomial where v < m (Johnson, Kemp and Kotz, Univariate Discrete Distributions, 3rd ed., 2.3.1). Both have closed
distribution functions in the incomplete beta function, so a batch costs one call.
"""

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, ndtri

Floats: TypeAlias = NDArray[np.float64]

# Nearer to 1 than this, variance over mean is a Poisson distribution's to every digit that matters.
LEAST_DISPERSION: Final = 1e-6
LEAST_MEAN: Final = 1e-12
# Standard deviations by which the estimate of a quantile is seldom off.
GUESSED_WITHIN: Final = 0.25


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
    """The least and the greatest whole count whose centrality is at least ``level``, 0 to 1/2: the median's own is 1/2
    or more, so that there always is one.
    """
    most, tail = np.ceil(trials), level / 2
    low = _first(mean, variance, tail, most)
    beyond = _first(mean, variance, np.nextafter(1 - tail, 2.0), most + 1)
    return low, np.maximum(beyond - 1, low)


def _first(mean: Floats, variance: Floats, wanted: Floats, most: Floats) -> Floats:
    """The least whole count up to ``most`` whose mid-P value is at least ``wanted``; ``most`` where there is none.

    It is the first count whose distribution function is, or the next. Bisection around the Cornish-Fisher estimate, on
    the rows alone that are still open.
    """
    spread, normal = np.sqrt(variance), ndtri(wanted)
    skew = (2 * variance / mean - 1) / spread
    guess = mean + spread * (normal + skew * (normal**2 - 1) / 6)
    around = 0.5 + GUESSED_WITHIN * spread
    first, last = np.clip(np.floor(guess - around), 0, most), np.clip(np.ceil(guess + around), 0, most)
    found, below, upto = _bisected(mean, variance, wanted, first, last)
    # Only an answer at an end of its bracket may lie beyond it.
    ends = np.flatnonzero(((found == last) & (last < most)) | ((found == first) & (first > 0)))
    if ends.size:
        again = _bisected(mean[ends], variance[ends], wanted[ends], np.zeros(ends.size), most[ends])
        found[ends], below[ends], upto[ends] = again
    for values, counts in ((below, found - 1), (upto, found)):
        rows = np.flatnonzero(np.isnan(values))
        values[rows] = distribution(counts[rows], mean[rows], variance[rows])
    short: Floats = np.minimum(found + ((below + upto) / 2 < wanted), most)
    return short


def _bisected(
    mean: Floats, variance: Floats, wanted: Floats, first: Floats, last: Floats
) -> tuple[Floats, Floats, Floats]:
    """The first count whose distribution function reaches ``wanted``, and the function before and at it where known."""
    low, high = first.copy(), last.copy()
    below, upto = np.full(low.size, np.nan), np.full(low.size, np.nan)
    while (rows := np.flatnonzero(low < high)).size:
        middle = np.floor((low[rows] + high[rows]) / 2)
        value = distribution(middle, mean[rows], variance[rows])
        reached = value >= wanted[rows]
        high[rows], upto[rows] = np.where(reached, middle, high[rows]), np.where(reached, value, upto[rows])
        low[rows], below[rows] = np.where(reached, low[rows], middle + 1), np.where(reached, below[rows], value)
    return high, below, upto
