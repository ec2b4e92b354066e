"""Replay and redrive on real servers: what a worker published is proven, tampering is named and mended."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from redis import Redis

from schemas import dead_letter
from schemas import insight as insight_codec
from schemas import topics as names
from schemas.calendar import iso_instant
from schemas.envelope import target_partition
from schemas.insight import CrossPlatformInsight
from stream_app.cli import cli
from stream_app.duration import Duration
from stream_app.embedded import RedisServer
from stream_app.feed import Feed
from stream_app.replay import Promotion, Request, promote, replay
from stream_app.simulator import SimRecord, simulate
from stream_app.topics import name
from tests.live import ROOT, Insights, Live, by_id, differences, newest_windows, offline

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

META = names.INGEST_TOPICS[0]
DAY_MS = 86_400_000
Row = tuple[str, str, str, str, Any, Any, str]


@pytest.fixture(scope="module")
def days() -> list[list[SimRecord]]:
    return [step.records for step in simulate(5, 3, 4).steps][:3]


def here(app: Live, *arguments: str) -> Result:
    """``parallax`` in this process, with the application's settings."""
    result = CliRunner().invoke(cli, list(arguments), env=app.environment())
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def replayed(app: Live, *options: str, code: int) -> set[Row]:
    """The differences that a replay tells, as rows."""
    ended = here(app, "replay", "--format", "json", *options)
    assert ended.exit_code == code, ended.stderr
    rows = [json.loads(line) for line in ended.stdout.splitlines()]
    fields = ("campaign", "window", "start", "metric", "live", "recomputed", "where")
    found = {tuple(row[field] for field in fields) for row in rows}
    assert len(found) == len(rows)
    assert all(row.keys() == set(fields) for row in rows)
    return found


def write_latest(app: Live, insight: CrossPlatformInsight, value: bytes | None) -> None:
    """Somebody else's record on ``insights.latest``."""
    producer = Producer(app.settings.confluent_config() | {"log_level": 0})
    partition = target_partition(insight.campaign_id, app.settings.partitions)
    producer.produce(name(app.settings, names.INSIGHTS_LATEST), value, insight.insight_id.encode(), partition)
    assert producer.flush(20) == 0


def with_clicks(insight: CrossPlatformInsight, more: int) -> CrossPlatformInsight:
    totals = msgspec.structs.replace(insight.totals, clicks=(insight.totals.clicks or 0) + more)
    return msgspec.structs.replace(insight, totals=totals)


def place(insight: CrossPlatformInsight) -> tuple[str, str, str]:
    return insight.campaign_id, insight.window, insight.window_start


class Tampered:
    """Two insights of the topic and two slots of Redis, spoilt."""

    def __init__(self, app: Live, held: Insights) -> None:
        newest = {insight.insight_id for insight in newest_windows(held).values()}
        older = sorted((i for i in held.values() if i.window == "24h" and i.insight_id not in newest), key=place)
        hot = sorted((i for i in held.values() if i.window == "7d" and i.insight_id in newest), key=place)
        self.wrong, self.deleted = older[0], older[-1]
        self.hot_wrong, self.hot_deleted = hot[0], hot[-1]
        assert len({i.insight_id for i in (self.wrong, self.deleted, self.hot_wrong, self.hot_deleted)}) == 4
        write_latest(app, self.wrong, insight_codec.encode(with_clicks(self.wrong, 3)))
        write_latest(app, self.deleted, None)
        with Redis(**app.settings.redis_url_kwargs()) as client:
            spoilt = insight_codec.encode(with_clicks(self.hot_wrong, 4))
            client.hset(f"parallax:insight:{self.hot_wrong.campaign_id}:7d", "value", spoilt)
            assert client.delete(f"parallax:insight:{self.hot_deleted.campaign_id}:7d") == 1

    @property
    def rows(self) -> set[Row]:
        clicks, hot = self.wrong.totals.clicks or 0, self.hot_wrong.totals.clicks or 0
        return {
            (*place(self.wrong), "totals.clicks", clicks + 3, clicks, "topic"),
            (*place(self.deleted), "insight", "absent", "present", "missing"),
            (*place(self.hot_wrong), "totals.clicks", hot + 4, hot, "redis"),
            (*place(self.hot_deleted), "insight", "absent", "present", "redis"),
        }


def test_replay_proves_names_what_was_tampered_with_and_mends_it(app: Live, days: list[list[SimRecord]]) -> None:
    """Scenario: a worker's run; wrong and missing values in the compacted topic and in Redis; promoted; more records.

    Expectation: equal, exactly the spoilt rows, equal again, and the worker's next changes supersede the promoted.
    """
    worker, feed = app.start(), Feed(app.settings)
    app.ready(worker)
    feed.publish(days[0])
    feed.publish(days[1])
    app.drain(feed.count)
    told = app.command("replay")
    assert (told.returncode, told.stdout) == (0, "")
    held = app.latest()
    inputs = sum(end for (base, _), end in app.ends().items() if base in names.INGEST_TOPICS)
    assert told.stderr == f"{len(held):,} insights from {inputs:,} records beside insights.latest and Redis: equal\n"
    groups = AdminClient(app.settings.confluent_config()).list_consumer_groups().result().valid
    assert not [group.group_id for group in groups if group.group_id.endswith("extents")]
    before = len(app.read(names.INSIGHTS))

    tampered = Tampered(app, held)
    rows = tampered.rows
    assert replayed(app, code=1) == rows
    assert replayed(app, "--campaign", tampered.wrong.campaign_id, "--window", "24h", code=1) == {
        row for row in rows if row[:2] == place(tampered.wrong)[:2]
    }
    assert replayed(app, "--window", "1h", code=0) == set()
    with_tiktok = {place(i) for i in (tampered.deleted, tampered.hot_deleted) if "tiktok" in i.platform_breakdown}
    assert with_tiktok
    assert replayed(app, "--platform", "tiktok", code=1) == {row for row in rows if row[:3] in with_tiktok}
    day = tampered.wrong.window_start
    until = iso_instant(_day_ms(day) + DAY_MS)
    assert replayed(app, "--from", day, "--to", until, code=1) == {
        row for row in rows if row[1] == "24h" and row[2] == day
    } | {row for row in rows if row[1] == "7d" and _day_ms(row[2]) == _day_ms(day) - 6 * DAY_MS}
    table = here(app, "replay")
    assert table.exit_code == 1
    assert len(table.stdout.splitlines()) == 2 + len(rows)
    assert f"{len(rows)} differ, in {len(rows)} values" in table.stderr
    unanswered = here(app, "replay", "--promote")
    assert unanswered.exit_code == 1
    assert unanswered.stderr.splitlines()[-1] == "parallax: nothing was published: nobody said yes (--yes does)"
    assert len(app.read(names.INSIGHTS)) == before, "nothing is written without --promote and a yes"

    mended = here(app, "replay", "--promote", "--yes")
    assert mended.exit_code == 0, mended.stderr
    assert mended.stderr.splitlines()[-1] == "parallax: 2 corrections published, 2 put into Redis"
    assert replayed(app, code=0) == set()
    again = here(app, "replay", "--promote", "--yes")
    assert (again.exit_code, again.stdout) == (0, "")
    assert again.stderr == told.stderr
    published = [insight_codec.decode(message.value()) for message in app.read(names.INSIGHTS)]
    news = {insight.insight_id: insight for insight in published if insight.phase == "replayed"}
    assert len(published) == before + 2
    assert news.keys() == {tampered.wrong.insight_id, tampered.deleted.insight_id}
    wrong = news[tampered.wrong.insight_id]
    assert wrong.version == insight_codec.Version(tampered.wrong.version.revision, 3)
    assert wrong.correction == insight_codec.Correction(reason="replay", difference={"clicks": -3})
    expected = by_id(offline(feed, app.settings).insights)
    assert not differences(app.published(), expected)
    app.check_hot(expected)

    feed.publish(days[2])
    app.drain(feed.count)
    assert replayed(app, code=0) == set()
    expected = by_id(offline(feed, app.settings).insights)
    assert not differences(app.published(), expected)
    app.check_hot(expected)
    assert "Traceback" not in worker.log.read_text()


def _day_ms(day: str) -> int:
    return int(time.mktime(time.strptime(day + " UTC", "%Y-%m-%d %Z")) - time.timezone) * 1_000


def test_what_is_gone_cannot_be_proven_and_is_not_promoted(app: Live, days: list[list[SimRecord]]) -> None:
    worker, feed = app.start(), Feed(app.settings)
    app.ready(worker)
    feed.publish(days[0])
    app.drain(feed.count)
    middle = iso_instant(max(record.timestamp for records in feed.stored.values() for record in records) + 1)
    assert replayed(app, "--by", "arrival", code=0) == set()
    assert replayed(app, "--by", "arrival", "--from", middle, code=0) == set()
    [partition, *_] = sorted(p for (base, p), records in feed.stored.items() if base == META and len(records) > 1)
    admin = AdminClient(app.settings.confluent_config())
    gone = TopicPartition(name(app.settings, META), partition, 1)
    admin.delete_records([gone])[gone].result(20)
    before = len(app.read(names.INSIGHTS))
    ended = here(app, "replay", "--promote", "--yes")
    assert ended.exit_code == 4
    line = ended.stderr.splitlines()[-1]
    assert line.startswith(
        f"parallax: cannot be proven: {name(app.settings, META)}/{partition} begins with what arrived"
    )
    assert len(app.read(names.INSIGHTS)) == before
    far = iso_instant(time.time_ns() // 1_000_000 + 30 * DAY_MS)
    assert replayed(app, "--from", far, code=0) == set(), "of what is later, all is held"


def test_ctrl_c_ends_a_replay_with_one_line(app: Live, days: list[list[SimRecord]]) -> None:
    worker, feed = app.start(), Feed(app.settings)
    app.ready(worker)
    feed.publish([*days[0], *days[1]])
    app.drain(feed.count)
    Tampered(app, app.latest())
    command = [sys.executable, "-m", "stream_app", "replay", "--promote"]
    with subprocess.Popen(
        command, cwd=ROOT, env=app.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as started:
        assert started.stdout is not None
        assert started.stderr is not None
        asked = b""
        while b"[y/N] " not in asked:
            asked += started.stderr.read(1)
        started.send_signal(signal.SIGINT)
        told = started.stderr.read()
    assert started.returncode == 130
    assert told.decode().strip().splitlines() == ["parallax: interrupted: nothing was published"]


def test_what_cannot_be_read_is_mended_and_what_moved_on_is_left_alone(app: Live, days: list[list[SimRecord]]) -> None:
    """Scenario: garbage in the topic and in Redis; an insight changes between a replay and its promotion."""
    worker, feed = app.start(), Feed(app.settings)
    app.ready(worker)
    feed.publish([*days[0], *days[1]])
    app.drain(feed.count)
    held = app.latest()
    newest = newest_windows(held)
    hot = sorted(slot for slot in newest if slot[1] == "7d")
    spoilt = next(insight for insight in held.values() if insight.window == "24h" and insight not in newest.values())
    write_latest(app, spoilt, b"\xff")
    with Redis(**app.settings.redis_url_kwargs()) as client:
        client.hset(f"parallax:insight:{hot[0][0]}:7d", "value", "{}")
        client.hset(f"parallax:insight:{hot[1][0]}:7d", "revision", "many")
        client.set(f"parallax:insight:{hot[2][0]}:7d", "text")
    unreadable = {(*place(newest[slot]), "insight", "unreadable", "present", "redis") for slot in hot[:3]}
    assert replayed(app, code=1) == unreadable | {(*place(spoilt), "insight", "unreadable", "present", "topic")}

    request = Request()
    outcome = replay(app.settings, request)
    write_latest(app, spoilt, insight_codec.encode(spoilt))
    assert promote(app.settings, request, outcome) == Promotion(published=0, hot=3, moved_on=1)
    assert replayed(app, code=0) == set()
    promoted_again = promote(app.settings, request, outcome)
    assert promoted_again == Promotion(published=0, hot=3, moved_on=1), "the same once more does no harm"
    assert replayed(app, code=0) == set()


def row(day: int, **fields: Any) -> bytes:
    body = {"version": 1, "kind": "snapshot", "platform": "meta", "campaign_id": "77", "impressions": 5}
    start = day * DAY_MS
    return json.dumps(body | {"period_start": start, "period_end": start + DAY_MS} | fields).encode()


def listed(app: Live, *options: str) -> list[dict[str, Any]]:
    ended = here(app, "dead-letters", "list", "--format", "json", *options)
    assert ended.exit_code == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def redriven(app: Live, *options: str) -> list[str]:
    ended = here(app, "dead-letters", "redrive", *options)
    assert ended.exit_code == 0, ended.stderr
    return [*ended.stderr.splitlines(), *ended.stdout.splitlines()]


def test_dead_letters_are_listed_and_redriven_twice(kafka: str, redis: RedisServer, tmp_path: Path) -> None:
    """Scenario: a row past the horizon, poison and a bad link; redriven twice under a longer horizon.

    Expectation: the row counts once and stays older than a restatement; what fails again names its first letter; a
    redriven link does not take the place of the one that holds.
    """
    today = time.time_ns() // 1_000_000 // DAY_MS
    headers: list[tuple[str, str | bytes | None]] = [("connector", b"nightly\xff"), ("parallax-account", b"9")]
    with Live(kafka, (redis.host, redis.port), tmp_path, horizon="100d", delta_lateness="24h") as app:
        producer = Producer(app.settings.confluent_config() | {"enable.idempotence": True})
        metrics, links = name(app.settings, META), name(app.settings, names.CAMPAIGN_LINKS)
        producer.produce(metrics, row(today - 150), b"late key", 2, headers=headers)
        producer.produce(metrics, b"{", None, 1, headers=headers)
        producer.produce(metrics, json.dumps([{"a": 1}, {"b": 2}]).encode(), b"two rows", 1)
        producer.produce(links, b"no link", b"meta:77", 0)
        assert producer.flush(20) == 0
        first = app.start()
        app.ready(first)
        assert sum(app.drain(4)["dead_letters"].values()) == 5
        letters = listed(app)
        assert [letter["code"] for letter in letters].count("too_late") == 1
        assert [letter["source"]["timestamp_ms"] for letter in letters] == sorted(
            letter["source"]["timestamp_ms"] for letter in letters
        )
        [late] = listed(app, "--code", "too_late")
        assert (late["key"], late["payload"], late["redrivable"]) == ("late key", row(today - 150).decode(), True)
        assert len(listed(app, "--topic", META)) == 4
        assert len(listed(app, "--topic", metrics, "--limit", "2")) == 2
        assert listed(app, "--to", iso_instant(late["source"]["timestamp_ms"] - 600_000)) == []
        table = here(app, "dead-letters", "list", "--limit", "1").stdout
        assert "and 4 older ones" in table

        first.process.process.send_signal(signal.SIGTERM)
        assert first.process.process.wait(15) == 0
        app.settings = app.settings.model_copy(update={"horizon": Duration.parse("400d")})
        # A restatement that arrives before the old row is sent again.
        producer.produce(metrics, row(today - 150, impressions=9), b"late key", 2, headers=headers)
        producer.produce(links, json.dumps(LINK).encode(), b"meta:77", 0)
        assert producer.flush(20) == 0
        second = app.start()
        app.ready(second)
        app.drain(6)
        ends = app.ends()
        assert redriven(app, "--code", "too_late", "--dry-run")[0] == "1 record of 1 dead letters can be sent again"
        assert app.ends() == ends
        declined = here(app, "dead-letters", "redrive")
        assert (declined.exit_code, declined.stdout) == (1, "")
        for _ in range(2):
            assert redriven(app, "--code", "too_late", "--yes")[-1] == "1 record sent again"
        books = app.drain(8)
        assert (books["applied"], books["superseded"]) == (2, 2), "the restatement and the link; twice the old row"
        sent = [message for message in app.read(META) if message.partition() == 2][-1]
        assert (sent.key(), sent.value()) == (b"late key", row(today - 150))
        *kept, (header, told) = sent.headers()
        assert kept == headers
        assert header == dead_letter.REDRIVE_HEADER
        assert json.loads(told) == {"id": late["id"], "arrival_ms": late["source"]["timestamp_ms"]}
        daily = next(insight for insight in app.latest().values() if insight.window == "24h")
        assert (daily.campaign_id, daily.totals.impressions) == ("spring", 9)

        [poison] = listed(app, "--code", "malformed_json")
        assert redriven(app, "--id", poison["id"], "--yes")[-1] == "1 record sent again"
        app.drain(9)
        again = next(letter for letter in listed(app, "--code", "malformed_json") if letter["id"] != poison["id"])
        assert again["redriven_from"] == poison["id"]
        assert again["source"]["timestamp_ms"] == poison["source"]["timestamp_ms"]
        lines = redriven(app, "--topic", META, "--yes")
        assert lines[-1] == "3 records sent again", "the late one, the poison once, the one of two rows once"
        app.drain(12)
        assert redriven(app, "--code", "bad_link", "--yes")[-1] == "1 record sent again"
        app.drain(13)
        assert len({message.key() for message in app.read(names.CAMPAIGN_LINKS)}) == 2
        assert "Traceback" not in first.log.read_text() + second.log.read_text()
        assert replayed(app, code=0) == set()


LINK = {"version": 1, "platform": "meta", "platform_campaign_id": "77", "campaign_id": "spring"}


def test_what_has_no_original_bytes_cannot_be_redriven(app: Live) -> None:
    source = dead_letter.SourcePosition(names.ROUTED, 0, 3, 0, 1_800_000_000_000)
    described = dead_letter.encode(dead_letter.describe(source, "out_of_range", "no place in a block"))
    producer = Producer(app.settings.confluent_config())
    topic = name(app.settings, names.DEAD_LETTERS)
    producer.produce(topic, None, b"k", 0, headers=[(dead_letter.HEADER, described)])
    producer.produce(topic, b"{", None, 0, headers=[(dead_letter.HEADER, b"[]")])
    assert producer.flush(20) == 0
    [letter] = listed(app)
    assert (letter["redrivable"], letter["payload"], letter["key"]) == (False, None, "k")
    assert "1 records of the topic describe no dead letter" in here(app, "dead-letters", "list").stderr
    assert redriven(app, "--yes") == [
        "0 records of 1 dead letters can be sent again",
        "  1 cannot: their original bytes are not kept",
    ]
