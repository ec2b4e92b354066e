"""What creatives have delivered: ads' days, by the creative that each ad shows, campaign and platform.

A day of an ad is one view of its rows (``core.ad_view``). Where one creative's ads reported money in several currencies
on a platform in a campaign, its spend and revenue there are unknown.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import msgspec

from core.ad_view import ad_views
from core.aggregate import Aggregate
from core.creatives import Ad
from core.learning.campaign_data import CampaignData
from core.ratios import PlatformMetrics
from schemas.creative import Creative
from schemas.metrics import (
    CLICKS,
    CONVERSIONS,
    ENGAGEMENTS,
    IMPRESSIONS,
    MICROS,
    QUALITY_IMPRESSIONS,
    QUALITY_POINTS,
)
from schemas.platform import Platform
from schemas.rollup import Rollup, Totals

COUNTED = (IMPRESSIONS, CLICKS, CONVERSIONS, ENGAGEMENTS, QUALITY_POINTS, QUALITY_IMPRESSIONS)


class AdDay(msgspec.Struct, frozen=True):
    """What one ad delivered on one calendar day of its account, which counts from 1970-01-01, for a campaign.

    ``as_of_ms`` is the newest pull or event in it.
    """

    platform: Platform
    ad_id: str
    campaign_id: str
    day: int
    as_of_ms: int
    totals: Totals


class CreativeResults(msgspec.Struct, frozen=True, kw_only=True):
    """``shown``: a creative in a campaign, by creative and campaign. ``whole``: by creative, over its campaigns.

    Days count from 1970-01-01 and are None without any; ``as_of_ms`` is -1 then. ``unknown_ads`` have delivered, and
    no creative states them.
    """

    shown: list[CampaignData]
    whole: dict[str, dict[Platform, PlatformMetrics]]
    first_day: int | None
    last_day: int | None
    as_of_ms: int
    ads: int
    unknown_ads: int


def ad_days(aggregate: Aggregate, first: int | None = None, end: int | None = None) -> list[AdDay]:
    """The days from ``first`` up to ``end``, which is not among them, of all ads in an aggregate without a table.

    Takes the aggregate's next checkpoint.
    """
    found = []
    for message in aggregate.take_writes(publish=True)[1]:
        if not isinstance(message, Rollup) or message.withdrawn:
            continue
        if (first is not None and message.day < first) or (end is not None and message.day >= end):
            continue
        platform = Platform(message.platform)
        block, panes = aggregate.blocks.glance((platform, message.platform_campaign_id, message.day))
        for ad_id, view in ad_views(block, panes).items():
            if view.totals is not None:
                found.append(AdDay(platform, ad_id, message.campaign_id, message.day, view.as_of_ms, view.totals))
    return found


def creative_results(days: Iterable[AdDay], by_ad: Mapping[Ad, str], creatives: Iterable[Creative]) -> CreativeResults:
    """The results of creatives, a function of the set of days."""
    accounts = {creative.creative_id: creative.account_id for creative in creatives}
    shown: dict[tuple[str, str], dict[Platform, _Sum]] = defaultdict(lambda: defaultdict(_Sum))
    whole: dict[str, dict[Platform, _Sum]] = defaultdict(lambda: defaultdict(_Sum))
    dates: set[int] = set()
    known: set[Ad] = set()
    unknown: set[Ad] = set()
    as_of = -1
    for day in days:
        ad = (day.platform, day.ad_id)
        creative_id = by_ad.get(ad)
        if creative_id is None:
            unknown.add(ad)
            continue
        known.add(ad)
        dates.add(day.day)
        as_of = max(as_of, day.as_of_ms)
        shown[creative_id, day.campaign_id][day.platform].add(day.totals)
        whole[creative_id][day.platform].add(day.totals)
    return CreativeResults(
        shown=[
            CampaignData(
                campaign_id=campaign_id,
                creative_id=creative_id,
                account_id=accounts.get(creative_id, ""),
                platforms=_metrics(sums),
            )
            for (creative_id, campaign_id), sums in sorted(shown.items())
        ],
        whole={creative_id: _metrics(sums) for creative_id, sums in sorted(whole.items())},
        first_day=min(dates, default=None),
        last_day=max(dates, default=None),
        as_of_ms=as_of,
        ads=len(known),
        unknown_ads=len(unknown),
    )


class _Sum:
    """Totals added up in whole numbers, so that their order does not matter."""

    def __init__(self) -> None:
        self._values: dict[int, int] = {}
        self._money: dict[str, list[int | None]] = {}

    def add(self, totals: Totals) -> None:
        for metric in COUNTED:
            value = totals.values[metric]
            if value is not None:
                self._values[metric] = self._values.get(metric, 0) + value
        for money in totals.money:
            held = self._money.setdefault(money.currency, [None, None])
            for slot, amount in enumerate((money.spend_micros, money.revenue_micros)):
                if amount is not None:
                    held[slot] = (held[slot] or 0) + amount

    def metrics(self, platform: Platform) -> PlatformMetrics:
        currency, amounts = next(iter(self._money.items())) if len(self._money) == 1 else ("", (None, None))
        spend, revenue = (None if micros is None else micros / MICROS for micros in amounts)
        conversions, scored = self._values.get(CONVERSIONS), self._values.get(QUALITY_IMPRESSIONS)
        return PlatformMetrics(
            platform=platform,
            impressions=self._values.get(IMPRESSIONS),
            clicks=self._values.get(CLICKS),
            spend=spend,
            conversions=None if conversions is None else conversions / MICROS,
            revenue=revenue,
            engagements=self._values.get(ENGAGEMENTS),
            quality_score=self._values.get(QUALITY_POINTS, 0) / (100 * scored) if scored else None,
            currency=currency,
        )


def _metrics(sums: Mapping[Platform, _Sum]) -> dict[Platform, PlatformMetrics]:
    return {platform: total.metrics(platform) for platform, total in sorted(sums.items())}
