"""Campaigns on a shelf: which keys each has in the table, and the few that are decoded.

The table is the shell's, perhaps on disk. A checkpoint's writes are in it when the next checkpoint is taken, not
before, so a campaign may be put back only when the last checkpoint wrote nothing of it.
"""

from array import array
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from core import stored
from core.campaign import ByDay, Campaign, Owner
from core.published import Published
from core.stored import AGAIN, CTR, MARK_KEY, RATE, WINDOWS, Mark
from core.window import WindowKey
from schemas.rollup import Rollup

EXPIRED_AT_ONCE: Final = 10_000
"""Campaigns that one checkpoint drops something of. All of 100,000 would hold it up for seconds at a day's end."""


class Found(NamedTuple):
    """What a restart must look at: rollups past the settled ones, windows by when they close, windows that may not
    have been published, insights kept for that, rates, closed days to learn, rollups (campaign and day) of open days,
    and keys below the floor.
    """

    unsettled: list[bytes]
    closing: list[tuple[int, str, int]]
    unpublished: list[tuple[str, int]]
    again: list[bytes]
    rates: list[bytes]
    days: list[bytes]
    open: list[tuple[str, int]]
    expired: list[bytes]


class Shelf:
    """``reach`` is for how many days after its own a rollup is used by some window; ``limit`` how many campaigns stay
    decoded. Without a table all do.
    """

    def __init__(self, table: Mapping[bytes, bytes] | None, reach: int, limit: int) -> None:
        self._table: Mapping[bytes, bytes] = {} if table is None else table
        self._limit = None if table is None else limit
        self._reach = reach
        self._keys: dict[str, list[bytes]] = {}
        self._ends: dict[str, array[int]] = {}
        self._oldest: dict[int, set[str]] = defaultdict(set)
        self._decoded: dict[str, Campaign] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def scan(self, mark: Mark, closed: int = -1) -> Found:
        """Index the table by its keys. Days after ``closed`` are open. Raises ``ValueError`` for values of another
        version.
        """
        found = Found([], [], [], [], [], [], [], [])
        unsettled, unpublished = (number.to_bytes(8, "big") for number in (mark.settled + 1, mark.published + 1))
        version, reach, floor = stored.VERSION[0], self._reach, mark.floor
        for key, value in self._table.items():
            kind, campaign_id, _, number = stored.parse_key(key)
            if key == MARK_KEY:
                continue
            if not value or value[0] != version:
                stored.check_version(key, value)
            if kind == AGAIN:
                found.again.append(key)
                continue
            if kind == RATE:
                found.rates.append(key)
                continue
            if kind == CTR:
                if campaign_id == "day":
                    found.days.append(key)
                continue
            windows = kind == WINDOWS
            if number > closed and not windows:
                found.open.append((campaign_id, number))
            end = number if windows else number + reach
            if end < floor:
                found.expired.append(key)
                continue
            if campaign_id in self._keys:
                self._keys[campaign_id].append(key)
                self._ends[campaign_id].append(end)
            else:
                self._keys[campaign_id] = [key]
                self._ends[campaign_id] = array("q", (end,))
            if windows:
                if value[9:17] != stored.OPEN_END:
                    found.closing.append((int.from_bytes(value[9:17], "big"), campaign_id, number))
                if value[1:9] >= unpublished:
                    found.unpublished.append((campaign_id, number))
            elif value[1:9] >= unsettled:
                found.unsettled.append(key)
        for campaign_id, ends in self._ends.items():
            self._oldest[min(ends)].add(campaign_id)
        return found

    def ids(self) -> list[str]:
        """All campaigns, sorted."""
        return sorted(self._keys)

    def get(self, campaign_id: str) -> Campaign | None:
        """A campaign, decoded from now on."""
        campaign = self._decoded.pop(campaign_id, None) or self.peek(campaign_id)
        if campaign is not None:
            self._decoded[campaign_id] = campaign
        return campaign

    def peek(self, campaign_id: str) -> Campaign | None:
        """A campaign to look at, which stays on the shelf if it is there."""
        held = self._decoded.get(campaign_id)
        keys = self._keys.get(campaign_id)
        if held is not None or keys is None:
            return held
        rollups: dict[int, list[bytes]] = defaultdict(list)
        windows: dict[int, list[bytes]] = {}
        position = -1
        for key in keys:
            kind, _, _, day = stored.parse_key(key)
            if kind == WINDOWS:
                windows[day] = [key]
            else:
                rollups[day].append(key)
                position = max(position, stored.number(self._table[key]))
        return Campaign(campaign_id, ByDay(rollups, self._rollups), ByDay(windows, self._windows), position)

    def _rollups(self, keys: list[bytes]) -> dict[Owner, Rollup]:
        rollups = [stored.unpack_rollup(self._table[key]) for key in keys]
        return {(rollup.platform, rollup.platform_campaign_id): rollup for rollup in rollups}

    def _windows(self, keys: list[bytes]) -> dict[WindowKey, Published]:
        return stored.unpack_windows(self._table[keys[0]])

    def open(self, campaign_id: str) -> Campaign:
        """A campaign, new if it is not known."""
        campaign = self.get(campaign_id)
        if campaign is None:
            campaign = self._decoded[campaign_id] = Campaign(campaign_id)
            self._keys[campaign_id], self._ends[campaign_id] = [], array("q")
        return campaign

    def note_rollup(self, campaign_id: str, key: bytes, day: int) -> None:
        """A day's rollup is kept under a key that was not used before."""
        self._note(campaign_id, key, day + self._reach)

    def note_windows(self, campaign_id: str, key: bytes, last_day: int) -> None:
        """A day's windows are kept under a key that was not used before."""
        self._note(campaign_id, key, last_day)

    def _note(self, campaign_id: str, key: bytes, end: int) -> None:
        ends = self._ends[campaign_id]
        if not ends or end < min(ends):
            self._oldest[end].add(campaign_id)
        self._keys[campaign_id].append(key)
        ends.append(end)

    def expire(self, floor: int) -> list[bytes]:
        """Drop what ends before a day, of some campaigns at a time, and those of which nothing is left; the keys to
        delete.
        """
        deletes: list[bytes] = []
        left = EXPIRED_AT_ONCE
        for day in sorted(day for day in self._oldest if day < floor):
            waiting = self._oldest[day]
            while waiting and left > 0:
                left -= 1
                campaign_id = waiting.pop()
                if campaign_id in self._keys:
                    deletes += self._expire(campaign_id, floor)
            if not waiting:
                del self._oldest[day]
        return deletes

    def _expire(self, campaign_id: str, floor: int) -> list[bytes]:
        keys, ends = self._keys[campaign_id], self._ends[campaign_id]
        expired = [key for key, end in zip(keys, ends, strict=True) if end < floor]
        if len(expired) == len(keys):
            del self._keys[campaign_id], self._ends[campaign_id]
            self._decoded.pop(campaign_id, None)
            return expired
        if expired:
            self._keys[campaign_id] = [key for key, end in zip(keys, ends, strict=True) if end >= floor]
            self._ends[campaign_id] = array("q", (end for end in ends if end >= floor))
            if campaign_id in self._decoded:
                self._decoded[campaign_id].forget(floor - self._reach, floor)
        self._oldest[min(self._ends[campaign_id])].add(campaign_id)
        return expired

    def evict(self, unsaved: Collection[str]) -> None:
        """Put campaigns beyond the limit back, but for those of which the table does not hold the latest bytes."""
        excess = 0 if self._limit is None else len(self._decoded) - self._limit
        if excess <= 0:
            return
        for campaign_id in [each for each in self._decoded if each not in unsaved][:excess]:
            del self._decoded[campaign_id]

    def sizes(self) -> dict[str, int]:
        """How much is held in memory."""
        return {
            "campaigns": len(self._keys),
            "keys": sum(map(len, self._keys.values())),
            "decoded": len(self._decoded),
            "oldest": sum(map(len, self._oldest.values())),
        }
