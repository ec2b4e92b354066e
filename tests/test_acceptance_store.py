"""A worker and its machine: a local store that is kept, damaged or full, and a worker that gets nothing done."""

import re
import resource
import signal
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from schemas import topics as names
from stream_app.embedded import RedisServer, Tethered, free_port
from stream_app.feed import Feed
from stream_app.local_worker import LocalWorker
from stream_app.simulator import SimRecord, simulate
from stream_app.topics import blocks_changelog, campaigns_changelog, create
from tests.live import ROOT, Live, Stream, by_id, offline, wait_until
from tests.own_servers import own_kafka

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(240)]
SEED = 20251123
STALLED_S = 60.0


@pytest.fixture(scope="module")
def days() -> list[list[SimRecord]]:
    return [step.records for step in simulate(SEED, 6, 4).steps]


@pytest.fixture
def app(kafka: str, redis: RedisServer, tmp_path: Path) -> Iterator[Live]:
    with Live(kafka, (redis.host, redis.port), tmp_path, store="rocksdb") as app:
        yield app


def read_at_start(worker: LocalWorker) -> int:
    """How many changelog records its last recovery read."""
    status = worker.status()
    assert status is not None
    return sum(int(stage["records"]) for stage in status["recovery"].values())


def kill(worker: LocalWorker) -> None:
    worker.process.process.send_signal(signal.SIGKILL)
    assert worker.process.process.wait(10) == -signal.SIGKILL


def test_a_store_on_disk_is_used_and_one_that_is_damaged_is_built_again(app: Live, days: list[list[SimRecord]]) -> None:
    """Scenario: a worker is killed and comes back; is killed, every file of its store cut in half, and comes back.

    Expectation: the first time it reads nothing but the changelog's tail, the second time all of it; the state is that
    of the records.
    """
    feed = Feed(app.settings)
    first = app.start()
    feed.publish(days[0])
    app.ready(first)
    app.drain(feed.count)
    kill(first)

    second = app.start()
    app.ready(second)
    tail = read_at_start(second)
    feed.publish(days[1])
    app.drain(feed.count)
    kill(second)
    damaged = [path for path in app.settings.datadir.rglob("*") if path.suffix in (".sst", ".log")]
    assert damaged, "RocksDB keeps its files elsewhere"
    for path in damaged:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] + b"\xff" * 64)

    third = app.start()
    app.ready(third)
    whole = read_at_start(third)
    assert tail * 4 < whole, "what was on disk was read again"
    feed.publish(days[2])
    app.drain(feed.count)
    app.check(by_id(offline(feed, app.settings).insights))


def test_a_full_disk_ends_the_worker_and_loses_nothing(app: Live, days: list[list[SimRecord]]) -> None:
    """Scenario: the disk takes no more; later it does again.

    Expectation: the worker ends and says why, having acknowledged nothing that it did not keep; the next one goes on.
    """
    feed = Feed(app.settings)
    first = app.start()
    feed.publish(days[0])
    app.ready(first)
    app.drain(feed.count)
    # A process may not write beyond this size: what is there already is more.
    resource.prlimit(first.process.process.pid, resource.RLIMIT_FSIZE, (1_000, 1_000))
    feed.publish(days[1])
    wait_until("the worker ends, and not by its last resort", lambda: not first.process.running, 30)
    assert first.process.process.returncode not in (0, None)

    second = app.start()
    app.ready(second)
    feed.publish(days[2])
    app.drain(feed.count)
    app.check(by_id(offline(feed, app.settings).insights))


def test_state_that_its_changelog_lost_is_built_again_from_the_logs(
    kafka: str, redis: RedisServer, days: list[list[SimRecord]], tmp_path: Path
) -> None:
    """Scenario: a worker stops cleanly, with all committed; its changelogs are deleted and made anew, empty.

    Expectation: the next one goes back behind what was committed, says so, and comes to the state of the records.
    """
    with Live(kafka, (redis.host, redis.port), tmp_path) as app:
        feed = Feed(app.settings)
        first = app.start()
        feed.publish(days[0])
        feed.publish(days[1])
        app.ready(first)
        app.drain(feed.count)
        first.process.stop()
        committed = app.committed()
        assert any(offset for (topic, _), offset in committed.items() if topic == names.ROUTED)
        changelogs = [blocks_changelog(app.settings), campaigns_changelog(app.settings)]
        admin = AdminClient({"bootstrap.servers": kafka})
        for deleted in admin.delete_topics(changelogs).values():
            deleted.result(20)
        wait_until("the changelogs are gone", lambda: not set(changelogs) & set(admin.list_topics(timeout=10).topics))
        create(app.settings)

        second = app.start()
        app.ready(second)
        feed.publish(days[2])
        wait_until("all is applied again", lambda: counted(second) == feed.count)
        app.drain(feed.count)
        app.check(by_id(offline(feed, app.settings).insights))
        assert "its changelog lost records; they are applied again" in second.log.read_text()


def counted(worker: LocalWorker) -> int:
    """How many records a worker's state has an account of."""
    status = worker.status()
    return 0 if status is None else int(status["accounting"]["records"])


def test_a_worker_told_to_stop_while_the_broker_is_away_ends_in_time(
    redis: RedisServer, days: list[list[SimRecord]], tmp_path: Path
) -> None:
    """Scenario: the broker is away, with work in flight, and the worker gets a SIGTERM; the broker comes back.

    Expectation: it ends within its patience, with a reason; the next one loses nothing of what it had not finished.
    """
    with own_kafka() as broker, Live(broker.bootstrap, (redis.host, redis.port), tmp_path, stop_patience="8s") as app:
        feed = Feed(app.settings)
        first = app.start()
        feed.publish(days[0])
        app.ready(first)
        app.drain(feed.count)
        feed.publish(days[1])
        feed.publish(days[2])
        broker.stop()
        first.process.process.send_signal(signal.SIGTERM)
        told = time.monotonic()
        wait_until("the worker ends", lambda: not first.process.running, 20)
        assert time.monotonic() - told < 12
        assert "had 8 s to stop and did not" in first.log.read_text()
        broker.start()

        second = app.start()
        app.ready(second)
        app.drain(feed.count)
        app.check(by_id(offline(feed, app.settings).insights))


HANGS = """
    import asyncio, sys
    from stream_app import partition_writer

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    partition_writer.TransactionalWriter.write = never
    sys.argv = ["parallax", "worker"]
    from stream_app.cli import main
    main()
"""


def test_a_worker_that_gets_nothing_done_says_so_and_ends(
    app: Live, days: list[list[SimRecord]], tmp_path: Path
) -> None:
    """Scenario: its checkpoints hang while records arrive.

    Expectation: it ends by itself with a reason; another one that works finds everything still to be done.
    """
    log = tmp_path / "hanging.log"
    environment = app.environment() | {"PARALLAX_HEALTH_PORT": str(free_port()), "PARALLAX_STALL_TIMEOUT": "3s"}
    with log.open("wb") as output:
        hanging = Tethered([sys.executable, "-c", textwrap.dedent(HANGS)], output=output, cwd=ROOT, env=environment)
    feed = Feed(app.settings)
    with Stream(feed, [record for day in days for record in day], 500) as stream:
        try:
            wait_until("the worker ends", lambda: not hanging.running, STALLED_S)
        finally:
            hanging.kill()
        assert hanging.process.returncode not in (0, None)
        [told] = re.findall("the worker is stalled: (.*)", log.read_text())
        assert re.match(r"(ingest|aggregate): nothing was committed for \d+ s while the lag grew", told)
        assert re.search(r"aggregate [1-9][\d,]*, insights 0\)$", told), "the hop that is to blame cannot be told"
        assert not any(app.committed()[names.ROUTED, partition] for partition in range(app.settings.partitions))
        stream.finish()
    worker = app.start()
    app.ready(worker)
    app.drain(feed.count)
    app.check(by_id(offline(feed, app.settings).insights))
