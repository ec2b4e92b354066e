"""Which tier serves a platform: the model only while it has lately been the better one, else the default."""

from collections.abc import Sequence
from typing import Final

import msgspec


class ScoredWindow(msgspec.Struct, frozen=True):
    """What both tiers said of one window of a platform before it was seen, and what happened.

    Losses are log losses summed over ``impressions``; ``model_clicks`` are the clicks that the model expected.
    """

    impressions: float
    clicks: float
    default_loss: float
    model_loss: float
    model_clicks: float


class PromotionRule(msgspec.Struct, frozen=True):
    """``windows``: the latest ones that count, and as many are needed. ``margin``: standard errors of the mean loss
    difference by which the model must lead to be promoted; to stay it must lead at all. ``calibration``: how far
    predicted over actual may be from 1. ``least_clicks``: below this nothing is concluded.
    """

    windows: int = 28
    margin: float = 1.0
    calibration: float = 0.05
    least_clicks: float = 200.0


DEFAULT_RULE: Final = PromotionRule()


class Standing(msgspec.Struct, frozen=True):
    """Whether the model serves, and why. ``gain`` is the loss that it saves, a share of the default's."""

    promoted: bool
    reason: str
    gain: float = 0.0
    calibration: float = 1.0


NOT_YET: Final = Standing(promoted=False, reason="too few windows")


def standing(
    windows: Sequence[ScoredWindow], before: Standing = NOT_YET, rule: PromotionRule = DEFAULT_RULE
) -> Standing:
    """The standing after the newest of ``windows`` (oldest first), given that before it.

    >>> worse = ScoredWindow(1000, 50, default_loss=200, model_loss=201, model_clicks=50)
    >>> standing([worse] * 28).reason
    'the default has the lower log loss'
    """
    latest = windows[-rule.windows :]
    clicks = sum(window.clicks for window in latest)
    if len(latest) < rule.windows or clicks < rule.least_clicks:
        return NOT_YET
    saved = [window.default_loss - window.model_loss for window in latest]
    total, count = sum(saved), len(saved)
    gain = total / max(sum(window.default_loss for window in latest), 1e-300)
    calibration = sum(window.model_clicks for window in latest) / clicks
    if abs(calibration - 1) > rule.calibration:
        return Standing(False, "the model's predicted over actual is out of bounds", gain, calibration)
    if not total > 0:
        return Standing(False, "the default has the lower log loss", gain, calibration)
    mean = total / count
    error = (sum((one - mean) ** 2 for one in saved) / (count - 1) / count) ** 0.5
    if not before.promoted and mean < rule.margin * error:
        return Standing(False, "the model's lead is within its error", gain, calibration)
    return Standing(True, "the model has the lower log loss", gain, calibration)
