"""Where stock Faust 0.15.3 loses or repeats records, and that Parallax does not: each time one situation for both.

A record is lost when its offset is committed and it has not come out: no worker will read it again.
"""

import asyncio
from typing import Any

import pytest
from aiokafka.errors import CommitFailedError, KafkaTimeoutError
from aiokafka.structs import TopicPartition

from stream_app.checkpoint import Checkpoints
from stream_app.domain import ingest_config
from stream_app.ingest_stage import IngestStage
from stream_app.producer import Outgoing
from tests.memory_kafka import MemoryKafka, until
from tests.stock_faust import Worker, no_kafka, parallax_worker, play, stock_worker

__all__ = ["no_kafka"]

pytestmark = [pytest.mark.alone, pytest.mark.usefixtures("no_kafka")]


async def all_out(worker: Worker) -> int | None:
    """The committed offset once everything fed has come out and is committed."""
    values = [record.value for record in worker.kafka.records[worker.source]]
    await until(lambda: set(worker.sent) == set(values), "everything has come out")
    await until(lambda: worker.finished(worker.kafka.end(worker.source) - 1), "the last one is finished")
    return await worker.commit()


def test_records_that_finish_out_of_order() -> None:
    """``Consumer._new_offset`` (transport/consumer.py:1140) takes the lowest acked offset for the start of a finished
    run, whether or not the ones before it are done: it compares it with the committed offset by ``> 1``, and with
    none by nothing.
    """

    async def script(worker: Worker) -> None:
        worker.kafka.fetch_limit = 1
        worker.hold(b"slow")
        await worker.assign()
        worker.feed(b"slow", b"quick")
        await until(lambda: worker.sent == [b"quick"] and worker.finished(1), "the second is done, the first is not")
        await worker.commit()

    async def stock(worker: Worker) -> None:
        await script(worker)
        assert (worker.committed, worker.lost) == (2, [b"slow"])

    async def stock_later(worker: Worker) -> None:
        worker.feed(b"done before")
        worker.kafka.committed[worker.source] = 1
        worker.kafka.append(TopicPartition("sink", 0), b"done before")
        worker.hold(b"slow")
        await worker.assign()
        worker.feed(b"slow", b"quick")
        await until(lambda: worker.finished(2), "the third is done, the second is not")
        assert (await worker.commit(), worker.lost) == (3, [b"slow"])

    async def parallax(worker: Worker) -> None:
        await script(worker)
        assert (worker.committed, worker.lost) == (None, [])
        worker.release(b"slow")
        assert await all_out(worker) == 2

    play(lambda kafka: stock_worker(kafka, concurrency=2), stock)
    play(lambda kafka: stock_worker(kafka, concurrency=2), stock_later)
    play(parallax_worker, parallax)


@pytest.mark.parametrize("gap", [False, True])
def test_a_gap_in_the_offsets(gap: bool) -> None:
    """``Consumer._drain_messages`` adds a gap that reaches up to and including the record behind it
    (transport/consumer.py:1206, 1164): on compacted and transactional topics that record counts as done before it is
    read. Without a gap, the same order of acks is committed rightly.
    """

    async def script(worker: Worker) -> None:
        worker.kafka.fetch_limit = 1
        worker.hold(b"slow")
        await worker.assign()
        worker.feed(b"0", b"1")
        assert await all_out(worker) == 2
        if not gap:
            worker.feed(b"2")
        worker.feed(b"slow", b"quick", offset=3)
        await until(lambda: b"quick" in worker.sent and worker.finished(4), "the last one is done")
        await worker.commit()

    async def stock(worker: Worker) -> None:
        await script(worker)
        assert (worker.committed, worker.lost) == ((5, [b"slow"]) if gap else (3, []))

    async def parallax(worker: Worker) -> None:
        await script(worker)
        assert (worker.committed, worker.lost) == (2 if gap else 3, [])
        worker.release(b"slow")
        assert await all_out(worker) == 5

    play(lambda kafka: stock_worker(kafka, concurrency=2), stock)
    play(parallax_worker, parallax)


def test_a_rebalance_after_records_were_done() -> None:
    """``Consumer.on_partitions_revoked`` (transport/consumer.py:659) drops the acked offsets of the partitions, and
    only then runs the last commit, which finds nothing: all since the commit before is done twice.
    """

    async def script(worker: Worker) -> None:
        await worker.assign()
        worker.feed(b"0", b"1", b"2")
        await until(lambda: worker.finished(2), "all are done")
        await worker.rebalance()
        worker.feed(b"3")
        assert await all_out(worker) == 4

    async def stock(worker: Worker) -> None:
        await script(worker)
        assert worker.repeated == [b"0", b"1", b"2"]

    async def parallax(worker: Worker) -> None:
        await script(worker)
        assert worker.repeated == []

    play(stock_worker, stock)
    play(parallax_worker, parallax)


def test_a_send_that_fails() -> None:
    """``Topic._on_published`` (topics.py:463) warns of a failed send, and nothing else hears of it: the record that
    led to it is acked when the agent goes on, and committed.
    """

    async def stock(worker: Worker) -> None:
        worker.kafka.failing.add(b"0")
        await worker.assign()
        worker.feed(b"0")
        await until(lambda: worker.finished(0), "Faust takes it for done")
        assert (await worker.commit(), worker.lost, worker.app.crashed) == (1, [b"0"], False)

    async def parallax(worker: Worker) -> None:
        worker.kafka.failing.add(b"0")
        await worker.assign()
        worker.feed(b"0")
        await until(worker.app.ingest.failure, "the failure is seen")
        assert (await worker.commit(), worker.lost) == (None, [])
        with pytest.raises(KafkaTimeoutError):
            await worker.app.check()

    async def without_waiting(stream: Any, sink: Any) -> None:
        async for value in stream:
            await sink.send(value=value)

    play(lambda kafka: stock_worker(kafka, without_waiting), stock)
    play(parallax_worker, parallax)


def test_table_writes_that_the_producer_has_not_taken() -> None:
    """``ProducerBuffer.flush_atmost`` (transport/producer.py:78) gives up after 0.1 s without progress, and the
    commit that waits for it goes on: the changelog records are still in memory, their source is committed.
    """

    async def stock(worker: Worker) -> None:
        await worker.assign()
        worker.kafka.accepting.clear()
        worker.feed(b"0", b"1", b"2")
        await until(lambda: worker.finished(2), "all are done")
        assert await worker.commit() == 3
        assert worker.kafka.values("stock-seen-changelog") == []
        assert worker.app.producer.buffer.size == 2

    async def parallax(worker: Worker) -> None:
        stage = worker.app.ingest
        await worker.assign()
        worker.kafka.accepting.clear()
        worker.feed(b"0", b"1", b"2")
        await until(lambda: stage.changed, "all are applied")
        checkpoint = asyncio.create_task(stage.checkpoints.run())
        await until(lambda: stage.checkpoints.writing and not stage.changed, "the producer has been asked")
        assert await worker.commit() is None
        worker.kafka.accepting.set()
        await checkpoint
        assert worker.kafka.values("changelog") == [b"0", b"1", b"2"]
        assert await worker.commit() == 3

    play(writing_a_table, stock)
    play(writing_a_changelog, parallax)


def writing_a_table(kafka: MemoryKafka) -> Worker:
    """A plain worker whose agent remembers each value in a table."""

    async def remember(stream: Any, _sink: Any) -> None:
        async for value in stream:
            table[value] = value

    worker = stock_worker(kafka, remember)
    table = worker.app.Table("seen", key_type=bytes, value_type=bytes, partitions=1)
    return worker


def writing_a_changelog(kafka: MemoryKafka) -> Worker:
    """A Parallax worker whose checkpoints write what it reads to a changelog."""
    worker = parallax_worker(kafka)
    worker.app.ingest = ChangelogStage(worker.app)
    return worker


class ChangelogStage(IngestStage):
    """Keeps what it reads until the next checkpoint."""

    def __init__(self, app: Any) -> None:
        super().__init__(app.settings, ingest_config(app.settings), app.batches, app.accounts)
        self.changed: list[Outgoing] = []
        self.checkpoints = Checkpoints(
            self._write, lambda tp, offset: app.consumer.finish(tp, offset), interval_seconds=60
        )

    async def take(self, event: Any, _consumer: Any) -> None:
        records = event.message.value.records
        self.changed += [Outgoing("changelog", 0, record.value, record.value) for record in records]
        self.checkpoints.applied(event.message.tp, records[-1].offset, len(records))

    async def _write(self) -> set[int]:
        changed, self.changed = self.changed, []
        await self._producer.send(changed)
        return set()


def test_an_agent_that_raises() -> None:
    """``Stream.__aiter__`` (streams.py:1186) acks in a ``finally``, so also the event on which the agent's body
    raised; the supervisor starts the agent again behind it. ``stream_ack_exceptions`` has no effect any more.
    """

    async def stock(worker: Worker) -> None:
        worker.kafka.refused.add(b"1")
        await worker.assign()
        worker.feed(b"0", b"1", b"2")
        await until(lambda: b"2" in worker.sent and worker.finished(2), "the last one is done")
        assert (await worker.commit(), worker.lost, worker.app.crashed) == (3, [b"1"], False)

    async def parallax(worker: Worker) -> None:
        worker.kafka.fetch_limit = 1
        worker.kafka.refused.add(b"1")
        await worker.assign()
        worker.feed(b"0", b"1", b"2")
        await until(lambda: worker.app.crashed, "the worker ends")
        await until(lambda: worker.finished(0), "the first is done")
        assert (await worker.commit(), worker.lost) == (1, [])

    play(stock_worker, stock)
    play(parallax_worker, parallax)


def test_a_commit_that_fails() -> None:
    """``Consumer._commit_offsets`` (transport/consumer.py:1080) notes an offset as committed when the commit was
    refused too, and ``_new_offset`` has forgotten what it was made of: it is not tried again.
    """

    async def script(worker: Worker) -> int | None:
        worker.kafka.commit_failures.append(CommitFailedError("already rebalanced"))
        await worker.assign()
        worker.feed(b"0", b"1", b"2")
        await until(lambda: worker.finished(2), "all are done")
        assert await worker.commit() is None
        assert not worker.kafka.commit_failures
        return await worker.commit()

    async def stock(worker: Worker) -> None:
        assert await script(worker) is None
        assert worker.app.consumer._committed_offset[worker.source] == 3

    async def parallax(worker: Worker) -> None:
        assert await script(worker) == 3

    play(stock_worker, stock)
    play(parallax_worker, parallax)


@pytest.mark.parametrize("missed", [1, 2])
def test_records_fetched_while_recovery_ends(missed: int) -> None:
    """``Recovery.on_recovery_completed`` (tables/recovery.py:650) resumes fetching, awaits a seek to the committed
    offsets, and then ``flow_control.resume()`` empties the streams' queues: what was fetched in between is gone. The
    seek has also set back the offset last read, so the missing ones count as a gap and are committed with the next.
    """
    swept = [b"swept %d" % number for number in range(missed)]

    async def script(worker: Worker) -> None:
        changelogs = [TopicPartition(topic, 0) for topic in sorted(worker.app.tables.changelog_topics)]
        for tp in changelogs:
            worker.kafka.append(tp, b"1", b"key")
        worker.feed(b"done before", b"slow", *swept)
        worker.kafka.committed[worker.source] = 1
        worker.kafka.append(TopicPartition(worker.sink, 0), b"done before")
        worker.hold(b"slow")
        worker.kafka.while_seeking = worker.fetched_or_waited
        await worker.assign(*changelogs)
        worker.release(b"slow")
        worker.feed(b"next")
        await until(lambda: b"next" in worker.sent and worker.finished(2 + missed), "the last one is done")
        await worker.commit()
        await worker.commit()

    async def stock(worker: Worker) -> None:
        await script(worker)
        assert worker.sent == [b"done before", b"slow", b"next"]
        assert (worker.committed, worker.lost) == (3 + missed, swept)

    async def parallax(worker: Worker) -> None:
        await script(worker)
        assert worker.sent == [b"done before", b"slow", *swept, b"next"]
        assert worker.committed == 3 + missed

    play(with_table, stock)
    play(parallax_worker, parallax)


def with_table(kafka: MemoryKafka) -> Worker:
    """A plain worker that forwards, and has a table to recover."""
    worker = stock_worker(kafka)
    worker.app.Table("seen", key_type=bytes, value_type=bytes, partitions=1)
    return worker
