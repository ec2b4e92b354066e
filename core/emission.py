"""Insights as they are published: rendered from a campaign, under a version and phase."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from core.campaign import Campaign
from core.insight import Part, build
from core.profile import Profile
from core.published import Published, difference, flat_reporting, flat_totals, member, reason_for, shown_as
from core.rates import Rates
from core.window import Window, days_of, last_day
from schemas import insight as insight_codec
from schemas.calendar import iso_instant
from schemas.insight import Correction, CrossPlatformInsight, Phase, Version


class Emission(NamedTuple):
    """An insight to publish. ``position`` is the rollup offset up to which it tells all; ``latest`` says that it is its
    campaign's newest window of the kind, which Redis holds.
    """

    insight: CrossPlatformInsight
    payload: bytes
    position: int
    latest: bool


class Rendered(NamedTuple):
    """A window's insight from state, what it rests on, and a digest of its content."""

    insight: CrossPlatformInsight
    parts: Sequence[Part]
    digest: bytes


def render(
    campaign: Campaign, window: Window, index: int, parts: Sequence[Part], profile: Profile, rates: Rates
) -> Rendered:
    """The insight of a window's parts, as preliminary. Its revision rises with every change of what it rests on."""
    as_of = iso_instant(max((part.rollup.as_of_ms for part in parts), default=0))
    revision = campaign.revision(window, index) + rates.revision(days_of(window, index))
    version = Version(revision, int(Phase.PRELIMINARY))
    insight = build(campaign.campaign_id, window, index, parts, profile, as_of, version, rates)
    return Rendered(insight, parts, blake2b(insight_codec.content(insight), digest_size=16).digest())


def advance(
    held: Published | None, rendered: Rendered, withdrawn: set[str], sequence: int, *, final_ms: int, final: bool
) -> Published:
    """What is to be published of a window after what was. ``withdrawn`` are the platform campaigns that links took."""
    insight, parts, digest = rendered
    totals = flat_totals(parts) | flat_reporting(insight.totals.reporting)
    phase, correction = Phase.PRELIMINARY, None
    if held is not None and not held.preliminary:
        phase = Phase.CORRECTED
        changes = difference(held.totals, totals)
        reason = reason_for(held.members, parts, withdrawn, changes)
        correction = Correction(reason=reason.value, difference=changes)
    elif final:
        phase = Phase.FINAL
    return Published(
        phase=int(phase),
        revision=insight.version.revision,
        digest=digest,
        totals=totals,
        members=sorted({member(part.rollup) for part in parts}),
        sequence=sequence,
        correction=correction,
        as_of=insight.as_of,
        final_ms=final_ms,
        maturity=insight.maturity,
    )


def emission(campaign: Campaign, window: Window, index: int, shown: CrossPlatformInsight, position: int) -> Emission:
    """An insight to publish, of a state at a position."""
    return Emission(shown, insight_codec.encode(shown), position, campaign.latest(window) == index)


def current(
    campaign: Campaign, window: Window, index: int, profile: Profile, rates: Rates, position: int
) -> Emission | None:
    """What was last published of a window, from state; none where that has moved on and its news is on the way."""
    for key, published in campaign.published.get(last_day(window, index), {}).items():
        if key == (window.name, index):
            rendered = render(campaign, window, index, campaign.parts(window, index), profile, rates)
            if rendered.digest == published.digest:
                return emission(campaign, window, index, shown_as(rendered.insight, published), position)
    return None
