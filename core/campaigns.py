"""Insights: the state of one partition of the rollups log, by canonical campaign.

Windows are computed from rollups whenever they are due; per window only its phase and what was last published are
kept. A window is preliminary until the watermark passes its end and lateness, then final once, and corrected by every
change of content after that.

A checkpoint's table writes are ordered like those of ``core.aggregate``: rollups, windows, then the mark. The mark
says which checkpoints are known to have been published; what came later is published again after a crash, under the
same versions.
"""

import heapq
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec

from core.aggregate import TableWrite
from core.campaign import Campaign
from core.forecast import forecast
from core.insight import Part, build
from core.profile import DEFAULT_PROFILE, Profile
from core.published import Published, difference, flat_reporting, flat_totals, reason_for, shown_as
from core.rates import Rates, RateTable
from core.repricing import repriced
from core.shrinkage import DEFAULT_PRIOR, CtrPrior
from core.watermark import Watermarks
from core.window import Window, WindowKey, days_of, parse_window, touched
from schemas import insight as insight_codec
from schemas import rollup as rollup_codec
from schemas.calendar import iso_instant
from schemas.event import DAY_MS
from schemas.insight import Correction, CrossPlatformInsight, Phase, Version
from schemas.platform import Platform
from schemas.prediction import CtrPrediction
from schemas.rollup import RateFact, Rollup, Watermark

_pack: Final = msgspec.msgpack.Encoder().encode
NEVER: Final = -(1 << 62)


class InsightConfig(msgspec.Struct, frozen=True):
    """Windows to compute, benchmarks, the CTR prior, exchange rates, and when a window is final: its end plus the
    platforms' lateness.
    """

    windows: tuple[Window, ...] = tuple(parse_window(name) for name in ("1h", "24h", "7d"))
    profile: Profile = DEFAULT_PROFILE
    prior: CtrPrior = DEFAULT_PRIOR
    final_after_ms: dict[str, int] = {}
    emit_interval_ms: int = 1_000
    rates: RateTable = RateTable()

    def lateness_ms(self, platforms: Iterable[Platform]) -> int:
        """The longest lateness of some platforms."""
        return max((self.final_after_ms.get(str(platform), DAY_MS) for platform in platforms), default=DAY_MS)


class Mark(msgspec.Struct, array_like=True):
    """The last write of a checkpoint. ``settled`` is the rollup offset up to which no window waits to be published."""

    position: int = -1
    settled: int = -1
    sequence: int = 0
    published: int = 0
    watermarks: list[tuple[int, int]] = []


class Emission(NamedTuple):
    """An insight to publish. ``latest`` says that it is its campaign's newest window of the kind, which Redis holds."""

    insight: CrossPlatformInsight
    payload: bytes
    campaign_position: int
    latest: bool


class Checkpoint(NamedTuple):
    """What one checkpoint does, in this order: table writes; insights and predictions; hot insights."""

    writes: list[TableWrite]
    emissions: list[Emission]
    predictions: list[CtrPrediction]
    hot: list[Emission]


Due = tuple[str, WindowKey]
_mark: Final = msgspec.msgpack.Decoder(Mark)
_published: Final = msgspec.msgpack.Decoder(Published)
_stored: Final = msgspec.msgpack.Decoder(tuple[int, bytes])
_key: Final = msgspec.msgpack.Decoder(tuple[str, str, str, int])
MARK_KEY: Final = _pack(("mark", "", "", 0))


class Campaigns:
    """One partition. ``aggregates`` is how many aggregate partitions' watermarks it waits for."""

    def __init__(self, config: InsightConfig | None = None, aggregates: int = 1) -> None:
        self.config = config or InsightConfig()
        self.mark = Mark()
        self.position = -1
        self.watermarks: Watermarks[int] = Watermarks(range(aggregates))
        self.rates = Rates(self.config.rates)
        self._repriced: list[tuple[RateFact, int]] = []
        self._windows = {window.name: window for window in self.config.windows}
        self._campaigns: dict[str, Campaign] = {}
        self._published: dict[Due, Published] = {}
        self._dirty: dict[Due, int] = {}
        self._forced: set[Due] = set()
        self._again: list[Emission] = []
        self._open: list[tuple[int, Due]] = []
        self._stored: dict[bytes, bytes] = {}
        self._emitted_at: dict[Due, int] = {}
        self._hot_index: dict[tuple[str, str], int] = {}
        self._changed = False
        self._sequence = 0

    @classmethod
    def restore(
        cls, table: Mapping[bytes, bytes], config: InsightConfig | None = None, aggregates: int = 1
    ) -> "Campaigns":
        """The state that a partition's table holds. Insights that may not have been published are due again."""
        state = cls(config, aggregates)
        if MARK_KEY in table:
            state.mark = _mark.decode(table[MARK_KEY])
            state.position = state.mark.position
            state._sequence = state.mark.sequence
            for partition, watermark in state.mark.watermarks:
                state.watermarks.observe(partition, watermark)
        unsettled: dict[tuple[str, int], int] = {}
        for key, value in table.items():
            kind, campaign_id, window, index = _key.decode(key)
            if kind == "window" and window in state._windows:
                state._published[campaign_id, WindowKey(window, index)] = _published.decode(value)
            elif kind == "rate" or kind.startswith("rollup/"):
                position, payload = _stored.decode(value)
                rollup = rollup_codec.decode(payload)
                if isinstance(rollup, RateFact):
                    state.rates.put(rollup, position)
                    if position > state.mark.settled:
                        state._repriced.append((rollup, position))
                elif isinstance(rollup, Rollup):
                    state._campaign(rollup.campaign_id).put(rollup, position)
                    if position > state.mark.settled:
                        state._mark_dirty(rollup, None, position)
                        unsettled[rollup.campaign_id, rollup.day] = position
        state._restore_windows(unsettled)
        return state

    def _restore_windows(self, unsettled: Mapping[tuple[str, int], int]) -> None:
        """Windows that may have changed since they were published, or may not have been published, are due again.

        ``unsettled`` holds the campaigns' days with a rollup past the settled ones. What such a rollup replaced is
        not known any more, so every window on its day is looked at.
        """
        for due, published in self._published.items():
            campaign_id, key = due
            for day in days_of(self._windows[key.name], key.ordinal):
                position = unsettled.get((campaign_id, day))
                if position is not None:
                    self._dirty.setdefault(due, position)
            if published.phase == Phase.PRELIMINARY:
                self._watch(due)
            if published.sequence > self.mark.published:
                again = self._current(due)
                if again is not None:
                    self._again.append(again)

    def _campaign(self, campaign_id: str) -> Campaign:
        campaign = self._campaigns.get(campaign_id)
        if campaign is None:
            campaign = self._campaigns[campaign_id] = Campaign(campaign_id)
        return campaign

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
            return
        if isinstance(message, RateFact):
            if self.rates.put(message, offset):
                self._stored[_pack(("rate", message.currency, "", message.day))] = _pack((offset, payload))
                self._repriced.append((message, offset))
            return
        replaced = self._campaign(message.campaign_id).put(message, offset)
        if replaced is message:
            return
        key = _pack((f"rollup/{message.platform}", message.campaign_id, message.platform_campaign_id, message.day))
        self._stored[key] = _pack((offset, payload))
        self._mark_dirty(message, replaced, offset)

    def _mark_dirty(self, rollup: Rollup, replaced: Rollup | None, offset: int) -> None:
        hours = {hour for hour, _ in rollup.hours}
        if replaced is not None:
            hours |= {hour for hour, _ in replaced.hours}
        for key in touched(self.config.windows, rollup.day, hours):
            self._dirty.setdefault((rollup.campaign_id, key), offset)

    def _reprice(self) -> None:
        """Make the windows due whose money a changed rate may convert."""
        changed, self._repriced = self._repriced, []
        if changed and self.config.rates.currency:
            for rollup, place in repriced(self._campaigns.values(), changed, self.rates):
                self._mark_dirty(rollup, None, place)

    @property
    def pending(self) -> bool:
        """Whether a checkpoint would write, or may publish, anything."""
        return self._changed or bool(self._stored) or bool(self._dirty) or bool(self._again) or bool(self._repriced)

    @property
    def waiting(self) -> int:
        """How many windows wait to be published."""
        return len(self._dirty)

    def take(self, now_ms: int, *, preliminary: bool) -> Checkpoint:
        """The next checkpoint. ``now_ms`` only spaces preliminary insights; with ``preliminary`` false they wait.

        Finals and corrections are always due.
        """
        self._sequence += 1
        writes = [TableWrite(key, value) for key, value in self._stored.items()]
        self._stored.clear()
        watermark = self.watermarks.value
        self._reprice()
        self._close(watermark)
        emissions, self._again = self._again, []
        for due in list(self._dirty):
            emission = self._emit(due, watermark, now_ms, preliminary=preliminary)
            if emission is not None:
                emissions.append(emission)
                campaign_id, key = due
                writes.append(TableWrite(_pack(("window", campaign_id, *key)), _pack(self._published[due])))
        self.mark = Mark(
            position=self.position,
            settled=min(self._dirty.values(), default=self.position + 1) - 1,
            sequence=self._sequence,
            published=self.mark.published,
            watermarks=[(partition, value) for partition, value, _ in self.watermarks.dump()],
        )
        writes.append(TableWrite(MARK_KEY, _pack(self.mark)))
        self.mark.published = self._sequence
        self._changed = False
        return Checkpoint(writes, emissions, self._predictions(emissions), self._hot(emissions))

    def _close(self, watermark: int) -> None:
        """Make the windows due that the watermark has passed."""
        while self._open and self._open[0][0] <= watermark:
            _, due = heapq.heappop(self._open)
            if self._published[due].phase != Phase.PRELIMINARY:
                continue
            if self._final_at(due) > watermark:
                self._watch(due)
            else:
                self._dirty.setdefault(due, self.position)

    def _watch(self, due: Due) -> None:
        heapq.heappush(self._open, (self._final_at(due), due))

    def _final_at(self, due: Due) -> int:
        campaign_id, key = due
        campaign, window = self._campaign(campaign_id), self._windows[key.name]
        platforms = {part.rollup.platform for part in campaign.parts(window, key.ordinal)}
        return campaign.end_ms(window, key.ordinal) + self.config.lateness_ms(platforms)

    def _emit(self, due: Due, watermark: int, now_ms: int, *, preliminary: bool) -> Emission | None:
        """Publish a window if it is due; what is not stays dirty."""
        campaign_id, key = due
        campaign, window = self._campaign(campaign_id), self._windows[key.name]
        held = self._published.get(due)
        parts = campaign.parts(window, key.ordinal)
        if held is None and not parts:
            del self._dirty[due]
            return None
        settled = held is not None and held.phase != Phase.PRELIMINARY
        final = settled or self._final_at(due) <= watermark
        if not final and due not in self._forced:
            since = now_ms - self._emitted_at.get(due, NEVER)
            if not preliminary or since < self.config.emit_interval_ms:
                return None
        del self._dirty[due]
        insight = self._render(campaign, window, key.ordinal, parts, Phase.PRELIMINARY)
        digest = _digest(insight)
        forced = due in self._forced
        self._forced.discard(due)
        if held is not None and held.digest == digest and (settled or not final):
            if not forced:
                return None
            published = held
        else:
            published = self._advance(held, insight, parts, digest, final=final)
            if held is None and not final:
                self._watch(due)
        published.sequence = self._sequence
        self._published[due] = published
        if final:
            self._emitted_at.pop(due, None)
        else:
            self._emitted_at[due] = now_ms
        shown = shown_as(insight, published)
        latest = campaign.latest(window) == key.ordinal
        return Emission(shown, insight_codec.encode(shown), self._position(campaign), latest)

    def _position(self, campaign: Campaign) -> int:
        """The newest place in the log that a campaign's insights rest on."""
        return max(campaign.position, self.rates.position)

    def _advance(
        self, held: Published | None, insight: CrossPlatformInsight, parts: list[Part], digest: bytes, *, final: bool
    ) -> Published:
        totals = flat_totals(parts) | flat_reporting(insight)
        members = sorted({f"{part.rollup.platform}:{part.rollup.platform_campaign_id}" for part in parts})
        phase, correction = Phase.PRELIMINARY, None
        if held is not None and held.phase != Phase.PRELIMINARY:
            phase = Phase.CORRECTED
            changes = difference(held.totals, totals)
            correction = Correction(reason=reason_for(held.members, members, changes), difference=changes)
        elif final:
            phase = Phase.FINAL
        return Published(
            phase=int(phase),
            revision=insight.version.revision,
            digest=digest,
            totals=totals,
            members=members,
            sequence=self._sequence,
            correction=correction,
            as_of=insight.as_of,
            maturity=insight.maturity,
        )

    def _render(
        self,
        campaign: Campaign,
        window: Window,
        index: int,
        parts: list[Part],
        phase: Phase,
    ) -> CrossPlatformInsight:
        as_of = iso_instant(max((part.rollup.as_of_ms for part in parts), default=0))
        version = Version(campaign.revision(window, index) + self.rates.position + 1, int(phase))
        return build(campaign.campaign_id, window, index, parts, self.config.profile, as_of, version, self.rates)

    def _predictions(self, emissions: list[Emission]) -> list[CtrPrediction]:
        campaigns = [self._campaigns[name] for name in dict.fromkeys(e.insight.campaign_id for e in emissions)]
        return [
            prediction
            for window in self.config.windows
            for prediction in forecast(campaigns, window, self.config.profile, self.config.prior)
        ]

    def _hot(self, emissions: list[Emission]) -> list[Emission]:
        """The newest window of each kind that was published, or that became the newest because a newer one lost its
        content; an empty one where none has any.
        """
        hot = [emission for emission in emissions if emission.latest]
        fresh = {(emission.insight.campaign_id, emission.insight.window) for emission in hot}
        for emission in hot:
            name = (emission.insight.campaign_id, emission.insight.window)
            self._hot_index[name] = self._campaigns[name[0]].latest(self._windows[name[1]]) or 0
        empty: dict[tuple[str, str], Emission] = {}
        for emission in sorted(emissions, key=lambda each: each.insight.window_start):
            name = (emission.insight.campaign_id, emission.insight.window)
            latest = self._campaigns[name[0]].latest(self._windows[name[1]])
            if latest is None:
                self._hot_index.pop(name, None)
                empty[name] = emission
                continue
            if name in fresh or self._hot_index.get(name) == latest:
                continue
            fresh.add(name)
            self._hot_index[name] = latest
            again = self._current((name[0], WindowKey(name[1], latest)))
            if again is not None:
                hot.append(again)
        return [*hot, *empty.values()]

    def _current(self, due: Due) -> Emission | None:
        """What was last published of a window, from state; none where that has moved on and its news is on the way."""
        campaign_id, key = due
        published = self._published.get(due)
        if published is None:
            return None
        campaign, window = self._campaign(campaign_id), self._windows[key.name]
        parts = campaign.parts(window, key.ordinal)
        insight = self._render(campaign, window, key.ordinal, parts, Phase.PRELIMINARY)
        if _digest(insight) != published.digest:
            self._forced.add(due)
            return None
        shown = shown_as(insight, published)
        latest = campaign.latest(window) == key.ordinal
        return Emission(shown, insight_codec.encode(shown), self._position(campaign), latest)

    def hot(self) -> Iterator[tuple[list[Emission], list[CtrPrediction]]]:
        """All that Redis should hold, campaign by campaign, to make it whole again."""
        for campaign in list(self._campaigns.values()):
            newest = []
            for window in self.config.windows:
                latest = campaign.latest(window)
                if latest is None:
                    continue
                current = self._current((campaign.campaign_id, WindowKey(window.name, latest)))
                if current is not None:
                    newest.append(current)
            predictions = [
                prediction
                for window in self.config.windows
                for prediction in forecast([campaign], window, self.config.profile, self.config.prior)
            ]
            yield newest, predictions

    def insights(self) -> Iterator[CrossPlatformInsight]:
        """Every window that has content, rendered from state, by campaign, kind and time. Nothing is marked as
        published.
        """
        for campaign_id in sorted(self._campaigns):
            campaign = self._campaigns[campaign_id]
            for key in sorted(campaign.windows(self.config.windows)):
                window = self._windows[key.name]
                final = self._final_at((campaign_id, key)) <= self.watermarks.value
                phase = Phase.FINAL if final else Phase.PRELIMINARY
                parts = campaign.parts(window, key.ordinal)
                yield self._render(campaign, window, key.ordinal, parts, phase)

    def predictions(self) -> list[CtrPrediction]:
        """The predictions for every campaign's next windows."""
        campaigns = [self._campaigns[campaign_id] for campaign_id in sorted(self._campaigns)]
        return [
            prediction
            for window in self.config.windows
            for prediction in forecast(campaigns, window, self.config.profile, self.config.prior)
        ]


def _digest(insight: CrossPlatformInsight) -> bytes:
    return blake2b(insight_codec.content(insight), digest_size=16).digest()
