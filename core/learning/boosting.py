"""Gradient-boosted trees on top of a default's logit: how both tiers fit, ask, write and read them.

XGBoost with the logistic loss on counts (Chen and Guestrin, KDD 2016): a row's label is its clicks over its
impressions, its base margin the default's logit, so that trees can only add to the default. One thread and a seed: the
same rows give the same trees. What differs between tiers is in ``Boosting`` and the rows' weights.
"""

from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from core.intervals import Floats
from schemas.model import ModelRefused, RefusalCode

if TYPE_CHECKING:
    import xgboost

Matrix = NDArray[np.float32]

LEAST_RATE: Final = 1e-7
GREATEST_RATE: Final = 0.999
PROBED: Final = 0.02
"""The rate that a probe starts from."""


class Boosting(msgspec.Struct, frozen=True, kw_only=True):
    """XGBoost's parameters under names of their own. ``least_child_weight`` is a sum of weight times rate times
    (1 - rate); ``bins`` the histogram's, a column; ``monotone`` 1, 0 or -1 a feature, empty for free ones.
    ``base_score`` changes a file's bytes alone: every row brings a margin that stands in its place.
    """

    rounds: int
    depth: int
    eta: float
    least_child_weight: float
    ridge: float
    bins: int
    seed: int
    monotone: tuple[int, ...] = ()
    base_score: float | None = None


def fit(
    features: Matrix,
    clicks: Floats,
    impressions: Floats,
    default_rate: Floats,
    weights: Floats,
    names: tuple[str, ...],
    how: Boosting,
) -> "xgboost.Booster":
    """Trees from n rows: float32 [n, len(names)], NaN where unknown, and counts, rates in (0, 1) and weights, [n]."""
    import xgboost  # takes longer to import than all else together, and most processes predict without it

    data = xgboost.QuantileDMatrix(
        features,
        label=clicks / impressions,
        weight=weights,
        base_margin=logit(default_rate),
        max_bin=how.bins,
        nthread=1,
        feature_names=list(names),
    )
    parameters: dict[str, Any] = {
        "objective": "binary:logistic",
        "nthread": 1,
        "verbosity": 0,
        "tree_method": "hist",
        "max_bin": how.bins,
        "max_depth": how.depth,
        "eta": how.eta,
        "min_child_weight": how.least_child_weight,
        "lambda": how.ridge,
        "seed": how.seed,
    }
    if how.base_score is not None:
        parameters["base_score"] = how.base_score
    if how.monotone:
        parameters["monotone_constraints"] = str(how.monotone)
    return xgboost.train(parameters, data, how.rounds)


def margins(booster: "xgboost.Booster", features: Matrix, default_rate: Floats) -> Floats:
    """The trees' rates, [n], starting from the default's: one pass for the batch, held within bounds."""
    return np.clip(_raw(booster, features, default_rate), LEAST_RATE, GREATEST_RATE)


def to_bytes(booster: "xgboost.Booster") -> bytes:
    """The trees as UBJSON."""
    return bytes(booster.save_raw("ubj"))


def from_bytes(trees: bytes, names: tuple[str, ...]) -> "xgboost.Booster":
    """The booster of UBJSON, probed, on one thread. Raises ``ModelRefused``."""
    import xgboost

    if not trees.startswith(b"{"):
        # XGBoost ends the process that hands it nothing.
        raise ModelRefused(RefusalCode.NOT_TREES, "XGBoost cannot read the model's trees: they are not UBJSON")
    booster = xgboost.Booster()
    try:
        booster.load_model(bytearray(trees))
        booster.set_param({"nthread": 1})
        known = tuple(booster.feature_names or ())
        shape = booster.inplace_predict(np.zeros((1, booster.num_features()), dtype=np.float32)).shape
    except (xgboost.core.XGBoostError, ValueError, TypeError) as error:
        first = (str(error).strip().splitlines() or ["no reason given"])[0][:160]
        raise ModelRefused(RefusalCode.NOT_TREES, f"XGBoost cannot read the model's trees: {first}") from None
    if known != names:
        said = "the model's trees were trained on other features, or in another order"
        raise ModelRefused(RefusalCode.OTHER_FEATURES, said)
    if shape != (1,):
        raise ModelRefused(RefusalCode.NOT_A_PROBABILITY, "the model predicts more than one number for a row")
    probe(booster, len(names))
    return booster


def probe(booster: Any, features: int) -> None:
    """Try the trees on rows of every kind. Raises ``ModelRefused`` where one does not give a probability."""
    kinds = np.array([np.nan, -6.0, -1.0, 0.0, 0.5, 1.0, 20.0], dtype=np.float32)
    drawn = np.random.default_rng(0).choice(kinds, size=(128, features))
    rows = np.vstack((np.repeat(kinds[:, None], features, axis=1), drawn)).astype(np.float32)
    rates = _raw(booster, rows, np.full(len(rows), PROBED))
    if not (np.isfinite(rates).all() and (rates > 0).all() and (rates < 1).all()):
        raise ModelRefused(RefusalCode.NOT_A_PROBABILITY, "the model predicts what is not a probability")


def _raw(booster: Any, features: Matrix, default_rate: Floats) -> Floats:
    rate = booster.inplace_predict(features, base_margin=logit(default_rate).astype(np.float32))
    return np.asarray(rate, dtype=np.float64)
