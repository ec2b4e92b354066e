"""The unified features: a campaign over its platforms as 19 numbers, in one order that models and artefacts rely on.

Missing is NaN, a real zero stays zero. The same function makes them for training and for prediction.
"""

from collections.abc import Iterable
from math import log1p, nan
from typing import Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.learning.campaign_data import CreativeSignals
from schemas.insight import CrossPlatformInsight
from schemas.metrics import MICROS
from schemas.platform import Platform

Features: TypeAlias = NDArray[np.float32]

BONUS_A_PLATFORM: Final = 0.1
MOST_BONUSES: Final = 2


class UnifiedFeatures(msgspec.Struct, frozen=True, kw_only=True):
    """19 floats. Normalized values, scores, confidence and creative signals lie in [0, 1]; logs are natural ``log1p``
    of counts (conversions in conversions); the ``has_…_data`` are 0 or 1.
    """

    normalized_ctr: float = nan
    normalized_cpc: float = nan
    normalized_cpm: float = nan
    normalized_engagement: float = nan
    normalized_quality: float = nan
    composite_score: float = nan
    platform_consistency: float = nan
    best_platform_boost: float = nan
    multi_platform_bonus: float = nan
    log_impressions: float = nan
    log_clicks: float = nan
    log_conversions: float = nan
    confidence: float = nan
    has_meta_data: float = 0.0
    has_tiktok_data: float = 0.0
    has_google_data: float = 0.0
    creative_dna_score: float = nan
    hook_strength: float = nan
    visual_appeal: float = nan

    def to_array(self) -> Features:
        """float32, [19], in the order of ``FEATURE_NAMES``."""
        return np.array(msgspec.structs.astuple(self), dtype=np.float32)


FEATURE_NAMES: Final[tuple[str, ...]] = UnifiedFeatures.__struct_fields__


def unified_features(insight: CrossPlatformInsight, creative_dna: CreativeSignals | None = None) -> UnifiedFeatures:
    """The features of an insight and of what is known of its creative.

    A platform has data where at least one of its ratios could be scored. ``best_platform_boost`` is the best
    composite minus the average one, ``multi_platform_bonus`` is ``min(platforms - 1, 2) * 0.1``.
    """
    scored = {name for name, own in insight.platform_breakdown.items() if own.components}
    composites = [own.composite_score for own in insight.platform_breakdown.values() if own.composite_score is not None]
    average = insight.composite_score
    totals, signals = insight.totals, creative_dna or CreativeSignals()
    return UnifiedFeatures(
        normalized_ctr=_or_nan(insight.normalized_ctr),
        normalized_cpc=_or_nan(insight.normalized_cpc),
        normalized_cpm=_or_nan(insight.normalized_cpm),
        normalized_engagement=_or_nan(insight.normalized_engagement),
        normalized_quality=_or_nan(insight.normalized_quality),
        composite_score=_or_nan(average),
        platform_consistency=_or_nan(insight.consistency_score),
        best_platform_boost=nan if average is None else max(composites) - average,
        multi_platform_bonus=min(len(scored) - 1, MOST_BONUSES) * BONUS_A_PLATFORM if scored else nan,
        log_impressions=_log1p(totals.impressions),
        log_clicks=_log1p(totals.clicks),
        log_conversions=nan if totals.conversions_micros is None else log1p(totals.conversions_micros / MICROS),
        confidence=nan if totals.impressions is None else insight.confidence,
        has_meta_data=float(Platform.META in scored),
        has_tiktok_data=float(Platform.TIKTOK in scored),
        has_google_data=float(Platform.GOOGLE_ADS in scored),
        creative_dna_score=_or_nan(signals.creative_dna_score),
        hook_strength=_or_nan(signals.hook_strength),
        visual_appeal=_or_nan(signals.visual_appeal),
    )


def feature_matrix(rows: Iterable[UnifiedFeatures]) -> Features:
    """float32, [n, 19]."""
    listed = [msgspec.structs.astuple(row) for row in rows]
    return np.array(listed, dtype=np.float32).reshape(len(listed), len(FEATURE_NAMES))


def _or_nan(value: float | None) -> float:
    return nan if value is None else value


def _log1p(count: int | None) -> float:
    return nan if count is None else log1p(count)
