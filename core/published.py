"""What was last published of a window, and how a change after its end is told."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

import msgspec

from core.insight import Part, add_totals
from schemas.insight import Correction, CrossPlatformInsight, Phase, ReportingTotals, Version, matured
from schemas.metrics import METRICS, REVENUE, SPEND
from schemas.rollup import Rollup


class Reason(StrEnum):
    """Why a settled window changed."""

    CAMPAIGN_LINK = "campaign_link"
    LATE_DATA = "late_data"
    RESTATEMENT = "restatement"
    EXCHANGE_RATE = "exchange_rate"


REPORTING: Final = "reporting_"


class Published(msgspec.Struct, array_like=True):
    """What was last published of a window. ``sequence`` numbers the checkpoint that did; ``final_ms`` is when a
    preliminary one was to become final.
    """

    phase: int
    revision: int
    digest: bytes
    totals: dict[str, int]
    members: list[str]
    sequence: int
    correction: Correction | None = None
    as_of: str = ""
    final_ms: int = 0
    maturity: dict[str, float | None] = {}

    @property
    def preliminary(self) -> bool:
        """Whether it is still open."""
        return self.phase == Phase.PRELIMINARY


def shown_as(insight: CrossPlatformInsight, published: Published) -> CrossPlatformInsight:
    """The insight under the version, phase and correction with which its window was published, as of that time."""
    if published.as_of:
        insight = msgspec.structs.replace(matured(insight, published.maturity), as_of=published.as_of)
    return msgspec.structs.replace(
        insight,
        version=Version(published.revision, published.phase),
        phase=Phase(published.phase).name.lower(),
        correction=published.correction,
    )


def in_phase(insight: CrossPlatformInsight, phase: Phase) -> CrossPlatformInsight:
    """The insight in a phase."""
    version = Version(insight.version.revision, int(phase))
    return msgspec.structs.replace(insight, version=version, phase=phase.name.lower())


def flat_totals(parts: Iterable[Part]) -> dict[str, int]:
    """A window's totals as one flat mapping: metrics by name, money by metric and currency."""
    totals = add_totals(part.totals for part in parts)
    flat = {
        name: value
        for metric, (name, value) in enumerate(zip(METRICS, totals.values, strict=True))
        if value is not None and metric not in (SPEND, REVENUE)
    }
    for amount in totals.money:
        for name, micros in (("spend_micros", amount.spend_micros), ("revenue_micros", amount.revenue_micros)):
            if micros is not None:
                flat[f"{name}:{amount.currency}" if amount.currency else name] = micros
    return flat


def flat_reporting(reporting: ReportingTotals | None) -> dict[str, int]:
    """A window's money in the reporting currency, named so that it stands beside ``flat_totals``."""
    if reporting is None:
        return {}
    amounts = {"spend_micros": reporting.spend_micros, "revenue_micros": reporting.revenue_micros}
    return {f"{REPORTING}{name}:{reporting.currency}": micros for name, micros in amounts.items() if micros is not None}


def difference(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """After minus before, for every total that changed; an absent one counts as zero."""
    changes = {name: after.get(name, 0) - before.get(name, 0) for name in sorted({*before, *after})}
    return {name: change for name, change in changes.items() if change}


def member(rollup: Rollup) -> str:
    """A platform campaign's name in a window."""
    return f"{rollup.platform}:{rollup.platform_campaign_id}"


def reason_for(
    before: Iterable[str], parts: Iterable[Part], withdrawn: Iterable[str], changes: Mapping[str, int]
) -> Reason:
    """Why a settled window of some members changed: a link brought one or took one (``withdrawn``), one reported
    first, one restated what it had reported, or of all its totals only money in the reporting currency changed.
    """
    held = set(before)
    joined = [part.rollup for part in parts if member(part.rollup) not in held]
    # A rollup of a higher revision than its link's has changed since: its own report made it a member.
    if held & set(withdrawn) or any(0 < rollup.revision == rollup.link_revision for rollup in joined):
        return Reason.CAMPAIGN_LINK
    if joined:
        return Reason.LATE_DATA
    if changes and all(name.startswith(REPORTING) for name in changes):
        return Reason.EXCHANGE_RATE
    return Reason.RESTATEMENT
