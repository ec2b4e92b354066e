"""Whether a campaign's platforms drift apart, from its insights of single days (``core.learning.drift``).

Insights may come in any order and any number of times: of a day the highest version counts.
"""

from datetime import date
from typing import Final

import msgspec
import numpy as np

from core.learning.drift import ChangePoint, Trend, change_points, consistency_trend
from schemas.insight import CrossPlatformInsight
from schemas.platform import Platform

WINDOW: Final = "24h"
LEVEL: Final = 0.05


class DatedChange(msgspec.Struct, frozen=True, kw_only=True):
    """A change point with its date, the first day after the change (YYYY-MM-DD)."""

    date: str
    change: ChangePoint


class CampaignDrift(msgspec.Struct, frozen=True, kw_only=True):
    """What changed on the ``days`` reported days from ``first`` to ``last``. ``consistency``: the newest day's score,
    None where one platform alone reported; ``trend`` that of the days' scores, None where there is none to test.
    """

    campaign_id: str
    first: str
    last: str
    days: int
    platforms: list[Platform]
    changes: list[DatedChange]
    consistency: float | None
    trend: Trend | None


class _Day(msgspec.Struct, frozen=True, array_like=True, order=True, gc=False):
    """A day's newest version; ``content`` decides between equal ones."""

    revision: int
    phase: int
    content: bytes


class _Reported(msgspec.Struct, frozen=True, array_like=True):
    consistency: float | None
    counts: dict[Platform, tuple[int, int]]


_pack: Final = msgspec.msgpack.Encoder(order="deterministic").encode
_unpack: Final = msgspec.msgpack.Decoder(_Reported).decode


class DailyCounts:
    """Feed it insights, ask it for drift. ``days``: the newest of all campaigns' that count. ``only``: the campaigns
    to keep, none for all.
    """

    def __init__(self, days: int, only: frozenset[str] = frozenset()) -> None:
        self.window = WINDOW
        self._days, self._only = days, only
        self._campaigns: dict[str, dict[int, _Day]] = {}
        self._heard: set[str] = set()
        self._newest = 0

    def __len__(self) -> int:
        return len(self._heard)

    def take(self, insight: CrossPlatformInsight) -> None:
        """Take one insight; one of another window or campaign is passed over. Raises ``ValueError`` for what is no
        sound one.
        """
        if insight.window != self.window:
            return
        self._heard.add(insight.campaign_id)
        if self._only and insight.campaign_id not in self._only:
            return
        day = date.fromisoformat(insight.window_start).toordinal()
        if day <= self._newest - self._days:
            return
        self._newest = max(self._newest, day)
        counts = {
            Platform(name): (breakdown.totals.impressions, breakdown.totals.clicks)
            for name, breakdown in insight.platform_breakdown.items()
        }
        known = {
            name: (seen, min(clicks, seen))
            for name, (seen, clicks) in counts.items()
            if seen is not None and clicks is not None
        }
        content = _pack(_Reported(insight.consistency_score, known)) if counts else b""
        told = _Day(insight.version.revision, insight.version.phase, content)
        held = self._campaigns.setdefault(insight.campaign_id, {})
        if day not in held or held[day] < told:
            held[day] = told

    def campaigns(self) -> list[str]:
        """The campaigns with a day that counts, sorted."""
        return sorted(name for name in self._campaigns if self._reported(name))

    def drift(self, campaign_id: str, level: float = LEVEL) -> CampaignDrift | None:
        """A campaign's drift, None where no day of it counts. ``level``: the p-value at which a change counts."""
        reported = self._reported(campaign_id)
        if not reported:
            return None
        first, last = min(reported), max(reported)
        platforms = sorted({name for day in reported.values() for name in day.counts})
        counts = np.zeros((2, len(platforms), last - first + 1))
        for day, found in reported.items():
            for name, (seen, clicks) in found.counts.items():
                counts[:, platforms.index(name), day - first] = clicks, seen
        changes = change_points({name: (counts[0, at], counts[1, at]) for at, name in enumerate(platforms)}, level)
        scores = [reported[day].consistency if day in reported else None for day in range(first, last + 1)]
        dated = [DatedChange(date=_text(first + change.day), change=change) for change in changes]
        return CampaignDrift(
            campaign_id=campaign_id,
            first=_text(first),
            last=_text(last),
            days=len(reported),
            platforms=platforms,
            changes=sorted(dated, key=lambda one: (one.date, one.change.platform)),
            consistency=scores[-1],
            trend=consistency_trend(scores),
        )

    def _reported(self, campaign_id: str) -> dict[int, _Reported]:
        oldest = self._newest - self._days
        days = self._campaigns.get(campaign_id, {}).items()
        return {day: _unpack(one.content) for day, one in days if day > oldest and one.content}


def _text(day: int) -> str:
    return date.fromordinal(day).isoformat()
