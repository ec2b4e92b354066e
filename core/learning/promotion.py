"""Which tier serves a platform: the default, and the model only once it is surely better, and while it lately is.

The model is looked at after every window, so that a lead of so many standard errors comes by luck sooner or later. It
is bet on instead: a capital of 1 is staked, a share of it each window, on the model's saving log loss in that window.
Where the model saves nothing in the mean, whatever the windows are like, no way of staking lets the capital expect to
grow, so it ever reaches ``1 / level`` with a probability of at most ``level`` (Ville's inequality; Waudby-Smith and
Ramdas, Estimating means of bounded random variables by betting, JRSS B 86, 2024). Then the model is promoted.

Windows are measured in the deviation of those before. The one liberty is that a loss of more than ``1 / max(BETS)`` of
it, 4, is taken for one of that size. The stakes are a mixture that moves a little capital from bet to bet (fixed share;
Herbster and Warmuth, Machine Learning 32, 1998), so that what was lost on a bad model does not hold back a good one for
long. What exceeds the goal is given away, so that a good past does not pay for a bad present.
"""

from collections.abc import Sequence
from math import sqrt
from statistics import fmean
from typing import Final

import msgspec
from scipy.special import stdtrit

BETS: Final = (0.0, 0.1, 0.25)
"""Shares of the capital that are lost in a window that is worse by a deviation of the windows before."""
MOVED: Final = 0.01
"""Share of the capital that is dealt out evenly among the bets after each window."""
WARM_UP: Final = 7
"""Windows that say how far windows deviate, before anything is staked."""
GREATEST_RATIO: Final = 4.0
"""The root mean square of the windows over their deviation, beyond which it is taken for no larger."""
CARRIED: Final = 0.5
"""Of the capital for promotion, what a model that is trained anew takes over."""
NOISE: Final = 2.0
"""Standard errors of their sum by which the newest windows may be further out of calibration."""


class ScoredWindow(msgspec.Struct, frozen=True):
    """What both tiers said of one window of a platform before it was seen, and what happened.

    Losses are log losses summed over ``impressions``; ``model_clicks`` are the clicks that the model expected.
    """

    impressions: float
    clicks: float
    default_loss: float
    model_loss: float
    model_clicks: float

    @property
    def saved(self) -> float:
        """The loss that the model saves."""
        return self.default_loss - self.model_loss


class PromotionRule(msgspec.Struct, frozen=True):
    """``windows``: the latest ones, over which the model must lead and be calibrated. ``level``: the probability of
    ever promoting, on any platform, a model that is no better. ``calibration``: how far predicted over actual may be
    from 1. ``least_clicks``: below this nothing is concluded. ``kept``: the share of the capital for promotion below
    which a model that serves has lost its place. ``newest``: windows in which it must be calibrated too, but for noise.
    """

    windows: int = 28
    level: float = 0.05
    calibration: float = 0.05
    least_clicks: float = 200.0
    kept: float = 0.1
    newest: int = 7


DEFAULT_RULE: Final = PromotionRule()


class Standing(msgspec.Struct, frozen=True):
    """Whether the model serves, and why. ``gain`` is the loss that it saves, a share of the default's, over the latest
    windows. ``capital`` is what was made of 1 with each of ``BETS``.
    """

    promoted: bool
    reason: str
    gain: float = 0.0
    calibration: float = 1.0
    capital: tuple[float, ...] = ()


NOT_YET: Final = Standing(promoted=False, reason="too few windows")


def succeeding(before: Standing, rule: PromotionRule = DEFAULT_RULE, among: int = 1) -> Standing:
    """The standing of a model that takes the place of another, of a platform ``among`` so many.

    It has shown nothing, so it serves nowhere. But the bet is on whatever model there is: the capital stays, up to
    ``CARRIED`` of what promotion takes, for else models that are trained anew every month would hardly serve. One that
    is replaced within ``WARM_UP`` windows is never staked on.
    """
    total = sum(before.capital)
    most = CARRIED * among / rule.level
    kept = min(1.0, most / total) if total > 0 else 1.0
    return msgspec.structs.replace(NOT_YET, capital=tuple(kept * own for own in before.capital))


def standing(
    windows: Sequence[ScoredWindow], before: Standing = NOT_YET, rule: PromotionRule = DEFAULT_RULE, among: int = 1
) -> Standing:
    """The standing after the newest of ``windows`` (oldest first), given that before it, of a platform ``among`` so
    many. For looks after each window.

    >>> worse = ScoredWindow(1000, 50, default_loss=200, model_loss=201, model_clicks=50)
    >>> standing([worse] * 28).reason
    'the default has the lower log loss'
    """
    latest = windows[-rule.windows :]
    if len(latest) <= min(WARM_UP, rule.windows - 1):
        return msgspec.structs.replace(NOT_YET, capital=before.capital)
    goal = among / rule.level
    capital = staked(before.capital, latest[:-1], latest[-1], goal)
    found = _lately(latest, rule)
    if found.promoted:
        needed = rule.kept * goal if before.promoted else goal * (1 - 1e-9)
        if sum(capital) < needed:
            found = msgspec.structs.replace(found, promoted=False, reason="the model's lead is not sure")
    return msgspec.structs.replace(found, capital=capital)


def staked(
    capital: tuple[float, ...], past: Sequence[ScoredWindow], newest: ScoredWindow, goal: float
) -> tuple[float, ...]:
    """What a window makes of the capital, which is 1 where there is none yet; at most ``goal`` in all."""
    held = capital if len(capital) == len(BETS) else (1 / len(BETS),) * len(BETS)
    scale = _scale(past, newest.impressions)
    if not scale > 0:
        return held
    grown = [own * max(1 + bet * newest.saved / scale, 0.0) for own, bet in zip(held, BETS, strict=True)]
    total = sum(grown)
    even, kept = MOVED * total / len(BETS), min(1.0, goal / total)
    return tuple(kept * ((1 - MOVED) * own + even) for own in grown)


def judged_once(windows: Sequence[ScoredWindow], rule: PromotionRule = DEFAULT_RULE, among: int = 1) -> Standing:
    """Whether the model would be promoted by these windows alone. For a single look, by which it is surer than bets."""
    latest = windows[-rule.windows :]
    if len(latest) < rule.windows:
        return NOT_YET
    found = _lately(latest, rule)
    if found.promoted and not surely([window.saved for window in latest], rule.level / among):
        return msgspec.structs.replace(found, promoted=False, reason="the model's lead is within its error")
    return found


def surely(saved: Sequence[float], level: float) -> bool:
    """Whether independent parts save more than nothing in the mean: Student's t-test, one-sided. For a single look."""
    count = len(saved)
    if count < 2:
        return False
    mean, error = fmean(saved), _deviation(saved) / sqrt(count)
    return mean > 0 and mean >= float(stdtrit(count - 1, 1 - level)) * error


def _lately(latest: Sequence[ScoredWindow], rule: PromotionRule) -> Standing:
    """What the latest windows allow, whether or not it is sure."""
    clicks = sum(window.clicks for window in latest)
    if clicks < rule.least_clicks:
        return NOT_YET
    total = sum(window.saved for window in latest)
    gain = total / max(sum(window.default_loss for window in latest), 1e-300)
    calibration = sum(window.model_clicks for window in latest) / clicks
    if abs(calibration - 1) > rule.calibration or _strayed(latest, rule):
        return Standing(False, "the model's predicted over actual is out of bounds", gain, calibration)
    if not total > 0:
        return Standing(False, "the default has the lower log loss", gain, calibration)
    return Standing(True, "the model has the lower log loss", gain, calibration)


def _strayed(latest: Sequence[ScoredWindow], rule: PromotionRule) -> bool:
    """Whether the newest windows are out of bounds by more than sums of as many have deviated before them."""
    newest, before = latest[-rule.newest :], latest[: -rule.newest]
    if len(before) < WARM_UP:
        return False
    over = sum(window.model_clicks - window.clicks for window in newest)
    noise = _deviation([window.model_clicks - window.clicks for window in before]) * sqrt(len(newest))
    return abs(over) > rule.calibration * sum(window.clicks for window in newest) + NOISE * noise


def _scale(past: Sequence[ScoredWindow], impressions: float) -> float:
    """How far a window of so many impressions deviates, by those before it; 0 where they do not tell.

    By chance alone deviations grow as the root of the impressions, where days have rates of their own as the
    impressions themselves: whichever is more.
    """
    if len(past) < 2:
        return 0.0
    saved = [window.saved for window in past]
    square = sum(one**2 for one in saved) / len(past)
    times = impressions * len(past) / sum(window.impressions for window in past)
    return max(_deviation(saved), sqrt(square) / GREATEST_RATIO) * max(sqrt(times), times)


def _deviation(values: Sequence[float]) -> float:
    mean = fmean(values)
    return sqrt(sum((one - mean) ** 2 for one in values) / (len(values) - 1))
