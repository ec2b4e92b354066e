"""``CrossPlatformLearner``: the one door to aggregation, features, patterns and training data."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from core.intervals import Floats
from core.learning import patterns
from core.learning.aggregation import aggregate
from core.learning.campaign_data import (
    CampaignLike,
    CreativeSignals,
    campaign_id_of,
    campaigns_of,
    platform_data_of,
    signals_of,
)
from core.learning.features import Features, UnifiedFeatures, unified_features
from core.learning.training_rows import TrainingRows, training_rows
from core.normalizer import PlatformNormalizer
from core.profile import DEFAULT_PROFILE, Profile
from core.ratios import PlatformMetrics
from schemas.insight import CrossPlatformInsight
from schemas.patterns import CrossPlatformPatterns


class CrossPlatformLearner:
    """Turns campaigns on several platforms into insights, features, patterns and training data.

    ``platform_data`` is a mapping from platform (or its name) to ``PlatformMetrics`` or to a mapping of its fields, or
    an iterable of ``PlatformMetrics``; campaigns are ``CampaignData`` or pairs of id and platform data. What does not
    fit raises ``ValueError``.

    >>> learner = CrossPlatformLearner()
    >>> campaign = {"meta": {"impressions": 10_000, "clicks": 150}, "tiktok": {"impressions": 10_000, "clicks": 300}}
    >>> learner.aggregate_platform_data("c-1", campaign).totals.clicks
    450
    >>> X, y = learner.get_training_data_for_ctr_model([("c-1", campaign)])
    >>> X.shape, y.tolist()
    ((2, 19), [0.015, 0.03])
    """

    def __init__(self, profile: Profile = DEFAULT_PROFILE) -> None:
        self.normalizer = PlatformNormalizer(profile)

    def aggregate_platform_data(
        self, campaign_id: str, platform_data: Mapping[Any, Any] | Iterable[PlatformMetrics]
    ) -> CrossPlatformInsight:
        """The campaign's insight over whatever its numbers cover: window ``all``, without bounds."""
        return aggregate(campaign_id_of(campaign_id), platform_data_of(platform_data), self.normalizer)

    def get_unified_features(
        self,
        campaign_id: str,
        platform_data: Mapping[Any, Any] | Iterable[PlatformMetrics],
        creative_dna: CreativeSignals | Mapping[str, float | None] | None = None,
    ) -> UnifiedFeatures:
        """The campaign's 19 features; ``to_array`` gives them as float32."""
        insight = self.aggregate_platform_data(campaign_id, platform_data)
        return unified_features(insight, signals_of(creative_dna))

    def extract_cross_platform_patterns(
        self, campaigns: Iterable[CampaignLike], min_roas: float = 2.0, min_support: int = patterns.MIN_SUPPORT
    ) -> CrossPlatformPatterns:
        """What winning campaigns have in common, see ``core.learning.patterns``."""
        return patterns.extract(campaigns, self.normalizer, min_roas, min_support)

    def get_training_data_for_ctr_model(self, campaigns: Iterable[CampaignLike]) -> tuple[Features, Floats]:
        """``(X, y)``: float32 [n, 19] and float64 [n], a row for each campaign and platform.

        ``y`` is the CTR of one platform, ``X`` comes from the campaign's other platforms; a campaign on one platform
        gives no row. ``training_rows`` also has counts, platforms and campaigns.
        """
        rows = self.training_rows(campaigns)
        return rows.features, rows.ctr

    def training_rows(self, campaigns: Iterable[CampaignLike]) -> TrainingRows:
        """The same rows with what they weigh and where they come from."""
        return training_rows(campaigns_of(campaigns), self.normalizer)


@cache
def get_cross_platform_learner() -> CrossPlatformLearner:
    """The process's learner with the default profile; it keeps no state."""
    return CrossPlatformLearner()
