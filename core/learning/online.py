"""The seam of the stream: closed days in, predictions for a batch of dirty campaigns out.

A day is closed once, for all series that had a row in it. It is scored against what was predicted when the day before
it had closed, and then learned. What an open day has shown so far informs a prediction and is not kept, so
restatements of open days need nothing. A restatement of a closed day is not learned again.

The state is a function of the closed days alone and survives as bytes.
"""

from collections.abc import Sequence
from operator import attrgetter
from typing import Final

import msgspec
import numpy as np

from core.intervals import LEAST_STRENGTH
from core.learning.ctr_model import CtrModel
from core.learning.decayed import Ints
from core.learning.predictive import Floats
from core.learning.promotion import ScoredWindow, Standing
from core.learning.scorecard import Scorecard
from core.learning.walk import PREDICTORS, LearningConfig, Walk

VERSION: Final = 2
Key = tuple[str, str]
"""Campaign and platform."""

HORIZONS: Final = ("1h", "1d", "7d")
AHEAD: Final = (0.0, 0.5, 3.5)
"""Days from the open day to the middle of a horizon."""
NO_LIMIT: Final = 1e9
"""Impressions at which the CTR to be observed is the rate itself."""

STREAM_CONFIG: Final = LearningConfig(model=None)
"""As in a backtest, but for models: they are trained elsewhere and adopted."""

ARRAYS: Final = (
    "first",
    "default.seen",
    "default.log_rate",
    "default.shape",
    "default.slow.impressions",
    "default.slow.clicks",
    "default.pool.counts.impressions",
    "default.pool.counts.clicks",
    "default.pool.evidence.scores",
    "default.evidence.scores",
    "default.platform_rate.log_rate",
    "default.platform_rate.shape",
    "default.platform_rate.evidence.scores",
    "default.level.log_rate",
    "default.level.shape",
    "default.level.evidence.scores",
    "baselines.counts.impressions",
    "baselines.counts.clicks",
    "baselines.last",
    "baselines.impressions",
    "baselines.clicks",
    "features.own.impressions",
    "features.own.clicks",
    "features.last",
    "intervals.histogram",
)


class Forecast(msgspec.Struct, frozen=True, eq=False):
    """For r rows and the three ``HORIZONS``: rates and 90 % intervals, [r, 3], and where each row's rate comes from
    (``empirical_bayes``, ``model`` or ``prior``). ``campaigns`` are those of the rows in order of appearance, with
    their mixtures over platforms, [c, 3].
    """

    rate: Floats
    low: Floats
    high: Floats
    source: list[str]
    campaigns: list[str]
    campaign_rate: Floats
    campaign_low: Floats
    campaign_high: Floats


class _Saved(msgspec.Struct, array_like=True):
    version: int
    platforms: tuple[str, ...]
    last_day: int | None
    keys: list[Key]
    arrays: list[bytes]
    standings: list[Standing]
    scored: list[list[ScoredWindow]]
    card: bytes
    model: bytes


class CtrPredictor:
    """What has been learned of campaigns on platforms, and the scorecard of what was said of them.

    ``base_rate``: the profile's CTR of each platform.
    """

    def __init__(self, platforms: tuple[str, ...], base_rate: Floats, config: LearningConfig = STREAM_CONFIG) -> None:
        self._walk = Walk(platforms, base_rate, config)
        self._platforms, self._base_rate, self._config = platforms, base_rate, config
        self._series: dict[Key, int] = {}
        self._campaigns: dict[str, int] = {}
        self.last_day: int | None = None
        self.scorecard = Scorecard(PREDICTORS)

    @property
    def standings(self) -> dict[str, Standing]:
        """Whether the model serves each platform, and why."""
        return dict(zip(self._platforms, self._walk.standings, strict=True))

    def adopt(self, model: CtrModel | None) -> None:
        """Judge this model from now on; what was promoted must earn it anew."""
        self._walk.adopt(model)

    def close(self, day: int, keys: Sequence[Key], impressions: Floats, clicks: Floats) -> None:
        """Score and learn a day, each key once; the days since the last closed one had no rows.

        Raises ``ValueError`` for a day that is not after the last one, and for a key that stands twice.
        """
        if self.last_day is not None and day <= self.last_day:
            raise ValueError(f"day {day} is not after {self.last_day}, which is closed")
        if len(set(keys)) != len(keys):
            raise ValueError("a key stands twice")
        none = np.zeros(0)
        for empty in range(day if self.last_day is None else self.last_day + 1, day):
            self._walk.learn(self._walk.predict(empty, none.astype(np.int64)), none, none)
        series = self._numbers(keys)
        said = self._walk.predict(day, series)
        self._walk.learn(said, impressions, np.minimum(clicks, impressions), self.scorecard)
        self.last_day = day

    def forecast(self, keys: Sequence[Key], impressions: Floats, clicks: Floats, expected: Floats) -> Forecast:
        """Predictions for a batch, given what the open day has shown, [r] each, and the impressions that are expected
        in each horizon, [r, 3]. Where none are expected the interval is that of the rate.
        """
        walk, series = self._walk, self._numbers(keys)
        partly = (impressions, np.minimum(clicks, impressions))
        serves = walk.promoted(series) == 1
        now = walk.default.predict(series)
        odds = walk.modelled(series, *now) / now[0] if serves.any() else np.ones(len(keys))
        rates, shapes = [], []
        for ahead in AHEAD:
            rate, shape = walk.default.predict(series, ahead, partly)
            rates.append(np.where(serves, np.minimum(rate * odds, 0.999), rate))
            shapes.append(shape)
        rate, shape = np.stack(rates, axis=1), np.stack(shapes, axis=1)
        low, high = self._interval(rate, shape, expected)
        known = walk.default.seen[series] | (impressions > 0)
        source = np.where(serves, "model", np.where(known, "empirical_bayes", "prior")).tolist()
        campaigns, row = _numbered([campaign for campaign, _ in keys])
        share = _shares(row, len(campaigns), expected)
        mean = _summed(row, len(campaigns), share * rate)
        variance = _summed(row, len(campaigns), share**2 * rate**2 / shape)
        whole = _summed(row, len(campaigns), expected)
        mixed = self._interval(mean, mean**2 / np.maximum(variance, LEAST_STRENGTH * mean**2), whole)
        return Forecast(rate, low, high, source, campaigns, mean, *mixed)

    def to_bytes(self) -> bytes:
        """The whole state."""
        walk = self._walk
        model = walk.model
        return msgspec.msgpack.encode(
            _Saved(
                VERSION,
                self._platforms,
                self.last_day,
                list(self._series),
                [np.ascontiguousarray(attrgetter(name)(walk)).tobytes() for name in ARRAYS],
                walk.standings,
                walk.scored,
                self.scorecard.to_bytes(),
                b"" if model is None else model.to_bytes(),
            )
        )

    @classmethod
    def from_bytes(
        cls, payload: bytes, platforms: tuple[str, ...], base_rate: Floats, config: LearningConfig = STREAM_CONFIG
    ) -> "CtrPredictor":
        """The state of its bytes. Raises ``ValueError`` for others, or where platforms or hypotheses have changed."""
        try:
            saved = msgspec.msgpack.decode(payload, type=_Saved)
        except msgspec.DecodeError as error:
            raise ValueError(f"not a state of CTR predictions: {error}") from None
        if saved.version != VERSION or saved.platforms != platforms:
            raise ValueError("the state of CTR predictions is of another version or of other platforms")
        found = cls(platforms, base_rate, config)
        found._numbers(saved.keys)
        for name, values in zip(ARRAYS, saved.arrays, strict=True):
            _restore(found._walk, name, values)
        found._walk.standings, found._walk.scored = saved.standings, saved.scored
        if saved.model:
            found._walk.model = CtrModel.from_bytes(saved.model)
        found.last_day, found.scorecard = saved.last_day, Scorecard.from_bytes(saved.card)
        return found

    def _numbers(self, keys: Sequence[Key]) -> Ints:
        """The series of the keys; new ones are appended."""
        new = [key for key in dict.fromkeys(keys) if key not in self._series]
        if new:
            for key in new:
                self._series[key] = len(self._series)
            campaign = [self._campaigns.setdefault(name, len(self._campaigns)) for name, _ in new]
            platform = [self._platforms.index(name) for _, name in new]
            self._walk.extend(np.array(platform, dtype=np.int64), np.array(campaign, dtype=np.int64))
        return np.array([self._series[key] for key in keys], dtype=np.int64)

    def _interval(self, rate: Floats, shape: Floats, expected: Floats) -> tuple[Floats, Floats]:
        trials = np.where(expected > 0, expected, NO_LIMIT)
        return self._walk.intervals.interval(rate, shape, trials)


def _restore(walk: Walk, name: str, values: bytes) -> None:
    owner, _, attribute = name.rpartition(".")
    holder = attrgetter(owner)(walk) if owner else walk
    blank = getattr(holder, attribute)
    if len(values) != blank.nbytes:
        raise ValueError("the state of CTR predictions is of other hypotheses")
    setattr(holder, attribute, np.frombuffer(values, dtype=blank.dtype).reshape(blank.shape).copy())


def _numbered(names: Sequence[str]) -> tuple[list[str], Ints]:
    number: dict[str, int] = {}
    row = [number.setdefault(name, len(number)) for name in names]
    return list(number), np.array(row, dtype=np.int64)


def _summed(row: Ints, count: int, values: Floats) -> Floats:
    """Sums over each campaign's rows, [c, 3] of [r, 3]."""
    return np.stack([np.bincount(row, weights=column, minlength=count) for column in values.T], axis=1)


def _shares(row: Ints, count: int, expected: Floats) -> Floats:
    """Each row's share of its campaign, by expected impressions and, where none are, equal."""
    total = _summed(row, count, expected)[row]
    equal = 1 / np.bincount(row, minlength=count)[row]
    share: Floats = np.where(total > 0, expected / np.where(total > 0, total, 1.0), equal[:, None])
    return share
