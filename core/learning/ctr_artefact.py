"""A trained CTR predictor as bytes, and the refusal of bytes that are none.

```
parallax-ctr 1 <sha256 of all that follows>\\n
<JSON of CtrArtefact, without a line break>\\n
<XGBoost model, UBJSON; nothing where no model was promoted>
```
"""

from hashlib import sha256
from typing import Annotated, Any, Final

import msgspec
import numpy as np

from core.intervals import Floats
from core.learning.borrowing import CtrBorrowing
from core.learning.features import FEATURE_NAMES, Features
from core.learning.row_scores import RowScores
from schemas.platform import Platform

MAGIC: Final = b"parallax-ctr 1 "
Positive = Annotated[float, msgspec.Meta(gt=0)]


class ModelRefused(ValueError):
    """Bytes that are not a model to predict with; ``reason`` is one sentence."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


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


def write(artefact: CtrArtefact, trees: bytes) -> bytes:
    """The artefact's bytes, the same for the same content."""
    content = msgspec.json.encode(artefact, order="deterministic") + b"\n" + trees
    return MAGIC + sha256(content).hexdigest().encode() + b"\n" + content


def read(data: bytes, benchmarks: str) -> tuple[CtrArtefact, Any]:
    """The artefact and its booster (``None`` where no trees were promoted).

    ``benchmarks``: the version of the profile that features will be made with. Raises ``ModelRefused``.
    """
    if not data:
        raise ModelRefused("there is no model: the data is empty")
    head, _, content = data.partition(b"\n")
    if not head.startswith(MAGIC):
        raise ModelRefused("this is not a Parallax CTR model of version 1")
    if sha256(content).hexdigest().encode() != head.removeprefix(MAGIC):
        raise ModelRefused("the model's checksum does not hold: it is truncated or was changed")
    header, _, trees = content.partition(b"\n")
    try:
        artefact = msgspec.json.decode(header, type=CtrArtefact)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelRefused(f"the model's header cannot be read: {error}") from error
    if artefact.feature_names != FEATURE_NAMES:
        raise ModelRefused("the model was trained on other features, or in another order")
    if artefact.benchmarks != benchmarks:
        raise ModelRefused(
            f"the model was trained with benchmark profile {artefact.benchmarks}, features are made with {benchmarks}"
        )
    rates = artefact.borrowing.base_rate
    if len(rates) != len(artefact.platforms) or not all(0 < rate < 1 for rate in rates):
        raise ModelRefused("the model's base rates are not one rate between 0 and 1 for each platform")
    if artefact.promoted != bool(trees):
        raise ModelRefused("the model says that it has trees and has none, or the other way around")
    return artefact, _booster(trees) if trees else None


def margins(booster: Any, features: Features, rate: Floats) -> Floats:
    """The trees' rates, [n], starting from the default's: one ``inplace_predict`` for the batch."""
    start = np.log(rate) - np.log1p(-rate)
    predicted = booster.inplace_predict(features, base_margin=start.astype(np.float32), missing=np.nan)
    return np.asarray(predicted, dtype=np.float64)


def probe(booster: Any) -> None:
    """Try the trees on rows of every kind. Raises ``ModelRefused`` where one does not give a probability."""
    kinds = np.array([np.nan, 0.0, 0.5, 1.0, 20.0], dtype=np.float32)
    drawn = np.random.default_rng(0).choice(kinds, size=(64, len(FEATURE_NAMES)))
    rows = np.vstack((np.repeat(kinds[:, None], len(FEATURE_NAMES), axis=1), drawn)).astype(np.float32)
    rates = margins(booster, rows, np.full(len(rows), 0.02))
    if not (np.isfinite(rates).all() and (rates > 0).all() and (rates < 1).all()):
        raise ModelRefused("the model predicts what is not a probability")


def _booster(trees: bytes) -> Any:
    import xgboost  # takes longer to import than all else together, and most processes predict without it

    booster = xgboost.Booster()
    try:
        booster.load_model(bytearray(trees))
        booster.set_param({"nthread": 1})
    except xgboost.core.XGBoostError as error:
        first = (str(error).strip().splitlines() or ["no reason given"])[0][:160]
        raise ModelRefused(f"XGBoost cannot read the model's trees: {first}") from error
    if tuple(booster.feature_names or ()) != FEATURE_NAMES:
        raise ModelRefused("the model's trees were trained on other features, or in another order")
    probe(booster)
    return booster
