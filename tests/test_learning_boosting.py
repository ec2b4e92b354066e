import numpy as np
import pytest
from scipy.special import logit

from core.learning import boosting
from core.learning.boosting import Boosting

NAMES = ("told", "unknown")
HOW = Boosting(rounds=40, depth=2, eta=0.2, least_child_weight=1.0, ridge=1.0, bins=64, seed=1)
ROWS = 4_000


def drawn(effect: float) -> tuple[np.ndarray, ...]:
    """Features, clicks, impressions and the default's rates, from which the first feature moves the odds."""
    random = np.random.default_rng(5)
    told = random.choice([-1.0, 1.0], ROWS)
    features = np.column_stack((told, np.full(ROWS, np.nan))).astype(np.float32)
    default = random.uniform(0.01, 0.2, ROWS)
    odds = default / (1 - default) * np.exp(effect * told)
    impressions = np.full(ROWS, 2_000.0)
    return features, random.binomial(2_000, odds / (1 + odds)).astype(np.float64), impressions, default


def test_trees_add_to_the_defaults_logit() -> None:
    features, clicks, impressions, default = drawn(0.5)
    booster = boosting.fit(features, clicks, impressions, default, impressions, NAMES, HOW)
    added = logit(boosting.margins(booster, features, default)) - logit(default)
    np.testing.assert_allclose(added, 0.5 * features[:, 0], atol=0.03)


def test_what_is_known_already_is_not_added_twice() -> None:
    features, clicks, impressions, default = drawn(0.0)
    booster = boosting.fit(features, clicks, impressions, default, impressions, NAMES, HOW)
    np.testing.assert_allclose(logit(boosting.margins(booster, features, default)), logit(default), atol=0.02)


def test_a_monotone_feature_is_not_followed_the_other_way() -> None:
    features, clicks, impressions, default = drawn(-0.5)
    how = Boosting(rounds=40, depth=2, eta=0.2, least_child_weight=1.0, ridge=1.0, bins=64, seed=1, monotone=(1, 0))
    booster = boosting.fit(features, clicks, impressions, default, impressions, NAMES, how)
    up, down = (
        boosting.margins(booster, np.array([[at, np.nan]], dtype=np.float32), np.array([0.1])) for at in (1.0, -1.0)
    )
    assert up >= down


def test_rows_weigh_what_they_are_said_to() -> None:
    features, clicks, impressions, default = drawn(0.5)
    weights = np.where(features[:, 0] > 0, impressions, 0.0)
    booster = boosting.fit(features, clicks, impressions, default, weights, NAMES, HOW)
    added = logit(boosting.margins(booster, features, default)) - logit(default)
    np.testing.assert_allclose(added, 0.5, atol=0.03)


def test_the_same_rows_give_the_same_bytes_and_those_the_same_rates() -> None:
    features, clicks, impressions, default = drawn(0.5)
    one, other = (boosting.fit(features, clicks, impressions, default, impressions, NAMES, HOW) for _ in range(2))
    assert boosting.to_bytes(one) == boosting.to_bytes(other)
    read = boosting.from_bytes(boosting.to_bytes(one), NAMES)
    np.testing.assert_array_equal(boosting.margins(read, features, default), boosting.margins(one, features, default))


@pytest.mark.parametrize("rate", [1e-12, 1 - 1e-12])
def test_rates_keep_away_from_never_and_always(rate: float) -> None:
    features, clicks, impressions, default = drawn(0.5)
    booster = boosting.fit(features, clicks, impressions, default, impressions, NAMES, HOW)
    found = boosting.margins(booster, features[:1], np.array([rate]))
    assert boosting.LEAST_RATE <= found[0] <= boosting.GREATEST_RATE
