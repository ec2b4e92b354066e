"""A campaign's insight from what its platforms reported: the library's counterpart of ``core.insight``.

Averages of normalized values are weighted by confidence, totals are sums, ``roas`` is pooled revenue over spend where
all money is in one currency. Ratios come from counts where there are counts.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

from core.insight import insight_id
from core.normalizer import NormalizedMetrics, PlatformNormalizer, confidence, consistency_score
from core.ratios import PlatformMetrics
from schemas.insight import CrossPlatformInsight, InsightTotals, MoneyTotals, PlatformBreakdown, Version
from schemas.metrics import MICROS
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
    roas, roas_reason = _roas(totals.money)
    composites = {platform: own.composite_score for platform, own in scored.items()}
    ranked = sorted((-score, platform) for platform, score in composites.items() if score is not None)
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
        normalized_ctr=_weighted((own.normalized_ctr, own) for own in scored.values()),
        normalized_cpc=_weighted((own.normalized_cpc, own) for own in scored.values()),
        normalized_cpm=_weighted((own.normalized_cpm, own) for own in scored.values()),
        normalized_engagement=_weighted((own.normalized_engagement, own) for own in scored.values()),
        normalized_quality=_weighted((own.normalized_quality, own) for own in scored.values()),
        composite_score=_weighted((own.composite_score, own) for own in scored.values()),
        confidence=confidence(totals.impressions or 0),
        consistency_score=consistency_score(composites.values()),
        best_platform=str(ranked[0][1]) if ranked else None,
        coverage={str(platform): 1.0 for platform in scored},
        platform_breakdown={
            str(platform): _breakdown(platform_data[platform], own) for platform, own in scored.items()
        },
        benchmarks=normalizer.profile.version,
    )


def pooled_roas(metrics: Iterable[PlatformMetrics]) -> float | None:
    """Revenue over spend of everything together; ``None`` where it is undefined or in several currencies."""
    return _roas(_totals(metrics).money)[0]


def _breakdown(metrics: PlatformMetrics, scored: NormalizedMetrics) -> PlatformBreakdown:
    totals = _totals([metrics])
    return PlatformBreakdown(
        totals=totals,
        ctr=_per(metrics.clicks, metrics.impressions, metrics.ctr),
        cpc=_per(metrics.spend, metrics.clicks, metrics.cpc),
        cpm=_per(None if metrics.spend is None else 1000 * metrics.spend, metrics.impressions, metrics.cpm),
        engagement_rate=_per(metrics.engagements, metrics.impressions, metrics.engagement_rate),
        roas=_roas(totals.money)[0],
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
    counts: dict[str, int | None] = dict.fromkeys(("impressions", "clicks", "engagements", "conversions"))
    money: dict[str, list[int | None]] = defaultdict(lambda: [None, None])
    for own in metrics:
        conversions = None if own.conversions is None else round(own.conversions * MICROS)
        stated = (own.impressions, own.clicks, own.engagements, conversions)
        for name, count in zip(counts, stated, strict=True):
            counts[name] = _sum(counts[name], count)
        if own.spend is not None or own.revenue is not None:
            amounts = money[own.currency]
            for at, amount in enumerate((own.spend, own.revenue)):
                amounts[at] = _sum(amounts[at], None if amount is None else round(amount * MICROS))
    listed = [MoneyTotals(code, spend, revenue) for code, (spend, revenue) in sorted(money.items())]
    single = listed[0] if len(listed) == 1 else None
    return InsightTotals(
        impressions=counts["impressions"],
        clicks=counts["clicks"],
        link_clicks=None,
        conversions_micros=counts["conversions"],
        engagements=counts["engagements"],
        video_views=None,
        currency=single.currency if single else None,
        spend_micros=single.spend_micros if single else None,
        revenue_micros=single.revenue_micros if single else None,
        money=listed,
    )


def _sum(left: int | None, right: int | None) -> int | None:
    return right if left is None else left if right is None else left + right


def _per(numerator: float | None, denominator: int | None, stated: float | None = None) -> float | None:
    """The ratio of two counts, ``None`` where it is undefined; what was stated where one of them is unknown."""
    if numerator is None or denominator is None:
        return stated
    return numerator / denominator if denominator else None


def _roas(money: list[MoneyTotals]) -> tuple[float | None, str | None]:
    if not money:
        return None, "no platform reported money"
    if len(money) > 1:
        codes = ", ".join(amount.currency or "unknown" for amount in money)
        return None, f"money is in several currencies without a rate between them: {codes}"
    spend, revenue = money[0].spend_micros, money[0].revenue_micros
    if spend is None or revenue is None:
        return None, "spend is not reported" if spend is None else "revenue is not reported"
    return (revenue / spend, None) if spend else (None, "no spend")


def _weighted(values: Iterable[tuple[float | None, NormalizedMetrics]]) -> float | None:
    """The mean of the known values, weighted by their platforms' confidence; ``None`` where that adds up to nothing."""
    weight = total = 0.0
    for value, scored in values:
        if value is not None:
            weight += scored.confidence
            total += scored.confidence * value
    return total / weight if weight else None
