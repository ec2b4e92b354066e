"""Insights: one campaign and window, from the rollups that lie in it.

Averages of normalized values are weighted by the platforms' confidence; totals are sums of integers; ``roas`` is
pooled revenue over spend and exists only where all money is in one known currency: what ``reporting`` converts
stands beside it. Formulas: ``consistency_score`` and the composite as in ``core.normalizer``.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

from core.maturity import share
from core.normalizer import NormalizedMetrics, confidence, consistency_score, normalize_counts
from core.profile import Profile
from core.rates import Conversion, Rates
from core.rates import add as add_reporting
from core.ratios import UNKNOWN_SPEND
from core.window import Window, bounds
from schemas.calendar import end_of_day
from schemas.event import DAY_MS, HOUR_MS
from schemas.insight import (
    CrossPlatformInsight,
    InsightTotals,
    MoneyTotals,
    Phase,
    PlatformBreakdown,
    ReportingTotals,
    Version,
)
from schemas.metrics import (
    CLICKS,
    CONVERSIONS,
    ENGAGEMENTS,
    IMPRESSIONS,
    LINK_CLICKS,
    MICROS,
    REVENUE,
    SPEND,
    VIDEO_VIEWS,
    WIDTH,
)
from schemas.platform import Platform
from schemas.rollup import Rollup, Totals

NO_RATES: Final = Rates()


class Part(NamedTuple):
    """What one rollup contributes to a window."""

    rollup: Rollup
    totals: Totals


def insight_id(campaign_id: str, window: str, index: int) -> str:
    """The stable id of a campaign's window: newer versions supersede under it."""
    return blake2b(
        f"{campaign_id}\0{window}\0{index}\0cross-platform".encode("utf-8", "surrogatepass"), digest_size=16
    ).hexdigest()


def add_totals(parts: Iterable[Totals]) -> tuple[list[int | None], list[MoneyTotals]]:
    """Counts in the order of ``METRICS`` and money by currency, None where no part carries the metric."""
    values: list[int | None] = [None] * WIDTH
    money: dict[str, tuple[int | None, int | None]] = {}
    for part in parts:
        for metric, value in enumerate(part.values):
            if value is not None:
                values[metric] = (values[metric] or 0) + value
        for amount in part.money:
            spend, revenue = money.get(amount.currency, (None, None))
            money[amount.currency] = (_sum(spend, amount.spend_micros), _sum(revenue, amount.revenue_micros))
    return values, [MoneyTotals(code, spend, revenue) for code, (spend, revenue) in sorted(money.items())]


def _sum(left: int | None, right: int | None) -> int | None:
    return right if left is None else left if right is None else left + right


def _totals(values: Sequence[int | None], money: list[MoneyTotals], reporting: ReportingTotals | None) -> InsightTotals:
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


def _reporting(parts: Iterable[Part], rates: Rates) -> ReportingTotals | None:
    if not rates.table.currency:
        return None
    conversion = Conversion(rates)
    for rollup, totals in parts:
        conversion.add(rollup.day, totals.money)
    return conversion.totals()


def _ratio(numerator: int | None, denominator: int | None, scale: float = 1.0) -> float | None:
    return None if numerator is None or not denominator else numerator / denominator * scale


def _roas(money: list[MoneyTotals]) -> tuple[float | None, str | None]:
    if not money:
        return None, "no platform reported money"
    if len(money) > 1:
        codes = ", ".join(amount.currency or "unknown" for amount in money)
        return None, f"money is in several currencies without a rate between them: {codes}"
    if money[0].spend_micros is None or money[0].revenue_micros is None:
        return None, "spend is not reported" if money[0].spend_micros is None else "revenue is not reported"
    if not money[0].spend_micros:
        return None, "no spend"
    return money[0].revenue_micros / money[0].spend_micros, None


def _coverage(window: Window, index: int, parts: Sequence[Part]) -> float:
    """Share of the window that a platform has reported: of each day, or of what lies in the hour, what its least
    advanced platform campaign has.
    """
    least: dict[int, float] = {}
    for rollup, _ in parts:
        start_ms, end_ms = rollup.start_ms, end_of_day(rollup.day, rollup.zone)
        if not window.days:
            # A day of a zone of half or quarter hours begins and ends within an hour of UTC.
            start_ms, end_ms = max(start_ms, index * HOUR_MS), min(end_ms, (index + 1) * HOUR_MS)
        # Rows of an assumed zone beside those of the known one may lie outside of its day: they say all there is.
        reported = (rollup.covered_ms - start_ms) / (end_ms - start_ms) if start_ms < end_ms else 1.0
        reported = min(1.0, max(0.0, reported))
        least[rollup.day] = min(reported, least.get(rollup.day, 1.0))
    if not window.days:
        return min(least.values())
    return sum(least[day] for day in sorted(least)) / window.days


def _maturity(platform: Platform, window: Window, index: int, parts: Sequence[Part], profile: Profile) -> float | None:
    """How mature a platform's conversions are as of its newest report. A long window is as young as its last day."""
    benchmarks = profile.platforms.get(platform)
    if benchmarks is None or benchmarks.maturity is None:
        return None
    zones = {rollup.zone for rollup, _ in parts}
    end_ms = max(end_of_day(index, zone) for zone in zones) if window.days else (index + 1) * HOUR_MS
    as_of_ms = max(rollup.as_of_ms for rollup, _ in parts)
    return share(benchmarks.maturity, (as_of_ms - end_ms) / DAY_MS)


def _breakdown(
    platform: Platform, window: Window, index: int, parts: Sequence[Part], profile: Profile, rates: Rates
) -> tuple[PlatformBreakdown, NormalizedMetrics]:
    values, money = add_totals(part.totals for part in parts)
    totals = _totals(values, money, _reporting(parts, rates))
    values[SPEND], values[REVENUE] = totals.spend_micros, totals.revenue_micros
    scored = normalize_counts(platform, values, totals.currency or "", profile)
    rollups = [part.rollup for part in parts]
    zones = sorted({rollup.zone for rollup in rollups if rollup.zone})
    roas, roas_reason = _roas(money)
    absent = scored.absent
    if roas_reason and len(money) > 1:
        absent = {name: roas_reason if reason == UNKNOWN_SPEND else reason for name, reason in absent.items()}
    breakdown = PlatformBreakdown(
        totals=totals,
        ctr=_ratio(totals.clicks, totals.impressions),
        cpc=_ratio(totals.spend_micros, totals.clicks, 1 / MICROS),
        cpm=_ratio(totals.spend_micros, totals.impressions, 1000 / MICROS),
        engagement_rate=_ratio(totals.engagements, totals.impressions),
        roas=roas,
        normalized_ctr=scored.normalized_ctr,
        normalized_cpc=scored.normalized_cpc,
        normalized_cpm=scored.normalized_cpm,
        normalized_engagement=scored.normalized_engagement,
        normalized_quality=scored.normalized_quality,
        composite_score=scored.composite_score,
        confidence=scored.confidence,
        components=list(scored.components),
        absent=absent,
        coverage=_coverage(window, index, parts),
        zones=zones,
        zone_assumed=any(not rollup.zone for rollup in rollups),
        basis=sorted({rollup.basis for rollup in rollups}),
        platform_campaigns=sorted({rollup.platform_campaign_id for rollup in rollups}),
        maturity=_maturity(platform, window, index, parts, profile),
    )
    return breakdown, scored


def _weighted(name: str, scored: Mapping[str, NormalizedMetrics]) -> float | None:
    """The mean of a normalized value over the platforms that have it, weighted by their confidence."""
    weight = total = 0.0
    for platform in sorted(scored):
        value = getattr(scored[platform], name)
        if value is not None:
            weight += scored[platform].confidence
            total += scored[platform].confidence * value
    return total / weight if weight else None


def build(
    campaign_id: str,
    window: Window,
    index: int,
    parts: Sequence[Part],
    profile: Profile,
    as_of: str,
    version: Version,
    rates: Rates = NO_RATES,
) -> CrossPlatformInsight:
    """The insight of a window's parts, as preliminary; the caller settles phase and correction."""
    by_platform: dict[str, list[Part]] = defaultdict(list)
    for part in sorted(
        parts, key=lambda part: (part.rollup.platform, part.rollup.platform_campaign_id, part.rollup.day)
    ):
        by_platform[str(part.rollup.platform)].append(part)
    breakdowns: dict[str, PlatformBreakdown] = {}
    scored: dict[str, NormalizedMetrics] = {}
    for name, own in by_platform.items():
        breakdowns[name], scored[name] = _breakdown(Platform(name), window, index, own, profile, rates)
    values, money = add_totals(part.totals for part in parts)
    reported = [breakdown.totals.reporting for breakdown in breakdowns.values()]
    reporting = add_reporting(filter(None, reported), rates.table.currency) if rates.table.currency else None
    totals = _totals(values, money, reporting)
    roas, roas_reason = _roas(money)
    composites = {name: metrics.composite_score for name, metrics in scored.items()}
    ranked = sorted((-score, name) for name, score in composites.items() if score is not None)
    start, end = bounds(window, index)
    return CrossPlatformInsight(
        insight_id=insight_id(campaign_id, window.name, index),
        campaign_id=campaign_id,
        window=window.name,
        window_start=start,
        window_end=end,
        version=version,
        phase=Phase(version.phase).name.lower(),
        as_of=as_of,
        correction=None,
        totals=totals,
        ctr=_ratio(totals.clicks, totals.impressions),
        roas=roas,
        roas_reason=roas_reason,
        normalized_ctr=_weighted("normalized_ctr", scored),
        normalized_cpc=_weighted("normalized_cpc", scored),
        normalized_cpm=_weighted("normalized_cpm", scored),
        normalized_engagement=_weighted("normalized_engagement", scored),
        normalized_quality=_weighted("normalized_quality", scored),
        composite_score=_weighted("composite_score", scored),
        confidence=confidence(totals.impressions or 0),
        consistency_score=consistency_score(composites.values()),
        best_platform=ranked[0][1] if ranked else None,
        coverage={name: breakdown.coverage for name, breakdown in breakdowns.items()},
        platform_breakdown=breakdowns,
        benchmarks=profile.version,
        maturity={name: breakdown.maturity for name, breakdown in breakdowns.items()},
    )
