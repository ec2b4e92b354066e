import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import betabinom, binom, nbinom

from core.learning import predictive
from core.learning.calibration import AdaptiveIntervals
from core.learning.predictive import Floats, centrality, count_interval, covered_share, distribution, moments

COUNTS = np.arange(0.0, 60.0)


def one(value: float) -> Floats:
    return np.array([value])


def test_more_variance_than_mean_is_the_negative_binomial() -> None:
    mean, variance = 7.0, 19.0
    oracle = nbinom.cdf(COUNTS, mean**2 / (variance - mean), mean / variance)
    np.testing.assert_allclose(distribution(COUNTS, np.full(60, mean), np.full(60, variance)), oracle, atol=1e-12)


def test_less_variance_than_mean_is_the_binomial() -> None:
    oracle = binom.cdf(COUNTS, 40, 0.3)
    mean, variance = np.full(60, 12.0), np.full(60, 8.4)
    np.testing.assert_allclose(distribution(COUNTS, mean, variance), oracle, atol=1e-9)


def test_moments_are_those_of_a_beta_binomial_of_the_same_rate() -> None:
    alpha, beta, trials = 8.0, 92.0, 50.0
    rate, relative = alpha / (alpha + beta), beta / alpha / (alpha + beta + 1)
    mean, variance = moments(one(rate), one(1 / relative), one(trials))
    oracle = betabinom.stats(trials, alpha, beta)
    assert mean[0] == pytest.approx(oracle[0])
    assert variance[0] == pytest.approx(oracle[1], rel=0.002)


@given(st.floats(0.01, 0.6), st.floats(0.5, 500), st.integers(1, 3000))
def test_a_distribution_rises_from_zero_to_one(rate: float, shape: float, trials: int) -> None:
    mean, variance = moments(one(rate), one(shape), one(trials))
    values = np.concatenate([distribution(one(k), mean, variance) for k in (-1, 0, trials // 3, trials, 1e7)])
    assert values[0] == 0
    assert np.all(np.diff(values) >= -1e-12)
    assert values[-1] == pytest.approx(1, abs=1e-9)


@given(st.floats(0.01, 0.6), st.floats(0.5, 500), st.integers(1, 400), st.floats(0.02, 0.5))
def test_an_interval_holds_exactly_the_counts_that_are_central_enough(
    rate: float, shape: float, trials: int, level: float
) -> None:
    mean, variance = moments(one(rate), one(shape), one(trials))
    counts = np.arange(0.0, trials + 1)
    central = centrality(counts, np.repeat(mean, counts.size), np.repeat(variance, counts.size))
    low, high = count_interval(mean, variance, one(trials), one(level))
    inside = counts[central >= level]
    assert inside.size, "the median is always central enough"
    assert (low[0], high[0]) == (inside[0], inside[-1])


def test_the_exact_share_of_true_draws_is_ninety_per_cent_however_small_the_counts() -> None:
    random = np.random.default_rng(3)
    for trials in (3, 30, 3000):
        rate = random.gamma(20.0, 0.03 / 20, size=40_000)
        clicks = random.binomial(trials, np.minimum(rate, 1.0)).astype(np.float64)
        mean, variance = moments(np.full(40_000, 0.03), np.full(40_000, 20.0), np.full(40_000, float(trials)))
        assert covered_share(clicks, mean, variance, 0.9).mean() == pytest.approx(0.9, abs=0.005)


@pytest.mark.parametrize("truth", [0.5, 1.0, 4.0])
def test_intervals_reach_their_promise_when_the_shape_is_wrong(truth: float) -> None:
    """The rates stray by more or less than the shape says; the levels make up for it."""
    random = np.random.default_rng(1)
    intervals, hits, n, said = AdaptiveIntervals(), [], 400, 25.0
    for step in range(120):
        trials = random.integers(200, 3000, size=n).astype(np.float64)
        rate = random.gamma(said * truth, 0.03 / said / truth, size=n)
        clicks = random.binomial(trials.astype(np.int64), np.minimum(rate, 1.0)).astype(np.float64)
        covered, band, central = intervals.covers(np.full(n, 0.03), np.full(n, said), trials, clicks)
        intervals.advance(band, central)
        if step >= 60:
            hits.append(covered.mean())
    assert np.mean(hits) == pytest.approx(0.9, abs=0.01)


def test_a_published_interval_holds_its_rate_and_agrees_with_what_is_scored() -> None:
    intervals, n = AdaptiveIntervals(), 500
    random = np.random.default_rng(2)
    rate, shape = random.uniform(0.001, 0.3, n), random.uniform(1, 200, n)
    trials = random.integers(1, 2000, n).astype(np.float64)
    low, high = intervals.interval(rate, shape, trials)
    assert np.all((low >= 0) & (low <= rate) & (rate <= high) & (high <= 1))
    clicks = random.binomial(trials.astype(np.int64), rate).astype(np.float64)
    covered, _, _ = intervals.covers(rate, shape, trials, clicks)
    inside = (clicks / trials >= low - 1e-12) & (clicks / trials <= high + 1e-12)
    np.testing.assert_array_equal(inside, covered == 1)


def test_the_module_is_vectorised_over_any_batch() -> None:
    mean, variance = moments(np.array([0.01, 0.2]), np.array([5.0, 50.0]), np.array([10.0, 1000.0]))
    both = predictive.mid_probability(np.array([0.0, 190.0]), mean, variance)
    for at in range(2):
        alone = predictive.mid_probability(
            np.array([0.0, 190.0])[at : at + 1], mean[at : at + 1], variance[at : at + 1]
        )
        assert alone[0] == both[at]
