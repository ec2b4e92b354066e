"""Google Ads rows, in any connector's spelling (``google_names``). Cost is in micros; conversions are fractional.

Segment rows are additive partitions. Beside ``segments.*``, the fields of the views and the criterion or asset that a
row reports on tell rows apart, so they are segments too.
"""

import re
from functools import lru_cache
from typing import Final

from schemas.dates import day_of
from schemas.event import Ignored, MetricEvent, RejectCode
from schemas.google_names import fields_of
from schemas.metrics import MAX_MICROS
from schemas.native import Entity, Pull, Row, Segments, currency_of, id_of, segments_of, snapshot, text_of
from schemas.numbers import count, micros, quality
from schemas.platform import Platform
from schemas.refusal import Refused, show

PERIODS: Final = frozenset({"date", "hour", "day_of_week", "week", "month", "month_of_year", "quarter", "year"})
"""Segments that follow from the date and the hour."""

REPORTED_ON: Final = frozenset(
    {
        "ad_group_criterion.criterion_id",
        "ad_group_bid_modifier.criterion_id",
        "campaign_criterion.criterion_id",
        "asset.id",
        "asset_group.id",
        "asset_set.id",
        "ad_group_asset.field_type",
        "asset_group_asset.field_type",
        "campaign_asset.field_type",
        "customer_asset.field_type",
        "asset_group_listing_group_filter.id",
        "label.id",
        "video.id",
    }
)
"""What a row reports on beside campaign, ad group and ad."""
KEYWORD: Final = ("ad_group_criterion.keyword.text", "ad_group_criterion.keyword.match_type")
CHANGEABLE: Final = frozenset(
    {"display_name", "performance_label", "enabled", "policy_summary", "status", "target_url"}
)
"""Fields of views that a later pull may show changed for the same rows."""

CUSTOMER: Final = re.compile(r"customers/(\d{1,32})(?:/|$)", re.ASCII)
CAMPAIGN: Final = re.compile(r"customers/\d{1,32}/campaigns/(\d{1,32})", re.ASCII)
RESOURCES: Final = (
    "customer.resource_name",
    "campaign.resource_name",
    "ad_group.campaign",
    "ad_group.resource_name",
    "ad_group_ad.ad_group",
)


def to_event(row: Row, pull: Pull) -> MetricEvent | Ignored:
    """The event of one row. Raises ``Refused``."""
    fields = fields_of(row)
    get = fields.get
    entity = Entity(
        id_of(get("customer.id"), "customer.id").replace("-", "") or _from_resource(fields, CUSTOMER),
        id_of(get("campaign.id"), "campaign.id") or _from_resource(fields, CAMPAIGN),
        id_of(get("ad_group.id"), "ad_group.id"),
        id_of(get("ad_group_ad.ad.id"), "ad_group_ad.ad.id"),
    )
    impressions = count(get("metrics.impressions"), "metrics.impressions")
    views = count(get("metrics.video_views"), "metrics.video_views")
    if views is None:
        views = count(get("metrics.video_trueview_views"), "metrics.video_trueview_views")
    return snapshot(
        pull,
        Platform.GOOGLE_ADS,
        entity,
        segments=_segments(fields),
        day=day_of(get("segments.date"), "segments.date"),
        hour=_hour(get("segments.hour")),
        zone=text_of(get("customer.time_zone"), "customer.time_zone"),
        currency=currency_of(get("customer.currency_code"), "customer.currency_code"),
        values=(
            impressions,
            count(get("metrics.clicks"), "metrics.clicks"),
            None,
            count(get("metrics.cost_micros"), "metrics.cost_micros", most=MAX_MICROS),
            micros(get("metrics.conversions"), "metrics.conversions"),
            micros(get("metrics.conversions_value"), "metrics.conversions_value"),
            count(get("metrics.engagements"), "metrics.engagements"),
            views,
            *quality(_signal(get("metrics.historical_quality_score")), impressions),
        ),
    )


def _hour(value: object) -> int | None:
    hour = count(value, "segments.hour")
    if hour is not None and hour > 23:
        raise Refused(RejectCode.BAD_TIME, f"segments.hour must be 0 to 23, not {show(value)}")
    return hour


def _signal(value: object) -> float | None:
    score = count(value, "metrics.historical_quality_score")
    if score is not None and score > 10:
        raise Refused(RejectCode.OUT_OF_RANGE, f"metrics.historical_quality_score must be 1 to 10, not {show(value)}")
    return float(score) if score else None


def _from_resource(fields: Row, pattern: re.Pattern[str]) -> str:
    for name in RESOURCES:
        value = fields.get(name)
        if type(value) is str and (match := pattern.match(value)):
            return match[1]
    return ""


@lru_cache(maxsize=8192)
def _segment_name(field: str) -> str:
    """The segment's name, empty for a field that does not tell rows apart."""
    resource, _, name = field.partition(".")
    if resource == "segments":
        return "" if name in PERIODS else name
    if field in REPORTED_ON:
        return field
    return field if resource.endswith("_view") and name.partition(".")[0] not in CHANGEABLE else ""


def _segments(fields: Row) -> Segments:
    pairs = [(name, value) for field, value in fields.items() if (name := _segment_name(field)) and value is not None]
    if "ad_group_criterion.criterion_id" not in fields:
        pairs += [(name, fields[name]) for name in KEYWORD if fields.get(name) is not None]
    return segments_of(pairs)
