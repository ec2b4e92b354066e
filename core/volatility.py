"""How far a campaign's daily CTR strays from its rate beyond binomial chance: a relative variance, learned from its
own days.

A day with e expected clicks estimates it by ``((clicks - e)^2 - e(1 - rate)) / e^2`` (method of moments for an
overdispersed binomial; Williams, Applied Statistics 31, 1982), and is trusted in proportion to how well it can: ``(v
e / (1 + v e))^2``. The estimates are shrunk to a prior that is worth a number of well-measured days. The rate is a
mean over days that strayed themselves, which adds the share of the variance that such a mean keeps.
"""

import numpy as np

from core.intervals import Floats


def relative_variance(
    clicks: Floats, impressions: Floats, rate: Floats, weights: Floats, prior: float, prior_days: float
) -> Floats:
    """The variance of the next daily rate around the predicted one, over the squared rate, [n, P].

    ``clicks`` and ``impressions``: daily counts, [n, P, D]. ``rate``: the predicted rate, [n, P]. ``weights``: the
    days' weights, [D].
    """
    chance = rate[:, :, None]
    expected = impressions * chance
    squared = np.maximum(expected, 1e-12) ** 2
    strayed = ((clicks - expected) ** 2 - expected * (1 - chance)) / squared
    reach = prior * expected
    trust = (reach / (1 + reach)) ** 2 * weights
    estimate = (np.sum(trust * strayed, axis=2) + prior_days * prior) / (np.sum(trust, axis=2) + prior_days)
    counted = impressions * weights
    total = np.maximum(counted.sum(axis=2), 1e-12)
    predictive: Floats = np.maximum(estimate, 0.0) * (1 + np.sum((counted / total[:, :, None]) ** 2, axis=2))
    return predictive
