"""Training rows where data has no time: leave one platform out.

The label of a row is the CTR of one platform, its features come from the campaign's *other* platforms, so a label
never comes from its own features; three platforms give three rows. ``features_without`` makes the features of a row
and, at prediction time, those of the same platform.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.intervals import Floats
from core.learning.aggregation import aggregate
from core.learning.borrowing import CreativeEvidence, CtrBorrowing, estimate
from core.learning.campaign_data import CampaignData
from core.learning.features import Features, UnifiedFeatures, feature_matrix, unified_features
from core.normalizer import PlatformNormalizer
from core.ratios import PlatformMetrics
from schemas.platform import Platform

LABEL_PLATFORMS: Final = (Platform.GOOGLE_ADS, Platform.META, Platform.TIKTOK)


class CountTable(msgspec.Struct, frozen=True, eq=False):
    """Clicks and impressions of n campaigns on P platforms, [n, P]; zeros where there are none."""

    platforms: tuple[Platform, ...]
    clicks: Floats
    impressions: Floats


class TrainingRows(msgspec.Struct, frozen=True, eq=False):
    """n rows: features, float32 [n, 19]; counts of the label's platform, float64 [n]; the platform's column in
    ``platforms`` and the campaign's place in the sequence given, int64 [n].
    """

    platforms: tuple[Platform, ...]
    features: Features
    clicks: Floats
    impressions: Floats
    platform: NDArray[np.int64]
    campaign: NDArray[np.int64]

    @property
    def ctr(self) -> Floats:
        """The labels: clicks over impressions, [n]."""
        rate: Floats = self.clicks / self.impressions
        return rate

    def of(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> "TrainingRows":
        """Some of the rows."""
        return TrainingRows(
            self.platforms,
            self.features[chosen],
            self.clicks[chosen],
            self.impressions[chosen],
            self.platform[chosen],
            self.campaign[chosen],
        )


def features_without(campaign: CampaignData, platform: Platform, normalizer: PlatformNormalizer) -> UnifiedFeatures:
    """The campaign's features from every platform but one."""
    others = {name: metrics for name, metrics in campaign.platforms.items() if name != platform}
    return unified_features(aggregate(campaign.campaign_id, others, normalizer), campaign.creative_dna)


def delivered(metrics: PlatformMetrics | None) -> tuple[int, int] | None:
    """Clicks and impressions, where both are known and something was shown; clicks at most as many."""
    if metrics is None or not metrics.impressions or metrics.clicks is None:
        return None
    return min(metrics.clicks, metrics.impressions), metrics.impressions


def count_table(campaigns: Sequence[CampaignData], platforms: tuple[Platform, ...] = LABEL_PLATFORMS) -> CountTable:
    """The campaigns' counts, in the order given."""
    clicks, impressions = np.zeros((2, len(campaigns), len(platforms)))
    for row, campaign in enumerate(campaigns):
        for column, platform in enumerate(platforms):
            counts = delivered(campaign.platforms.get(platform))
            if counts is not None:
                clicks[row, column], impressions[row, column] = counts
    return CountTable(platforms, clicks, impressions)


def training_rows(
    campaigns: Sequence[CampaignData],
    normalizer: PlatformNormalizer,
    platforms: tuple[Platform, ...] = LABEL_PLATFORMS,
) -> TrainingRows:
    """A row for each campaign and platform that has delivery there and, somewhere else, data to learn from."""
    features: list[UnifiedFeatures] = []
    rows: list[tuple[int, int, int, int]] = []
    for at, campaign in enumerate(campaigns):
        for column, platform in enumerate(platforms):
            counts = delivered(campaign.platforms.get(platform))
            if counts is None:
                continue
            found = features_without(campaign, platform, normalizer)
            if has_data(found):
                features.append(found)
                rows.append((*counts, column, at))
    table = np.array(rows, dtype=np.int64).reshape(len(rows), 4)
    matrix = feature_matrix(features)
    return TrainingRows(
        platforms, matrix, table[:, 0].astype(float), table[:, 1].astype(float), table[:, 2], table[:, 3]
    )


def has_data(features: UnifiedFeatures) -> bool:
    """Whether any platform stands behind the features."""
    return bool(features.has_meta_data or features.has_tiktok_data or features.has_google_data)


class BorrowedRates(NamedTuple):
    """[n] each: the rate that other platforms and the creative tell, the 90 % interval of the label, and the variance
    of the true rate.
    """

    rate: Floats
    low: Floats
    high: Floats
    variance: Floats


def borrowed_rates(
    fitted: CtrBorrowing,
    campaigns: Sequence[CampaignData],
    rows: TrainingRows,
    history: Sequence[CampaignData] = (),
) -> BorrowedRates:
    """What is borrowed for each row. ``history``: campaigns of which the creatives' results may be used."""
    table = count_table(campaigns, rows.platforms)
    trials = np.maximum(table.impressions, 1.0)
    evidence = evidence_of(fitted, campaigns, history, rows.platforms)
    found = estimate(fitted, table.clicks, table.impressions, evidence, own_counts=False, trials=trials)
    at = (rows.campaign, rows.platform)
    return BorrowedRates(found.rate[at], found.low[at], found.high[at], found.variance[at])


def evidence_of(
    fitted: CtrBorrowing,
    campaigns: Sequence[CampaignData],
    history: Sequence[CampaignData],
    platforms: tuple[Platform, ...],
) -> CreativeEvidence | None:
    """What the campaigns' creatives did in the history, each campaign's own results left out; ``None`` if nothing."""
    shown = {campaign.creative_id for campaign in campaigns} - {""}
    past = [campaign for campaign in history if campaign.creative_id in shown]
    if not past:
        return None
    table = count_table(past, platforms)
    expected = (table.impressions * np.array(fitted.base_rate)).sum(axis=1)
    counts = np.column_stack((table.clicks.sum(axis=1), expected, expected > 0))
    sums: dict[str, Floats] = {}
    own: dict[tuple[str, str], Floats] = {}
    for campaign, row in zip(past, counts, strict=True):
        sums[campaign.creative_id] = sums.get(campaign.creative_id, np.zeros(3)) + row
        own[campaign.campaign_id, campaign.creative_id] = row
    # A campaign's own results must not speak for its creative: it may be judged on those very counts.
    found = np.array(
        [
            sums.get(campaign.creative_id, np.zeros(3))
            - own.get((campaign.campaign_id, campaign.creative_id), np.zeros(3))
            for campaign in campaigns
        ]
    )
    found[found[:, 2] < 0.5] = 0.0
    return CreativeEvidence(found[:, 0], found[:, 1], found[:, 2])
