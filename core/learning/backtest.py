"""A walk forward over history, one window at a time: predict, see what happened, score, learn.

Whatever is fitted, retrained or promoted uses only windows that have closed, as in the stream. Hiding the future does
not change a prediction by a bit.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import numpy as np

from core.learning.baselines import BASELINES, Baselines
from core.learning.calibration import AdaptiveIntervals
from core.learning.ctr_model import CtrFeatures, CtrModel, CtrModelConfig, CtrTrainer
from core.learning.decayed import Ints
from core.learning.empirical_bayes import DEFAULT_GRID, EmpiricalBayes, Grid
from core.learning.predictive import Floats, covered_share, moments
from core.learning.promotion import NOT_YET, PromotionRule, ScoredWindow, Standing, standing
from core.learning.scorecard import LEAST_RATE, Scorecard, Scored

DEFAULT: Final = "default"
MODEL: Final = "model"
SERVED: Final = "served"
PREDICTORS: Final = (DEFAULT, MODEL, SERVED, *BASELINES)
NEVER: Final = np.iinfo(np.int64).max


class History(msgspec.Struct, frozen=True, eq=False):
    """Counts of r rows sorted by window and series, one row for each, and what the s series are.

    ``window`` counts horizons from any origin. Series are numbered in the order of their first row, so that those of
    the future come after those of the past. ``platform`` is each series' index into ``platforms``, whose profile
    rates are ``base_rate``. ``campaign`` numbers the campaigns: series of the same id on several platforms are one.
    """

    window: Ints
    series: Ints
    impressions: Floats
    clicks: Floats
    platform: Ints
    campaign: Ints
    platforms: tuple[str, ...]
    base_rate: Floats


class BacktestConfig(msgspec.Struct, frozen=True):
    """How to fit, train and promote."""

    grid: Grid = DEFAULT_GRID
    model: CtrModelConfig = CtrModelConfig()
    rule: PromotionRule = PromotionRule()
    inside: float = 0.9


DEFAULT_CONFIG: Final = BacktestConfig()


class Predicted(msgspec.Struct, frozen=True, eq=False):
    """One window's predictions, made before it: the rows' series, each predictor's rates, and the default's shape."""

    window: int
    series: Ints
    rates: dict[str, Floats]
    shape: Floats


class Backtest(msgspec.Struct, frozen=True, eq=False):
    """The scorecard of the windows from the split on; the default's fitted hypotheses, each platform's standing and
    the share of scored windows in which the model served, by platform.
    """

    scorecard: Scorecard
    fitted: dict[str, dict[str, float]]
    standings: dict[str, Standing]
    promoted_share: dict[str, float]
    windows: int
    trained: int


def history(
    windows: Ints, keys: Sequence[tuple[str, str]], impressions: Floats, clicks: Floats, base_rates: dict[str, float]
) -> History:
    """History from rows in any order: ``keys`` are (platform, series id). Rows of one window and series are summed;
    clicks beyond the impressions count as equal to them. ``base_rates`` names every platform.
    """
    counts: dict[tuple[int, str, str], list[float]] = {}
    for window, (platform, name), n, k in zip(
        windows.tolist(), keys, impressions.tolist(), clicks.tolist(), strict=True
    ):
        total = counts.setdefault((window, platform, name), [0.0, 0.0])
        total[0] += n
        total[1] += min(k, n)
    number: dict[tuple[str, str], int] = {}
    rows = sorted(counts)
    for _, platform, name in rows:
        number.setdefault((platform, name), len(number))
    campaigns: dict[str, int] = {}
    campaign = [campaigns.setdefault(name, len(campaigns)) for _, name in number]
    platforms = tuple(sorted(base_rates))
    ordered = sorted(
        (window, number[platform, name], *counts[window, platform, name]) for window, platform, name in rows
    )
    table = np.array(ordered, dtype=np.float64).reshape(-1, 4)
    return History(
        window=table[:, 0].astype(np.int64),
        series=table[:, 1].astype(np.int64),
        impressions=table[:, 2],
        clicks=table[:, 3],
        platform=np.array([platforms.index(platform) for platform, _ in number], dtype=np.int64),
        campaign=np.array(campaign, dtype=np.int64),
        platforms=platforms,
        base_rate=np.array([base_rates[platform] for platform in platforms]),
    )


class Walk:
    """The walk's whole state. ``predict`` and then ``learn`` for each window in order, empty ones too."""

    def __init__(self, past: History, config: BacktestConfig = DEFAULT_CONFIG) -> None:
        self._history, self._config = past, config
        self.default = EmpiricalBayes(past.platform, past.campaign, past.base_rate, config.grid)
        self._baselines = Baselines(past.platform, past.base_rate)
        self._features = CtrFeatures(past.platform.size)
        self._trainer = CtrTrainer(config.model)
        self.intervals = AdaptiveIntervals(config.inside)
        self._model: CtrModel | None = None
        self.trained = 0
        self.standings = [NOT_YET] * len(past.platforms)
        self._scored: list[list[ScoredWindow]] = [[] for _ in past.platforms]
        self._first = np.full(past.platform.size, NEVER)

    def predict(self, window: int, series: Ints) -> Predicted:
        """Predictions for the series that will have a row in the window."""
        if self._trainer.due(window) and (model := self._trainer.train(window)) is not None:
            self._model = model
            self.trained += 1
        rate, shape = self.default.predict(series)
        model_rate = rate if self._model is None else self._model.predict(self._features.of(series, rate, shape), rate)
        promoted = np.array([one.promoted for one in self.standings])[self._history.platform[series]]
        served = np.where(promoted, model_rate, rate)
        rates = {DEFAULT: rate, MODEL: model_rate, SERVED: served, **self._baselines.predict(series)}
        return Predicted(window, series, rates, shape)

    def learn(self, said: Predicted, impressions: Floats, clicks: Floats, card: Scorecard | None = None) -> None:
        """Score what was said of a window against what it showed, and learn from it."""
        window, series, shape = said.window, said.series, said.shape
        group = self._history.platform[series]
        shown = impressions > 0
        self._first[series[shown]] = np.minimum(self._first[series[shown]], window)
        scored, band, central = self._intervals(said, impressions, clicks)
        if card is not None:
            names = [self._history.platforms[at] for at in group.tolist()]
            ages = (window - np.minimum(self._first[series], window)).astype(np.float64)
            card.add(window, impressions, clicks, scored, names, ages)
        self.intervals.advance(band[shown], central[shown])
        rate = said.rates[DEFAULT]
        if self._model is not None:
            self._judge(said, group, impressions, clicks)
        self._trainer.add(window, self._features.of(series, rate, shape), impressions, clicks, rate)
        for learner in (self._features, self._baselines, self.default):
            learner.advance(series, impressions, clicks)

    def _intervals(self, said: Predicted, n: Floats, k: Floats) -> tuple[dict[str, Scored], Ints, Floats]:
        scored = {name: Scored(rate) for name, rate in said.rates.items()}
        for name in (MODEL, SERVED, DEFAULT):
            rate = said.rates[name]
            covered, band, central = self.intervals.covers(rate, said.shape, n, k)
            exact = covered_share(k, *moments(rate, said.shape, n), self._config.inside)
            scored[name] = Scored(rate, covered, exact)
        return scored, band, central

    def _judge(self, said: Predicted, group: Ints, n: Floats, k: Floats) -> None:
        default, model = (np.clip(said.rates[name], LEAST_RATE, 1 - LEAST_RATE) for name in (DEFAULT, MODEL))
        losses = [-(k * np.log(rate) + (n - k) * np.log1p(-rate)) for rate in (default, model)]
        groups = len(self._scored)
        sums = [np.bincount(group, weights=values, minlength=groups) for values in (n, k, *losses, n * model)]
        for at, windows in enumerate(self._scored):
            if sums[0][at] > 0:
                windows.append(ScoredWindow(*(float(values[at]) for values in sums)))
                del windows[: -self._config.rule.windows]
            self.standings[at] = standing(windows, self.standings[at], self._config.rule)


def run(
    past: History,
    split: int,
    config: BacktestConfig = DEFAULT_CONFIG,
    on_window: Callable[[int, int], None] = lambda done, total: None,
    on_predicted: Callable[[Predicted], None] = lambda predicted: None,
) -> Backtest:
    """Walk over the history; windows from ``split`` on are scored.

    ``on_window`` gets the windows done and their total, ``on_predicted`` every window's predictions. Raises
    ``ValueError`` when no row lies at or after the split.
    """
    if not past.window.size or past.window[-1] < split:
        raise ValueError("no row lies at or after the split")
    card, walk = Scorecard(PREDICTORS), Walk(past, config)
    first, last = int(past.window[0]), int(past.window[-1])
    edges = np.searchsorted(past.window, np.arange(first, last + 2))
    served = np.zeros(len(past.platforms))
    for window in range(first, last + 1):
        rows = slice(edges[window - first], edges[window - first + 1])
        said = walk.predict(window, past.series[rows])
        on_predicted(said)
        scoring = window >= split
        served += scoring * np.array([one.promoted for one in walk.standings])
        walk.learn(said, past.impressions[rows], past.clicks[rows], card if scoring else None)
        on_window(window - first + 1, last + 1 - first)
    scored = last + 1 - max(split, first)
    return Backtest(
        scorecard=card,
        fitted=dict(zip(past.platforms, walk.default.fitted(), strict=True)),
        standings=dict(zip(past.platforms, walk.standings, strict=True)),
        promoted_share=dict(zip(past.platforms, (served / scored).tolist(), strict=True)),
        windows=scored,
        trained=walk.trained,
    )
