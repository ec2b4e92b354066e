"""The seam of the stream: closed days in, predictions for a batch of dirty campaigns out.

A day is closed once, for all series that had a row in it. It is scored against what was predicted when the day before
it had closed, and then learned. What an open day has shown so far informs a prediction and is not kept, so
restatements of open days need nothing. A restatement of a closed day is not learned again.

The state is a function of the closed days alone and survives as bytes.
"""

from collections import ChainMap
from collections.abc import Collection, MutableMapping, Sequence
from operator import attrgetter
from typing import Final, NamedTuple
from zlib import crc32

import msgspec
import numpy as np

from core.intervals import LEAST_STRENGTH
from core.learning import horizons
from core.learning.ctr_model import CtrModel
from core.learning.decayed import Ints, Past
from core.learning.horizons import HourAhead, Hours, WeekAhead
from core.learning.predictive import Floats
from core.learning.promotion import ScoredWindow, Standing
from core.learning.scorecard import Scorecard
from core.learning.walk import PREDICTORS, LearningConfig, Walk
from schemas.scorecard import HORIZONS

VERSION: Final = 2
Key = tuple[str, str]
"""Campaign and platform."""

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

WEEK: Final = (*horizons.ARRAYS, "levels")
"""What is kept of the weeks on their way; a state from before there were any has none."""


class Forecast(msgspec.Struct, frozen=True, eq=False):
    """For r rows and h horizons (``HORIZONS``): rates and 90 % intervals, [r, h], and where each row's rate comes from
    (``empirical_bayes``, ``model`` or ``prior``). ``campaigns`` are those of the rows in order of appearance, with
    their mixtures over platforms, [c, h].
    """

    rate: Floats
    low: Floats
    high: Floats
    source: list[str]
    campaigns: list[str]
    campaign_rate: Floats
    campaign_low: Floats
    campaign_high: Floats


class Rows(NamedTuple):
    """Rows of closed days, [r] each, the oldest first and each key once a day."""

    days: Ints
    keys: list[Key]
    impressions: Floats
    clicks: Floats


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
    week: list[bytes] = []
    cards: list[bytes] = []


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
        self._hour, self._week = HourAhead(), WeekAhead()

    @property
    def cards(self) -> dict[str, Scorecard]:
        """The scorecard of each horizon, by its name; ``scorecard`` is that of a day."""
        return dict(zip(HORIZONS, (self._hour.scorecard, self.scorecard, self._week.scorecard), strict=True))

    @property
    def standings(self) -> dict[str, Standing]:
        """Whether the model serves each platform, and why."""
        return dict(zip(self._platforms, self._walk.standings, strict=True))

    def adopt(self, model: CtrModel | None) -> None:
        """Judge this model from now on; what was promoted must earn it anew."""
        self._walk.adopt(model)

    def close(
        self, day: int, keys: Sequence[Key], impressions: Floats, clicks: Floats, hours: Hours | None = None
    ) -> None:
        """Score and learn a day, each key once, and an hour of it; the days since the last closed one had no rows.

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
        clicked = np.minimum(clicks, impressions)
        said = self._walk.predict(day, series)
        if hours is not None:
            self._hour.close(self._walk, day, series, hours)
        self._walk.learn(said, impressions, clicked, self.scorecard)
        self._week.close(self._walk, day, series, impressions, clicked)
        self.last_day = day

    def absorb(self, late: Rows, whole: Rows) -> None:
        """Learn rows that came late for closed days. They raise the counts of their series, and are neither scored nor
        evidence for anything that is fitted. ``whole``: all rows of the same series on the last days, late or not,
        along which their rates are filtered anew.

        Raises ``ValueError`` for a day that is not closed.
        """
        newest = max(late.days.max(), whole.days.max(initial=0))
        if self.last_day is None or newest > self.last_day:
            raise ValueError(f"day {newest} is not closed")
        taken = []
        for rows in (late, whole):
            clicked = np.minimum(rows.clicks, rows.impressions)
            taken.append(Past(self._numbers(rows.keys), self.last_day - rows.days, rows.impressions, clicked))
        self._walk.absorb(self.last_day, *taken)

    @property
    def size(self) -> int:
        """How many series there are."""
        return len(self._series)

    @property
    def keys(self) -> list[Key]:
        """The series, in order of their appearance."""
        return list(self._series)

    def forget(self, keys: Collection[Key]) -> None:
        """Drop series. What they taught their platforms stays."""
        kept = [key for key in self._series if key not in keys]
        places = [self._series[key] for key in kept]
        if len(kept) == self.size:
            return
        fresh, old = CtrPredictor(self._platforms, self._base_rate, self._config), self._walk
        fresh._numbers(kept)
        for name in ARRAYS:
            value, blank = attrgetter(name)(old), attrgetter(name)(fresh._walk)
            _set(fresh._walk, name, value if value.shape == blank.shape else value[..., places])
        fresh._walk.model, fresh._walk.standings, fresh._walk.scored = old.model, old.standings, old.scored
        for name in horizons.ARRAYS:
            setattr(self._week, name, getattr(self._week, name)[..., places])
        self._walk, self._series, self._campaigns = fresh._walk, fresh._series, fresh._campaigns

    def fitted(self) -> list[dict[str, float]]:
        """What was fitted on each platform, with its mean ``rate``."""
        rates = self._walk.default.platform_rate.rate()[0].tolist()
        return [one | {"rate": rate} for one, rate in zip(self._walk.default.fitted(), rates, strict=True)]

    def forecast(
        self,
        keys: Sequence[Key],
        impressions: Floats,
        clicks: Floats,
        expected: Floats,
        ahead: Sequence[float] = AHEAD,
    ) -> Forecast:
        """Predictions for a batch, given what the open day has shown, [r] or, where the horizons' features end at
        different times, [r, h], and the impressions that are expected in each horizon, [r, h]. Where none are expected
        the interval is that of the rate. ``ahead``: days from the open day to each horizon's middle.
        """
        walk, series = self._looked_up(keys)
        shown, clicked = (np.broadcast_to(one.T, expected.T.shape).T for one in (impressions, clicks))
        serves = walk.promoted(series) == 1
        rate, shape = walk.default.predict_ahead(series, ahead, shown, np.minimum(clicked, shown))
        if serves.any():
            rate = np.where(serves[:, None], walk.at_odds(rate, walk.odds(series)[:, None]), rate)
        low, high = self._interval(rate, shape, expected)
        known = walk.default.seen[series] | (shown.max(axis=1) > 0)
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
                [np.ascontiguousarray(getattr(self._week, name)).tobytes() for name in WEEK],
                [each.scorecard.to_bytes() for each in (self._hour, self._week)],
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
        for name, values in zip(WEEK, saved.week, strict=False):
            setattr(found._week, name, _array(getattr(found._week, name), values))
        if saved.cards:
            found._hour.scorecard, found._week.scorecard = map(Scorecard.from_bytes, saved.cards)
        return found

    def _numbers(self, keys: Sequence[Key]) -> Ints:
        """The series of the keys; new ones are appended."""
        new = [key for key in dict.fromkeys(keys) if key not in self._series]
        if new:
            self._walk.extend(*self._described(new, self._campaigns))
            self._week.extend(np.array([_wait(campaign) for campaign, _ in new], dtype=np.int64))
            for key in new:
                self._series[key] = len(self._series)
        return np.array([self._series[key] for key in keys], dtype=np.int64)

    def _looked_up(self, keys: Sequence[Key]) -> tuple[Walk, Ints]:
        """As ``_numbers``, but new ones are in the walk that is returned alone."""
        new = [key for key in dict.fromkeys(keys) if key not in self._series]
        if not new:
            return self._walk, np.array([self._series[key] for key in keys], dtype=np.int64)
        walk = self._walk.extended(*self._described(new, ChainMap({}, self._campaigns)))
        added = {key: self.size + at for at, key in enumerate(new)}
        at = [known if (known := self._series.get(key)) is not None else added[key] for key in keys]
        return walk, np.array(at, dtype=np.int64)

    def _described(self, new: Sequence[Key], numbers: MutableMapping[str, int]) -> tuple[Ints, Ints]:
        """The platforms' and the campaigns' numbers; new campaigns get the next ones."""
        campaign = [numbers.setdefault(name, len(numbers)) for name, _ in new]
        platform = [self._platforms.index(name) for _, name in new]
        return np.array(platform, dtype=np.int64), np.array(campaign, dtype=np.int64)

    def _interval(self, rate: Floats, shape: Floats, expected: Floats) -> tuple[Floats, Floats]:
        trials = np.where(expected > 0, expected, NO_LIMIT)
        return self._walk.intervals.interval(rate, shape, trials)


def _wait(campaign: str) -> int:
    """The days that a campaign's first week waits, spread evenly over campaigns."""
    return crc32(campaign.encode("utf-8", "surrogatepass")) % horizons.DAYS


def _restore(walk: Walk, name: str, values: bytes) -> None:
    _set(walk, name, _array(attrgetter(name)(walk), values))


def _array(blank: np.ndarray, values: bytes) -> np.ndarray:
    if len(values) != blank.nbytes:
        raise ValueError("the state of CTR predictions is of other hypotheses")
    return np.frombuffer(values, dtype=blank.dtype).reshape(blank.shape).copy()


def _set(walk: Walk, name: str, values: np.ndarray) -> None:
    owner, _, attribute = name.rpartition(".")
    setattr(attrgetter(owner)(walk) if owner else walk, attribute, values)


def _numbered(names: Sequence[str]) -> tuple[list[str], Ints]:
    number: dict[str, int] = {}
    row = [number.setdefault(name, len(number)) for name in names]
    return list(number), np.array(row, dtype=np.int64)


def _summed(row: Ints, count: int, values: Floats) -> Floats:
    """Sums over each campaign's rows, [c, h] of [r, h]."""
    return np.stack([np.bincount(row, weights=column, minlength=count) for column in values.T], axis=1)


def _shares(row: Ints, count: int, expected: Floats) -> Floats:
    """Each row's share of its campaign, by expected impressions and, where none are, equal."""
    total = _summed(row, count, expected)[row]
    equal = 1 / np.bincount(row, minlength=count)[row]
    share: Floats = np.where(total > 0, expected / np.where(total > 0, total, 1.0), equal[:, None])
    return share
