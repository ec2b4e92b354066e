"""The follower of patterns on a real topic: only what changed, at most so often, mended where it was overwritten."""

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
from confluent_kafka import Producer
from redis import Redis

from schemas import insight as insight_codec
from schemas import patterns as codec
from schemas.insight import CrossPlatformInsight, Version
from stream_app import topics
from stream_app.caches import Caches
from stream_app.live_insights import LiveInsights, live_campaigns
from stream_app.live_snapshot import snapshot_file
from stream_app.patterns_follower import HALF_LIFE_S, KEEP_S, LOOK_S, PatternsFollower, Round, cache_key, published
from stream_app.producer import Outgoing
from stream_app.sending import BY_KEY, send_all
from stream_app.settings import Settings
from tests.live import wait_until
from tests.test_patterns_commands import insight

pytestmark = [pytest.mark.kafka, pytest.mark.redis]
EVERY_S = 3_600.0


@pytest.fixture(autouse=True)
def _own_data_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Rig:
    """A topic of insights, and a follower in a thread whose clock stands still until it is moved."""

    def __init__(self, kafka: str, redis: tuple[str, int], **wanted: object) -> None:
        fields: dict[str, object] = {
            "kafka_bootstrap": kafka,
            "redis_host": redis[0],
            "redis_port": redis[1],
            "redis_db": 8,
            "topic_prefix": f"{uuid.uuid4().hex[:8]}.",
            "patterns_every": "1h",
        }
        self.settings = Settings(**(fields | wanted))  # type: ignore[arg-type] # pydantic parses them
        topics.create(self.settings)
        with Redis(**self.settings.redis_url_kwargs()) as client:
            client.flushdb()
        self.producer = Producer({"bootstrap.servers": kafka})
        self.rounds: list[Round] = []
        self.now = 0.0
        self.looks = 0
        self._ended = threading.Event()

    def tell(self, *insights: CrossPlatformInsight) -> None:
        for one in insights:
            topic = f"{self.settings.topic_prefix}insights.latest"
            self.producer.produce(topic, insight_codec.encode(one), one.insight_id, partition=0)
        assert self.producer.flush(20) == 0

    def some_looks(self) -> None:
        wanted = self.looks + 4
        wait_until("the follower goes round", lambda: self.looks >= wanted)

    def accounts(self) -> dict[str, int]:
        """Published campaigns by account."""
        return {
            account: codec.decode(payload).patterns.total_campaigns
            for account, payload in published(self.settings).items()
        }

    def _go_on(self) -> bool:
        self.looks += 1
        return self._ended.is_set()

    @contextmanager
    def following(self) -> Iterator[None]:
        follower = PatternsFollower(self.settings, told=self.rounds.append, clock=lambda: self.now)
        self._ended.clear()
        thread = threading.Thread(target=follower.run, args=(self._go_on,))
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()


def some(*numbers: int) -> list[CrossPlatformInsight]:
    rng = np.random.default_rng(3)
    return [insight(number, rng) for number in numbers]


def newer(one: CrossPlatformInsight, **changes: object) -> CrossPlatformInsight:
    return msgspec.structs.replace(one, version=Version(one.version.revision + 1, 0), **changes)


def test_only_what_changed_is_computed_and_at_most_so_often(kafka: str, redis_server: tuple[str, int]) -> None:
    """Campaigns of even numbers are of accounts 0, the others of accounts 1; 3 and 6 run on Meta alone."""
    rig = Rig(kafka, redis_server)
    campaigns = some(1, 2, 3, 4)
    rig.tell(*campaigns)
    with rig.following():
        wait_until("the first round", lambda: len(rig.rounds) == 1)
        first = rig.rounds[0]
        assert (first.computed, first.published, first.accounts, first.campaigns) == (5, 5, 4, 4)
        assert rig.accounts() == {"all": 4, "meta:0": 2, "meta:1": 2, "tiktok:0": 2, "tiktok:1": 1}
        rig.tell(*some(6))
        rig.some_looks()
        assert len(rig.rounds) == 1
        rig.now += EVERY_S
        wait_until("the second round", lambda: len(rig.rounds) == 2)
        assert (rig.rounds[1].computed, rig.rounds[1].published) == (2, 2)
        assert rig.accounts() == {"all": 5, "meta:0": 3, "meta:1": 2, "tiktok:0": 2, "tiktok:1": 1}
        # The same once more, as a new version, is no change.
        rig.tell(newer(campaigns[0]))
        rig.now += EVERY_S
        rig.some_looks()
        assert len(rig.rounds) == 2
        rig.tell(*(newer(newer(one), platform_breakdown={}) for one in (campaigns[0], campaigns[2])))
        rig.some_looks()
        rig.now += EVERY_S
        wait_until("accounts 1 have nothing left", lambda: rig.accounts() == {"all": 3, "meta:0": 3, "tiktok:0": 2})


def test_what_another_has_overwritten_is_mended(kafka: str, redis_server: tuple[str, int]) -> None:
    rig = Rig(kafka, redis_server, patterns_every="1ms")
    rig.tell(*some(1, 2))
    with rig.following():
        wait_until("the first round", lambda: len(rig.rounds) == 1)
        before = published(rig.settings)
        topic = f"{rig.settings.topic_prefix}patterns.cross-platform"
        wrong = {b"meta:1": before["meta:0"], b"meta:9": before["meta:0"], b"all": None}
        sending = send_all(rig.settings, [Outgoing(topic, BY_KEY, key, value) for key, value in wrong.items()], 10_000)
        assert sending.stored == 3
        assert published(rig.settings) != before
        rig.now += LOOK_S
        wait_until("the topic is mended", lambda: published(rig.settings) == before)


def test_the_cache_is_kept_warm_and_waited_for(kafka: str, redis_server: tuple[str, int]) -> None:
    rig = Rig(kafka, redis_server)
    rig.tell(*some(1, 2))
    key = b"parallax:cache:patterns:account:meta:1"
    assert cache_key("meta:1", 2.0) == "account:meta:1"
    with rig.following(), Redis(**rig.settings.redis_url_kwargs()) as client:
        wait_until("the first round", lambda: len(rig.rounds) == 1)
        value: bytes = client.get(key)
        assert value[8:] == published(rig.settings)["meta:1"]
        assert 7_100 < client.ttl(key) <= 7_200
        client.expire(key, 100)
        rig.now += LOOK_S
        rig.some_looks()
        assert client.ttl(key) <= 100
        rig.now += HALF_LIFE_S
        wait_until("its time begins anew", lambda: client.ttl(key) > 7_000)


def test_without_redis_the_topic_is_kept_and_the_cache_is_filled_later(
    kafka: str, redis_server: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(kafka, redis_server)
    rig.tell(*some(1, 2))
    away = [True]
    put = Caches.put

    async def failing(self: Caches, *given: object) -> bool:
        return False if away[0] else await put(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(Caches, "put", failing)
    with rig.following(), Redis(**rig.settings.redis_url_kwargs()) as client:
        wait_until("the first round", lambda: len(rig.rounds) == 1)
        assert rig.rounds[0].published == 5
        assert not client.keys("parallax:cache:patterns:*")
        away[0] = False
        rig.now += LOOK_S
        wait_until("all are there", lambda: len(client.keys("parallax:cache:patterns:*")) == 5)


def unread(settings: Settings) -> int:
    """How many records the next follower would have to read."""
    with LiveInsights(settings, live_campaigns(settings)) as insights:
        insights.catch_up()
        return insights.records


def test_the_next_one_goes_on_from_the_snapshot(kafka: str, redis_server: tuple[str, int]) -> None:
    rig = Rig(kafka, redis_server, patterns_every="1ms")
    campaigns = some(1, 2, 3, 4, 6)
    rig.tell(*campaigns[:3])
    with rig.following():
        wait_until("the first round", lambda: len(rig.rounds) == 1)
        assert unread(rig.settings) == 0
        rig.now += KEEP_S - 1
        rig.tell(campaigns[3])
        wait_until("the second round", lambda: len(rig.rounds) == 2)
        assert unread(rig.settings) == 1
        rig.now += 1
        rig.tell(campaigns[4])
        wait_until("the third round", lambda: len(rig.rounds) == 3)
        assert unread(rig.settings) == 0
    before = published(rig.settings)
    rig.tell(newer(campaigns[0], platform_breakdown={}))
    with rig.following():
        wait_until("its first round", lambda: len(rig.rounds) == 4)
    assert (rig.rounds[3].campaigns, rig.rounds[3].computed) == (4, 5)
    assert {one: codec.decode(payload).patterns.total_campaigns for one, payload in before.items()} == {
        **{"all": 5, "meta:0": 3, "meta:1": 2, "tiktok:0": 2, "tiktok:1": 1}
    }
    assert rig.accounts() == {"all": 4, "meta:0": 3, "meta:1": 1, "tiktok:0": 2}


def test_where_no_snapshot_can_be_taken_patterns_are_published_and_it_is_said(
    kafka: str, redis_server: tuple[str, int], tmp_path: Path
) -> None:
    rig = Rig(kafka, redis_server, datadir=tmp_path / "file")
    (tmp_path / "file").write_text("no directory")
    rig.tell(*some(1, 2))
    with rig.following():
        wait_until("the first round", lambda: len(rig.rounds) == 1)
    assert (rig.rounds[0].published, rig.rounds[0].failure) == (5, "")
    assert "; no snapshot: " in str(rig.rounds[0])
    assert "directory" in rig.rounds[0].no_snapshot
    assert not snapshot_file(rig.settings).exists()
