"""``CrossPlatformInsight``: what a campaign did in one window, over all of its platforms.

Wire: JSON on ``insights.cross-platform`` and, compacted by insight id, on ``insights.latest``. Money is in int64
micros of the stated currency. ``version`` orders the insights of one id: a reader keeps the highest (revision,
phase). ``version``, ``phase``, ``as_of`` with the ``maturity`` at that time, and ``correction`` tell how an insight
came about; all else is its content, which is the same, byte for byte, whatever way the records took.
"""

from enum import IntEnum
from typing import Final

import msgspec


class Phase(IntEnum):
    """How settled a window is: still open, past its lateness, or changed after that. ``REPLAYED`` tells no change of
    the state: what was published was not what the records say, and a replay mended it. Any later change supersedes it.
    """

    PRELIMINARY = 0
    FINAL = 1
    CORRECTED = 2
    REPLAYED = 3


class Version(msgspec.Struct, frozen=True, order=True):
    """Compared as a pair. ``phase`` is the ``Phase``'s number."""

    revision: int
    phase: int


class MoneyTotals(msgspec.Struct, frozen=True):
    """Micros of one currency; an empty currency is an unknown one. None says that nothing reported the amount."""

    currency: str
    spend_micros: int | None
    revenue_micros: int | None


class RateUsed(msgspec.Struct, frozen=True):
    """An exchange rate: one unit of ``currency`` was ``rate`` units of the reporting currency on ``date``."""

    currency: str
    date: str
    rate: str


class ReportingTotals(msgspec.Struct, frozen=True, kw_only=True):
    """Money in the reporting currency, by the rates of the days on which it was reported.

    Amounts are None where nothing was reported, and where a rate is missing: ``missing`` then lists ``currency:date``.
    """

    currency: str
    spend_micros: int | None
    revenue_micros: int | None
    roas: float | None
    rates: list[RateUsed]
    missing: list[str]


class InsightTotals(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the platforms, None where no platform reports the metric. ``conversions_micros`` are 1e-6 of a
    conversion.

    ``spend_micros`` and ``revenue_micros`` are in ``currency``; all three are None where the money is in several
    currencies, which ``money`` then lists. ``reporting`` is None where there is no reporting currency.
    """

    impressions: int | None
    clicks: int | None
    link_clicks: int | None
    conversions_micros: int | None
    engagements: int | None
    video_views: int | None
    currency: str | None
    spend_micros: int | None
    revenue_micros: int | None
    money: list[MoneyTotals]
    reporting: ReportingTotals | None = None


class PlatformBreakdown(msgspec.Struct, frozen=True, kw_only=True):
    """One platform's part: counts, ratios derived from them, values normalized by the profile, and what they rest on.

    ``coverage`` is the share of the window that the platform has reported. ``zone_assumed`` says that its dates were
    read as UTC. ``maturity`` is the share of its conversions that the platform has usually reported as long after the
    window's end as its newest report came; None where the profile has no curve for it. ``accounts``: the ad accounts
    whose rows these are, as far as rows name them.
    """

    totals: InsightTotals
    ctr: float | None
    cpc: float | None
    cpm: float | None
    engagement_rate: float | None
    roas: float | None
    normalized_ctr: float | None
    normalized_cpc: float | None
    normalized_cpm: float | None
    normalized_engagement: float | None
    normalized_quality: float | None
    composite_score: float | None
    confidence: float
    components: list[str]
    absent: dict[str, str]
    coverage: float
    zones: list[str]
    zone_assumed: bool
    basis: list[str]
    platform_campaigns: list[str]
    maturity: float | None = None
    accounts: list[str] = []


class Correction(msgspec.Struct, frozen=True, kw_only=True):
    """Why a final or mended insight changed, and by how much: new minus previously published totals, by metric and
    by currency.
    """

    reason: str
    difference: dict[str, int]


class CrossPlatformInsight(msgspec.Struct, frozen=True, kw_only=True):
    """Schema version 1. Averages of normalized values are weighted by the platforms' confidence; ``roas`` is pooled."""

    schema_version: int = 1
    insight_id: str
    campaign_id: str
    window: str
    window_start: str
    window_end: str
    version: Version
    phase: str
    as_of: str
    correction: Correction | None
    totals: InsightTotals
    ctr: float | None
    roas: float | None
    roas_reason: str | None
    normalized_ctr: float | None
    normalized_cpc: float | None
    normalized_cpm: float | None
    normalized_engagement: float | None
    normalized_quality: float | None
    composite_score: float | None
    confidence: float
    consistency_score: float | None
    best_platform: str | None
    coverage: dict[str, float]
    platform_breakdown: dict[str, PlatformBreakdown]
    benchmarks: str
    maturity: dict[str, float | None] = {}


_NOT_CONTENT: Final = frozenset({"version", "phase", "as_of", "correction", "maturity"})
_encoder: Final = msgspec.json.Encoder(order="deterministic")
decode: Final = msgspec.json.Decoder(CrossPlatformInsight).decode


def matured(insight: CrossPlatformInsight, maturity: dict[str, float | None]) -> CrossPlatformInsight:
    """The insight with another maturity, by platform; None where the platform is not named."""
    breakdown = {
        platform: msgspec.structs.replace(part, maturity=maturity.get(platform))
        for platform, part in insight.platform_breakdown.items()
    }
    return msgspec.structs.replace(insight, maturity=maturity, platform_breakdown=breakdown)


def encode(insight: CrossPlatformInsight) -> bytes:
    """JSON with a fixed order of fields."""
    return _encoder.encode(insight)


def is_of(payload: bytes, window: str) -> bool:
    """Whether an insight's bytes, as ``encode`` writes them, may be of a window; those of another one never are.

    Within a JSON text a quote is escaped, so no campaign's name is taken for the field.
    """
    return f'"window":"{window}"'.encode() in payload


def content(insight: CrossPlatformInsight) -> bytes:
    """The bytes that every correct computation over the same records agrees on."""
    fields = msgspec.structs.asdict(matured(insight, {}))
    return _encoder.encode({name: value for name, value in fields.items() if name not in _NOT_CONTENT})
