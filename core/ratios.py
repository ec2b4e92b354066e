"""The ratios that are scored, derived from counts; where one is undefined, its reason stands in its place.

With zero impressions none is defined: an ad without delivery is unknown, neither cheap nor good.
"""

from collections.abc import Sequence
from math import inf
from numbers import Real
from typing import Final, TypeAlias

import msgspec

from schemas.metrics import CLICKS, ENGAGEMENTS, IMPRESSIONS, MICROS, QUALITY_IMPRESSIONS, QUALITY_POINTS, SPEND
from schemas.platform import Platform

COMPONENTS: Final = ("ctr", "cpc", "cpm", "engagement", "quality")

Ratio: TypeAlias = float | str
Ratios: TypeAlias = tuple[Ratio, Ratio, Ratio, Ratio, Ratio]
"""One entry per name in ``COMPONENTS``: its value, or the reason why it has none."""

NO_IMPRESSIONS: Final = "no impressions"
NO_CLICKS: Final = "no clicks"
NO_QUALITY: Final = "no quality signal"
UNKNOWN_IMPRESSIONS: Final = "impressions are not reported"
UNKNOWN_CLICKS: Final = "clicks are not reported"
UNKNOWN_SPEND: Final = "spend is not reported"
UNKNOWN_ENGAGEMENTS: Final = "engagements are not reported"
NO_DELIVERY: Final[Ratios] = (NO_IMPRESSIONS, NO_IMPRESSIONS, NO_IMPRESSIONS, NO_IMPRESSIONS, NO_IMPRESSIONS)


class PlatformMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """What a library user knows of one campaign or ad on one platform. ``None`` says unknown, which is not zero.

    ``spend`` and ``revenue`` are in units of ``currency``, rates are fractions, ``cpm`` is the cost of 1,000
    impressions, and ``quality_score`` is on the platform's scale. The ratios ``ctr``, ``cpc``, ``cpm`` and
    ``engagement_rate`` count only where the counts that define them are absent.

    Raises ``ValueError`` for what is no number, or a negative or non-finite one. Clicks may exceed impressions, as some
    platforms report; what learns from them takes as many as there were impressions.
    """

    platform: Platform
    impressions: int | None = None
    clicks: int | None = None
    spend: float | None = None
    conversions: float | None = None
    revenue: float | None = None
    engagements: int | None = None
    quality_score: float | None = None
    ctr: float | None = None
    cpc: float | None = None
    cpm: float | None = None
    engagement_rate: float | None = None
    currency: str = "USD"

    def __post_init__(self) -> None:
        for name in _NUMBERS:
            value = getattr(self, name)
            if value is not None and not (isinstance(value, Real) and 0 <= float(value) < inf):
                raise ValueError(f"{name} must be a finite number of 0 or more, not {str(value)[:40]!r}")


_NUMBERS: Final = tuple(name for name in PlatformMetrics.__struct_fields__ if name not in ("platform", "currency"))


def ratios_of_metrics(metrics: PlatformMetrics, benchmark_currency: str) -> Ratios:
    """The ratios of a library user's metrics; costs only where they are in the benchmarks' currency.

    >>> ratios_of_metrics(PlatformMetrics(platform=Platform.META, impressions=1000, clicks=20, spend=30.0), "USD")
    (0.02, 1.5, 30.0, 'engagements are not reported', 'no quality signal')
    """
    if metrics.impressions == 0:
        return NO_DELIVERY
    ctr, cpc, cpm, engagement = _from_counts(metrics.impressions, metrics.clicks, metrics.spend, metrics.engagements, 1)
    if isinstance(ctr, str) and metrics.ctr is not None:
        ctr = metrics.ctr
    if isinstance(cpc, str) and cpc != NO_CLICKS and metrics.cpc is not None:
        cpc = metrics.cpc
    if isinstance(cpm, str) and metrics.cpm is not None:
        cpm = metrics.cpm
    if isinstance(engagement, str) and metrics.engagement_rate is not None:
        engagement = metrics.engagement_rate
    if metrics.currency != benchmark_currency:
        cpc, cpm = _foreign(cpc, cpm, metrics.currency, benchmark_currency)
    return ctr, cpc, cpm, engagement, NO_QUALITY if metrics.quality_score is None else metrics.quality_score


def ratios_of_counts(values: Sequence[int | None], currency: str, benchmark_currency: str) -> Ratios:
    """The ratios of counts in the order of ``METRICS``, money in micros of ``currency`` (empty says unknown)."""
    impressions = values[IMPRESSIONS]
    if impressions == 0:
        return NO_DELIVERY
    ctr, cpc, cpm, engagement = _from_counts(impressions, values[CLICKS], values[SPEND], values[ENGAGEMENTS], MICROS)
    if currency != benchmark_currency:
        cpc, cpm = _foreign(cpc, cpm, currency, benchmark_currency)
    points, scored = values[QUALITY_POINTS], values[QUALITY_IMPRESSIONS]
    return ctr, cpc, cpm, engagement, points / (100 * scored) if points and scored else NO_QUALITY


def _from_counts(
    impressions: int | None, clicks: int | None, spend: float | None, engagements: int | None, unit: int
) -> tuple[Ratio, Ratio, Ratio, Ratio]:
    """CTR, CPC, CPM and engagement rate; ``unit`` is how much of ``spend`` makes one unit of currency."""
    cpc: Ratio
    if clicks is None:
        cpc = UNKNOWN_CLICKS
    elif clicks == 0:
        cpc = NO_CLICKS
    else:
        cpc = UNKNOWN_SPEND if spend is None else spend / (unit * clicks)
    if impressions is None:
        return UNKNOWN_IMPRESSIONS, cpc, UNKNOWN_IMPRESSIONS, UNKNOWN_IMPRESSIONS
    return (
        UNKNOWN_CLICKS if clicks is None else clicks / impressions,
        cpc,
        UNKNOWN_SPEND if spend is None else 1000 * spend / (unit * impressions),
        UNKNOWN_ENGAGEMENTS if engagements is None else engagements / impressions,
    )


def _foreign(cpc: Ratio, cpm: Ratio, currency: str, benchmark_currency: str) -> tuple[Ratio, Ratio]:
    """The two costs where they are not in the benchmarks' currency: a reason, an earlier one standing."""
    what = f"spend is in {currency}" if currency else "the currency of the spend is unknown"
    reason = f"{what} and the benchmarks are in {benchmark_currency}"
    return cpc if isinstance(cpc, str) else reason, cpm if isinstance(cpm, str) else reason
