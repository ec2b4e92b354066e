"""A stage finishes and writes nothing that it does not have: after a lost tenure, a failure, a checkpoint cut short."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from core.aggregate import TableWrite
from stream_app.batch_transport import Batch
from stream_app.partition_writer import TenureLost
from stream_app.producer import Ends, Outgoing
from stream_app.settings import Settings
from stream_app.stage import PartitionedStage, Work
from stream_app.store import MemoryStore
from stream_app.table import ChangelogTable
from tests.histories import Record
from tests.memory_kafka import until

TOPIC = "numbers"


class Numbers:
    """Each record is a key of its own. What a checkpoint has taken is not taken again."""

    def __init__(self) -> None:
        self.position = -1
        self.new: list[TableWrite] = []
        self.waiting = False

    def apply(self, offset: int, payload: bytes) -> None:
        if offset > self.position:
            self.position = offset
            self.new.append(TableWrite(b"%d" % offset, payload))


class Stage(PartitionedStage[Numbers]):
    """Checkpoints are written when a test wants it."""

    broken: int | None = None
    on_take: Callable[[], object] | None = None

    def _restore(self, partition: int) -> Numbers:
        state = Numbers()
        state.position = max(map(int, self._table.contents(partition)), default=-1)
        return state

    def _take(self, partition: int, state: Numbers) -> Work | None:
        if not (state.new or state.waiting):
            return None
        writes, state.new = state.new, []
        if self.on_take is not None:
            self.on_take()
        if partition == self.broken:
            raise RuntimeError("a block cannot be read")
        return Work(writes, [], lambda: None)


class Writer:
    """Awaits ``first`` before it takes a checkpoint."""

    def __init__(self) -> None:
        self.written: list[bytes | None] = []
        self.first: Callable[[], Awaitable[object]] | None = None

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def write(self, changelog: Sequence[Outgoing], _outputs: Sequence[Outgoing]) -> Ends:
        if self.first is not None:
            await self.first()
        self.written += [record.value for record in changelog]
        return {}


class Played:
    """A stage with two open partitions, their writers, and what it has finished."""

    def __init__(self) -> None:
        self.writers = [Writer(), Writer()]
        self.finished: list[tuple[int, int]] = []
        self.rejoined = 0
        self.consumer: Any = SimpleNamespace(
            finish=lambda tp, offset: self.finished.append((tp.partition, offset)), rejoin=self._rejoin
        )
        table = ChangelogTable(Settings(), "changelog", lambda _partition: MemoryStore())
        table.recover = lambda *_: None  # type: ignore[method-assign]
        self.stage = Stage(Settings(), table, self.writers.__getitem__, lambda: self.consumer)

    def _rejoin(self) -> None:
        self.rejoined += 1

    async def open(self) -> None:
        await self.stage.open({0, 1}, threading.Event())

    async def take(self, partition: int, offset: int) -> None:
        record = Record(offset, 0, None, b"%d/%d" % (partition, offset))
        message = SimpleNamespace(value=Batch([record], 0), tp=TP(TOPIC, partition))
        self.stage.checkpoints._last = float("inf")
        await self.stage.take(SimpleNamespace(message=message), self.consumer)


def test_a_batch_that_came_while_its_tenure_was_being_lost_is_not_finished() -> None:
    """Scenario: a checkpoint without a batch is on its way when a batch is applied; the partition turns out to have
    another owner; the next checkpoint is written.

    Expectation: the batch, which nobody wrote, is not finished: what is finished is committed, and read by no one.
    """

    async def run() -> None:
        played = Played()
        await played.open()
        answer = asyncio.Event()

        async def refused() -> None:
            await answer.wait()
            raise TenureLost("fenced")

        played.writers[0].first = refused
        played.stage.partitions[0].waiting = True
        checkpoint = asyncio.create_task(played.stage.checkpoints.run())
        await until(lambda: played.stage.checkpoints.writing, "a checkpoint is on its way")
        await asyncio.sleep(0)
        await played.take(0, 7)
        await played.take(1, 7)
        answer.set()
        await checkpoint
        await played.stage.checkpoints.run()
        assert played.finished == [(1, 7)]
        assert (played.writers[0].written, played.writers[1].written, played.rejoined) == ([], [b"1/7"], 1)

    asyncio.run(run())


@pytest.mark.parametrize("when", ["while it is taken", "while it is written"])
def test_a_checkpoint_that_is_cut_short_is_followed_by_none_of_the_same_state(when: str) -> None:
    """Scenario: a rebalance cancels a checkpoint, and writes a last one.

    Expectation: what the first one took is in no state any more, so the last one writes nothing of those partitions,
    and all of the others.
    """

    async def run() -> None:
        played = Played()
        await played.open()
        for partition in (0, 1):
            await played.take(partition, 0)
        checkpoint = asyncio.create_task(played.stage.checkpoints.run())
        if when == "while it is taken":
            played.stage.on_take = checkpoint.cancel
        else:
            never = asyncio.Event()
            played.writers[1].first = never.wait
            await until(lambda: played.writers[0].written, "the first is written")
            checkpoint.cancel()
        with suppress(asyncio.CancelledError):
            await checkpoint
        played.stage.on_take = played.writers[1].first = None
        before = list(played.writers[0].written)
        for partition in (0, 1):
            await played.take(partition, 1)
        await played.stage.checkpoints.run()
        assert played.writers[0].written == before
        assert played.writers[1].written in ([], [b"1/0", b"1/1"])
        assert [partition for partition, _ in played.finished if partition == 0] == []

    asyncio.run(run())


def test_a_checkpoint_that_failed_is_followed_by_none() -> None:
    """Scenario: of two partitions one cannot be taken; before the worker ends, a checkpoint is due again.

    Expectation: the other one's first batch is not left out of what is written later.
    """

    async def run() -> None:
        played = Played()
        await played.open()
        for partition in (0, 1):
            await played.take(partition, 0)
        played.stage.broken = 1
        with pytest.raises(RuntimeError):
            await played.stage.checkpoints.run()
        played.stage.broken = None
        for partition in (0, 1):
            await played.take(partition, 1)
        await played.stage.checkpoints.run()
        assert ([writer.written for writer in played.writers], played.finished) == ([[], []], [])

    asyncio.run(run())


def test_a_checkpoint_that_outlives_its_tenure_leaves_the_next_one_alone() -> None:
    """Scenario: a rebalance gives up the partitions in the middle of a checkpoint; they come back to the same worker.

    Expectation: that the checkpoint fails then costs the new tenure nothing, neither its state nor its batches.
    """

    async def run() -> None:
        played = Played()
        await played.open()
        answer = asyncio.Event()

        async def refused() -> None:
            await answer.wait()
            raise TenureLost("given up")

        await played.take(0, 0)
        played.writers[0].first = refused
        checkpoint = asyncio.create_task(played.stage.checkpoints.run())
        await until(lambda: played.stage.checkpoints.writing, "a checkpoint is on its way")
        await asyncio.sleep(0)
        await played.stage.close({0, 1})
        played.writers[0] = Writer()
        await played.open()
        await played.take(0, 0)
        answer.set()
        await checkpoint
        await played.stage.checkpoints.run()
        assert (played.writers[0].written, played.finished, played.rejoined) == ([b"0/0"], [(0, 0)], 0)

    asyncio.run(run())
