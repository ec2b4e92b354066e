import gzip
import json
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.planted import Planted

ROOT = Path(__file__).parents[1]
FIRST = date(2026, 3, 1)


def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "stream_app", "backtest", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def lines_of(truth: Planted) -> list[dict[str, Any]]:
    return [
        {
            "date": (FIRST + timedelta(days=day)).isoformat(),
            "platform": truth.platform[at],
            "campaign_id": f"c{at}",
            "impressions": int(truth.impressions[day, at]),
            "clicks": int(truth.clicks[day, at]),
        }
        for day in range(len(truth.rate))
        for at in range(truth.rate.shape[1])
    ]


def canonical(row: dict[str, Any]) -> dict[str, Any]:
    start = f"{row['date']}T00:00:00Z"
    end = f"{date.fromisoformat(row['date']) + timedelta(days=1)}T00:00:00Z"
    rest = {name: row[name] for name in ("platform", "campaign_id", "impressions", "clicks")}
    head = {"version": 1, "kind": "snapshot", "period_start": start, "period_end": end, "time_zone": "UTC"}
    return {**head, "observed_at": end, **rest}


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return lines_of(Planted(windows=30, series=12, base={"google_ads": 0.04, "meta": 0.02}))


@pytest.fixture(scope="module")
def table(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("history") / "rows.csv"
    body = "\n".join(",".join(str(value) for value in row.values()) for row in rows)
    path.write_text(",".join(rows[0]) + "\n" + body + "\n")
    return path


def summary_of(*arguments: str | Path) -> dict[str, Any]:
    done = run(*arguments, "--split", "2026-03-16", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_every_form_of_the_same_history_gives_the_same_scorecard(
    rows: list[dict[str, Any]], table: Path, tmp_path: Path
) -> None:
    flat, events = tmp_path / "flat.jsonl.gz", tmp_path / "events.jsonl"
    with gzip.open(flat, "wt") as text:
        text.writelines(json.dumps(row) + "\n" for row in rows)
    events.write_text("".join(json.dumps(canonical(row)) + "\n" for row in rows))
    report = summary_of(table)
    assert report["windows"] == 15
    assert report["series"] == 12
    assert report["summary"]["default"]["rows"] == 15 * 12
    assert set(report["summary"]["default"]) >= {
        "log_loss",
        "normalized_entropy",
        "calibration",
        "mae",
        "deviance_explained",
        "coverage",
        "coverage_exact",
    }
    assert set(report["summary"]) >= {"default", "model", "served", "platform_mean", "last_value", "decayed_eb"}
    assert {one["axis"] for one in report["segments"]} == {"platform", "volume", "age"}
    assert any("t-test" in line for line in report["verdict"])
    assert summary_of(flat) == report
    from_events = summary_of(events)
    assert from_events["summary"] == report["summary"]


def test_a_table_shows_every_predictor_and_the_verdict(table: Path) -> None:
    done = run(table, "--split", "2026-03-16", "--horizon", "7d")
    assert done.returncode == 0, done.stderr
    for word in (
        "log loss",
        "platform_mean",
        "last_value",
        "cumulative_mean",
        "decayed_mean",
        "decayed_eb",
        "verdict:",
    ):
        assert word in done.stdout
    assert "3 windows of 7d from 2026-03-16" in done.stdout
    assert "model on meta: not promoted for what comes after the last window (" in done.stdout
    assert "it served in 0 of the 3 judged windows" in done.stdout


def test_files_that_name_no_platform_take_the_one_that_the_others_name(tmp_path: Path) -> None:
    head = "date,keyword_id,impressions,clicks\n"
    first, second = tmp_path / "adwords.csv", tmp_path / "later.csv"
    first.write_text(head + "".join(f"2026-03-{day:02},7,100,3\n" for day in range(1, 16)))
    second.write_text(head + "".join(f"2026-03-{day:02},7,100,3\n" for day in range(16, 20)))
    report = summary_of(first, second)
    assert list(report["model"]) == ["google_ads"]
    assert report["series"] == 1


def test_columns_can_be_named_and_other_columns_make_series_where_no_id_does(tmp_path: Path) -> None:
    head, days = "date,platform,industry,country,impressions,clicks,ctr\n", range(1, 21)
    body = "".join(
        f"2026-03-{day:02},TikTok Ads,{industry},{country},100,3,0.03\n"
        for day in days
        for industry in ("a", "b")
        for country in ("x", "y", "z")
    )
    path = tmp_path / "rows.csv"
    path.write_text(head + body)
    report = summary_of(path)
    assert report["series"] == 6
    assert list(report["model"]) == ["tiktok"]
    assert summary_of(path, "--series", "industry")["series"] == 2


def test_rows_of_less_than_a_campaign_are_series_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "google.csv"
    head = "Date,Campaign ID,Keyword ID,Impressions,Clicks\n"
    path.write_text(
        head + "".join(f"2026-03-{day:02},9,{word},100,{word}\n" for day in range(1, 29) for word in (1, 2, 3))
    )
    report = summary_of(path)
    assert (report["series"], report["series_by"]) == (3, ["campaign_id", "keyword_id"])
    assert report["notes"] == []
    whole = summary_of(path, "--series", "campaign_id")
    assert whole["series"] == 1
    assert whole["rows_of_one_date_and_series"] == 2 * 28
    (note,) = whole["notes"]
    assert note == "56 rows were added to another one of their date, platform and series; --series names other columns"


@pytest.mark.parametrize("name", ["keyword", "adset", "adset_id", "id", "Keyword ID"])
def test_ids_go_by_many_names(name: str, tmp_path: Path) -> None:
    path = tmp_path / "meta.csv"
    path.write_text(
        f"date,{name},impressions,clicks\n"
        + "".join(f"2026-03-{day:02},{one},100,3\n" for day in range(1, 20) for one in (1, 2))
    )
    assert summary_of(path)["series"] == 2


def test_the_head_says_what_was_made_of_odd_rows(table: Path, tmp_path: Path) -> None:
    lines = table.read_text().splitlines()
    path = tmp_path / "odd.csv"
    path.write_text("\n".join([*lines, *lines[1:3], "2026-03-20,meta,odd,5,9"]) + "\n")
    told = run(path, "--split", "2026-02-01", "--horizon", "7d").stdout
    assert "series by campaign_id" in told
    assert "note: 2 rows were added to another one of their date, platform and series" in told
    assert "note: 1 rows with more clicks than impressions were taken to have as many" in told
    assert "note: no row lies before 2026-02-01: nothing was known when the first one was judged" in told
    assert "note: the last window ends with the data, after 2 of 7 days" in told
    assert "5 windows of 7d from 2026-03-01;" in told
    assert "note: the first window begins" not in told
    midweek = run(path, "--split", "2026-02-03", "--horizon", "7d").stdout
    assert "windows of 7d from 2026-02-24;" in midweek
    assert "note: the first window begins 5 of 7 days before the data" in midweek


def test_files_that_tell_their_series_by_different_columns_are_refused(tmp_path: Path) -> None:
    first, second = tmp_path / "one.csv", tmp_path / "two.csv"
    first.write_text("date,keyword_id,impressions,clicks\n2026-03-20,1,10,1\n")
    second.write_text("date,campaign_id,keyword_id,impressions,clicks\n2026-03-21,9,1,10,1\n")
    done = run(first, second, "--split", "2026-03-21")
    assert done.returncode == 2
    assert "the files tell their series by keyword_id and campaign_id/keyword_id: name the columns" in done.stderr
    assert run(first, second, "--split", "2026-03-21", "--series", "keyword_id").returncode == 0


def test_rows_without_an_impression_are_nothing_to_judge_by(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("date,campaign_id,impressions,clicks\n2026-03-10,a,10,1\n2026-03-20,a,0,0\n")
    done = run(path, "--split", "2026-03-16")
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "parallax: no row with impressions lies at or after 2026-03-16: there is nothing to judge by"
    )


GOOD = "date,campaign_id,impressions,clicks\n2026-03-20,a,10,1\n"
BAD = {
    "no-file": (None, "there is no such file"),
    "kind.txt": (GOOD, "history is read from"),
    "empty.csv": ("", "holds no row"),
    "columns.csv": ("day,clicks\n2026-03-20,1\n", "needs the columns date, impressions and clicks"),
    "number.csv": (GOOD + "2026-03-21,a,x,1\n", "line 3: impressions must be a whole number"),
    "negative.csv": (GOOD + "2026-03-21,a,5,-1\n", "line 3: clicks must be a whole number"),
    "date.csv": (GOOD + "21.3.2026,a,5,1\n", "line 3: the date must be like 2026-01-31"),
    "blank.csv": (GOOD + "2026-03-21, ,5,1\n", "line 3: campaign_id is empty"),
    "ragged.csv": (GOOD + "2026-03-21,a,5\n", "line 3: 3 values under 4 columns"),
    "null.jsonl": (
        '{"date": "2026-03-20", "campaign_id": null, "impressions": 1, "clicks": 0}\n',
        "line 1: campaign_id is empty",
    ),
    "broken.jsonl": ('{"date": ', "not JSON"),
    "list.jsonl": (
        '{"date": "2026-03-20", "campaign_id": "a", "impressions": 1, "clicks": 0}\n[]\n',
        "record 2: not an object",
    ),
    "rows.csv.gz": (GOOD, "not sound gzip"),
    "early.csv": (GOOD.replace("03-20", "02-20"), "no row lies at or after the split"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_line_that_says_what_to_mend(name: str, tmp_path: Path) -> None:
    text, says = BAD[name]
    path = tmp_path / (name if text is not None else "absent.csv")
    if text is not None:
        path.write_text(text)
    done = run(path, "--split", "2026-03-16")
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--split", "16.3."), "--split must be a date like 2026-01-31"),
        (("--split", "2026-03-16", "--horizon", "1h"), "whole days"),
        (("--split", "2026-03-16", "--horizon", "x"), "a duration is"),
        (("--split", "2026-03-16", "--series", "nope"), "no column nope"),
    ],
)
def test_a_wrong_option_is_one_line(arguments: tuple[str, ...], says: str, table: Path) -> None:
    done = run(table, *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
