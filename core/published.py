"""What was last published of a window, and how a change after its end is told."""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from core.insight import Part, add_totals
from schemas.insight import Correction, CrossPlatformInsight, Phase, Version, matured
from schemas.metrics import METRICS, REVENUE, SPEND

REPORTING: Final = "reporting_"


class Published(msgspec.Struct, array_like=True):
    """What was last published of a window. ``sequence`` numbers the checkpoint that did."""

    phase: int
    revision: int
    digest: bytes
    totals: dict[str, int]
    members: list[str]
    sequence: int
    correction: Correction | None = None
    as_of: str = ""
    maturity: dict[str, float | None] = {}


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


def flat_totals(parts: Iterable[Part]) -> dict[str, int]:
    """A window's totals as one flat mapping: metrics by name, money by metric and currency."""
    values, money = add_totals(part.totals for part in parts)
    flat = {
        name: value
        for metric, (name, value) in enumerate(zip(METRICS, values, strict=True))
        if value is not None and metric not in (SPEND, REVENUE)
    }
    for amount in money:
        for name, micros in (("spend_micros", amount.spend_micros), ("revenue_micros", amount.revenue_micros)):
            if micros is not None:
                flat[f"{name}:{amount.currency}" if amount.currency else name] = micros
    return flat


def flat_reporting(insight: CrossPlatformInsight) -> dict[str, int]:
    """A window's money in the reporting currency, named so that it stands beside ``flat_totals``."""
    reporting = insight.totals.reporting
    if reporting is None:
        return {}
    amounts = {"spend_micros": reporting.spend_micros, "revenue_micros": reporting.revenue_micros}
    return {f"{REPORTING}{name}:{reporting.currency}": micros for name, micros in amounts.items() if micros is not None}


def difference(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """After minus before, for every total that changed; an absent one counts as zero."""
    changes = {name: after.get(name, 0) - before.get(name, 0) for name in sorted({*before, *after})}
    return {name: change for name, change in changes.items() if change}


def reason_for(before: list[str], after: list[str], changes: Mapping[str, int]) -> str:
    """Why a settled window changed: a platform campaign left, one arrived, a report was restated, or nothing but the
    exchange rate is another.
    """
    if set(before) - set(after):
        return "campaign_link"
    if changes and before == after and all(name.startswith(REPORTING) for name in changes):
        return "exchange_rate"
    return "restatement" if before == after else "late_data"
