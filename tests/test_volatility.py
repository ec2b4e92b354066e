"""How far daily click rates stray: learned from a campaign's own days, and what that does to the prediction
interval.
"""

import numpy as np

from core.intervals import Floats
from core.shrinkage import CtrPrior, decay, predict
from core.volatility import relative_variance

DAYS = 28
WEIGHTS = decay(np.arange(DAYS), 4.0)


def days_of(
    volatility: float, rows: int, seed: int, rate: float = 0.02, impressions: int = 40_000
) -> tuple[Floats, Floats]:
    """Daily clicks and impressions, today's first, of campaigns whose rate moves by a relative standard deviation."""
    rng = np.random.default_rng(seed)
    rates = np.clip(rate * (1 + volatility * rng.standard_normal((rows, 1, DAYS + 1))), 0.0, 1.0)
    shown = np.full_like(rates, impressions)
    return rng.binomial(impressions, rates).astype(np.float64), shown


def estimate(today_and_past: Floats, shown_then: Floats, prior: float = 0.04, prior_days: float = 1.0) -> Floats:
    clicks, shown = today_and_past[:, :, 1:], shown_then[:, :, 1:]
    rate = (clicks @ WEIGHTS) / (shown @ WEIGHTS)
    return relative_variance(clicks, shown, rate, WEIGHTS, prior, prior_days)


def test_without_days_the_prior_holds() -> None:
    nothing = np.zeros((1, 1, DAYS))
    assert relative_variance(nothing, nothing, np.full((1, 1), 0.02), WEIGHTS, 0.04, 1.0).tolist() == [[0.04]]


def test_steady_campaigns_are_told_from_volatile_ones() -> None:
    steady = estimate(*days_of(0.0, 400, 1)).mean()
    volatile = estimate(*days_of(0.3, 400, 2)).mean()
    assert steady < 0.01
    assert 0.05 < volatile < 0.12


def test_few_clicks_tell_nothing_and_leave_the_prior() -> None:
    small = estimate(*days_of(0.0, 400, 3, impressions=20)).mean()
    assert abs(small - 0.04) < 0.004


def test_intervals_cover_what_a_volatile_rate_then_shows() -> None:
    prior = CtrPrior()
    covered = []
    for volatility in (0.0, 0.1, 0.2):
        clicks, shown = days_of(volatility, 4_000, 4)
        past, past_shown = clicks[:, :, 1:], shown[:, :, 1:]
        expected = np.full((len(clicks), 2), 40_000.0)

        def strays(rate: Floats, past: Floats = past, past_shown: Floats = past_shown) -> Floats:
            return relative_variance(past, past_shown, rate, WEIGHTS, prior.volatility**2, prior.volatility_days)

        found = predict(past @ WEIGHTS, past_shown @ WEIGHTS, [0.02], expected, prior, volatility=strays)
        actual = clicks[:, 0, 0] / shown[:, 0, 0]
        covered.append(float(np.mean((found.low[:, 0] <= actual) & (actual <= found.high[:, 0]))))
    assert all(share >= 0.86 for share in covered), covered


def test_platforms_that_a_campaign_does_not_run_on_take_no_share() -> None:
    found = predict([[0.0, 0.0]], [[0.0, 0.0]], [0.01, 0.05], [[0, 0, 0]], active=[[False, True]])
    assert found.rate[0, 2] == found.rate[0, 1] == 0.05
