"""Any bytes give at least one outcome, never an exception, and poison is named for what it is."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.calendar import Account, Accounts
from schemas.decode import Reader, decode_record
from schemas.event import Ignored, IgnoreReason, MetricEvent, Outcome, RejectCode, Rejection
from schemas.metrics import MAX_MICROS, WIDTH
from schemas.platform import Platform

NATIVE = Path(__file__).parents[2] / "shared" / "native"
ARRIVAL = 1_750_000_000_000
PLATFORMS = [Platform.META, Platform.TIKTOK, Platform.GOOGLE_ADS, Platform.UNKNOWN]
ACCOUNTS = Accounts({"meta:": Account("Asia/Tokyo", "JPY"), "tiktok:": Account("Not/A_Zone", "")})


def decode(payload: bytes | None, platform: Platform = Platform.META, **limits: int) -> list[Outcome]:
    return decode_record(payload, Reader(platform, ACCOUNTS, **limits), arrival_ms=ARRIVAL)


def code_of(payload: bytes, platform: Platform = Platform.META, **limits: int) -> RejectCode:
    (outcome,) = decode(payload, platform, **limits)
    assert isinstance(outcome, Rejection), outcome
    assert 0 < len(outcome.sentence) < 400
    return outcome.code


def check(outcomes: list[Outcome]) -> None:
    """What holds for all outcomes of any bytes."""
    assert outcomes
    for outcome in outcomes:
        match outcome:
            case MetricEvent():
                assert 1 <= len(outcome.campaign_id) <= 128
                assert len(outcome.values) == WIDTH
                assert all(value is None or type(value) is int for value in outcome.values)
                assert all(value is None or 0 <= value <= MAX_MICROS for value in outcome.values)
                assert list(outcome.segments) == sorted(outcome.segments)
                assert all(type(name) is str and type(value) is str for name, value in outcome.segments)
            case Rejection():
                assert isinstance(outcome.code, RejectCode)
                assert 0 < len(outcome.sentence) < 400
                assert "\n" not in outcome.sentence
            case _:
                assert isinstance(outcome, Ignored)


CANONICAL = (
    b'{"version":1,"kind":"delta","event_id":"e","platform":"meta","campaign_id":"c","period_start":1709596800000'
)
ROW = b'{"campaign_id":"1","date_start":"2024-03-05","date_stop":"2024-03-05"'


def test_no_payload_is_a_tombstone_and_an_empty_one_is_refused() -> None:
    assert decode(None) == [Ignored(IgnoreReason.TOMBSTONE)]
    assert code_of(b"") is RejectCode.EMPTY
    assert code_of(b" \n\t") is RejectCode.EMPTY


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"\xff\xfe\x00", RejectCode.NOT_UTF8),
        (ROW + b',"region":"\xc3\x28"}', RejectCode.NOT_UTF8),
        (CANONICAL + b',"account_id":"\xff","clicks":1}', RejectCode.NOT_UTF8),
        (ROW + b',"region":"\\ud83d"}', RejectCode.MALFORMED_JSON),
        (CANONICAL + b',"account_id":"\\udc00","clicks":1}', RejectCode.MALFORMED_JSON),
        (ROW + b',"clicks":1', RejectCode.MALFORMED_JSON),
        (CANONICAL + b',"clicks":1', RejectCode.MALFORMED_JSON),
        (CANONICAL + b',"clicks":1} {}', RejectCode.MALFORMED_JSON),
        (b"\xef\xbb\xbf{}", RejectCode.MALFORMED_JSON),
        (b"hello", RejectCode.MALFORMED_JSON),
        (b"\x00\x00\x00\x01", RejectCode.MALFORMED_JSON),
        (b"{'a':1}", RejectCode.MALFORMED_JSON),
        (ROW + b',"clicks":NaN}', RejectCode.NOT_A_NUMBER),
        (ROW + b',"spend":-Infinity}', RejectCode.NOT_A_NUMBER),
        (ROW + b',"spend":1e999}', RejectCode.OUT_OF_RANGE),
        (CANONICAL + b',"clicks":NaN}', RejectCode.NOT_A_NUMBER),
        (CANONICAL + b',"clicks":18446744073709551616}', RejectCode.OUT_OF_RANGE),
        (ROW + b',"clicks":18446744073709551616}', RejectCode.OUT_OF_RANGE),
        (ROW + b',"clicks":18446744073709551615}', RejectCode.OUT_OF_RANGE),
        (ROW + b',"clicks":' + b"9" * 5000 + b"}", RejectCode.OUT_OF_RANGE),
        (b"[" * 1025 + b"]" * 1025, RejectCode.TOO_DEEP),
        (b'{"a":' * 1025 + b"1" + b"}" * 1025, RejectCode.TOO_DEEP),
        (b"[" * 30_000, RejectCode.TOO_DEEP),
        (CANONICAL + b',"x":' + b"[" * 1100 + b"]" * 1100 + b"}", RejectCode.TOO_DEEP),
        (ROW + b',"region":' + b"[" * 600 + b"]" * 600 + b',"clicks":1}', RejectCode.TOO_DEEP),
        (b"1", RejectCode.NOT_AN_OBJECT),
        (b'"text"', RejectCode.NOT_AN_OBJECT),
        (b"null", RejectCode.NOT_AN_OBJECT),
        (b"[[]]", RejectCode.NOT_AN_OBJECT),
        (b"{}", RejectCode.UNKNOWN_SHAPE),
        (b'{"data":{"a":1}}', RejectCode.UNKNOWN_SHAPE),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_poison_is_named_for_what_it_is(payload: bytes, code: RejectCode) -> None:
    assert code_of(payload) is code


def test_deep_nesting_beside_what_is_read_does_no_harm() -> None:
    payload = ROW + b',"unread":' + b'{"a":' * 1000 + b"1" + b"}" * 1000 + b',"clicks":1}'
    (outcome,) = decode(payload)
    assert isinstance(outcome, MetricEvent)
    google = b'{"campaign":{"id":"1","x":' + b'{"a":' * 1000 + b"1" + b"}" * 1000 + b"}"
    (outcome,) = decode(google + b',"segments":{"date":"2024-03-05"},"metrics":{"clicks":"1"}}', Platform.GOOGLE_ADS)
    assert isinstance(outcome, MetricEvent)


def test_the_last_of_duplicate_keys_holds_on_either_way() -> None:
    (native,) = decode(ROW + b',"clicks":1,"clicks":2}')
    (ours,) = decode(CANONICAL + b',"clicks":1,"clicks":2}')
    assert isinstance(native, MetricEvent)
    assert isinstance(ours, MetricEvent)
    assert native.values[1] == ours.values[1] == 2


def test_the_size_limit_holds_to_the_byte_and_before_parsing() -> None:
    payload = ROW + b',"clicks":1}'
    assert isinstance(decode(payload, max_bytes=len(payload))[0], MetricEvent)
    assert code_of(payload, max_bytes=len(payload) - 1) is RejectCode.OVERSIZE
    assert code_of(b"[" * 100, max_bytes=99) is RejectCode.OVERSIZE
    assert code_of(b"x" * 65_537) is RejectCode.OVERSIZE


def test_the_row_limit_holds_to_the_row() -> None:
    body = b'{"data":[' + b",".join([ROW + b',"clicks":1}'] * 5) + b"]}"
    assert len(decode(body, max_rows=5)) == 5
    assert code_of(body, max_rows=4) is RejectCode.OVERSIZE


@given(st.binary(max_size=300), st.sampled_from(PLATFORMS))
def test_any_bytes_give_an_outcome(payload: bytes, platform: Platform) -> None:
    check(decode(payload, platform))


def real_documents() -> list[Any]:
    documents: list[Any] = []
    for path in sorted(NATIVE.rglob("*.json*")):
        text = path.read_text()
        documents += [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else [json.loads(text)]
    documents.append({**json.loads(CANONICAL + b',"clicks":1}'), "segments": {"a": "b"}, "time_zone": "Asia/Tokyo"})
    return documents


REAL = real_documents()
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=80)
    | st.sampled_from(
        ["-", "", "NaN", "2024-03-05", "1e9999", "-0", "0", "1e-5000", "customers/1/campaigns/2", "RECORD"]
    )
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.data())
@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
def test_real_rows_with_a_value_replaced_or_removed_give_an_outcome(data: st.DataObject) -> None:
    """Structure-aware: the mutation lies somewhere within a real record, so that it reaches the decoders' depths."""
    document = json.loads(json.dumps(data.draw(st.sampled_from(REAL))))
    for _ in range(data.draw(st.integers(1, 3))):
        _mutate(data, document)
    try:
        payload = json.dumps(document).encode()
    except UnicodeEncodeError:
        return
    for platform in PLATFORMS:
        check(decode(payload, platform))


def _mutate(data: st.DataObject, document: Any) -> None:
    node = document
    while True:
        if not isinstance(node, dict | list) or not node:
            return
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = data.draw(st.sampled_from(keys))
        inner = node[key]
        if isinstance(inner, dict | list) and inner and data.draw(st.integers(0, 4)):
            node = inner
            continue
        if data.draw(st.booleans()):
            node[key] = data.draw(JSON)
        else:
            del node[key]
        return


@given(st.data())
@settings(max_examples=200)
def test_real_records_cut_or_flipped_give_an_outcome(data: st.DataObject) -> None:
    payload = bytearray(json.dumps(data.draw(st.sampled_from(REAL))).encode())
    at = data.draw(st.integers(0, len(payload) - 1))
    if data.draw(st.booleans()):
        del payload[at:]
    else:
        payload[at] = data.draw(st.integers(0, 255))
    for platform in PLATFORMS:
        check(decode(bytes(payload), platform))


@given(st.text(max_size=40))
def test_any_name_of_a_zone_gives_an_outcome(name: str) -> None:
    document = {**json.loads(CANONICAL + b',"clicks":1}'), "time_zone": name.encode("utf-8", "replace").decode()}
    check(decode(json.dumps(document).encode()))
