"""Google Ads campaign rows, one for each network and day: Airbyte's flat keys, or the REST API's camelCase."""

from typing import Final

from schemas.calendar import iso_date
from stream_app.simulator.performance import Part
from stream_app.simulator.roster import PlatformCampaign, SimAccount
from stream_app.simulator.wire import Row, ratio

CHANNELS: Final = {"SEARCH": "SEARCH", "CONTENT": "DISPLAY", "YOUTUBE": "VIDEO"}


def flat_row(run: PlatformCampaign, day: int, part: Part) -> Row:
    """A custom query's row with Airbyte's flat keys. Costs are micros, ``ctr`` a fraction, conversions fractional."""
    orders, revenue = part.conversions / 1e6, part.revenue / 1e6
    return {
        **_customer(run.account),
        "campaign.id": int(run.campaign_id),
        "campaign.name": run.name,
        "campaign.status": "ENABLED",
        "campaign.advertising_channel_type": CHANNELS[part.name],
        "campaign.base_campaign": f"customers/{run.account.account_id}/campaigns/{run.campaign_id}",
        "campaign.bidding_strategy_type": "MAXIMIZE_CONVERSION_VALUE",
        **_metrics(part),
        "metrics.conversions": orders,
        "metrics.conversions_value": revenue,
        "metrics.cost_per_conversion": ratio(part.spend, orders, 4),
        "metrics.value_per_conversion": ratio(revenue, orders, 4),
        "metrics.interaction_event_types": ["InteractionEventType.CLICK"],
        "segments.date": iso_date(day),
        "segments.ad_network_type": part.name,
    }


def account_row(account: SimAccount, day: int, part: Part) -> Row:
    """``account_performance_report``: an account's total, which Parallax ignores by reason."""
    return {
        **_customer(account),
        "customer.manager": False,
        **_metrics(part),
        "metrics.conversions": part.conversions / 1e6,
        "metrics.conversions_value": part.revenue / 1e6,
        "segments.date": iso_date(day),
        "segments.ad_network_type": "SEARCH",
        "segments.device": "DESKTOP",
    }


def rest_row(run: PlatformCampaign, day: int, part: Part) -> Row:
    """The REST API's row: nested camelCase, int64 as strings, doubles as numbers that lose their point when whole."""
    customer = f"customers/{run.account.account_id}"
    return {
        "customer": {
            "resourceName": customer,
            "id": run.account.account_id,
            "currencyCode": run.account.currency,
            "timeZone": run.account.time_zone,
        },
        "campaign": {
            "resourceName": f"{customer}/campaigns/{run.campaign_id}",
            "id": run.campaign_id,
            "name": run.name,
            "status": "ENABLED",
        },
        "segments": {"date": iso_date(day), "adNetworkType": part.name},
        "metrics": {
            "impressions": str(part.impressions),
            "clicks": str(part.clicks),
            "costMicros": str(part.spend),
            "interactions": str(part.clicks),
            "engagements": str(part.reactions),
            "videoTrueviewViews": str(part.video_views),
            "ctr": part.clicks / part.impressions,
            "averageCpc": ratio(part.spend, part.clicks, 4),
            "conversions": _double(part.conversions / 1e6),
            "conversionsValue": _double(part.revenue / 1e6),
        },
    }


def singer_record(row: Row, extracted: str) -> Row:
    """A Singer ``RECORD`` message around a row."""
    return {"type": "RECORD", "stream": "campaign_performance", "record": row, "time_extracted": extracted}


def _customer(account: SimAccount) -> Row:
    return {
        "customer.id": int(account.account_id),
        "customer.descriptive_name": account.name,
        "customer.currency_code": account.currency,
        "customer.time_zone": account.time_zone,
    }


def _metrics(part: Part) -> Row:
    return {
        "metrics.impressions": part.impressions,
        "metrics.clicks": part.clicks,
        "metrics.cost_micros": part.spend,
        "metrics.ctr": part.clicks / part.impressions,
        "metrics.average_cpc": ratio(part.spend, part.clicks, 4),
        "metrics.average_cpm": ratio(1000 * part.spend, part.impressions, 4),
        "metrics.interactions": part.clicks,
        "metrics.interaction_rate": part.clicks / part.impressions,
        "metrics.engagements": part.reactions,
        "metrics.video_views": part.video_views,
    }


def _double(value: float) -> float | int:
    return int(value) if value.is_integer() else value
