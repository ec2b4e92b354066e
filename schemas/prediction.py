"""CTR predictions: for a campaign and each of its platforms, what share of impressions will be clicked in the next
window.

Wire: JSON on ``predictions.ctr``, one record a campaign and window. Features end where the label's window begins.
"""

from typing import Final

import msgspec


class CtrInputs(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a rate was computed from: the last days' counts, the platform's own rate and what it is worth as a prior, in
    impressions, and the impressions that the window is expected to have.
    """

    impressions: float
    clicks: float
    prior_rate: float
    prior_strength: float
    expected_impressions: float


class CtrRate(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A probability with the 90 % interval of the CTR that will be observed on the expected impressions.

    ``source`` is ``empirical_bayes``, ``model``, or ``prior`` where the campaign has shown no impression on the
    platform.
    """

    rate: float
    low: float
    high: float
    source: str
    inputs: CtrInputs


class CtrPrediction(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Schema version 1. ``platforms`` holds a rate for each platform that the campaign runs on.

    ``label_window_start`` is the ``window_start`` of the insight that will show what happened. ``feature_end`` is the
    instant before which all features lie. ``confidence`` is that of the last days' impressions, 0 to 1; ``consistency``
    says how far the platforms agree, each rate placed in its benchmark band, None for one platform. ``learned_to`` is
    the end of the last day that was learned, None before the first.

    ``model_refused`` is there only while the newest model that was published is refused, and says why
    (``schemas.model.RefusalCode``): ``model`` is then not what somebody wanted it to be. It tells what the worker knew
    when it predicted; everything else is a function of the rollups and the models taken.
    """

    schema_version: int = 1
    prediction_id: str
    campaign_id: str
    window: str
    feature_end: str
    label_start: str
    label_end: str
    label_window_start: str
    revision: int
    model: str
    half_life_days: float
    rate: float
    low: float
    high: float
    source: str
    inputs: CtrInputs
    platforms: dict[str, CtrRate]
    platforms_used: list[str]
    confidence: float | None = None
    consistency: float | None = None
    learned_to: str | None = None
    model_refused: str | msgspec.UnsetType = msgspec.UNSET


_encoder: Final = msgspec.json.Encoder(order="deterministic")
decode: Final = msgspec.json.Decoder(CtrPrediction).decode


def encode(prediction: CtrPrediction) -> bytes:
    """JSON with a fixed order of fields."""
    return _encoder.encode(prediction)
