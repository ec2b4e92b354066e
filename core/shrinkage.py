"""The rolling CTR prediction: an empirical-Bayes rate on decayed counts, shrunk campaign -> platform -> profile.

Half-life and strength are those that judged best on real daily data: one step ahead, 4 days and 20 impressions. The
campaign's multiplier is the gamma-Poisson posterior mean of observed over expected clicks, its prior mean being 1.
The rate is beta-binomial given that prior (Gelman et al., Bayesian Data Analysis, 3rd ed., 2.4 and 2.6).
"""

from collections.abc import Callable
from math import isfinite
from typing import Final

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from core.intervals import Floats, interval, strength_of

# One platform's luck or a mislinked campaign may move another's prior tenfold, and no further.
LEAST_MULTIPLIER: Final = 0.1
GREATEST_MULTIPLIER: Final = 10.0
LEAST_PRIOR: Final = 1e-6
GREATEST_PRIOR: Final = 0.5
# A rate that rounds to 1 would have no variance to match.
GREATEST_RATE: Final = 1 - 1e-9


class CtrPrior(msgspec.Struct, frozen=True):
    """How far counts are trusted. Raises ``ValueError`` unless all are finite and above 0.

    ``half_life_days``: the age at which an impression counts for half. ``strength``: the impressions that a
    platform's prior is worth. ``campaign_strength``: the expected clicks that the multiplier 1 is worth.
    ``volatility``: how far, relative to itself, a CTR strays from day to day before a campaign's own days have told;
    ``volatility_days``: the well-measured days that this is worth.
    """

    half_life_days: float = 4.0
    strength: float = 20.0
    campaign_strength: float = 5.0
    volatility: float = 0.2
    volatility_days: float = 1.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not (isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a finite number above 0, not {value}")


DEFAULT_PRIOR: Final = CtrPrior()


class CtrEstimates(msgspec.Struct, frozen=True, eq=False):
    """Arrays of shape [n, P + 1]: a row per campaign, a column per platform, the last for the whole campaign.

    ``rate`` is the predicted CTR and [``low``, ``high``] its 90 % interval. ``prior_rate`` and ``prior_strength``
    (impressions) are what it was shrunk to. ``multiplier`` is the campaign's CTR over the profile's: in a platform's
    column from the other platforms alone, in the last from all of them.
    """

    rate: Floats
    low: Floats
    high: Floats
    prior_rate: Floats
    prior_strength: Floats
    multiplier: Floats


def decay(age_days: ArrayLike, half_life: float) -> Floats:
    """The weight of counts of an age: ``2 ** (-age / half_life)``. What lies ahead counts as of now.

    >>> decay([0, 4, 8], 4.0).tolist()
    [1.0, 0.5, 0.25]
    """
    weight: Floats = np.exp2(-np.maximum(np.asarray(age_days, dtype=np.float64), 0.0) / half_life)
    return weight


def predict(
    clicks: ArrayLike,
    impressions: ArrayLike,
    base_rate: ArrayLike,
    expected_impressions: ArrayLike,
    prior: CtrPrior = DEFAULT_PRIOR,
    volatility: Callable[[Floats], Floats] | None = None,
    active: ArrayLike | None = None,
) -> CtrEstimates:
    """The CTR that the next window will show, for n campaigns on P platforms.

    ``clicks`` and ``impressions``: decayed counts, [n, P]. ``base_rate``: the profile's ideal CTR, [P].
    ``expected_impressions``: those of the next window, [n, P + 1], the last column the campaign's total.

    With ``r = (clicks + k) / (impressions * base_rate + k)`` over the campaign's other platforms, platform p's prior
    is ``m * base_rate[p] * r`` clicks in m impressions; its posterior adds its own counts. The interval is that of
    the CTR to be observed on the expected impressions or, where none are expected, of the rate itself.

    A campaign's CTR is the mixture of its platforms' by their shares of the expected impressions; where none are
    expected, of the decayed ones; where there are none either, by equal shares. Its mean, prior and variance follow
    from the platforms' posteriors taken as independent, so that on a single platform both columns agree.

    ``volatility`` gives the relative variance of the CTR from window to window, [n, P], for predicted rates, [n, P];
    without it the interval is that of a rate that does not move. ``active`` says which platforms a campaign runs on,
    [n, P]; the others take no share.

    Counts below 0 are taken as 0, and clicks beyond the impressions as equal to them. Raises ``ValueError`` for
    shapes that do not match, non-finite numbers, or a base rate outside of (0, 1).

    >>> estimates = predict([[30.0, 0.0]], [[980.0, 0.0]], [0.015, 0.03], [[1000, 0, 1000]])
    >>> estimates.rate.round(4).tolist()
    [[0.0303, 0.0533, 0.0303]]
    >>> estimates.prior_rate.round(4).tolist()
    [[0.015, 0.0533, 0.015]]
    """
    clicks, impressions, base, expected = _checked(clicks, impressions, base_rate, expected_impressions)
    m, k = prior.strength, prior.campaign_strength
    platforms = base.size

    # Column p sums over every platform but p; subtracting p from a total would leave rounding errors in place of zero.
    pools = np.column_stack((1.0 - np.eye(platforms), np.ones(platforms)))
    multiplier = (clicks @ pools + k) / ((impressions * base) @ pools + k)
    multiplier = np.clip(multiplier, LEAST_MULTIPLIER, GREATEST_MULTIPLIER)

    prior_rate = np.clip(base * multiplier[:, :-1], LEAST_PRIOR, GREATEST_PRIOR)
    strength = impressions + m
    rate = np.minimum((clicks + m * prior_rate) / strength, GREATEST_RATE)
    variance = rate * (1 - rate) / (strength + 1)
    within = rate * (1 - rate) - variance
    if volatility is not None:
        variance = variance + volatility(rate) * rate**2

    share = _shares(expected[:, :-1], impressions, active)
    prior_variance = prior_rate * (1 - prior_rate) / (m + 1)
    rate = _with_mixture(rate, share)
    variance = _with_mixture(variance, share, power=2)
    within = _with_mixture(within, share)
    prior_rate = _with_mixture(prior_rate, share)
    prior_strength = strength_of(prior_rate, _with_mixture(prior_variance, share, power=2))

    low, high = interval(rate, variance, within, expected)
    return CtrEstimates(rate, low, high, prior_rate, prior_strength, multiplier)


def _with_mixture(values: Floats, share: Floats, power: int = 1) -> Floats:
    """Platforms' values with the campaign's appended: their sum weighted by the shares to a power."""
    return np.column_stack((values, np.sum(values * share**power, axis=1)))


def _shares(expected: Floats, impressions: Floats, active: ArrayLike | None) -> Floats:
    """Each platform's share of its campaign, [n, P], rows summing to 1."""
    volume = np.where(expected.sum(axis=1, keepdims=True) > 0, expected, impressions)
    total = volume.sum(axis=1, keepdims=True)
    runs = np.ones_like(volume) if active is None else np.asarray(active, dtype=np.float64)
    runs = np.where(runs.any(axis=1, keepdims=True), runs, 1.0)
    equal = runs / runs.sum(axis=1, keepdims=True)
    share: Floats = np.divide(volume, total, out=equal, where=total > 0)
    return share


def _checked(
    clicks: ArrayLike, impressions: ArrayLike, base_rate: ArrayLike, expected: ArrayLike
) -> tuple[Floats, Floats, Floats, Floats]:
    arrays = [np.asarray(array, dtype=np.float64) for array in (clicks, impressions, base_rate, expected)]
    base = arrays[2]
    if base.ndim != 1 or not base.size or not np.all((base > 0) & (base < 1)):
        raise ValueError("base_rate must be a vector of rates between 0 and 1, one per platform")
    n, platforms = len(arrays[0]) if arrays[0].ndim else 0, base.size
    shapes = {"clicks": (n, platforms), "impressions": (n, platforms), "expected_impressions": (n, platforms + 1)}
    for (name, shape), array in zip(shapes.items(), (arrays[0], arrays[1], arrays[3]), strict=True):
        if array.shape != shape:
            raise ValueError(f"{name} must have the shape {shape}, not {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite")
    seen = np.maximum(arrays[1], 0.0)
    return np.clip(arrays[0], 0.0, seen), seen, base, np.maximum(arrays[3], 0.0)
