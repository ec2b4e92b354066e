"""Records that cannot be used, one for each of many reasons, and sound ones that have no place in the state."""

from typing import Final

from schemas.calendar import iso_date
from schemas.event import IgnoreReason, RejectCode
from schemas.platform import Platform
from schemas.topics import CAMPAIGN_LINKS, METRICS_TOPICS
from stream_app.simulator import google_ads, meta, tiktok
from stream_app.simulator.draft import Draft
from stream_app.simulator.performance import Part
from stream_app.simulator.roster import (
    GOOGLE_FLAT,
    GOOGLE_SINGER,
    META_GRAPH,
    TIKTOK_DAILY,
    PlatformCampaign,
    SimAccount,
)
from stream_app.simulator.wire import Row, to_json

OVERSIZE_BYTES: Final = 66 * 1024
UNUSED_ID: Final = {
    Platform.META: "23846700000000398",
    Platform.TIKTOK: "1714125000008817",
    Platform.GOOGLE_ADS: "16800000000",
}
SOURCE: Final = (("connector", b"nightly-export"),)
SPECIMEN: Final = Part("01", 4_696, 51, 40, 20_000_000, 2_000_000, 90_000_000, 18, 1, 0, 4_179)


def poison(day: int, emitted_ms: int) -> list[Draft]:
    """One record for each of ten codes of the taxonomy, whose rows would be of a given day."""
    envelope = {"stream": "ads_insights", "data": _meta_row(day), "emitted_at": emitted_ms}
    not_a_number = {**meta.as_strings(_meta_row(day)), "spend": "NaN"}
    negative = {**google_ads.flat_row(_run(GOOGLE_FLAT, "SEARCH"), day, _part("SEARCH")), "metrics.clicks": -3}
    oversize = {**_meta_row(day), "ad_name": "x" * OVERSIZE_BYTES}
    event: Row = {
        "version": 1,
        "kind": "delta",
        "event_id": "evt-poison",
        "platform": "meta",
        "account_id": "act_212551616838260",
        "campaign_id": "23846765228240398",
        "period_start": f"{iso_date(day)}T10:00:00",
        "impressions": 10,
        "clicks": 1,
        "currency": "USD",
    }
    foreign = {**event, "platform": "myspace", "event_id": "evt-poison-2", "period_start": emitted_ms}
    throttled = {"code": 40100, "message": "Too many requests", "data": {}}
    bodies = (
        (Platform.META, RejectCode.MALFORMED_JSON, to_json(envelope)[:-400]),
        (Platform.TIKTOK, RejectCode.NOT_UTF8, to_json({"stream": "campaigns_reports_daily"})[:-2] + b'\xff\xfe"}'),
        (Platform.META, RejectCode.NOT_A_NUMBER, to_json({"data": [not_a_number]})),
        (Platform.GOOGLE_ADS, RejectCode.NEGATIVE, _airbyte("campaign_performance", negative, emitted_ms)),
        (Platform.TIKTOK, RejectCode.UNKNOWN_SHAPE, to_json({"hello": "world"})),
        (Platform.META, RejectCode.OVERSIZE, _airbyte("ads_insights", oversize, emitted_ms)),
        (Platform.META, RejectCode.BAD_TIME, to_json(event)),
        (Platform.GOOGLE_ADS, RejectCode.UNKNOWN_PLATFORM, to_json(foreign)),
        (
            Platform.TIKTOK,
            RejectCode.PLATFORM_ERROR,
            to_json(throttled),
        ),
    )
    drafts = [
        Draft(METRICS_TOPICS[platform], f"{platform}:poison".encode(), value, code=code, headers=SOURCE)
        for platform, code, value in bodies
    ]
    link = to_json({"version": 1, "platform": "meta", "campaign_id": "cmp-001", "updated_at": emitted_ms})
    return [*drafts, Draft(CAMPAIGN_LINKS, b"meta:", link, code=RejectCode.BAD_LINK, headers=SOURCE)]


def ignorable(day: int, emitted_ms: int) -> list[Draft]:
    """Sound records that Parallax leaves out of the state, one for each of several reasons."""
    lifetime = tiktok.campaign_row(_run(TIKTOK_DAILY, "01"), day, (SPECIMEN,))
    del lifetime["stat_time_day"], lifetime["dimensions"]["stat_time_day"]
    week = {**_meta_row(day), "date_start": iso_date(day - 6)}
    state = {
        "type": "STATE",
        "value": {"bookmarks": {"campaign_performance": {GOOGLE_SINGER.account_id: iso_date(day)}}},
    }
    bodies = (
        (Platform.META, IgnoreReason.EMPTY_REPORT, to_json({"data": []})),
        (Platform.GOOGLE_ADS, IgnoreReason.CONTROL_MESSAGE, to_json(state)),
        (Platform.TIKTOK, IgnoreReason.NO_PERIOD, _airbyte("campaigns_reports_lifetime", lifetime, emitted_ms)),
        (Platform.META, IgnoreReason.MULTI_DAY_PERIOD, _airbyte("ads_insights", week, emitted_ms)),
    )
    return [Draft(METRICS_TOPICS[platform], None, value, reason=reason) for platform, reason, value in bodies]


def _airbyte(stream: str, row: Row, emitted_ms: int) -> bytes:
    return to_json({"stream": stream, "data": row, "emitted_at": emitted_ms})


def _meta_row(day: int) -> Row:
    return meta.ad_row(_run(META_GRAPH, "01"), day, SPECIMEN)


def _part(name: str) -> Part:
    return Part(name, *(getattr(SPECIMEN, field) for field in Part.__dataclass_fields__ if field != "name"))


def _run(account: SimAccount, part: str) -> PlatformCampaign:
    """A platform campaign that no canonical campaign runs as."""
    return PlatformCampaign(
        account, UNUSED_ID[account.platform], "Export test", (part,), 0.01, 0.0, 9.0, 5_000.0, 0.03, 45.0
    )
