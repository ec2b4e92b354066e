"""Rollups that came for a day after it was taken for learning: a backfill, an outage. Kept until they are learned.

Late is the first rollup of a platform campaign and day. It is noted, and the next watermark of the log takes all that
is noted, with the counts of that moment, as one batch: a function of the log's prefix. A batch is learned after the
days that were taken before it, and before those that come after: late rows raise the counts of their series, and the
series' rates are filtered anew along all that they have on the last days.

All of it is one value, written before anything else of a checkpoint's learning. ``position`` is the offset up to which
it stands, so what a crash makes come again is not noted again; ``number`` tells the batches that a state has learned.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from core import stored
from core.shelf import Shelf
from core.stored import Unreadable
from schemas.metrics import CLICKS, IMPRESSIONS
from schemas.platform import Platform
from schemas.rollup import Rollup

FILTERED: Final = 60
"""Days along which a series that came late is filtered anew. By then a rate has returned to its slow one."""

_Sums = defaultdict[int, dict[tuple[str, str], list[int]]]
Note = tuple[str, str, str, int]
"""Campaign, platform, platform campaign and day."""


class LateDay(msgspec.Struct, array_like=True):
    """What came late of a day, by campaign and platform."""

    day: int
    keys: list[tuple[str, str]]
    impressions: list[int]
    clicks: list[int]


class Batch(msgspec.Struct, array_like=True):
    """What was taken at once: days in order. ``after``: the last day that had been taken by then. ``whole``: all that
    the same campaigns have on their platforms, late or not, on the last days up to it.
    """

    number: int
    after: int
    days: list[LateDay]
    whole: list[LateDay]


class _Saved(msgspec.Struct, array_like=True):
    position: int
    number: int
    noted: list[Note]
    batches: list[Batch]


_pack: Final = msgspec.msgpack.Encoder().encode
_saved: Final = msgspec.msgpack.Decoder(_Saved)


class LateDays:
    """The batches to learn, oldest first, and what no batch holds yet. ``learned`` is the number of the last batch that
    was learned.
    """

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.learned = 0
        self.changed = False
        """Whether the table does not hold what is noted or to be learned."""
        self._noted: set[Note] = set()
        self._number = 0
        self._position = self._known = -1
        self._unsaved: list[Batch] = []
        self._generation = 0

    def pass_by(self, offset: int) -> bool:
        """Go on to a record of the log. False for one that what is held knows already."""
        self._position = max(self._position, offset)
        return offset > self._known

    def note(self, rollup: Rollup) -> None:
        """A platform campaign's first rollup of a day that was taken."""
        self._noted.add((rollup.campaign_id, str(rollup.platform), rollup.platform_campaign_id, rollup.day))
        self.changed = True

    def take(self, after: int, oldest: int, shelf: Shelf, platforms: Iterable[str]) -> None:
        """Make a batch of what is noted. Days before ``oldest`` are not looked at, for they may be there or not."""
        if not self._noted:
            return
        known = set(platforms)
        days: _Sums = defaultdict(dict)
        for campaign_id, platform, owner, day in sorted(note for note in self._noted if note[1] in known):
            campaign = shelf.peek(campaign_id)
            rollup = None if campaign is None else campaign.by_day.get(day, {}).get((Platform(platform), owner))
            _add(days, day, campaign_id, [] if rollup is None else [rollup])
        self._noted.clear()
        self.changed = True
        if days:
            self._number += 1
            series = {key: None for day in sorted(days) for key in sorted(days[day])}
            whole: _Sums = defaultdict(dict)
            for campaign_id in dict.fromkeys(campaign_id for campaign_id, _ in series):
                campaign = shelf.peek(campaign_id)
                for day in range(max(oldest, after - FILTERED), after + 1):
                    rollups = [] if campaign is None else campaign.by_day.get(day, {}).values()
                    _add(whole, day, campaign_id, [each for each in rollups if (campaign_id, each.platform) in series])
            self.batches.append(Batch(self._number, after, _late_days(days), _late_days(whole)))

    def learn(self) -> Batch:
        """The oldest batch, which is learned now."""
        batch = self.batches.pop(0)
        self.learned = batch.number
        self._unsaved.append(batch)
        return batch

    def saved(self) -> None:
        """The state that has learned what was learned so far is among the writes."""
        self._unsaved.clear()

    def write(self) -> Iterator[tuple[bytes, bytes]]:
        """What the table is to hold. It keeps the batches that only a state after it has learned."""
        self.changed = False
        self._generation += 1
        saved = _Saved(self._position, self._number, sorted(self._noted), self._unsaved + self.batches)
        return stored.in_slots("late", self._generation, _pack(saved))

    @classmethod
    def restore(cls, table: Mapping[bytes, bytes], learned: int) -> "LateDays":
        """What the table holds, for a state that has learned some batches. Raises ``Unreadable``."""
        found = cls()
        found.learned = found._number = learned
        held = stored.from_slots(table, "late")
        if held is None:
            return found
        found._generation, payload = held
        try:
            saved = _saved.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Unreadable(f"the campaigns table holds late days that cannot be read: {error}") from error
        found._position = found._known = saved.position
        found._number = saved.number
        found._noted = set(saved.noted)
        found.batches = [batch for batch in saved.batches if batch.number > learned]
        return found

    def __len__(self) -> int:
        return len(self._noted) + sum(len(day.keys) for batch in self.batches for day in batch.days)


def counted(rollups: Iterable[Rollup]) -> Iterator[tuple[str, int, int]]:
    """Platform, impressions and clicks of each rollup with content."""
    for rollup in rollups:
        if rollup.day_totals is not None:
            values = rollup.day_totals.values
            yield str(rollup.platform), values[IMPRESSIONS] or 0, values[CLICKS] or 0


def _add(days: _Sums, day: int, campaign_id: str, rollups: Iterable[Rollup]) -> None:
    for platform, impressions, clicks in counted(rollups):
        sums = days[day].setdefault((campaign_id, platform), [0, 0])
        sums[0] += impressions
        sums[1] += clicks


def _late_days(days: _Sums) -> list[LateDay]:
    found = []
    for day in sorted(days):
        rows = sorted(days[day].items())
        keys = [key for key, _ in rows]
        found.append(LateDay(day, keys, [sums[0] for _, sums in rows], [sums[1] for _, sums in rows]))
    return found
