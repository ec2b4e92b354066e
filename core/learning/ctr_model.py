"""The model tier: gradient-boosted trees on top of the default's logit.

XGBoost with the logistic loss on counts: a row's label is its clicks over its impressions, its weight the impressions,
its base margin the default's logit. All features end before the label's window. A higher rate in the long run never
lowers a prediction (monotone constraints): rates return to it. Counts of the last windows are left free, since the
default has weighed them already. What only tells the time, such as an age, is no feature: trees cannot extrapolate it.
"""

from typing import Any, Final

import msgspec
import numpy as np
import xgboost  # here, so that a worker has it before its first training
from scipy.special import logit

from core.learning import boosting
from core.learning.boosting import Boosting, Matrix
from core.learning.ctr_artefact import matching
from core.learning.decayed import DecayedCounts, Ints, Past, with_columns
from core.learning.predictive import Floats
from schemas.model import ModelHeader, ModelRefused, RefusalCode, decode, encode, model_id

KIND: Final = "ctr"

HALF_LIVES: Final = (1.0, 3.0, 10.0, 40.0)
OWN_WEIGHT: Final = 5.0
"""Impressions at the default's rate that keep the ratio of few counts within reason."""
FEATURES: Final = (
    "default_logit",
    "default_log_shape",
    *(f"logit_above_default_{half_life:g}" for half_life in HALF_LIVES),
    *(f"log_impressions_{half_life:g}" for half_life in HALF_LIVES),
    "log_last_impressions",
)
MONOTONE: Final = tuple(int(name in ("logit_above_default_10", "logit_above_default_40")) for name in FEATURES)
BINS: Final = 64
"""Of the histogram: up to ``most_rows`` rows are trained on between two windows."""


class CtrModelConfig(msgspec.Struct, frozen=True):
    """Retrained every ``cadence`` steps on the latest ``window`` steps, once they hold ``least_clicks``.

    ``rounds`` and what follows are XGBoost's; ``most_rows`` bounds the cost of a training, the newest rows staying.
    """

    cadence: int = 14
    window: int = 180
    least_clicks: float = 2_000.0
    most_rows: int = 250_000
    rounds: int = 40
    depth: int = 3
    eta: float = 0.05
    least_child_weight: float = 200.0
    ridge: float = 50.0
    seed: int = 7


DEFAULT_CONFIG: Final = CtrModelConfig()


class CtrFeatures:
    """The features of n series, computed from the windows taken so far."""

    def __init__(self, series: int) -> None:
        self.own = DecayedCounts(np.array(HALF_LIVES), series)
        self.last = np.full(series, np.nan)

    def extend(self, series: int) -> None:
        """Append series that have shown nothing yet."""
        self.own.extend(series)
        self.last = with_columns(self.last, series, np.nan)

    def of(self, series: Ints, rate: Floats, shape: Floats) -> Matrix:
        """Features of some series, [r, len(FEATURES)], given the default's rate and shape for them."""
        margin = logit(rate)
        seen, clicked = self.own.impressions[:, series], self.own.clicks[:, series]
        own = np.clip((clicked + OWN_WEIGHT * rate) / (seen + OWN_WEIGHT), 1e-9, 1 - 1e-9)
        columns = (
            margin[None],
            np.log(shape)[None],
            logit(own) - margin,
            np.log1p(seen),
            np.log1p(self.last[series])[None],
        )
        return np.concatenate(columns).T.astype(np.float32)

    def advance(self, series: Ints, impressions: Floats, clicks: Floats) -> None:
        """Take a window's counts for the series that have a row in it, each once."""
        count = np.zeros((2, self.last.size))
        count[0, series], count[1, series] = impressions, clicks
        self.own.advance(count[0], count[1])
        self.last[series] = impressions

    def absorb(self, late: Past) -> None:
        """Add rows of past windows."""
        self.own.absorb(late)
        first = np.isnan(self.last[late.series])
        self.last[late.series[first]] = late.impressions[first]


class CtrModel:
    """A trained model. ``steps`` is the half-open range of label windows that it has learned from; ``header`` what it
    says of itself.
    """

    def __init__(self, booster: xgboost.Booster, trees: bytes, steps: tuple[int, int], header: ModelHeader) -> None:
        self._booster, self._trees, self.steps, self.header = booster, trees, steps, header
        self._payload = b""

    @classmethod
    def trained(cls, booster: xgboost.Booster, steps: tuple[int, int]) -> "CtrModel":
        """The model of a booster that was fitted just now, with nothing said of it yet."""
        header = ModelHeader(kind=KIND, feature_names=FEATURES, details={"steps": list(steps)})
        return cls(booster, boosting.to_bytes(booster), steps, header)

    def described(self, **fields: Any) -> "CtrModel":
        """The same model with other fields of its header."""
        return CtrModel(self._booster, self._trees, self.steps, msgspec.structs.replace(self.header, **fields))

    def to_bytes(self) -> bytes:
        """As ``schemas.model`` writes it, the trees as UBJSON."""
        self._payload = self._payload or encode(self.header, self._trees)
        return self._payload

    @property
    def model_id(self) -> str:
        """The name that predictions carry."""
        return model_id(self.to_bytes())

    @classmethod
    def from_bytes(cls, payload: bytes | None, profile: str | None = None) -> "CtrModel":
        """The model of its bytes, probed. Raises ``ModelRefused`` for others, for a model of other features and, where
        a profile is given, of another profile.
        """
        model = decode(payload)
        header = matching(model, KIND, FEATURES, profile)
        try:
            steps = msgspec.convert(header.details.get("steps"), tuple[int, int])
        except msgspec.ValidationError as error:
            raise ModelRefused(RefusalCode.HEADER, f"the model's steps cannot be read: {error}") from None
        return cls(boosting.from_bytes(model.trees, FEATURES), model.trees, steps, header)

    def predict(self, features: Matrix, default: Floats) -> Floats:
        """Rates, [r], on top of the default's."""
        return boosting.margins(self._booster, features, default)


class CtrTrainer:
    """The latest labelled rows, and the model that they give. The same rows give the same model."""

    def __init__(self, config: CtrModelConfig = DEFAULT_CONFIG) -> None:
        self.config = config
        self._blocks: list[tuple[int, Matrix, Floats, Floats, Floats]] = []
        self._trained_at: int | None = None

    def add(self, step: int, features: Matrix, impressions: Floats, clicks: Floats, default: Floats) -> None:
        """Take a closed window's rows: the features as they were before it, and its counts."""
        shown = impressions > 0
        self._blocks.append((step, features[shown], impressions[shown], clicks[shown], default[shown]))
        while self._blocks[0][0] <= step - self.config.window:
            del self._blocks[0]

    def due(self, step: int) -> bool:
        """Whether a model for the windows from ``step`` on should be trained now."""
        since = None if self._trained_at is None else step - self._trained_at
        return bool(self._blocks) and (since is None or since >= self.config.cadence)

    def train(self, step: int) -> CtrModel | None:
        """A model for the windows from ``step`` on; ``None`` while there are too few clicks to learn from."""
        config = self.config
        rows, first = 0, len(self._blocks)
        while first and rows + len(self._blocks[first - 1][1]) <= config.most_rows:
            first -= 1
            rows += len(self._blocks[first][1])
        blocks = self._blocks[first:]
        if not rows or sum(float(block[3].sum()) for block in blocks) < config.least_clicks:
            return None
        self._trained_at = step
        features, impressions, clicks, default = (np.concatenate([block[at] for block in blocks]) for at in range(1, 5))
        # Series differ within their features by little: a row weighs its impressions, and leaves are large.
        how = Boosting(
            rounds=config.rounds,
            depth=config.depth,
            eta=config.eta,
            least_child_weight=config.least_child_weight,
            ridge=config.ridge,
            bins=BINS,
            seed=config.seed,
            monotone=MONOTONE,
            base_score=0.5,
        )
        booster = boosting.fit(features, clicks, impressions, default, impressions, FEATURES, how)
        steps = (blocks[0][0], blocks[-1][0] + 1)
        return CtrModel.trained(booster, steps)
