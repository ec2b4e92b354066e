import numpy as np
import pytest
from scipy.special import expit, logit

from core.learning.ctr_model import FEATURES, MONOTONE, CtrFeatures, CtrModelConfig, CtrTrainer
from tests.planted import Planted

CONFIG = CtrModelConfig(cadence=5, window=20, least_clicks=100.0, least_child_weight=10.0, rounds=10)


def trained(seed: int = 1, windows: int = 30) -> tuple[CtrTrainer, CtrFeatures]:
    truth, features, trainer = Planted(seed=seed, windows=windows), CtrFeatures(40), CtrTrainer(CONFIG)
    series, default = np.arange(40), np.full(40, 0.04)
    for step, (impressions, clicks) in enumerate(zip(truth.impressions, truth.clicks, strict=True)):
        trainer.add(step, features.of(series, default, np.full(40, 50.0)), impressions, clicks, default)
        features.advance(series, impressions, clicks)
    return trainer, features


def test_features_equal_their_names() -> None:
    features = CtrFeatures(2)
    features.advance(np.array([0, 1]), np.array([100.0, 10.0]), np.array([8.0, 0.0]))
    features.advance(np.array([0]), np.array([50.0]), np.array([1.0]))
    row = dict(zip(FEATURES, features.of(np.array([0]), np.array([0.05]), np.array([9.0]))[0], strict=True))
    assert row["default_logit"] == pytest.approx(logit(0.05))
    assert row["default_log_shape"] == pytest.approx(np.log(9))
    for half_life in (1, 3, 10, 40):
        seen, clicked = 50 + 100 * 0.5 ** (1 / half_life), 1 + 8 * 0.5 ** (1 / half_life)
        above = logit((clicked + 5 * 0.05) / (seen + 5)) - logit(0.05)
        assert row[f"logit_above_default_{half_life}"] == pytest.approx(above, rel=1e-5)
        assert row[f"log_impressions_{half_life}"] == pytest.approx(np.log1p(seen), rel=1e-5)
    assert row["log_last_impressions"] == pytest.approx(np.log1p(50))


def test_a_series_without_a_past_has_missing_features_and_a_prediction() -> None:
    trainer, _ = trained()
    new = CtrFeatures(1).of(np.array([0]), np.array([0.04]), np.array([2.0]))
    assert np.isnan(new[0, FEATURES.index("log_last_impressions")])
    model = trainer.train(30)
    assert model is not None
    assert 0 < model.predict(new, np.array([0.04]))[0] < 1


def test_the_same_rows_give_the_same_model_and_the_window_is_kept() -> None:
    (first, features), (second, _) = trained(), trained()
    one, other = first.train(30), second.train(30)
    assert one is not None
    assert other is not None
    assert one.steps == (10, 30)
    rows = features.of(np.arange(40), np.full(40, 0.04), np.full(40, 50.0))
    assert one.predict(rows, np.full(40, 0.04)).tobytes() == other.predict(rows, np.full(40, 0.04)).tobytes()


def test_a_model_starts_from_the_default() -> None:
    """The margin is the default's logit: moving it moves the prediction by as much."""
    trainer, features = trained()
    model = trainer.train(30)
    assert model is not None
    rows = features.of(np.arange(40), np.full(40, 0.04), np.full(40, 50.0))
    low, high = (model.predict(rows, np.full(40, rate)) for rate in (0.04, 0.08))
    np.testing.assert_allclose(expit(logit(low) + logit(0.08) - logit(0.04)), high, rtol=1e-4)


@pytest.mark.parametrize("column", [at for at, sign in enumerate(MONOTONE) if sign])
def test_a_higher_rate_in_the_long_run_never_lowers_a_prediction(column: int) -> None:
    trainer, features = trained()
    model = trainer.train(30)
    assert model is not None
    rows = np.repeat(features.of(np.arange(40), np.full(40, 0.04), np.full(40, 50.0)), 30, axis=0)
    rows[:, column] = np.tile(np.linspace(-2, 2, 30), 40)
    rates = model.predict(rows, np.full(1200, 0.04)).reshape(40, 30)
    assert np.all(np.diff(rates, axis=1) >= 0)
    assert np.any(np.diff(rates, axis=1) > 0)


def test_training_waits_for_clicks_and_for_its_cadence() -> None:
    trainer, _ = trained(windows=1)
    assert trainer.due(1)
    empty = CtrTrainer(CtrModelConfig(least_clicks=1e9))
    assert not empty.due(0)
    trainer, _ = trained()
    assert trainer.train(30) is not None
    assert not trainer.due(34)
    assert trainer.due(35)


def test_the_newest_rows_are_those_that_stay_within_the_bound() -> None:
    trainer, _ = trained()
    trainer.config = CtrModelConfig(window=20, least_clicks=10.0, least_child_weight=10.0, rounds=2, most_rows=100)
    model = trainer.train(30)
    assert model is not None
    assert model.steps == (28, 30)
