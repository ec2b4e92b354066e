"""What insights are computed of, when a window is final, and when it is frozen."""

from collections.abc import Iterable
from typing import Final

import msgspec

from core.profile import DEFAULT_PROFILE, Profile
from core.rates import RateTable
from core.window import Window, parse_window
from schemas.event import DAY_MS
from schemas.platform import Platform

GRACE_MS: Final = DAY_MS
"""Kept beyond the horizon, for rollups that are still on their way."""


class InsightConfig(msgspec.Struct, frozen=True):
    """Windows to compute, benchmarks, exchange rates, and when a window is final: its end plus the
    platforms' lateness.

    ``horizon_ms`` is for how long after a day began reports of it are taken, None for ever: windows that ended before
    it are frozen and leave the state. ``decoded`` is how many campaigns stay decoded, ``repriced`` how many a
    checkpoint looks at for changed rates.
    """

    windows: tuple[Window, ...] = tuple(parse_window(name) for name in ("1h", "24h", "7d"))
    profile: Profile = DEFAULT_PROFILE
    final_after_ms: dict[str, int] = {}
    emit_interval_ms: int = 1_000
    horizon_ms: int | None = None
    decoded: int = 10_000
    rates: RateTable = RateTable()
    repriced: int = 500

    def __post_init__(self) -> None:
        if self.horizon_ms is not None and self.lateness_ms(Platform) > self.horizon_ms:
            raise ValueError("windows must be final before they are frozen: make the lateness at most the horizon")

    def lateness_ms(self, platforms: Iterable[Platform]) -> int:
        """The longest lateness of some platforms."""
        return max((self.final_after_ms.get(str(platform), DAY_MS) for platform in platforms), default=DAY_MS)

    def floor(self, watermark_ms: int) -> int:
        """The first day whose windows are not frozen at a watermark."""
        if self.horizon_ms is None:
            return 0
        return max(0, (watermark_ms - self.horizon_ms - GRACE_MS) // DAY_MS - 1)

    @property
    def kept_days(self) -> int | None:
        """For how many days without a row a series of CTR predictions is kept: as long as its rollups may be."""
        return None if self.horizon_ms is None else (self.horizon_ms + GRACE_MS) // DAY_MS + 1 + self.reach

    @property
    def reach(self) -> int:
        """For how many days after its own a rollup is used by some window. In another zone an hour is on another
        date.
        """
        longest = max((window.days for window in self.windows), default=1)
        return max(longest - 1, 0) + any(not window.days for window in self.windows)
