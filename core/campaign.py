"""A canonical campaign: its platform campaigns' rollups, which of them lie in a window, and what was published."""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Generic, TypeVar

import msgspec

from core.insight import Part
from core.published import Published, member
from core.window import Window, WindowKey, days_of, touched
from schemas.calendar import end_of_day
from schemas.event import HOUR_MS
from schemas.metrics import CLICKS, IMPRESSIONS
from schemas.platform import Platform
from schemas.rollup import Rollup

COLUMNS: Final = ("platform", "day", "number", "impressions", "clicks", "start_ms", "covered_ms")
"""What ``Campaign.columns`` holds of each rollup. Platforms are numbered as in ``Platform``."""
MOST_COLUMNS: Final = 16
"""Days whose columns a campaign keeps: those that predictions look at, and some that they have moved past."""
_NUMBER: Final = {platform: number for number, platform in enumerate(Platform)}

Owner = tuple[Platform, str]
Key = TypeVar("Key")
Value = TypeVar("Value")
Decode = Callable[[list[bytes]], dict[Key, Value]]


class ByDay(Generic[Key, Value]):
    """Values by day and key. ``shelved`` names the table's keys of days that are decoded when first looked at."""

    __slots__ = ("_decode", "_held", "_shelved")

    def __init__(self, shelved: dict[int, list[bytes]] | None = None, decode: Decode[Key, Value] | None = None) -> None:
        self._shelved = shelved or {}
        self._decode = decode
        self._held: dict[int, dict[Key, Value]] = {}

    def __iter__(self) -> Iterator[int]:
        return iter([*self._shelved, *self._held])

    def get(self, day: int, default: dict[Key, Value]) -> dict[Key, Value]:
        """What is held of a day."""
        if day in self._shelved and self._decode is not None:
            self._held[day] = self._decode(self._shelved.pop(day))
        return self._held.get(day, default)

    def put(self, day: int, key: Key, value: Value) -> None:
        """Hold a value."""
        self._held.setdefault(day, self.get(day, {}))[key] = value

    def forget(self, floor: int) -> None:
        """Drop the days before one."""
        for days in (self._shelved, self._held):
            for day in [day for day in days if day < floor]:
                del days[day]


class Campaign:
    """Rollups and published windows by day. ``position`` is the newest rollup's offset in the rollups log: it orders
    predictions. ``shown`` holds the newest window of each kind that Redis was told.
    """

    __slots__ = ("_columns", "_newest", "by_day", "campaign_id", "position", "published", "shown")

    def __init__(
        self,
        campaign_id: str,
        by_day: ByDay[Owner, Rollup] | None = None,
        published: ByDay[WindowKey, Published] | None = None,
        position: int = -1,
    ) -> None:
        self.campaign_id = campaign_id
        self.by_day: ByDay[Owner, Rollup] = by_day or ByDay()
        self.published: ByDay[WindowKey, Published] = published or ByDay()
        self.position = position
        self.shown: dict[str, int] = {}
        self._newest: dict[bool, int | None] = {}
        self._columns: dict[int, array[int]] = {}

    def put(self, rollup: Rollup, position: int) -> Rollup | None:
        """Take a rollup unless one of its revision or a higher is held. Returns the one that it replaces, itself if
        it is refused.
        """
        owner = (rollup.platform, rollup.platform_campaign_id)
        held = self.by_day.get(rollup.day, {}).get(owner)
        if held is not None and held.revision >= rollup.revision:
            return rollup
        self.by_day.put(rollup.day, owner, rollup)
        self._columns.pop(rollup.day, None)
        self.position = max(self.position, position)
        for of_days, known in list(self._newest.items()):
            before, after = _newest_of([held] if held else [], of_days), _newest_of([rollup], of_days)
            if before is not None and before == known and (after is None or after < before):
                del self._newest[of_days]
            elif after is not None and (known is None or after > known):
                self._newest[of_days] = after
        return held

    def forget(self, rollups: int, windows: int) -> None:
        """Drop the rollups and the windows before some days."""
        self.by_day.forget(rollups)
        self.published.forget(windows)
        self._newest.clear()
        self._columns.clear()

    def reports(self, day: int) -> bool:
        """Whether a day has content."""
        return any(rollup.day_totals is not None for rollup in self.by_day.get(day, {}).values())

    def reported(self, day: int) -> list[Rollup]:
        """The rollups of a day with content."""
        return [rollup for rollup in self.by_day.get(day, {}).values() if rollup.day_totals is not None]

    def columns(self, day: int) -> "array[int]":
        """Of each of a day's rollups with content, ``COLUMNS``: one after the other, its number is that among
        ``reported``.
        """
        held = self._columns.get(day)
        if held is None:
            if len(self._columns) >= MOST_COLUMNS:
                del self._columns[min(self._columns)]
            held = self._columns[day] = array("q")
            for number, rollup in enumerate(self.reported(day)):
                values = () if rollup.day_totals is None else rollup.day_totals.values
                counts = values[IMPRESSIONS] or 0, values[CLICKS] or 0
                held.extend((_NUMBER[rollup.platform], day, number, *counts, rollup.start_ms, rollup.covered_ms))
        return held

    def parts(self, window: Window, index: int) -> list[Part]:
        """What lies in a window; none where a window of days ends on a day without content."""
        if window.days and not self.reports(index):
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

    def withdrawn(self, window: Window, index: int) -> set[str]:
        """The platform campaigns that a link has taken out of a window."""
        return {
            member(rollup)
            for day in days_of(window, index)
            for rollup in self.by_day.get(day, {}).values()
            if rollup.withdrawn
        }

    def revision(self, window: Window, index: int) -> int:
        """The sum of the revisions of all rollups that a window may rest on. It rises with every change of the
        window.
        """
        return sum(rollup.revision for day in days_of(window, index) for rollup in self.by_day.get(day, {}).values())

    def latest(self, window: Window) -> int | None:
        """The index of the newest window with content."""
        of_days = window.days > 0
        if of_days not in self._newest:
            self._newest[of_days] = self._search(of_days)
        return self._newest[of_days]

    def _search(self, of_days: bool) -> int | None:
        newest: int | None = None
        last = None
        for day in sorted(self.by_day, reverse=True):
            # Two zones' dates lie up to 26 hours apart, so the newest hour may be on an older date.
            if last is not None and (of_days or day < last - 2):
                break
            found = _newest_of(self.by_day.get(day, {}).values(), of_days)
            if found is not None:
                last = day if last is None else last
                newest = found if newest is None else max(newest, found)
        return newest

    def end_ms(self, window: Window, index: int) -> int:
        """When the last of the accounts in a window has passed its end, UTC milliseconds."""
        if not window.days:
            return (index + 1) * HOUR_MS
        rollups = self.by_day.get(index, {}).values()
        ends = [end_of_day(index, rollup.zone) for rollup in rollups if not rollup.withdrawn]
        return max(ends, default=end_of_day(index, ""))

    def windows(self, kinds: Sequence[Window]) -> set[WindowKey]:
        """Every window that has content."""
        keys = {
            key
            for day in self.by_day
            for rollup in self.by_day.get(day, {}).values()
            for key in touched(kinds, rollup.day, [hour for hour, _ in rollup.hours])
        }
        named = {kind.name: kind for kind in kinds}
        return {key for key in keys if self.parts(named[key.name], key.ordinal)}


def changed_hours(rollup: Rollup, replaced: Rollup | None) -> set[int]:
    """The UTC hours that a rollup changes: where totals or what is reported of the hour differ or, if its zone or
    another fact does, all of both.
    """
    told = set(rollup.hours)
    if replaced is None:
        return {hour for hour, _ in told}
    before = set(replaced.hours)
    if _facts(rollup) != _facts(replaced):
        return {hour for hour, _ in told | before}
    since, until = sorted((replaced.covered_ms, rollup.covered_ms))
    reported = {hour for hour, _ in told if since < (hour + 1) * HOUR_MS and hour * HOUR_MS < until}
    return {hour for hour, _ in told ^ before} | (reported if since < until else set())


def _facts(rollup: Rollup) -> Rollup:
    return msgspec.structs.replace(
        rollup, revision=0, day_totals=None, hours=(), covered_ms=0, as_of_ms=0, link_revision=0
    )


def _newest_of(rollups: Iterable[Rollup], of_days: bool) -> int | None:
    if of_days:
        return max((rollup.day for rollup in rollups if rollup.day_totals is not None), default=None)
    return max((hour for rollup in rollups for hour, _ in rollup.hours), default=None)
