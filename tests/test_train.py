"""``parallax train``: the same bytes for the same rows, nothing learned from shuffled labels, and nothing published
that does not beat the default.
"""

import json
import subprocess
import sys
from collections import Counter
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import logit

from core.learning import ctr_fitting
from core.learning.backtest import History
from core.learning.boosting import Matrix
from core.learning.ctr_fitting import Discrimination, control, digest, fit, shuffled
from core.learning.ctr_model import CtrFeatures, CtrModel
from core.learning.decayed import Ints
from core.learning.walk import MODEL, Predicted
from core.profile import DEFAULT_PROFILE
from schemas.model import TrainingData
from stream_app import topic_history
from stream_app.errors import ParallaxError
from stream_app.history import DailyRows
from stream_app.model_follower import ModelFollower
from stream_app.training import train
from tests.live import Live
from tests.planted import Floats, Planted

ROOT = Path(__file__).parents[1]
FIRST = date(2025, 3, 1)
DAYS = 62
SPLIT = FIRST + timedelta(days=DAYS - 28)


def alternating(series: int = 10, seed: int = 5) -> Planted:
    """A series that was much delivered on a day is clicked far less on the next: no rate of the past tells."""
    truth = Planted(seed=seed, windows=DAYS, series=series, spread=0.2, base={"meta": 0.04, "tiktok": 0.03})
    random = np.random.default_rng(seed)
    busy = random.random(truth.rate.shape) < 0.5
    truth.impressions = np.where(busy, 3000.0, 500.0)
    rate = np.where(np.vstack((busy[:1], busy[:-1])), 0.5, 1.5) * truth.rate
    truth.clicks = random.binomial(truth.impressions.astype(int), rate).astype(np.float64)
    return truth


TRUTH = alternating()
PLAIN = Planted(windows=DAYS, series=10, base={"meta": 0.04, "tiktok": 0.03})


def rows_of(truth: Planted) -> list[dict[str, Any]]:
    return [
        {
            "date": (FIRST + timedelta(days=day)).isoformat(),
            "platform": truth.platform[at],
            "campaign_id": f"c{at // 2}",
            "impressions": int(truth.impressions[day, at]),
            "clicks": int(truth.clicks[day, at]),
        }
        for day in range(len(truth.rate))
        for at in range(truth.rate.shape[1])
    ]


def daily(truth: Planted) -> DailyRows:
    rows = DailyRows()
    for row in rows_of(truth):
        rows.day.append(date.fromisoformat(row["date"]).toordinal())
        rows.platform.append(row["platform"])
        rows.series.append(row["campaign_id"])
        rows.impressions.append(row["impressions"])
        rows.clicks.append(row["clicks"])
    return rows


def table(truth: Planted, path: Path) -> Path:
    rows = rows_of(truth)
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "stream_app", "train", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def by_window(past: History, values: Floats) -> Counter[tuple[int, int]]:
    found: Counter[tuple[int, int]] = Counter()
    for window, series, value in zip(past.window.tolist(), past.series.tolist(), values.tolist(), strict=True):
        found[window, int(past.platform[series])] += value
    return found


def test_shuffling_keeps_what_is_not_the_series_own() -> None:
    past = TRUTH.history()
    other = shuffled(past, 1)
    assert other.impressions.tobytes() == past.impressions.tobytes()
    assert by_window(other, other.clicks) == by_window(past, past.clicks)
    assert np.all(other.clicks <= other.impressions)
    assert other.clicks.tolist() != past.clicks.tolist()
    assert shuffled(past, 1).clicks.tobytes() == other.clicks.tobytes()
    busy = past.impressions > 1000
    ratio = other.clicks[busy].sum() / other.impressions[busy].sum() / (past.clicks.sum() / past.impressions.sum())
    assert ratio == pytest.approx(1, abs=0.05)


def test_the_control_is_passed_by_an_honest_model_and_its_statistic_is_standard() -> None:
    """Over many shuffles z has mean 0 and variance 1, whatever the model says: here, what it learned from the truth."""
    past = TRUTH.history()
    assert not control(past, DAYS - 28).fails
    rates = np.clip(past.clicks / past.impressions, 0.001, 0.5)
    found = []
    for seed in range(200):
        told, other = Discrimination(past.platform), shuffled(past, seed)
        for window in range(20):
            of = past.window == window
            said = Predicted(window, past.series[of], {MODEL: rates[of]}, np.ones(of.sum()))
            told.add(said, other.impressions[of], other.clicks[of])
        found.append(told.z)
    assert np.mean(found) == pytest.approx(0, abs=0.25)
    assert np.std(found) == pytest.approx(1, abs=0.2)


def test_a_model_that_sees_a_little_of_its_label_fails_the_control(monkeypatch: pytest.MonkeyPatch) -> None:
    past = PLAIN.history()
    other = shuffled(past, ctr_fitting.CONTROL_SEED)
    label = {
        (int(window), int(series)): clicks / max(shown, 1.0)
        for window, series, clicks, shown in zip(
            other.window, other.series, other.clicks, other.impressions, strict=True
        )
    }
    honest, advance = CtrFeatures.of, CtrFeatures.advance
    passed: Counter[int] = Counter()

    def leaking(self: CtrFeatures, series: Ints, rate: Floats, shape: Floats) -> Matrix:
        found = honest(self, series, rate, shape)
        seen = np.array([label[passed[id(self)], at] for at in series.tolist()])
        found[:, 5] = 0.01 * (logit(np.clip(seen, 1e-3, 0.5)) - logit(rate))
        return found

    def counting(self: CtrFeatures, series: Ints, impressions: Floats, clicks: Floats) -> None:
        passed[id(self)] += 1
        advance(self, series, impressions, clicks)

    assert not control(past, DAYS - 28).fails
    monkeypatch.setattr(CtrFeatures, "of", leaking)
    monkeypatch.setattr(CtrFeatures, "advance", counting)
    assert control(past, DAYS - 28).fails


def test_the_future_does_not_change_the_model() -> None:
    past, split = TRUTH.history(), DAYS - 28
    seen = fit(past, split)
    clicks = TRUTH.clicks.copy()
    clicks[split:] = TRUTH.impressions[split:] // 2
    other = fit(TRUTH.history(clicks), split)
    assert other.model.to_bytes() == seen.model.to_bytes()
    assert other.summary != seen.summary
    assert seen.model.steps == (0, split)
    assert digest(past, split) == digest(TRUTH.history(clicks), split) != digest(past, split + 1)


def test_what_was_trained_says_where_it_came_from() -> None:
    done = train(daily(TRUTH), ("rows.csv",), DEFAULT_PROFILE)
    header = done.model.header
    assert done.refusal == ""
    assert header.promoted
    assert (header.kind, header.horizon, header.profile) == ("ctr", "1d", DEFAULT_PROFILE.version)
    assert (header.first_day, header.last_day) == (FIRST, SPLIT - timedelta(days=1))
    assert header.data == TrainingData(sources=("rows.csv",), rows=340, series=10, digest=header.data.digest)
    assert set(header.measures) >= {"default", "model", "platform_mean", "decayed_eb"}
    assert {one["rows"] for one in header.measures.values()} == {280}
    model, default = (header.measures[name]["log_loss"] for name in ("model", "default"))
    assert model is not None
    assert default is not None
    assert model < default
    assert header.details["split"] == SPLIT.isoformat()
    assert train(daily(TRUTH), ("rows.csv",), DEFAULT_PROFILE).model.to_bytes() == done.model.to_bytes()


def test_weeks_can_be_trained_too() -> None:
    done = train(daily(TRUTH), (), DEFAULT_PROFILE, (FIRST + timedelta(days=28)).toordinal(), days=7)
    header = done.model.header
    assert (header.horizon, header.first_day, header.last_day) == ("7d", FIRST, FIRST + timedelta(days=27))
    assert "too few windows" in done.refusal


@pytest.mark.parametrize(
    ("rows", "split", "words"),
    [
        (DailyRows(), None, "no row with impressions"),
        (daily(TRUTH), FIRST.toordinal(), "clicks lie before the split"),
        (daily(TRUTH), (FIRST + timedelta(days=DAYS)).toordinal(), "no row lies at or after the split"),
    ],
)
def test_too_little_is_one_line(rows: DailyRows, split: int | None, words: str) -> None:
    with pytest.raises(ParallaxError, match=words):
        train(rows, (), DEFAULT_PROFILE, split)


def test_the_command_on_a_file(tmp_path: Path) -> None:
    rows, first, second = table(TRUTH, tmp_path / "rows.csv"), tmp_path / "a.model", tmp_path / "b.model"
    shown = run(rows, "--out", first)
    assert (shown.returncode, shown.stderr) == (0, "")
    for words in (
        "learned 340 rows of 2025-03-01 to 2025-04-03, 10 series; judged on 280 rows of 28 windows of 1d",
        "decayed_eb",
        "cumulative_mean",
        "model on meta: beats the default",
        "verdict: model beats default",
        "negative control, labels shuffled within each window and platform: as it must be, nothing tells them apart",
        f"written to {first}",
    ):
        assert words in shown.stdout, words
    told = run(rows, "--out", second, "--format", "json")
    report = json.loads(told.stdout)
    assert second.read_bytes() == first.read_bytes()
    model = CtrModel.from_bytes(first.read_bytes(), DEFAULT_PROFILE.version)
    assert report["model_id"] == model.model_id
    assert report["header"]["measures"].keys() == model.header.measures.keys()
    assert (report["published"], report["control_fails"]) == (False, False)
    assert model.to_bytes() == train(daily(TRUTH), ("rows.csv",), DEFAULT_PROFILE).model.to_bytes()
    twice = run(rows, rows, "--to", "2025-04-20", "--split", "2025-04-01", "--format", "json")
    assert "parallax: 500 rows were added to another one of their date" in twice.stderr
    part = json.loads(twice.stdout)
    assert part["header"]["last_day"] == "2025-03-31"
    assert part["header"]["details"]["windows"] == 19


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--split", "1.4."), 2, "--split must be a date"),
        (("--from", "2025-04-01", "--to", "2025-04-01"), 2, "is not after"),
        (("--from", "2026-04-01"), 1, "no row with impressions"),
        (("--horizon", "3h"), 2, "whole days"),
        (("--out", "/nowhere/at/all"), 2, "there is no directory /nowhere/at"),
        (("--split", "2025-03-02"), 1, "clicks lie before the split"),
        (("absent.csv",), 2, "no such file"),
    ],
)
def test_what_is_wrong_is_one_line(arguments: tuple[str, ...], code: int, told: str, tmp_path: Path) -> None:
    done = run(table(PLAIN, tmp_path / "rows.csv"), *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_files_and_broker_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARALLAX_KAFKA_BOOTSTRAP", "127.0.0.1:1")
    done = run()
    assert done.returncode == 3
    assert "PARALLAX_KAFKA_BOOTSTRAP" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def published(truth: Planted, live: Live, folder: Path) -> None:
    """The rows on the input topics, each day pulled twice, and links that join every second campaign of a platform."""
    rows: dict[str, list[str]] = {"meta": [], "tiktok": []}
    for at, row in enumerate(rows_of(truth)):
        day = date.fromisoformat(row["date"])
        ends = f"{day + timedelta(days=1)}T00:00:00Z"
        wire = {
            "version": 1,
            "kind": "snapshot",
            "platform": row["platform"],
            "campaign_id": f"p{at % truth.rate.shape[1]}",
            "period_start": f"{day}T00:00:00Z",
            "period_end": ends,
            "time_zone": "UTC",
            "clicks": row["clicks"],
        }
        half = {"observed_at": f"{day}T12:00:00Z", "impressions": row["impressions"] // 2}
        rows[row["platform"]] += [
            json.dumps({**wire, **half}),
            json.dumps({**wire, "observed_at": ends, "impressions": row["impressions"]}),
        ]
    links = [
        json.dumps(
            {
                "version": 1,
                "platform": truth.platform[at],
                "platform_campaign_id": f"p{at}",
                "campaign_id": f"c{at // 2}",
                "updated_at": 1,
            }
        )
        for at in range(truth.rate.shape[1])
    ]
    for name, lines in (*rows.items(), ("links", links)):
        path = folder / f"{name}.jsonl"
        path.write_text("\n".join(lines) + "\n")
        done = live.command("produce", path, *(["--links"] if name == "links" else ["--platform", name]))
        assert done.returncode == 0, done.stderr


@pytest.mark.kafka
@pytest.mark.parametrize("truth", [TRUTH, PLAIN], ids=["better", "no better"])
def test_from_the_topics_and_onto_one(kafka: str, tmp_path: Path, truth: Planted) -> None:
    with Live(kafka, ("127.0.0.1", 1), tmp_path, partitions=2, cache_enabled=False) as live:
        published(truth, live, tmp_path)
        end = (FIRST + timedelta(days=DAYS)).toordinal()
        found = topic_history.read(live.settings, None, end)
        wanted = daily(truth)
        assert found.lost == []
        assert sorted(zip(*columns(found.rows), strict=True)) == sorted(zip(*columns(wanted), strict=True))
        early = topic_history.read(live.settings, FIRST.toordinal() + 10, FIRST.toordinal() + 12).rows
        assert sorted(set(early.day)) == [FIRST.toordinal() + 10, FIRST.toordinal() + 11]
        done = live.command("train", "--publish", "--format", "json")
        report = json.loads(done.stdout)
        assert report["header"]["data"]["digest"] == train(wanted, (), DEFAULT_PROFILE).model.header.data.digest
        assert any("ads.metrics.meta/" in source for source in report["header"]["data"]["sources"])
        if truth is PLAIN:
            assert (done.returncode, report["published"]) == (1, False)
            assert "not published: the model does not beat the default" in done.stderr
            assert len(done.stderr.splitlines()) == 1
            forced = live.command("train", "--publish", "--force")
            assert forced.returncode == 0, forced.stderr
        else:
            assert (done.returncode, report["published"], done.stderr) == (0, True, "")
        with ModelFollower(live.settings, DEFAULT_PROFILE.version) as follower:
            assert follower.caught_up(30)
            taken = follower.take()
        assert taken is not None
        assert taken.model_id == report["model_id"]
        assert taken.header.promoted is (truth is TRUTH)
        assert live.committed() == dict.fromkeys(live.committed(), 0), "no group has moved"


def columns(rows: DailyRows) -> tuple[list[int] | list[str], ...]:
    return rows.day, rows.platform, rows.series, rows.impressions, rows.clicks


@pytest.mark.kafka
def test_publishing_without_the_topic_is_refused_before_training(kafka: str, tmp_path: Path) -> None:
    live = Live(kafka, ("127.0.0.1", 1), tmp_path, cache_enabled=False)
    done = live.command("train", table(TRUTH, tmp_path / "rows.csv"), "--publish")
    assert (done.returncode, done.stdout) == (2, "")
    assert "parallax topics create" in done.stderr
