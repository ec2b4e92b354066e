"""Whose row it is, by the names of its columns. The topic is a hint; these are evidence."""

from typing import Final

from schemas.native import Row
from schemas.platform import Platform

TIKTOK_MARKS: Final = ("stat_time_day", "stat_time_hour", "adgroup_id", "advertiser_id")
META_MARKS: Final = ("date_start", "date_stop", "adset_id", "inline_link_clicks", "account_currency")
GOOGLE_MARKS: Final = (
    "segments.date",
    "campaign.id",
    "customer.id",
    "cost_micros",
    "costMicros",
    "ad_group_id",
    "customer_id",
)
GOOGLE_RESOURCES: Final = ("segments", "campaign", "customer", "adGroup", "ad_group", "metrics")
GOOGLE_FAMILIES: Final = tuple(resource + separator for resource in GOOGLE_RESOURCES for separator in (".", "__"))
ANY_MARKS: Final = ("campaign_id", "ad_id", "account_id", "impressions", "clicks", "spend")
"""Columns that several platforms have: an insights row, but whose is for the topic to say."""


def platform_of(row: Row) -> Platform | None:
    """The platform whose columns the row has; None where they do not tell."""
    if "dimensions" in row or any(mark in row for mark in TIKTOK_MARKS):
        return Platform.TIKTOK
    if any(mark in row for mark in META_MARKS):
        return Platform.META
    if any(mark in row for mark in GOOGLE_MARKS):
        return Platform.GOOGLE_ADS
    if any(type(row.get(resource)) is dict for resource in GOOGLE_RESOURCES):
        return Platform.GOOGLE_ADS
    return Platform.GOOGLE_ADS if any(key.startswith(GOOGLE_FAMILIES) for key in row) else None


def is_report_row(row: Row) -> bool:
    """Whether an object without a platform's marks still looks like a report row."""
    return any(mark in row for mark in ANY_MARKS)
