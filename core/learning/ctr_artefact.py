"""Trees that come from elsewhere: refused unless they read, know these features and give probabilities.

And the library's predictor as a model of ``schemas.model``: what it needs beside the trees are the details.
"""

from datetime import date, timedelta
from typing import Annotated, Any, Final

import msgspec
import numpy as np

from core.intervals import Floats
from core.learning.borrowing import CtrBorrowing
from core.learning.features import FEATURE_NAMES, Features
from core.learning.row_scores import RowScores
from schemas import model as codec
from schemas.model import Model, ModelHeader, ModelRefused, RefusalCode
from schemas.platform import Platform

__all__ = ["CtrArtefact", "ModelRefused", "booster_of", "margins", "matching", "probe", "read", "write"]

KIND: Final = "ctr_across_platforms"
PROBED: Final = 0.02
"""The rate that a probe starts from."""
Positive = Annotated[float, msgspec.Meta(gt=0)]


class CtrArtefact(msgspec.Struct, frozen=True, kw_only=True):
    """What a predictor needs beside the trees, and where it came from.

    ``residual``: the relative variance of a platform's rate around the trees' prediction. ``promoted`` says that the
    trees beat the empirical-Bayes default on rows they had not seen, and ``why`` in a sentence what was found.
    ``trained_from_ms`` and ``trained_until_ms``: the span of the campaigns' ends, ``None`` where they have no time.
    """

    feature_names: tuple[str, ...]
    platforms: tuple[Platform, ...]
    benchmarks: str
    borrowing: CtrBorrowing
    residual: Positive
    promoted: bool
    why: str
    campaigns: int
    rows: int
    split: str
    test_metrics: dict[str, RowScores]
    trained_from_ms: int | None = None
    trained_until_ms: int | None = None


class _Details(msgspec.Struct, frozen=True, kw_only=True):
    platforms: tuple[Platform, ...]
    borrowing: CtrBorrowing
    residual: Positive
    split: str
    trained_from_ms: int | None
    trained_until_ms: int | None


def write(artefact: CtrArtefact, trees: bytes) -> bytes:
    """The artefact's bytes, the same for the same content."""
    header = ModelHeader(
        kind=KIND,
        feature_names=artefact.feature_names,
        profile=artefact.benchmarks,
        first_day=_day(artefact.trained_from_ms),
        last_day=_day(artefact.trained_until_ms),
        promoted=artefact.promoted,
        why=artefact.why,
        measures=msgspec.to_builtins(artefact.test_metrics),
        data=codec.TrainingData(rows=artefact.rows, series=artefact.campaigns),
        details={name: msgspec.to_builtins(getattr(artefact, name)) for name in _Details.__struct_fields__},
    )
    return codec.encode(header, trees)


def _day(ended_ms: int | None) -> date | None:
    try:
        return None if ended_ms is None else date(1970, 1, 1) + timedelta(milliseconds=ended_ms)
    except OverflowError:
        return None


def read(data: bytes, benchmarks: str) -> tuple[CtrArtefact, Any, bytes]:
    """The artefact, its booster (``None`` where no trees were promoted) and the trees' bytes.

    ``benchmarks``: the version of the profile that features will be made with. Raises ``ModelRefused``.
    """
    model = codec.decode(data)
    header = matching(model, KIND, FEATURE_NAMES, benchmarks)
    try:
        details = msgspec.convert(header.details, _Details)
        metrics = msgspec.convert(header.measures, dict[str, RowScores])
    except msgspec.ValidationError as error:
        raise ModelRefused(RefusalCode.HEADER, f"the model's header cannot be read: {error}") from None
    rates = details.borrowing.base_rate
    if len(rates) != len(details.platforms) or not all(0 < rate < 1 for rate in rates):
        said = "the model's base rates are not one rate between 0 and 1 for each platform"
        raise ModelRefused(RefusalCode.HEADER, said)
    if header.promoted != bool(model.trees):
        said = "the model says that it has trees and has none, or the other way around"
        raise ModelRefused(RefusalCode.HEADER, said)
    artefact = CtrArtefact(
        feature_names=header.feature_names,
        benchmarks=header.profile,
        promoted=header.promoted,
        why=header.why,
        campaigns=header.data.series,
        rows=header.data.rows,
        test_metrics=metrics,
        **{name: getattr(details, name) for name in _Details.__struct_fields__},
    )
    return artefact, booster_of(model.trees, FEATURE_NAMES) if model.trees else None, model.trees


def matching(model: Model, kind: str, names: tuple[str, ...], profile: str | None) -> ModelHeader:
    """The header of a model of this kind, for features of these names in this order that stand on this profile (on
    any, where none is given). Raises ``ModelRefused``.
    """
    header = model.header
    if header.kind != kind:
        raise ModelRefused(RefusalCode.OTHER_KIND, f"the model is of kind {header.kind[:60]!r}, not {kind!r}")
    if header.feature_names != names:
        raise ModelRefused(RefusalCode.OTHER_FEATURES, "the model was trained on other features, or in another order")
    if profile is not None and header.profile != profile:
        said = f"the model was trained with benchmark profile {header.profile[:60]}, features are made with {profile}"
        raise ModelRefused(RefusalCode.OTHER_PROFILE, said)
    return header


def margins(booster: Any, features: Features, rate: Floats) -> Floats:
    """The trees' rates, [n], starting from the default's: one ``inplace_predict`` for the batch."""
    start = np.log(rate) - np.log1p(-rate)
    predicted = booster.inplace_predict(features, base_margin=start.astype(np.float32), missing=np.nan)
    return np.asarray(predicted, dtype=np.float64)


def probe(booster: Any, features: int = len(FEATURE_NAMES)) -> None:
    """Try the trees on rows of every kind. Raises ``ModelRefused`` where one does not give a probability."""
    kinds = np.array([np.nan, -6.0, -1.0, 0.0, 0.5, 1.0, 20.0], dtype=np.float32)
    drawn = np.random.default_rng(0).choice(kinds, size=(128, features))
    rows = np.vstack((np.repeat(kinds[:, None], features, axis=1), drawn)).astype(np.float32)
    rates = margins(booster, rows, np.full(len(rows), PROBED))
    if not (np.isfinite(rates).all() and (rates > 0).all() and (rates < 1).all()):
        raise ModelRefused(RefusalCode.NOT_A_PROBABILITY, "the model predicts what is not a probability")


def booster_of(trees: bytes, names: tuple[str, ...]) -> Any:
    """The booster of UBJSON, probed, on one thread. Raises ``ModelRefused``."""
    import xgboost  # takes longer to import than all else together, and most processes predict without it

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
