"""The domain: values in, values out. What library users need is named here."""

from core.normalizer import NormalizedMetrics, PlatformMetrics, PlatformNormalizer
from core.profile import DEFAULT_PROFILE, Profile, load_profile
from schemas.insight import CrossPlatformInsight
from schemas.platform import Platform

__all__ = [
    "DEFAULT_PROFILE",
    "CrossPlatformInsight",
    "NormalizedMetrics",
    "Platform",
    "PlatformMetrics",
    "PlatformNormalizer",
    "Profile",
    "load_profile",
]
