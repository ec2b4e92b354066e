"""Meta Ads Insights rows: typed (Airbyte), or all strings (Graph API, Singer).

The level follows from the ids, the partition from the breakdown columns. Ratios are never read. ``actions`` variants
repeat one event, so a metric takes exactly one action type.
"""

from typing import Final

from schemas.dates import day_of
from schemas.event import Ignored, IgnoreReason, MetricEvent, RejectCode
from schemas.metrics import MAX_MICROS, MICROS
from schemas.native import Entity, Pull, Row, Segments, currency_of, id_of, segments_of, snapshot
from schemas.numbers import count, micros, quality
from schemas.platform import Platform
from schemas.refusal import Refused, show

CONVERSION_TYPES: Final = (
    "omni_purchase",
    "purchase",
    "offsite_conversion.fb_pixel_purchase",
    "onsite_web_purchase",
    "onsite_web_app_purchase",
    "app_custom_event.fb_mobile_purchase",
    "onsite_conversion.purchase",
    "omni_lead",
    "lead",
    "offsite_conversion.fb_pixel_lead",
    "onsite_conversion.lead_grouped",
    "omni_complete_registration",
    "complete_registration",
    "offsite_conversion.fb_pixel_complete_registration",
    "app_custom_event.fb_mobile_complete_registration",
)
"""The types that count as a conversion; a row takes the first that it lists, and its revenue from the same type."""

BREAKDOWNS_LIST: Final = """
ad_extension_domain ad_extension_url ad_format_asset age app_id body_asset breakdown_ad_objective
breakdown_reporting_ad_id call_to_action_asset coarse_conversion_value comscore_market comscore_market_code
conversion_destination country creative_relaxation_asset_type description_asset device_platform dma fidelity_type
flexible_format_asset_type frequency_value gen_ai_asset_type gender hourly_stats_aggregated_by_audience_time_zone hsid
image_asset impression_device impression_view_time_advertiser_hour_v2 is_auto_advance is_conversion_id_modeled
is_rendered_as_delayed_skip_ad landing_destination link_url_asset mdsa_landing_destination media_asset_url media_creator
media_destination_url media_format media_origin_url media_text_content media_type mmm place_page_id place_page_name
platform_position postback_sequence_index product_brand_breakdown product_category_breakdown
product_custom_label_0_breakdown product_custom_label_1_breakdown product_custom_label_2_breakdown
product_custom_label_3_breakdown product_custom_label_4_breakdown product_group_content_id_breakdown product_group_id
product_id product_set_id_breakdown publisher_platform redownload region rta_ugc_topic rule_asset rule_set_id
rule_set_name signal_source_bucket skan_campaign_id skan_conversion_id skan_version sot_attribution_model_type
sot_attribution_window sot_channel sot_event_type sot_source standard_event_content_type title_asset user_persona_id
user_persona_name user_segment_key video_asset
"""
BREAKDOWNS: Final = frozenset(BREAKDOWNS_LIST.split())
"""The names of the API's breakdowns; each is a column of the row when it was asked for."""

HOURLY: Final = "hourly_stats_aggregated_by_advertiser_time_zone"

RANKINGS: Final = ("quality_ranking", "engagement_rate_ranking", "conversion_rate_ranking")
RANKS: Final = {
    "ABOVE_AVERAGE": 8.5,
    "AVERAGE": 5.5,
    "BELOW_AVERAGE_35": 3.5,
    "BELOW_AVERAGE_20": 2.0,
    "BELOW_AVERAGE_10": 1.0,
}

HOURS: Final = {f"{hour:02d}:00:00 - {hour:02d}:59:59": hour for hour in range(24)}


def to_event(row: Row, pull: Pull) -> MetricEvent | Ignored:
    """The event of one insights row. Raises ``Refused``."""
    get = row.get
    entity = Entity(
        id_of(get("account_id"), "account_id").removeprefix("act_"),
        id_of(get("campaign_id"), "campaign_id"),
        id_of(get("adset_id"), "adset_id"),
        id_of(get("ad_id"), "ad_id"),
    )
    day = day_of(get("date_start"), "date_start")
    last = day_of(get("date_stop"), "date_stop")
    if day is not None and last is not None and last != day:
        if last < day:
            raise Refused(RejectCode.BAD_PERIOD, "date_stop lies before date_start")
        if entity.campaign:
            return Ignored(IgnoreReason.MULTI_DAY_PERIOD)
    actions, action_values = get("actions"), get("action_values")
    impressions = count(get("impressions"), "impressions")
    kind = _conversion_type(actions, "actions") or _conversion_type(action_values, "action_values")
    return snapshot(
        pull,
        Platform.META,
        entity,
        segments=_segments(row),
        day=day,
        hour=_hour(get(HOURLY)),
        currency=currency_of(get("account_currency"), "account_currency"),
        values=(
            impressions,
            count(get("clicks"), "clicks"),
            _count_or_action(row, "inline_link_clicks", "link_click"),
            micros(get("spend"), "spend"),
            _action_micros(actions, "actions", kind),
            _action_micros(action_values, "action_values", kind),
            _count_or_action(row, "inline_post_engagement", "post_engagement"),
            _action_count(actions, "video_view"),
            *quality(_signal(row), impressions),
        ),
    )


def _hour(value: object) -> int | None:
    if value is None:
        return None
    hour = HOURS.get(value) if type(value) is str else None
    if hour is None:
        raise Refused(RejectCode.BAD_TIME, f"{HOURLY} must be like 09:00:00 - 09:59:59, not {show(value)}")
    return hour


def _segments(row: Row) -> Segments:
    names = BREAKDOWNS.intersection(row)
    return segments_of((name, _asset(row[name])) for name in names if row[name] is not None) if names else ()


def _asset(value: object) -> object:
    # An asset's text and links may be edited while its id stays.
    return value.get("id") or value if type(value) is dict else value


def _signal(row: Row) -> float | None:
    ranks = [RANKS[rank] for name in RANKINGS if type(rank := row.get(name)) is str and rank in RANKS]
    return sum(ranks) / len(ranks) if ranks else None


def _count_or_action(row: Row, field: str, kind: str) -> int | None:
    value = count(row.get(field), field)
    return _action_count(row.get("actions"), kind) if value is None else value


def _action_count(actions: object, kind: str) -> int | None:
    # Whole numbers may come as 1.0, so micros settle what is whole only after the sum.
    total = _action_micros(actions, "actions", kind)
    if total is None:
        return None
    whole, rest = divmod(total, MICROS)
    if rest:
        raise Refused(RejectCode.WRONG_TYPE, f"the actions of type {kind} must add up to a whole number")
    return whole


def _conversion_type(actions: object, field: str) -> str:
    listed = {entry["action_type"] for entry in _entries(actions, field) if type(entry.get("action_type")) is str}
    return next((kind for kind in CONVERSION_TYPES if kind in listed), "")


def _action_micros(actions: object, field: str, kind: str) -> int | None:
    """The sum of a type's entries, which action breakdowns split. A type that is not listed is not carried."""
    values = [
        micros(entry.get("value"), f"{field} value of {kind}")
        for entry in _entries(actions, field)
        if entry.get("action_type") == kind
    ]
    carried = [value for value in values if value is not None]
    if not carried:
        return None
    total = sum(carried)
    if total > MAX_MICROS:
        raise Refused(
            RejectCode.OUT_OF_RANGE, f"the {field} of type {kind} add up to more than {MAX_MICROS // MICROS:.0e}"
        )
    return total


def _entries(actions: object, field: str) -> list[Row]:
    if actions is None:
        return []
    if type(actions) is not list:
        raise Refused(RejectCode.WRONG_TYPE, f"{field} must be a list, not {show(actions)}")
    for entry in actions:
        if type(entry) is not dict:
            raise Refused(RejectCode.WRONG_TYPE, f"{field} must list objects, not {show(entry)}")
    return actions
