"""The domain: values in, values out. What library users need is named here."""

from core.learning import (
    FEATURE_NAMES,
    BenchmarkLearner,
    CampaignData,
    CreativeDNA,
    CreativeSignals,
    CrossPlatformLearner,
    CTRPredictor,
    ModelRefused,
    UnifiedFeatures,
    change_points,
    compare_training_sets,
    consistency_trend,
    get_cross_platform_learner,
    recommend_platforms,
)
from core.normalizer import NormalizedMetrics, PlatformMetrics, PlatformNormalizer
from core.profile import DEFAULT_PROFILE, Profile, load_profile
from schemas.creative import Creative
from schemas.insight import CrossPlatformInsight
from schemas.platform import Platform

__all__ = [
    "DEFAULT_PROFILE",
    "FEATURE_NAMES",
    "BenchmarkLearner",
    "CTRPredictor",
    "CampaignData",
    "Creative",
    "CreativeDNA",
    "CreativeSignals",
    "CrossPlatformInsight",
    "CrossPlatformLearner",
    "ModelRefused",
    "NormalizedMetrics",
    "Platform",
    "PlatformMetrics",
    "PlatformNormalizer",
    "Profile",
    "UnifiedFeatures",
    "change_points",
    "compare_training_sets",
    "consistency_trend",
    "get_cross_platform_learner",
    "load_profile",
    "recommend_platforms",
]
