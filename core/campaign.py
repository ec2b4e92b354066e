"""A canonical campaign: the rollups of its platform campaigns, and which of them lie in a window."""

from collections import defaultdict
from collections.abc import Iterable

from core.insight import Part
from core.window import Window, WindowKey, days_of, touched
from schemas.calendar import end_of_day
from schemas.event import HOUR_MS
from schemas.platform import Platform
from schemas.rollup import Rollup

Owner = tuple[Platform, str]


class Campaign:
    """Rollups by day. ``position`` is the newest rollup's offset in the rollups log: it orders what Redis is told."""

    __slots__ = ("by_day", "campaign_id", "position")

    def __init__(self, campaign_id: str) -> None:
        self.campaign_id = campaign_id
        self.by_day: dict[int, dict[Owner, Rollup]] = defaultdict(dict)
        self.position = -1

    def put(self, rollup: Rollup, position: int) -> Rollup | None:
        """Take a rollup unless one of its revision or a higher is held. Returns the one that it replaces, itself if
        it is refused.
        """
        owner = (rollup.platform, rollup.platform_campaign_id)
        held = self.by_day[rollup.day].get(owner)
        if held is not None and held.revision >= rollup.revision:
            return rollup
        self.by_day[rollup.day][owner] = rollup
        self.position = max(self.position, position)
        return held

    def parts(self, window: Window, index: int) -> list[Part]:
        """What lies in a window; none where a window of days ends on a day without content."""
        if window.days and not any(rollup.day_totals for rollup in self.by_day.get(index, {}).values()):
            return []
        found = []
        for day in days_of(window, index):
            for rollup in self.by_day.get(day, {}).values():
                if window.days:
                    if rollup.day_totals is not None:
                        found.append(Part(rollup, rollup.day_totals))
                else:
                    found += [Part(rollup, totals) for hour, totals in rollup.hours if hour == index]
        return found

    def revision(self, window: Window, index: int) -> int:
        """The sum of the revisions of all rollups that a window may rest on. It rises with every change of the
        window.
        """
        return sum(rollup.revision for day in days_of(window, index) for rollup in self.by_day.get(day, {}).values())

    def latest(self, window: Window) -> int | None:
        """The index of the newest window with content."""
        newest: int | None = None
        last = None
        for day in sorted(self.by_day, reverse=True):
            # Two zones' dates lie up to 26 hours apart, so the newest hour may be on an older date.
            if last is not None and day < last - 2:
                break
            rollups = self.by_day[day].values()
            if window.days:
                if any(rollup.day_totals for rollup in rollups):
                    return day
                continue
            hours = [hour for rollup in rollups for hour, _ in rollup.hours]
            if hours:
                last = day if last is None else last
                newest = max(hours) if newest is None else max(newest, *hours)
        return newest

    def end_ms(self, window: Window, index: int) -> int:
        """When the last of the accounts in a window has passed its end, UTC milliseconds."""
        if not window.days:
            return (index + 1) * HOUR_MS
        rollups = self.by_day.get(index, {}).values()
        ends = [end_of_day(index, rollup.zone) for rollup in rollups if not rollup.withdrawn]
        return max(ends, default=end_of_day(index, ""))

    def windows(self, kinds: Iterable[Window]) -> set[WindowKey]:
        """Every window that has content."""
        kinds = list(kinds)
        keys = {
            key
            for rollups in self.by_day.values()
            for rollup in rollups.values()
            for key in touched(kinds, rollup.day, [hour for hour, _ in rollup.hours])
        }
        named = {kind.name: kind for kind in kinds}
        return {key for key in keys if self.parts(named[key.name], key.ordinal)}
