"""How well rates predict counts: measures of rows, each named.

``log_loss`` is the Bernoulli negative log-likelihood per impression; ``normalized_entropy`` divides it by that of the
rows' own overall rate (He et al., ADKDD 2014); ``deviance_explained`` is one minus the binomial deviance over that of
a reference; ``mae_50`` the mean absolute error of the rate on rows of 50 or more impressions;
``predicted_over_actual`` the expected over the observed clicks; ``coverage`` the share of rows whose rate lies
in its 90 % interval.
"""

from typing import Final

import msgspec
import numpy as np
from scipy.special import xlogy

from core.intervals import Floats

LEAST_IMPRESSIONS: Final = 50
EDGE: Final = 1e-9


class RowScores(msgspec.Struct, frozen=True, kw_only=True):
    """``None`` where a measure is undefined for the rows, or no interval was given."""

    rows: int
    impressions: float
    log_loss: float
    normalized_entropy: float | None
    deviance_explained: float | None
    mae_50: float | None
    predicted_over_actual: float | None
    coverage: float | None = None


def log_loss(clicks: Floats, impressions: Floats, rate: Floats) -> float:
    """The Bernoulli negative log-likelihood per impression, natural log."""
    likely = np.clip(rate, EDGE, 1 - EDGE)
    return float(-(clicks * np.log(likely) + (impressions - clicks) * np.log1p(-likely)).sum() / impressions.sum())


def score_rows(
    clicks: Floats,
    impressions: Floats,
    rate: Floats,
    reference: Floats,
    bounds: tuple[Floats, Floats] | None = None,
) -> RowScores:
    """The measures of n rows, all arrays [n]; ``reference`` are the rates of the platform mean.

    Raises ``ValueError`` where there is no row.
    """
    if not clicks.size:
        raise ValueError("there are no rows to score")
    own, observed = log_loss(clicks, impressions, rate), clicks / impressions
    overall = float(clicks.sum() / impressions.sum())
    entropy = log_loss(clicks, impressions, np.full_like(rate, overall))
    saturated = float(-(xlogy(clicks, observed) + xlogy(impressions - clicks, 1 - observed)).sum() / impressions.sum())
    against = log_loss(clicks, impressions, reference) - saturated
    counted = impressions >= LEAST_IMPRESSIONS
    return RowScores(
        rows=int(clicks.size),
        impressions=float(impressions.sum()),
        log_loss=own,
        normalized_entropy=own / entropy if entropy > 1e-8 else None,
        deviance_explained=1 - (own - saturated) / against if against > 0 else None,
        mae_50=float(np.abs(rate - observed)[counted].mean()) if counted.any() else None,
        predicted_over_actual=float((rate * impressions).sum() / clicks.sum()) if clicks.sum() else None,
        coverage=None if bounds is None else float(((bounds[0] <= observed) & (observed <= bounds[1])).mean()),
    )
