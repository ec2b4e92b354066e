"""The wire contract of creatives: golden bytes, total decoding, one value whatever the spelling."""

import doctest
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import schemas.creative
from schemas.creative import LABELS, Creative, PlatformAd, decode_creative, encode
from schemas.event import Ignored, IgnoreReason, RejectCode, Rejection
from schemas.platform import Platform

CREATIVE = Creative(
    creative_id="cr-1",
    account_id="act_1",
    hook="question",
    visual="ugc",
    pacing="fast",
    call_to_action="shop_now",
    format="video",
    length_seconds=15.5,
    ads=(PlatformAd(Platform.META, "2384", ""), PlatformAd(Platform.TIKTOK, "", "v-9")),
    updated_ms=1_767_225_600_000,
)
GOLDEN = (
    b'{"version":1,"creative_id":"cr-1","account_id":"act_1","hook":"question","visual":"ugc","pacing":"fast",'
    b'"call_to_action":"shop_now","format":"video","length_seconds":15.5,"ads":[{"platform":"meta","ad_id":"2384",'
    b'"platform_creative_id":""},{"platform":"tiktok","ad_id":"","platform_creative_id":"v-9"}],'
    b'"updated_at":1767225600000}'
)
OK: dict[str, Any] = {"version": 1, "creative_id": "c"}


def decode(payload: bytes | None, key: bytes | None = None) -> Creative | Rejection | Ignored:
    return decode_creative(key, payload, arrival_ms=7, max_bytes=65_536)


def test_golden_bytes() -> None:
    assert encode(CREATIVE) == GOLDEN
    assert decode(GOLDEN, b"cr-1") == CREATIVE


def test_what_is_not_said_is_unknown_and_the_arrival_dates_it() -> None:
    assert decode(json.dumps(OK).encode()) == Creative(creative_id="c", updated_ms=7)


def test_one_value_whatever_the_spelling_and_the_order_of_ads() -> None:
    ads = [{"platform": "tiktok", "ad_id": "2"}, {"platform": "meta", "ad_id": "1"}, {"platform": "meta", "ad_id": "1"}]
    found = decode(json.dumps({**OK, "hook": " Bold  Question ", "ads": ads}).encode())
    assert isinstance(found, Creative)
    assert found.hook == "bold_question"
    assert found.ads == (PlatformAd(Platform.META, "1", ""), PlatformAd(Platform.TIKTOK, "2", ""))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, "version"),
        ({"creative_id": ""}, "creative_id"),
        ({"creative_id": 5}, "creative_id"),
        ({"hook": ["a"]}, "hook"),
        ({"hook": "x" * 65}, "hook"),
        ({"length_seconds": -1}, "length_seconds"),
        ({"length_seconds": 90_000}, "length_seconds"),
        ({"ads": [{"platform": "myspace", "ad_id": "1"}]}, "myspace"),
        ({"ads": [{"platform": "meta"}]}, "ad_id"),
        ({"updated_at": "yesterday"}, "updated_at"),
    ],
)
def test_a_bad_creative_is_a_rejection_that_names_the_field(change: dict[str, Any], words: str) -> None:
    found = decode(json.dumps({**OK, **change}).encode())
    assert isinstance(found, Rejection)
    assert found.code is RejectCode.BAD_CREATIVE
    assert words in found.sentence


def test_a_key_of_another_creative_is_a_rejection() -> None:
    assert isinstance(decode(json.dumps(OK).encode(), b"other"), Rejection)


def test_no_value_withdraws() -> None:
    assert decode(None, b"cr-1") == Creative(creative_id="cr-1", updated_ms=7, withdrawn=True)
    assert encode(Creative(creative_id="cr-1", withdrawn=True)) is None
    assert decode(None, None) == Ignored(IgnoreReason.TOMBSTONE)


def test_an_oversize_record_is_a_rejection() -> None:
    found = decode_creative(None, b" " * 11, arrival_ms=0, max_bytes=10)
    assert isinstance(found, Rejection)
    assert found.code is RejectCode.OVERSIZE


@given(st.binary() | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(lambda v: json.dumps(v).encode()))
def test_any_bytes_give_an_outcome(payload: bytes) -> None:
    assert isinstance(decode(payload), Creative | Rejection)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
creatives = st.builds(
    Creative,
    creative_id=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
    account_id=texts,
    length_seconds=st.none() | st.floats(0, 86_400),
    updated_ms=st.integers(0, 4_102_444_800_000),
    **{name: st.sampled_from(["", "fast", "shop_now"]) for name in LABELS},
)


@given(creatives)
def test_what_is_written_is_read(creative: Creative) -> None:
    assert decode(encode(creative)) == creative


def test_examples_in_the_docstrings_run() -> None:
    result = doctest.testmod(schemas.creative)
    assert result.attempted > 0
    assert result.failed == 0
