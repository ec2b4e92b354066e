import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.stats import beta as beta_distribution
from scipy.stats import betabinom

import core.shrinkage
from core.profile import DEFAULT_PROFILE
from core.shrinkage import DEFAULT_PRIOR, CtrEstimates, CtrPrior, decay, predict

Floats = NDArray[np.float64]

BASE = np.array([bands.ctr.ideal for bands in DEFAULT_PROFILE.platforms.values()], dtype=np.float64)
P = BASE.size
NO_POOLING = CtrPrior(campaign_strength=1e12)

volumes = arrays(np.float64, (4, P), elements=st.integers(0, 10**6).map(float))
dirty = arrays(np.float64, (4, P), elements=st.floats(-1e6, 1e12) | st.sampled_from([0.0, 1e18]))


def ahead(impressions: Floats) -> Floats:
    """Platforms' expected impressions with the campaign's total."""
    return np.column_stack((impressions, impressions.sum(axis=1)))


def by_hand(clicks: Floats, impressions: Floats, share: Floats, prior: CtrPrior) -> dict[str, Floats]:
    """Rates and variances of one campaign, with plain loops over the formulas of the docstring."""
    m, k = prior.strength, prior.campaign_strength
    rate, variance, prior_rate, multiplier = np.zeros(P + 1), np.zeros(P + 1), np.zeros(P + 1), np.zeros(P + 1)
    for p in range(P + 1):
        others = [q for q in range(P) if q != p]
        seen = sum(clicks[q] for q in others)
        expected = sum(impressions[q] * BASE[q] for q in others)
        multiplier[p] = min(max((seen + k) / (expected + k), 0.1), 10)
    for p in range(P):
        prior_rate[p] = BASE[p] * multiplier[p]
        alpha = clicks[p] + m * prior_rate[p]
        beta = impressions[p] - clicks[p] + m * (1 - prior_rate[p])
        rate[p] = alpha / (alpha + beta)
        variance[p] = alpha * beta / ((alpha + beta) ** 2 * (alpha + beta + 1))
        rate[P] += share[p] * rate[p]
        prior_rate[P] += share[p] * prior_rate[p]
        variance[P] += share[p] ** 2 * variance[p]
    return {"rate": rate, "variance": variance, "prior_rate": prior_rate, "multiplier": multiplier}


@given(volumes, st.data())
def test_the_batch_equals_the_formulas_campaign_by_campaign(impressions: Floats, data: st.DataObject) -> None:
    clicks = np.floor(impressions * data.draw(arrays(np.float64, (4, P), elements=st.floats(0, 1))))
    impressions = impressions + 1
    estimates = predict(clicks, impressions, BASE, np.zeros((4, P + 1)))
    for row in range(4):
        share = impressions[row] / impressions[row].sum()
        oracle = by_hand(clicks[row], impressions[row], share, DEFAULT_PRIOR)
        np.testing.assert_allclose(estimates.rate[row], oracle["rate"], rtol=1e-10)
        np.testing.assert_allclose(estimates.prior_rate[row], oracle["prior_rate"], rtol=1e-10)
        np.testing.assert_allclose(estimates.multiplier[row], oracle["multiplier"], rtol=1e-10)


def test_the_interval_of_the_rate_is_the_posteriors_own() -> None:
    clicks, impressions = np.array([[3.0, 40.0, 0.0]]), np.array([[200.0, 900.0, 30.0]])
    estimates = predict(clicks, impressions, BASE, np.zeros((1, P + 1)))
    alpha = clicks + 20 * estimates.prior_rate[:, :P]
    beta = impressions - clicks + 20 * (1 - estimates.prior_rate[:, :P])
    np.testing.assert_allclose(estimates.low[:, :P], beta_distribution.ppf(0.05, alpha, beta), rtol=1e-8)
    np.testing.assert_allclose(estimates.high[:, :P], beta_distribution.ppf(0.95, alpha, beta), rtol=1e-8)
    oracle = by_hand(clicks[0], impressions[0], impressions[0] / impressions.sum(), DEFAULT_PRIOR)
    mean, variance = oracle["rate"][P], oracle["variance"][P]
    strength = mean * (1 - mean) / variance - 1
    matched = beta_distribution(mean * strength, (1 - mean) * strength)
    assert (estimates.low[0, P], estimates.high[0, P]) == pytest.approx(matched.interval(0.9), rel=1e-8)


@pytest.mark.parametrize("trials", [5_000.0, 40_000.0])
def test_the_predictive_interval_has_the_beta_binomials_variance(trials: float) -> None:
    estimates = predict([[30.0, 0, 0]], [[1000.0, 0, 0]], BASE, [[trials, 0, 0, trials]])
    a, b = 30 + 20 * BASE[0], 970 + 20 * (1 - BASE[0])
    exact = betabinom(int(trials), a, b)
    mean, variance = exact.mean() / trials, exact.var() / trials**2
    strength = mean * (1 - mean) / variance - 1
    low, high = beta_distribution(mean * strength, (1 - mean) * strength).interval(0.9)
    assert (estimates.low[0, 0], estimates.high[0, 0]) == pytest.approx((low - 0.5 / trials, high), rel=1e-8)
    assert (estimates.low[0, 0] * trials, estimates.high[0, 0] * trials) == pytest.approx(exact.interval(0.9), abs=2)
    assert (estimates.rate[0, 0], estimates.low[0, 0]) == pytest.approx((estimates.rate[0, P], estimates.low[0, P]))


def coverage(estimates: CtrEstimates, clicks: NDArray[np.int64], impressions: NDArray[np.int64]) -> Floats:
    """The share of campaigns whose observed CTR lies in its interval, by column."""
    observed = ahead(clicks.astype(np.float64)) / ahead(impressions.astype(np.float64))
    inside = (observed >= estimates.low) & (observed <= estimates.high)
    return np.asarray(inside.mean(axis=0), dtype=np.float64)


def simulated(truth: Floats, most: int, expected: int, prior: CtrPrior, rng: np.random.Generator) -> Floats:
    """Coverage after a history of up to ``most`` impressions a platform, over a window of ``expected``."""
    impressions = rng.integers(most // 10, most, truth.shape)
    window = np.full(truth.shape, expected)
    estimates = predict(rng.binomial(impressions, truth), impressions, BASE, ahead(window.astype(np.float64)), prior)
    return coverage(estimates, rng.binomial(window, truth), window)


@pytest.mark.parametrize("history", [1_000, 5_000, 50_000])
@pytest.mark.parametrize("expected", [2_000, 20_000])
def test_intervals_cover_nine_of_ten_when_the_truth_comes_from_the_prior(history: int, expected: int) -> None:
    rng = np.random.default_rng(20260131)
    truth = rng.beta(20 * BASE, 20 * (1 - BASE), (20_000, P))
    covered = simulated(truth, history, expected, NO_POOLING, rng)
    # No click at all is the outcome of one Meta cell in ten, or more: such a cell cannot be cut down to 90 %.
    np.testing.assert_allclose(covered[1:], 0.9, atol=0.02)
    assert 0.88 <= covered[0] <= 0.94


@pytest.mark.parametrize("expected", [1_000, 10_000])
def test_intervals_cover_nine_of_ten_when_campaigns_differ_from_the_profile(expected: int) -> None:
    rng = np.random.default_rng(20260201)
    multiplier = np.exp(rng.normal(0, 0.4, (20_000, 1)) + rng.normal(0, 0.3, (20_000, P)))
    covered = simulated(BASE * multiplier, 20_000, expected, DEFAULT_PRIOR, rng)
    np.testing.assert_allclose(covered, 0.9, atol=0.02)


@pytest.mark.parametrize("history", [20, 200, 5_000])
@pytest.mark.parametrize("expected", [1, 20, 60, 200])
def test_small_cells_are_covered_too_though_no_click_is_likely(history: int, expected: int) -> None:
    """Whole clicks cannot be cut at exactly 90 %: here the interval may hold more, and hardly less."""
    rng = np.random.default_rng(5)
    truth = np.minimum(BASE * np.exp(rng.normal(0, 0.4, (20_000, P))), 0.5)
    assert simulated(truth, history, expected, DEFAULT_PRIOR, rng).min() >= 0.87


def test_an_interval_does_not_deny_that_no_one_may_click() -> None:
    counts = np.full((1, P), 20_000.0)
    estimates = predict(counts * BASE, counts, BASE, [[100.0, 100, 100, 300]])
    np.testing.assert_array_equal(estimates.low[0, :1], 0)
    rate = predict(counts * BASE, counts, BASE, np.zeros((1, P + 1)))
    assert (rate.low > 0.01).all()


def test_no_data_gives_the_profile_and_much_data_gives_the_rate() -> None:
    nothing = predict(np.zeros((1, P)), np.zeros((1, P)), BASE, np.zeros((1, P + 1)))
    np.testing.assert_allclose(nothing.rate[0, :P], BASE, rtol=1e-12)
    assert nothing.rate[0, P] == pytest.approx(BASE.mean())
    np.testing.assert_allclose(nothing.prior_rate, nothing.rate)
    np.testing.assert_allclose(nothing.prior_strength[0, :P], 20)
    np.testing.assert_allclose(nothing.multiplier, 1)

    impressions = np.full((1, P), 1e10)
    much = predict(impressions * [0.2, 0.001, 0.05], impressions, BASE, np.zeros((1, P + 1)))
    np.testing.assert_allclose(much.rate[0, :P], [0.2, 0.001, 0.05], rtol=1e-6)
    np.testing.assert_allclose(much.high - much.low, 0, atol=1e-4)
    np.testing.assert_array_less(much.low, much.rate)


def test_a_platform_starts_from_what_the_campaign_did_elsewhere_and_never_from_itself() -> None:
    impressions = np.array([[0.0, 10_000, 10_000]])
    twice_as_good = predict(impressions * BASE * 2, impressions, BASE, np.zeros((1, P + 1)))
    assert twice_as_good.rate[0, 0] == pytest.approx(2 * BASE[0], rel=0.02)
    first = predict([[5.0, 200, 300]], [[1000.0, 10_000, 10_000]], BASE, np.zeros((1, P + 1)))
    second = predict([[900.0, 200, 300]], [[1000.0, 10_000, 10_000]], BASE, np.zeros((1, P + 1)))
    assert first.prior_rate[0, 0] == second.prior_rate[0, 0]
    assert first.prior_rate[0, 1] < second.prior_rate[0, 1]
    lucky = predict([[0.0, 10_000, 10_000]], [[0.0, 10_000, 10_000]], BASE, np.zeros((1, P + 1)))
    assert lucky.multiplier[0, 0] == 10


def test_the_campaign_is_the_mixture_of_the_impressions_to_come() -> None:
    clicks, impressions = np.array([[100.0, 600.0, 0.0]]), np.array([[10_000.0, 10_000.0, 0.0]])
    past = predict(clicks, impressions, BASE, np.zeros((1, P + 1)))
    np.testing.assert_allclose(past.rate[0, P], past.rate[0, :2].mean(), rtol=1e-12)
    shifted = predict(clicks, impressions, BASE, [[3000.0, 1000.0, 0, 4000.0]])
    np.testing.assert_allclose(shifted.rate[0, P], shifted.rate[0, :2] @ [0.75, 0.25], rtol=1e-12)
    assert past.prior_strength[0, P] > past.prior_strength[0, 0]


@given(st.integers(0, P - 1), st.integers(0, 10**5), st.floats(0, 1), st.integers(0, 10**5))
def test_on_one_platform_the_campaign_and_the_platform_agree(
    platform: int, impressions: int, share: float, expected: int
) -> None:
    only = np.zeros((1, P))
    only[0, platform] = 1.0
    estimates = predict(only * int(impressions * share), only * (impressions + 1), BASE, ahead(only * expected))
    for array in (estimates.rate, estimates.low, estimates.high, estimates.prior_rate, estimates.prior_strength):
        assert array[0, P] == pytest.approx(array[0, platform], rel=1e-6, abs=1e-300)


@given(volumes, st.integers(0, P - 1), st.integers(1, 1000))
def test_more_clicks_never_lower_a_rate(impressions: Floats, platform: int, more: int) -> None:
    clicks = np.floor(impressions * 0.02)
    better = clicks.copy()
    better[:, platform] += more
    expected = np.zeros((4, P + 1))
    before, after = (predict(c, impressions, BASE, expected).rate for c in (clicks, better))
    assert (after >= before * (1 - 1e-12)).all()


@given(volumes, st.permutations(range(4)), st.permutations(range(P)))
def test_neither_campaigns_nor_platforms_depend_on_their_order(
    impressions: Floats, rows: list[int], columns: list[int]
) -> None:
    clicks = np.floor(impressions * 0.03)
    expected = ahead(np.floor(impressions / 7))
    straight = predict(clicks, impressions, BASE, expected)
    pick = np.ix_(rows, columns)
    whole = np.ix_(rows, [*columns, P])
    turned = predict(clicks[pick], impressions[pick], BASE[columns], expected[whole])
    for name in straight.__struct_fields__:
        np.testing.assert_allclose(getattr(turned, name), getattr(straight, name)[whole], rtol=1e-6, atol=1e-300)


@given(dirty, dirty, arrays(np.float64, (4, P + 1), elements=st.floats(-10, 1e9)))
def test_whatever_the_counts_every_number_is_a_sound_one(clicks: Floats, impressions: Floats, expected: Floats) -> None:
    estimates = predict(clicks, impressions, BASE, expected)
    for name in estimates.__struct_fields__:
        array = getattr(estimates, name)
        assert array.shape == (4, P + 1)
        assert np.isfinite(array).all(), name
    assert (estimates.low >= 0).all()
    assert (estimates.low <= estimates.rate).all()
    assert (estimates.rate <= estimates.high).all()
    assert (estimates.high <= 1).all()
    assert ((estimates.prior_rate >= 1e-6) & (estimates.prior_rate <= 0.5 + 1e-12)).all()
    assert (estimates.prior_strength > 0).all()


def test_clicks_beyond_the_impressions_count_as_the_impressions() -> None:
    beyond = predict([[50.0, 1, 1]], [[10.0, 100, 100]], BASE, np.zeros((1, P + 1)))
    equal = predict([[10.0, 1, 1]], [[10.0, 100, 100]], BASE, np.zeros((1, P + 1)))
    np.testing.assert_array_equal(beyond.rate, equal.rate)
    np.testing.assert_array_equal(beyond.multiplier, equal.multiplier)


def test_an_empty_batch_is_a_batch() -> None:
    estimates = predict(np.zeros((0, P)), np.zeros((0, P)), BASE, np.zeros((0, P + 1)))
    assert estimates.rate.shape == estimates.low.shape == (0, P + 1)


def test_counts_halve_with_every_half_life() -> None:
    np.testing.assert_allclose(decay([0.0, 4.0, 12.0], 4.0), [1, 0.5, 0.125], rtol=1e-12)
    assert decay([-3.0], 4.0).tolist() == [1.0]
    ages = np.linspace(0, 30, 7)
    np.testing.assert_allclose(decay(ages, 2.5), np.exp(-np.log(2) * ages / 2.5), rtol=1e-10)


@pytest.mark.parametrize(
    ("clicks", "impressions", "base", "expected", "sentence"),
    [
        (np.zeros((2, 3)), np.zeros((2, 2)), BASE, np.zeros((2, 4)), r"impressions must have the shape \(2, 3\)"),
        (np.zeros((2, 3)), np.zeros((2, 3)), BASE, np.zeros((2, 3)), r"expected_impressions .* \(2, 4\), not \(2, 3\)"),
        (np.zeros(3), np.zeros(3), BASE, np.zeros(4), "clicks must have the shape"),
        (np.full((1, 3), np.nan), np.ones((1, 3)), BASE, np.zeros((1, 4)), "clicks must be finite"),
        (np.zeros((1, 3)), np.ones((1, 3)), BASE * 0, np.zeros((1, 4)), "base_rate must be a vector of rates"),
        (np.zeros((1, 0)), np.ones((1, 0)), BASE[:0], np.zeros((1, 1)), "base_rate must be a vector of rates"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    clicks: Floats, impressions: Floats, base: Floats, expected: Floats, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        predict(clicks, impressions, base, expected)


@pytest.mark.parametrize("field", ["half_life_days", "strength", "campaign_strength"])
@pytest.mark.parametrize("value", [0.0, -1.0, np.inf, np.nan])
def test_a_prior_that_cannot_shrink_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field} must be a finite number above 0"):
        CtrPrior(**{field: value})


def test_examples_in_the_docstrings_run() -> None:
    result = doctest.testmod(core.shrinkage)
    assert result.attempted > 0
    assert result.failed == 0
