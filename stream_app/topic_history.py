"""Daily history from the input topics: what workers make of them, a row for each campaign, platform and day.

Read as a replay reads (``stream_app.replay``): no group, nothing written, state in memory, up to the present end.
"""

from collections.abc import Callable

import msgspec

from core.accounts import AccountHistory
from core.aggregate import Aggregate
from schemas.event import DAY_MS
from schemas.topics import ACCOUNTS
from stream_app import replay
from stream_app.domain import ingest_config
from stream_app.extent import ExtentReader
from stream_app.history import EPOCH, DailyRows, between, linked
from stream_app.settings import Settings


class TopicHistory(msgspec.Struct, frozen=True):
    """The rows, what was read, and a sentence for each partition that no longer holds all of those days."""

    rows: DailyRows
    sources: tuple[str, ...]
    lost: list[str]


def read(
    settings: Settings, first: int | None, end: int, progress: Callable[[int, int], None] | None = None
) -> TopicHistory:
    """The days from ``first`` up to ``end`` (as ``date.toordinal`` counts; ``end`` is not among them). ``progress``
    gets the records read and how many there are.

    Raises ``SetupError`` and ``ServerAbsent``.
    """
    request = replay.Request(from_ms=None if first is None else (first - EPOCH) * DAY_MS)
    ingest = msgspec.structs.replace(ingest_config(settings), partitions=1)
    accounts, aggregate = AccountHistory(ingest.accounts), Aggregate()
    watermarks: dict[tuple[str, int], int] = {}
    offset = done = 0
    with ExtentReader(settings) as reader:
        extents, lost = replay.inputs(reader, settings, request, replay.scope_of(settings, request))
        total = sum(map(len, extents.values()))
        for source, extent in extents.items():
            for batch in reader.read(extent):
                if source[0] == ACCOUNTS:
                    accounts.take(batch, ingest.lateness, ingest.max_payload_bytes)
                ingested = ingest.batch(*source, batch, watermarks.get(source, -1), history=accounts)
                watermarks[source] = ingested.watermark_ms
                for _, payload in ingested.envelopes:
                    aggregate.apply(offset, payload)
                    offset += 1
                done += len(batch)
                if progress is not None:
                    progress(done, total)
    sources = tuple(
        f"{extent.topic}/{extent.partition} [{extent.start}, {extent.end})"
        for extent in extents.values()
        if len(extent)
    )
    return TopicHistory(between(linked(aggregate), first, end), sources, lost)
