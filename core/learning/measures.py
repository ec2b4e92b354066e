"""What a scorecard's sums say: each measure by its name, and whether a difference is more than luck."""

from collections.abc import Sequence
from math import inf
from typing import Final

import msgspec
import numpy as np
from scipy.special import stdtr, stdtrit

from core.learning.baselines import PLATFORM_MEAN
from core.learning.predictive import Floats
from core.learning.scorecard import AGES, FIELDS, VOLUMES, Scorecard

BLOCK: Final = 7
"""Windows whose errors are taken to hang together."""
MOST_BLOCKS: Final = 8
"""More windows make longer blocks, so that what hangs together for longer lies within one."""
LEAST_WINDOWS: Final = 2 * BLOCK
"""Fewer windows say nothing of how far blocks stray."""
SIGNIFICANT: Final = 0.05
TEST: Final = f"paired t-test on up to {MOST_BLOCKS} blocks of windows, Holm-adjusted"


class Measures(msgspec.Struct, frozen=True, omit_defaults=True):
    """One predictor on one segment's rows. ``None`` where a measure has nothing to stand on.

    ``log_loss``: nats per impression. ``normalized_entropy``: log loss over that of the segment's own CTR (He et al.,
    ADKDD 2014). ``calibration``: clicks predicted over actual. ``mae``: mean absolute error of the CTR, rows of 50 and
    more impressions. ``deviance_explained``: share of the platform mean's binomial deviance that is gone.
    ``coverage``: share of rows inside of their 90 % interval. ``coverage_exact``: the same for the exact central
    interval of the predictive distribution, which splits a count that straddles an end.
    """

    predictor: str
    axis: str
    segment: str
    rows: int
    impressions: float
    log_loss: float
    normalized_entropy: float | None
    calibration: float | None
    mae: float | None
    deviance_explained: float | None
    coverage: float | None = None
    coverage_exact: float | None = None


class Comparison(msgspec.Struct, frozen=True):
    """Two predictors on the same windows: the share of ``against``'s log loss that ``predictor`` saves, its 95 %
    interval, and the adjusted one-sided probability of as much by luck. Of fewer than ``LEAST_WINDOWS`` the interval
    has no ends and the probability is 1.
    """

    predictor: str
    against: str
    gain: float
    low: float
    high: float
    p: float

    @property
    def beats(self) -> bool:
        """Whether the saving is significant."""
        return self.gain > 0 and self.p < SIGNIFICANT


class CurvePoint(msgspec.Struct, frozen=True):
    """One bin of a calibration curve: the mean predicted and the observed CTR of its impressions."""

    predicted: float
    observed: float
    impressions: float


class WindowLoss(msgspec.Struct, frozen=True):
    """What one window cost: nats per impression, by predictor."""

    window: int
    impressions: float
    log_loss: dict[str, float]


def measures(card: Scorecard) -> list[Measures]:
    """Every predictor on every segment, the whole first; volumes and ages by their size."""
    order = {axis: place for place, axis in enumerate(("all", "platform", "volume", "age"))}
    sizes = {name: place for names in (VOLUMES, AGES) for place, name in enumerate(names)}
    return [
        _measured(card, axis, segment, row)
        for axis, segment in sorted(card.segments, key=lambda key: (order[key[0]], sizes.get(key[1], 0), key[1]))
        for row in range(len(card.predictors))
    ]


def curve(card: Scorecard, predictor: str) -> list[CurvePoint]:
    """The calibration curve of a predictor, without its empty bins."""
    bins = card.curve[card.predictors.index(predictor)]
    return [CurvePoint(expected / n, actual / n, n) for n, expected, actual in bins.tolist() if n > 0]


def by_window(card: Scorecard, trailing: int = 1) -> list[WindowLoss]:
    """The log loss of every window in order, each with the ``trailing`` - 1 scored windows before it."""
    found = []
    order = sorted(card.windows)
    for at, window in enumerate(order):
        sums = np.sum([card.windows[one] for one in order[max(0, at + 1 - trailing) : at + 1]], axis=0)
        shown, *losses = sums.tolist()
        per_impression = {name: loss / shown for name, loss in zip(card.predictors, losses, strict=True)}
        found.append(WindowLoss(window, shown, per_impression))
    return found


def compare(card: Scorecard, pairs: Sequence[tuple[str, str]]) -> list[Comparison]:
    """Each pair (predictor, against) on the card's windows; probabilities are Holm-adjusted over all the pairs.

    The gain is a ratio of sums; its error is that of the residuals of up to ``MOST_BLOCKS`` blocks of ``BLOCK`` or more
    successive windows, with Student's t for so many (batch means; Cochran, Sampling Techniques, 6.4). Over few windows
    this holds its level where a bootstrap of blocks does not; where successive windows correlate by .7, 5 % are 6 to 8.
    """
    if not card.windows:
        return []
    table = np.stack([card.windows[window] for window in sorted(card.windows)])
    blocks = min(max(1, len(table) // BLOCK), MOST_BLOCKS)
    starts = np.arange(blocks) * len(table) // blocks
    sums = np.add.reduceat(table, starts, axis=0)
    column = {name: at + 1 for at, name in enumerate(card.predictors)}
    found = []
    for predictor, against in pairs:
        own, base = sums[:, column[predictor]], sums[:, column[against]]
        found.append(_compared(predictor, against, own, base, len(table)))
    return _holm(found)


def _compared(predictor: str, against: str, own: Floats, base: Floats, windows: int) -> Comparison:
    """A pair by its losses in each block."""
    gain = 1 - float(own.sum() / base.sum())
    if windows < LEAST_WINDOWS:
        return Comparison(predictor, against, gain, -inf, inf, 1.0)
    freedom = own.size - 1
    residual = base - own - gain * base
    error = float(np.sqrt((residual**2).sum() * own.size / freedom) / base.sum())
    reach = error * float(stdtrit(freedom, 0.975))
    p = float(stdtr(freedom, -gain / error)) if error > 0 else float(gain <= 0)
    return Comparison(predictor, against, gain, gain - reach, gain + reach, p)


def verdict(card: Scorecard, default: str, model: str, baselines: Sequence[str]) -> tuple[list[Comparison], list[str]]:
    """The comparisons that decide, and what they say, in sentences."""
    others = [name for name in (default, model, *baselines) if name != PLATFORM_MEAN]
    pairs = [(name, PLATFORM_MEAN) for name in others]
    pairs += [(default, name) for name in baselines if name != PLATFORM_MEAN] + [(model, default)]
    found = compare(card, pairs)
    if not found:
        return [], ["no window was scored"]
    if len(card.windows) < LEAST_WINDOWS:
        return found, [f"too few windows to tell what is better: {len(card.windows)}, of at least {LEAST_WINDOWS}"]
    better = [one.predictor for one in found if one.against == PLATFORM_MEAN and one.beats]
    if not better:
        lines = [f"nothing beats the platform mean on log loss ({TEST}, {len(card.windows)} windows)"]
    else:
        lines = [
            f"better than the platform mean on log loss: {', '.join(better)} ({TEST}, {len(card.windows)} windows)"
        ]
    for one in found:
        if one.against != PLATFORM_MEAN:
            says = "beats" if one.beats else "does not beat"
            lines.append(
                f"{one.predictor} {says} {one.against}: {one.gain:+.3%} of its log loss saved, 95% interval"
                f" {one.low:+.3%} to {one.high:+.3%}, {_p(one.p)}"
            )
    return found, lines


def _p(p: float) -> str:
    return f"p = {p:.4f}" if p >= 0.0001 else "p < 0.0001"


def _measured(card: Scorecard, axis: str, segment: str, row: int) -> Measures:
    table = card.segments[axis, segment]
    of = dict(zip(FIELDS, table[row].tolist(), strict=True))
    n, clicks = of["impressions"], of["clicks"]
    rate = clicks / n
    entropy = -(clicks * np.log(rate) + (n - clicks) * np.log1p(-rate)) if 0 < clicks < n else 0.0
    explained = None
    if PLATFORM_MEAN in card.predictors:
        null = table[card.predictors.index(PLATFORM_MEAN), FIELDS.index("loss")] - of["saturated"]
        explained = 1 - (of["loss"] - of["saturated"]) / float(null) if null > 0 else None
    intervals = of["intervals"]
    return Measures(
        predictor=card.predictors[row],
        axis=axis,
        segment=segment,
        rows=int(of["rows"]),
        impressions=n,
        log_loss=of["loss"] / n,
        normalized_entropy=of["loss"] / float(entropy) if entropy else None,
        calibration=of["expected"] / clicks if clicks else None,
        mae=of["deviation"] / of["measurable"] if of["measurable"] else None,
        deviance_explained=explained,
        coverage=of["covered"] / intervals if intervals else None,
        coverage_exact=of["covered_exact"] / intervals if intervals else None,
    )


def _holm(found: Sequence[Comparison]) -> list[Comparison]:
    least, adjusted = 0.0, {}
    order = sorted(range(len(found)), key=lambda at: found[at].p)
    for place, at in enumerate(order):
        least = max(least, min(1.0, found[at].p * (len(found) - place)))
        adjusted[at] = least
    return [msgspec.structs.replace(one, p=adjusted[at]) for at, one in enumerate(found)]
