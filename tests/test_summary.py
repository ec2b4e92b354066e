"""The demo's report: books that balance, a page on which a person finds the facts, an object that a machine reads."""

import io

import msgspec
import orjson
import pytest
from rich.cells import cell_len
from rich.console import Console

from core.accounting import Accounting
from stream_app.summary import (
    DemoReport,
    HotSummary,
    InsightLine,
    Latency,
    PlatformLine,
    PredictionLine,
    Rate,
    render,
    sparkline,
    to_json,
)

BOOKS = Accounting(
    records=95,
    rows=100,
    applied=80,
    duplicate=9,
    superseded=4,
    dead_letters={"negative": 1, "not_utf8": 1},
    ignored={"account_level": 5},
)


def line(number: int, roas: float | None = 2.5) -> InsightLine:
    series: list[float | None] = [0.01, 0.012, None, 0.011, 0.013, 0.01, 0.02]
    return InsightLine(
        campaign=f"cmp-{number:03d}",
        name="Evergreen Headphones",
        window="7d",
        window_end="2025-06-16",
        phase="final",
        platforms=[
            PlatformLine(platform="meta", impressions=10_000, clicks=123, ctr=0.0123, composite=0.61, daily_ctr=series),
            PlatformLine(platform="google_ads", impressions=0, clicks=0, ctr=None),
        ],
        best_platform="meta",
        consistency=0.87,
        roas=roas,
        roas_reason=None if roas else "several currencies",
    )


def prediction(number: int, *, inside: bool | None) -> PredictionLine:
    actual = {True: 0.0105, False: 0.019, None: None}[inside]
    return PredictionLine(
        campaign=f"cmp-{number:03d}", platform="tiktok", rate=0.0101, low=0.0091, high=0.0111, actual=actual,
        actual_impressions=1_000 - number, inside=inside,
    )  # fmt: skip


REPORT = DemoReport(
    ok=True,
    problems=[],
    seconds=31.25,
    accounting=BOOKS,
    insights=[line(1), line(2, roas=None), msgspec.structs.replace(line(1), window="24h")],
    predictions=[prediction(1, inside=True), prediction(2, inside=False), prediction(3, inside=None)],
    hot=HotSummary(keys={"insights": 63}, ttl_min_s=3_571, ttl_max_s=3_600, used_memory_bytes=2**21),
    rate=Rate(events=30_498, seconds=9.0, events_per_second=3_388.7),
    latency=Latency(p50_ms=180, p99_ms=420, samples=2_000),
)


def printed(report: DemoReport, width: int = 100, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding=encoding, write_through=True), width=width)
    render(report, console)
    return raw.getvalue().decode(encoding)


def test_books_that_balance_add_up() -> None:
    assert BOOKS.adds_up
    assert BOOKS.accounted == 100


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 101},
        {"applied": 79},
        {"duplicate": 10},
        {"superseded": 3},
        {"dead_letters": {"negative": 1}},
        {"ignored": {"account_level": 5, "no_period": 1}},
        {"records": 101},
    ],
)
def test_books_with_one_count_off_do_not_add_up(change: dict[str, object]) -> None:
    assert not msgspec.structs.replace(BOOKS, **change).adds_up


def test_a_person_finds_the_key_facts() -> None:
    text = printed(REPORT)
    for fact in (
        "all checks passed", "31.2 s", "95 records = 100 rows", "every row accounted for",
        "7d window to 2025-06-16: 2 final", "cmp-001", "1.23%", "0.87", "2.50", "61", "24h: 1 more",
        "account_level (5)", "not_utf8",
        "No ROAS for cmp-002: several currencies", "1 of 2 actuals (50%) fell inside", "0.91–1.11%", " out", " open",
        "63 insights", "TTL 3,571–3,600 s", "2.0 MiB", "3,389 events/s", "p50 180 ms", "p99 420 ms",
    ):  # fmt: skip
        assert fact in text, fact


def test_a_failed_run_says_where() -> None:
    books = msgspec.structs.replace(BOOKS, applied=78)
    problems = [f"campaign [{number}] differs from the offline result" for number in range(12)]
    text = printed(msgspec.structs.replace(REPORT, ok=False, problems=problems, accounting=books))
    assert "FAILED" in text
    assert "campaign [3] differs" in text
    assert "and 4 more" in text
    assert "+2 rows unaccounted for" in text
    assert "all checks passed" not in text


@pytest.mark.parametrize("width", [56, 60, 80, 100, 160])
def test_no_line_is_wider_than_the_console(width: int) -> None:
    lines = printed(REPORT, width).splitlines()
    assert max(cell_len(text) for text in lines) <= width
    assert any("cmp-001" in text for text in lines)


@pytest.mark.parametrize("width", [56, 64, 73, 74, 80, 97, 98, 100])
def test_no_figure_is_cut_off_at_usual_widths(width: int) -> None:
    text = printed(REPORT, width)
    for figure in ("ROAS", "0.87", "2.50", "0.91–1.11%", " out", "actual"):
        assert figure in text


def test_a_console_without_unicode_gets_ascii() -> None:
    insight = msgspec.structs.replace(line(1), name="Überall")
    text = printed(msgspec.structs.replace(REPORT, insights=[insight]), encoding="ascii")
    assert "cmp-001 ?berall" in text
    assert "0.91-1.11%" in text


def test_many_campaigns_stay_within_a_page() -> None:
    insights = [line(number) for number in range(120)]
    predictions = [prediction(number, inside=number != 77) for number in range(360)]
    text = printed(msgspec.structs.replace(REPORT, insights=insights, predictions=predictions))
    assert len(text.splitlines()) <= 60
    assert "98 more campaigns" in text
    assert "cmp-077" in text
    assert "359 of 360 actuals" in text


def test_an_empty_report_renders() -> None:
    books = Accounting(records=0, rows=0, applied=0, duplicate=0, superseded=0, dead_letters={}, ignored={})
    empty = DemoReport(ok=True, problems=[], seconds=0.0, accounting=books, insights=[], predictions=[])
    text = printed(empty)
    assert "Insights  none" in text
    assert "no actuals yet" in text


def test_a_machine_reads_one_object() -> None:
    body = orjson.loads(to_json(REPORT))
    assert {"ok", "accounting", "insights", "predictions", "rate", "latency"} <= set(body)
    assert b"\n" not in to_json(REPORT)
    assert msgspec.json.decode(to_json(REPORT), type=DemoReport) == REPORT


@pytest.mark.parametrize(
    ("series", "expected"),
    [([], "     "), ([0.0, 0.0], "   __"), ([1.0, None, 3.0], "  _ #"), ([9.0, 1.0, 1.0, 1.0, 1.0, 1.0], "====="[:5])],
)
def test_sparklines_show_the_last_values_and_gaps(series: list[float | None], expected: str) -> None:
    assert sparkline(series, 5, "_=#") == expected


def test_mild_noise_looks_mild() -> None:
    assert set(sparkline([1.0, 1.02, 0.98, 1.01], 4, "▁▂▃▄▅▆▇█")) <= {"▄", "▅"}
