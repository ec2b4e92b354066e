"""A reader of live campaigns goes on from the snapshot of the one before, where that is of its topic and settings."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from core.learning.campaign_data import CampaignData
from schemas import insight as codec
from schemas.insight import CrossPlatformInsight
from stream_app import topics
from stream_app.live_insights import LiveInsights, live_campaigns
from stream_app.live_snapshot import Snapshot, load, snapshot_file, store, topic_id
from stream_app.settings import Settings
from tests.live import wait_until
from tests.test_patterns_follower import newer, some

GOLDEN = "0163e2836793a27878820009010ac403616263"


class Rig:
    """A topic of insights in four partitions, under a prefix of its own, and a data directory."""

    def __init__(self, kafka: str, folder: Path) -> None:
        self.settings = Settings(kafka_bootstrap=kafka, topic_prefix=f"{uuid.uuid4().hex[:8]}.", datadir=folder)
        self.topic = f"{self.settings.topic_prefix}insights.latest"
        self.file = snapshot_file(self.settings)
        topics.create(self.settings)
        self._producer = Producer({"bootstrap.servers": kafka})

    def tell(self, *insights: CrossPlatformInsight) -> None:
        for one in insights:
            number = int(one.insight_id, 16) % 4
            self._producer.produce(self.topic, codec.encode(one), one.insight_id, partition=number)
        assert self._producer.flush(20) == 0

    def read(self, *, keep: bool = False, **changes: object) -> tuple[int, list[CampaignData]]:
        """How many records it took to know the campaigns, and these."""
        fields = {name: getattr(self.settings, name) for name in ("kafka_bootstrap", "topic_prefix", "datadir")}
        settings = Settings(**(fields | changes))
        with LiveInsights(settings, live_campaigns(settings)) as insights:
            insights.catch_up()
            if keep:
                insights.keep()
            return insights.records, insights.campaigns.of()


@pytest.fixture
def rig(kafka: str, tmp_path: Path) -> Iterator[Rig]:
    made = Rig(kafka, tmp_path)
    yield made
    assert [one.name for one in tmp_path.rglob("live-campaigns*")] in ([], ["live-campaigns"])


@pytest.mark.kafka
def test_only_what_came_after_the_snapshot_is_read(rig: Rig) -> None:
    first, later = some(*range(1, 9)), some(9)
    rig.tell(*first)
    count, campaigns = rig.read(keep=True)
    assert (count, len(campaigns)) == (8, 8)
    assert rig.read() == (0, campaigns)
    rig.tell(newer(first[0], platform_breakdown={}), *later)
    count, campaigns = rig.read()
    assert (count, len(campaigns)) == (2, 8)
    assert rig.read() == (2, campaigns)
    assert rig.read(keep=True) == (2, campaigns)
    assert rig.read() == (0, campaigns)
    rig.file.unlink()
    assert rig.read() == (10, campaigns)


@pytest.mark.kafka
def test_a_snapshot_that_is_unsound_or_of_other_settings_is_none(rig: Rig) -> None:
    rig.tell(*some(1, 2, 3))
    _, campaigns = rig.read(keep=True)
    sound = rig.file.read_bytes()
    assert rig.read(horizon="50d")[0] == 3
    assert rig.read(app_id="other")[0] == 3
    for unsound in (
        b"",
        sound[:-1],
        sound + b"\0",
        sound[:20] + bytes([sound[20] ^ 1]) + sound[21:],
        b"\2" + sound[1:],
    ):
        rig.file.write_bytes(unsound)
        assert rig.read() == (3, campaigns)
    rig.file.write_bytes(sound)
    assert rig.read()[0] == 0
    held = load(rig.file)
    assert held is not None
    for offsets in ({**held.offsets, 0: held.offsets[0] + 1}, {**held.offsets, 4: 0}):
        store(rig.file, Snapshot(held.topic_id, offsets, held.campaigns))
        assert rig.read() == (3, campaigns)


@pytest.mark.kafka
def test_a_topic_that_was_made_anew_is_read_whole(rig: Rig) -> None:
    rig.tell(*some(1, 2, 3))
    rig.read(keep=True)
    before = topic_id(rig.settings, rig.topic)
    admin = AdminClient({"bootstrap.servers": rig.settings.kafka_bootstrap})
    admin.delete_topics([rig.topic])[rig.topic].result(20)
    wait_until("the topic is gone", lambda: rig.topic not in admin.list_topics(timeout=5).topics)
    topics.create(rig.settings)
    assert topic_id(rig.settings, rig.topic) != before
    rig.tell(*some(1, 2, 3, 5, 6, 7))
    count, campaigns = rig.read()
    assert (count, len(campaigns)) == (6, 6)


def test_a_file_has_these_bytes_and_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "live-campaigns"
    assert load(file) is None
    snapshot = Snapshot("xx", {0: 9, 1: 10}, b"abc")
    store(file, snapshot)
    assert file.read_bytes().hex() == GOLDEN
    assert load(file) == snapshot
    file.with_name(f"{file.name}.{os.getpid()}").mkdir()
    with pytest.raises(OSError, match="directory"):
        store(file, Snapshot("yy", {}, b""))
    assert load(file) == snapshot
