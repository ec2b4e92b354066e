import doctest

import numpy as np
import pytest

import core.learning.decayed
from core.learning.backtest import run
from core.learning.decayed import DecayedCounts
from core.learning.empirical_bayes import EmpiricalBayes, Grid
from core.learning.evidence import Evidence
from core.learning.walk import DEFAULT, Predicted
from tests.planted import Floats, Planted


def walked(truth: Planted, until: int | None = None) -> tuple[EmpiricalBayes, Floats, Floats]:
    """The default after a truth's windows, and the rates and shapes that it predicted, [windows, series]."""
    series = np.arange(truth.rate.shape[1])
    names = sorted(truth.base)
    platform = np.array([names.index(name) for name in truth.platform])
    default = EmpiricalBayes(platform, truth.campaign, np.array([truth.base[name] for name in names]))
    said = []
    for impressions, clicks in zip(truth.impressions[:until], truth.clicks[:until], strict=True):
        said.append(default.predict(series))
        default.advance(series, impressions, clicks)
    return default, np.stack([rate for rate, _ in said]), np.stack([shape for _, shape in said])


def relative_error(said: Floats, truth: Floats) -> float:
    return float(np.sqrt(np.mean(np.log(said / truth) ** 2)))


def test_estimates_converge_to_rates_that_stand_still() -> None:
    truth = Planted(seed=4, windows=120)
    _, rate, _ = walked(truth)
    errors = [relative_error(rate[at : at + 10], truth.rate[at : at + 10]) for at in (1, 30, 110)]
    assert errors[0] > 1.5 * errors[1] > 1.5 * errors[2]
    assert errors[2] < 0.06


def test_the_predictive_spread_is_that_of_the_errors() -> None:
    """Errors over the spread that was claimed have unit variance: neither sure of themselves nor shy."""
    truth = Planted(seed=5, windows=120, wander=0.15)
    _, rate, shape = walked(truth)
    late = slice(40, None)
    standard = (truth.rate[late] / rate[late] - 1) * np.sqrt(shape[late])
    assert float(np.mean(standard**2)) == pytest.approx(1, abs=0.25)


def test_volatility_is_fitted_and_shortens_the_memory() -> None:
    still, _, _ = walked(Planted(seed=6, windows=100))
    restless, _, _ = walked(Planted(seed=6, windows=100, wander=0.3))
    assert restless.fitted()[0]["volatility"] > 10 * still.fitted()[0]["volatility"]


def test_prior_strength_is_fitted_to_how_far_series_differ() -> None:
    apart, _, _ = walked(Planted(seed=7, windows=60, spread=1.0))
    alike, _, _ = walked(Planted(seed=7, windows=60, spread=0.0))
    assert alike.fitted()[0]["strength"] > 10 * apart.fitted()[0]["strength"]


def test_a_platform_is_learned_from_its_own_series_and_serves_its_new_ones() -> None:
    truth = Planted(seed=8, windows=60, base={"google_ads": 0.01, "meta": 0.08}, spread=0.1)
    truth.impressions[:, :4] = 0.0
    truth.clicks[:, :4] = 0.0
    truth.base = {"google_ads": 0.04, "meta": 0.02}
    _, rate, _ = walked(truth)
    np.testing.assert_allclose(rate[-1, :4:2], 0.01, rtol=0.15)
    np.testing.assert_allclose(rate[-1, 1:4:2], 0.08, rtol=0.15)


def test_before_anything_is_seen_the_profile_speaks() -> None:
    _, rate, _ = walked(Planted(windows=1))
    np.testing.assert_allclose(rate[0], 0.04, rtol=0.01)


def test_a_fall_that_all_series_share_is_followed_before_any_of_them_could_tell() -> None:
    truth = Planted(seed=9, windows=80, series=300, volume=30.0)
    truth.rate[70:] *= 0.6
    truth.clicks = np.random.default_rng(1).binomial(truth.impressions.astype(int), truth.rate).astype(np.float64)
    _, rate, _ = walked(truth)
    ratio = (truth.impressions * rate).sum(axis=1) / (truth.impressions * truth.rate).sum(axis=1)
    assert ratio[70] > 1.5
    assert ratio[72:].mean() == pytest.approx(1, abs=0.1)


def test_noise_that_does_not_last_widens_the_spread_and_is_no_memory() -> None:
    truth = Planted(seed=10, windows=80, volume=5000.0, spread=0.3)
    still = truth.rate.copy()
    random = np.random.default_rng(2)
    truth.rate = np.minimum(still * random.gamma(16.0, 1 / 16.0, size=still.shape), 1.0)
    truth.clicks = random.binomial(truth.impressions.astype(int), truth.rate).astype(np.float64)
    default, rate, shape = walked(truth)
    late = slice(40, None)
    standard = (truth.rate[late] / rate[late] - 1) * np.sqrt(shape[late])
    assert float(np.mean(standard**2)) == pytest.approx(1, abs=0.25)
    assert default.fitted()[0]["noise"] > 0.03
    assert relative_error(rate[late], still[late]) < 0.12


def test_intervals_cover_the_planted_truth() -> None:
    hits: list[Floats] = []
    for seed in range(3):
        truth = Planted(seed=seed, windows=80, wander=0.1)
        result = run(truth.history(), 30)
        table = result.scorecard.segments["all", "all"][result.scorecard.predictors.index(DEFAULT)]
        hits.append(table[-3:])
    intervals, covered, exact = np.sum(hits, axis=0)
    assert covered / intervals == pytest.approx(0.9, abs=0.02)
    assert exact / intervals == pytest.approx(0.9, abs=0.02)


def test_evidence_of_two_workers_is_the_sum_of_theirs() -> None:
    random = np.random.default_rng(0)
    scores, groups = random.standard_normal((6, 30)), np.arange(30) % 3
    whole, left, right = (Evidence(3, 6, memory=10.0) for _ in range(3))
    for _ in range(4):
        whole.add(scores, groups)
        left.add(scores[:, :17], groups[:17])
        right.add(scores[:, 17:], groups[17:])
    np.testing.assert_allclose(left.scores + right.scores, whole.scores)
    np.testing.assert_allclose(whole.weights().sum(axis=1), 1.0)


def test_evidence_is_forgotten_with_its_half_life() -> None:
    evidence, scores = Evidence(1, 2, memory=2.0), np.array([[1.0], [-1.0]])
    for _ in range(3):
        evidence.add(scores, np.zeros(1, dtype=np.int64))
    np.testing.assert_allclose(evidence.scores[0, 0], 1 + 0.5**0.5 + 0.5)


def test_one_hypothesis_is_a_plain_filter() -> None:
    """A grid of one leaves nothing to weigh: two series with the same counts get the same rate."""
    grid = Grid((40.0,), (80.0,), (0.01,), (0.9,), (0.0,), (1e-3,), (1e-4,), (0.01,))
    default = EmpiricalBayes(np.zeros(2, dtype=np.int64), np.arange(2), np.array([0.04]), grid)
    for _ in range(5):
        default.advance(np.arange(2), np.array([500.0, 500.0]), np.array([10.0, 10.0]))
    rate, _ = default.predict(np.arange(2))
    assert rate[0] == rate[1]
    assert rate[0] == pytest.approx(0.02, rel=0.1)
    assert default.fitted()[0]["half_life"] == pytest.approx(40.0)


def test_decayed_counts_are_weighted_sums() -> None:
    counts = DecayedCounts(np.array([2.0, np.inf]), 3)
    random = np.random.default_rng(0)
    shown, clicked = random.integers(0, 90, (7, 3)).astype(np.float64), random.integers(0, 9, (7, 3)).astype(np.float64)
    for impressions, clicks in zip(shown, clicked, strict=True):
        counts.advance(impressions, clicks)
    weights = 0.5 ** (np.arange(6, -1, -1) / 2.0)
    np.testing.assert_allclose(counts.impressions, [weights @ shown, shown.sum(axis=0)])
    np.testing.assert_allclose(counts.clicks, [weights @ clicked, clicked.sum(axis=0)])
    assert doctest.testmod(core.learning.decayed).failed == 0


def test_predicted_carries_what_was_known_before_the_window() -> None:
    said: list[Predicted] = []
    truth = Planted(windows=5)
    run(truth.history(), 3, on_predicted=said.append)
    assert [one.window for one in said] == [0, 1, 2, 3, 4]
    _, rate, _ = walked(truth)
    np.testing.assert_array_equal(np.stack([one.rates[DEFAULT] for one in said]), rate)
