"""Creatives: what an ad shows, and under which ids the platforms know it.

Wire: JSON on ``ads.creatives``, compacted, keyed by the creative's own id; a record without a value withdraws it. The
statement with the highest ``updated_at`` holds; equal ones are settled by the greater bytes of ``encode``. Labels are
compared in lower case, with an underscore for each run of spaces: ``Bold Question`` is ``bold_question``.
"""

from typing import Annotated, Final, Literal

import msgspec

from schemas.event import Ignored, IgnoreReason, RejectCode, Rejection
from schemas.platform import Platform

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
OptionalId = Annotated[str, msgspec.Meta(max_length=128)]
Label = Annotated[str, msgspec.Meta(max_length=64)]

LABELS: Final = ("hook", "visual", "pacing", "call_to_action", "format")
LONGEST_SECONDS: Final = 86_400
MOST_ADS: Final = 1_000


class WireAd(msgspec.Struct, frozen=True, kw_only=True):
    """One ad on one platform that shows the creative; at least one of its ids is given."""

    platform: Literal["meta", "tiktok", "google_ads"]
    ad_id: OptionalId = ""
    platform_creative_id: OptionalId = ""


class CreativeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Version 1 of the wire contract. An empty label or a null length is unknown.

    ``hook``: how it opens. ``visual``: its style. ``pacing``: its tempo. ``call_to_action``: what it asks for.
    ``length_seconds``: its running time, 0 for a still. ``updated_at``: epoch milliseconds, by default the record's
    arrival.
    """

    version: Literal[1]
    creative_id: Id
    account_id: OptionalId = ""
    hook: Label = ""
    visual: Label = ""
    pacing: Label = ""
    call_to_action: Label = ""
    format: Label = ""
    length_seconds: Annotated[float, msgspec.Meta(ge=0, le=LONGEST_SECONDS)] | None = None
    ads: Annotated[list[WireAd], msgspec.Meta(max_length=MOST_ADS)] = []
    updated_at: Annotated[int, msgspec.Meta(ge=0, le=4_102_444_800_000)] | None = None


class PlatformAd(msgspec.Struct, frozen=True, order=True):
    """An ad by its platform's own ids; an empty one is unknown."""

    platform: Platform
    ad_id: str
    platform_creative_id: str


class Creative(msgspec.Struct, frozen=True, kw_only=True):
    """A creative as a value: labels normalized, ads sorted and distinct. ``withdrawn`` says that it is no more."""

    creative_id: str
    account_id: str = ""
    hook: str = ""
    visual: str = ""
    pacing: str = ""
    call_to_action: str = ""
    format: str = ""
    length_seconds: float | None = None
    ads: tuple[PlatformAd, ...] = ()
    updated_ms: int = 0
    withdrawn: bool = False


_decoder: Final = msgspec.json.Decoder(CreativeRecord)
_encoder: Final = msgspec.json.Encoder(order="deterministic")


def decode_creative(
    key: bytes | None, payload: bytes | None, *, arrival_ms: int, max_bytes: int
) -> Creative | Rejection | Ignored:
    """A creative record's value. Total: any bytes give an outcome.

    >>> decode_creative(b"c-1", None, arrival_ms=5, max_bytes=100).withdrawn
    True
    """
    if payload is None:
        creative_id = (key or b"").decode("utf-8", "replace")
        if not creative_id:
            return Ignored(IgnoreReason.TOMBSTONE)
        return Creative(creative_id=creative_id, updated_ms=arrival_ms, withdrawn=True)
    if len(payload) > max_bytes:
        return Rejection(RejectCode.OVERSIZE, f"the creative has {len(payload)} bytes; at most {max_bytes} are taken")
    try:
        wire = _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Rejection(RejectCode.BAD_CREATIVE, f"not a creative: {str(error)[:160]}")
    if key is not None and key != wire.creative_id.encode("utf-8", "surrogatepass"):
        return Rejection(RejectCode.BAD_CREATIVE, "not a creative: the record's key is not its creative_id")
    if any(not (ad.ad_id or ad.platform_creative_id) for ad in wire.ads):
        return Rejection(RejectCode.BAD_CREATIVE, "not a creative: an ad needs an ad_id or a platform_creative_id")
    return Creative(
        creative_id=wire.creative_id,
        account_id=wire.account_id,
        hook=label(wire.hook),
        visual=label(wire.visual),
        pacing=label(wire.pacing),
        call_to_action=label(wire.call_to_action),
        format=label(wire.format),
        length_seconds=wire.length_seconds,
        ads=tuple(sorted({PlatformAd(Platform(ad.platform), ad.ad_id, ad.platform_creative_id) for ad in wire.ads})),
        updated_ms=arrival_ms if wire.updated_at is None else wire.updated_at,
    )


def encode(creative: Creative) -> bytes | None:
    """The value of a creative's record, with a fixed order of fields; ``None``, a tombstone, for a withdrawn one."""
    if creative.withdrawn:
        return None
    return _encoder.encode(
        CreativeRecord(
            version=1,
            creative_id=creative.creative_id,
            account_id=creative.account_id,
            hook=creative.hook,
            visual=creative.visual,
            pacing=creative.pacing,
            call_to_action=creative.call_to_action,
            format=creative.format,
            length_seconds=creative.length_seconds,
            ads=msgspec.convert([msgspec.structs.asdict(ad) for ad in creative.ads], list[WireAd]),
            updated_at=creative.updated_ms,
        )
    )


def label(text: str) -> str:
    """A label as it is compared.

    >>> label("  Bold  Question ")
    'bold_question'
    """
    return "_".join(text.lower().split())
