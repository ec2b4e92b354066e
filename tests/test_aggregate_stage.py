"""The aggregate stage sends a dead letter for every row too late for its day, before the mark that tells of it."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from faust.types import TP

from core.aggregate import MARK_KEY, TableWrite
from schemas import dead_letter
from schemas.topics import DEAD_LETTERS, ROUTED
from stream_app.aggregate_stage import AggregateStage
from stream_app.batch_transport import Batch
from stream_app.producer import Outgoing
from stream_app.settings import Settings
from tests.histories import HOUR, Record, delta
from tests.pipeline import put
from tests.routed_log import Log, now


class Kept:
    """A table and a producer that keep what they get, in order."""

    def __init__(self) -> None:
        self.contents: dict[int, dict[bytes, bytes]] = defaultdict(dict)
        self.sent: list[Outgoing] = []

    def outgoing(self, partition: int, writes: Iterable[TableWrite]) -> list[Outgoing]:
        return [Outgoing("changelog", partition, write.key, write.value) for write in writes]

    def written(self, partition: int, writes: Iterable[TableWrite]) -> None:
        put(self.contents[partition], writes)

    async def send(self, records: Iterable[Outgoing]) -> None:
        self.sent += records


def refused(log: Log, settings: Settings) -> tuple[Kept, list[int]]:
    """What a stage sent when it had applied a log of a single partition, and what it then finished."""
    kept, finished = Kept(), list[int]()
    consumer: Any = SimpleNamespace(finish=lambda _tp, offset: finished.append(offset))
    double: Any = kept
    stage = AggregateStage(settings, double, double, lambda: consumer)
    records = [Record(offset, 0, None, payload) for offset, payload in enumerate(log.payloads)]
    event = SimpleNamespace(message=SimpleNamespace(value=Batch(records, 0), tp=TP(ROUTED, 0)))
    stage.open({0})

    async def run() -> None:
        await stage.take(event, consumer)
        await stage.checkpoints.run()

    asyncio.run(run())
    return kept, finished


def test_a_row_too_late_for_its_day_becomes_a_dead_letter_that_its_mark_follows() -> None:
    """The worker's own settings say when: deltas are in time for a day, and stay so for a day of grace."""
    log = Log().write([delta("a", HOUR, clicks=1), *now(1)]).write(now(5)).write([delta("b", HOUR, clicks=7)])
    kept, finished = refused(log, Settings(partitions=1))
    assert finished == [len(log.payloads) - 1]
    places = [at for at, record in enumerate(kept.sent) if record.topic == DEAD_LETTERS]
    marks = [at for at, record in enumerate(kept.sent) if record.key == MARK_KEY]
    assert len(places) == 1
    assert places[0] < marks[0]
    letter = kept.sent[places[0]]
    ((header, told),) = letter.headers
    assert (letter.key, letter.partition, header) == (None, 0, dead_letter.HEADER)
    found = dead_letter.decode(told)
    assert (found.id, found.code, found.source.timestamp_ms) == ("ads.metrics.meta/0/3/0", "too_late", -1)
    assert found.sentence.startswith("the delta's day 2026-03-07 takes no more rows")
    assert letter.value is not None
    assert json.loads(letter.value)["values"] == {"clicks": 7}


def test_what_ingest_still_lets_in_is_applied() -> None:
    log = Log().write([delta("a", HOUR, clicks=1), *now(1)]).write(now(3)).write([delta("b", HOUR, clicks=7)])
    kept, _ = refused(log, Settings(partitions=1))
    assert not [record for record in kept.sent if record.topic == DEAD_LETTERS]
