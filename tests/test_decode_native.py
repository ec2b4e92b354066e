"""Native rows of the three platforms, in every shape in which connectors send them. Real rows where there are any."""

import copy
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from schemas.calendar import Account, Accounts, iso_date, iso_instant
from schemas.decode import Reader, decode_record
from schemas.event import Grain, Ignored, IgnoreReason, Kind, MetricEvent, Outcome, RejectCode, Rejection
from schemas.metrics import METRICS
from schemas.platform import Platform

NATIVE = Path(__file__).parents[2] / "shared" / "native"
ARRIVAL = 1_750_000_000_000
AIRBYTE = {
    Platform.META: "meta/airbyte_ads_insights.jsonl",
    Platform.TIKTOK: "tiktok/airbyte_reports.jsonl",
    Platform.GOOGLE_ADS: "google_ads/airbyte_reports.jsonl",
}
Json = dict[str, Any]


def lines(platform: Platform) -> list[bytes]:
    return (NATIVE / AIRBYTE[platform]).read_bytes().splitlines()


def outcomes(document: object, platform: Platform, accounts: Accounts | None = None, **hints: str) -> list[Outcome]:
    payload = document if isinstance(document, bytes) else json.dumps(document).encode()
    return decode_record(payload, Reader(platform, accounts or Accounts()), arrival_ms=ARRIVAL, **hints)


def one(document: object, platform: Platform, accounts: Accounts | None = None, **hints: str) -> MetricEvent:
    (event,) = outcomes(document, platform, accounts, **hints)
    assert isinstance(event, MetricEvent), event
    return event


def refusal(document: object, platform: Platform) -> RejectCode:
    (outcome,) = outcomes(document, platform)
    assert isinstance(outcome, Rejection), outcome
    return outcome.code


def carried(event: MetricEvent) -> dict[str, int]:
    return {name: value for name, value in zip(METRICS, event.values, strict=True) if value is not None}


def identity(event: MetricEvent) -> tuple[object, ...]:
    return (
        event.platform,
        event.campaign_id,
        event.ad_group_id,
        event.ad_id,
        event.report,
        event.segments,
        event.grain,
        event.day,
        event.start_ms,
    )


def record_of(platform: Platform, stream: str, index: int = 0) -> Json:
    found = [record for line in lines(platform) if (record := json.loads(line))["stream"] == stream]
    return copy.deepcopy(found[index])


def meta(**changes: object) -> Json:
    row: Json = {
        "account_id": "1",
        "campaign_id": "23846765228240398",
        "date_start": "2024-03-05",
        "date_stop": "2024-03-05",
        "impressions": "100",
    }
    return {**row, **changes}


def tiktok(metrics: Json | None = None, **dimensions: object) -> Json:
    return {
        "dimensions": {"campaign_id": "7", "stat_time_day": "2024-03-05 00:00:00", **dimensions},
        "metrics": {"impressions": "100"} if metrics is None else metrics,
    }


def google(**changes: object) -> Json:
    row: Json = {"campaign.id": 9, "segments.date": "2024-03-05", "metrics.impressions": 100}
    return {**row, **{name.replace("__", "."): value for name, value in changes.items()}}


@pytest.mark.parametrize(
    ("platform", "events", "ignored"),
    [
        (Platform.META, 38, {IgnoreReason.NO_CAMPAIGN: 2}),
        (Platform.TIKTOK, 39, {IgnoreReason.NO_PERIOD: 9, IgnoreReason.ACCOUNT_LEVEL: 17}),
        (
            Platform.GOOGLE_ADS,
            12,
            {IgnoreReason.ACCOUNT_LEVEL: 6, IgnoreReason.NO_CAMPAIGN: 3, IgnoreReason.NO_METRICS: 6},
        ),
    ],
)
def test_every_real_airbyte_record_is_an_event_or_ignored_for_a_reason(
    platform: Platform, events: int, ignored: dict[IgnoreReason, int]
) -> None:
    found = [outcome for line in lines(platform) for outcome in outcomes(line, platform)]
    reasons = [outcome.reason for outcome in found if isinstance(outcome, Ignored)]
    assert [outcome for outcome in found if isinstance(outcome, Rejection)] == []
    assert {reason: reasons.count(reason) for reason in set(reasons)} == ignored
    decoded = [outcome for outcome in found if isinstance(outcome, MetricEvent)]
    assert len(decoded) == events
    assert len({identity(event) for event in decoded}) == events, (
        "two rows that the platform reports apart share identity"
    )


@pytest.mark.parametrize("platform", AIRBYTE)
def test_real_records_keep_their_sums(platform: Platform) -> None:
    """Impressions, clicks and money of all events equal sums over the raw JSON, taken with other means."""
    names: dict[Platform, tuple[str, str, str, str, Decimal | int]] = {
        Platform.META: ("data", "impressions", "clicks", "spend", 1),
        Platform.TIKTOK: ("metrics", "impressions", "clicks", "spend", 1),
        Platform.GOOGLE_ADS: ("data", "metrics.impressions", "metrics.clicks", "metrics.cost_micros", Decimal("1e-6")),
    }
    place, impressions, clicks, money, unit = names[platform]
    raw = [Decimal(0)] * 3
    ours = [0] * 3
    for line in lines(platform):
        (outcome,) = outcomes(line, platform)
        if not isinstance(outcome, MetricEvent):
            continue
        data = json.loads(line, parse_float=Decimal)["data"]
        row = data if place == "data" else data["metrics"]
        for index, name in enumerate((impressions, clicks, money)):
            raw[index] += Decimal(row.get(name) or 0) * (unit if index == 2 else 1)
        values = carried(outcome)
        for index, name in enumerate(("impressions", "clicks", "spend_micros")):
            ours[index] += values.get(name, 0)
    assert raw[0] > 0
    assert ours == [raw[0], raw[1], raw[2] * 1_000_000]


def test_a_real_graph_api_body_gives_one_event_a_row() -> None:
    first, second = outcomes((NATIVE / "meta/graph_api_body.json").read_bytes(), Platform.META)
    assert isinstance(first, MetricEvent)
    assert isinstance(second, MetricEvent)
    assert first.ad_id == second.ad_id == "23854695759200548"
    assert first.segments == (("product_id", "5983858725075630"),)
    assert second.segments == (("product_id", "6023934044385671"),)
    assert carried(first) == {
        "impressions": 185,
        "clicks": 9,
        "link_clicks": 9,
        "spend_micros": 14_350_000,
        "engagements": 10,
    }
    assert (second.currency, iso_date(second.day), second.observed_ms) == ("USD", "2023-06-01", ARRIVAL)


def test_a_real_tiktok_envelope_gives_hours() -> None:
    first, second = outcomes((NATIVE / "tiktok/report_envelope_hourly.json").read_bytes(), Platform.TIKTOK)
    assert isinstance(first, MetricEvent)
    assert isinstance(second, MetricEvent)
    assert (first.grain, iso_instant(first.start_ms)) == (Grain.HOUR, "2024-01-01T09:00:00.000Z")
    assert iso_instant(second.start_ms) == "2024-01-01T10:00:00.000Z"
    assert (second.account_id, second.campaign_id, second.zone) == ("872746382648", "11111111", "")
    assert carried(second) == {
        "impressions": 4696,
        "clicks": 51,
        "spend_micros": 20_000_000,
        "engagements": 18,
        "video_views": 4179,
    }


def test_a_real_google_rest_row() -> None:
    event = one((NATIVE / "google_ads/rest_row.json").read_bytes(), Platform.GOOGLE_ADS)
    assert (event.account_id, event.campaign_id, event.ad_group_id) == ("1234567890", "700001", "400001")
    assert carried(event) == {"spend_micros": 1_000_000}


def test_a_real_restatement_keeps_identity_and_changes_values() -> None:
    """Fact 1 and 2: no version on the rows; the pull time orders them."""
    rows = json.loads((NATIVE / "google_ads/restated_pairs.json").read_bytes())
    events = [
        one({"stream": "ad", "data": row, "emitted_at": row["emitted_at_ms"]}, Platform.GOOGLE_ADS) for row in rows
    ]
    early, late = (event for event in events if iso_date(event.day) == "2024-01-01")
    assert identity(early) == identity(late)
    assert early.observed_ms < late.observed_ms == 1_707_926_876_046
    assert carried(early) == {
        "impressions": 257,
        "clicks": 37,
        "spend_micros": 328_930_000,
        "conversions_micros": 13_295_535,
        "revenue_micros": 1_129_553_500,
    }
    changed = {"conversions_micros": 15_295_535, "revenue_micros": 1_184_553_500}
    assert carried(late) == {**carried(early), **changed}
    assert (late.zone, iso_instant(late.start_ms)) == ("America/Los_Angeles", "2024-01-01T08:00:00.000Z")


def test_the_envelope_says_stream_and_pull_time() -> None:
    event = one(record_of(Platform.META, "ads_insights_country"), Platform.META)
    assert (event.kind, event.report, event.observed_ms) == (Kind.SNAPSHOT, "ads_insights_country", 1_712_659_720_257)
    assert event.segments == (("country", "US"),)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda row: {"stream": "s", "data": row, "emitted_at": 1_709_683_200_500},
        lambda row: {"stream": "s", "namespace": "n", "data": row, "emitted_at": "2024-03-06T00:00:00.5Z"},
        lambda row: {"type": "RECORD", "record": {"stream": "s", "data": row, "emitted_at": 1_709_683_200_500}},
        lambda row: {"type": "RECORD", "stream": "s", "record": row, "time_extracted": "2024-03-06T01:00:00.500+01:00"},
        lambda row: {"_airbyte_stream": "s", "_airbyte_emitted_at": 1_709_683_200_500, "_airbyte_data": row},
    ],
    ids=["airbyte", "airbyte-rfc3339", "airbyte-protocol", "singer", "airbyte-kafka"],
)
@pytest.mark.parametrize(
    ("platform", "row"),
    [(Platform.META, meta()), (Platform.TIKTOK, tiktok()), (Platform.GOOGLE_ADS, google())],
    ids=["meta", "tiktok", "google"],
)
def test_all_envelopes_give_the_same_event(wrap: Any, platform: Platform, row: Json) -> None:
    event = one(wrap(row), platform)
    assert (event.report, event.observed_ms, event.values[0]) == ("s", 1_709_683_200_500, 100)
    bare = one(row, platform)
    assert (bare.report, bare.observed_ms) == ("", ARRIVAL)
    assert bare.values == event.values


def test_singers_meta_rows_keep_strings_and_dates_with_a_time() -> None:
    row = meta(date_start="2024-03-05T00:00:00.000000Z", date_stop="2024-03-05T00:00:00.000000Z", spend="1.50")
    event = one({"type": "RECORD", "stream": "ads_insights", "record": row, "version": 1}, Platform.META)
    assert (iso_date(event.day), carried(event)["spend_micros"]) == ("2024-03-05", 1_500_000)


@pytest.mark.parametrize("kind", ["STATE", "SCHEMA", "LOG", "TRACE", "ACTIVATE_VERSION", "CONNECTION_STATUS"])
def test_protocol_messages_are_ignored(kind: str) -> None:
    document = {"type": kind, "stream": "s", "value": {}, "version": 1}
    assert outcomes(document, Platform.META) == [Ignored(IgnoreReason.CONTROL_MESSAGE)]


@pytest.mark.parametrize(
    ("platform", "document"),
    [
        (Platform.META, {"data": [], "paging": {}}),
        (Platform.TIKTOK, {"code": 0, "message": "OK", "data": {"list": [], "page_info": {}}}),
        (Platform.TIKTOK, {"code": 0, "message": "OK", "data": {}}),
        (Platform.GOOGLE_ADS, {"results": []}),
        (Platform.GOOGLE_ADS, {"fieldMask": "campaign.id", "requestId": "x"}),
        (Platform.GOOGLE_ADS, [{"fieldMask": "campaign.id", "requestId": "x"}]),
        (Platform.GOOGLE_ADS, []),
    ],
)
def test_a_report_without_rows_is_ignored(platform: Platform, document: object) -> None:
    assert outcomes(document, platform) == [Ignored(IgnoreReason.EMPTY_REPORT)]


@pytest.mark.parametrize(
    ("platform", "document", "said"),
    [
        (Platform.META, {"error": {"message": "token EAAB", "type": "OAuthException", "code": 190}}, "code 190"),
        (Platform.TIKTOK, {"code": 40105, "message": "token EAAB", "data": {}}, "40105"),
        (Platform.GOOGLE_ADS, {"error": {"code": 401, "message": "EAAB", "status": "UNAUTHENTICATED"}}, "401"),
        (Platform.GOOGLE_ADS, [{"error": {"code": 400, "status": "INVALID_ARGUMENT"}}], "INVALID_ARGUMENT"),
    ],
)
def test_an_error_answer_is_rejected_without_its_message(platform: Platform, document: object, said: str) -> None:
    (outcome,) = outcomes(document, platform)
    assert isinstance(outcome, Rejection)
    assert outcome.code is RejectCode.PLATFORM_ERROR
    assert said in outcome.sentence
    assert "EAAB" not in outcome.sentence


def test_one_bad_row_of_a_body_is_rejected_alone_and_in_its_place() -> None:
    document = {"data": [meta(ad_id="1"), meta(ad_id="2", clicks=-1), 7, meta(ad_id="3")]}
    first, negative, no_object, last = outcomes(document, Platform.META)
    assert isinstance(first, MetricEvent)
    assert isinstance(last, MetricEvent)
    assert isinstance(negative, Rejection)
    assert isinstance(no_object, Rejection)
    assert (first.ad_id, negative.code, no_object.code, last.ad_id) == (
        "1",
        RejectCode.NEGATIVE,
        RejectCode.NOT_AN_OBJECT,
        "3",
    )


@pytest.mark.parametrize(
    "document",
    [
        [google(campaign__id=1), google(campaign__id=2)],
        {"results": [google(campaign__id=1), google(campaign__id=2)], "fieldMask": "x"},
        [{"results": [google(campaign__id=1)]}, {"results": [google(campaign__id=2)]}, {"requestId": "x"}],
    ],
    ids=["array of rows", "search", "searchStream"],
)
def test_bodies_of_many_google_rows(document: object) -> None:
    found = outcomes(document, Platform.GOOGLE_ADS)
    assert [event.campaign_id for event in found if isinstance(event, MetricEvent)] == ["1", "2"]
    assert len(found) == 2


def test_another_platforms_row_is_refused_by_name() -> None:
    (outcome,) = outcomes(google(), Platform.META)
    assert outcome == Rejection(
        RejectCode.UNKNOWN_SHAPE, "the row has the columns of Google Ads, but the topic is of Meta"
    )
    assert refusal(meta(), Platform.TIKTOK) is RejectCode.UNKNOWN_SHAPE
    assert refusal(tiktok(), Platform.GOOGLE_ADS) is RejectCode.UNKNOWN_SHAPE
    assert refusal({"hello": 1}, Platform.META) is RejectCode.UNKNOWN_SHAPE


def test_without_a_topic_the_columns_tell_the_platform() -> None:
    for platform, row in {Platform.META: meta(), Platform.TIKTOK: tiktok(), Platform.GOOGLE_ADS: google()}.items():
        assert one(row, Platform.UNKNOWN).platform is platform
    assert refusal({"campaign_id": "1", "clicks": 1}, Platform.UNKNOWN) is RejectCode.UNKNOWN_PLATFORM


def test_ids_above_2_to_the_53_stay_exact() -> None:
    """Fact 8."""
    event = one(tiktok(campaign_id=7_002_238_017_842_757_633, adgroup_id="7002238017842757635"), Platform.TIKTOK)
    assert (event.campaign_id, event.ad_group_id) == ("7002238017842757633", "7002238017842757635")
    record = record_of(Platform.TIKTOK, "ads_reports_daily")
    event = one(record, Platform.TIKTOK)
    assert event.ad_id == str(record["data"]["ad_id"])


@pytest.mark.parametrize("bad", [2.4e16, 1.5, True, [], {}, -5, "a\nb", " ", "x" * 129, 2**70])
def test_what_is_no_id_is_refused(bad: object) -> None:
    assert refusal(meta(campaign_id=bad), Platform.META) is RejectCode.BAD_ID
    assert refusal(tiktok(campaign_id=bad), Platform.TIKTOK) is RejectCode.BAD_ID
    assert refusal(google(campaign__id=bad), Platform.GOOGLE_ADS) is RejectCode.BAD_ID


def test_levels_follow_from_the_ids() -> None:
    assert outcomes(meta(campaign_id=None), Platform.META) == [Ignored(IgnoreReason.ACCOUNT_LEVEL)]
    assert outcomes(meta(campaign_id=None, ad_id="5"), Platform.META) == [Ignored(IgnoreReason.NO_CAMPAIGN)]
    event = one(meta(adset_id="4", ad_id="5"), Platform.META)
    assert (event.ad_group_id, event.ad_id) == ("4", "5")
    nameless = {"date_start": "2024-03-05", "impressions": 1}
    assert refusal(nameless, Platform.META) is RejectCode.MISSING_FIELD


def test_the_account_comes_from_the_row_else_from_the_header() -> None:
    assert one(meta(account_id="act_77"), Platform.META, account_hint="9").account_id == "77"
    assert one(tiktok(), Platform.TIKTOK, account_hint="9").account_id == "9"
    assert one(google(**{"customer.id": "123-456-7890"}), Platform.GOOGLE_ADS).account_id == "1234567890"


def test_google_ids_come_from_resource_names_where_columns_lack() -> None:
    row = google(campaign__id=None, ad_group__id=4, ad_group__campaign="customers/12/campaigns/34")
    event = one(row, Platform.GOOGLE_ADS)
    assert (event.account_id, event.campaign_id, event.ad_group_id) == ("12", "34", "4")


@pytest.mark.parametrize(
    "name",
    [
        "age",
        "gender",
        "country",
        "region",
        "dma",
        "device_platform",
        "publisher_platform",
        "platform_position",
        "impression_device",
        "product_id",
        "frequency_value",
        "place_page_id",
        "hourly_stats_aggregated_by_audience_time_zone",
    ],
)
def test_metas_breakdowns_are_segments(name: str) -> None:
    """Fact 5."""
    event = one(meta(**{name: "x", "campaign_name": "attribute"}), Platform.META)
    assert (event.segments, event.grain) == (((name, "x"),), Grain.DAY)


def test_metas_assets_are_told_apart_by_id() -> None:
    event = one(meta(body_asset={"id": "3", "text": "may be edited"}, age="18-24"), Platform.META)
    assert event.segments == (("age", "18-24"), ("body_asset", "3"))


def test_tiktoks_dimensions_are_segments_whatever_their_name() -> None:
    event = one(tiktok(zz_new="v", gender="MALE", ac=None, ad_id="5", advertiser_id=6), Platform.TIKTOK)
    assert event.segments == (("ac", ""), ("gender", "MALE"), ("zz_new", "v"))


def test_googles_segments_exclude_what_follows_from_the_date() -> None:
    event = one(record_of(Platform.GOOGLE_ADS, "ad_group_ad_legacy"), Platform.GOOGLE_ADS)
    assert event.segments == (("ad_network_type", "SEARCH"),)
    row = google(segments__device="MOBILE", segments__conversion_action="c", segments__week="2024-03-04")
    assert one(row, Platform.GOOGLE_ADS).segments == (("conversion_action", "c"), ("device", "MOBILE"))


def test_googles_keywords_and_places_are_segments() -> None:
    event = one(record_of(Platform.GOOGLE_ADS, "keyword_view"), Platform.GOOGLE_ADS)
    assert event.segments == (("ad_group_criterion.criterion_id", "18697003"),)
    row = google(geographic_view__country_criterion_id=2840, geographic_view__location_type="AREA_OF_INTEREST")
    assert one(row, Platform.GOOGLE_ADS).segments == (
        ("geographic_view.country_criterion_id", "2840"),
        ("geographic_view.location_type", "AREA_OF_INTEREST"),
    )


@pytest.mark.parametrize(
    "row",
    [
        {
            "customer.id": 12,
            "campaign.id": 34,
            "ad_group.id": 56,
            "ad_group_ad.ad.id": 78,
            "segments.date": "2024-03-05",
            "segments.hour": 7,
            "segments.ad_network_type": "SEARCH",
            "metrics.cost_micros": 790000,
            "metrics.conversions_value": 2.5,
            "customer.time_zone": "Europe/Berlin",
            "customer.currency_code": "EUR",
            "metrics.video_views": 3,
        },
        {
            "customer": {"id": "12", "timeZone": "Europe/Berlin", "currencyCode": "EUR"},
            "campaign": {"id": "34"},
            "adGroup": {"id": "56"},
            "adGroupAd": {"ad": {"id": "78"}},
            "segments": {"date": "2024-03-05", "hour": 7, "adNetworkType": "SEARCH"},
            "metrics": {"costMicros": "790000", "conversionsValue": 2.5, "videoTrueviewViews": "3"},
        },
        {
            "customer__id": "12",
            "campaign__id": "34",
            "adGroup__id": "56",
            "adGroupAd__ad__id": "78",
            "segments__date": "2024-03-05",
            "segments__hour": 7,
            "segments__adNetworkType": "SEARCH",
            "metrics__costMicros": "790000",
            "metrics__conversionsValue": 2.5,
            "customer__timeZone": "Europe/Berlin",
            "customer__currencyCode": "EUR",
            "metrics__videoViews": "3",
        },
        {
            "customer_id": 12,
            "campaign_id": 34,
            "ad_group_id": 56,
            "ad_id": 78,
            "date": "2024-03-05",
            "hour": 7,
            "ad_network_type": "SEARCH",
            "cost_micros": 790000,
            "conversions_value": 2.5,
            "video_trueview_views": 3,
            "customer_time_zone": "Europe/Berlin",
            "currency_code": "EUR",
            "_fivetran_id": "x",
        },
    ],
    ids=["airbyte", "rest", "singer", "fivetran"],
)
def test_every_spelling_of_googles_fields_gives_the_same_event(row: Json) -> None:
    """Facts 11 and 13 beside it: cost is in micros, video views have two names."""
    event = one(row, Platform.GOOGLE_ADS)
    assert (event.account_id, event.campaign_id, event.ad_group_id, event.ad_id) == ("12", "34", "56", "78")
    assert (event.zone, event.currency, event.segments) == (
        "Europe/Berlin",
        "EUR",
        (("ad_network_type", "SEARCH"),),
    )
    assert (event.grain, iso_instant(event.start_ms)) == (Grain.HOUR, "2024-03-05T06:00:00.000Z")
    assert carried(event) == {"spend_micros": 790_000, "revenue_micros": 2_500_000, "video_views": 3}


def test_a_date_is_of_the_accounts_zone_where_it_is_known() -> None:
    """Fact 10."""
    accounts = Accounts({"meta:1": Account("Asia/Tokyo", "JPY"), "tiktok:": Account("America/New_York", "USD")})
    known = one(meta(), Platform.META, accounts)
    assert (known.zone, known.currency, iso_instant(known.start_ms)) == (
        "Asia/Tokyo",
        "JPY",
        "2024-03-04T15:00:00.000Z",
    )
    assumed = one(meta(), Platform.META)
    assert (assumed.zone, assumed.currency, iso_instant(assumed.start_ms)) == ("", "", "2024-03-05T00:00:00.000Z")
    assert assumed.day == known.day
    assert one(tiktok(), Platform.TIKTOK, accounts).zone == "America/New_York"


def test_the_rows_own_zone_and_currency_win() -> None:
    accounts = Accounts({"tiktok:": Account("America/New_York", "USD")})
    row = tiktok({"impressions": "1", "timezone": "Asia/Jakarta", "currency": "IDR"})
    event = one(row, Platform.TIKTOK, accounts)
    assert (event.zone, event.currency) == ("Asia/Jakarta", "IDR")
    row = tiktok({"impressions": "1", "timezone": "no zone", "currency": "-"})
    event = one(row, Platform.TIKTOK, accounts)
    assert (event.zone, event.currency) == ("America/New_York", "USD")


def test_a_setting_that_names_no_zone_is_as_good_as_none() -> None:
    accounts = Accounts({"meta:1": Account("Mars/Olympus", "USD")})
    assert one(meta(), Platform.META, accounts).zone == ""


def test_hours_of_each_platform() -> None:
    accounts = Accounts({"meta:": Account("Asia/Kolkata"), "tiktok:": Account("Asia/Kolkata")})
    row = meta(hourly_stats_aggregated_by_advertiser_time_zone="09:00:00 - 09:59:59")
    event = one(row, Platform.META, accounts)
    assert (event.grain, iso_instant(event.start_ms)) == (Grain.HOUR, "2024-03-05T03:30:00.000Z")
    assert event.segments == ()
    row = tiktok(stat_time_hour="2024-03-05 09:00:00", stat_time_day=None)
    assert one(row, Platform.TIKTOK, accounts).start_ms == event.start_ms
    event = one(record_of(Platform.GOOGLE_ADS, "campaign"), Platform.GOOGLE_ADS)
    assert (event.grain, iso_instant(event.start_ms)) == (Grain.HOUR, "2022-05-18T01:00:00.000Z")


@pytest.mark.parametrize(
    ("platform", "document", "reason"),
    [
        (Platform.META, meta(date_start=None, date_stop=None), IgnoreReason.NO_PERIOD),
        (Platform.META, meta(date_stop="2024-03-11"), IgnoreReason.MULTI_DAY_PERIOD),
        (Platform.TIKTOK, tiktok(stat_time_day=None), IgnoreReason.NO_PERIOD),
        (Platform.GOOGLE_ADS, google(segments__date=None, segments__month="2024-03-01"), IgnoreReason.NO_PERIOD),
        (Platform.META, meta(impressions=None), IgnoreReason.NO_METRICS),
    ],
)
def test_rows_without_one_day_or_without_metrics_are_ignored(
    platform: Platform, document: Json, reason: IgnoreReason
) -> None:
    assert outcomes(document, platform) == [Ignored(reason)]


@pytest.mark.parametrize(
    ("platform", "document", "code"),
    [
        (Platform.META, meta(date_start="2024-02-30"), RejectCode.BAD_TIME),
        (Platform.META, meta(date_start="2024-W01-1"), RejectCode.BAD_TIME),
        (Platform.META, meta(date_start="1999-12-31"), RejectCode.BAD_TIME),
        (Platform.META, meta(date_start="2100-01-01"), RejectCode.BAD_TIME),
        (Platform.META, meta(date_start=20240305), RejectCode.BAD_TIME),
        (Platform.META, meta(date_start="2024-03-05T09:00:00Z"), RejectCode.BAD_TIME),
        (Platform.META, meta(date_stop="2024-03-04"), RejectCode.BAD_PERIOD),
        (Platform.META, meta(hourly_stats_aggregated_by_advertiser_time_zone="25"), RejectCode.BAD_TIME),
        (Platform.TIKTOK, tiktok(stat_time_hour="2024-03-05 24:00:00"), RejectCode.BAD_TIME),
        (Platform.TIKTOK, tiktok(stat_time_hour="2024-03-05 09:30:00"), RejectCode.BAD_TIME),
        (Platform.GOOGLE_ADS, google(segments__hour=24), RejectCode.BAD_TIME),
        (Platform.META, {"stream": "s", "data": meta(), "emitted_at": 1_709_683_200}, RejectCode.BAD_TIME),
        (Platform.META, {"stream": "s", "data": meta(), "emitted_at": "2024-03-06T00:00:00"}, RejectCode.BAD_TIME),
        (Platform.META, {"stream": "s", "data": meta(), "emitted_at": 1.7e12}, RejectCode.BAD_TIME),
        (Platform.META, {"stream": 5, "data": meta()}, RejectCode.WRONG_TYPE),
        (Platform.META, {"stream": "s", "data": [1]}, RejectCode.WRONG_TYPE),
    ],
)
def test_impossible_times_and_envelopes_are_refused(platform: Platform, document: Json, code: RejectCode) -> None:
    assert refusal(document, platform) is code


def test_ratios_of_a_row_are_never_read() -> None:
    """Fact 3: a row whose ratios lie decodes to the same values."""
    record = record_of(Platform.META, "ads_insights_country")
    honest = one(record, Platform.META)
    record["data"] |= {"ctr": 99.0, "cpc": "nonsense", "cpm": -1, "frequency": None}
    assert one(record, Platform.META) == honest


def test_metas_two_kinds_of_clicks_are_kept_apart() -> None:
    """Fact 4."""
    assert carried(one(meta(clicks="7", inline_link_clicks="4"), Platform.META)) == {
        "impressions": 100,
        "clicks": 7,
        "link_clicks": 4,
    }
    listed = meta(actions=[{"action_type": "link_click", "value": "3"}])
    assert carried(one(listed, Platform.META))["link_clicks"] == 3


def test_one_meta_action_type_is_taken_and_never_a_sum_of_variants() -> None:
    """Fact 6; revenue comes from the type that the conversions come from."""
    actions = [
        {"action_type": "offsite_conversion.fb_pixel_purchase", "value": "3"},
        {"action_type": "purchase", "value": 3.0},
        {"action_type": "lead", "value": "40"},
        {"action_type": "video_view", "value": "12"},
        {"action_type": "post_engagement", "value": "20"},
    ]
    values = [
        {"action_type": "offsite_conversion.fb_pixel_purchase", "value": "61.50"},
        {"action_type": "purchase", "value": "61.5"},
    ]
    assert carried(one(meta(actions=actions, action_values=values), Platform.META)) == {
        "impressions": 100,
        "conversions_micros": 3_000_000,
        "revenue_micros": 61_500_000,
        "video_views": 12,
        "engagements": 20,
    }
    leads = carried(one(meta(actions=[{"action_type": "lead", "value": "2"}], action_values=values[:0]), Platform.META))
    assert leads == {"impressions": 100, "conversions_micros": 2_000_000}


def test_entries_that_an_action_breakdown_splits_are_summed() -> None:
    actions = [
        {"action_type": "purchase", "action_device": "desktop", "value": "1"},
        {"action_type": "purchase", "action_device": "iphone", "value": "2"},
    ]
    assert carried(one(meta(actions=actions), Platform.META))["conversions_micros"] == 3_000_000


def test_absent_is_not_zero() -> None:
    """Fact 7."""
    assert carried(one(meta(clicks=0), Platform.META)) == {"impressions": 100, "clicks": 0}
    assert carried(one(meta(clicks=None, spend=""), Platform.META)) == {"impressions": 100}
    row = tiktok({"impressions": "5", "clicks": "-", "spend": None, "conversion": "-", "likes": "-"})
    assert carried(one(row, Platform.TIKTOK)) == {"impressions": 5}


def test_zero_decimal_money_has_no_point_and_is_in_units() -> None:
    """Facts 7 and 11."""
    assert carried(one(tiktok({"spend": "6865538"}), Platform.TIKTOK)) == {"spend_micros": 6_865_538_000_000}


@pytest.mark.parametrize(
    ("money", "micros"),
    [
        (0.72, 720_000),
        ("14.35", 14_350_000),
        (0.1 + 0.2, 300_000),
        ("0.0000005", 0),
        ("0.0000015", 2),
        ("1e-3", 1000),
        (12, 12_000_000),
        (1e9, 10**15),
        ("10000000000", 10**16),
    ],
)
def test_money_goes_through_decimal_and_rounds_half_to_even(money: object, micros: int) -> None:
    assert carried(one(meta(spend=money), Platform.META))["spend_micros"] == micros


def test_conversions_may_be_fractional_and_exceed_clicks() -> None:
    """Fact 9."""
    row = google(metrics__clicks=1, metrics__conversions=13.295535, metrics__conversions_value=1129.5535)
    assert carried(one(row, Platform.GOOGLE_ADS)) == {
        "impressions": 100,
        "clicks": 1,
        "conversions_micros": 13_295_535,
        "revenue_micros": 1_129_553_500,
    }


@pytest.mark.parametrize(
    ("rankings", "points"),
    [
        ({"quality_ranking": "ABOVE_AVERAGE"}, 850),
        ({"quality_ranking": "AVERAGE", "engagement_rate_ranking": "UNKNOWN"}, 550),
        ({"quality_ranking": "BELOW_AVERAGE_35", "conversion_rate_ranking": "BELOW_AVERAGE_20"}, 275),
        ({"engagement_rate_ranking": "BELOW_AVERAGE_10"}, 100),
    ],
)
def test_metas_rankings_become_a_signal_weighted_by_impressions(rankings: Json, points: int) -> None:
    """Fact 12."""
    values = carried(one(meta(**rankings), Platform.META))
    assert (values["quality_points"], values["quality_impressions"]) == (points * 100, 100)


def test_without_a_signal_or_without_impressions_there_is_no_quality() -> None:
    """Fact 12."""
    assert "quality_points" not in carried(one(meta(quality_ranking="UNKNOWN"), Platform.META))
    assert "quality_points" not in carried(one(meta(quality_ranking="AVERAGE", impressions=0), Platform.META))
    assert "quality_points" not in carried(one(google(metrics__historical_quality_score=0), Platform.GOOGLE_ADS))
    scored = carried(one(google(metrics__historical_quality_score="7"), Platform.GOOGLE_ADS))
    assert (scored["quality_points"], scored["quality_impressions"]) == (70_000, 100)


def test_tiktoks_campaign_level_carries_no_conversions() -> None:
    """Fact 14."""
    campaign = carried(one(record_of(Platform.TIKTOK, "campaigns_reports_daily"), Platform.TIKTOK))
    assert "conversions_micros" not in campaign
    assert "revenue_micros" not in campaign
    ad = carried(one(record_of(Platform.TIKTOK, "ads_reports_daily"), Platform.TIKTOK))
    assert ad == {
        "impressions": 5830,
        "clicks": 69,
        "spend_micros": 20_000_000,
        "conversions_micros": 0,
        "revenue_micros": 0,
        "engagements": 36,
        "video_views": 5173,
    }


def test_tiktoks_revenue_is_the_first_value_that_is_not_zero() -> None:
    row = tiktok({"total_complete_payment_rate": "0.00", "total_purchase_value": "9.50", "complete_payment_roas": "3"})
    assert carried(one(row, Platform.TIKTOK)) == {"revenue_micros": 9_500_000}


def test_a_flat_tiktok_row_is_the_same_as_a_nested_one() -> None:
    flat = {"stat_time_day": "2024-03-05", "campaign_id": "7", "gender": "MALE", "impressions": "100", "likes": 2}
    event = one(flat, Platform.TIKTOK)
    assert event == one(tiktok({"impressions": "100", "likes": 2}, gender="MALE"), Platform.TIKTOK)


@pytest.mark.parametrize("platform", AIRBYTE)
@pytest.mark.parametrize(
    ("value", "code"),
    [
        (-1, RejectCode.NEGATIVE),
        ("-0.5", RejectCode.NEGATIVE),
        ("NaN", RejectCode.NOT_A_NUMBER),
        ("-Infinity", RejectCode.NOT_A_NUMBER),
        ("inf", RejectCode.NOT_A_NUMBER),
        (2**63, RejectCode.OUT_OF_RANGE),
        (2**80, RejectCode.OUT_OF_RANGE),
        ("1e400", RejectCode.OUT_OF_RANGE),
        (True, RejectCode.WRONG_TYPE),
        ("1,234", RejectCode.WRONG_TYPE),
        ("1_000", RejectCode.WRONG_TYPE),
        ("١٢", RejectCode.WRONG_TYPE),
        ("9" * 65, RejectCode.WRONG_TYPE),
        ({}, RejectCode.WRONG_TYPE),
        ([1], RejectCode.WRONG_TYPE),
    ],
)
def test_numbers_that_cannot_be_are_refused(platform: Platform, value: object, code: RejectCode) -> None:
    rows = {
        Platform.META: [meta(impressions=value), meta(spend=value)],
        Platform.TIKTOK: [tiktok({"clicks": value}), tiktok({"spend": value})],
        Platform.GOOGLE_ADS: [google(metrics__clicks=value), google(metrics__conversions=value)],
    }
    assert [refusal(row, platform) for row in rows[platform]] == [code, code]


@pytest.mark.parametrize("value", [1.5, "1.5", 0.1])
def test_counts_are_whole(value: object) -> None:
    assert refusal(meta(clicks=value), Platform.META) is RejectCode.WRONG_TYPE
    assert carried(one(meta(clicks=9.0), Platform.META))["clicks"] == 9
    assert carried(one(meta(clicks="9.0"), Platform.META))["clicks"] == 9


def test_actions_of_the_wrong_make_are_refused() -> None:
    malformed: list[object] = [{}, "x", [1], [None]]
    for actions in malformed:
        assert refusal(meta(actions=actions), Platform.META) is RejectCode.WRONG_TYPE
    huge = [{"action_type": "purchase", "value": "9e9"}] * 2
    assert refusal(meta(actions=huge), Platform.META) is RejectCode.OUT_OF_RANGE
    assert carried(one(meta(actions=[{"action_type": ["x"]}, {"value": 1}]), Platform.META)) == {"impressions": 100}


def test_a_sentence_shows_at_most_60_characters_of_a_value() -> None:
    (outcome,) = outcomes(orjson.dumps(meta(clicks="x" * 5000)), Platform.META)
    assert isinstance(outcome, Rejection)
    assert outcome.sentence.startswith("clicks must be a number")
    assert "x" * 50 in outcome.sentence
    assert "x" * 61 not in outcome.sentence
