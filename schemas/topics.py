"""Topic names and what each holds."""

from typing import Final

from schemas.platform import Platform

METRICS_TOPICS: Final = {
    Platform.META: "ads.metrics.meta",
    Platform.TIKTOK: "ads.metrics.tiktok",
    Platform.GOOGLE_ADS: "ads.metrics.google",
}
CAMPAIGN_LINKS: Final = "ads.campaign-links"
RATES: Final = "ads.rates"
ACCOUNTS: Final = "ads.accounts"
CREATIVES: Final = "ads.creatives"
ROUTED: Final = "ads.metrics.routed"
ROLLUPS: Final = "ads.rollups"
INSIGHTS: Final = "insights.cross-platform"
INSIGHTS_LATEST: Final = "insights.latest"
PREDICTIONS: Final = "predictions.ctr"
MODELS: Final = "models.ctr"
SCORECARDS: Final = "scorecards.ctr"
PATTERNS: Final = "patterns.cross-platform"
CREATIVE_SCORES: Final = "creatives.scores"
DEAD_LETTERS: Final = "ads.dead-letters"

FACT_TOPICS: Final = (CAMPAIGN_LINKS, RATES, ACCOUNTS, CREATIVES)
"""Compacted inputs: facts beside the metrics, the last one of a key holds."""
INGEST_TOPICS: Final = (*METRICS_TOPICS.values(), *FACT_TOPICS)
