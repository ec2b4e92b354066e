"""How reported conversions mature: what share of its final conversions a day shows so many days after its end.

Conversions are counted for the day of the click and arrive for as long as the attribution window is open. Actuaries
know the shape as claims development. ``development_factors`` is the chain ladder (T. Mack, Distribution-free
calculation of the standard error of chain ladder reserve estimates, ASTIN Bulletin 23, 1993): the factor from one age
to the next is the sum of the later amounts over the sum of the earlier ones, over all days that show both.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Final

import msgspec

from core.profile import Curve
from schemas.platform import Platform

MIN_SUPPORT: Final = 10
OLDEST: Final = 120
"""Days after which nothing is looked at: longer than any platform's attribution window."""
DIGITS: Final = 4


def share(curve: Curve, age_days: float) -> float:
    """The curve's share at an age, between its points by lines. An age below the first point's is that point's."""
    position = bisect_right(curve, age_days, key=lambda point: point[0])
    if position == 0:
        return curve[0][1]
    if position == len(curve):
        return curve[-1][1]
    (left, low), (right, high) = curve[position - 1], curve[position]
    return low + (high - low) * (age_days - left) / (right - left)


class Observation(msgspec.Struct, frozen=True):
    """One pull of one day: ``origin`` names the row that is pulled again and again, ``age`` is in whole days since the
    day's end, ``conversions`` is what was reported by then.
    """

    platform: Platform
    origin: str
    day: int
    age: int
    conversions: float


class Factor(msgspec.Struct, frozen=True):
    """From ``age`` to the day after, conversions grow by ``factor``; so many rows show it."""

    age: int
    factor: float
    support: int


class Development(msgspec.Struct, frozen=True):
    """One platform's factors by rising age, without gap, and the curve that they give. Beyond the last factor nothing
    is known, and the curve takes it for whole.
    """

    factors: tuple[Factor, ...]
    curve: Curve


def development_factors(
    observations: Iterable[Observation], min_support: int = MIN_SUPPORT
) -> dict[Platform, Development]:
    """How each platform's conversions develop, of the platforms that show it.

    Between two pulls of a row, days apart, its conversions are taken to have grown by a line. An age that fewer than
    ``min_support`` rows show ends the curve.
    """
    rows: dict[Platform, dict[tuple[str, int], dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for seen in observations:
        if 0 <= seen.age <= OLDEST:
            rows[seen.platform][seen.origin, seen.day][seen.age] = seen.conversions
    found = {}
    for platform in sorted(rows):
        factors = _factors(rows[platform].values(), min_support)
        if factors:
            found[platform] = Development(factors, _curve(factors))
    return found


def _factors(rows: Iterable[Mapping[int, float]], min_support: int) -> tuple[Factor, ...]:
    earlier: dict[int, float] = defaultdict(float)
    later: dict[int, float] = defaultdict(float)
    support: dict[int, int] = defaultdict(int)
    for row in rows:
        for (left, low), (right, high) in pairwise(sorted(row.items())):
            step = (high - low) / (right - left)
            for age in range(left, right):
                earlier[age] += low + step * (age - left)
                later[age] += low + step * (age + 1 - left)
                support[age] += 1
    factors: list[Factor] = []
    for age in sorted(support):
        known = support[age] >= max(1, min_support) and earlier[age] > 0
        if factors and (not known or age != factors[-1].age + 1):
            break
        if known:
            factors.append(Factor(age, later[age] / earlier[age], support[age]))
    return tuple(factors)


def _curve(factors: tuple[Factor, ...]) -> Curve:
    """Shares from the end backwards. Where conversions shrink on the way, the share before is no larger for it."""
    reported = 1.0
    points = [(float(factors[-1].age + 1), 1.0)]
    for factor in reversed(factors):
        reported = min(reported, reported / factor.factor) if factor.factor > 0 else reported
        points.append((float(factor.age), round(reported, DIGITS)))
    return tuple(reversed(points))
