"""Borrowing on a simulator with known truth: it converges, its intervals cover, it cuts the error of cold starts."""

import doctest
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import core.learning.borrowing
from core.learning.borrowing import CreativeEvidence, CtrBorrowing, estimate, fit
from core.learning.training_rows import count_table, evidence_of
from examples.cold_start import SHOWN, ColdStart, fitted_to, measure
from examples.simulated import BASE, simulate

WORLDS = [simulate(600, seed=seed) for seed in (1, 2, 3)]
FITTED = CtrBorrowing(base_rate=(0.01, 0.02, 0.04), shared=0.2, creative=0.05, own=0.05, campaigns=100)


@pytest.fixture(scope="module")
def measured() -> dict[int, list[ColdStart]]:
    return {shown: [measure(shown, world, 400) for world in WORLDS] for shown in SHOWN}


def mean(found: list[ColdStart], what: Any) -> float:
    return float(np.mean([what(each) for each in found]))


def test_other_platforms_cut_the_error_of_a_cold_start(measured: dict[int, list[ColdStart]]) -> None:
    cuts = [mean(measured[shown], lambda each: each.cut("both")) for shown in SHOWN]
    assert cuts[0] > 0.40
    assert cuts[1] > 0.30
    assert cuts[2] > 0.10
    assert all(left > right for left, right in pairwise(cuts))
    assert all(cut > -0.01 for cut in cuts)


def test_a_creative_helps_a_campaign_that_has_nothing_else(measured: dict[int, list[ColdStart]]) -> None:
    assert mean(measured[0], lambda each: each.cut("creative")) > 0.04


def test_estimates_converge_to_the_truth(measured: dict[int, list[ColdStart]]) -> None:
    errors = [mean(measured[shown], lambda each: each.error["both"]) for shown in SHOWN]
    assert all(left > right for left, right in pairwise(errors))
    far = mean([measure(3_000_000, WORLDS[0], 400)], lambda each: each.error["both"])
    assert far < 0.01


@pytest.mark.parametrize("shown", SHOWN)
@pytest.mark.parametrize("way", ["alone", "platforms", "both"])
def test_intervals_cover_the_truth(measured: dict[int, list[ColdStart]], shown: int, way: str) -> None:
    covered = mean(measured[shown], lambda each: each.coverage[way])
    assert 0.87 <= covered <= 0.94


def test_the_planted_variances_are_found() -> None:
    found = [fitted_to(simulate(2_000, seed=seed, creatives=200)) for seed in (1, 2)]
    shared = np.mean([each.shared for each in found])
    own = np.mean([each.own for each in found])
    # exp(s^2) - 1 for the factors that a campaign's platforms share, times which its own factor's variance counts.
    assert shared == pytest.approx(np.exp(0.16) * np.exp(0.0225) * np.exp(0.047) - 1, rel=0.2)
    assert own == pytest.approx((np.exp(0.04) - 1) * (1 + shared), rel=0.25)
    for at, platform in enumerate(sorted(BASE)):
        assert np.mean([each.base_rate[at] for each in found]) == pytest.approx(BASE[platform], rel=0.1)


def test_where_nothing_is_shared_nothing_is_borrowed() -> None:
    world = simulate(600, seed=5, campaign_effect=0.0, creative_effect=0.0, planted=0.0)
    assert fitted_to(world).shared < 0.01
    found = measure(0, world, 400)
    assert abs(found.cut("both")) < 0.02


def test_a_creatives_evidence_leaves_its_own_campaign_out() -> None:
    world, platforms = WORLDS[0], tuple(sorted(BASE))
    batch = evidence_of(FITTED, world.campaigns[:5], world.campaigns, platforms)
    assert batch is not None
    for at, campaign in enumerate(world.campaigns[:5]):
        others = [each for each in world.campaigns if each.campaign_id != campaign.campaign_id]
        alone = evidence_of(FITTED, [campaign], others, platforms)
        assert alone is not None
        np.testing.assert_allclose(batch.expected[at], alone.expected[0])
        own = [each for each in others if each.creative_id == campaign.creative_id]
        assert batch.clicks[at] == sum(sum(m.clicks or 0 for m in each.platforms.values()) for each in own)
        assert batch.campaigns[at] == len(own)
    assert evidence_of(FITTED, world.campaigns[:5], [], platforms) is None


counts = arrays(np.float64, (4, 3), elements=st.integers(0, 10**6).map(float))


@given(counts, counts, st.booleans())
def test_any_counts_give_rates_within_their_intervals(clicks: Any, impressions: Any, own: bool) -> None:
    found = estimate(FITTED, clicks, impressions, own_counts=own)
    for values in (found.rate, found.low, found.high, found.variance):
        assert values.shape == (4, 3)
        assert np.isfinite(values).all()
    assert (found.low >= 0).all()
    assert (found.low <= found.rate).all()
    assert (found.rate <= found.high).all()
    assert (found.high <= 1).all()


@given(counts, st.integers(0, 2), st.integers(0, 10**6))
def test_a_platforms_own_counts_are_not_looked_at_when_left_out(clicks: Any, column: int, count: int) -> None:
    impressions = np.full((4, 3), 1e6)
    changed = clicks.copy()
    changed[:, column] = count
    left, right = (estimate(FITTED, each, impressions, own_counts=False).rate for each in (clicks, changed))
    np.testing.assert_array_equal(left[:, column], right[:, column])


@given(st.integers(0, 1_000), st.integers(1, 1_000))
def test_more_clicks_elsewhere_raise_what_is_expected_here(clicks: int, more: int) -> None:
    impressions = [[0.0, 50_000.0, 0.0]]
    few, many = (
        estimate(FITTED, [[0.0, float(number), 0.0]], impressions).rate[0, 0] for number in (clicks, clicks + more)
    )
    assert many >= few


def test_without_anything_the_rate_is_the_base() -> None:
    found = estimate(FITTED, np.zeros((1, 3)), np.zeros((1, 3)), CreativeEvidence(*np.zeros((3, 1))))
    np.testing.assert_allclose(found.rate[0], FITTED.base_rate)


@pytest.mark.parametrize(
    ("clicks", "impressions", "words"),
    [
        (np.zeros((2, 3)), np.zeros((2, 2)), "must both be"),
        (np.full((2, 3), np.nan), np.ones((2, 3)), "finite"),
        (np.zeros((2, 3)), np.ones((2, 3)), "no base rate"),
    ],
)
def test_what_cannot_be_fitted_is_refused(clicks: Any, impressions: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fit(clicks, impressions)


def test_what_does_not_match_is_refused() -> None:
    with pytest.raises(ValueError, match="creatives"):
        fit(np.ones((2, 3)), np.full((2, 3), 9), ["a"])
    with pytest.raises(ValueError, match="columns"):
        estimate(FITTED, np.ones((2, 2)), np.ones((2, 2)))


def test_the_fit_does_not_depend_on_the_order_of_campaigns() -> None:
    table = count_table(WORLDS[0].campaigns)
    names = [campaign.creative_id for campaign in WORLDS[0].campaigns]
    one, other = (
        fit(table.clicks, table.impressions, names),
        fit(table.clicks[::-1], table.impressions[::-1], names[::-1]),
    )
    np.testing.assert_allclose(one.base_rate, other.base_rate, rtol=1e-9)
    assert one.shared == pytest.approx(other.shared, rel=1e-9)
    assert one.creative == pytest.approx(other.creative, rel=1e-9)


def test_examples_in_the_docstrings_run() -> None:
    result = doctest.testmod(core.learning.borrowing)
    assert result.attempted > 0
    assert result.failed == 0
