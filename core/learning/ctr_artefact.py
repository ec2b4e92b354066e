"""Trees that come from elsewhere: refused unless they read, know these features and give probabilities.

And the library's predictor as a model of ``schemas.model``: what it needs beside the trees are the details.
"""

from datetime import date, timedelta
from typing import Annotated, Any, Final

import msgspec

from core.learning import boosting
from core.learning.borrowing import CtrBorrowing
from core.learning.features import FEATURE_NAMES
from core.learning.row_scores import RowScores
from schemas import model as codec
from schemas.model import Model, ModelHeader, ModelRefused, RefusalCode
from schemas.platform import Platform

__all__ = ["CtrArtefact", "ModelRefused", "matching", "read", "write"]

KIND: Final = "ctr_across_platforms"
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
    return artefact, boosting.from_bytes(model.trees, FEATURE_NAMES) if model.trees else None, model.trees


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
