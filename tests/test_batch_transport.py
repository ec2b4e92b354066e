"""What may be committed of a partition: whatever is delivered, finished and delivered again, never past open work."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stream_app import app
from stream_app.batch_transport import _Delivered
from tests.memory_kafka import until
from tests.stock_faust import Worker, no_kafka, parallax_worker, play

__all__ = ["no_kafka"]

HOLES = st.frozensets(st.integers(0, 60))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("deliver"), st.integers(1, 5)),
        st.tuples(st.just("finish"), st.integers(0, 30)),
        st.tuples(st.just("seek"), st.integers(0, 30)),
    ),
    max_size=60,
)


class Partition:
    """A partition that is read, with offsets that no record has. The model knows what is done record by record."""

    def __init__(self, holes: frozenset[int]) -> None:
        self.delivered = _Delivered()
        self.position = 0
        self.done: set[int] = set()
        self.open: list[list[int]] = []
        self._holes = holes

    @property
    def committed(self) -> int:
        return max(0, self.delivered.committable)

    @property
    def undone(self) -> set[int]:
        """Records below the committed offset that are not done."""
        return set(range(self.committed)) - self._holes - self.done

    def deliver(self, records: int) -> None:
        """Fetch some records from the position on."""
        batch: list[int] = []
        while len(batch) < records:
            if self.position not in self._holes:
                batch.append(self.position)
            self.position += 1
        self.open.append(batch)
        self.delivered.deliver(batch[0], batch[-1])

    def finish(self, index: int) -> None:
        """Finish one of the batches under way."""
        if self.open:
            batch = self.open.pop(index % len(self.open))
            self.done |= set(batch)
            self.delivered.finish(batch[-1])

    def seek(self, index: int) -> None:
        """Go back to a batch under way: it and those behind it were dropped."""
        if self.open:
            self.position = sorted(self.open)[index % len(self.open)][0]
            self.open = [batch for batch in self.open if batch[-1] < self.position]


def states(holes: frozenset[int], steps: list[tuple[str, int]]) -> Iterator[Partition]:
    partition = Partition(holes)
    for step, number in steps:
        getattr(partition, step)(number)
        yield partition


# The second batch is finished, dropped with the first, and read again as the end of a larger one.
STALE = [("deliver", 1), ("deliver", 1), ("finish", 1), ("seek", 0), ("deliver", 2), ("deliver", 1), ("finish", 1)]


@given(HOLES, STEPS)
@example(frozenset(), STALE)
def test_no_unfinished_record_is_committed(holes: frozenset[int], steps: list[tuple[str, int]]) -> None:
    for partition in states(holes, steps):
        assert not partition.undone


@given(HOLES, STEPS)
def test_what_is_committed_never_falls(holes: frozenset[int], steps: list[tuple[str, int]]) -> None:
    before = 0
    for partition in states(holes, steps):
        assert partition.committed >= before
        before = partition.committed


@given(HOLES, STEPS, st.lists(st.integers(0, 30), min_size=1))
def test_all_is_committed_once_all_is_finished(
    holes: frozenset[int], steps: list[tuple[str, int]], order: list[int]
) -> None:
    partition = Partition(holes)
    for step, number in steps:
        getattr(partition, step)(number)
    partition.deliver(1)
    while partition.open:
        partition.finish(order[len(partition.open) % len(order)])
    assert partition.committed == partition.position


@pytest.mark.usefixtures("no_kafka")
def test_a_worker_outlives_a_rebalance_that_could_not_wait_for_its_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was under way is read again, in another cut; that it becomes durable after all finishes nothing."""
    monkeypatch.setattr(app, "REVOKE_S", 0.05)

    async def script(worker: Worker) -> None:
        worker.kafka.fetch_limit = 1
        worker.hold(b"slow", b"late")
        await worker.assign()
        worker.feed(b"slow", b"late")
        await until(lambda: worker.app.ingest.records == 2, "two batches are under way")
        await worker.revoke()
        worker.kafka.fetch_limit = 2
        await worker.assign()
        await until(lambda: worker.app.ingest.records == 4, "both are under way again, as one batch")
        worker.release(b"late")
        await until(lambda: worker.sent == [b"late"], "the second batch of before is durable")
        assert (await worker.commit(), worker.lost) == (None, [])
        worker.release(b"slow")
        await until(lambda: worker.finished(1), "all is durable")
        await worker.rebalance()
        assert (worker.committed, worker.lost) == (2, [])

    play(parallax_worker, script)


@pytest.mark.usefixtures("no_kafka")
def test_a_consumer_that_crashed_does_not_ask_its_thread_for_a_last_commit() -> None:
    """The thread is ending as well. What is asked of one that has ended is never answered, and the stop would hang."""

    async def script(worker: Worker) -> None:
        await worker.assign()
        worker.feed(b"0")
        await until(lambda: worker.finished(0), "there is something to commit")
        await worker.app.consumer.crash(RuntimeError("the disk is full"))
        await worker.app.consumer.on_stop()
        assert worker.committed is None

    play(parallax_worker, script)


@pytest.mark.usefixtures("no_kafka")
def test_a_rebalance_that_begins_while_streams_resume_is_not_over_with_them() -> None:
    """``Recovery._resume_streams`` (tables/recovery.py:629) looks at the generation, awaits a seek, and then calls the
    rebalance over, though the next one may have begun during the seek.
    """

    async def script(worker: Worker) -> None:
        application = worker.app
        revoked: list[Any] = []

        async def next_rebalance() -> None:
            worker.kafka.while_seeking = None
            revoked.append(worker._listener.on_partitions_revoked(worker.kafka.consumer.assignment()))

        worker.kafka.while_seeking = next_rebalance
        first = asyncio.create_task(worker.assign())
        await until(lambda: application.tables.recovery.completed.is_set(), "the streams were resumed")
        await until(lambda: application.tables.actives_ready, "all is told that they were")
        await asyncio.sleep(0)
        assert application.rebalancing
        assert not application.settled
        await revoked[0]
        await worker.assign()
        await first
        worker.feed(b"0", b"1")
        await until(lambda: worker.sent == [b"0", b"1"], "the stream goes on")

    play(parallax_worker, script)


@pytest.mark.usefixtures("no_kafka")
def test_a_source_of_which_nothing_was_fetched_is_not_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenario: a worker comes back to a backlog; the sources' heartbeat is due before the first answer to a fetch.

    Expectation: the source is not called idle, which would let the watermark pass what waits to be read.
    """

    async def script(worker: Worker) -> None:
        told: list[bool] = []
        monkeypatch.setattr(worker.app.ingest, "_ingest", Told(told))
        with monkeypatch.context() as unfetched:
            unfetched.setattr(worker.kafka.consumer, "highwater", lambda _tp: None)
            await worker.assign()
            await worker.app.beat()
            assert told == [False]
        await worker.app.beat()
        assert told == [False, True]

    play(parallax_worker, script)


@pytest.mark.usefixtures("no_kafka")
def test_a_last_commit_takes_what_was_finished_during_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenario: the timer's commit is on its way while a batch is finished, and the partitions are given up.

    Expectation: nothing that is finished is delivered again.
    """

    async def script(worker: Worker) -> None:
        worker.kafka.fetch_limit = 1
        await worker.assign()
        worker.hold(b"1")
        worker.feed(b"0", b"1")
        await until(lambda: worker.finished(0), "the first is done")
        answer, commit = asyncio.Event(), worker.kafka.consumer.commit

        async def slow_commit(offsets: Any) -> None:
            await answer.wait()
            await commit(offsets)

        monkeypatch.setattr(worker.kafka.consumer, "commit", slow_commit)
        timer = asyncio.create_task(worker.app.consumer.commit())
        await until(lambda: worker.app.consumer._commit_fut is not None, "a commit is on its way")
        worker.release(b"1")
        await until(lambda: worker.finished(1), "the second is done")
        revocation = asyncio.create_task(worker.revoke())
        await asyncio.sleep(0.05)
        answer.set()
        await asyncio.gather(timer, revocation)
        assert worker.committed == 2

    play(parallax_worker, script)


@pytest.mark.usefixtures("no_kafka")
def test_a_batch_of_before_is_not_current_though_the_generation_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenario: a worker that is not the group's leader joins again with the same metadata: the coordinator answers
    with the generation that there is, and the streams go back to what is committed.

    Expectation: a batch of before is dropped: applied now, it would hide from the state what it has to read again.
    """

    async def script(worker: Worker) -> None:
        events: list[Any] = []

        async def keep(event: Any, _consumer: Any) -> None:
            events.append(event)

        monkeypatch.setattr(worker.app.ingest, "take", keep)
        await worker.assign()
        worker.feed(b"0")
        await until(lambda: events, "a batch is in an agent's hands")
        assert worker.app.is_current(events[0])
        await worker.revoke()
        worker.kafka.consumer._coordinator.generation -= 1
        await worker.assign()
        assert not worker.app.is_current(events[0])
        await until(lambda: len(events) == 2, "it is delivered again")
        assert worker.app.is_current(events[1])

    play(parallax_worker, script)


class Told:
    """Stands in for ``Ingest``: what is told of idleness."""

    def __init__(self, told: list[bool]) -> None:
        self._told = told

    def heartbeat(self, _topic: str, _partition: int, _watermark: int, *, idle: bool) -> list[tuple[int, bytes]]:
        self._told.append(idle)
        return []
