"""Ninety per cent intervals of a rate, from a beta distribution matched to its mean and variance."""

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

Floats: TypeAlias = NDArray[np.float64]

LOWER_TAIL: Final = 0.05
UPPER_TAIL: Final = 0.95
# Where one trial is expected the matched beta falls apart into its two ends; this keeps its shape above zero.
LEAST_STRENGTH: Final = 1e-6
# The inverse of the incomplete beta function fails far beyond what any campaign delivers.
GREATEST_STRENGTH: Final = 1e12


def strength_of(mean: Floats, variance: Floats) -> Floats:
    """``alpha + beta`` of the beta distribution of a mean in (0, 1) and a variance above 0, within bounds."""
    strength: Floats = np.clip(mean * (1 - mean) / variance - 1, LEAST_STRENGTH, GREATEST_STRENGTH)
    return strength


def interval(mean: Floats, variance: Floats, within: Floats, trials: Floats) -> tuple[Floats, Floats]:
    """The 90 % interval of the share of ``trials`` that will succeed or, with 0 trials, of the rate itself.

    ``mean`` and ``variance`` are the rate's. ``within`` is the expected variance of one trial around its own rate, so
    that the share's variance is ``variance + within / trials`` (law of total variance; for a beta posterior that is
    the beta-binomial's). A fraction of a trial counts as one. The interval is widened where need be to hold its mean.

    The share of an outcome of k successes is the beta's from k - 1/2 to k + 1/2, so the low end gives way by half a
    success: the continuous beta would else deny to a small cell its likeliest outcome, none at all.
    """
    ahead = trials > 0
    whole = np.maximum(trials, 1.0)
    strength = strength_of(mean, variance + np.where(ahead, within / whole, 0.0))
    alpha, beta = mean * strength, (1 - mean) * strength
    half_a_success = np.where(ahead, 0.5 / whole, 0.0)
    low = np.clip(betaincinv(alpha, beta, LOWER_TAIL) - half_a_success, 0.0, mean)
    high = np.maximum(betaincinv(alpha, beta, UPPER_TAIL), mean)
    return low, high
