"""One step of time at a time: predict, see what happened, score, learn. The same for history and for the stream.

Whatever is fitted, retrained or promoted uses only windows that have closed.
"""

from copy import copy
from typing import Final

import msgspec
import numpy as np

from core.learning.baselines import BASELINES, Baselines
from core.learning.calibration import AdaptiveIntervals
from core.learning.ctr_model import CtrFeatures, CtrModel, CtrModelConfig, CtrTrainer
from core.learning.decayed import Ints, Past
from core.learning.empirical_bayes import DEFAULT_GRID, EmpiricalBayes, Grid
from core.learning.predictive import Floats, covered_share, moments
from core.learning.promotion import NOT_YET, PromotionRule, ScoredWindow, standing, succeeding
from core.learning.scorecard import LEAST_RATE, Scorecard, Scored, bernoulli_losses

DEFAULT: Final = "default"
MODEL: Final = "model"
SERVED: Final = "served"
PREDICTORS: Final = (DEFAULT, MODEL, SERVED, *BASELINES)
NEVER: Final = np.iinfo(np.int64).max
GREATEST_RATE: Final = 0.999


class LearningConfig(msgspec.Struct, frozen=True):
    """How to fit, train and promote. Without ``model`` nothing is trained here, and models come from elsewhere."""

    grid: Grid = DEFAULT_GRID
    model: CtrModelConfig | None = CtrModelConfig()
    rule: PromotionRule = PromotionRule()
    inside: float = 0.9


DEFAULT_CONFIG: Final = LearningConfig()


class Predicted(msgspec.Struct, frozen=True, eq=False):
    """One window's predictions, made before it: the rows' series, each predictor's rates, and the default's shape."""

    window: int
    series: Ints
    rates: dict[str, Floats]
    shape: Floats


def judged(
    intervals: AdaptiveIntervals, said: Predicted, impressions: Floats, clicks: Floats, levels: Floats | None = None
) -> tuple[dict[str, Scored], Ints, Floats]:
    """What was said beside what happened, with intervals around the rates that have them; and the default's bands and
    centralities, [r] each (``AdaptiveIntervals.covers``).
    """
    scored = {name: Scored(rate) for name, rate in said.rates.items()}
    for name in (MODEL, SERVED, DEFAULT):
        rate = said.rates[name]
        covered, band, central = intervals.covers(rate, said.shape, impressions, clicks, levels)
        exact = covered_share(clicks, *moments(rate, said.shape, impressions), intervals.inside)
        scored[name] = Scored(rate, covered, exact)
    return scored, band, central


class Walk:
    """Everything that is learned of some series. ``extend`` names new ones; then, for each window in order and empty
    ones too, ``predict`` and ``learn``.
    """

    def __init__(self, platforms: tuple[str, ...], base_rate: Floats, config: LearningConfig = DEFAULT_CONFIG) -> None:
        none = np.zeros(0, dtype=np.int64)
        self.platforms, self._config = platforms, config
        self.platform = none
        self.default = EmpiricalBayes(none, none, base_rate, config.grid)
        self.baselines = Baselines(none, base_rate)
        self.features = CtrFeatures(0)
        self.intervals = AdaptiveIntervals(config.inside)
        self.model: CtrModel | None = None
        self.trained = 0
        self.standings = [NOT_YET] * len(platforms)
        self.scored: list[list[ScoredWindow]] = [[] for _ in platforms]
        self.first = none
        self._trainer = None if config.model is None else CtrTrainer(config.model)

    def extend(self, platform: Ints, campaign: Ints) -> None:
        """Append series by their platforms' and campaigns' numbers."""
        self.platform = np.concatenate((self.platform, platform))
        self.first = np.concatenate((self.first, np.full(platform.size, NEVER)))
        self.default.extend(platform, campaign)
        self.baselines.extend(platform)
        self.features.extend(platform.size)

    def extended(self, platform: Ints, campaign: Ints) -> "Walk":
        """A copy that has new series too, to predict with; what both know is shared."""
        found = copy(self)
        found.default, found.baselines, found.features = copy(self.default), copy(self.baselines), copy(self.features)
        found.default.slow, found.default.pool = copy(self.default.slow), copy(self.default.pool)
        found.default.pool.counts = copy(self.default.pool.counts)
        found.baselines.counts, found.features.own = copy(self.baselines.counts), copy(self.features.own)
        found.extend(platform, campaign)
        return found

    def adopt(self, model: CtrModel | None) -> None:
        """Judge another model from now on; it serves nowhere until it has earned it (``promotion.succeeding``)."""
        self.model = model
        rule, among = self._config.rule, len(self.platforms)
        self.standings = [succeeding(before, rule, among) for before in self.standings]
        self.scored = [[] for _ in self.platforms]

    def predict(self, window: int, series: Ints) -> Predicted:
        """Predictions for the series that will have a row in the window."""
        trainer = self._trainer
        if trainer is not None and trainer.due(window) and (model := trainer.train(window)) is not None:
            self.model = model
            self.trained += 1
        rate, shape = self.default.predict(series)
        return self._predicted(window, series, rate, self.modelled(series, rate, shape), shape)

    def predict_ahead(self, window: int, series: Ints, steps: float, impressions: Floats, clicks: Floats) -> Predicted:
        """Predictions for a window so many steps after the coming one, given what that has shown so far, [r] each."""
        shown = impressions[:, None], np.minimum(clicks, impressions)[:, None]
        rate, shape = (one[:, 0] for one in self.default.predict_ahead(series, (steps,), *shown))
        return self._predicted(window, series, rate, self.at_odds(rate, self.odds(series)), shape)

    def odds(self, series: Ints) -> Floats:
        """The model's rates in the coming window over the default's, by which it changes those of any other."""
        rate, shape = self.default.predict(series)
        return self.modelled(series, rate, shape) / rate

    @staticmethod
    def at_odds(rate: Floats, odds: Floats) -> Floats:
        """The default's rates as the model changes them."""
        changed: Floats = np.minimum(rate * odds, GREATEST_RATE)
        return changed

    def _predicted(self, window: int, series: Ints, rate: Floats, model_rate: Floats, shape: Floats) -> Predicted:
        served = np.where(self.promoted(series), model_rate, rate)
        rates = {DEFAULT: rate, MODEL: model_rate, SERVED: served, **self.baselines.predict(series)}
        return Predicted(window, series, rates, shape)

    def modelled(self, series: Ints, rate: Floats, shape: Floats) -> Floats:
        """The model's rates on top of the default's; the default's while there is no model."""
        return rate if self.model is None else self.model.predict(self.features.of(series, rate, shape), rate)

    def promoted(self, series: Ints) -> Ints:
        """Whether the model serves each series (1 or 0)."""
        return np.array([one.promoted for one in self.standings], dtype=np.int64)[self.platform[series]]

    def learn(self, said: Predicted, impressions: Floats, clicks: Floats, card: Scorecard | None = None) -> None:
        """Score what was said of a window against what it showed, and learn from it."""
        window, series, shape = said.window, said.series, said.shape
        group = self.platform[series]
        shown = impressions > 0
        self.first[series[shown]] = np.minimum(self.first[series[shown]], window)
        scored, band, central = judged(self.intervals, said, impressions, clicks)
        if card is not None:
            names = [self.platforms[at] for at in group.tolist()]
            ages = (window - np.minimum(self.first[series], window)).astype(np.float64)
            card.add(window, impressions, clicks, scored, names, ages)
        self.intervals.advance(band[shown], central[shown])
        rate = said.rates[DEFAULT]
        if self.model is not None:
            self._judge(said, group, impressions, clicks)
        if self._trainer is not None:
            self._trainer.add(window, self.features.of(series, rate, shape), impressions, clicks, rate)
        for learner in (self.features, self.baselines, self.default):
            learner.advance(series, impressions, clicks)

    def absorb(self, window: int, late: Past, whole: Past) -> None:
        """Learn rows that came when ``window`` and those after theirs had been learned, unscored. ``whole``: all rows
        of the same series in the last windows.
        """
        shown = late.impressions > 0
        np.minimum.at(self.first, late.series[shown], window - late.age[shown])
        self.features.absorb(late)
        self.baselines.absorb(late)
        self.default.absorb(late, whole)

    def _judge(self, said: Predicted, group: Ints, n: Floats, k: Floats) -> None:
        model = np.clip(said.rates[MODEL], LEAST_RATE, 1 - LEAST_RATE)
        losses = [bernoulli_losses(said.rates[name], n, k) for name in (DEFAULT, MODEL)]
        groups = len(self.scored)
        sums = [np.bincount(group, weights=values, minlength=groups) for values in (n, k, *losses, n * model)]
        for at, windows in enumerate(self.scored):
            if sums[0][at] > 0:
                windows.append(ScoredWindow(*(float(values[at]) for values in sums)))
                del windows[: -self._config.rule.windows]
                self.standings[at] = standing(windows, self.standings[at], self._config.rule, groups)
