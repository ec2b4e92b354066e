"""Scores of creatives: what one is worth by its results and its labels, with every part, and what is predicted of it.

Wire: JSON on ``creatives.scores``, compacted, keyed by the creative's id; a record without a value says that there is
no such creative any more. Numbers carry six significant digits.
"""

from typing import Annotated, Final, Literal

import msgspec

VERSION: Final = 1

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Text = Annotated[str, msgspec.Meta(max_length=128)]


class Estimated(msgspec.Struct, frozen=True, kw_only=True):
    """A value and its 90 % interval."""

    value: float
    low: float
    high: float


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a score: ``contribution = value * weight``, and the contributions add up to the score.

    ``results`` are the composite of what its ads delivered, ``creative_dna`` what its labels did for other creatives.
    """

    name: Literal["results", "creative_dna"]
    value: Share
    weight: Share
    contribution: Share


class LabelEffect(msgspec.Struct, frozen=True, kw_only=True):
    """What a label adds to CTR, relative (0.1 is 10 % more), with its 90 % interval.

    The attribute ``creative`` is what the creative adds beyond its labels.
    """

    attribute: str
    label: str
    effect: float
    low: float
    high: float


class Delivered(msgspec.Struct, frozen=True, kw_only=True):
    """What the creative's ads delivered on one platform; null is unknown, which is not zero.

    Money in units of ``currency``, empty where that is unknown or several. ``composite`` is the normalized score.
    """

    impressions: int | None
    clicks: int | None
    conversions: float | None
    engagements: int | None
    spend: float | None
    revenue: float | None
    currency: str
    composite: float | None
    confidence: Share


class Predicted(msgspec.Struct, frozen=True, kw_only=True):
    """CTR and engagement rate (fractions) and ROAS that a further campaign with the creative will show; null where
    there is not enough evidence.
    """

    ctr: Estimated | None = None
    engagement: Estimated | None = None
    roas: Estimated | None = None


class Learned(msgspec.Struct, frozen=True, kw_only=True):
    """What all effects and predictions were learned from. Dates are the ads' own, both included; empty without any.

    ``as_of`` is the newest pull or event in it, RFC 3339.
    """

    creatives: int
    campaigns: int
    ads: int
    first_day: str
    last_day: str
    as_of: str
    profile: str


class CreativeScored(msgspec.Struct, frozen=True, kw_only=True):
    """Version 1 of the wire contract.

    ``score`` is null where there is not enough evidence, and ``why`` then says what is missing; ``unknown`` says so of
    each measure that is not predicted. ``campaigns`` are those that showed the creative, ``elsewhere`` those in which
    other creatives showed one of its labels.
    """

    version: Literal[1] = VERSION
    creative_id: Text
    account_id: Text
    score: Share | None
    method: Literal["results_and_dna", "results", "creative_dna", "none"]
    why: str
    parts: list[Part]
    effects: list[LabelEffect]
    confidence: Share
    campaigns: int
    elsewhere: int
    delivered: dict[str, Delivered]
    predicted: Predicted
    predicted_by_platform: dict[str, Predicted]
    unknown: dict[str, str]
    learned: Learned


encode: Final = msgspec.json.Encoder(order="deterministic").encode
_decoder: Final = msgspec.json.Decoder(CreativeScored)


def decode(payload: bytes) -> CreativeScored:
    """The score of its bytes. Raises ``ValueError`` for another version or what is no score."""
    try:
        return _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a creative's score: {error}") from error


def key(creative_id: str) -> bytes:
    """The compaction key: one for each creative."""
    return creative_id.encode("utf-8", "surrogatepass")
