"""Campaigns whose truth is known: the CTR, engagement rate and ROAS that counts are drawn around, seeded.

On platform p the CTR of campaign c is ``BASE[p] * campaign * creative * own``, each factor lognormal with mean 1. A
creative's factor is made of its attributes' effects (``PLANTED``) and a rest of its own.
"""

from typing import Final

import msgspec
import numpy as np

from core.learning.campaign_data import CampaignData
from core.ratios import PlatformMetrics
from schemas.creative import Creative, PlatformAd
from schemas.platform import Platform

BASE: Final = {Platform.META: 0.012, Platform.TIKTOK: 0.022, Platform.GOOGLE_ADS: 0.035}
ENGAGEMENT: Final = {Platform.META: 0.04, Platform.TIKTOK: 0.07, Platform.GOOGLE_ADS: 0.03}
CPC: Final = {Platform.META: 1.0, Platform.TIKTOK: 0.5, Platform.GOOGLE_ADS: 2.0}
CONVERSION: Final = {Platform.META: 0.05, Platform.TIKTOK: 0.02, Platform.GOOGLE_ADS: 0.10}
BASKET: Final = 60.0
ATTRIBUTES: Final = {
    "hook": ("question", "statement", "shock", "story"),
    "visual": ("ugc", "studio", "animation"),
    "pacing": ("slow", "medium", "fast"),
    "call_to_action": ("shop_now", "learn_more", "sign_up"),
}
PLANTED: Final = {("hook", "question"): 0.35, ("hook", "statement"): -0.25, ("visual", "ugc"): 0.15}
"""Log effects on CTR of the attributes that matter; all others have none."""


class Truth(msgspec.Struct, frozen=True):
    """What one campaign's numbers on one platform were drawn around."""

    ctr: float
    engagement_rate: float
    roas: float


class Simulated(msgspec.Struct, frozen=True):
    """Campaigns, their creatives, and the truth by campaign id and platform."""

    campaigns: list[CampaignData]
    creatives: list[Creative]
    truth: dict[tuple[str, Platform], Truth]


def simulate(
    campaigns: int,
    *,
    seed: int,
    campaign_effect: float = 0.4,
    own_effect: float = 0.2,
    creative_effect: float = 0.15,
    planted: float = 1.0,
    creatives: int = 40,
    impressions: float = 8_000,
    spread: float = 1.0,
    prefix: str = "cmp",
) -> Simulated:
    """Campaigns on all three platforms. The effects are standard deviations of logs; ``impressions`` is the median
    delivery on one platform and ``spread`` the standard deviation of its log.
    """
    rng = np.random.default_rng(seed)
    shown = [_creative(rng, f"cr-{at:03}") for at in range(creatives)]
    boost = {
        creative.creative_id: planted * sum(PLANTED.get((name, getattr(creative, name)), 0.0) for name in ATTRIBUTES)
        + _log(rng, creative_effect)
        for creative in shown
    }
    mean = float(np.mean([np.exp(value) for value in boost.values()]))
    found: list[CampaignData] = []
    truth: dict[tuple[str, Platform], Truth] = {}
    for number in range(campaigns):
        campaign_id = f"{prefix}-{number:04}"
        creative = shown[int(rng.integers(creatives))]
        quality = np.exp(_log(rng, campaign_effect) + boost[creative.creative_id]) / mean
        worth = np.exp(_log(rng, 0.3))
        platforms: dict[Platform, PlatformMetrics] = {}
        for platform in BASE:
            own = np.exp(_log(rng, own_effect))
            liked = np.exp(_log(rng, 0.15)) * quality**0.5
            true = Truth(
                ctr=min(0.5, float(BASE[platform] * quality * own)),
                engagement_rate=min(0.5, float(ENGAGEMENT[platform] * liked)),
                roas=float(CONVERSION[platform] * worth * BASKET / CPC[platform]),
            )
            truth[campaign_id, platform] = true
            platforms[platform] = _delivered(rng, platform, true, impressions * float(np.exp(spread * rng.normal())))
        found.append(
            CampaignData(
                campaign_id=campaign_id,
                platforms=platforms,
                account_id=f"act-{number % 2 + 1}",
                vertical=("retail", "travel")[number // 2 % 2],
                objective="sales",
                creative_id=creative.creative_id,
            )
        )
    return Simulated(found, shown, truth)


def _delivered(rng: np.random.Generator, platform: Platform, true: Truth, delivery: float) -> PlatformMetrics:
    impressions = max(1, int(delivery))
    clicks = int(rng.binomial(impressions, true.ctr))
    spend = round(clicks * CPC[platform] * float(np.exp(_log(rng, 0.1))), 2)
    conversion = min(0.9, true.roas * CPC[platform] / BASKET)
    conversions = int(rng.binomial(clicks, conversion))
    return PlatformMetrics(
        platform=platform,
        impressions=impressions,
        clicks=clicks,
        spend=spend,
        conversions=conversions,
        revenue=round(float(rng.gamma(2.0, BASKET / 2, size=conversions).sum()), 2),
        engagements=int(rng.binomial(impressions, true.engagement_rate)),
    )


def _creative(rng: np.random.Generator, creative_id: str) -> Creative:
    drawn = {name: values[int(rng.integers(len(values)))] for name, values in ATTRIBUTES.items()}
    return Creative(
        creative_id=creative_id,
        hook=drawn["hook"],
        visual=drawn["visual"],
        pacing=drawn["pacing"],
        call_to_action=drawn["call_to_action"],
        format="video",
        length_seconds=float(rng.integers(6, 60)),
        ads=(PlatformAd(Platform.META, f"meta-{creative_id}", ""), PlatformAd(Platform.TIKTOK, "", f"v-{creative_id}")),
    )


def _log(rng: np.random.Generator, deviation: float) -> float:
    """The log of a lognormal factor with mean 1."""
    return float(rng.normal(-(deviation**2) / 2, deviation))
