"""Which platform for a new campaign: expected CTR, CPC and ROAS with intervals, and the evidence behind each.

A platform's ratios are pooled over its campaigns and narrowed step by step, each shrunk to the wider (see
``core.learning.pooled_ratio``): all campaigns, those of the vertical, of these with the objective, of these the
account's. Platforms are ranked by the bound that their measure is sure to reach; with too little behind it, a platform
is not ranked.
"""

from collections.abc import Iterable, Mapping
from statistics import NormalDist
from typing import Final

import msgspec

from core.learning.campaign_data import CampaignData, CampaignLike, campaigns_of
from core.learning.pooled_ratio import pooled_ratios
from core.ratios import PlatformMetrics
from schemas.patterns import PooledRatio
from schemas.platform import Platform

MIN_CAMPAIGNS: Final = 5
MIN_IMPRESSIONS: Final = 10_000
SURE: Final = 0.9
NINETY: Final = 1.6449
BEYOND: Final = 2.0
SCOPES: Final = ("vertical", "objective", "account_id")

BY_CTR: Final = frozenset({"awareness", "reach", "engagement", "video_views"})
BY_CPC: Final = frozenset({"traffic", "clicks", "landing_page_views"})
BY_ROAS: Final = frozenset({"sales", "conversions", "purchases", "leads", "app_installs"})
OBJECTIVES: Final = BY_CTR | BY_CPC | BY_ROAS
"""The objectives whose measure is known. Campaigns may be labelled with others."""


class PlatformOption(msgspec.Struct, frozen=True, kw_only=True):
    """A platform with what it is expected to give; a ratio is ``None`` where no campaign reported it.

    ``ctr`` is a fraction, ``cpc`` in the currency. ``evidence``: campaigns by scope, from all to the narrowest.
    ``expected_clicks`` and ``expected_revenue``: (low, expected, high) for the budget. ``beyond_experience``: the
    budget is more than twice what any campaign spent there.
    """

    platform: Platform
    ctr: PooledRatio | None
    cpc: PooledRatio | None
    roas: PooledRatio | None
    evidence: dict[str, int]
    impressions: int
    expected_clicks: tuple[float, float, float] | None
    expected_revenue: tuple[float, float, float] | None
    beyond_experience: bool


class PlatformRecommendation(msgspec.Struct, frozen=True, kw_only=True):
    """``ranked``: the best first, by ``ranked_by``. ``best`` is ``None`` where nothing has evidence enough.

    ``probability_best``: that the first beats the second, from their intervals; ``None`` with fewer than two.
    ``answer`` says it in a sentence.
    """

    best: Platform | None
    ranked: list[PlatformOption]
    not_enough_evidence: dict[Platform, str]
    ranked_by: str
    probability_best: float | None
    answer: str


def recommend_platforms(
    history: Iterable[CampaignLike],
    *,
    objective: str = "",
    vertical: str = "",
    account_id: str = "",
    budget: float | None = None,
    currency: str = "USD",
    min_campaigns: int = MIN_CAMPAIGNS,
) -> PlatformRecommendation:
    """The platforms for a new campaign, from campaigns that have run; money in other currencies is left out.

    ``objective`` decides the measure: ``ctr`` for ``BY_CTR``, ``cpc`` for ``BY_CPC``, else ``roas`` (for the user's
    own labels too), or ``cpc`` where no revenue was ever reported. Raises ``ValueError`` for a budget that is not above
    0.
    """
    if budget is not None and not budget > 0:
        raise ValueError(f"a budget is above 0, not {budget}")
    wanted = {"vertical": vertical, "objective": objective, "account_id": account_id}
    campaigns = campaigns_of(history)
    options: list[PlatformOption] = []
    lacking: dict[Platform, str] = {}
    for platform in sorted({platform for campaign in campaigns for platform in campaign.platforms}):
        if platform == Platform.UNKNOWN:
            continue
        own = [campaign for campaign in campaigns if platform in campaign.platforms]
        option = _option(platform, own, wanted, budget, currency)
        ran = option.evidence["all"]
        if ran < min_campaigns or option.impressions < MIN_IMPRESSIONS:
            lacking[platform] = (
                f"{ran} campaigns with {option.impressions} impressions; it takes {min_campaigns} and {MIN_IMPRESSIONS}"
            )
        else:
            options.append(option)
    measure = _measure(objective, options)
    ranked = sorted(
        (option for option in options if getattr(option, measure) is not None),
        key=lambda option: _bound(option, measure),
    )
    for option in options:
        if getattr(option, measure) is None:
            lacking[option.platform] = f"no campaign reported {measure}"
    sure = _probability(ranked, measure)
    return PlatformRecommendation(
        best=ranked[0].platform if ranked else None,
        ranked=ranked,
        not_enough_evidence=dict(sorted(lacking.items())),
        ranked_by=measure,
        probability_best=sure,
        answer=_answer(ranked, measure, sure),
    )


def _option(
    platform: Platform, own: list[CampaignData], wanted: Mapping[str, str], budget: float | None, currency: str
) -> PlatformOption:
    delivered = [campaign for campaign in own if campaign.platforms[platform].impressions]
    evidence = {"all": len(delivered)}
    narrowed = delivered
    for scope in SCOPES:
        if wanted[scope]:
            narrowed = [campaign for campaign in narrowed if getattr(campaign, scope) == wanted[scope]]
            evidence[scope] = len(narrowed)
    ctr, cpc, roas = (_ratio(platform, delivered, wanted, measure, currency) for measure in ("ctr", "cpc", "roas"))
    spends = [campaign.platforms[platform].spend or 0.0 for campaign in delivered]
    return PlatformOption(
        platform=platform,
        ctr=ctr,
        cpc=cpc,
        roas=roas,
        evidence=evidence,
        impressions=sum(campaign.platforms[platform].impressions or 0 for campaign in delivered),
        expected_clicks=None
        if budget is None or cpc is None or not cpc.low
        else (budget / cpc.high, budget / cpc.value, budget / cpc.low),
        expected_revenue=None
        if budget is None or roas is None
        else (budget * roas.low, budget * roas.value, budget * roas.high),
        beyond_experience=budget is not None and budget > BEYOND * max(spends, default=0.0),
    )


def _ratio(
    platform: Platform, own: list[CampaignData], wanted: Mapping[str, str], measure: str, currency: str
) -> PooledRatio | None:
    """The ratio, narrowed while there are campaigns of the wanted label; each scope sees those of the one before."""
    rows = [
        (campaign, *pair)
        for campaign in own
        if (pair := _pair(campaign.platforms[platform], measure, currency)) is not None
    ]
    if not rows:
        return None
    found = pooled_ratios([row[1] for row in rows], [row[2] for row in rows], [""] * len(rows))[""]
    for scope in SCOPES:
        label = wanted[scope]
        groups = [getattr(row[0], scope) for row in rows]
        if not label or label not in groups:
            continue
        found = pooled_ratios([row[1] for row in rows], [row[2] for row in rows], groups, towards=found)[label]
        rows = [row for row, group in zip(rows, groups, strict=True) if group == label]
    return found


def _pair(metrics: PlatformMetrics, measure: str, currency: str) -> tuple[float, float] | None:
    tops = {"ctr": metrics.clicks, "cpc": metrics.spend, "roas": metrics.revenue}
    bottoms = {"ctr": metrics.impressions, "cpc": metrics.clicks, "roas": metrics.spend}
    top, bottom = tops[measure], bottoms[measure]
    if top is None or not bottom or (measure != "ctr" and metrics.currency != currency):
        return None
    return float(top), float(bottom)


def _measure(objective: str, options: list[PlatformOption]) -> str:
    if objective in BY_CTR:
        return "ctr"
    if objective in BY_CPC or not any(option.roas for option in options):
        return "cpc"
    return "roas"


def _bound(option: PlatformOption, measure: str) -> tuple[float, str]:
    """What the platform is sure to reach, the best first."""
    ratio: PooledRatio = getattr(option, measure)
    return (ratio.high if measure == "cpc" else -ratio.low), option.platform


def _probability(ranked: list[PlatformOption], measure: str) -> float | None:
    if len(ranked) < 2:
        return None
    first, second = (getattr(option, measure) for option in ranked[:2])
    spread = sum(((ratio.high - ratio.low) / 2 / NINETY) ** 2 for ratio in (first, second)) ** 0.5
    ahead = second.value - first.value if measure == "cpc" else first.value - second.value
    return NormalDist().cdf(ahead / max(spread, 1e-12))


def _answer(ranked: list[PlatformOption], measure: str, sure: float | None) -> str:
    if not ranked:
        return "not enough evidence: no platform has run enough campaigns"
    ratio: PooledRatio = getattr(ranked[0], measure)
    told = f"{ranked[0].platform}: {measure} {ratio.value:.4g} ({ratio.low:.4g} to {ratio.high:.4g})"
    if sure is None:
        return f"{told}; not enough evidence on any other platform"
    if sure < SURE:
        return f"{told}; not enough evidence that it beats {ranked[1].platform} (probability {sure:.2f})"
    return f"{told}; it beats {ranked[1].platform} with probability {sure:.2f}"
