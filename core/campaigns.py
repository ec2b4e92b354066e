"""Insights: the state of one partition of the rollups log, by canonical campaign.

Windows are computed from rollups whenever they are due; per window only its phase and what was last published are
kept. A window is preliminary until the watermark passes its end and lateness, then final once, and corrected by every
change of content after that, until it is frozen: past the horizon, no report of it is taken any more.

A checkpoint's table writes are ordered: what was learned of CTR (``core.ctr_stream``), insights that a crash kept back,
rates, rollups, windows, the mark, deletes. The mark says which checkpoints are known to have been published; what came
later is published again after a crash, under the same versions. A window is not published anew together with what a
crash kept back of it, so no reader misses one.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from core import stored
from core.aggregate import TableWrite
from core.campaign import Campaign, changed_hours
from core.closing import Closing
from core.ctr_stream import CtrStream
from core.emission import Emission, advance, current, emission, render
from core.forecast import forecast
from core.hot_windows import newest_windows
from core.insight import Part
from core.insight_config import InsightConfig
from core.kept_back import Due, KeptBack
from core.learning.ctr_model import CtrModel
from core.published import Published, in_phase, shown_as
from core.repricing import Repricing
from core.shelf import Found, Shelf
from core.stored import MARK_KEY, Mark
from core.watermark import Watermarks
from core.window import Window, WindowKey, days_of, last_day, touched
from schemas import rollup as rollup_codec
from schemas.insight import CrossPlatformInsight, Phase
from schemas.prediction import CtrPrediction
from schemas.rollup import RateFact, Rollup, Watermark
from schemas.scorecard import LearnedScorecard

__all__ = ["Campaigns", "Checkpoint", "Emission", "InsightConfig"]

NEVER: Final = -(1 << 62)


class Checkpoint(NamedTuple):
    """Table writes; what is published after them, the scorecard if a day was learned; what Redis is told."""

    writes: list[TableWrite]
    emissions: list[Emission]
    predictions: list[CtrPrediction]
    hot: list[Emission]
    scorecard: LearnedScorecard | None = None


GroupKey = tuple[str, int]


class Campaigns:
    """One partition. ``aggregates`` is how many aggregate partitions' watermarks it waits for. ``table`` holds what
    was written by all checkpoints but the last; without one everything stays decoded.
    """

    def __init__(
        self,
        config: InsightConfig | None = None,
        aggregates: int = 1,
        table: Mapping[bytes, bytes] | None = None,
    ) -> None:
        self.config = config or InsightConfig()
        self.mark = Mark()
        self.position = -1
        self.watermarks: Watermarks[int] = Watermarks(range(aggregates))
        self.expired = 0
        """Rollups that came for a day that no window uses any more."""
        self._repricing = Repricing(self.config.rates, self.config.repriced)
        self._rates = self._repricing.rates
        self._windows = {window.name: window for window in self.config.windows}
        self._reach = self.config.reach
        self._shelf = Shelf(table, self._reach, self.config.decoded)
        self.ctr = CtrStream(self.config.profile, self.config.kept_days)
        self._floor = 0
        self._settled_floor = 0
        self._ahead = -1
        self._dirty: dict[Due, int] = {}
        self._forced: set[Due] = set()
        self._kept = KeptBack()
        self._closing = Closing()
        self._rollups: dict[bytes, bytes] = {}
        self._changed_campaigns: set[str] = set()
        self._groups: dict[GroupKey, dict[WindowKey, Published]] = {}
        self._deletes: list[bytes] = []
        self._emitted_at: dict[Due, int] = {}
        self._changed = False
        self._sequence = 0

    @classmethod
    def restore(
        cls, table: Mapping[bytes, bytes], config: InsightConfig | None = None, aggregates: int = 1
    ) -> "Campaigns":
        """The state that a partition's table holds. Insights that may not have been published are due again.

        The table is read later too: it must hold a checkpoint's writes when the next one is taken. Raises
        ``ValueError`` for a table of another version.
        """
        state = cls(config, aggregates, table)
        if MARK_KEY in table:
            state.mark = stored.unpack_mark(table[MARK_KEY])
            state.position = state.mark.position
            state._sequence = state.mark.sequence
            for partition, watermark in state.mark.watermarks:
                state.watermarks.observe(partition, watermark)
            state._floor = state._settled_floor = max(state.mark.floor, state.config.floor(state.watermarks.value))
        state.ctr = CtrStream.restore(table, state.config.profile, state.config.kept_days)
        found = state._shelf.scan(state.mark, state.ctr.captured)
        state.ctr.restore_days(found.days, found.open, table)
        state._deletes = found.expired
        for closes_ms, campaign_id, day in found.closing:
            state._closing.watch(campaign_id, day, closes_ms)
        state._ahead = state._repricing.restore(found.rates, table, state.mark)
        state._restore_unsettled(found, table)
        state._kept.restore(
            found, table, state._shelf, state._windows, state.mark.published, state._current, state.position
        )
        for due in state._kept.changed:
            state._dirty.setdefault(due, state.mark.settled + 1)
        return state

    def _restore_unsettled(self, found: Found, table: Mapping[bytes, bytes]) -> None:
        """Windows that may have changed since they were published are due again. Rollups past the mark are met again
        in the log.
        """
        for key in found.unsettled:
            position = stored.number(table[key])
            if position > self.mark.position:
                self._ahead = max(self._ahead, position)
            else:
                rollup = stored.unpack_rollup(table[key])
                self._mark_day(self._shelf.open(rollup.campaign_id), rollup, position)

    def _mark_day(self, campaign: Campaign, rollup: Rollup, offset: int) -> None:
        """What a rollup replaced is not known any more, so every window on its day is looked at."""
        self._mark_dirty(campaign, rollup, None, offset)
        for day in range(max(rollup.day - 1, self._floor), rollup.day + self._reach + 1):
            for key in campaign.published.get(day, {}):
                window = self._windows.get(key.name)
                if window is not None and rollup.day in days_of(window, key.ordinal):
                    self._dirty.setdefault((campaign.campaign_id, key), offset)

    def apply(self, offset: int, payload: bytes) -> None:
        """Apply one record of the rollups log. Offsets at or below the position are skipped.

        Raises ``ValueError`` for bytes that are no rollup.
        """
        if offset <= self.position:
            return
        message = rollup_codec.decode(payload)
        self.position = offset
        self._changed = True
        if isinstance(message, Watermark):
            self.watermarks.observe(message.partition, message.watermark_ms)
            self._floor = max(self._floor, self.config.floor(self.watermarks.value))
            self.ctr.observe(self.watermarks.value, self._shelf, offset, self._floor - self._reach)
            return
        if isinstance(message, RateFact):
            if self._rates.days_of(message)[-1] + self._reach >= self._floor:
                self._repricing.apply(offset, message, payload, again=offset <= self._ahead)
            return
        if message.day + self._reach < self._floor:
            self.expired += 1
            return
        campaign = self._shelf.open(message.campaign_id)
        replaced = campaign.put(message, offset)
        if replaced is message:
            if offset <= self._ahead:
                self._mark_day(campaign, message, offset)
            return
        key = stored.rollup_key(message)
        if replaced is None:
            self._shelf.note_rollup(campaign.campaign_id, key, message.day)
            self.ctr.note(message, offset)
        self._rollups[key] = stored.pack_rollup(offset, payload)
        self._changed_campaigns.add(campaign.campaign_id)
        self._mark_dirty(campaign, message, replaced, offset)

    def _mark_dirty(self, campaign: Campaign, rollup: Rollup, replaced: Rollup | None, offset: int) -> None:
        for key in touched(self.config.windows, rollup.day, changed_hours(rollup, replaced)):
            window = self._windows[key.name]
            day = last_day(window, key.ordinal)
            if day < self._floor:
                continue
            # Of seven windows of seven days most end after the newest report: nothing to look at.
            if window.days and not campaign.reports(day) and key not in campaign.published.get(day, {}):
                continue
            self._dirty.setdefault((rollup.campaign_id, key), offset)

    @property
    def pending(self) -> bool:
        """Whether a checkpoint would write, or may publish, anything."""
        waiting = (self._rollups, self._repricing, self._dirty, self._kept.waiting, self._deletes, self.ctr.pending)
        return self._changed or any(waiting)

    @property
    def waiting(self) -> int:
        """How many windows wait to be published, or campaigns to be looked at for such."""
        return len(self._dirty) + len(self._repricing)

    def campaign(self, campaign_id: str) -> Campaign | None:
        """A campaign to look at."""
        return self._shelf.peek(campaign_id)

    def take(self, now_ms: int, *, preliminary: bool) -> Checkpoint:
        """The next checkpoint. ``now_ms`` only spaces preliminary insights; with ``preliminary`` false they wait.

        Finals and corrections are due at once, but for those of which a crash kept an earlier version back: they are
        in the checkpoint after.
        """
        self._sequence += 1
        learned = self.ctr.take()
        watermark = self.watermarks.value
        for campaign, rollup, place in self._repricing.take(self._shelf):
            self._mark_dirty(campaign, rollup, None, place)
        self._close(watermark)
        again = self._kept.take()
        emissions = list(again.values())
        # A changed rate may change every window.
        changed = {campaign_id for campaign_id, _ in again} if self._repricing.unsaved else self._changed_campaigns
        writes = learned + self._kept.save(again, changed, self._dirty, self._sequence)
        for due in list(self._dirty):
            if due not in again:
                emitted = self._emit(due, watermark, now_ms, preliminary=preliminary)
                emissions += [] if emitted is None else [emitted]
        unsaved = self._changed_campaigns | {campaign_id for campaign_id, _ in self._groups}
        writes += self._take_writes()
        # What the last checkpoint published last must stay until that is known to have happened.
        floor = self.mark.floor if again else max(self.mark.floor, self._settled_floor)
        if not again:
            self._settled_floor = self._floor
        if self.position >= self._ahead and not self._repricing:
            self._forced.intersection_update(self._dirty)
        self.mark = Mark(
            position=self.position,
            settled=min([*self._dirty.values(), *self._repricing.places], default=self.position + 1) - 1,
            sequence=self._sequence,
            published=self.mark.published,
            watermarks=[(partition, value) for partition, value, _ in self.watermarks.dump()],
            floor=floor,
        )
        writes.append(TableWrite(MARK_KEY, stored.pack_mark(self.mark)))
        campaigns = {each.insight.campaign_id: self._shelf.open(each.insight.campaign_id) for each in emissions}
        hot = newest_windows(emissions, campaigns, self._windows, self._again_of)
        predictions = self._forecast(list(campaigns.values()))
        writes += self._take_deletes(floor)
        self._shelf.evict(unsaved)
        self.mark.published = self._sequence
        self._changed = bool(again)
        return Checkpoint(writes, emissions, predictions, hot, self.ctr.take_scorecard())

    def _take_writes(self) -> list[TableWrite]:
        writes = [TableWrite(key, value) for key, value in [*self._repricing.save(), *self._rollups.items()]]
        for (campaign_id, day), group in self._groups.items():
            writes.append(TableWrite(stored.windows_key(campaign_id, day), stored.pack_windows(group)))
        self._rollups.clear()
        self._changed_campaigns.clear()
        self._groups.clear()
        return writes

    def _take_deletes(self, floor: int) -> list[TableWrite]:
        deletes = [*self._deletes, *self._kept.take_published(self.mark.published), *self._shelf.expire(floor)]
        deletes += [*self._repricing.expire(floor - self._reach), *self.ctr.take_deletes()]
        self._deletes = []
        return [TableWrite(key, None) for key in deletes]

    def _close(self, watermark: int) -> None:
        """Make the windows due that the watermark has passed."""
        for campaign_id, day in self._closing.passed(watermark):
            campaign = self._shelf.get(campaign_id)
            if campaign is None:
                continue
            for key, published in campaign.published.get(day, {}).items():
                window = self._windows.get(key.name)
                if window is None or not published.preliminary:
                    continue
                final_ms = self._final_ms(campaign, window, key.ordinal, campaign.parts(window, key.ordinal))
                if final_ms > watermark:
                    self._closing.watch(campaign_id, day, final_ms)
                else:
                    self._dirty.setdefault((campaign_id, key), self.position)

    def _final_ms(self, campaign: Campaign, window: Window, index: int, parts: Iterable[Part]) -> int:
        return campaign.end_ms(window, index) + self.config.lateness_ms({part.rollup.platform for part in parts})

    def _emit(self, due: Due, watermark: int, now_ms: int, *, preliminary: bool) -> Emission | None:
        """Publish a window if it is due; what is not stays dirty."""
        campaign_id, key = due
        campaign, window = self._shelf.open(campaign_id), self._windows[key.name]
        day = last_day(window, key.ordinal)
        held = campaign.published.get(day, {}).get(key)
        parts = campaign.parts(window, key.ordinal)
        if held is None and not parts:
            del self._dirty[due]
            return None
        settled = held is not None and not held.preliminary
        final_ms = 0 if settled else self._final_ms(campaign, window, key.ordinal, parts)
        final = settled or final_ms <= watermark
        if held is not None and not final and final_ms < held.final_ms:
            held.final_ms = final_ms
            self._closing.watch(campaign_id, day, final_ms)
            self._groups[campaign_id, day] = campaign.published.get(day, {})
        if not final and due not in self._forced:
            since = now_ms - self._emitted_at.get(due, NEVER)
            if not preliminary or since < self.config.emit_interval_ms:
                return None
        del self._dirty[due]
        rendered = render(campaign, window, key.ordinal, parts, self.config.profile, self._rates)
        forced = due in self._forced
        self._forced.discard(due)
        if held is not None and held.digest == rendered.digest and (settled or not final):
            if not forced:
                return None
            published = held
        else:
            withdrawn = campaign.withdrawn(window, key.ordinal) if settled else set()
            published = advance(held, rendered, withdrawn, self._sequence, final_ms=final_ms, final=final)
        published.sequence = self._sequence
        if not campaign.published.get(day, {}):
            self._shelf.note_windows(campaign_id, stored.windows_key(campaign_id, day), day)
        campaign.published.put(day, key, published)
        self._groups[campaign_id, day] = campaign.published.get(day, {})
        if final:
            self._emitted_at.pop(due, None)
        else:
            self._closing.watch(campaign_id, day, final_ms)
            self._emitted_at[due] = now_ms
        return emission(campaign, window, key.ordinal, shown_as(rendered.insight, published), self.position)

    def _current(self, campaign: Campaign, key: WindowKey) -> Emission | None:
        return current(campaign, self._windows[key.name], key.ordinal, self.config.profile, self._rates, self.position)

    def _again_of(self, campaign: Campaign, key: WindowKey) -> Emission | None:
        """What Redis should hold of a window; what is on the way is published even if it ends as it began."""
        current = self._current(campaign, key)
        if current is None and last_day(self._windows[key.name], key.ordinal) >= self._floor:
            self._forced.add((campaign.campaign_id, key))
        return current

    def hot(self) -> Iterator[tuple[list[Emission], list[CtrPrediction]]]:
        """All that Redis should hold, campaign by campaign, to make it whole again."""
        for campaign_id in self._shelf.ids():
            campaign = self._shelf.peek(campaign_id)
            if campaign is None:
                continue
            newest = []
            for window in self.config.windows:
                latest = campaign.latest(window)
                if latest is not None:
                    current = self._again_of(campaign, WindowKey(window.name, latest))
                    newest += [] if current is None else [current]
            yield newest, self._forecast([campaign])

    def insights(self) -> Iterator[CrossPlatformInsight]:
        """Every window that has content and is not frozen, rendered from state, by campaign, kind and time. Nothing
        is marked as published.
        """
        for campaign_id in self._shelf.ids():
            campaign = self._shelf.peek(campaign_id)
            if campaign is None:
                continue
            for key in sorted(campaign.windows(self.config.windows)):
                window = self._windows[key.name]
                if last_day(window, key.ordinal) < self._floor:
                    continue
                parts = campaign.parts(window, key.ordinal)
                final = self._final_ms(campaign, window, key.ordinal, parts) <= self.watermarks.value
                insight = render(campaign, window, key.ordinal, parts, self.config.profile, self._rates).insight
                yield in_phase(insight, Phase.FINAL if final else Phase.PRELIMINARY)

    def predictions(self) -> list[CtrPrediction]:
        """The predictions for every campaign's next windows, when all closed days are learned."""
        self.ctr.learn()
        found = [self._shelf.peek(campaign_id) for campaign_id in self._shelf.ids()]
        return self._forecast([campaign for campaign in found if campaign is not None])

    def adopt(self, model: CtrModel) -> None:
        """Judge another CTR model from now on, between checkpoints."""
        self.ctr.adopt(model)

    def _forecast(self, campaigns: list[Campaign]) -> list[CtrPrediction]:
        return forecast(campaigns, self.config.windows, self.config.profile, self.ctr)

    def sizes(self) -> dict[str, int]:
        """How much is held in memory."""
        return {
            **(self._shelf.sizes() | self.ctr.sizes()),
            "dirty": len(self._dirty),
            "forced": len(self._forced),
            "closing": len(self._closing),
            "kept": len(self._kept),
            "repricing": len(self._repricing),
            "emitted_at": len(self._emitted_at),
        }
