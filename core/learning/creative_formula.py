"""The creative formula of an account: what its winning campaigns have in common, with support and intervals.

One campaign seen on several platforms is one campaign. What is recommended has support and an interval that leaves
out chance; with too few winners the formula says so and recommends nothing but more data.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from core.learning.campaign_data import CampaignData, CampaignLike, campaigns_of
from core.learning.patterns import judge, mean_of, platform_stats, rank_combos, won
from core.normalizer import PlatformNormalizer
from core.ratios import PlatformMetrics
from schemas.patterns import PlatformCombo, PlatformStats
from schemas.platform import Platform

MIN_SAMPLES: Final = 5


class AttributePattern(msgspec.Struct, frozen=True, kw_only=True):
    """What an attribute's label does to a ratio: a relative effect (0.1: 10 % more), shrunk, with its 90 % interval.

    ``campaigns`` and ``creatives`` are the support behind it. ``sure`` says that the interval leaves out zero.
    """

    attribute: str
    label: str
    effect: float
    low: float
    high: float
    campaigns: int
    creatives: int

    @property
    def sure(self) -> bool:
        """Whether the direction is known."""
        return self.low > 0 or self.high < 0


class PerformanceBenchmarks(msgspec.Struct, frozen=True, kw_only=True):
    """Means over the winners; normalized values from 0 to 1."""

    avg_normalized_ctr: float | None
    avg_normalized_engagement: float | None
    platform_consistency: float | None


class CreativeFormula(msgspec.Struct, frozen=True, kw_only=True):
    """``formula_type``: ``cross_platform``, ``single_platform`` where no winner ran on two, or ``insufficient_data``
    with fewer than ``min_samples`` winners. ``sample_size``: the winners. ``patterns``: attributes whose effect on CTR
    is sure, over all accounts.
    """

    account_id: str
    formula_type: str
    platforms: list[Platform]
    sample_size: int
    performance_benchmarks: PerformanceBenchmarks
    platform_stats: dict[Platform, PlatformStats]
    best_platform_combo: PlatformCombo | None
    patterns: list[AttributePattern]
    recommendations: list[str]
    min_roas: float
    min_samples: int


def build(
    account_id: str,
    platform_campaigns: Mapping[Any, Any] | Iterable[CampaignLike],
    normalizer: PlatformNormalizer,
    patterns: Sequence[AttributePattern],
    min_roas: float,
    min_samples: int,
) -> CreativeFormula:
    """The formula of an account's campaigns; those of another account are left out.

    ``platform_campaigns``: campaigns, or by platform the pairs of campaign id and its metrics there. Raises
    ``ValueError`` for a campaign that comes twice on one platform.
    """
    campaigns = [each for each in campaigns_by_id(platform_campaigns) if each.account_id in ("", account_id)]
    judged = judge(campaigns, normalizer)
    winners = [each for each in judged if won(each, min_roas)]
    enough = len(winners) >= min_samples
    combos = [combo for combo in rank_combos(judged, min_samples) if combo.count >= min_samples]
    several = any(len(each.platforms) > 1 for each in winners)
    sure = [pattern for pattern in patterns if pattern.sure]
    return CreativeFormula(
        account_id=account_id,
        formula_type=("cross_platform" if several else "single_platform") if enough else "insufficient_data",
        platforms=sorted({platform for each in winners for platform in each.platforms}),
        sample_size=len(winners),
        performance_benchmarks=PerformanceBenchmarks(
            avg_normalized_ctr=mean_of(each.insight.normalized_ctr for each in winners),
            avg_normalized_engagement=mean_of(each.insight.normalized_engagement for each in winners),
            platform_consistency=mean_of(each.insight.consistency_score for each in winners),
        ),
        platform_stats=platform_stats(judged, min_roas, min_samples),
        best_platform_combo=combos[0] if combos else None,
        patterns=sure,
        recommendations=_recommended(sure, combos, len(winners), min_samples),
        min_roas=min_roas,
        min_samples=min_samples,
    )


def campaigns_by_id(given: Mapping[Any, Any] | Iterable[CampaignLike]) -> list[CampaignData]:
    """Campaigns, each once, from campaigns or from platforms' lists of (campaign id, metrics)."""
    if not isinstance(given, Mapping):
        return campaigns_of(given)
    found: dict[str, dict[Platform, PlatformMetrics]] = {}
    for name, rows in given.items():
        platform = Platform(name)
        for campaign_id, metrics in rows:
            own = found.setdefault(campaign_id, {})
            if platform in own:
                raise ValueError(f"campaign {campaign_id!r} comes twice on {platform}")
            if not isinstance(metrics, PlatformMetrics):
                metrics = PlatformMetrics(**{"platform": platform, **metrics})
            own[platform] = metrics
    return campaigns_of(found.items())


def _recommended(
    sure: Sequence[AttributePattern], combos: Sequence[PlatformCombo], winners: int, min_samples: int
) -> list[str]:
    if winners < min_samples:
        return [f"not enough evidence: {winners} winning campaigns of the {min_samples} that a formula takes"]
    told = [
        f"{'use' if pattern.effect > 0 else 'avoid'} {pattern.attribute} {pattern.label}: CTR {pattern.effect:+.0%} "
        f"({pattern.low:+.0%} to {pattern.high:+.0%}, {pattern.campaigns} campaigns)"
        for pattern in sure
    ]
    if combos:
        best = combos[0]
        told.append(
            f"run on {' and '.join(best.combo)}: ROAS {best.avg_roas:.2f} ({best.low:.2f} to {best.high:.2f}, "
            f"{best.count} campaigns)"
        )
    return told
