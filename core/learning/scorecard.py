"""The prequential scorecard: every prediction is judged once, when its window has closed, beside all others on the same
rows.

A scorecard holds sums only, by predictor and by segment (platform, volume, age) and by window, so that scorecards of
disjoint rows merge by addition. Measures are computed from the sums (``core.learning.measures``).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from scipy.special import xlogy

from core.learning.predictive import Floats

LEAST_RATE: Final = 1e-6
"""Predictions are held this far from 0 and 1: a sure one that fails would cost everything. No CTR that is shown often
enough to be measured lies nearer, and one click against it costs 14 nats, not what a smaller edge would make of it.
"""
MEASURABLE: Final = 50
"""Impressions from which a row's own CTR is worth comparing with."""

FIELDS: Final = (
    "rows",
    "impressions",
    "clicks",
    "expected",
    "loss",
    "saturated",
    "deviation",
    "measurable",
    "intervals",
    "covered",
    "covered_exact",
)
VOLUME_EDGES: Final = (10.0, 50.0, 200.0, 1000.0)
VOLUMES: Final = ("under 10", "10 to 49", "50 to 199", "200 to 999", "1000 and more")
AGE_EDGES: Final = (1.0, 7.0, 28.0)
AGES: Final = ("first", "1 to 6", "7 to 27", "28 and more")
CURVE_EDGES: Final = tuple(float(edge) for edge in np.geomspace(0.001, 0.5, 18))
"""Predicted rates at which the calibration curve is cut."""


def bernoulli_losses(rate: Floats, impressions: Floats, clicks: Floats) -> Floats:
    """The negative log-likelihood of r rows' clicks in nats, their rates held within ``LEAST_RATE``."""
    held = np.clip(rate, LEAST_RATE, 1 - LEAST_RATE)
    return np.asarray(-(clicks * np.log(held) + (impressions - clicks) * np.log1p(-held)))


def saturated_losses(impressions: Floats, clicks: Floats) -> Floats:
    """The same of the rows' own CTRs, which no prediction can undercut. Every row has impressions."""
    share = clicks / impressions
    return np.asarray(-(xlogy(clicks, share) + xlogy(impressions - clicks, 1 - share)))


class Scored(msgspec.Struct, frozen=True, eq=False):
    """What one predictor said of r rows. Intervals are optional: whether each row lay inside, and the share of it that
    lay inside of the exact interval (``core.learning.predictive.covered_share``).
    """

    rate: Floats
    covered: Floats | None = None
    covered_exact: Floats | None = None


class _Saved(msgspec.Struct, array_like=True):
    predictors: tuple[str, ...]
    segments: list[tuple[str, str, bytes]]
    windows: list[tuple[int, bytes]]
    curve: bytes


class Scorecard:
    """Sums for a fixed list of predictors.

    ``segments`` maps (axis, value) to [predictors, FIELDS]; ``curve`` is [predictors, bins, 3] with impressions,
    expected and actual clicks; ``windows`` maps a window to its impressions and each predictor's log loss.
    """

    def __init__(self, predictors: Sequence[str]) -> None:
        self.predictors = tuple(predictors)
        self.segments: dict[tuple[str, str], Floats] = {}
        self.curve: Floats = np.zeros((len(self.predictors), len(CURVE_EDGES) + 1, 3))
        self.windows: dict[int, Floats] = {}

    def add(
        self,
        window: int,
        impressions: Floats,
        clicks: Floats,
        scored: Mapping[str, Scored],
        platforms: Sequence[str],
        ages: Floats,
    ) -> None:
        """Judge r rows of a closed window: ``platforms`` names each row's platform, ``ages`` its windows since its
        series was first seen. Rows without impressions say nothing and are left out. Raises ``KeyError`` when a
        predictor is missing.
        """
        shown = impressions > 0
        if not shown.any():
            return
        n, k = impressions[shown], clicks[shown]
        table = np.stack([_fields(scored[name], shown, n, k) for name in self.predictors])
        names = np.array(platforms)[shown]
        volume = np.searchsorted(VOLUME_EDGES, n, side="right")
        age = np.searchsorted(AGE_EDGES, ages[shown], side="right")
        self._sum(("all", "all"), table)
        for platform in np.unique(names):
            self._sum(("platform", str(platform)), table[:, :, names == platform])
        for at in np.unique(volume):
            self._sum(("volume", VOLUMES[at]), table[:, :, volume == at])
        for at in np.unique(age):
            self._sum(("age", AGES[at]), table[:, :, age == at])
        for row, name in enumerate(self.predictors):
            rate = scored[name].rate[shown]
            place = np.searchsorted(CURVE_EDGES, rate, side="right")
            for column, values in enumerate((n, n * rate, k)):
                self.curve[row, :, column] += np.bincount(place, weights=values, minlength=self.curve.shape[1])
        losses = np.concatenate(([n.sum()], table[:, FIELDS.index("loss")].sum(axis=1)))
        self.windows[window] = self.windows.get(window, 0.0) + losses

    def to_bytes(self) -> bytes:
        """Msgpack that ``from_bytes`` reads."""
        segments = [(*key, sums.tobytes()) for key, sums in sorted(self.segments.items())]
        windows = [(window, losses.tobytes()) for window, losses in sorted(self.windows.items())]
        return msgspec.msgpack.encode(_Saved(self.predictors, segments, windows, self.curve.tobytes()))

    @classmethod
    def from_bytes(cls, payload: bytes) -> "Scorecard":
        """The scorecard of its bytes. Raises ``ValueError`` for others."""
        try:
            saved = msgspec.msgpack.decode(payload, type=_Saved)
        except msgspec.DecodeError as error:
            raise ValueError(f"not a scorecard: {error}") from None
        card = cls(saved.predictors)
        shape = (len(saved.predictors), len(FIELDS))
        card.segments = {
            (axis, value): np.frombuffer(sums).reshape(shape).copy() for axis, value, sums in saved.segments
        }
        card.windows = {window: np.frombuffer(losses).copy() for window, losses in saved.windows}
        card.curve = np.frombuffer(saved.curve).reshape(card.curve.shape).copy()
        return card

    def merged(self, other: "Scorecard") -> "Scorecard":
        """The scorecard of both's rows. Raises ``ValueError`` when they judge different predictors."""
        if other.predictors != self.predictors:
            raise ValueError(f"cannot merge scorecards of {self.predictors} and {other.predictors}")
        both = Scorecard(self.predictors)
        for part in (self, other):
            for segment, sums in part.segments.items():
                both.segments[segment] = both.segments.get(segment, 0.0) + sums
            for window, losses in part.windows.items():
                both.windows[window] = both.windows.get(window, 0.0) + losses
        both.curve = self.curve + other.curve
        return both

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Scorecard)
            and self.predictors == other.predictors
            and _same(self.segments, other.segments)
            and _same(self.windows, other.windows)
            and np.array_equal(self.curve, other.curve)
        )

    __hash__ = None  # type: ignore[assignment]

    def _sum(self, segment: tuple[str, str], table: Floats) -> None:
        self.segments[segment] = self.segments.get(segment, 0.0) + table.sum(axis=2)


def _fields(scored: Scored, shown: np.ndarray, n: Floats, k: Floats) -> Floats:
    """One predictor's contributions, [FIELDS, r]."""
    rate = np.clip(scored.rate[shown], LEAST_RATE, 1 - LEAST_RATE)
    measurable = (n >= MEASURABLE).astype(np.float64)
    absent = np.zeros_like(n)
    covered = absent if scored.covered is None else scored.covered[shown]
    exact = absent if scored.covered_exact is None else scored.covered_exact[shown]
    return np.stack(
        (
            np.ones_like(n),
            n,
            k,
            n * rate,
            bernoulli_losses(rate, n, k),
            saturated_losses(n, k),
            measurable * np.abs(k / n - rate),
            measurable,
            absent if scored.covered is None else np.ones_like(n),
            covered,
            exact,
        )
    )


def _same(left: Mapping[Any, Floats], right: Mapping[Any, Floats]) -> bool:
    return left.keys() == right.keys() and all(np.array_equal(left[key], right[key]) for key in left)
