"""The wire contract of in-house pullers: what version 1 means, for ever, and how each breach is named."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import canonical
from schemas.calendar import Account, Accounts
from schemas.canonical import CanonicalEvent
from schemas.decode import Reader, decode_record
from schemas.event import Grain, Ignored, IgnoreReason, Kind, MetricEvent, Outcome, RejectCode, Rejection
from schemas.metrics import MAX_COUNT, MAX_MICROS
from schemas.platform import Platform

ARRIVAL = 1_750_000_000_000
HOUR = 3_600_000
T0 = 1_709_596_800_000
"""2024-03-05T00:00Z."""
Json = dict[str, Any]

GOLDEN = {
    b'{"version":1,"kind":"delta","event_id":"e-1","platform":"meta","campaign_id":"120210000000000001",'
    b'"account_id":"77","period_start":1709634600000,"impressions":1000,"clicks":20,"link_clicks":15,'
    b'"spend_micros":12345678,"conversions_micros":1500000,"revenue_micros":98000000,"engagements":31,"video_views":400,'
    b'"currency":"EUR","time_zone":"Europe/Berlin","segments":{"gender":"f","age":"18-24"},"later_field":{"x":[1]}}': (
        MetricEvent(
            Kind.DELTA,
            Platform.META,
            "77",
            "120210000000000001",
            "",
            "",
            "",
            (("age", "18-24"), ("gender", "f")),
            Grain.HOUR,
            19787,
            1_709_634_600_000,
            "Europe/Berlin",
            1_709_634_600_000,
            "e-1",
            "EUR",
            (1000, 20, 15, 12_345_678, 1_500_000, 98_000_000, 31, 400, None, None),
        )
    ),
    b'{"version":1,"kind":"snapshot","platform":"google_ads","campaign_id":"c","ad_group_id":"g","ad_id":"a","report":"r",'
    b'"period_start":"2024-03-10T00:00:00-08:00","period_end":"2024-03-11T00:00:00-07:00",'
    b'"time_zone":"America/Los_Angeles","observed_at":"2024-03-12T00:00:00.250Z","impressions":200,"quality":7.25}': (
        MetricEvent(
            Kind.SNAPSHOT,
            Platform.GOOGLE_ADS,
            "",
            "c",
            "g",
            "a",
            "r",
            (),
            Grain.DAY,
            19792,
            1_710_057_600_000,
            "America/Los_Angeles",
            1_710_201_600_250,
            "",
            "",
            (200, None, None, None, None, None, None, None, 145_000, 200),
        )
    ),
    b'{"platform":"tiktok","kind":"snapshot","version":1,"period_start":1709596800000,"period_end":1709600400000,'
    b'"campaign_id":"7","clicks":null,"spend_micros":0}': (
        MetricEvent(
            Kind.SNAPSHOT,
            Platform.TIKTOK,
            "",
            "7",
            "",
            "",
            "",
            (),
            Grain.HOUR,
            19787,
            1_709_596_800_000,
            "",
            ARRIVAL,
            "",
            "",
            (None, None, None, 0, None, None, None, None, None, None),
        )
    ),
}


def outcome(payload: bytes | Json, accounts: Accounts | None = None, hint: str = "") -> Outcome:
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    reader = Reader(Platform.META, accounts or Accounts())
    (found,) = decode_record(data, reader, arrival_ms=ARRIVAL, account_hint=hint)
    return found


def event(payload: Json, accounts: Accounts | None = None, hint: str = "") -> MetricEvent:
    found = outcome(payload, accounts, hint)
    assert isinstance(found, MetricEvent), found
    return found


def rejection(payload: bytes | Json) -> Rejection:
    found = outcome(payload)
    assert isinstance(found, Rejection), found
    return found


def delta(**changes: object) -> Json:
    fields: Json = {
        "version": 1,
        "kind": "delta",
        "event_id": "e",
        "platform": "meta",
        "campaign_id": "c",
        "period_start": T0,
        "clicks": 1,
    }
    return {name: value for name, value in {**fields, **changes}.items() if value is not ...}


def snapshot(start: int | str, end: int | str | None, **changes: object) -> Json:
    return delta(kind="snapshot", event_id=..., period_start=start, period_end=end, **changes)


@pytest.mark.parametrize(("payload", "expected"), GOLDEN.items())
def test_golden_bytes_of_version_1_decode_for_ever(payload: bytes, expected: MetricEvent) -> None:
    assert outcome(payload) == expected


def test_a_canonical_event_is_recognised_however_it_is_dressed() -> None:
    expected = event(delta())
    assert outcome(json.dumps(delta(), indent=4).encode()) == expected
    assert outcome(json.dumps(delta()).replace("kind", "\\u006bind").encode()) == expected
    assert decode_record(
        json.dumps([delta(), delta(clicks=-1), delta()]).encode(), Reader(Platform.TIKTOK), arrival_ms=ARRIVAL
    ) == [expected, Rejection(RejectCode.NEGATIVE, "clicks must not be negative"), expected]


def test_the_topic_is_only_a_hint() -> None:
    assert event(delta(platform="google_ads")).platform is Platform.GOOGLE_ADS


@given(st.integers(0, MAX_COUNT), st.integers(0, MAX_MICROS), st.none() | st.integers(0, MAX_COUNT))
def test_values_arrive_unchanged(clicks: int, micros: int, views: int | None) -> None:
    found = event(delta(clicks=clicks, spend_micros=micros, video_views=views))
    assert found.values == (None, clicks, None, micros, None, None, None, views, None, None)


@pytest.mark.parametrize(
    ("fields", "code", "said"),
    [
        ({"campaign_id": ...}, RejectCode.MISSING_FIELD, "campaign_id"),
        ({"period_start": ...}, RejectCode.MISSING_FIELD, "period_start"),
        ({"platform": ...}, RejectCode.MISSING_FIELD, "platform"),
        ({"event_id": ...}, RejectCode.MISSING_FIELD, "event_id"),
        ({"event_id": ""}, RejectCode.MISSING_FIELD, "event_id"),
        ({"version": 2}, RejectCode.UNSUPPORTED_VERSION, "version 2"),
        ({"version": 2, "campaign_id": ..., "clicks": "x"}, RejectCode.UNSUPPORTED_VERSION, "version 2"),
        ({"version": "1"}, RejectCode.WRONG_TYPE, "version"),
        ({"version": True}, RejectCode.WRONG_TYPE, "version"),
        ({"kind": "total"}, RejectCode.WRONG_TYPE, "kind"),
        ({"kind": 3}, RejectCode.WRONG_TYPE, "kind"),
        ({"platform": "snapchat"}, RejectCode.UNKNOWN_PLATFORM, "platform"),
        ({"platform": "unknown"}, RejectCode.UNKNOWN_PLATFORM, "platform"),
        ({"campaign_id": ""}, RejectCode.BAD_ID, "campaign_id"),
        ({"campaign_id": "x" * 129}, RejectCode.BAD_ID, "campaign_id"),
        ({"event_id": "x" * 129}, RejectCode.BAD_ID, "event_id"),
        ({"campaign_id": 5}, RejectCode.WRONG_TYPE, "campaign_id"),
        ({"clicks": -1}, RejectCode.NEGATIVE, "clicks"),
        ({"spend_micros": -1}, RejectCode.NEGATIVE, "spend_micros"),
        ({"clicks": MAX_COUNT + 1}, RejectCode.OUT_OF_RANGE, "clicks"),
        ({"clicks": 10**40}, RejectCode.OUT_OF_RANGE, "clicks"),
        ({"revenue_micros": MAX_MICROS + 1}, RejectCode.OUT_OF_RANGE, "revenue_micros"),
        ({"clicks": 1.0}, RejectCode.WRONG_TYPE, "clicks"),
        ({"clicks": "1"}, RejectCode.WRONG_TYPE, "clicks"),
        ({"clicks": True}, RejectCode.WRONG_TYPE, "clicks"),
        ({"clicks": float("nan")}, RejectCode.NOT_A_NUMBER, "NaN"),
        ({"quality": float("inf")}, RejectCode.NOT_A_NUMBER, "Infinity"),
        ({"quality": 0.5}, RejectCode.OUT_OF_RANGE, "quality"),
        ({"quality": 10.5}, RejectCode.OUT_OF_RANGE, "quality"),
        ({"currency": "eur"}, RejectCode.WRONG_TYPE, "currency"),
        ({"currency": "USD\n"}, RejectCode.WRONG_TYPE, "currency"),
        ({"segments": {"age": 5}}, RejectCode.WRONG_TYPE, "segments"),
        ({"segments": []}, RejectCode.WRONG_TYPE, "segments"),
        ({"time_zone": "Mars/Olympus"}, RejectCode.BAD_TIME, "time_zone"),
        ({"time_zone": "../etc/passwd"}, RejectCode.BAD_TIME, "time_zone"),
        ({"period_start": "2024-03-05T00:00:00"}, RejectCode.BAD_TIME, "period_start"),
        ({"period_start": "2024-03-05"}, RejectCode.BAD_TIME, "period_start"),
        ({"period_start": "2024-02-30T00:00:00Z"}, RejectCode.BAD_TIME, "period_start"),
        ({"period_start": "0001-01-01T00:00:00+14:00"}, RejectCode.BAD_TIME, "period_start"),
        ({"period_start": T0 // 1000}, RejectCode.BAD_TIME, "period_start"),
        ({"period_start": 0}, RejectCode.BAD_TIME, "period_start"),
        ({"period_start": -5}, RejectCode.BAD_TIME, "period_start"),
        ({"period_start": 10**40}, RejectCode.BAD_TIME, "period_start"),
        ({"period_start": 4_102_444_800_000}, RejectCode.BAD_TIME, "period_start"),
        ({"period_start": 1.5}, RejectCode.WRONG_TYPE, "period_start"),
        ({"observed_at": "soon"}, RejectCode.BAD_TIME, "observed_at"),
        ({"period_end": T0 - 1}, RejectCode.BAD_PERIOD, "period"),
        ({"period_end": T0 + 24 * HOUR + 1}, RejectCode.BAD_PERIOD, "24 hours"),
    ],
)
@pytest.mark.parametrize("within_a_list", [False, True])
def test_each_breach_has_its_code_and_a_sentence_that_names_the_field(
    fields: Json, code: RejectCode, said: str, within_a_list: bool
) -> None:
    payload = json.dumps([delta(**fields)] if within_a_list else delta(**fields)).encode()
    found = rejection(payload)
    if not (
        within_a_list and 10**40 in fields.values()
    ):  # within a list it has become a float, which is the wrong type
        assert found.code is code
    assert said in found.sentence
    assert len(found.sentence) < 200


def test_an_event_that_carries_no_metric_is_ignored() -> None:
    assert outcome(delta(clicks=None)) == Ignored(IgnoreReason.NO_METRICS)
    assert outcome(delta(clicks=None, quality=5)) == Ignored(IgnoreReason.NO_METRICS)


def test_times_may_be_milliseconds_or_rfc_3339() -> None:
    expected = event(delta(period_end=T0 + HOUR, observed_at=T0 + 250))
    zulu = delta(period_start="2024-03-05T00:00:00Z", period_end=T0 + HOUR, observed_at="2024-03-05T00:00:00.250Z")
    offset = delta(period_start="2024-03-05T05:30:00+05:30", period_end=T0 + HOUR, observed_at=T0 + 250)
    assert event(zulu) == event(offset) == expected
    assert (expected.start_ms, expected.observed_ms) == (T0, T0 + 250)


def test_a_delta_falls_into_its_accounts_local_day_and_keeps_its_instant() -> None:
    start = T0 + 2 * HOUR + 17
    local = event(delta(period_start=start, time_zone="America/New_York"))
    assert (local.day, local.start_ms, local.grain) == (T0 // 86_400_000 - 1, start, Grain.HOUR)
    assert local.observed_ms == start
    assert event(delta(period_start=start)).day == T0 // 86_400_000


def test_zone_and_currency_are_the_events_own_else_the_accounts() -> None:
    accounts = Accounts({"meta:9": Account("Asia/Tokyo", "JPY")})
    known = event(delta(account_id="9"), accounts)
    assert (known.zone, known.currency) == ("Asia/Tokyo", "JPY")
    assert event(delta(), accounts, hint="9") == known
    own = event(delta(account_id="9", time_zone="Europe/Paris", currency="EUR"), accounts)
    assert (own.zone, own.currency) == ("Europe/Paris", "EUR")
    assert (event(delta(), accounts).zone, event(delta(), accounts).currency) == ("", "")
    assert event(delta(), Accounts({"meta:": Account("No/Zone")})).zone == ""


@pytest.mark.parametrize(
    ("start", "end", "zone", "grain"),
    [
        (T0, T0 + 24 * HOUR, "", Grain.DAY),
        ("2024-03-05T00:00:00+09:00", "2024-03-06T00:00:00+09:00", "Asia/Tokyo", Grain.DAY),
        ("2024-03-31T00:00:00+01:00", "2024-04-01T00:00:00+02:00", "Europe/Berlin", Grain.DAY),
        ("2024-10-27T00:00:00+02:00", "2024-10-28T00:00:00+01:00", "Europe/Berlin", Grain.DAY),
        # Midnight does not exist on this date: the day begins at one.
        ("2024-04-26T01:00:00+03:00", "2024-04-27T00:00:00+03:00", "Africa/Cairo", Grain.DAY),
        (T0, T0 + HOUR, "", Grain.HOUR),
        (T0 + 5 * HOUR // 2, T0 + 7 * HOUR // 2, "Asia/Kolkata", Grain.HOUR),
    ],
)
def test_a_snapshot_covers_a_calendar_day_or_an_hour(start: int | str, end: int | str, zone: str, grain: Grain) -> None:
    assert event(snapshot(start, end, time_zone=zone)).grain is grain


@pytest.mark.parametrize(
    ("start", "end", "zone"),
    [
        (T0, T0 + 24 * HOUR, "Asia/Tokyo"),
        (T0 + HOUR, T0 + 25 * HOUR, ""),
        (T0, T0 + 23 * HOUR, ""),
        (T0, T0 + 48 * HOUR, ""),
        ("2024-03-31T00:00:00+01:00", "2024-04-01T00:00:00+01:00", "Europe/Berlin"),
        (T0, T0, ""),
        (T0, T0 - HOUR, ""),
        (T0, T0 + 2 * HOUR, ""),
        (T0 + 60_000, T0 + 60_000 + HOUR, ""),
    ],
)
def test_any_other_period_of_a_snapshot_is_refused(start: int | str, end: int | str, zone: str) -> None:
    assert rejection(snapshot(start, end, time_zone=zone)).code is RejectCode.BAD_PERIOD


def test_a_snapshot_needs_its_end_and_is_observed_on_arrival_by_default() -> None:
    assert rejection(snapshot(T0, None)).code is RejectCode.MISSING_FIELD
    assert event(snapshot(T0, T0 + HOUR)).observed_ms == ARRIVAL


@pytest.mark.parametrize(
    ("quality", "impressions", "expected"),
    [
        (8.5, 200, (170_000, 200)),
        (1, 3, (300, 3)),
        (7.256, 10, (7260, 10)),
        (5, 0, (None, None)),
        (5, None, (None, None)),
    ],
)
def test_quality_is_kept_as_points_and_the_impressions_that_carry_it(
    quality: float, impressions: int | None, expected: tuple[int | None, int | None]
) -> None:
    assert event(delta(quality=quality, impressions=impressions)).values[-2:] == expected


def test_the_contract_has_a_json_schema_with_its_bounds() -> None:
    schema = msgspec.json.schema(CanonicalEvent)["$defs"]["CanonicalEvent"]
    assert set(schema["required"]) == {"version", "kind", "platform", "campaign_id", "period_start"}
    count = schema["properties"]["clicks"]["anyOf"]
    assert {"type": "integer", "minimum": 0, "maximum": MAX_COUNT} in count
    assert schema["properties"]["campaign_id"]["maxLength"] == 128


def test_the_decoder_and_the_mapping_are_usable_alone() -> None:
    payload = next(iter(GOLDEN))
    assert canonical.to_event(canonical.decoder.decode(payload), Accounts(), ARRIVAL) == GOLDEN[payload]
