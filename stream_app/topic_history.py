"""History from the input topics: what workers make of them, by campaign, platform and day, and of each creative's ads.

Read as a replay reads (``stream_app.replay``): no group, nothing written, state in memory, up to the present end.
"""

from collections.abc import Callable

import msgspec

from core.collected import Collected
from schemas.event import DAY_MS
from schemas.topics import CREATIVES
from stream_app import replay
from stream_app.domain import ingest_config
from stream_app.extent import Extent, ExtentReader
from stream_app.history import EPOCH, DailyRows, between, linked
from stream_app.settings import Settings
from stream_app.topics import name

Progress = Callable[[int, int], None]


class TopicHistory(msgspec.Struct, frozen=True):
    """The rows, what was read, and a sentence for each partition that no longer holds all of those days."""

    rows: DailyRows
    sources: tuple[str, ...]
    lost: list[str]


class TopicState(msgspec.Struct, frozen=True):
    """The state of what was read, with the days before the first in part; and as in ``TopicHistory``."""

    state: Collected
    sources: tuple[str, ...]
    lost: list[str]


def read(settings: Settings, first: int | None, end: int, progress: Progress | None = None) -> TopicHistory:
    """The days from ``first`` up to ``end`` (as ``date.toordinal`` counts; ``end`` is not among them). ``progress``
    gets the records read and how many there are.

    Raises ``SetupError`` and ``ServerAbsent``.
    """
    found = collect(settings, first, progress)
    return TopicHistory(between(linked(found.state.aggregate), first, end), found.sources, found.lost)


def collect(
    settings: Settings, first: int | None, progress: Progress | None = None, *, creatives: bool = False
) -> TopicState:
    """The state from the day ``first`` up to the present end, with what was stated of creatives where that is wanted.

    Raises ``SetupError`` and ``ServerAbsent``.
    """
    request = replay.Request(from_ms=None if first is None else (first - EPOCH) * DAY_MS)
    state = Collected(ingest_config(settings))
    with ExtentReader(settings) as reader:
        extents: dict[tuple[str, int], Extent] = {}
        if creatives:
            extents = {(CREATIVES, held.partition): held for held in reader.whole(name(settings, CREATIVES))}
        inputs, lost = replay.inputs(reader, settings, request, replay.scope_of(settings, request))
        extents |= inputs
        total = sum(map(len, extents.values()))
        for source, extent in extents.items():
            for batch in reader.read(extent):
                state.take(*source, batch)
                if progress is not None:
                    progress(state.records, total)
    sources = tuple(
        f"{extent.topic}/{extent.partition} [{extent.start}, {extent.end})"
        for extent in extents.values()
        if len(extent)
    )
    return TopicState(state, sources, lost)
