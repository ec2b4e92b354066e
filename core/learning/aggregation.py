"""A campaign's insight from what its platforms reported: the library's counterpart of ``core.insight``.

Averages of normalized values are weighted by confidence, totals are sums, ``roas`` is pooled revenue over spend where
all money is in one currency. Ratios come from counts where there are counts.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

from core.insight import insight_id
from core.normalizer import NormalizedMetrics, PlatformNormalizer, confidence
from core.pooling import add, joined, roas_of, totals_of
from core.ratios import PlatformMetrics
from schemas.insight import CrossPlatformInsight, InsightTotals, MoneyTotals, PlatformBreakdown, Version
from schemas.metrics import CLICKS, CONVERSIONS, ENGAGEMENTS, IMPRESSIONS, MICROS, WIDTH
from schemas.platform import Platform

WINDOW: Final = "all"
"""The window's name of an insight that covers whatever the caller's numbers cover."""


def aggregate(
    campaign_id: str, platform_data: Mapping[Platform, PlatformMetrics], normalizer: PlatformNormalizer
) -> CrossPlatformInsight:
    """The campaign's insight. Its window is ``all``, without bounds: the numbers' period is the caller's."""
    scored = {platform: normalizer.normalize(metrics) for platform, metrics in sorted(platform_data.items())}
    metrics = list(platform_data.values())
    totals = _totals(metrics)
    roas, roas_reason = roas_of(totals.money)
    return CrossPlatformInsight(
        insight_id=insight_id(campaign_id, WINDOW, 0),
        campaign_id=campaign_id,
        window=WINDOW,
        window_start="",
        window_end="",
        version=Version(0, 0),
        phase="final",
        as_of="",
        correction=None,
        totals=totals,
        ctr=_per(totals.clicks, totals.impressions),
        roas=roas,
        roas_reason=roas_reason,
        confidence=confidence(totals.impressions or 0),
        coverage={str(platform): 1.0 for platform in scored},
        platform_breakdown={
            str(platform): _breakdown(platform_data[platform], own) for platform, own in scored.items()
        },
        benchmarks=normalizer.profile.version,
        **joined({str(platform): own for platform, own in scored.items()}),
    )


def pooledroas_of(metrics: Iterable[PlatformMetrics]) -> float | None:
    """Revenue over spend of everything together; ``None`` where it is undefined or in several currencies."""
    return roas_of(_totals(metrics).money)[0]


def _breakdown(metrics: PlatformMetrics, scored: NormalizedMetrics) -> PlatformBreakdown:
    totals = _totals([metrics])
    return PlatformBreakdown(
        totals=totals,
        ctr=_per(metrics.clicks, metrics.impressions, metrics.ctr),
        cpc=_per(metrics.spend, metrics.clicks, metrics.cpc),
        cpm=_per(None if metrics.spend is None else 1000 * metrics.spend, metrics.impressions, metrics.cpm),
        engagement_rate=_per(metrics.engagements, metrics.impressions, metrics.engagement_rate),
        roas=roas_of(totals.money)[0],
        normalized_ctr=scored.normalized_ctr,
        normalized_cpc=scored.normalized_cpc,
        normalized_cpm=scored.normalized_cpm,
        normalized_engagement=scored.normalized_engagement,
        normalized_quality=scored.normalized_quality,
        composite_score=scored.composite_score,
        confidence=scored.confidence,
        components=list(scored.components),
        absent=scored.absent,
        coverage=1.0,
        zones=[],
        zone_assumed=False,
        basis=[],
        platform_campaigns=[],
    )


def _totals(metrics: Iterable[PlatformMetrics]) -> InsightTotals:
    values: list[int | None] = [None] * WIDTH
    money: dict[str, list[int | None]] = defaultdict(lambda: [None, None])
    for own in metrics:
        conversions = None if own.conversions is None else round(own.conversions * MICROS)
        stated = {
            IMPRESSIONS: own.impressions,
            CLICKS: own.clicks,
            ENGAGEMENTS: own.engagements,
            CONVERSIONS: conversions,
        }
        for metric, count in stated.items():
            values[metric] = add(values[metric], count)
        if own.spend is not None or own.revenue is not None:
            amounts = money[own.currency]
            for at, amount in enumerate((own.spend, own.revenue)):
                amounts[at] = add(amounts[at], None if amount is None else round(amount * MICROS))
    return totals_of(values, [MoneyTotals(code, spend, revenue) for code, (spend, revenue) in sorted(money.items())])


def _per(numerator: float | None, denominator: int | None, stated: float | None = None) -> float | None:
    """The ratio of two counts, ``None`` where it is undefined; what was stated where one of them is unknown."""
    if numerator is None or denominator is None:
        return stated
    return numerator / denominator if denominator else None
