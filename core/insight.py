"""Insights: one campaign and window, from the rollups that lie in it.

Averages of normalized values are weighted by the platforms' confidence; totals are sums of integers; ``roas`` is
pooled revenue over spend and exists only where all money is in one known currency: what ``reporting`` converts
stands beside it. Formulas: ``consistency_score`` and the composite as in ``core.normalizer``.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

from core.maturity import share
from core.normalizer import NormalizedMetrics, confidence, normalize_counts
from core.pooling import add, joined, roas_of, totals_of
from core.profile import Profile
from core.rates import Conversion, Rates
from core.rates import add as add_reporting
from core.ratios import UNKNOWN_SPEND
from core.window import Window, bounds
from schemas.calendar import end_of_day
from schemas.event import DAY_MS, HOUR_MS
from schemas.insight import (
    CrossPlatformInsight,
    MoneyTotals,
    Phase,
    PlatformBreakdown,
    ReportingTotals,
    Version,
)
from schemas.metrics import (
    MICROS,
    REVENUE,
    SPEND,
    WIDTH,
)
from schemas.platform import Platform
from schemas.rollup import Money, Rollup, Totals

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


def add_totals(parts: Iterable[Totals]) -> Totals:
    """Counts, None where no part carries the metric, and money by currency, in the order of their codes."""
    told = list(parts)
    if len(told) == 1 and len(told[0].money) < 2:
        return told[0]
    values: list[int | None] = [None] * WIDTH
    money: dict[str, tuple[int | None, int | None]] = {}
    for part in told:
        for metric, value in enumerate(part.values):
            if value is not None:
                values[metric] = (values[metric] or 0) + value
        for amount in part.money:
            spend, revenue = money.get(amount.currency, (None, None))
            money[amount.currency] = (add(spend, amount.spend_micros), add(revenue, amount.revenue_micros))
    return Totals(tuple(values), tuple(Money(code, spend, revenue) for code, (spend, revenue) in sorted(money.items())))


def money_of(totals: Totals) -> list[MoneyTotals]:
    """Money as an insight tells it."""
    return [MoneyTotals(amount.currency, amount.spend_micros, amount.revenue_micros) for amount in totals.money]


def _reporting(parts: Iterable[Part], rates: Rates) -> ReportingTotals | None:
    if not rates.table.currency:
        return None
    conversion = Conversion(rates)
    for rollup, totals in parts:
        conversion.add(rollup.day, totals.money)
    return conversion.totals()


def _ratio(numerator: int | None, denominator: int | None, scale: float = 1.0) -> float | None:
    return None if numerator is None or not denominator else numerator / denominator * scale


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
) -> tuple[PlatformBreakdown, NormalizedMetrics, Totals]:
    own = add_totals(part.totals for part in parts)
    values, money = list(own.values), money_of(own)
    totals = totals_of(values, money, _reporting(parts, rates))
    values[SPEND], values[REVENUE] = totals.spend_micros, totals.revenue_micros
    scored = normalize_counts(platform, values, totals.currency or "", profile)
    rollups = [part.rollup for part in parts]
    zones = sorted({rollup.zone for rollup in rollups if rollup.zone})
    roas, roas_reason = roas_of(money)
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
        accounts=sorted({rollup.account_id for rollup in rollups if rollup.account_id}),
    )
    return breakdown, scored, own


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
    platforms: list[Totals] = []
    for name, own in by_platform.items():
        breakdowns[name], scored[name], of_platform = _breakdown(Platform(name), window, index, own, profile, rates)
        platforms.append(of_platform)
    whole = add_totals(platforms)
    money = money_of(whole)
    reported = [breakdown.totals.reporting for breakdown in breakdowns.values()]
    reporting = add_reporting(filter(None, reported), rates.table.currency) if rates.table.currency else None
    totals = totals_of(whole.values, money, reporting)
    roas, roas_reason = roas_of(money)
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
        confidence=confidence(totals.impressions or 0),
        coverage={name: breakdown.coverage for name, breakdown in breakdowns.items()},
        platform_breakdown=breakdowns,
        benchmarks=profile.version,
        maturity={name: breakdown.maturity for name, breakdown in breakdowns.items()},
        **joined(scored),
    )
