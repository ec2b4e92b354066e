"""Effects of labels on a ratio: what a hook, a creative or a campaign adds to it, in shares of the platform's base.

Observation i, x_i of v_i units on platform p, deviates by ``y_i = x_i / (base[p] v_i) - 1``, a sum of one random effect
a factor (its label's), one of its own, and noise. The variances are fitted by regressing products of deviations on
shared labels (Haseman and Elston, Behavior Genetics 2, 1972; non-negative least squares); effects and predictions are
best linear unbiased predictors (Henderson, Biometrics 31, 1975) of deviations held within three of their standard
deviations, so that a label with little support stays near zero.

Predictions are calibrated on campaigns left out: a factor on the ratio (actual over predicted) and one on the variance
(mean squared standardized error, where above 1). Costs grow with the cube of the number of observations.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from core.intervals import Floats

# What is assumed of each factor before there are data, and the pairs of well-measured observations that it is worth.
PRIOR_VARIANCE: Final = 0.01
PRIOR_LABELS: Final = 4.0
PRIOR_SHARE: Final = 0.1
PRIOR_OWN: Final = 0.05
PRIOR_PAIRS: Final = 5.0

HELD_WITHIN: Final = 3.0
LEAST_VARIANCE: Final = 1e-6
LEAST_RELATIVE: Final = 0.05
MOST_OBSERVATIONS: Final = 4_000
ROUNDS: Final = 3

Labels = tuple[str, ...]
"""One label a factor, empty for unknown."""


class Observations(msgspec.Struct, frozen=True, eq=False):
    """n observations: ``amount`` x and ``units`` v above 0, [n]; ``platform``, column of the base, [n]; labels.

    ``noise``: the variance of an amount's noise, over the square of what is expected, is ``noise / volume``, [n]; NaN
    asks for it to be fitted (one number for all). ``held``: the campaign that an observation is left out with.
    """

    amount: Floats
    units: Floats
    platform: NDArray[np.int64]
    labels: Sequence[Labels]
    volume: Floats
    held: Sequence[str]


class Effect(msgspec.Struct, frozen=True):
    """A relative effect (0.1 is 10 % more than the base) and its standard deviation."""

    mean: float
    deviation: float


class RelativeEffects:
    """Fitted effects. ``variances``: by factor, over the squared base. ``base``: by column of platforms, NaN unknown.

    ``binomial`` says that amounts are counts out of the units, whose noise is known; else it is fitted. Raises
    ``ValueError`` for more than ``MOST_OBSERVATIONS``.
    """

    def __init__(self, factors: Sequence[str], platforms: int, data: Observations, *, binomial: bool) -> None:
        if len(data.amount) > MOST_OBSERVATIONS:
            raise ValueError(f"effects take at most {MOST_OBSERVATIONS} observations, not {len(data.amount)}")
        self.factors = tuple(factors)
        self.data = data
        self._binomial = binomial
        self._known_effects: dict[tuple[str, str], Effect] = {}
        self._last: tuple[Labels, Floats, float] = ((), np.zeros(0), 0.0)
        self._places: list[dict[str, int]] = [{} for _ in factors]
        self._levels = [
            _numbered([labels[at] for labels in data.labels], places) for at, places in enumerate(self._places)
        ]
        self._fit(platforms)
        self._solve()

    @property
    def observations(self) -> int:
        """How many there were."""
        return len(self.data.amount)

    def effect(self, factor: str, label: str, without: str = "") -> Effect:
        """What a label adds, given everything but the campaign ``without``."""
        if not without and (held := self._known_effects.get((factor, label))) is not None:
            return held
        at = self.factors.index(factor)
        joint = self._shared(at, label)
        known = self._alpha if not without else self._alpha_without(self._out(without))
        variance = float(self.variances[factor] - joint @ self._inverse @ joint)
        found = Effect(float(joint @ known), float(np.sqrt(max(variance, 0.0) * self.inflation)))
        if not without:
            self._known_effects[factor, label] = found
        return found

    def means(
        self, labels: Mapping[str, str], without: str = "", without_label: tuple[str, str] | None = None
    ) -> dict[str, float]:
        """What labels add, by factor, given everything but the campaign ``without`` and the observations that show
        ``without_label``, a factor and its label.
        """
        out = self._out(without) if without else np.array([], dtype=np.int64)
        if without_label is not None:
            at = self.factors.index(without_label[0])
            place = self._places[at].get(without_label[1])
            if place is not None:
                out = np.union1d(out, np.flatnonzero(self._levels[at] == place))
        known = self._alpha_without(out)
        return {
            factor: float(self._shared(self.factors.index(factor), label) @ known) for factor, label in labels.items()
        }

    def predict(
        self,
        labels: Labels,
        platform: int,
        seen: Sequence[tuple[int, float, float, float]] = (),
        without: str = "",
    ) -> Effect:
        """How far a new observation with these labels will be from its base, calibrated: ``base * (1 + mean)``.

        ``seen``: (platform, amount, units, volume) of what the same labels have shown already and the fit has not.
        """
        if self._last[0] != labels:
            shared = self._joint(labels)
            self._last = (labels, shared, float(shared @ self._inverse @ shared))
        _, joint, explained = self._last
        known = self._alpha if not without else self._alpha_without(self._out(without))
        total = sum(self.variances.values())
        mean, variance = float(joint @ known), total + self.own - explained
        usable = [each for each in seen if self.base[each[0]] > 0 and each[2] > 0 and each[3] > 0]
        if usable:
            left = total - explained
            same = np.array([each[0] == platform for each in usable], dtype=np.float64)
            cover = np.full((len(usable), len(usable)), left) + np.diag(
                [self.own + self._noise_of(each[0]) / each[3] for each in usable]
            )
            strayed = np.array([each[1] / (self.base[each[0]] * each[2]) - 1 for each in usable]) - mean
            towards = left + self.own * same
            weights = np.linalg.solve(cover, towards)
            mean, variance = mean + float(weights @ strayed), variance - float(weights @ towards)
        relative = max(1 + mean, LEAST_RELATIVE) * self.ratio
        variance = max(variance, LEAST_VARIANCE) * self.inflation
        return Effect(relative - 1, float(np.sqrt(variance)) * relative)

    def _fit(self, platforms: int) -> None:
        data = self.data
        sums = [np.bincount(data.platform, values, platforms) for values in (data.amount, data.units)]
        base: Floats = np.divide(sums[0], sums[1], out=np.full(platforms, np.nan), where=sums[1] > 0)
        variances = np.full(len(self.factors), PRIOR_VARIANCE)
        own, self._scale = PRIOR_OWN, 1.0
        for _ in range(ROUNDS):
            self.base = np.maximum(base, 1e-12)
            noise = self._noise(data.platform) / data.volume
            trust = 1 / (noise + variances.sum() + own)
            deviation = _held(self._deviation(), trust)
            swung = np.bincount(data.platform, trust * deviation, platforms)
            base = base * (1 + swung / np.maximum(np.bincount(data.platform, trust, platforms), 1e-12))
            self.base = np.maximum(base, 1e-12)
            deviation = _held(self._deviation(), trust)
            variances = _variances(self._levels, trust, deviation)
            own = self._rest(trust, deviation, variances.sum(), noise)
        variances = _shrunk(self._levels, variances, own)
        self.variances = dict(zip(self.factors, variances.tolist(), strict=True))
        self.own = own

    def _rest(self, trust: Floats, deviation: Floats, explained: float, noise: Floats) -> float:
        """The variance of an observation's own effect, and the noise where it is not known, from the squares."""
        weight, square = trust, deviation**2 - explained
        if self._binomial:
            prior = PRIOR_PAIRS / PRIOR_OWN**2
            found = ((weight**2 * (square - noise)).sum() + prior * PRIOR_OWN) / ((weight**2).sum() + prior)
            return max(LEAST_VARIANCE, float(found))
        from scipy.optimize import nnls  # scipy.optimize takes long to import

        design = np.column_stack((np.ones_like(noise), 1 / self.data.volume)) * weight[:, None]
        own, scale = nnls(design, np.maximum(square, 0.0) * weight)[0]
        self._scale = max(float(scale), LEAST_VARIANCE)
        return max(LEAST_VARIANCE, float(own))

    def _noise_of(self, platform: int) -> float:
        return float(self._noise(np.array([platform]))[0])

    def _noise(self, platform: NDArray[np.int64]) -> Floats:
        if not self._binomial:
            return np.full(len(platform), self._scale)
        base = np.minimum(self.base[platform], 0.999)
        noise: Floats = (1 - base) / base
        return noise

    def _deviation(self) -> Floats:
        deviation: Floats = self.data.amount / (self.base[self.data.platform] * self.data.units) - 1
        return deviation

    def _solve(self) -> None:
        data = self.data
        cover = np.zeros((self.observations, self.observations))
        for factor, levels in zip(self.factors, self._levels, strict=True):
            cover += self.variances[factor] * (levels[:, None] == levels[None, :])
        self.ratio = self.inflation = 1.0
        whole = sum(self.variances.values()) + self.own + self._noise(data.platform) / data.volume
        self._residual = _held(self._deviation(), 1 / whole)
        if not self.observations:
            self._inverse, self._alpha = cover, self._residual
            return
        cover[np.diag_indices_from(cover)] = whole
        self._inverse = cho_solve(cho_factor(cover), np.eye(self.observations))
        self._alpha = self._inverse @ self._residual
        self._calibrate()

    def _calibrate(self) -> None:
        """How predictions of campaigns that were left out did."""
        expected = self.base[self.data.platform] * self.data.units
        actual = predicted = squares = 0.0
        for held in sorted(set(self.data.held)):
            out = self._out(held)
            block = np.linalg.inv(self._inverse[np.ix_(out, out)])
            strayed = block @ self._alpha[out]
            forecast = np.maximum(1 + self._residual[out] - strayed, LEAST_RELATIVE)
            actual += float(self.data.amount[out].sum())
            predicted += float((expected[out] * forecast).sum())
            squares += float((strayed**2 / np.diag(block)).sum())
        if len(set(self.data.held)) > 1:
            self.ratio = actual / predicted if actual and predicted else 1.0
            self.inflation = max(1.0, squares / self.observations)

    def _out(self, held: str) -> NDArray[np.int64]:
        return np.flatnonzero(np.array([name == held for name in self.data.held]))

    def _alpha_without(self, out: NDArray[np.int64]) -> Floats:
        """As if some observations had never been seen: they are what the others say of them."""
        if not out.size:
            return self._alpha
        residual = self._residual.copy()
        residual[out] -= np.linalg.solve(self._inverse[np.ix_(out, out)], self._alpha[out])
        alpha: Floats = self._inverse @ residual
        return alpha

    def _joint(self, labels: Labels) -> Floats:
        joint: Floats = np.sum([self._shared(at, label) for at, label in enumerate(labels)], axis=0)
        return joint

    def _shared(self, factor: int, label: str) -> Floats:
        """What the label's effect and each observation have in common; nothing where the label is unknown."""
        place = self._places[factor].get(label)
        if place is None:
            return np.zeros(self.observations)
        shared: Floats = self.variances[self.factors[factor]] * (self._levels[factor] == place)
        return shared


def _held(deviation: Floats, trust: Floats) -> Floats:
    """Deviations within three of their standard deviations (Huber 1981): one lucky result makes no pattern."""
    reach = HELD_WITHIN / np.sqrt(trust)
    held: Floats = np.clip(deviation, -reach, reach)
    return held


def _numbered(labels: Sequence[str], places: dict[str, int]) -> NDArray[np.int64]:
    """A number a label, each unknown one on its own; ``places`` takes the numbers of the known ones."""
    return np.array([places.setdefault(label, at) if label else at for at, label in enumerate(labels)], dtype=np.int64)


def _variances(levels: Sequence[NDArray[np.int64]], trust: Floats, deviation: Floats) -> Floats:
    """The factors' variances: least squares of the pairs' products on which labels they share."""
    from scipy.optimize import nnls

    count = len(levels)
    weighted = trust * deviation
    normal, towards = np.zeros((count, count)), np.zeros(count)
    for left in range(count):
        towards[left] = _pairs(levels[left], weighted)
        for right in range(left, count):
            both = np.unique(levels[left] * len(trust) + levels[right], return_inverse=True)[1]
            normal[left, right] = normal[right, left] = _pairs(both, trust)
    prior = PRIOR_PAIRS / (PRIOR_VARIANCE * count + PRIOR_OWN) ** 2
    normal[np.diag_indices(count)] += prior
    towards += prior * PRIOR_VARIANCE
    values, vectors = np.linalg.eigh(normal)
    root = np.sqrt(np.maximum(values, 1e-12))
    found: Floats = nnls((vectors * root).T, (vectors.T @ towards) / root)[0]
    return found


def _shrunk(levels: Sequence[NDArray[np.int64]], found: Floats, own: float) -> Floats:
    """Few labels say little of how much labels differ, even where each has much support: a factor's variance is
    shrunk to a share of the whole.
    """
    freedom = np.array([len(np.unique(level)) - 1 for level in levels])
    prior = PRIOR_SHARE * (found.sum() + own)
    shrunk: Floats = (freedom * found + PRIOR_LABELS * prior) / (freedom + PRIOR_LABELS)
    return shrunk


def _pairs(level: NDArray[np.int64], values: Floats) -> float:
    """The sum over pairs of one level of the products of their values."""
    return float((np.bincount(level, weights=values) ** 2).sum() - (values**2).sum()) / 2
