"""How well rates predict rows that have no time: the scorecard's measures (``core.learning.measures``) of one table."""

from typing import Final

import msgspec
import numpy as np

from core.intervals import Floats
from core.learning.baselines import PLATFORM_MEAN
from core.learning.measures import measures
from core.learning.scorecard import Scorecard, Scored, bernoulli_losses

JUDGED: Final = "judged"


class RowScores(msgspec.Struct, frozen=True, kw_only=True):
    """``core.learning.measures.Measures`` under the library's names: ``mae_50`` is ``mae``, ``predicted_over_actual``
    is ``calibration``. ``None`` where a measure is undefined for the rows, or no interval was given.
    """

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
    return float(bernoulli_losses(rate, impressions, clicks).sum() / impressions.sum())


def score_rows(
    clicks: Floats,
    impressions: Floats,
    rate: Floats,
    reference: Floats,
    bounds: tuple[Floats, Floats] | None = None,
) -> RowScores:
    """The measures of n rows, all arrays [n]; ``reference`` are the rates of the platform mean.

    Raises ``ValueError`` where there is no row with impressions.
    """
    inside = None
    if bounds is not None:
        low, high = bounds
        inside = ((low * impressions <= clicks) & (clicks <= high * impressions)).astype(np.float64)
    card = Scorecard((JUDGED, PLATFORM_MEAN))
    scored = {JUDGED: Scored(rate, inside), PLATFORM_MEAN: Scored(reference)}
    card.add(0, impressions, clicks, scored, [""] * clicks.size, np.zeros_like(impressions))
    found = next((one for one in measures(card) if one.axis == "all" and one.predictor == JUDGED), None)
    if found is None:
        raise ValueError("there are no rows to score")
    return RowScores(
        rows=found.rows,
        impressions=found.impressions,
        log_loss=found.log_loss,
        normalized_entropy=found.normalized_entropy,
        deviance_explained=found.deviance_explained,
        mae_50=found.mae,
        predicted_over_actual=found.calibration,
        coverage=found.coverage,
    )
