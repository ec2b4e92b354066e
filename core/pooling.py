"""What several platforms give together: sums of counts and money, pooled ratios, and scores weighted by confidence.

The stream's insights and the library's are built of the same pieces.
"""

from collections.abc import Mapping, Sequence
from typing import TypedDict

from core.normalizer import NormalizedMetrics, consistency_score
from schemas.insight import InsightTotals, MoneyTotals, ReportingTotals
from schemas.metrics import CLICKS, CONVERSIONS, ENGAGEMENTS, IMPRESSIONS, LINK_CLICKS, VIDEO_VIEWS

Count = int | None


class JoinedScores(TypedDict):
    """A campaign's scores over its platforms; averages are weighted by the platforms' confidence."""

    normalized_ctr: float | None
    normalized_cpc: float | None
    normalized_cpm: float | None
    normalized_engagement: float | None
    normalized_quality: float | None
    composite_score: float | None
    consistency_score: float | None
    best_platform: str | None


def add(left: Count, right: Count) -> Count:
    """The sum of what is known; ``None`` where nothing is."""
    return right if left is None else left if right is None else left + right


def totals_of(
    values: Sequence[Count], money: list[MoneyTotals], reporting: ReportingTotals | None = None
) -> InsightTotals:
    """Totals from counts in the order of ``METRICS`` and money by currency."""
    single = money[0] if len(money) == 1 else None
    return InsightTotals(
        impressions=values[IMPRESSIONS],
        clicks=values[CLICKS],
        link_clicks=values[LINK_CLICKS],
        conversions_micros=values[CONVERSIONS],
        engagements=values[ENGAGEMENTS],
        video_views=values[VIDEO_VIEWS],
        currency=single.currency if single else None,
        spend_micros=single.spend_micros if single else None,
        revenue_micros=single.revenue_micros if single else None,
        money=money,
        reporting=reporting,
    )


def roas_of(money: Sequence[MoneyTotals]) -> tuple[float | None, str | None]:
    """Pooled revenue over spend, or why there is none."""
    if not money:
        return None, "no platform reported money"
    if len(money) > 1:
        codes = ", ".join(amount.currency or "unknown" for amount in money)
        return None, f"money is in several currencies without a rate between them: {codes}"
    spend, revenue = money[0].spend_micros, money[0].revenue_micros
    if spend is None or revenue is None:
        return None, "spend is not reported" if spend is None else "revenue is not reported"
    return (revenue / spend, None) if spend else (None, "no spend")


def joined(scored: Mapping[str, NormalizedMetrics]) -> JoinedScores:
    """The scores of a campaign from those of its platforms, in an order of their own: floats are added."""
    composites = {platform: metrics.composite_score for platform, metrics in scored.items()}
    ranked = sorted((-score, platform) for platform, score in composites.items() if score is not None)
    return JoinedScores(
        normalized_ctr=_weighted("normalized_ctr", scored),
        normalized_cpc=_weighted("normalized_cpc", scored),
        normalized_cpm=_weighted("normalized_cpm", scored),
        normalized_engagement=_weighted("normalized_engagement", scored),
        normalized_quality=_weighted("normalized_quality", scored),
        composite_score=_weighted("composite_score", scored),
        consistency_score=consistency_score(composites.values()),
        best_platform=ranked[0][1] if ranked else None,
    )


def _weighted(name: str, scored: Mapping[str, NormalizedMetrics]) -> float | None:
    """The mean of a normalized value over the platforms that have it, weighted by their confidence."""
    weight = total = 0.0
    for platform in sorted(scored):
        value = getattr(scored[platform], name)
        if value is not None:
            weight += scored[platform].confidence
            total += scored[platform].confidence * value
    return total / weight if weight else None
