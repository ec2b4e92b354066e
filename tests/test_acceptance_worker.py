"""A worker in its surroundings: Redis goes and comes, it stops and starts again, and what it cannot use or find."""

import json
import signal
from typing import Any

import pytest
from confluent_kafka import Producer
from redis import Redis

from schemas import dead_letter
from schemas import topics as names
from stream_app.embedded import RedisServer, free_port
from stream_app.feed import Feed
from stream_app.local_worker import LocalWorker
from stream_app.simulator import SimRecord, simulate
from stream_app.topics import name
from tests.live import Live, Stream, by_id, newest_windows, offline, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

SEED, CAMPAIGNS, DAYS = 11, 3, 5
EXIT_S = 10.0
META = names.INGEST_TOPICS[0]


@pytest.fixture(scope="module")
def days() -> list[list[SimRecord]]:
    """Records of five simulated days; the last one holds 20,000 canonical deltas too."""
    return [step.records for step in simulate(SEED, CAMPAIGNS, DAYS).steps]


def told(worker: LocalWorker) -> dict[str, Any]:
    status = worker.status()
    assert status is not None
    return status


def redis_is(worker: LocalWorker, *, up: bool) -> bool:
    status = worker.status()
    return status is not None and status["ready"] and status["redis"]["up"] is up


def is_whole(app: Live, feed: Feed) -> bool:
    """Whether Redis holds the newest window of each campaign and kind, as it should be."""
    try:
        app.check_hot(by_id(offline(feed, app.settings).insights))
    except AssertionError:
        return False
    return True


def records_counted(worker: LocalWorker) -> int:
    count: int = told(worker)["accounting"]["records"]
    return count


def test_redis_may_be_absent_lost_and_emptied(app: Live, redis: RedisServer, days: list[list[SimRecord]]) -> None:
    """Scenario: Redis is down at the start and comes; is stopped, and comes back empty; is flushed while all is idle.

    Expectation: the stream goes on and says so; each time Redis is made whole, from state alone.
    """
    redis.stop()
    worker, feed = app.start(), Feed(app.settings)
    app.ready(worker)
    feed.publish(days[0])
    wait_until("the stream goes on without Redis", lambda: records_counted(worker) == feed.count)
    wait_until("insights are published without Redis", lambda: told(worker)["published"] > 0)
    wait_until("the worker says that Redis is down", lambda: redis_is(worker, up=False))
    assert told(worker)["redis"]["reason"]
    assert told(worker)["redis"]["pending"] > 0
    assert told(worker)["ready"]

    redis.start()
    wait_until("the worker says that Redis is back", lambda: redis_is(worker, up=True))
    app.drain(feed.count)
    app.check(by_id(offline(feed, app.settings).insights))

    redis.stop()
    feed.publish(days[1])
    wait_until("the stream goes on while Redis is down", lambda: records_counted(worker) == feed.count)
    wait_until("the worker says that Redis is down again", lambda: redis_is(worker, up=False))
    redis.start()
    with Redis(host=redis.host, port=redis.port) as client:
        wait_until("Redis is whole after the outage", lambda: is_whole(app, feed))
        app.drain(feed.count)

        untouched = told(worker)["ingest"]["records"]
        assert client.dbsize() > 0
        client.flushall()
        wait_until("Redis is whole after it was flushed", lambda: is_whole(app, feed))
        assert told(worker)["ingest"]["records"] == untouched, "it was rebuilt from state, not from the topics"

    feed.publish(days[2])
    with Redis(host=redis.host, port=redis.port) as client:
        client.flushall()
    app.drain(feed.count)
    wait_until("Redis is whole after it was flushed in mid-run", lambda: is_whole(app, feed))
    app.check(by_id(offline(feed, app.settings).insights))
    assert "Traceback" not in worker.log.read_text()


def test_a_clean_stop_commits_what_was_processed_and_a_second_start_goes_on(
    app: Live, days: list[list[SimRecord]]
) -> None:
    """Scenario: SIGTERM when all is done, a second start; SIGTERM in mid-run, a third start.

    Expectation: exit code 0 in time; nothing is delivered again, and nothing is left out.
    """
    first, feed = app.start(), Feed(app.settings)
    feed.publish(days[0])
    app.ready(first)
    before = app.drain(feed.count)
    stop(first)
    assert app.committed() == app.ends(), "committed is what was processed"

    second = app.start()
    app.ready(second)
    assert app.drain(feed.count) == before
    assert told(second)["ingest"]["records"] == 0
    app.check(by_id(offline(feed, app.settings).insights))

    with Stream(feed, [record for day in days[1:] for record in day], 4_000) as stream:
        wait_until("the second is in mid-run", lambda: stream.publishing and records_counted(second) > 3_000)
        assert stream.publishing
        stop(second)
        assert stream.publishing, "the stop came when nothing was in flight"
        stream.finish()
    committed, ends = app.committed(), app.ends()
    taken = sum(committed[base, partition] for base, partition in committed if base in names.INGEST_TOPICS)
    assert len(days[0]) < taken < feed.count
    assert sum(ends.values()) > sum(committed.values())

    third = app.start()
    app.ready(third)
    accounting = app.drain(feed.count)
    assert told(third)["ingest"]["records"] == feed.count - taken, "what was processed had been committed"
    computed = offline(feed, app.settings)
    app.check(by_id(computed.insights))
    assert accounting["dead_letters"] == computed.accounting.dead_letters
    assert len(app.read(names.DEAD_LETTERS)) == len(computed.rejected), "no dead letter is written twice"


def stop(worker: LocalWorker) -> None:
    worker.process.process.send_signal(signal.SIGTERM)
    assert worker.process.process.wait(EXIT_S) == 0, worker.last_line()
    assert "Traceback" not in worker.log.read_text()


def delta(number: int, **changed: Any) -> bytes:
    """A canonical event of one impression."""
    body = {"version": 1, "kind": "delta", "event_id": f"evt-{number}", "platform": "meta", "campaign_id": "77"}
    return json.dumps({**body, "period_start": "2026-01-05T10:30:00Z", "impressions": 1, **changed}).encode()


POISON = {
    "not_utf8": b'{"campaign_id": "\xff\xfe"}',
    "malformed_json": delta(1)[:-7],
    "too_deep": b"[" * 1_025 + b"]" * 1_025,
    "not_a_number": b'{"campaign_id": "77", "date_start": "2026-01-05", "date_stop": "2026-01-05", "spend": NaN}',
    "negative": delta(2, impressions=-1),
    "out_of_range": delta(3, impressions=10**30),
    "bad_time": delta(4, period_start="2026-01-05T10:30:00"),
    "in_the_future": delta(5, period_start="2098-01-01T00:00:00Z"),
    "unknown_platform": delta(6, platform="pigeon"),
    "oversize": delta(7, ad_id="x" * 70_000),
    "empty": b"",
    "not_an_object": b"[17]",
}


def test_dead_letters_keep_everything_and_leave_their_neighbours_alone(app: Live) -> None:
    """Scenario: poison between good rows, all in one fetched batch of one partition, with keys and headers.

    Expectation: one dead letter each, with the record as it was, its position and code; every good row counts once.
    """
    producer = Producer(app.settings.confluent_config() | {"enable.idempotence": True, "linger.ms": 500})
    topic = name(app.settings, META)
    headers: list[tuple[str, str | bytes | None]] = [("connector", b"nightly\x00\xff"), ("try", b"2")]
    sent: dict[str, int] = {}
    good = 0
    for number, (code, value) in enumerate(POISON.items()):
        producer.produce(topic, delta(100 + number), b"neighbour", partition=1)
        sent[code] = good + len(sent)
        good += 1
        sent[code] += 1
        key = f"key of {code}".encode() + b"\xfe"
        producer.produce(topic, value, key, partition=1, headers=headers)
    producer.produce(topic, delta(999), b"neighbour", partition=1)
    good += 1
    assert producer.flush(30) == 0

    worker = app.start()
    app.ready(worker)
    accounting = app.drain(good + len(POISON))
    assert accounting["applied"] == good
    assert accounting["dead_letters"] == dict.fromkeys(sorted(POISON), 1)
    letters = app.read(names.DEAD_LETTERS)
    assert len(letters) == len(POISON)
    for letter in letters:
        *kept, (header, told_of) = letter.headers()
        assert header == dead_letter.HEADER
        described = json.loads(told_of)
        code = described["code"]
        assert letter.value() == POISON[code]
        assert letter.key() == f"key of {code}".encode() + b"\xfe"
        assert kept == headers
        source = described["source"]
        assert (source["topic"], source["partition"], source["offset"], source["index"]) == (META, 1, sent[code], 0)
        assert source["timestamp_ms"] > 0
        assert described["sentence"].strip()
        assert "\n" not in described["sentence"]
    published = app.published()
    assert {insight.campaign_id for insight in published.values()} == {"meta:77"}
    assert {insight.totals.impressions for insight in newest_windows(published).values()} == {good}


def test_without_its_broker_topics_or_settings_a_worker_is_one_line(app: Live) -> None:
    absent = f"127.0.0.1:{free_port()}"
    for variables, code, words in (
        (
            {"PARALLAX_KAFKA_BOOTSTRAP": absent, "PARALLAX_START_PATIENCE": "1ms"},
            3,
            ("no Kafka at", absent, "PARALLAX_KAFKA_BOOTSTRAP"),
        ),
        ({"PARALLAX_TOPIC_PREFIX": "nobody-made-these."}, 2, ("is missing", "parallax topics create")),
        ({"PARALLAX_PARTITIONS": "17"}, 2, ("partitions", "17")),
        ({"PARALLAX_PARTITIONS": "many"}, 2, ("PARALLAX_PARTITIONS",)),
        ({"PARALLAX_PARTITION": "4"}, 2, ("PARALLAX_PARTITION is no setting", "PARALLAX_PARTITIONS")),
    ):
        ended = app.command("worker", **variables)
        assert ended.returncode == code, ended.stderr
        assert ended.stdout == ""
        [line] = ended.stderr.splitlines()
        assert line.startswith("parallax: ")
        assert all(word in line for word in words), line
