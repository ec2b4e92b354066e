"""Scorecards in Redis: written when a day was learned, kept alive, made whole, and shown."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from redis import Redis

from core.campaigns import Checkpoint
from core.learning.walk import PREDICTORS
from schemas.scorecard import DAY, LearnedScorecard
from stream_app import hot_scorecards
from stream_app.cli import cli
from stream_app.domain import insight_config
from stream_app.embedded import RedisServer
from stream_app.feed import Feed
from stream_app.hot_scorecards import HotScorecards, entries
from stream_app.hot_store import HotEntry, HotStore
from stream_app.hot_writer import HotWriter
from stream_app.insight_stage import InsightStage
from stream_app.scorecards import newest, summary
from stream_app.settings import Settings
from stream_app.simulator import simulate
from tests.live import Live, wait_until
from tests.own_servers import own_redis
from tests.test_scorecard_command import card

CARDS = {0: card(0, 5), 2: card(10, 4)}


def entry(partition: int, found: LearnedScorecard) -> HotEntry:
    """That of the forecasts of a day."""
    return next(one for one in entries(partition, found) if one.window == DAY)


class Clock:
    def __init__(self) -> None:
        self.at = 1_000.0

    def __call__(self) -> float:
        return self.at


class Learned:
    """Stands for what a partition has learned."""

    def __init__(self, found: LearnedScorecard | None) -> None:
        self.found = found

    def scorecard(self) -> LearnedScorecard | None:
        return self.found


def learned(cards: dict[int, LearnedScorecard] | None = None) -> Any:
    return {1: Learned(None), **{at: Learned(found) for at, found in (cards or CARDS).items()}}


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with own_redis() as server:
        yield server


@pytest.fixture
def invoke(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    for name, value in (("HOST", redis.host), ("PORT", str(redis.port))):
        monkeypatch.setenv(f"REDIS_{name}", value)
    return lambda *arguments: CliRunner().invoke(cli, ["hot", *arguments])


def test_an_entry_is_what_the_health_page_shows_of_one_partition() -> None:
    written = entry(2, CARDS[2])
    told = json.loads(written.value)
    assert (written.slot, written.version) == (("scorecard", "2", "1d"), (3, 0))
    assert told["partition"] == 2
    assert (told["first_day"], told["last_day"]) == ("1970-01-01", "1970-01-04")
    assert written.as_of_ms == 4 * 86_400_000
    assert told["model"] == "m-1"
    assert told["standings"]["google_ads"] == {"promoted": False, "reason": "not yet"}
    assert {key: told[key] for key in summary([CARDS[2]])} == summary([CARDS[2]])
    assert set(told["by_platform"]["all"]) == set(PREDICTORS)
    assert entry(2, card(10, 5)).version > written.version


def test_all_are_offered_at_first_then_before_they_turn_stale_and_when_they_were_lost() -> None:
    clock = Clock()
    due = HotScorecards(3_600, clock)
    assert [one.slot[1] for one in due.due(learned())] == ["0", "2"]
    assert list(due.due(learned())) == []
    clock.at += 1_199
    assert list(due.due(learned())) == []
    clock.at += 1
    assert [one.slot[1] for one in due.due(learned())] == ["0", "2"]
    due.renew()
    assert len(list(due.due(learned()))) == 2


@pytest.mark.redis
def test_a_scorecard_of_fewer_days_never_replaces_a_newer_one(redis: RedisServer) -> None:
    async def work() -> None:
        store = HotStore.connect(host=redis.host, port=redis.port)
        await store.put_many([entry(0, card(0, 5))])
        await store.put_many([entry(0, card(0, 4))])
        (held,) = await hot_scorecards.read(store, 4)
        assert held.scorecard["last_day"] == "1970-01-05"
        await store.close()

    run(work())


class State:
    """A partition whose checkpoint has learned a day."""

    pending = True

    def __init__(self, found: LearnedScorecard) -> None:
        self.ctr = Learned(found)
        self.position = 0

    def take(self, _now: int, *, preliminary: bool) -> Checkpoint:
        return Checkpoint([], [], [], [], self.ctr.found if preliminary else None)

    def hot(self) -> Iterator[Any]:
        return iter(())


@pytest.mark.redis
def test_what_was_learned_is_written_with_the_checkpoint_survives_an_outage_and_comes_back_after_a_flush(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scenario: a day is learned, Redis is away while the next one is, comes back empty, and is flushed later.

    Expectation: Redis ends with the newest each time, and no checkpoint waits for it.
    """

    async def work() -> None:
        settings = Settings(redis_host=redis.host, redis_port=redis.port)
        store = HotStore.connect(host=redis.host, port=redis.port, timeout_seconds=0.5)
        clock = Clock()
        unused: Any = None
        writer = HotWriter(store, lambda: held.rebuild(), now=clock)
        held = InsightStage(settings, insight_config(settings), unused, unused, unused, writer)

        async def checkpoint(found: LearnedScorecard) -> None:
            clock.at += 60
            held._states[0] = State(found)  # type: ignore[assignment]
            done = held._take(0, held._states[0])
            assert done is not None
            assert [record.topic for record in done.outputs] == ["scorecards.ctr"]
            done.then()
            await asyncio.wait_for(held._finish(), 10)

        async def last_day() -> str | None:
            found = await hot_scorecards.read(store, 1)
            return found[0].scorecard["last_day"] if found else None

        await checkpoint(card(0, 3))
        assert await last_day() == "1970-01-03"
        redis.stop()
        await checkpoint(card(0, 4))
        assert writer.down_since is not None
        assert 0 < writer.pending <= 2
        redis.start()
        await checkpoint(card(0, 5))
        assert await last_day() == "1970-01-05"
        with Redis(host=redis.host, port=redis.port) as client:
            client.flushall()
        assert await last_day() is None
        for _ in range(3):
            clock.at += 60
            await held._finish()
        assert await last_day() == "1970-01-05"
        await store.close()

    run(work())


@pytest.mark.redis
def test_hot_shows_the_scorecards(redis: RedisServer, invoke: Callable[..., Any]) -> None:
    none = invoke("--scorecard")
    assert none.exit_code == 1
    assert "Redis holds no scorecard" in none.output

    async def work() -> None:
        store = HotStore.connect(host=redis.host, port=redis.port)
        await store.put_many([entry(partition, found) for partition, found in CARDS.items()])
        await store.close()

    run(work())
    with Redis(host=redis.host, port=redis.port) as client:
        client.hset(
            "parallax:scorecard:3:1d",
            mapping={**dict.fromkeys(("revision", "phase", "as_of", "written"), 1), "value": "{"},
        )
    shown = invoke("--scorecard").output
    assert "1970-01-01 to 1970-01-05" in shown
    assert "1970-01-01 to 1970-01-04" in shown
    assert f"{summary([CARDS[0]])['log_loss']['default']:.6f}" in shown
    lines = [json.loads(line) for line in invoke("--scorecard", "--json").output.splitlines()]
    assert [line["value"] for line in lines] == [json.loads(entry(at, found).value) for at, found in CARDS.items()]
    assert {line["freshness"] for line in lines} == {"fresh"}
    redis.stop()
    away = invoke("--scorecard")
    assert away.exit_code == 3
    assert "REDIS_HOST" in away.output


@pytest.mark.parametrize("arguments", [(), ("cmp-1", "--scorecard")])
def test_hot_takes_a_campaign_or_the_scorecards(arguments: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli, ["hot", *arguments])
    assert done.exit_code == 2
    assert done.stderr.splitlines() == ["parallax: name a campaign, or give --scorecard without one"]


@pytest.mark.kafka
@pytest.mark.redis
def test_a_worker_writes_what_it_publishes(kafka: str, redis: RedisServer, tmp_path: Path) -> None:
    """Scenario: a worker has learned some days; then Redis is flushed.

    Expectation: Redis holds each partition's scorecard as it is on the topic, and again after the flush.
    """
    with Live(kafka, (redis.host, redis.port), tmp_path) as app:
        worker, feed = app.start(), Feed(app.settings)
        for step in simulate(7, 4, 6).steps:
            feed.publish(step.records)
        app.ready(worker)
        app.drain(feed.count)

        def held() -> dict[int, Any]:
            async def look() -> list[hot_scorecards.Held]:
                store = HotStore.of(app.settings)
                try:
                    return await hot_scorecards.read(store, app.settings.partitions)
                finally:
                    await store.close()

            return {one.scorecard["partition"]: one.scorecard for one in asyncio.run(look())}

        def published() -> dict[int, Any]:
            return {at: json.loads(entry(at, found).value) for at, found in newest(app.settings).items()}

        wait_until("Redis holds the scorecards", lambda: bool(found := published()) and held() == found)
        with Redis(host=redis.host, port=redis.port) as client:
            client.flushall()
        wait_until("Redis holds them again", lambda: held() == published())
        status = worker.status()
        assert status is not None
        assert status["predictions"]["rows"] == sum(one["rows"] for one in held().values())
