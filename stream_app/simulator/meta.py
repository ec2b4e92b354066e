"""Meta Ads Insights rows, one for each ad and day: typed as Airbyte casts them, or the Graph API's strings."""

from collections.abc import Iterator
from typing import Any, Final

from schemas.calendar import iso_date
from stream_app.simulator.performance import Part
from stream_app.simulator.roster import PlatformCampaign
from stream_app.simulator.wire import Row, ratio

RANKINGS: Final = (
    "AVERAGE",
    "ABOVE_AVERAGE",
    "UNKNOWN",
    "BELOW_AVERAGE_35",
    "AVERAGE",
    "BELOW_AVERAGE_20",
    "BELOW_AVERAGE_10",
)


def ad_row(run: PlatformCampaign, day: int, part: Part) -> Row:
    """One ad's day as Airbyte's ``ads_insights`` types it. What is empty or undefined is absent, as on the wire."""
    spend, revenue, orders = part.spend / 1e6, part.revenue / 1e6, part.conversions / 1e6
    campaign, ad_number = int(run.campaign_id), int(part.name)
    reach = round(part.impressions / 1.08)
    engagement = part.link_clicks + part.reactions + part.comments + part.shares
    rank = campaign // 10_000 + ad_number
    row: Row = {
        "account_currency": run.account.currency,
        "account_id": run.account.account_id,
        "account_name": run.account.name,
        "actions": [*_actions(part, engagement, orders)],
        "ad_id": str(campaign + 69_990_000 + ad_number),
        "ad_name": f"{run.name} ad {ad_number}",
        "adset_id": str(campaign + 40_000),
        "adset_name": f"{run.name} broad",
        "buying_type": "AUCTION",
        "campaign_id": run.campaign_id,
        "campaign_name": run.name,
        "clicks": part.clicks,
        "conversion_rate_ranking": RANKINGS[rank % 7],
        "cpm": ratio(1000 * spend, part.impressions),
        "cpp": ratio(1000 * spend, reach),
        "created_time": "2025-05-12",
        "ctr": ratio(100 * part.clicks, part.impressions),
        "date_start": iso_date(day),
        "date_stop": iso_date(day),
        "engagement_rate_ranking": RANKINGS[(rank + 2) % 7],
        "frequency": ratio(part.impressions, reach),
        "impressions": part.impressions,
        "inline_link_clicks": part.link_clicks,
        "inline_post_engagement": engagement,
        "objective": "OUTCOME_SALES",
        "optimization_goal": "OFFSITE_CONVERSIONS",
        "quality_ranking": RANKINGS[(rank + 1) % 7],
        "reach": reach,
        "spend": spend,
        "updated_time": "2025-05-30",
    }
    if part.clicks:
        row["cpc"] = ratio(spend, part.clicks)
    if part.link_clicks:
        row["cost_per_inline_link_click"] = ratio(spend, part.link_clicks)
        row["inline_link_click_ctr"] = ratio(100 * part.link_clicks, part.impressions)
        row["outbound_clicks"] = [{"action_type": "outbound_click", "value": float(part.link_clicks)}]
    if part.conversions:
        row["action_values"] = [_action(kind, revenue) for kind in ("purchase", "offsite_conversion.fb_pixel_purchase")]
        if part.spend:
            row["purchase_roas"] = [{"action_type": "omni_purchase", "value": ratio(revenue, spend)}]
    if not row["actions"]:
        del row["actions"]
    return dict(sorted(row.items()))


def _actions(part: Part, engagement: int, orders: float) -> Iterator[Row]:
    counts = {
        "link_click": part.link_clicks,
        "landing_page_view": round(part.link_clicks * 0.8),
        "page_engagement": engagement,
        "post_engagement": engagement,
        "post_reaction": part.reactions,
        "comment": part.comments,
        "video_view": part.video_views,
        "purchase": orders,
        "offsite_conversion.fb_pixel_purchase": orders,
    }
    return (_action(kind, float(count)) for kind, count in counts.items() if count)


def _action(kind: str, value: float) -> Row:
    return {"action_type": kind, "value": value, "7d_click": value}


def as_strings(value: Any) -> Any:
    """The same row as a raw Graph API body carries it: every metric a string, whole numbers without a point."""
    match value:
        case dict():
            return {name: as_strings(inner) for name, inner in value.items()}
        case list():
            return [as_strings(inner) for inner in value]
        case float() if value.is_integer():
            return str(int(value))
        case str():
            return value
        case _:
            return str(value)


def graph_body(rows: list[Row]) -> Row:
    """A page of an insights answer."""
    return {"data": [as_strings(row) for row in rows], "paging": {"cursors": {"before": "MAZDZD", "after": "NzIZD"}}}
