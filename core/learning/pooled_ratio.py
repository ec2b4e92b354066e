"""Ratios of groups of campaigns, such as the ROAS of each platform combination, that one lucky campaign cannot make.

A group's ratio is pooled, the sum of numerators over that of denominators. Its variance is the linearized one of a
ratio (Cochran, Sampling Techniques, 3rd ed., 6.4), of deviations from the *common* ratio, so that a group made by
one outlier is as unsure as the outlier is far; a robust common variance stands for ``PRIOR_CAMPAIGNS`` more. The
ratio is shrunk to the common one, with the variance between groups after DerSimonian and Laird (Controlled Clinical
Trials 7, 1986). Intervals are Student's, 90 %.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from core.intervals import UPPER_TAIL, Floats
from schemas.patterns import PooledRatio

PRIOR_CAMPAIGNS: Final = 4.0
HELD_WITHIN: Final = 3.0
# Before anything is known, groups may differ by this share of the common ratio.
LEAST_BETWEEN: Final = 0.2
LEAST_RELATIVE_VARIANCE: Final = 0.01
MEDIAN_OF_CHI_SQUARE: Final = 0.4549


def common_ratio(numerators: ArrayLike, denominators: ArrayLike) -> float:
    """The pooled ratio with each campaign's own held within three robust standard deviations of the median: few
    outliers move it little (Huber, Robust Statistics, 1981; the deviation is 1.4826 times the median absolute one).

    >>> round(common_ratio([2.0, 3.0, 3.0, 4.0, 400.0], [1.0] * 5), 2)
    3.89
    """
    tops, bottoms = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    ratios = tops / bottoms
    order = np.argsort(ratios, kind="stable")
    reached = np.cumsum(bottoms[order])
    median = ratios[order][np.searchsorted(reached, reached[-1] / 2)]
    reach = HELD_WITHIN * 1.4826 * np.median(np.abs(ratios - median))
    return float(np.average(np.clip(ratios, median - reach, median + reach), weights=bottoms))


def pooled_ratios(
    numerators: ArrayLike,
    denominators: ArrayLike,
    groups: Sequence[str],
    *,
    min_support: int = 1,
    towards: PooledRatio | None = None,
) -> dict[str, PooledRatio]:
    """The ratio of each group, by name. One entry a campaign: numerators of 0 or more, denominators above 0, [n].

    ``min_support``: the campaigns that a group needs to have a say in how far groups differ. ``towards``: the ratio
    to shrink to, by default the common one. Raises ``ValueError`` for shapes or values beyond these.
    """
    tops, bottoms = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    if tops.ndim != 1 or tops.shape != bottoms.shape or tops.size != len(groups):
        raise ValueError("numerators, denominators and groups must be as many")
    if not (np.isfinite(tops).all() and np.isfinite(bottoms).all() and (tops >= 0).all() and (bottoms > 0).all()):
        raise ValueError("numerators must be 0 or more and denominators above 0")
    if not tops.size:
        return {}
    centre = common_ratio(tops, bottoms) if towards is None else towards.value
    scale = max(centre or float(tops.sum() / bottoms.sum()), 1e-9)
    relative = float(np.median((tops / bottoms / scale - 1) ** 2)) / MEDIAN_OF_CHI_SQUARE
    names = sorted(set(groups))
    place = {name: at for at, name in enumerate(names)}
    codes = np.array([place[group] for group in groups])

    def summed(values: Floats) -> Floats:
        return np.bincount(codes, weights=values, minlength=len(names)).astype(np.float64)

    count, whole = summed(np.ones_like(tops)), summed(bottoms)
    observed = summed(tops) / whole
    own = summed((tops - centre * bottoms) ** 2) / whole**2
    prior = max(relative, LEAST_RELATIVE_VARIANCE) * scale**2 * summed(bottoms**2) / whole**2
    variance = (PRIOR_CAMPAIGNS * prior + count * own) / (PRIOR_CAMPAIGNS + count)
    # How far groups differ is judged by how far campaigns stray within them; a single campaign shows none of that.
    within = summed((tops - observed[codes] * bottoms) ** 2) / whole**2 * count / np.maximum(count - 1, 1)
    told = (PRIOR_CAMPAIGNS * prior + count * within) / (PRIOR_CAMPAIGNS + count)
    between = max(_between(observed, told, count >= max(min_support, 2)), (LEAST_BETWEEN * scale) ** 2)
    unsure_centre = between / len(names)
    if towards is not None:
        variance_of_centre = ((towards.high - towards.low) / 2 / stdtrit(PRIOR_CAMPAIGNS, UPPER_TAIL)) ** 2
        between, unsure_centre = between + variance_of_centre, variance_of_centre
    trust = between / (between + variance)
    value = np.maximum(0.0, centre + trust * (observed - centre))
    reach = stdtrit(PRIOR_CAMPAIGNS + count, UPPER_TAIL) * np.sqrt(trust * variance + (1 - trust) ** 2 * unsure_centre)
    return {
        name: PooledRatio(
            value=float(value[at]),
            low=max(0.0, float(value[at] - reach[at])),
            high=float(value[at] + reach[at]),
            observed=float(observed[at]),
            campaigns=int(count[at]),
            trust=float(trust[at]),
        )
        for name, at in place.items()
    }


def _between(observed: Floats, variance: Floats, counted: np.ndarray) -> float:
    """The variance between groups, of those that count."""
    if counted.sum() < 2:
        return 0.0
    weights, values = 1 / variance[counted], observed[counted]
    mean = (weights * values).sum() / weights.sum()
    excess = (weights * (values - mean) ** 2).sum() - (counted.sum() - 1)
    total = float(weights.sum())
    told = total - float((weights**2).sum()) / total
    # Where one group is all that is known, how far groups differ is not.
    return max(0.0, float(excess) / told) if told > 1e-9 * total else 0.0
