"""A partition that is opened goes back to where its state ends, and never on from further."""

import asyncio
import uuid
from collections.abc import Mapping
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from faust.types import TP

from stream_app import continuity
from stream_app.embedded import free_port
from stream_app.errors import ServerAbsent
from stream_app.settings import Settings

pytestmark = pytest.mark.kafka
RECORDS = 5


class Group:
    """A consumer's group: what it has committed, and whether it takes commits."""

    def __init__(self, committed: Mapping[TP, int | None], *, takes: bool = True) -> None:
        self.offsets = dict(committed)
        self._takes = takes

    async def committed(self, tp: TP) -> int | None:
        return self.offsets[tp]

    async def skip(self, tp: TP, offset: int) -> bool:
        if self._takes:
            self.offsets[tp] = offset
        return self._takes


@pytest.fixture
def tp(kafka: str) -> TP:
    """A partition with five records and, at its end, the marker of a transaction."""
    topic = f"log-{uuid.uuid4().hex}"
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(20)
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": topic})
    producer.init_transactions(20)
    producer.begin_transaction()
    for _ in range(RECORDS):
        producer.produce(topic, b"value", b"key", 0)
    producer.commit_transaction(20)
    return TP(topic, 0)


def rewound(kafka: str, group: Any, positions: Mapping[TP, int]) -> bool:
    return asyncio.run(continuity.rewind(group, Settings(kafka_bootstrap=kafka), positions))


@pytest.mark.parametrize("position", [-1, 0, RECORDS - 2])
def test_the_group_goes_back_to_where_the_state_ends(kafka: str, tp: TP, position: int) -> None:
    group = Group({tp: RECORDS + 1})
    assert rewound(kafka, group, {tp: position})
    assert group.offsets == {tp: position + 1}


def test_behind_the_state_a_marker_is_no_record(kafka: str, tp: TP) -> None:
    group = Group({tp: RECORDS + 1})
    assert not rewound(kafka, group, {tp: RECORDS - 1})
    assert group.offsets == {tp: RECORDS + 1}


@pytest.mark.parametrize("committed", [None, 0, 3])
def test_a_state_that_is_not_behind_stays(kafka: str, tp: TP, committed: int | None) -> None:
    group = Group({tp: committed})
    assert not rewound(kafka, group, {tp: 2})
    assert group.offsets == {tp: committed}


def test_a_commit_that_fails_does_not_let_the_partition_go_on(kafka: str, tp: TP) -> None:
    assert rewound(kafka, Group({tp: RECORDS + 1}, takes=False), {tp: 0})


def test_a_broker_that_is_away_does_not_let_the_partition_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_app.extent.ANSWER_S", 0.3)
    gone = TP("gone", 0)
    with pytest.raises(ServerAbsent):
        rewound(f"127.0.0.1:{free_port()}", Group({gone: 9}), {gone: 0})
