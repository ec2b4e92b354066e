"""Creatives whose hooks' effects are known, and what their ads reported, as records of the input topics."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from examples.simulated import simulate
from schemas.creative import Creative, PlatformAd, encode
from schemas.platform import Platform
from schemas.topics import CAMPAIGN_LINKS, CREATIVES, METRICS_TOPICS
from stream_app.simulator import SimRecord

DAY_MS = 86_400_000
FIRST_MS = 1_767_225_600_000
UPDATED_MS = 1_767_000_000_000


class CreativeFeed:
    """``campaigns`` canonical campaigns on three platforms, each showing a creative as one ad on each, for three days.

    Beside each ad's rows there are those of its platform campaign, which say the same of the whole once more, and rows
    of the ad by device: whoever adds views counts all of it thrice.
    """

    def __init__(self, campaigns: int = 90, creatives: int = 24, seed: int = 12) -> None:
        world = simulate(campaigns, seed=seed, creatives=creatives, campaign_effect=0.25)
        self.campaigns = world.campaigns
        ads: dict[str, list[PlatformAd]] = {}
        for campaign in world.campaigns:
            for platform in campaign.platforms:
                ads.setdefault(campaign.creative_id, []).append(PlatformAd(platform, ad_of(campaign.campaign_id), ""))
        self.creatives = [
            msgspec.structs.replace(
                each, account_id="acme", ads=tuple(sorted(ads.get(each.creative_id, []))), updated_ms=UPDATED_MS
            )
            for each in world.creatives
        ]

    def links(self) -> list[SimRecord]:
        found = []
        for campaign in self.campaigns:
            for platform in campaign.platforms:
                wire = {
                    "version": 1,
                    "platform": platform,
                    "platform_campaign_id": f"p{campaign.campaign_id}",
                    "campaign_id": campaign.campaign_id,
                    "updated_at": 1,
                }
                key = f"{platform}:p{campaign.campaign_id}"
                found.append(record(CAMPAIGN_LINKS, key, wire))
        return found

    def rows(self) -> list[SimRecord]:
        found = []
        for campaign in self.campaigns:
            for platform in campaign.platforms:
                for day in range(3):
                    part = self.part(campaign.campaign_id, platform, day)
                    found.append(row(campaign.campaign_id, platform, day, part))
                    found.append(row(campaign.campaign_id, platform, day, part, ad_id="", ad_group_id=""))
                    found.append(row(campaign.campaign_id, platform, day, part, segments={"device": "phone"}))
        return found

    def part(self, campaign_id: str, platform: Platform, day: int) -> dict[str, int]:
        """A third of what the campaign delivered on the platform; the last day has the rest."""
        metrics = next(each for each in self.campaigns if each.campaign_id == campaign_id).platforms[platform]
        whole = {
            "impressions": metrics.impressions or 0,
            "clicks": metrics.clicks or 0,
            "engagements": metrics.engagements or 0,
            "spend_micros": round((metrics.spend or 0) * 1_000_000),
            "revenue_micros": round((metrics.revenue or 0) * 1_000_000),
            "conversions_micros": round((metrics.conversions or 0) * 1_000_000),
        }
        return {name: value // 3 + (value % 3 if day == 2 else 0) for name, value in whole.items()}

    def statements(self) -> list[SimRecord]:
        return [statement(creative) for creative in self.creatives]


def ad_of(campaign_id: str) -> str:
    return f"ad-{campaign_id}"


def statement(creative: Creative) -> SimRecord:
    return SimRecord(CREATIVES, creative.creative_id.encode(), encode(creative), FIRST_MS, [])


def record(topic: str, key: str, wire: dict[str, Any]) -> SimRecord:
    return SimRecord(topic, key.encode(), json.dumps(wire).encode(), FIRST_MS, [])


def row(campaign_id: str, platform: Platform, day: int, part: dict[str, int], **changed: Any) -> SimRecord:
    start = FIRST_MS + day * DAY_MS
    wire = {
        "version": 1,
        "kind": "snapshot",
        "platform": platform,
        "campaign_id": f"p{campaign_id}",
        "ad_group_id": "g",
        "ad_id": ad_of(campaign_id),
        "period_start": start,
        "period_end": start + DAY_MS,
        "observed_at": start + DAY_MS,
        "time_zone": "UTC",
        "currency": "USD",
        **part,
        **changed,
    }
    return record(METRICS_TOPICS[platform], f"p{campaign_id}", wire)


def lines(records: Sequence[SimRecord]) -> str:
    return "".join((each.value or b"").decode() + "\n" for each in records)
