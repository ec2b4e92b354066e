"""A walk forward over history (``core.learning.walk``) whose predictions are scored from a split on.

Hiding the future does not change a prediction by a bit.
"""

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from core.learning.decayed import Ints
from core.learning.predictive import Floats
from core.learning.promotion import Standing
from core.learning.scorecard import Scorecard
from core.learning.walk import DEFAULT_CONFIG, PREDICTORS, LearningConfig, Predicted, Walk


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


def run(
    past: History,
    split: int,
    config: LearningConfig = DEFAULT_CONFIG,
    on_window: Callable[[int, int], None] = lambda done, total: None,
    on_predicted: Callable[[Predicted], None] = lambda predicted: None,
) -> Backtest:
    """Walk over the history; windows from ``split`` on are scored.

    ``on_window`` gets the windows done and their total, ``on_predicted`` every window's predictions. Raises
    ``ValueError`` when no row lies at or after the split.
    """
    if not past.window.size or past.window[-1] < split:
        raise ValueError("no row lies at or after the split")
    card, walk = Scorecard(PREDICTORS), Walk(past.platforms, past.base_rate, config)
    walk.extend(past.platform, past.campaign)
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
