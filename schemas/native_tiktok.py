"""TikTok report rows: ``{dimensions, metrics}`` of the report API and Airbyte, or flat ones.

Stamps are zone-less, in the advertiser's zone. ``-`` and null are missing metrics. ``total_complete_payment_rate`` is
the payments' total value, despite its name.
"""

from typing import Final

from schemas.dates import day_of, hour_of
from schemas.event import Ignored, MetricEvent, RejectCode
from schemas.native import Entity, Pull, Row, currency_of, id_of, segments_of, snapshot, text_of
from schemas.numbers import count, micros
from schemas.platform import Platform
from schemas.refusal import Refused, show

NOT_SEGMENTS: Final = frozenset(
    {"advertiser_id", "campaign_id", "adgroup_id", "ad_id", "stat_time_day", "stat_time_hour"}
)
FLAT_DIMENSIONS_LIST: Final = """
ac age audience_id behavior_id bc_id catalog_id city_id component_name contextual_tag country_code custom_event_type
device_brand_id dma_id event_source_id event_type gender image_id interest_category interest_category_tier2
interest_category_tier3 interest_category_tier4 interest_category_v2 item_id language material_id page_id placement
placement_id platform post_id product_id product_set_id province_id room_id search_terms sku_id video_id
video_material_id
"""
FLAT_DIMENSIONS: Final = frozenset(FLAT_DIMENSIONS_LIST.split())
"""The dimensions of flat rows, where nothing else tells them from metrics and attributes."""

ENGAGEMENTS: Final = ("likes", "comments", "shares", "follows")
REVENUES: Final = ("total_complete_payment_rate", "total_purchase_value", "total_onsite_shopping_value")


def to_event(row: Row, pull: Pull) -> MetricEvent | Ignored:
    """The event of one report row. Raises ``Refused``."""
    nested = "dimensions" in row
    dimensions = _object(row, "dimensions") if nested else row
    metrics = _object(row, "metrics") if nested else row
    day, hour = _period(dimensions if nested else row)
    segments = segments_of(
        (name, value)
        for name, value in dimensions.items()
        if (name not in NOT_SEGMENTS if nested else name in FLAT_DIMENSIONS)
    )
    return snapshot(
        pull,
        Platform.TIKTOK,
        Entity(
            *(_id(name, dimensions, metrics, row) for name in ("advertiser_id", "campaign_id", "adgroup_id", "ad_id"))
        ),
        segments=segments,
        day=day,
        hour=hour,
        zone=text_of(metrics.get("timezone"), "timezone"),
        currency=currency_of(metrics.get("currency"), "currency"),
        values=(
            count(metrics.get("impressions"), "impressions"),
            count(metrics.get("clicks"), "clicks"),
            None,
            micros(metrics.get("spend"), "spend"),
            micros(metrics.get("conversion"), "conversion"),
            _revenue(metrics),
            _engagements(metrics),
            count(metrics.get("video_play_actions"), "video_play_actions"),
            None,
            None,
        ),
    )


def _object(row: Row, field: str) -> Row:
    value = row.get(field)
    if type(value) is not dict:
        raise Refused(RejectCode.WRONG_TYPE, f"{field} must be an object, not {show(value)}")
    return value


def _id(field: str, *places: Row) -> str:
    return next((found for place in places if (found := id_of(place.get(field), field))), "")


def _period(dimensions: Row) -> tuple[int | None, int | None]:
    stamp = hour_of(dimensions.get("stat_time_hour"), "stat_time_hour")
    return stamp or (day_of(dimensions.get("stat_time_day"), "stat_time_day"), None)


def _revenue(metrics: Row) -> int | None:
    values = [value for name in REVENUES if (value := micros(metrics.get(name), name)) is not None]
    return next((value for value in values if value), 0) if values else None


def _engagements(metrics: Row) -> int | None:
    values = [value for name in ENGAGEMENTS if (value := count(metrics.get(name), name)) is not None]
    return sum(values) if values else None
