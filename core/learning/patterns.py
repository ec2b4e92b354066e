"""What winning campaigns have in common across platforms, with support, shrinkage and intervals.

A campaign wins with a pooled ROAS of ``min_roas`` or more. One seen on several platforms is one campaign. ROAS counts
where all of a campaign's money is in the benchmarks' currency. Averages of normalized values are over campaigns.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from math import fsum
from typing import Final, NamedTuple

import msgspec
import numpy as np

from core.intervals import interval
from core.learning.aggregation import aggregate
from core.learning.campaign_data import CampaignData, CampaignLike, campaigns_of
from core.learning.pooled_ratio import pooled_ratios
from core.normalizer import PlatformNormalizer
from schemas.insight import CrossPlatformInsight
from schemas.patterns import CrossPlatformPatterns, PlatformCombo, PlatformStats, PooledRatio
from schemas.platform import Platform

MIN_SUPPORT: Final = 5


class Judged(NamedTuple):
    """A campaign, its insight, and the platforms that it has results on."""

    campaign: CampaignData
    insight: CrossPlatformInsight
    platforms: tuple[Platform, ...]

    @property
    def money(self) -> tuple[float, float] | None:
        """Revenue and spend, in micros, where there is a ROAS."""
        totals = self.insight.totals
        if self.insight.roas is None or totals.revenue_micros is None or not totals.spend_micros:
            return None
        return float(totals.revenue_micros), float(totals.spend_micros)


def extract(
    campaigns: Iterable[CampaignLike],
    normalizer: PlatformNormalizer,
    min_roas: float = 2.0,
    min_support: int = MIN_SUPPORT,
) -> CrossPlatformPatterns:
    """The patterns of campaigns, whatever their order. Raises ``ValueError`` for a campaign that comes twice."""
    if min_support < 1:
        raise ValueError(f"min_support is a number of campaigns, 1 or more, not {min_support}")
    judged = judge(campaigns, normalizer)
    with_roas = [each for each in judged if each.money is not None]
    winners = [each for each in with_roas if won(each, min_roas)]
    rate, low, high = win_rate(len(winners), len(with_roas))
    combos = rank_combos(with_roas, min_support)
    best = [combo for combo in combos if combo.count >= min_support]
    return CrossPlatformPatterns(
        total_winners=len(winners),
        total_campaigns=len(judged),
        judged_campaigns=len(with_roas),
        win_rate=rate,
        win_rate_low=low,
        win_rate_high=high,
        avg_winner_ctr=mean_of(each.insight.normalized_ctr for each in winners),
        avg_winner_engagement=mean_of(each.insight.normalized_engagement for each in winners),
        avg_winner_composite=mean_of(each.insight.composite_score for each in winners),
        avg_consistency=mean_of(each.insight.consistency_score for each in winners),
        platform_stats=platform_stats(judged, min_roas, min_support),
        multi_platform_winners=sum(len(each.platforms) > 1 for each in winners),
        best_platform_combo=best[0] if best else None,
        combos=combos,
        min_roas=min_roas,
        min_support=min_support,
    )


def judge(campaigns: Iterable[CampaignLike], normalizer: PlatformNormalizer) -> list[Judged]:
    """The campaigns with their insights, by id. Foreign money is left out, and so is the ROAS made of it."""
    found = []
    for campaign in sorted(campaigns_of(campaigns), key=lambda campaign: campaign.campaign_id):
        insight = aggregate(campaign.campaign_id, campaign.platforms, normalizer)
        if insight.totals.currency != normalizer.profile.currency:
            insight = msgspec.structs.replace(insight, roas=None)
        platforms = tuple(Platform(name) for name, own in insight.platform_breakdown.items() if own.components)
        found.append(Judged(campaign, insight, platforms))
    return found


def won(each: Judged, min_roas: float) -> bool:
    """Whether a campaign's pooled ROAS is enough."""
    return each.insight.roas is not None and each.insight.roas >= min_roas


def win_rate(winners: int, campaigns: int) -> tuple[float | None, float | None, float | None]:
    """The share of winners and its 90 % interval, after Jeffreys (a beta with half a win and half a loss before).

    >>> win_rate(0, 0)
    (None, None, None)
    """
    if not campaigns:
        return None, None, None
    posterior = (winners + 0.5) / (campaigns + 1)
    variance = posterior * (1 - posterior) / (campaigns + 2)
    low, high = interval(np.array([posterior]), np.array([variance]), np.zeros(1), np.zeros(1))
    share = winners / campaigns
    return share, min(share, float(low[0])), max(share, float(high[0]))


def rank_combos(judged: Sequence[Judged], min_support: int) -> list[PlatformCombo]:
    """The combinations of platforms by the lower bound of their ROAS, the highest first."""
    rows = [(each.platforms, each.money) for each in judged if each.platforms and each.money is not None]
    if not rows:
        return []
    names = ["+".join(platforms) for platforms, _ in rows]
    money = np.array([amounts for _, amounts in rows])
    ratios = pooled_ratios(money[:, 0], money[:, 1], names, min_support=min_support)
    combos = [
        PlatformCombo(
            combo=tuple(Platform(platform) for platform in name.split("+")),
            avg_roas=ratio.value,
            count=ratio.campaigns,
            low=ratio.low,
            high=ratio.high,
            observed_roas=ratio.observed,
        )
        for name, ratio in ratios.items()
    ]
    return sorted(combos, key=lambda combo: (-combo.low, -combo.avg_roas, combo.combo))


def platform_stats(judged: Sequence[Judged], min_roas: float, min_support: int) -> dict[Platform, PlatformStats]:
    """Each platform's statistics, by platform, in the order of their names."""
    roas = _platform_roas(judged, min_support)
    winners = Counter(platform for each in judged if won(each, min_roas) for platform in each.platforms)
    with_roas = Counter(platform for each in judged if each.money is not None for platform in each.platforms)
    found = {}
    for platform in sorted({platform for each in judged for platform in each.platforms}):
        own = [each.insight.platform_breakdown[platform] for each in judged if platform in each.platforms]
        rate, low, high = win_rate(winners[platform], with_roas[platform])
        found[platform] = PlatformStats(
            campaigns=len(own),
            winners=winners[platform],
            win_rate=rate,
            win_rate_low=low,
            win_rate_high=high,
            avg_normalized_ctr=mean_of(part.normalized_ctr for part in own),
            avg_normalized_engagement=mean_of(part.normalized_engagement for part in own),
            avg_composite=mean_of(part.composite_score for part in own),
            roas=roas.get(platform),
        )
    return found


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean of the known values."""
    known = [value for value in values if value is not None]
    return fsum(known) / len(known) if known else None


def _platform_roas(judged: Sequence[Judged], min_support: int) -> dict[str, PooledRatio]:
    names, revenue, spend = [], [], []
    for each in judged:
        for platform in each.platforms if each.money is not None else ():
            totals = each.insight.platform_breakdown[platform].totals
            if totals.revenue_micros is not None and totals.spend_micros:
                names.append(str(platform))
                revenue.append(float(totals.revenue_micros))
                spend.append(float(totals.spend_micros))
    return pooled_ratios(revenue, spend, names, min_support=min_support)
