"""What one partition of the rollups log has taught about CTR: a function of the log's prefix, kept in its table.

A day is taken when the partition's watermark has passed its end in the last zone and ``LEARN_AFTER_MS``: the counts of
every campaign and platform with a rollup on it, as they are at that record of the log. So however the log is batched,
the same counts are learned. They are learned at a checkpoint, the oldest days first and not too many at once; days that
wait are kept in the table. What comes first for a day that was taken raises the counts of its series
(``core.late_days``); restatements that come later are not learned.

A checkpoint's learning is written before all else and each day is taken once, so a crash between two writes repeats and
loses nothing. Late days are written first: they tell which records of the log have been looked at.
"""

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final
from zlib import crc32

import msgspec
import numpy as np

from core import stored
from core.aggregate import TableWrite
from core.late_days import Batch, LateDay, LateDays, counted
from core.learning.ctr_model import CtrModel
from core.learning.horizons import Hours
from core.learning.online import CtrPredictor, Key, Rows
from core.profile import Profile
from core.shelf import Shelf
from core.stored import Unreadable
from core.window import HOURS_A_DAY
from schemas.event import DAY_MS, HOUR_MS
from schemas.metrics import CLICKS, IMPRESSIONS
from schemas.rollup import Rollup
from schemas.scorecard import DAY, LearnedScorecard

LAST_ZONE_MS: Final = 12 * HOUR_MS
"""A date ends last in UTC-12."""
LEARN_AFTER_MS: Final = 6 * HOUR_MS
"""Platforms restate impressions and clicks within hours, and a day is learned but once. Later would be surer, yet until
then a day is known to predictions as an open one only.
"""
SERIES_AT_ONCE: Final = 6_000
"""Series times days that a checkpoint learns, at least a day: some 0.3 s."""
LONGEST_GAP: Final = 366
"""Days without any row that pass one by one. What was learned has faded by then."""

Hour = tuple[int, int, int, int]
"""Impressions and clicks that a day had shown before an hour, and those of the hour."""


class _Day(msgspec.Struct, array_like=True):
    """``hours`` names the places of the keys for which an hour is known."""

    keys: list[Key]
    impressions: list[int]
    clicks: list[int]
    hours: list[tuple[int, Hour]] = []


class _State(msgspec.Struct, array_like=True):
    model_id: str
    predictor: bytes
    last_rows: list[int]
    late: int = 0
    """The last batch of late days that was learned."""


_pack: Final = msgspec.msgpack.Encoder().encode
_day: Final = msgspec.msgpack.Decoder(_Day)
_state: Final = msgspec.msgpack.Decoder(_State)


def last_closed(watermark_ms: int) -> int:
    """The last day that is closed at a watermark."""
    return (watermark_ms - LAST_ZONE_MS - LEARN_AFTER_MS) // DAY_MS - 1


class CtrStream:
    """The learning of one partition. ``captured`` is the last day that was taken from the log, −1 before the first.

    Series without a row for ``kept_days`` are forgotten, None for never.
    """

    def __init__(self, profile: Profile, kept_days: int | None = None) -> None:
        self.platforms = tuple(sorted(map(str, profile.platforms)))
        rates = {str(platform): bands.ctr.ideal for platform, bands in profile.platforms.items()}
        self.base_rate = np.array([rates[platform] for platform in self.platforms], dtype=np.float64)
        self.predictor = CtrPredictor(self.platforms, self.base_rate)
        self._kept_days = kept_days
        self._last_row: dict[Key, int] = {}
        self.model_id = ""
        self.model_refused: str | None = None
        """Why the newest model that was published was refused, None where it was not: no state, predictions say it."""
        self.captured = -1
        self.forgotten = ""
        """Why what the table held could not be used."""
        self._open: defaultdict[int, set[str]] = defaultdict(set)
        self._waiting: dict[int, _Day] = {}
        self._late = LateDays()
        self._saved: set[int] = set()
        self._generation = 0
        self._saved_captured = -1
        self._learned: list[int] = []
        self._state_due = self._card_due = False

    # The log

    def note(self, rollup: Rollup, offset: int) -> None:
        """A platform campaign has its first rollup on a day, in the log's record at an offset."""
        new = self._late.pass_by(offset)
        if rollup.day > self.captured:
            self._open[rollup.day].add(rollup.campaign_id)
        elif new:
            self._late.note(rollup)

    def observe(self, watermark_ms: int, shelf: Shelf, offset: int, oldest: int) -> None:
        """Take what has come late, then the days that are closed at a watermark, that of the record at an offset.
        Rollups before the day ``oldest`` may have left the shelf.
        """
        if self._late.pass_by(offset):
            self._late.take(self.captured, oldest, shelf, self.platforms)
        closed = last_closed(watermark_ms)
        if closed <= self.captured:
            return
        for day in sorted(day for day in self._open if day <= closed):
            # A crash may have kept a later day and not an earlier one.
            if day in self._waiting:
                del self._open[day]
                continue
            rows = self._rows(day, self._open.pop(day), shelf)
            if rows.keys:
                self._waiting[day] = rows
        self.captured = closed

    def _rows(self, day: int, campaigns: set[str], shelf: Shelf) -> _Day:
        counts: dict[Key, array[int]] = {}
        hours: dict[Key, Hour] = {}
        for campaign_id in sorted(campaigns):
            campaign = shelf.peek(campaign_id)
            if campaign is None:
                continue
            for platform, impressions, clicks in counted(campaign.by_day.get(day, {}).values()):
                if platform in self.platforms:
                    sums = counts.setdefault((campaign_id, platform), array("q", (0, 0)))
                    sums[0] += impressions
                    sums[1] += clicks
            for platform, hour in hour_of(campaign_id, day, campaign.reported(day)):
                hours[campaign_id, platform] = hour
        rows = sorted(counts.items())
        known = [(at, hours[key]) for at, (key, _) in enumerate(rows) if key in hours]
        return _Day([key for key, _ in rows], [sums[0] for _, sums in rows], [sums[1] for _, sums in rows], known)

    # Learning

    @property
    def pending(self) -> bool:
        """Whether a checkpoint would write anything of it."""
        waiting = self._waiting or self._late.batches or self._late.changed
        return bool(waiting) or self._state_due or self.captured != self._saved_captured

    @property
    def waiting(self) -> int:
        """How many days wait to be learned."""
        return len(self._waiting)

    @property
    def learned_until_ms(self) -> int:
        """The instant before which all that was learned happened, in any zone; −1 for nothing."""
        last = self.predictor.last_day
        return -1 if last is None else (last + 1) * DAY_MS + LAST_ZONE_MS

    def adopt(self, model: CtrModel) -> None:
        """Judge another model from now on, between checkpoints; one that is judged already stays as it stands."""
        if model.model_id != self.model_id:
            self.predictor.adopt(model)
            self.model_id = model.model_id
            self._state_due = True

    def learn(self, most: int | None = None) -> None:
        """Learn what waits in the order of the log; with ``most`` until so many series times days are learned."""
        spent = 0
        while self._waiting or self._late.batches:
            if most is not None and spent and spent >= most:
                break
            day, late = min(self._waiting, default=None), self._late.batches
            if day is None or (late and late[0].after < day):
                self._absorb(self._late.learn())
            else:
                rows = self._waiting.pop(day)
                self._close(day, rows.keys, rows.impressions, rows.clicks, _hours(rows))
                self._learned.append(day)
            spent += self.predictor.size
            self._state_due = True

    def _close(
        self, day: int, keys: list[Key], impressions: list[int], clicks: list[int], hours: Hours | None = None
    ) -> None:
        predictor, last = self.predictor, self.predictor.last_day
        if last is not None:
            predictor.last_day = max(last, day - LONGEST_GAP)
        shown, clicked = (np.array(values, dtype=np.float64) for values in (impressions, clicks))
        predictor.close(day, keys, shown, np.minimum(clicked, shown), hours)
        self._last_row |= dict.fromkeys(keys, day)
        if self._kept_days is not None:
            ended = {key for key, seen in self._last_row.items() if seen < day - self._kept_days}
            predictor.forget(ended)
            for key in ended:
                del self._last_row[key]
        self._card_due = True

    def _absorb(self, batch: Batch) -> None:
        """Learn what came late. Days after the last one with rows are learned as if they had been on time."""
        last = self.predictor.last_day
        until = -1 if last is None else last
        past = [late for late in batch.days if until - LONGEST_GAP < late.day <= until]
        if past:
            self.predictor.absorb(_rows(past), _rows(late for late in batch.whole if late.day <= until))
            for late in past:
                for key in late.keys:
                    self._last_row[key] = max(self._last_row.get(key, late.day), late.day)
        for late in batch.days:
            if late.day > until:
                self._close(late.day, late.keys, late.impressions, late.clicks)

    def scorecard(self) -> LearnedScorecard | None:
        """The scorecard of all days so far."""
        predictor = self.predictor
        windows = predictor.scorecard.windows
        if not windows:
            return None
        standings = {name: (one.promoted, one.reason) for name, one in predictor.standings.items()}
        return LearnedScorecard(
            first_day=min(windows),
            last_day=max(windows),
            model=self.model_id,
            standings=standings,
            card=predictor.scorecard.to_bytes(),
            others={name: card.to_bytes() for name, card in predictor.cards.items() if name != DAY and card.windows},
        )

    def take_scorecard(self) -> LearnedScorecard | None:
        """The scorecard, if a day was learned since it was last taken."""
        due, self._card_due = self._card_due, False
        return self.scorecard() if due else None

    # The table

    def take(self) -> list[TableWrite]:
        """Learn, and what is to be written before all else of a checkpoint."""
        self.learn(SERIES_AT_ONCE)
        days = sorted(self._waiting.keys() - self._saved)
        if not (days or self._late.changed or self._state_due or self.captured != self._saved_captured):
            return []
        writes = [TableWrite(*each) for each in self._late.write()]
        for day in days:
            writes.append(TableWrite(stored.ctr_key("day", "", day), stored.VERSION + _pack(self._waiting[day])))
            self._saved.add(day)
        if self._state_due:
            writes += self._take_state()
        if self.captured != self._saved_captured:
            value = stored.VERSION + self.captured.to_bytes(8, "big", signed=True)
            writes.append(TableWrite(stored.CAPTURED_KEY, value))
            self._saved_captured = self.captured
        return writes

    def take_deletes(self) -> list[bytes]:
        """Keys of days that are learned."""
        deletes = [stored.ctr_key("day", "", day) for day in self._learned if day in self._saved]
        self._saved.difference_update(self._learned)
        self._learned = []
        return deletes

    def _take_state(self) -> list[TableWrite]:
        self._state_due = False
        self._generation += 1
        self._late.saved()
        state = _State(self.model_id, self.predictor.to_bytes(), self._rows_in_order(), self._late.learned)
        return [TableWrite(*each) for each in stored.in_slots("state", self._generation, _pack(state))]

    def _rows_in_order(self) -> list[int]:
        return [self._last_row[key] for key in self.predictor.keys]

    @classmethod
    def restore(cls, table: Mapping[bytes, bytes], profile: Profile, kept_days: int | None = None) -> "CtrStream":
        """What the table holds, but for the days that wait (``restore_days``). A state of other platforms or
        hypotheses is given up; ``forgotten`` says so. Raises ``Unreadable``.
        """
        found = cls(profile, kept_days)
        if (value := table.get(stored.CAPTURED_KEY)) is not None:
            found.captured = found._saved_captured = int.from_bytes(value[1:], "big", signed=True)
        held = stored.from_slots(table, "state")
        if held is None:
            found._late = LateDays.restore(table, 0)
            return found
        found._generation, payload = held
        try:
            state = _state.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Unreadable(f"the campaigns table holds learning that cannot be read: {error}") from error
        found._late = LateDays.restore(table, state.late)
        try:
            found.predictor = CtrPredictor.from_bytes(state.predictor, found.platforms, found.base_rate)
            found.model_id = state.model_id
            found._last_row = dict(zip(found.predictor.keys, state.last_rows, strict=True))
        except ValueError as error:
            found.forgotten = str(error)
        found._card_due = found.predictor.last_day is not None
        return found

    def restore_days(
        self, days: Sequence[bytes], rollups: Sequence[tuple[str, int]], table: Mapping[bytes, bytes]
    ) -> None:
        """The days that wait, of their keys, and the campaigns of the open days, as the table's index gives them."""
        last = self.predictor.last_day
        for key in days:
            day = stored.parse_key(key)[3]
            self._saved.add(day)
            if last is not None and day <= last:
                self._learned.append(day)
                continue
            try:
                self._waiting[day] = _day.decode(table[key][1:])
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise Unreadable(f"the campaigns table holds a day that cannot be read: {error}") from error
        self.captured = max(self.captured, -1 if last is None else last)
        for campaign_id, day in rollups:
            if day > self.captured:
                self._open[day].add(campaign_id)

    def sizes(self) -> dict[str, int]:
        """How much is held in memory."""
        return {
            "series": self.predictor.size,
            "open_days": sum(map(len, self._open.values())),
            "days_to_learn": sum(len(day.keys) for day in self._waiting.values()),
            "late": len(self._late),
        }


def _hours(rows: _Day) -> Hours | None:
    if not rows.hours:
        return None
    counts = np.array([hour for _, hour in rows.hours], dtype=np.float64).T
    return Hours(np.array([at for at, _ in rows.hours]), *counts)


def _rows(days: Iterable[LateDay]) -> Rows:
    rows = [(day.day, *row) for day in days for row in zip(day.keys, day.impressions, day.clicks, strict=True)]
    counts = np.array([row[2:] for row in rows], dtype=np.float64).reshape(-1, 2).T
    return Rows(np.array([row[0] for row in rows], dtype=np.int64), [row[1] for row in rows], *counts)


def hour_of(campaign_id: str, day: int, reported: Iterable[Rollup]) -> Iterator[tuple[str, Hour]]:
    """Of each platform that tells its hours: what a day's one hour that is judged showed, and the day before it. Days
    and campaigns take turns, so that every hour is. ``reported``: the day's rollups with content.
    """
    by_platform: defaultdict[str, list[Rollup]] = defaultdict(list)
    for rollup in reported:
        by_platform[str(rollup.platform)].append(rollup)
    turn = (crc32(campaign_id.encode("utf-8", "surrogatepass")) + day) % HOURS_A_DAY
    for platform, rollups in by_platform.items():
        # Who tells the day alone shows nothing before an hour, and nothing in it.
        if not all(rollup.hours for rollup in rollups):
            continue
        wanted = min(rollup.start_ms for rollup in rollups) // HOUR_MS + turn
        sums = [0, 0, 0, 0]
        for rollup in rollups:
            for hour, totals in rollup.hours:
                if hour <= wanted:
                    at = 2 * (hour == wanted)
                    sums[at] += totals.values[IMPRESSIONS] or 0
                    sums[at + 1] += totals.values[CLICKS] or 0
        yield platform, (sums[0], sums[1], sums[2], min(sums[2], sums[3]))
