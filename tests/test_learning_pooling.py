import numpy as np
import pytest

from core.learning.empirical_bayes import EmpiricalBayes
from tests.planted import Floats

CAMPAIGNS = 80
ARRIVAL = 40
"""The window in which the second half's campaigns start on their other platform."""


def cold_start_error(shared: bool, borrow: bool, impressions: float = 0.0, seed: int = 1) -> float:
    """Root mean square error of the log rates of campaigns that start on a second platform, at its first window or
    after so many impressions there.
    """
    random = np.random.default_rng(seed)
    quality = 0.6 * random.standard_normal((2, CAMPAIGNS))
    if shared:
        quality[1] = quality[0] + 0.1 * random.standard_normal(CAMPAIGNS)
    rate: Floats = np.concatenate((0.04 * np.exp(quality[0]), 0.015 * np.exp(quality[1])))
    platform = np.repeat([0, 1], CAMPAIGNS)
    campaign = np.tile(np.arange(CAMPAIGNS), 2) if borrow else np.arange(2 * CAMPAIGNS)
    default = EmpiricalBayes(platform, campaign, np.array([0.04, 0.015]))
    late = np.arange(CAMPAIGNS + CAMPAIGNS // 2, 2 * CAMPAIGNS)
    early = np.setdiff1d(np.arange(2 * CAMPAIGNS), late)
    for _ in range(ARRIVAL):
        shown = random.poisson(300.0, early.size).astype(np.float64)
        default.advance(early, shown, random.binomial(shown.astype(int), rate[early]).astype(np.float64))
    if impressions:
        everyone = np.arange(2 * CAMPAIGNS)
        shown = np.where(np.isin(everyone, late), impressions, 300.0)
        default.advance(everyone, shown, random.binomial(shown.astype(int), rate).astype(np.float64))
    said, _ = default.predict(late)
    return float(np.sqrt(np.mean(np.log(said / rate[late]) ** 2)))


@pytest.mark.parametrize(("impressions", "left"), [(0.0, 0.3), (100.0, 0.4), (1000.0, 0.7)])
def test_borrowing_cuts_the_error_of_a_cold_start_and_the_less_the_more_is_seen(
    impressions: float, left: float
) -> None:
    assert cold_start_error(True, True, impressions) < left * cold_start_error(True, False, impressions)


def test_nothing_is_borrowed_where_platforms_share_nothing() -> None:
    assert cold_start_error(False, True) < 1.05 * cold_start_error(False, False)


def test_a_campaign_on_one_platform_is_left_as_it_is() -> None:
    alone = EmpiricalBayes(np.zeros(2, dtype=np.int64), np.arange(2), np.array([0.04]))
    alone.advance(np.arange(2), np.array([1000.0, 10.0]), np.array([90.0, 0.0]))
    multiplier, worth = alone.pool.multipliers()
    np.testing.assert_array_equal(multiplier, 1.0)
    np.testing.assert_array_equal(worth, 0.0)


def test_a_few_impressions_do_not_undo_what_the_other_platforms_say() -> None:
    unseen, seen = (
        np.mean([cold_start_error(True, True, shown, seed) for seed in (1, 2, 3)]) for shown in (0.0, 100.0)
    )
    assert seen < 1.2 * unseen
