"""Consistency over time: whether a campaign's platforms drift apart, and where they changed, by named statistics.

A platform is compared with the campaign's others: of a day's clicks, its share is binomial around ``n r / (n r + m)``
with n and m the impressions and r its CTR over theirs. Whatever moves all platforms alike cancels. Change points:
the largest standardized CUSUM of observed minus expected clicks (Hinkley and Hinkley, Biometrika 57, 1970), its p-value
Bonferroni-corrected for the days tried; segments are split again (Vostrikova 1981). Overdispersion is estimated from
successive differences, which a change does not inflate (von Neumann 1941).
"""

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Final

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.intervals import Floats
from schemas.platform import Platform

STATISTIC: Final = "binomial CUSUM, Bonferroni-corrected"
TREND: Final = "Mann-Kendall tau"
LEAST_DAYS: Final = 3
NINETY: Final = 1.6449
LARGEST_LOG: Final = 700.0
_NORMAL: Final = NormalDist()


class ChangePoint(msgspec.Struct, frozen=True, kw_only=True):
    """From day ``day`` (counted from 0) on, ``platform``'s CTR over the others' is ``ratio`` times what it was.

    [``low``, ``high``]: the ratio's 90 % interval. ``value``: the statistic, in standard deviations.
    """

    platform: Platform
    day: int
    ratio: float
    low: float
    high: float
    statistic: str
    value: float
    p_value: float


class Trend(msgspec.Struct, frozen=True, kw_only=True):
    """A monotone trend: ``value`` from -1 (falls) to 1 (rises), and how likely chance alone does as much."""

    statistic: str
    value: float
    p_value: float
    days: int


def change_points(daily: Mapping[Platform, tuple[ArrayLike, ArrayLike]], level: float = 0.05) -> list[ChangePoint]:
    """Where a campaign's platforms changed against each other, by platform and day.

    ``daily``: clicks and impressions by day, [D] each, over the same days. ``level``: the p-value that counts, shared
    among the platforms. Fewer than two platforms give none. Raises ``ValueError`` for arrays that do not match.
    """
    counts = {platform: _checked(*daily[platform]) for platform in sorted(daily)}
    if len({clicks.shape for clicks, _ in counts.values()}) > 1:
        raise ValueError("all platforms' counts must be over the same days")
    if len(counts) < 2:
        return []
    clicks, seen = (np.array([pair[at] for pair in counts.values()]) for at in (0, 1))
    found: list[ChangePoint] = []
    for at, platform in enumerate(counts):
        others = np.delete(np.arange(len(counts)), at)
        own = (clicks[at], seen[at], clicks[others].sum(axis=0), seen[others].sum(axis=0))
        found += _measured(_split(platform, own, 0, len(seen[at]), level / len(counts)), own)
    return found


def consistency_trend(scores: Sequence[float | None]) -> Trend | None:
    """Whether daily consistency scores rise or fall; ``None`` for fewer than three known ones, or equal ones.

    >>> consistency_trend([0.9, 0.8, 0.7, 0.6, 0.5, 0.4]).value
    -1.0
    """
    known = [(day, score) for day, score in enumerate(scores) if score is not None]
    if len(known) < LEAST_DAYS or len({score for _, score in known}) < 2:
        return None
    from scipy.stats import kendalltau  # all of scipy.stats takes long to import

    tau, p_value = kendalltau(*zip(*known, strict=True))
    return Trend(statistic=TREND, value=round(float(tau), 12), p_value=float(p_value), days=len(known))


class PageCusum(msgspec.Struct, frozen=True):
    """Page's two-sided CUSUM (Biometrika 41, 1954) of standardized deviations, one at a time.

    ``slack``: what a deviation must exceed to count, ``alarm``: the sum that raises one, both in standard deviations;
    .5 and 5 find a shift of one in about ten steps, and a false one in about 900.

    >>> state = PageCusum()
    >>> for deviation in [0, 0, 2, 2, 2, 2]:
    ...     state, alarmed = state.after(deviation)
    >>> alarmed
    True
    """

    up: float = 0.0
    down: float = 0.0
    slack: float = 0.5
    alarm: float = 5.0

    def after(self, deviation: float) -> tuple["PageCusum", bool]:
        """The state after one more deviation, and whether it alarms; an alarm starts anew."""
        up = max(0.0, self.up + deviation - self.slack)
        down = max(0.0, self.down - deviation - self.slack)
        alarmed = max(up, down) > self.alarm
        if alarmed:
            up = down = 0.0
        return PageCusum(up, down, self.slack, self.alarm), alarmed


def _checked(clicks: ArrayLike, impressions: ArrayLike) -> tuple[Floats, Floats]:
    own, seen = np.asarray(clicks, dtype=np.float64), np.asarray(impressions, dtype=np.float64)
    if own.ndim != 1 or own.shape != seen.shape or not (np.isfinite(own).all() and np.isfinite(seen).all()):
        raise ValueError("clicks and impressions must be finite and by day, as many of both")
    return own, seen


def _split(
    platform: Platform, counts: tuple[Floats, Floats, Floats, Floats], first: int, end: int, level: float
) -> list[ChangePoint]:
    change = _change(platform, tuple(series[first:end] for series in counts), first, level)
    if change is None:
        return []
    before, after = (_split(platform, counts, *span, level) for span in ((first, change.day), (change.day, end)))
    return [*before, change, *after]


def _change(platform: Platform, counts: tuple[Floats, ...], first: int, level: float) -> ChangePoint | None:
    """The likeliest change of a segment, where it is too large for chance."""
    clicks, total, odds, days = _told(counts)
    if len(days) < 2 * LEAST_DAYS or not clicks.sum() or not (total - clicks).sum():
        return None
    strayed, variance = _deviations(clicks, total, odds, _log_ratio(clicks, total, odds))
    dispersion = _dispersion(strayed / np.sqrt(variance))
    told_so_far, whole = np.cumsum(variance), variance.sum()
    at = np.arange(LEAST_DAYS - 1, len(days) - LEAST_DAYS)
    spread = told_so_far[at] * (1 - told_so_far[at] / whole) * dispersion
    values = np.cumsum(strayed)[at] / np.sqrt(spread)
    best = int(np.argmax(np.abs(values)))
    p_value = min(1.0, 2 * _NORMAL.cdf(-abs(float(values[best]))) * len(at))
    if p_value >= level:
        return None
    return ChangePoint(
        platform=platform,
        day=first + int(days[int(at[best]) + 1]),
        ratio=1.0,
        low=1.0,
        high=1.0,
        statistic=STATISTIC,
        value=float(values[best]),
        p_value=p_value,
    )


def _measured(changes: list[ChangePoint], counts: tuple[Floats, ...]) -> list[ChangePoint]:
    """The changes with their ratios, each between the stretches that end and begin with it."""
    cuts = [0, *(change.day for change in changes), len(counts[0])]
    found = []
    for change, first, end in zip(changes, cuts, cuts[2:], strict=False):
        ratios, variance = [], 0.0
        for part in (slice(first, change.day), slice(change.day, end)):
            clicks, total, odds = _told(tuple(series[part] for series in counts))[:3]
            ratios.append(_log_ratio(clicks, total, odds))
            strayed, own = _deviations(clicks, total, odds, ratios[-1])
            variance += _dispersion(strayed / np.sqrt(own)) / own.sum()
        ratio, reach = ratios[1] - ratios[0], NINETY * variance**0.5
        # Where a stretch tells next to nothing, the interval is all that a float can hold.
        told = np.exp(np.clip([ratio, ratio - reach, ratio + reach], -LARGEST_LOG, LARGEST_LOG))
        found.append(msgspec.structs.replace(change, ratio=float(told[0]), low=float(told[1]), high=float(told[2])))
    return found


def _told(counts: tuple[Floats, ...]) -> tuple[Floats, Floats, Floats, NDArray[np.int64]]:
    """Own clicks, all clicks and the log of the impressions' ratio, on the days that tell anything; and those days."""
    own, seen, others, shown = counts
    days = np.flatnonzero((seen > 0) & (shown > 0) & (own + others > 0))
    return own[days], (own + others)[days], np.log(seen[days] / shown[days]), days


def _dispersion(standard: Floats) -> float:
    """How much more than binomial the days vary, from successive differences."""
    return max(1.0, float((np.diff(standard) ** 2).mean()) / 2) if len(standard) > 1 else 1.0


def _deviations(clicks: Floats, total: Floats, odds: Floats, ratio: float) -> tuple[Floats, Floats]:
    """Observed minus expected clicks and their binomial variance, at a log ratio of the CTRs."""
    share = 1 / (1 + np.exp(-(odds + ratio)))
    return clicks - total * share, np.maximum(total * share * (1 - share), 1e-12)


def _log_ratio(clicks: Floats, total: Floats, odds: Floats) -> float:
    """The conditional maximum-likelihood log of the CTRs' ratio, half a click added to either side; by Newton."""
    own, others = clicks.sum() + 0.5, (total - clicks).sum() + 0.5
    ratio = float(np.log(own / others) - np.average(odds, weights=total))
    for _ in range(50):
        strayed, variance = _deviations(clicks, total, odds, ratio)
        step = float(np.clip(strayed.sum() / variance.sum(), -1.0, 1.0))
        ratio = float(np.clip(ratio + step, -30.0, 30.0))
        if abs(step) < 1e-10:
            break
    return ratio
