"""Campaign links: which canonical campaign a platform campaign belongs to.

Wire: JSON on ``ads.campaign-links``, keyed ``platform:campaign id``; a ``campaign_id`` of null, or a record without a
value, withdraws the link. The link with the highest ``updated_at`` holds; equal ones are settled by the campaign id.
"""

from typing import Annotated, Final, Literal

import msgspec

from schemas.event import Ignored, IgnoreReason, RejectCode, Rejection
from schemas.platform import Platform

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


class CampaignLink(msgspec.Struct, frozen=True, kw_only=True):
    """Version 1 of the wire contract. ``updated_at`` is in epoch milliseconds; without it the record's arrival
    counts.
    """

    version: Literal[1]
    platform: Literal["meta", "tiktok", "google_ads"]
    platform_campaign_id: Id
    campaign_id: Id | None
    account_id: str = ""
    updated_at: Annotated[int, msgspec.Meta(ge=0, le=4_102_444_800_000)] | None = None


class Link(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A link as a fact of its platform campaign. An empty ``campaign_id`` withdraws it."""

    platform: Platform
    platform_campaign_id: str
    campaign_id: str
    updated_ms: int


_decoder: Final = msgspec.json.Decoder(CampaignLink)


def decode_link(
    key: bytes | None, payload: bytes | None, *, arrival_ms: int, max_bytes: int
) -> Link | Rejection | Ignored:
    """A link record's fact. Total: any bytes give an outcome."""
    if payload is None:
        platform, _, campaign = (key or b"").decode("utf-8", "replace").partition(":")
        if platform not in set(Platform) - {Platform.UNKNOWN} or not campaign:
            return Ignored(IgnoreReason.TOMBSTONE)
        return Link(Platform(platform), campaign, "", arrival_ms)
    if len(payload) > max_bytes:
        return Rejection(RejectCode.OVERSIZE, f"the link has {len(payload)} bytes; at most {max_bytes} are taken")
    try:
        wire = _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Rejection(RejectCode.BAD_LINK, f"not a campaign link: {str(error)[:160]}")
    updated = arrival_ms if wire.updated_at is None else wire.updated_at
    return Link(Platform(wire.platform), wire.platform_campaign_id, wire.campaign_id or "", updated)
