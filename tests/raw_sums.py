"""Sums straight from the raw JSON of the native fixtures, by code of its own: nothing of the product is imported.

Connectors say which columns tell rows apart; they are listed here by stream, by hand. For a platform campaign and day
a metric comes from one view: the coarsest level that carries it, then the fewest segments (ties by their names), then
day rows before hour rows. Rows of one entity over streams and pulls are one row, of which the newest pull that carries
the metric counts. What carries no campaign or no single day is not counted.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

MILLION = 1_000_000
COUNTS = ("impressions", "clicks", "link_clicks", "conversions_micros", "engagements", "video_views")
MONEY = ("spend_micros", "revenue_micros")
META_BREAKDOWNS = {
    "ads_insights_action_conversion_device": ("device_platform",),
    "ads_insights_age_and_gender": ("age", "gender"),
    "ads_insights_country": ("country",),
    "ads_insights_delivery_device": ("device_platform",),
    "ads_insights_delivery_platform": ("publisher_platform",),
    "ads_insights_delivery_platform_and_device_platform": ("device_platform", "publisher_platform"),
    "ads_insights_demographics_age": ("age",),
    "ads_insights_demographics_country": ("country",),
    "ads_insights_demographics_dma_region": ("dma",),
    "ads_insights_demographics_gender": ("gender",),
    "ads_insights_dma": ("dma",),
    "ads_insights_platform_and_device": ("impression_device", "platform_position", "publisher_platform"),
    "ads_insights_region": ("region",),
    "customcustom_insight_stream": ("gender",),
    "graph_api_body": ("product_id",),
}
GOOGLE_SEGMENTS = {
    "ad_group_ad_legacy": ("segments.ad_network_type",),
    "ad_group_ad": ("segments.ad_network_type",),
    "campaign": ("segments.ad_network_type",),
    "keyword_view": ("ad_group_criterion.criterion_id",),
}
TIKTOK_NO_SEGMENT = {"ad_id", "adgroup_id", "campaign_id", "advertiser_id", "stat_time_day", "stat_time_hour"}

Sums = dict[str, int]
Key = tuple[str, str, str, str]
"""Campaign, window, its start, platform."""


class Row(NamedTuple):
    """One report row. ``hour`` is -1 for a whole day; ``entity`` is what rows that restate one another share."""

    platform: str
    campaign: str
    day: str
    hour: int
    level: int
    segments: tuple[tuple[str, str], ...]
    entity: tuple[Any, ...]
    pulled: int
    currency: str
    values: dict[str, int]


def micros(value: Any) -> int | None:
    """Units of money or conversions as micros."""
    return None if value in (None, "", "-") else int((Decimal(str(value)) * MILLION).to_integral_value())


def whole(value: Any) -> int | None:
    """A count."""
    return None if value in (None, "", "-") else int(Decimal(str(value)))


def native_rows(folder: Path, restated: Iterable[Mapping[str, Any]]) -> Iterator[Row | None]:
    """The rows of every fixture, and of the restated pairs as envelopes; None for a row that counts nowhere."""
    for line in (folder / "meta" / "airbyte_ads_insights.jsonl").read_text().splitlines():
        record = json.loads(line)
        yield _meta(record["data"], record["stream"], record["emitted_at"])
    for row in json.loads((folder / "meta" / "graph_api_body.json").read_text())["data"]:
        yield _meta(row, "graph_api_body", 1 << 62)
    for line in (folder / "tiktok" / "airbyte_reports.jsonl").read_text().splitlines():
        record = json.loads(line)
        yield _tiktok(record["data"], record["emitted_at"])
    for row in json.loads((folder / "tiktok" / "report_envelope_hourly.json").read_text())["data"]["list"]:
        yield _tiktok(row, 1 << 62)
    for line in (folder / "google_ads" / "airbyte_reports.jsonl").read_text().splitlines():
        record = json.loads(line)
        yield _google(record["data"], record["stream"], record["emitted_at"])
    for record in restated:
        yield _google(record["data"], record["stream"], record["emitted_at"])
    rest = json.loads((folder / "google_ads" / "rest_row.json").read_text())
    assert rest.keys() == {"campaign", "adGroup", "segments", "metrics"}
    assert rest["metrics"].keys() == {"costMicros"}
    yield Row(
        "google_ads",
        rest["campaign"]["id"],
        rest["segments"]["date"],
        -1,
        1,
        (),
        (rest["adGroup"]["id"],),
        1 << 62,
        "",
        {"spend_micros": int(rest["metrics"]["costMicros"])},
    )


def _kept(values: Mapping[str, int | None]) -> dict[str, int]:
    return {name: value for name, value in values.items() if value is not None}


def _meta(row: Mapping[str, Any], stream: str, pulled: int) -> Row | None:
    if "campaign_id" not in row or row["date_start"] != row["date_stop"]:
        return None
    actions = {action["action_type"]: action["value"] for action in row.get("actions", [])}
    assert not any("purchase" in kind or "lead" in kind or "regist" in kind for kind in actions), "conversions: see why"
    assert "action_values" not in row
    segments = tuple((name, str(row[name])) for name in META_BREAKDOWNS.get(stream, ()))
    values = {
        "impressions": whole(row.get("impressions")),
        "clicks": whole(row.get("clicks")),
        "link_clicks": whole(row.get("inline_link_clicks", actions.get("link_click"))),
        "spend_micros": micros(row.get("spend")),
        "engagements": whole(row.get("inline_post_engagement", actions.get("post_engagement"))),
        "video_views": whole(actions.get("video_view")),
    }
    entity = (row["adset_id"], row["ad_id"], segments)
    return Row(
        "meta", row["campaign_id"], row["date_start"], -1, 2, segments, entity, pulled, row["account_currency"],
        _kept(values),
    )  # fmt: skip


def _tiktok(row: Mapping[str, Any], pulled: int) -> Row | None:
    dimensions, metrics = row["dimensions"], row["metrics"]
    campaign = dimensions.get("campaign_id") or metrics.get("campaign_id")
    stamp = dimensions.get("stat_time_hour") or dimensions.get("stat_time_day")
    if not campaign or not stamp:
        return None
    hour = int(stamp[11:13]) if "stat_time_hour" in dimensions else -1
    ids = [str(dimensions.get(name) or metrics.get(name) or "") for name in ("adgroup_id", "ad_id")]
    level = 2 if ids[1] else 1 if ids[0] else 0
    segments = tuple(sorted((name, str(dimensions[name])) for name in dimensions.keys() - TIKTOK_NO_SEGMENT))
    worth = [
        micros(metrics.get(name))
        for name in ("total_complete_payment_rate", "total_purchase_value", "total_onsite_shopping_value")
    ]
    carried = [amount for amount in worth if amount is not None]
    social = [whole(metrics.get(name)) for name in ("likes", "comments", "shares", "follows")]
    values = {
        "impressions": whole(metrics.get("impressions")),
        "clicks": whole(metrics.get("clicks")),
        "spend_micros": micros(metrics.get("spend")),
        "conversions_micros": micros(metrics.get("conversion")),
        "revenue_micros": max(carried) if carried else None,
        "engagements": sum(n for n in social if n is not None) if any(n is not None for n in social) else None,
        "video_views": whole(metrics.get("video_play_actions")),
    }
    assert sum(1 for amount in carried if amount) <= 1, "several revenues: see which counts"
    assert "currency" not in metrics
    return Row(
        "tiktok", str(campaign), stamp[:10], hour, level, segments, (hour, *ids, segments), pulled, "", _kept(values)
    )  # fmt: skip


def _google(row: Mapping[str, Any], stream: str, pulled: int) -> Row | None:
    if "campaign.id" not in row or "segments.date" not in row:
        return None
    ids = [str(row.get(name, "")) for name in ("ad_group.id", "ad_group_ad.ad.id")]
    level = 2 if ids[1] else 1 if ids[0] else 0
    hour = row.get("segments.hour", -1)
    segments = tuple((name, str(row[name])) for name in GOOGLE_SEGMENTS.get(stream, ()))
    values = {
        "impressions": whole(row.get("metrics.impressions")),
        "clicks": whole(row.get("metrics.clicks")),
        "spend_micros": whole(row.get("metrics.cost_micros")),
        "conversions_micros": micros(row.get("metrics.conversions")),
        "revenue_micros": micros(row.get("metrics.conversions_value")),
        "engagements": whole(row.get("metrics.engagements")),
        "video_views": whole(row.get("metrics.video_views")),
    }
    return Row(
        "google_ads", str(row["campaign.id"]), row["segments.date"], hour, level, segments, (hour, *ids, segments),
        pulled, row.get("customer.currency_code", ""), _kept(values),
    )  # fmt: skip


def period(rows: Iterable[Row], currency: str) -> Sums:
    """One platform campaign's sums over rows of one day or hour; ``currency`` is that of rows without one."""
    rows = list(rows)
    sums: Sums = defaultdict(int)
    for metric in (*COUNTS, *MONEY):
        carrying = [row for row in rows if metric in row.values]
        if not carrying:
            continue
        view = min(_view(row) for row in carrying)
        newest: dict[tuple[Any, ...], Row] = {}
        for row in sorted(carrying, key=lambda row: row.pulled):
            if _view(row) == view:
                newest[row.entity] = row
        for row in newest.values():
            name = f"{metric}:{row.currency or currency}" if metric in MONEY else metric
            sums[name] += row.values[metric]
    return dict(sums)


def _view(row: Row) -> tuple[int, int, tuple[str, ...], bool]:
    names = tuple(name for name, _ in row.segments)
    return row.level, len(names), names, row.hour >= 0


def recount(rows: Iterable[Row | None], links: Mapping[tuple[str, str], str]) -> dict[Key, Sums]:
    """The sums of every window ``1h``, ``24h`` and ``7d`` that has content, by campaign and platform."""
    blocks: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row is not None:
            blocks[row.platform, row.campaign, row.day].append(row)
    windows: dict[Key, list[Sums]] = defaultdict(list)
    daily: dict[str, list[tuple[str, str, Sums]]] = defaultdict(list)
    for (platform, own, day), found in blocks.items():
        campaign = links.get((platform, own), f"{platform}:{own}")
        known = {row.currency for row in found} - {""}
        currency = known.pop() if len(known) == 1 else ""
        daily[campaign].append((day, platform, period(found, currency)))
        for hour in {row.hour for row in found} - {-1}:
            # These rows name no zone, so their hours are UTC's.
            start = f"{day}T{hour:02d}:00:00.000Z"
            windows[campaign, "1h", start, platform].append(period((r for r in found if r.hour == hour), currency))
    for campaign, days in daily.items():
        for day, platform, sums in days:
            windows[campaign, "24h", day, platform].append(sums)
        for end in {day for day, _, _ in days}:
            first = (date.fromisoformat(end) - timedelta(days=6)).isoformat()
            for day, platform, sums in days:
                if first <= day <= end:
                    windows[campaign, "7d", first, platform].append(sums)
    return {key: add(parts) for key, parts in windows.items()}


def add(parts: Iterable[Sums]) -> Sums:
    """Sums by name."""
    total: Sums = defaultdict(int)
    for part in parts:
        for name, value in part.items():
            total[name] += value
    return dict(total)


def told(insight: Mapping[str, Any]) -> dict[Key, Sums]:
    """The same of an insight's JSON: its platforms' totals."""
    place = (insight["campaign_id"], insight["window"], insight["window_start"])
    return {(*place, platform): totals(part["totals"]) for platform, part in insight["platform_breakdown"].items()}


def totals(found: Mapping[str, Any]) -> Sums:
    """Totals of an insight's JSON by name, and money by currency."""
    sums = {name: found[name] for name in COUNTS if found[name] is not None}
    for amounts in found["money"]:
        sums |= {f"{name}:{amounts['currency']}": amounts[name] for name in MONEY if amounts[name] is not None}
    return sums
