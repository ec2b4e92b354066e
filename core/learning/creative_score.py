"""A creative's score: its results and its DNA, weighed by how far the results can be trusted, and every part shown.

``overall_score = confidence * composite + (1 - confidence) * creative_dna_score``, each part from 0 to 1; where one is
unknown the other stands alone. Predictions do not come from the score.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from core.learning.aggregation import aggregate
from core.learning.campaign_data import CreativeSignals
from core.learning.features import UnifiedFeatures, unified_features
from core.learning.relative_effects import Effect
from core.normalizer import PlatformNormalizer
from core.ratios import PlatformMetrics
from schemas.insight import PlatformBreakdown
from schemas.platform import Platform

NINETY: Final = 1.6449


class Estimate(msgspec.Struct, frozen=True):
    """A value and its 90 % interval."""

    value: float
    low: float
    high: float


class ScorePart(msgspec.Struct, frozen=True):
    """``contribution = value * weight``; the contributions add up to the score."""

    name: str
    value: float
    weight: float
    contribution: float


class CreativeInsight(msgspec.Struct, frozen=True, kw_only=True):
    """What the creative's results say: composite and confidence from 0 to 1, and the platforms that have data."""

    composite_score: float | None
    consistency: float | None
    platforms: list[Platform]
    confidence: float


class PredictedPerformance(msgspec.Struct, frozen=True, kw_only=True):
    """CTR and engagement rate (fractions) and ROAS of the creative's campaign, over the platforms that it runs on,
    weighted by impressions (equally where there are none); ``None`` where nothing was ever learned of a measure.
    """

    ctr: Estimate | None
    engagement: Estimate | None
    roas: Estimate | None


class CreativeScore(msgspec.Struct, frozen=True, kw_only=True):
    """``scoring_method``: ``results_and_dna``, ``results``, ``creative_dna``, or ``none`` without a score.

    ``dna``: by attribute, what its label adds to CTR (relative) with its 90 % interval; ``creative`` is what the
    creative adds beyond its attributes.
    """

    creative_id: str
    overall_score: float | None
    parts: list[ScorePart]
    dna: dict[str, Estimate]
    cross_platform_insight: CreativeInsight
    unified_features: UnifiedFeatures
    platform_breakdown: dict[str, PlatformBreakdown]
    predicted_performance: PredictedPerformance
    predicted_by_platform: dict[Platform, PredictedPerformance]
    scoring_method: str


def score(
    creative_id: str,
    data: Mapping[Platform, PlatformMetrics],
    normalizer: PlatformNormalizer,
    signals: CreativeSignals,
    predicted: Mapping[Platform, Mapping[str, Estimate]],
    dna: Mapping[str, Effect],
) -> CreativeScore:
    """The score from results, signals, and what was predicted by platform and measure."""
    insight = aggregate(creative_id, data, normalizer)
    composite, known = insight.composite_score, signals.creative_dna_score
    trusted = insight.confidence if composite is not None and known is not None else float(composite is not None)
    parts = []
    if composite is not None:
        parts.append(ScorePart("results", composite, trusted, composite * trusted))
    if known is not None:
        parts.append(ScorePart("creative_dna", known, 1 - trusted, known * (1 - trusted)))
    names = [part.name for part in parts]
    method = "results_and_dna" if len(names) == 2 else names[0] if names else "none"
    shares = {platform: float(data[platform].impressions or 0) if platform in data else 0.0 for platform in predicted}
    if not any(shares.values()):
        shares = {platform: float(platform in data or not data) for platform in predicted}
    return CreativeScore(
        creative_id=creative_id,
        overall_score=sum(part.contribution for part in parts) if parts else None,
        parts=parts,
        dna={
            factor: Estimate(
                effect.mean, effect.mean - NINETY * effect.deviation, effect.mean + NINETY * effect.deviation
            )
            for factor, effect in dna.items()
        },
        cross_platform_insight=CreativeInsight(
            composite_score=composite,
            consistency=insight.consistency_score,
            platforms=[Platform(name) for name, own in insight.platform_breakdown.items() if own.components],
            confidence=insight.confidence,
        ),
        unified_features=unified_features(insight, signals),
        platform_breakdown=insight.platform_breakdown,
        predicted_performance=PredictedPerformance(
            ctr=_mixed(predicted, shares, "ctr"),
            engagement=_mixed(predicted, shares, "engagement"),
            roas=_mixed(predicted, shares, "roas"),
        ),
        predicted_by_platform={
            platform: PredictedPerformance(ctr=own.get("ctr"), engagement=own.get("engagement"), roas=own.get("roas"))
            for platform, own in predicted.items()
        },
        scoring_method=method,
    )


def _mixed(
    predicted: Mapping[Platform, Mapping[str, Estimate]], shares: Mapping[Platform, float], measure: str
) -> Estimate | None:
    """The weighted mean, and of the bounds: the platforms' errors lean the same way, so none is averaged out."""
    rows = [(shares[platform], own[measure]) for platform, own in predicted.items() if measure in own]
    whole = sum(share for share, _ in rows)
    if not whole:
        return None
    return Estimate(
        sum(share * each.value for share, each in rows) / whole,
        sum(share * each.low for share, each in rows) / whole,
        sum(share * each.high for share, each in rows) / whole,
    )
