"""Scorecards in Redis: of each partition and horizon the newest, as JSON, under
``{prefix}:scorecard:{partition}:{horizon}``.

A day is learned once a day and a value lives for an hour or so, so the owner of a partition confirms it meanwhile.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from core.ctr_stream import CtrStream
from schemas.calendar import iso_date
from schemas.event import DAY_MS
from schemas.scorecard import DAY, HORIZONS, LearnedScorecard
from stream_app.hot_store import HotEntry, HotStore, HotValue
from stream_app.scorecards import summary

CONFIRMED_PER_TTL: Final = 3
"""More often than a value turns stale."""


class HotScorecards:
    """Tells when the scorecards of held partitions are to be offered again. ``now`` gives monotonic seconds."""

    def __init__(self, ttl_seconds: int, now: Callable[[], float] = time.monotonic) -> None:
        self._every = ttl_seconds / CONFIRMED_PER_TTL
        self._now = now
        self._next = float("-inf")

    def renew(self) -> None:
        """Offer all of them at the next look: Redis lost them, or they are new here."""
        self._next = float("-inf")

    def due(self, learned: Mapping[int, CtrStream]) -> Iterator[HotEntry]:
        """The scorecards of all partitions, where it is time."""
        if self._now() < self._next:
            return
        self._next = self._now() + self._every
        for partition, one in learned.items():
            if (card := one.scorecard()) is not None:
                yield from entries(partition, card)


def entries(partition: int, card: LearnedScorecard) -> list[HotEntry]:
    """A partition's scorecards on their way to Redis; those of a later day are the newer."""
    return [_entry(partition, card, horizon) for horizon in HORIZONS if card.of(horizon) is not None]


def _entry(partition: int, card: LearnedScorecard, horizon: str) -> HotEntry:
    told = {
        "partition": partition,
        "first_day": iso_date(card.first_day),
        "model": card.model,
        "standings": {
            platform: {"promoted": serves, "reason": reason} for platform, (serves, reason) in card.standings.items()
        },
        "horizon": horizon,
        **summary([card], horizon),
    }
    return HotEntry(
        kind="scorecard",
        campaign_id=str(partition),
        window=horizon,
        revision=card.last_day,
        phase=0,
        value=msgspec.json.encode(told),
        as_of_ms=(card.last_day + 1) * DAY_MS,
    )


class Held(NamedTuple):
    """What Redis holds of a partition: the summary, and how old it is."""

    scorecard: dict[str, Any]
    stored: HotValue


async def read(store: HotStore, partitions: int, horizon: str = DAY) -> list[Held]:
    """What Redis holds of a horizon, by partition. Raises ``HotStoreDown``; what is not JSON is left out."""
    found = []
    for partition in range(partitions):
        stored = await store.get(str(partition), horizon, "scorecard")
        if stored is None:
            continue
        try:
            found.append(Held(msgspec.json.decode(stored.value, type=dict[str, Any]), stored))
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
    return found
