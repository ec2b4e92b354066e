"""Records of files: which there are, what their keys are, when they arrived, and whose rows they hold."""

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.ingest import ACCOUNT_HEADER as INGESTED_HEADER
from schemas.decode import Reader, decode_record
from schemas.event import MetricEvent
from schemas.platform import Platform
from stream_app.errors import SetupError
from stream_app.files import ACCOUNT_HEADER, PROBED, FileRecord, arrivals, check, key_of, probe, records

NATIVE = Path(__file__).parents[2] / "shared" / "native"


def records_of(path: Path) -> list[bytes]:
    return [record for record, _ in records(path)]


@pytest.mark.parametrize(
    ("row", "key"),
    [
        ({"campaign_id": "23846765228240398", "spend": 1}, "23846765228240398"),
        ({"stream": "ads_insights", "data": {"campaign_id": "7"}, "emitted_at": 1}, "7"),
        ({"type": "RECORD", "stream": "s", "record": {"campaign_id": 8}}, "8"),
        ({"data": {"dimensions": {"ad_id": 1}, "metrics": {"campaign_id": 1714125042508817}}}, "1714125042508817"),
        ({"data": {"dimensions": {"campaign_id": "9"}, "metrics": {}}}, "9"),
        ({"data": {"campaign.id": 20643300404}}, "20643300404"),
        ({"campaign": {"id": "700001"}, "metrics": {}}, "700001"),
        ({"data": [{"campaign_id": "1"}, {"campaign_id": "1"}], "paging": {}}, "1"),
        ({"data": [{"campaign_id": "1"}, {"campaign_id": "2"}]}, None),
        ({"data": [{"campaign_id": "1"}, {"other": "2"}]}, None),
        ({"data": []}, None),
        ({"code": 0, "data": {"list": [{"dimensions": {"campaign_id": "5"}}]}}, "5"),
        ({"results": [{"campaign": {"id": "6"}}]}, "6"),
        ({"platform": "meta", "platform_campaign_id": "1", "campaign_id": "summer"}, "meta:1"),
        ({"version": 1, "creative_id": "cr-1", "ads": [{"platform": "meta", "ad_id": "5"}]}, "cr-1"),
        ({"version": 1, "creative_id": 7}, None),
        ({"creative_id": "2384", "campaign_id": "9"}, "9"),
        ({"version": 1, "platform": "meta", "account_id": "7", "time_zone": "UTC"}, "meta:7"),
        ({"version": 1, "kind": "delta", "platform": "meta", "account_id": "7"}, None),
        ({"version": 1, "date": "2026-01-03", "currency": "EUR", "per": "USD", "rate": None}, "EUR:2026-01-03"),
        ({"campaign_id": "été"}, "été"),
        ({"campaign_id": None}, None),
        ({"campaign_id": True}, None),
        ({"campaign_id": 1.5}, None),
        ({"campaign_id": ""}, None),
        ({"data": "text"}, None),
        ([{"campaign_id": "1"}], None),
        ("text", None),
    ],
)
def test_the_key_is_the_one_campaign_of_a_record(row: Any, key: str | None) -> None:
    assert key_of(json.dumps(row).encode()) == (None if key is None else key.encode())


@given(st.binary())
def test_any_bytes_have_a_key_or_none(record: bytes) -> None:
    assert key_of(record) is None


def test_most_native_rows_are_keyed() -> None:
    rows = records_of(NATIVE / "meta" / "airbyte_ads_insights.jsonl")
    rows += records_of(NATIVE / "tiktok" / "airbyte_reports.jsonl")
    without = {json.loads(row)["stream"] for row in rows if key_of(row) is None}
    assert "customcustom_insight_stream" in without
    assert all(stream.startswith("advertisers_") for stream in without - {"customcustom_insight_stream"})
    assert len(rows) == 105


@pytest.mark.parametrize("ending", [".jsonl", ".ndjson", ".JSONL"])
def test_lines_are_records_byte_for_byte(tmp_path: Path, ending: str) -> None:
    lines = [b'{"a": 1}', b"\xff\xfe not text", b" ", b"{cut", b'{"b":\t2} ']
    path = tmp_path / f"rows{ending}"
    path.write_bytes(b"\r\n".join(lines[:2]) + b"\n\n" + b"\n".join(lines[2:]))
    assert records_of(path) == lines
    zipped = tmp_path / f"rows{ending}.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    assert records_of(zipped) == lines


@pytest.mark.parametrize(
    ("body", "records"),
    [
        (b'{\n "a": 1\n}\n', [b'{\n "a": 1\n}\n']),
        (b' [ {"a":  1.0}, [2] ,\n"x" ] ', [b'{"a":  1.0}', b"[2]", b'"x"']),
        (b"[]", []),
        (b'[{"a": 1}', [b'[{"a": 1}']),
        (b'[{"a": NaN}]', [b'[{"a": NaN}]']),
        (b"\xff", [b"\xff"]),
    ],
)
def test_a_json_file_is_one_record_or_its_array(tmp_path: Path, body: bytes, records: list[bytes]) -> None:
    for name, written in (("rows.json", body), ("rows.json.gz", gzip.compress(body))):
        (tmp_path / name).write_bytes(written)
        assert records_of(tmp_path / name) == records


def test_a_line_that_is_cut_off_and_standard_input_are_records_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"a":1}\n\n{"b"')))
    assert [record for record, _ in records("-")] == [b'{"a":1}', b'{"b"']


def test_wrong_files_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "bad.jsonl.gz").write_text("no gzip")
    with pytest.raises(SetupError, match=r"rows\.csv: rows are read from"):
        check([tmp_path / "rows.csv"])
    with pytest.raises(SetupError, match=r"folder\.json: there is no such file"):
        check([tmp_path / "folder.json"])
    with pytest.raises(SetupError, match="only once"):
        check(["-", "-"])
    with pytest.raises(SetupError, match="no such file"):
        list(records(tmp_path / "absent.json"))
    with pytest.raises(SetupError, match="not sound gzip"):
        list(records(tmp_path / "bad.jsonl.gz"))


def test_arrivals_are_as_if_published(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"campaign_id": "7"}\n\xff\n')
    first, second = arrivals(path, 1_700_000_000_000, "act_1", first_offset=5)
    assert (first.offset, first.timestamp, first.key, first.value) == (
        5,
        1_700_000_000_000,
        b"7",
        b'{"campaign_id": "7"}',
    )
    assert (second.offset, second.key, second.value, second.number) == (6, None, b"\xff", 2)
    assert list(first.headers) == [(ACCOUNT_HEADER, b"act_1")]
    assert [list(record.headers) for record in arrivals(path, 0)] == [[], []]
    assert ACCOUNT_HEADER == INGESTED_HEADER


def probed(path: Path) -> Platform:
    platform, _ = probe(path, arrivals(path, 1_800_000_000_000))
    return platform


NATIVE_FILES = sorted(path for path in NATIVE.glob("*/*") if path.suffix in (".json", ".jsonl"))


@pytest.mark.parametrize("path", NATIVE_FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_native_files_tell_their_platform_wherever_they_lie(path: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / f"rows{path.suffix}"
    elsewhere.write_bytes(path.read_bytes())
    assert probed(elsewhere) is Platform(path.parent.name)


def test_there_are_native_files() -> None:
    assert len(NATIVE_FILES) >= 7


AMBIGUOUS = b'{"campaign_id": "1", "impressions": 5, "clicks": 1}\n'


@pytest.mark.parametrize(
    ("name", "platform"),
    [
        ("tiktok/rows.jsonl", Platform.TIKTOK),
        ("meta/google-rows.jsonl", Platform.GOOGLE_ADS),
        ("meta/day/rows.jsonl", Platform.META),
    ],
)
def test_names_decide_where_the_content_fits_several(tmp_path: Path, name: str, platform: Platform) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_bytes(AMBIGUOUS)
    assert probed(path) is platform


def test_content_goes_before_names(tmp_path: Path) -> None:
    path = tmp_path / "tiktok.jsonl"
    path.write_bytes((NATIVE / "meta" / "airbyte_ads_insights.jsonl").read_bytes())
    assert probed(path) is Platform.META


@pytest.mark.parametrize("body", [b"\xff\n{cut\n", b"5\n"])
def test_where_nothing_tells_the_platform_one_is_asked_for(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(body)
    with pytest.raises(SetupError, match=r"rows\.jsonl: nothing tells whose rows these are: say --platform"):
        probed(path)


CANONICAL: dict[str, Any] = {
    "version": 1,
    "kind": "delta",
    "event_id": "e",
    "platform": "tiktok",
    "campaign_id": "c",
    "period_start": 1_700_000_000_000,
    "impressions": 1,
}


def test_canonical_events_of_several_platforms_need_no_platform(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(CANONICAL | {"platform": name}) + "\n" for name in ("tiktok", "meta")))
    platform, found = probe(path, arrivals(path, 1_800_000_000_000))
    outcomes = [
        outcome
        for record in found
        for outcome in decode_record(record.value, Reader(platform=platform), arrival_ms=record.timestamp)
    ]
    assert [outcome.platform for outcome in outcomes if isinstance(outcome, MetricEvent)] == ["tiktok", "meta"]


def test_an_empty_file_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n")
    _, found = probe(path, arrivals(path, 0))
    assert list(found) == []


def test_probing_reads_a_bounded_head_and_gives_every_record_back(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    total = 3 * PROBED
    path.write_text("".join(json.dumps(CANONICAL | {"event_id": str(n)}) + "\n" for n in range(total)))
    taken = 0

    def counted() -> Iterator[FileRecord]:
        nonlocal taken
        for record in arrivals(path, 1_800_000_000_000):
            taken += 1
            yield record

    _, found = probe(path, counted())
    assert taken == PROBED
    assert [record.number for record in found] == list(range(1, total + 1))
