"""The aggregate stage sends a dead letter for every row too late for its day, with the mark that tells of it."""

import asyncio
import json
import threading
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

from faust.types import TP

from core.aggregate import MARK_KEY, TableWrite
from schemas import dead_letter
from schemas.topics import DEAD_LETTERS, ROUTED
from stream_app.aggregate_stage import AggregateStage
from stream_app.batch_transport import Batch
from stream_app.producer import Ends, Outgoing
from stream_app.settings import Settings
from tests.histories import HOUR, Record, delta
from tests.pipeline import put
from tests.routed_log import Log, now


class Kept:
    """A table and a writer that keep what they get: each checkpoint's changelog and outputs."""

    topic = "changelog"

    def __init__(self) -> None:
        self.held: dict[bytes, bytes] = {}
        self.checkpoints: list[tuple[list[Outgoing], list[Outgoing]]] = []

    def contents(self, _partition: int) -> dict[bytes, bytes]:
        return self.held

    def recover(self, _partitions: set[int], _cancelled: threading.Event) -> None:
        pass

    def outgoing(self, partition: int, writes: Iterable[TableWrite]) -> list[Outgoing]:
        return [Outgoing(self.topic, partition, write.key, write.value) for write in writes]

    def written(self, _partition: int, writes: Iterable[TableWrite], _ends: Ends) -> None:
        put(self.held, writes)

    async def open(self) -> None:
        pass

    async def write(self, changelog: Sequence[Outgoing], outputs: Sequence[Outgoing]) -> Ends:
        self.checkpoints.append((list(changelog), list(outputs)))
        return {}


def taken(log: Log, settings: Settings) -> tuple[Kept, list[int]]:
    """What a stage wrote when it had applied a log of a single partition, and what it then finished."""
    kept, finished = Kept(), list[int]()
    consumer: Any = SimpleNamespace(finish=lambda _tp, offset: finished.append(offset))
    double: Any = kept
    stage = AggregateStage(settings, double, lambda _partition: double, lambda: consumer)
    records = [Record(offset, 0, None, payload) for offset, payload in enumerate(log.payloads)]
    event = SimpleNamespace(message=SimpleNamespace(value=Batch(records, 0), tp=TP(ROUTED, 0)))

    async def run() -> None:
        await stage.open({0}, threading.Event())
        await stage.take(event, consumer)
        await stage.checkpoints.run()

    asyncio.run(run())
    return kept, finished


def letters(outputs: list[Outgoing]) -> list[Outgoing]:
    return [record for record in outputs if record.topic == DEAD_LETTERS]


def test_a_row_too_late_for_its_day_becomes_a_dead_letter_in_the_checkpoint_that_counts_it() -> None:
    """The worker's own settings say when: deltas are in time for a day, and stay so for a day of grace."""
    log = Log().write([delta("a", HOUR, clicks=1), *now(1)]).write(now(5)).write([delta("b", HOUR, clicks=7)])
    kept, finished = taken(log, Settings(partitions=1))
    assert finished == [len(log.payloads) - 1]
    ((changelog, outputs),) = [(log, sent) for log, sent in kept.checkpoints if letters(sent)]
    assert MARK_KEY in [record.key for record in changelog]
    (letter,) = letters(outputs)
    ((header, told),) = letter.headers
    assert (letter.key, letter.partition, header) == (None, 0, dead_letter.HEADER)
    found = dead_letter.decode(told)
    assert (found.id, found.code, found.source.timestamp_ms) == ("ads.metrics.meta/0/3/0", "too_late", -1)
    assert found.sentence.startswith("the delta's day 2026-03-07 takes no more rows")
    assert letter.value is not None
    assert json.loads(letter.value)["values"] == {"clicks": 7}


def test_what_ingest_still_lets_in_is_applied() -> None:
    log = Log().write([delta("a", HOUR, clicks=1), *now(1)]).write(now(3)).write([delta("b", HOUR, clicks=7)])
    kept, _ = taken(log, Settings(partitions=1))
    assert not [record for _, outputs in kept.checkpoints for record in letters(outputs)]
