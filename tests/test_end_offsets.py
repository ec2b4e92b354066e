"""Ends of partitions are known to those who fetch nothing, and what is not told is left as it was."""

import uuid
from collections.abc import Callable

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from faust.types import TP

from stream_app.embedded import free_port
from stream_app.end_offsets import EndOffsets
from stream_app.settings import Settings


@pytest.fixture
def topic(kafka: str) -> str:
    name = f"ends-{uuid.uuid4().hex}"
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.create_topics([NewTopic(name, 2, 1)])[name].result(20)
    return name


@pytest.fixture
def send(kafka: str, topic: str) -> Callable[[int], None]:
    def sent(partition: int) -> None:
        producer = Producer({"bootstrap.servers": kafka})
        producer.produce(topic, b"value", b"key", partition)
        assert producer.flush(20) == 0

    return sent


@pytest.mark.kafka
def test_ends_are_told_by_partition(kafka: str, topic: str, send: Callable[[int], None]) -> None:
    ends = EndOffsets(Settings(kafka_bootstrap=kafka), 0.0)
    first, second = TP(topic, 0), TP(topic, 1)
    ends.refresh([first, second])
    assert (ends.of(first), ends.of(second)) == (0, 0)
    send(0)
    send(1)
    send(1)
    ends.refresh([first, second])
    assert (ends.of(first), ends.of(second)) == (1, 2)


@pytest.mark.kafka
def test_ends_include_a_transaction_that_is_open(kafka: str, topic: str) -> None:
    """The very transaction that never ends may be why a worker stands still."""
    ends = EndOffsets(Settings(kafka_bootstrap=kafka), 0.0)
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": topic})
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(topic, b"value", b"key", 0)
    assert producer.flush(20) == 0
    ends.refresh([TP(topic, 0)])
    assert ends.of(TP(topic, 0)) == 1
    producer.abort_transaction(20)


@pytest.mark.kafka
def test_they_are_not_asked_for_too_often(kafka: str, topic: str, send: Callable[[int], None]) -> None:
    ends = EndOffsets(Settings(kafka_bootstrap=kafka), 3_600.0)
    ends.refresh([])
    ends.refresh([TP(topic, 0)])
    send(0)
    ends.refresh([TP(topic, 0)])
    assert ends.of(TP(topic, 0)) == 0


def test_an_absent_broker_tells_nothing_and_breaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_app.end_offsets.ANSWER_S", 0.3)
    ends = EndOffsets(Settings(kafka_bootstrap=f"127.0.0.1:{free_port()}"), 0.0)
    ends.refresh([TP("anything", 0)])
    assert ends.of(TP("anything", 0)) == 0


@pytest.mark.kafka
def test_a_partition_that_does_not_exist_leaves_the_others_told(
    kafka: str, topic: str, send: Callable[[int], None]
) -> None:
    ends = EndOffsets(Settings(kafka_bootstrap=kafka), 0.0)
    send(0)
    ends.refresh([TP(topic, 0), TP(topic, 7)])
    assert (ends.of(TP(topic, 0)), ends.of(TP(topic, 7))) == (1, 0)
