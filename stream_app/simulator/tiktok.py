"""TikTok report rows: daily ones of campaigns, ads and advertisers in Airbyte's shape, and raw hourly envelopes."""

from typing import Final

from schemas.calendar import iso_date
from stream_app.simulator.performance import CENT, Part
from stream_app.simulator.roster import PlatformCampaign, SimAccount
from stream_app.simulator.wire import Row, ratio

HOURS: Final = (2, 1, 1, 1, 1, 2, 3, 4, 5, 5, 5, 6, 6, 5, 5, 5, 6, 6, 7, 8, 9, 9, 6, 4)


def total(parts: tuple[Part, ...]) -> Part:
    """The counts of a whole campaign."""
    sums = {name: sum(getattr(part, name) for part in parts) for name in Part.__dataclass_fields__ if name != "name"}
    return Part(name="", **sums)


def campaign_row(run: PlatformCampaign, day: int, parts: tuple[Part, ...]) -> Row:
    """``campaigns_reports_daily``: no conversions at this level."""
    when = f"{iso_date(day)} 00:00:00"
    return {
        "metrics": {**_delivery(total(parts)), "campaign_name": run.name, "app_install": 0, "real_time_app_install": 0},
        "dimensions": {"campaign_id": int(run.campaign_id), "stat_time_day": when},
        "stat_time_day": when,
        "campaign_id": int(run.campaign_id),
    }


def ad_row(run: PlatformCampaign, day: int, part: Part) -> Row:
    """``ads_reports_daily``. ``total_complete_payment_rate`` is the payments' total value, despite its name."""
    when = f"{iso_date(day)} 00:00:00"
    campaign, orders, spend = int(run.campaign_id), part.conversions // 1_000_000, part.spend / 1e6
    ad_id = campaign + 8_606_750 + int(part.name)
    per_order = f"{ratio(spend, orders, 2):.2f}"
    rate = f"{ratio(100 * orders, part.clicks, 2):.2f}"
    metrics = {
        **_delivery(part),
        "campaign_id": campaign,
        "campaign_name": run.name,
        "adgroup_id": campaign + 7_392_289,
        "adgroup_name": f"{run.name} group",
        "ad_name": f"{run.name} ad {int(part.name)}",
        "ad_text": "New season, now in store",
        "conversion": str(orders),
        "cost_per_conversion": per_order,
        "conversion_rate": rate,
        "real_time_conversion": str(orders),
        "real_time_cost_per_conversion": per_order,
        "result": str(orders),
        "cost_per_result": per_order,
        "result_rate": rate,
        "secondary_goal_result": None,
        "secondary_goal_result_rate": None,
        "complete_payment": str(orders),
        "total_complete_payment_rate": f"{part.revenue / 1e6:.2f}",
        "value_per_complete_payment": f"{ratio(part.revenue / 1e6, orders, 2):.2f}",
        "total_purchase_value": "0.00",
        "total_onsite_shopping_value": "0.00",
        "placement_type": "Automatic Placement",
        "promotion_type": "Website",
    }
    return {
        "dimensions": {"ad_id": ad_id, "stat_time_day": when},
        "metrics": metrics,
        "stat_time_day": when,
        "ad_id": ad_id,
    }


def advertiser_row(account: SimAccount, day: int, parts: tuple[Part, ...]) -> Row:
    """``advertisers_reports_daily``: an account's total, which Parallax ignores by reason."""
    when = f"{iso_date(day)} 00:00:00"
    advertiser = int(account.account_id)
    metrics = _delivery(total(parts))
    return {
        "metrics": {**metrics, "cash_spend": metrics["spend"], "voucher_spend": "0.00"},
        "dimensions": {"advertiser_id": advertiser, "stat_time_day": when},
        "stat_time_day": when,
        "advertiser_id": advertiser,
    }


def hourly_rows(run: PlatformCampaign, day: int, parts: tuple[Part, ...]) -> list[Row]:
    """A campaign's 24 hours as the report API sends them; they add up to the day exactly."""
    return [
        {
            "dimensions": {"stat_time_hour": f"{iso_date(day)} {hour:02d}:00:00", "campaign_id": run.campaign_id},
            "metrics": {**_delivery(part), "campaign_name": run.name},
            "advertiser_id": int(run.account.account_id),
        }
        for hour, part in enumerate(_by_hour(total(parts)))
    ]


def envelope(rows: list[Row]) -> Row:
    """A page of ``report/integrated/get``."""
    return {"code": 0, "message": "ok", "data": {"list": rows}}


def _by_hour(day: Part) -> list[Part]:
    whole = sum(HOURS)
    edges = [sum(HOURS[:hour]) for hour in range(25)]

    def share(name: str, hour: int) -> int:
        unit = CENT if name in ("spend", "revenue") else 1
        count = int(getattr(day, name)) // unit
        return unit * (count * edges[hour + 1] // whole - count * edges[hour] // whole)

    names = [name for name in Part.__dataclass_fields__ if name != "name"]
    return [Part(name="", **{name: share(name, hour) for name in names}) for hour in range(24)]


def _delivery(part: Part) -> Row:
    spend, reach = part.spend / 1e6, round(part.impressions / 1.22)
    views = part.video_views
    return {
        "spend": f"{spend:.2f}",
        "impressions": str(part.impressions),
        "clicks": str(part.clicks),
        "ctr": f"{ratio(100 * part.clicks, part.impressions, 2):.2f}",
        "cpc": f"{ratio(spend, part.clicks, 2):.2f}",
        "cpm": f"{ratio(1000 * spend, part.impressions, 2):.2f}",
        "reach": str(reach),
        "frequency": f"{ratio(part.impressions, reach, 2):.2f}",
        "cost_per_1000_reached": f"{ratio(1000 * spend, reach, 2):.2f}",
        "likes": part.reactions,
        "comments": part.comments,
        "shares": part.shares,
        "follows": part.shares // 3,
        "profile_visits": 0,
        "clicks_on_music_disc": 0,
        "video_play_actions": views,
        "video_watched_2s": views * 12 // 100,
        "video_watched_6s": views * 3 // 100,
        "video_views_p25": views * 9 // 100,
        "video_views_p50": views * 4 // 100,
        "video_views_p75": views * 5 // 200,
        "video_views_p100": views * 2 // 100,
        "average_video_play": 1.48,
        "average_video_play_per_user": 1.61,
    }
