"""What a campaign's other platforms and its creative tell of its CTR on one platform: linear empirical Bayes.

The CTR of campaign c on platform p is ``base_rate[p] * (1 + shared_c + own_cp)``. The relative effects have mean 0;
``shared`` is the variance of what the campaign's platforms have in common, ``creative`` the part of it that
campaigns with the same creative have in common, ``own`` the rest. They are fitted by the method of moments: products
of two platforms' deviations estimate ``shared``, of two campaigns of one creative ``creative``, squares less the
binomial noise the sum (Bühlmann and Straub, ASTIN Bulletin 5, 1970; Haseman and Elston, Behavior Genetics 2, 1972).
Estimates are best linear predictors: a small system of equations a campaign.

For totals without time, beside ``core.learning.campaign_pool`` for series: it also weighs creatives and gives an
interval of its own, neither of which a multiplier does.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.intervals import Floats, interval

# What is assumed before there are campaigns, and the pairs of well-measured cells that this is worth.
PRIOR_SHARED: Final = 0.05
PRIOR_CREATIVE: Final = 0.0
PRIOR_OWN: Final = 0.05
PRIOR_PAIRS: Final = 5.0

LEAST_RELATIVE: Final = 0.05
LEAST_VARIANCE: Final = 1e-6
LEAST_RATE: Final = 1e-6
GREATEST_RATE: Final = 0.999
ROUNDS: Final = 4


class CtrBorrowing(msgspec.Struct, frozen=True, kw_only=True):
    """Fitted parameters. ``base_rate``: CTR by platform, [P]. The variances are relative, over the squared rate."""

    base_rate: tuple[float, ...]
    shared: float
    creative: float
    own: float
    campaigns: int


class CreativeEvidence(msgspec.Struct, frozen=True, eq=False):
    """What each campaign's creative did in *other* campaigns, [n] each: clicks, clicks expected at the base rates,
    and the number of those campaigns. Zeros where there is nothing.
    """

    clicks: Floats
    expected: Floats
    campaigns: Floats


class BorrowedCtr(msgspec.Struct, frozen=True, eq=False):
    """[n, P] each: the rate, its 90 % interval, and ``variance`` of the true rate around it."""

    rate: Floats
    low: Floats
    high: Floats
    variance: Floats


def fit(clicks: ArrayLike, impressions: ArrayLike, creatives: Sequence[str] = ()) -> CtrBorrowing:
    """Parameters from n campaigns on P platforms: counts, [n, P], and the campaigns' creatives ("" for unknown), [n].

    Raises ``ValueError`` for shapes that do not match or a platform without a click or without an impression that
    was not clicked: such a platform has no base rate.
    """
    clicked, seen = _counts(clicks, impressions)
    if creatives and len(creatives) != len(clicked):
        raise ValueError(f"there are {len(clicked)} campaigns and {len(creatives)} creatives")
    total_seen, total_clicked = seen.sum(axis=0), clicked.sum(axis=0)
    if not np.all((total_clicked > 0) & (total_clicked < total_seen)):
        raise ValueError("a platform without both clicks and impressions without one has no base rate")
    base: Floats = total_clicked / total_seen
    shared, creative, own = PRIOR_SHARED, PRIOR_CREATIVE, PRIOR_OWN
    for _ in range(ROUNDS):
        deviation, noise = _deviation(clicked, seen, base)
        trust = np.where(seen > 0, 1 / (noise + shared + own + LEAST_VARIANCE), 0.0)
        base = np.clip(base * (1 + (trust * deviation).sum(axis=0) / trust.sum(axis=0)), LEAST_RATE, GREATEST_RATE)
        deviation, noise = _deviation(clicked, seen, base)
        prior = PRIOR_PAIRS / (PRIOR_SHARED + PRIOR_OWN) ** 2
        weighted = trust * deviation
        products = (weighted.sum(axis=1) ** 2 - (weighted**2).sum(axis=1)).sum() / 2
        pairs = (trust.sum(axis=1) ** 2 - (trust**2).sum(axis=1)).sum() / 2
        shared = max(0.0, (products + prior * PRIOR_SHARED) / (pairs + prior))
        creative = min(shared, _of_creatives(weighted.sum(axis=1), trust.sum(axis=1), creatives, prior))
        square = ((trust**2 * (deviation**2 - noise)).sum() + prior * (PRIOR_SHARED + PRIOR_OWN)) / (
            (trust**2).sum() + prior
        )
        own = max(LEAST_VARIANCE, float(square - shared))
    return CtrBorrowing(
        base_rate=tuple(base.tolist()), shared=float(shared), creative=float(creative), own=own, campaigns=len(clicked)
    )


def estimate(
    fitted: CtrBorrowing,
    clicks: ArrayLike,
    impressions: ArrayLike,
    creative: CreativeEvidence | None = None,
    *,
    own_counts: bool = True,
    trials: ArrayLike | None = None,
) -> BorrowedCtr:
    """The CTR of each campaign on each platform, given its counts, [n, P], and what its creative did elsewhere.

    With ``own_counts`` false, a platform's own counts are not looked at: what the *other* platforms tell of it.
    The interval is the true rate's or, where ``trials`` ([n, P]) are given, that of the CTR to be observed on them.

    >>> fitted = CtrBorrowing(base_rate=(0.01, 0.02), shared=0.2, creative=0.0, own=0.05, campaigns=100)
    >>> estimate(fitted, [[300, 0]], [[15_000, 0]]).rate.round(4).tolist()
    [[0.0197, 0.0356]]
    """
    clicked, seen = _counts(clicks, impressions)
    base = np.array(fitted.base_rate)
    if clicked.shape[1:] != base.shape:
        raise ValueError(f"counts must have {base.size} columns, one a platform")
    n, platforms = clicked.shape
    deviation, noise = _deviation(clicked, seen, base)
    told = seen > 0
    if creative is not None:
        deviation, noise, told = _with_creative(fitted, creative, deviation, noise, told)
    cells = told.shape[1]
    cover = np.full((cells, cells), fitted.shared)
    cover[platforms:, :] = cover[:, platforms:] = fitted.creative
    rest = np.where(np.arange(cells) < platforms, fitted.own, 0.0)
    shape = (n, platforms)
    rate, spread = np.zeros(shape), np.zeros(shape)
    for column in range(platforms):
        heard = told.copy()
        if not own_counts:
            heard[:, column] = False
        towards = cover[column] + np.where(np.arange(cells) == column, fitted.own, 0.0)
        unit = np.ones(n)
        mean, _ = _solve(cover, rest, noise, heard, towards, deviation, unit)
        # Effects multiply, so what is left of them grows with the square of the rate, binomial noise with the rate.
        unit = np.maximum(1 + mean, LEAST_RELATIVE)
        _, variance = _solve(cover, rest, noise, heard, towards, deviation, unit)
        rate[:, column] = np.clip(base[column] * unit, LEAST_RATE, GREATEST_RATE)
        spread[:, column] = np.maximum(variance, LEAST_VARIANCE) * base[column] ** 2
    ahead = np.zeros(shape) if trials is None else np.asarray(trials, dtype=np.float64)
    low, high = interval(rate, spread, np.maximum(rate * (1 - rate) - spread, 0.0), ahead)
    return BorrowedCtr(rate, low, high, spread)


def _counts(clicks: ArrayLike, impressions: ArrayLike) -> tuple[Floats, Floats]:
    clicked, seen = np.asarray(clicks, dtype=np.float64), np.asarray(impressions, dtype=np.float64)
    if clicked.ndim != 2 or clicked.shape != seen.shape:
        raise ValueError(f"clicks and impressions must both be [n, P], not {clicked.shape} and {seen.shape}")
    if not (np.isfinite(clicked).all() and np.isfinite(seen).all()):
        raise ValueError("counts must be finite")
    seen = np.maximum(seen, 0.0)
    return np.clip(clicked, 0.0, seen), seen


def _deviation(clicked: Floats, seen: Floats, base: Floats) -> tuple[Floats, Floats]:
    """Each cell's relative deviation from its base rate, and the binomial variance of that."""
    expected = np.maximum(seen * base, 1e-9)
    return np.where(seen > 0, clicked / expected - 1, 0.0), (1 - base) / expected


def _codes(creatives: Sequence[str]) -> NDArray[np.int64]:
    known: dict[str, int] = {}
    return np.array([known.setdefault(name, len(known)) if name else -1 for name in creatives], dtype=np.int64)


def _of_creatives(weighted: Floats, trust: Floats, creatives: Sequence[str], prior: float) -> float:
    if not creatives:
        return PRIOR_CREATIVE
    codes = _codes(creatives)
    known = codes >= 0
    codes, weighted, trust = codes[known], weighted[known], trust[known]

    def cross(values: Floats) -> float:
        return float((np.bincount(codes, weights=values) ** 2).sum() - (values**2).sum()) / 2

    if not codes.size:
        return PRIOR_CREATIVE
    return max(0.0, (cross(weighted) + prior * PRIOR_CREATIVE) / (cross(trust) + prior))


def _with_creative(
    fitted: CtrBorrowing, creative: CreativeEvidence, deviation: Floats, noise: Floats, told: NDArray[np.bool_]
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """One cell more a campaign: its creative elsewhere, whose deviation also holds what those campaigns are."""
    expected = np.maximum(creative.expected, 1e-9)
    elsewhere = creative.expected > 0
    cell = np.where(elsewhere, creative.clicks / expected - 1, 0.0)
    others = (fitted.shared - fitted.creative + fitted.own) / np.maximum(creative.campaigns, 1.0)
    return (
        np.column_stack((deviation, cell)),
        np.column_stack((noise, 1 / expected + others)),
        np.column_stack((told, elsewhere)),
    )


def _solve(
    cover: Floats,
    rest: Floats,
    noise: Floats,
    heard: NDArray[np.bool_],
    towards: Floats,
    deviation: Floats,
    relative: Floats,
) -> tuple[Floats, Floats]:
    """Mean and variance, [n] each, of one effect given the cells that are heard (those that are not, stand apart).

    ``cover`` and ``rest``: the effects' covariance, at a rate of ``relative`` times the base rate.
    """
    square = relative[:, None, None] ** 2
    both = heard[:, :, None] & heard[:, None, :]
    diagonal = np.where(heard, rest * square[:, 0] + noise * relative[:, None], 1.0)
    system = np.where(both, cover * square, 0.0) + diagonal[:, :, None] * np.eye(cover.shape[0])
    joint = np.where(heard, towards * square[:, 0], 0.0)
    weights = np.linalg.solve(system, joint[:, :, None])[:, :, 0]
    everything = float(towards.max()) * square[:, 0, 0]
    return (weights * deviation).sum(axis=1), everything - (weights * joint).sum(axis=1)
