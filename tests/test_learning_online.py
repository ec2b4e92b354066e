import msgspec
import numpy as np
import pytest

from core.learning.backtest import history, run
from core.learning.ctr_model import CtrFeatures, CtrModel, CtrModelConfig, CtrTrainer
from core.learning.empirical_bayes import Grid
from core.learning.online import STREAM_CONFIG, CtrPredictor, Key
from core.learning.promotion import NOT_YET, PromotionRule
from core.learning.scorecard import Scorecard
from core.learning.walk import LearningConfig
from schemas.scorecard import HORIZONS
from tests.planted import Floats, Planted

PLATFORMS = ("google_ads", "meta")
BASE = np.array([0.04, 0.02])
TRUTH = Planted(seed=3, windows=30, series=20, base={"google_ads": 0.04, "meta": 0.02}, wander=0.05)
KEYS: list[Key] = [(f"c{at // 2}", platform) for at, platform in enumerate(TRUTH.platform)]


def closed(days: int, predictor: CtrPredictor | None = None, first: int = 0) -> CtrPredictor:
    predictor = CtrPredictor(PLATFORMS, BASE) if predictor is None else predictor
    for day in range(first, days):
        predictor.close(day, KEYS, TRUTH.impressions[day], TRUTH.clicks[day])
    return predictor


def ahead(predictor: CtrPredictor, expected: float = 500.0) -> Floats:
    none = np.zeros(len(KEYS))
    return predictor.forecast(KEYS, none, none, np.full((len(KEYS), 3), expected)).rate


def trained() -> CtrModel:
    trainer, features = CtrTrainer(CtrModelConfig(least_clicks=10.0, least_child_weight=1.0)), CtrFeatures(20)
    for day in range(20):
        rate = np.full(20, 0.03)
        matrix = features.of(np.arange(20), rate, np.full(20, 40.0))
        trainer.add(day, matrix, TRUTH.impressions[day], TRUTH.clicks[day], rate)
        features.advance(np.arange(20), TRUTH.impressions[day], TRUTH.clicks[day])
    model = trainer.train(20)
    assert model is not None
    return model


def test_bytes_carry_the_whole_state() -> None:
    half = closed(15)
    half.adopt(trained())
    half = closed(20, half, 15)
    again = CtrPredictor.from_bytes(half.to_bytes(), PLATFORMS, BASE)
    assert again.to_bytes() == half.to_bytes()
    assert closed(30, again, 20).to_bytes() == closed(30, half, 20).to_bytes()


def test_the_stream_scores_what_a_backtest_scores() -> None:
    windows, series = np.nonzero(TRUTH.impressions >= 0)
    keys = [(KEYS[at][1], KEYS[at][0]) for at in series.tolist()]
    counts = (TRUTH.impressions[windows, series], TRUTH.clicks[windows, series])
    online = closed(30)
    past = history(windows, keys, *counts, dict(zip(PLATFORMS, BASE.tolist(), strict=True)))
    table = run(past, 0, online._config).scorecard.segments["all", "all"]
    np.testing.assert_allclose(online.scorecard.segments["all", "all"], table, rtol=1e-9)


def test_days_without_rows_pass() -> None:
    predictor = closed(10)
    predictor.close(15, KEYS[:1], np.array([100.0]), np.array([3.0]))
    assert predictor.last_day == 15
    assert sorted(predictor.scorecard.windows) == [*range(10), 15]


def test_a_closed_day_is_not_closed_again_and_a_key_stands_once() -> None:
    predictor = closed(3)
    with pytest.raises(ValueError, match="not after"):
        predictor.close(2, KEYS, TRUTH.impressions[2], TRUTH.clicks[2])
    with pytest.raises(ValueError, match="twice"):
        predictor.close(3, [KEYS[0], KEYS[0]], np.zeros(2), np.zeros(2))


def test_forecasts_leave_no_trace() -> None:
    predictor = closed(10)
    before = predictor.to_bytes()
    ahead(predictor)
    assert predictor.to_bytes() == before
    other = closed(10)
    new: list[Key] = [("new", "meta")]
    other.forecast(new, np.zeros(1), np.zeros(1), np.zeros((1, 3)))
    np.testing.assert_array_equal(ahead(closed(20, other, 10)), ahead(closed(20, predictor, 10)))


def test_a_batch_is_as_its_rows() -> None:
    predictor = closed(20)
    whole = predictor.forecast(KEYS, TRUTH.impressions[20], TRUTH.clicks[20], np.full((20, 3), 300.0))
    one = predictor.forecast(KEYS[4:5], TRUTH.impressions[20][4:5], TRUTH.clicks[20][4:5], np.full((1, 3), 300.0))
    np.testing.assert_allclose(whole.rate[4], one.rate[0], rtol=1e-12)
    assert whole.rate.shape == (20, len(HORIZONS))
    assert np.all((whole.low <= whole.rate) & (whole.rate <= whole.high))
    assert np.all((whole.campaign_low <= whole.campaign_rate) & (whole.campaign_rate <= whole.campaign_high))


def test_an_open_day_informs_and_a_week_is_less_sure_than_a_day() -> None:
    predictor = closed(20)
    none, busy = np.zeros(20), np.full(20, 5_000.0)
    quiet = predictor.forecast(KEYS, none, none, np.zeros((20, 3)))
    seen = predictor.forecast(KEYS, busy, busy * 0.3, np.zeros((20, 3)))
    assert np.all(seen.rate[:, 0] > 1.2 * quiet.rate[:, 0])
    width = (quiet.high - quiet.low) / quiet.rate
    assert width[:, 2].mean() > width[:, 0].mean()


def test_a_source_is_named() -> None:
    predictor = closed(10)
    keys: list[Key] = [KEYS[0], ("new", "meta"), ("newer", "meta")]
    found = predictor.forecast(keys, np.array([0.0, 0, 9]), np.zeros(3), np.zeros((3, 3)))
    assert found.source == ["empirical_bayes", "prior", "empirical_bayes"]


def test_a_campaign_is_the_mixture_of_its_platforms() -> None:
    predictor = closed(20)
    expected = np.zeros((20, 3))
    expected[::2], expected[1::2] = 900.0, 100.0
    found = predictor.forecast(KEYS, np.zeros(20), np.zeros(20), expected)
    assert found.campaigns == [f"c{at}" for at in range(10)]
    np.testing.assert_allclose(found.campaign_rate, 0.9 * found.rate[::2] + 0.1 * found.rate[1::2])


def test_an_adopted_model_serves_nowhere_before_it_has_earned_it() -> None:
    predictor = closed(20)
    plain = ahead(predictor)
    predictor.adopt(trained())
    np.testing.assert_array_equal(ahead(predictor), plain)
    assert not any(one.promoted for one in predictor.standings.values())


def test_other_bytes_are_refused() -> None:
    good = closed(3).to_bytes()
    with pytest.raises(ValueError, match="not a state"):
        CtrPredictor.from_bytes(good[:-9], PLATFORMS, BASE)
    with pytest.raises(ValueError, match="other platforms"):
        CtrPredictor.from_bytes(good, ("meta",), BASE[:1])
    with pytest.raises(ValueError, match="other hypotheses"):
        CtrPredictor.from_bytes(good, PLATFORMS, BASE, LearningConfig(grid=Grid(noises=(0.0,))))
    with pytest.raises(ValueError, match="not a scorecard"):
        Scorecard.from_bytes(b"\x00")
    with pytest.raises(ValueError, match="truncated"):
        CtrModel.from_bytes(trained().to_bytes()[:50])


def test_a_scorecard_survives_as_bytes() -> None:
    card = closed(5).scorecard
    assert Scorecard.from_bytes(card.to_bytes()) == card


def test_another_model_starts_with_no_record() -> None:
    rule = PromotionRule(windows=5, least_clicks=1.0)
    predictor = CtrPredictor(PLATFORMS, BASE, msgspec.structs.replace(STREAM_CONFIG, rule=rule))
    predictor.adopt(trained())
    closed(10, predictor)
    assert all(one != NOT_YET for one in predictor.standings.values())
    predictor.adopt(trained())
    closed(11, predictor, 10)
    assert all(msgspec.structs.replace(one, capital=()) == NOT_YET for one in predictor.standings.values())
