import csv
import gzip
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from core.learning.backtest import Backtest, history, run
from core.learning.baselines import BASELINES, PLATFORM_MEAN, Baselines
from core.learning.ctr_model import CtrModelConfig
from core.learning.measures import Measures, compare, measures, verdict
from core.learning.promotion import PromotionRule
from core.learning.walk import DEFAULT, MODEL, PREDICTORS, SERVED, LearningConfig, Predicted
from tests.planted import Floats, Planted

DATASETS = Path(__file__).parents[1].parent / "shared" / "datasets"
QUICK = LearningConfig(
    model=CtrModelConfig(cadence=20, least_clicks=500.0, least_child_weight=20.0, rounds=20),
    rule=PromotionRule(windows=14, least_clicks=50.0),
)


def summary(result: Backtest) -> dict[str, Measures]:
    return {one.predictor: one for one in measures(result.scorecard) if one.axis == "all"}


def predictions(truth: Planted, until: int | None = None, clicks: Floats | None = None) -> list[Predicted]:
    said: list[Predicted] = []
    run(truth.history(clicks, until), 0, QUICK, on_predicted=said.append)
    return said


def test_hiding_the_future_changes_no_prediction_by_a_bit() -> None:
    truth = Planted(seed=1, windows=70, wander=0.1, base={"google_ads": 0.04, "meta": 0.02})
    truth.impressions[:50, 30:] = 0.0
    truth.clicks[:50, 30:] = 0.0
    whole, cut = predictions(truth), predictions(truth, until=47)
    assert whole[46].rates[MODEL].tobytes() != whole[46].rates[DEFAULT].tobytes(), "a model must have been at work"
    for before, after in zip(cut, whole, strict=False):
        assert before.series.tobytes() == after.series.tobytes()
        assert before.shape.tobytes() == after.shape.tobytes()
        for name in PREDICTORS:
            assert before.rates[name].tobytes() == after.rates[name].tobytes(), (before.window, name)


def test_series_of_the_future_change_no_prediction_by_a_bit() -> None:
    truth = Planted(seed=2, windows=40)
    keys = [("google_ads", f"s{at}") for at in range(40)]
    windows, series = np.nonzero(truth.impressions >= 0)
    rows = (windows, [keys[at] for at in series], truth.impressions[windows, series], truth.clicks[windows, series])
    late = (np.full(3, 39), [("google_ads", f"a{at}") for at in range(3)], np.full(3, 50.0), np.full(3, 9.0))
    said: list[list[Predicted]] = [[], []]
    run(history(*rows, truth.base), 0, QUICK, on_predicted=said[0].append)
    shown, clicked = (np.concatenate((rows[at], late[at])) for at in (2, 3))
    both = history(np.concatenate((rows[0], late[0])), [*rows[1], *late[1]], shown, clicked, truth.base)
    run(both, 0, QUICK, on_predicted=said[1].append)
    for alone, beside in zip(said[0][:-1], said[1][:-1], strict=True):
        for name in PREDICTORS:
            assert alone.rates[name].tobytes() == beside.rates[name].tobytes()


def test_a_windows_own_clicks_do_not_reach_its_prediction() -> None:
    truth = Planted(seed=3, windows=50)
    other = truth.clicks.copy()
    other[45:] = truth.impressions[45:]
    told, lied = predictions(truth), predictions(truth, clicks=other)
    for name in PREDICTORS:
        assert told[45].rates[name].tobytes() == lied[45].rates[name].tobytes()
        assert told[46].rates[name].tobytes() != lied[46].rates[name].tobytes()


def test_shuffled_labels_leave_no_skill() -> None:
    truth = Planted(seed=4, windows=80, spread=0.8, wander=0.05)
    true_skill = run(truth.history(), 40, QUICK)
    assert "better than the platform mean" in verdict(true_skill.scorecard, DEFAULT, MODEL, BASELINES)[1][0]
    random = np.random.default_rng(0)
    flat = (truth.clicks.sum() / truth.impressions.sum()) * np.exp(random.permuted(np.log(truth.rate / 0.04).ravel()))
    shuffled = random.binomial(truth.impressions.astype(int), np.minimum(flat.reshape(truth.rate.shape), 1.0))
    no_skill = run(truth.history(shuffled.astype(np.float64)), 40, QUICK)
    _, lines = verdict(no_skill.scorecard, DEFAULT, MODEL, BASELINES)
    assert lines[0].startswith("nothing beats the platform mean"), lines
    explained = summary(no_skill)[DEFAULT].deviance_explained
    assert explained is not None
    assert explained < 0.01


def test_a_model_finds_what_the_default_cannot_know_and_is_promoted() -> None:
    """Series with much delivery on a day are clicked far less on the next: no rate of the past tells."""
    truth = Planted(seed=5, windows=120, series=60, spread=0.2)
    random = np.random.default_rng(5)
    busy = random.random(truth.rate.shape) < 0.5
    truth.impressions = np.where(busy, 900.0, 150.0)
    rate = np.where(np.vstack((busy[:1], busy[:-1])), 0.5, 1.5) * truth.rate
    truth.clicks = random.binomial(truth.impressions.astype(int), rate).astype(np.float64)
    config = LearningConfig(model=CtrModelConfig(cadence=20, eta=0.2, least_child_weight=20.0, ridge=1.0))
    result = run(truth.history(), 60, config)
    assert result.standings["google_ads"].promoted
    found = summary(result)
    assert found[MODEL].log_loss < 0.98 * found[DEFAULT].log_loss
    assert found[SERVED].log_loss < found[DEFAULT].log_loss
    best = compare(result.scorecard, [(MODEL, DEFAULT), (SERVED, DEFAULT)])
    assert all(one.beats for one in best)


def test_the_default_serves_where_the_model_has_not_been_promoted() -> None:
    truth = Planted(seed=6, windows=40)
    for said in predictions(truth):
        if said.window < 14:
            assert said.rates[SERVED].tobytes() == said.rates[DEFAULT].tobytes()


def test_windows_in_which_a_platform_shows_nothing_say_nothing_of_it() -> None:
    """Whether and how often they pass does not move what it has earned."""
    truth = Planted(seed=8, windows=70, base={"google_ads": 0.04, "meta": 0.02})
    shown = run(truth.history(until=60), 0, QUICK).standings
    paused = [at for at, name in enumerate(truth.platform) if name == "meta"]
    truth.impressions[60:, paused] = truth.clicks[60:, paused] = 0.0
    later = run(truth.history(), 0, QUICK).standings
    assert shown["meta"].capital
    assert later["meta"] == shown["meta"]
    assert later["google_ads"] != shown["google_ads"]


def test_rows_of_one_window_and_series_are_summed_and_clicks_held_to_impressions() -> None:
    keys = [("meta", "b"), ("meta", "a"), ("meta", "b"), ("meta", "a")]
    past = history(np.array([1, 0, 1, 1]), keys, np.array([5.0, 7, 6, 2]), np.array([1.0, 9, 2, 0]), {"meta": 0.02})
    assert past.window.tolist() == [0, 1, 1]
    assert past.series.tolist() == [0, 0, 1]
    assert past.impressions.tolist() == [7, 2, 11]
    assert past.clicks.tolist() == [7, 0, 3]


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(ValueError, match="at or after the split"):
        run(Planted(windows=5).history(), 5)


def test_windows_without_rows_pass() -> None:
    past = history(np.array([0, 9]), [("meta", "a")] * 2, np.array([100.0, 50]), np.array([3.0, 1]), {"meta": 0.02})
    result = run(past, 5)
    assert result.windows == 5
    assert summary(result)[DEFAULT].rows == 1


def test_baselines_equal_their_definitions() -> None:
    truth = Planted(seed=7, windows=20, series=5)
    baselines, series = Baselines(np.zeros(5, dtype=np.int64), np.array([0.04])), np.arange(5)
    for impressions, clicks in zip(truth.impressions, truth.clicks, strict=True):
        baselines.advance(series, impressions, clicks)
    n, k = truth.impressions, truth.clicks
    found = baselines.predict(series)
    age = np.arange(19, -1, -1)[:, None]
    mean = (k.sum() + 20 * 0.04) / (n.sum() + 20)
    np.testing.assert_allclose(found["platform_mean"], mean)
    np.testing.assert_allclose(found["last_value"], k[-1] / n[-1])
    np.testing.assert_allclose(found["cumulative_mean"], k.sum(axis=0) / n.sum(axis=0))
    seen, clicked = (np.sum(values * 0.5 ** (age / 7), axis=0) for values in (n, k))
    np.testing.assert_allclose(found["decayed_mean"], clicked / seen)
    seen, clicked = (np.sum(values * 0.5 ** (age / 4), axis=0) for values in (n, k))
    np.testing.assert_allclose(found["decayed_eb"], (clicked + 20 * mean) / (seen + 20))
    assert tuple(found) == BASELINES


def test_real_days_the_default_beats_every_baseline() -> None:
    """A third of the series, judged on seven weeks in summer; the end of the data is left alone."""
    path = DATASETS / "adwords_daily_2012.csv.gz"
    if not path.is_file():
        pytest.skip("the shared datasets are not here")
    with gzip.open(path, "rt") as text:
        rows = [row for row in csv.DictReader(text) if int(row["keyword_id"]) % 3 == 0 and row["date"] < "2012-09-20"]
    days = np.array([date.fromisoformat(row["date"]).toordinal() for row in rows])
    keys = [("google_ads", row["keyword_id"]) for row in rows]
    shown, clicked = (np.array([float(row[name]) for row in rows]) for name in ("impressions", "clicks"))
    result = run(history(days, keys, shown, clicked, {"google_ads": 0.04}), date(2012, 8, 1).toordinal())
    found = summary(result)
    default = found[DEFAULT]
    for name in BASELINES:
        baseline = found[name]
        assert default.log_loss < baseline.log_loss, name
        assert default.mae is not None
        assert baseline.mae is not None
        assert default.mae < baseline.mae, name
    assert default.calibration == pytest.approx(1, abs=0.03)
    assert default.coverage == pytest.approx(0.9, abs=0.02)
    assert default.coverage_exact == pytest.approx(0.9, abs=0.02)
    beaten = {one.against for one in compare(result.scorecard, [(DEFAULT, name) for name in BASELINES]) if one.beats}
    assert beaten >= {"platform_mean", "last_value", "cumulative_mean", "decayed_mean"}
    assert found[SERVED].log_loss <= default.log_loss


def test_the_negative_control_says_that_nothing_beats_the_platform_mean() -> None:
    path = DATASETS / "global_ads_synthetic.csv"
    if not path.is_file():
        pytest.skip("the shared datasets are not here")
    with path.open() as text:
        rows = list(csv.DictReader(text))
    days = np.array([date.fromisoformat(row["date"]).toordinal() for row in rows])
    keys = [(row["platform"], f"{row['campaign_type']}/{row['industry']}/{row['country']}") for row in rows]
    shown, clicked = (np.array([float(row[name]) for row in rows]) for name in ("impressions", "clicks"))
    base = {"Google Ads": 0.04, "Meta Ads": 0.015, "TikTok Ads": 0.03}
    said: list[Predicted] = []
    past = history(days, keys, shown, clicked, base)
    result = run(past, date(2024, 7, 1).toordinal(), on_predicted=said.append)
    assert any(one.rates[MODEL].tobytes() != one.rates[DEFAULT].tobytes() for one in said)
    for one in said:
        assert one.rates[SERVED].tobytes() == one.rates[DEFAULT].tobytes(), "the model is never promoted"
    _, lines = verdict(result.scorecard, DEFAULT, MODEL, BASELINES)
    assert lines[0].startswith("nothing beats the platform mean")
    assert summary(result)[DEFAULT].log_loss < 1.001 * summary(result)[PLATFORM_MEAN].log_loss
