"""The patterns of one account's campaigns, as they are published; the same campaigns give the same bytes."""

from collections.abc import Sequence

from core.learning.campaign_data import CampaignData
from core.learning.patterns import MIN_SUPPORT, extract
from core.normalizer import PlatformNormalizer
from schemas.calendar import iso_date
from schemas.event import DAY_MS
from schemas.patterns import ALL, WINDOW, AccountPatterns

MIN_ROAS = 2.0


def account_patterns(
    campaigns: Sequence[CampaignData],
    normalizer: PlatformNormalizer,
    account: str = ALL,
    min_roas: float = MIN_ROAS,
    min_support: int = MIN_SUPPORT,
    window: str = WINDOW,
) -> AccountPatterns:
    """The patterns of campaigns, in any order. ``as_of`` is empty where no campaign says when it ended."""
    ends = [campaign.ended_ms for campaign in campaigns if campaign.ended_ms is not None]
    return AccountPatterns(
        account=account,
        as_of=iso_date(max(ends) // DAY_MS) if ends else "",
        window=window,
        benchmarks=normalizer.profile.version,
        patterns=extract(campaigns, normalizer, min_roas, min_support),
    )
