"""The demo as a newcomer runs it: a process of its own on embedded servers, which checks itself."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from tests import raw_sums
from tests.live import ROOT, bare_environment

NATIVE = ROOT.parent / "shared" / "native"
WITHIN_S = 100.0
SMALL = ("--seed", "3", "--campaigns", "4", "--days", "5")


def demo(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stream_app", "demo", "--json", *map(str, arguments)],
        cwd=ROOT,
        env=bare_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=WITHIN_S,
    )


def report_of(ended: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert ended.returncode == 0, ended.stdout + ended.stderr
    [line] = ended.stdout.splitlines()
    report: dict[str, Any] = json.loads(line)
    return report


@cache
def small() -> dict[str, Any]:
    """One run of a small demo."""
    return report_of(demo(*SMALL))


def test_the_demo_shows_what_it_did_and_is_content_with_itself() -> None:
    report = small()
    assert report["ok"] is True
    assert report["problems"] == []
    assert report.keys() >= {"ok", "accounting", "insights", "predictions", "rate", "latency"}
    accounting = report["accounting"]
    ends = accounting["applied"] + accounting["duplicate"] + accounting["superseded"]
    ends += sum(accounting["dead_letters"].values()) + sum(accounting["ignored"].values())
    assert accounting["rows"] == ends >= accounting["records"] > 20_000
    assert accounting["duplicate"] > 0
    assert len(accounting["dead_letters"]) == 10
    assert {line["campaign"] for line in report["insights"]} >= {f"cmp-00{number}" for number in range(1, 5)}
    assert {line["window"] for line in report["insights"]} == {"1h", "24h", "7d"}
    assert {part["platform"] for line in report["insights"] for part in line["platforms"]} == {
        "meta",
        "tiktok",
        "google_ads",
    }
    assert report["predictions"]
    assert all(line["low"] < line["rate"] < line["high"] for line in report["predictions"])
    assert report["rate"]["events_per_second"] > 0
    assert 0 < report["latency"]["p50_ms"] <= report["latency"]["p99_ms"]
    assert report["hot"]["keys"]["insight"] > 0
    assert 0 < report["hot"]["ttl_min_s"] <= report["hot"]["ttl_max_s"] <= 3_600
    assert report["seconds"] < 60


def test_the_same_seed_gives_the_same_insights() -> None:
    assert report_of(demo(*SMALL))["insights"] == small()["insights"]


def test_the_demo_takes_rows_from_files() -> None:
    report = report_of(demo("--input", NATIVE / "tiktok" / "airbyte_reports.jsonl"))
    assert report["ok"] is True
    assert report["accounting"]["records"] == 65
    rows = (row for row in raw_sums.native_rows(NATIVE, []) if row is not None and row.platform == "tiktok")
    sums = raw_sums.recount(rows, {})
    shown = {(line["campaign"], line["window"], line["window_end"]): line for line in report["insights"]}
    newest = shown["tiktok:1714125042508817", "24h", "2021-10-30"]
    expected = sums["tiktok:1714125042508817", "24h", "2021-10-29", "tiktok"]
    [part] = newest["platforms"]
    assert (part["impressions"], part["clicks"]) == (expected["impressions"], expected["clicks"])


def test_a_file_that_is_not_there_is_one_line() -> None:
    ended = demo("--input", NATIVE / "nothing.jsonl")
    assert ended.returncode == 2
    assert ended.stdout == ""
    [line] = ended.stderr.splitlines()
    assert line.startswith("parallax: ")
    assert "nothing.jsonl" in line
