"""Training the model tier for the stream: learned before a split, judged after it beside all others on the same rows.

What is judged is what is published: one model, trained on the windows before the split, and from there on a walk in
which the default learns on, one window ahead, as it does in the stream.

The negative control trains in the same way where there is nothing to tell series apart by: the labels of the
impressions, clicked or not, shuffled within each window and platform. A model that tells them apart all the same has
seen what it predicts.
"""

from collections.abc import Callable
from hashlib import sha256
from math import sqrt
from typing import Final

import msgspec
import numpy as np
from scipy.special import logit, ndtr

from core.learning.backtest import History
from core.learning.baselines import BASELINES
from core.learning.ctr_model import CtrModel, CtrModelConfig, CtrTrainer
from core.learning.decayed import Ints
from core.learning.measures import Comparison, Measures, compare, measures, verdict
from core.learning.predictive import Floats
from core.learning.promotion import Standing, judged_once
from core.learning.scorecard import Scorecard
from core.learning.walk import DEFAULT, DEFAULT_CONFIG, MODEL, PREDICTORS, LearningConfig, Predicted, Walk

CONTROL_SEED: Final = 0
LEAK: Final = 0.001
"""The probability of the control's result by luck below which the model is taken to leak."""
MOST_SHUFFLED: Final = 1_000_000_000
"""Impressions from which numpy can draw without replacement; of more, clicks are drawn at the window's rate."""
MODEL_CONFIG: Final = CtrModelConfig()


class Fitted(msgspec.Struct, frozen=True, eq=False):
    """A model and how it did on the ``windows`` from the split on. ``standings``: whether it would be promoted on each
    platform by what the latest of them say alone.
    """

    model: CtrModel
    scorecard: Scorecard
    standings: dict[str, Standing]
    windows: int

    @property
    def summary(self) -> list[Measures]:
        """Every predictor on all rows."""
        return [one for one in measures(self.scorecard) if one.axis == "all"]

    @property
    def verdict(self) -> tuple[list[Comparison], list[str]]:
        """The comparisons that decide, and what they say, in sentences."""
        return verdict(self.scorecard, DEFAULT, MODEL, BASELINES)

    @property
    def earned(self) -> list[str]:
        """The platforms on which the model has beaten the default by the rule of promotion."""
        return [platform for platform, found in self.standings.items() if found.promoted]


class Control(msgspec.Struct, frozen=True):
    """What the model made of shuffled labels.

    ``z``: how well its logits told the rows of a window and platform apart, in standard errors; ``p`` the probability
    of as much by luck (see ``Discrimination``). ``against_default``: what it saves beside the default. A little may be
    saved honestly there, for a default that fits what series have in common a little worse.
    """

    z: float
    p: float
    against_default: Comparison

    @property
    def fails(self) -> bool:
        """Whether the model tells apart what nothing can tell apart."""
        return self.p < LEAK


class Discrimination:
    """A test of whether predictions tell rows apart whose labels were shuffled within window and platform.

    Given how many of a window's N impressions were clicked, K, the clicks of its rows are multivariate hypergeometric,
    whatever was predicted before: the sum of (k - n K/N) x over rows, x the logit, has mean 0 and variance
    K/N (1 - K/N) N/(N - 1) (sum of n x^2 - (sum of n x)^2 / N).
    """

    def __init__(self, platform: Ints) -> None:
        self._platform = platform
        self._sum = self._variance = 0.0

    def add(self, said: Predicted, impressions: Floats, clicks: Floats) -> None:
        """Take a window's predictions and what happened."""
        group, x = self._platform[said.series], logit(said.rates[MODEL])
        for platform in np.unique(group):
            of = group == platform
            n, k, own = impressions[of], clicks[of], x[of] - x[of].mean()
            shown, clicked = float(n.sum()), float(k.sum())
            if shown > 1:
                rate = clicked / shown
                self._sum += float((k - n * rate) @ own)
                spread = float(n @ own**2) - float(n @ own) ** 2 / shown
                self._variance += rate * (1 - rate) * shown / (shown - 1) * max(spread, 0.0)

    @property
    def z(self) -> float:
        """Standard errors above what chance gives; 0 where predictions do not differ."""
        return self._sum / sqrt(self._variance) if self._variance > 0 else 0.0


def fit(
    past: History,
    split: int,
    config: LearningConfig = DEFAULT_CONFIG,
    on_window: Callable[[int, int], None] = lambda done, total: None,
    on_judged: Callable[[Predicted, Floats, Floats], None] = lambda said, impressions, clicks: None,
) -> Fitted:
    """Train on the windows before ``split`` and judge on those from it on. The same rows give the same model.

    ``on_window`` gets the windows done and their total, ``on_judged`` each judged window's predictions and what
    happened. Raises ``ValueError`` where either side has too little.
    """
    if not past.window.size or past.window[-1] < split:
        raise ValueError("no row lies at or after the split")
    trainer = CtrTrainer(config.model or MODEL_CONFIG)
    card, walk = (
        Scorecard(PREDICTORS),
        Walk(past.platforms, past.base_rate, msgspec.structs.replace(config, model=None)),
    )
    walk.extend(past.platform, past.campaign)
    first, last = int(past.window[0]), int(past.window[-1])
    edges = np.searchsorted(past.window, np.arange(first, last + 2))
    model: CtrModel | None = None
    for window in range(first, last + 1):
        rows = slice(edges[window - first], edges[window - first + 1])
        series, shown, clicked = past.series[rows], past.impressions[rows], past.clicks[rows]
        if window >= split and model is None:
            model = trainer.train(split)
            if model is None:
                raise ValueError(f"fewer than {trainer.config.least_clicks:,.0f} clicks lie before the split")
            walk.adopt(model)
        said = walk.predict(window, series)
        if window < split:
            rate = said.rates[DEFAULT]
            trainer.add(window, walk.features.of(series, rate, said.shape), shown, clicked, rate)
        else:
            on_judged(said, shown, clicked)
        walk.learn(said, shown, clicked, card if window >= split else None)
        on_window(window - first + 1, last + 1 - first)
    if model is None or not card.windows:
        raise ValueError("no impression lies at or after the split")
    judged = [judged_once(windows, config.rule, len(past.platforms)) for windows in walk.scored]
    standings = dict(zip(past.platforms, judged, strict=True))
    return Fitted(model=model, scorecard=card, standings=standings, windows=last + 1 - max(split, first))


def control(
    past: History,
    split: int,
    config: LearningConfig = DEFAULT_CONFIG,
    on_window: Callable[[int, int], None] = lambda done, total: None,
) -> Control:
    """The same on shuffled labels. Raises ``ValueError`` as ``fit``."""
    told = Discrimination(past.platform)
    found = fit(shuffled(past, CONTROL_SEED), split, config, on_window, told.add)
    return Control(told.z, float(ndtr(-told.z)), compare(found.scorecard, [(MODEL, DEFAULT)])[0])


def shuffled(past: History, seed: int) -> History:
    """The history with the labels of all impressions of a window and platform, clicked or not, in another order: every
    row keeps its impressions, every window and platform its clicks.
    """
    random = np.random.default_rng(seed)
    platform = past.platform[past.series]
    order = np.lexsort((platform, past.window))
    starts = np.flatnonzero(np.diff(past.window[order]) | np.diff(platform[order])) + 1
    clicks = np.zeros_like(past.clicks)
    for rows in np.split(order, starts):
        shown, clicked = past.impressions[rows].astype(np.int64), int(past.clicks[rows].sum())
        if shown.sum() < MOST_SHUFFLED:
            clicks[rows] = random.multivariate_hypergeometric(shown, clicked, method="marginals")
        else:
            clicks[rows] = random.binomial(shown, clicked / shown.sum())
    return msgspec.structs.replace(past, clicks=clicks)


def digest(past: History, until: int) -> str:
    """The SHA-256 of the rows before a window, whatever the order in which they were read."""
    rows = past.window < until
    found = sha256(msgspec.json.encode(past.platforms))
    for column in (past.window, past.series, past.impressions, past.clicks):
        found.update(np.ascontiguousarray(column[rows]).astype("<f8").tobytes())
    found.update(past.platform.astype("<f8").tobytes() + past.campaign.astype("<f8").tobytes())
    return found.hexdigest()
