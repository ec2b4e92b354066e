"""Extents: read to an end that is known before, whatever comes after, and without what was never committed."""

import uuid

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from stream_app.errors import ParallaxError, SetupError
from stream_app.extent import Extent, ExtentReader
from stream_app.settings import Settings

pytestmark = pytest.mark.kafka


@pytest.fixture
def topic(kafka: str) -> str:
    name = f"extent-{uuid.uuid4().hex}"
    config = {"message.timestamp.type": "LogAppendTime"}
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.create_topics([NewTopic(name, 2, 1, config=config)])[name].result(20)
    return name


def send(kafka: str, topic: str, *values: str, partition: int = 0) -> None:
    producer = Producer({"bootstrap.servers": kafka})
    for value in values:
        producer.produce(topic, value.encode(), b"k", partition, headers=[("h", value.encode())])
    assert producer.flush(20) == 0


def values(reader: ExtentReader, extent: Extent) -> list[str]:
    found = [record for batch in reader.read(extent) for record in batch]
    assert [record.offset for record in found] == sorted({record.offset for record in found})
    assert all(record.timestamp > 0 for record in found)
    return [(record.value or b"").decode() for record in found]


def test_an_extent_ends_where_the_topic_ended(kafka: str, topic: str) -> None:
    send(kafka, topic, "a", "b", "c")
    send(kafka, topic, "other", partition=1)
    with ExtentReader(Settings(kafka_bootstrap=kafka)) as reader:
        one, other = reader.whole(topic)
        send(kafka, topic, "later", "still later")
        assert (one, len(one), len(other)) == (Extent(topic, 0, 0, 3), 3, 1)
        assert values(reader, one) == ["a", "b", "c"]
        assert values(reader, other) == ["other"]
        assert values(reader, Extent(topic, 0, 1, 2)) == ["b"]
        assert values(reader, Extent(topic, 0, 3, 3)) == []
        assert values(reader, reader.bounds(topic, 0)) == ["a", "b", "c", "later", "still later"]
        [[record]] = [batch for batch in reader.read(other) if batch]
        assert (record.key, record.headers) == (b"k", [("h", b"other")])


def test_offsets_are_found_by_arrival(kafka: str, topic: str) -> None:
    send(kafka, topic, "a", "b")
    with ExtentReader(Settings(kafka_bootstrap=kafka)) as reader:
        extent = reader.bounds(topic, 0)
        stamps = [record.timestamp for batch in reader.read(extent) for record in batch]
        assert reader.offset_at(extent, stamps[0]) == 0
        assert reader.offset_at(extent, -5) == 0
        assert reader.offset_at(extent, stamps[1] + 1) == 2
        assert reader.offset_at(Extent(topic, 0, 0, 1), stamps[1] + 1) == 1


def test_what_was_aborted_is_not_read_and_does_not_hinder(kafka: str, topic: str) -> None:
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": topic})
    producer.init_transactions(20)
    for value, committed in (("kept", True), ("gone", False), ("kept too", True), ("gone too", False)):
        producer.begin_transaction()
        producer.produce(topic, value.encode(), b"k", 0)
        if committed:
            producer.commit_transaction(20)
        else:
            assert producer.flush(20) == 0
            producer.abort_transaction(20)
    with ExtentReader(Settings(kafka_bootstrap=kafka)) as reader:
        extent = reader.bounds(topic, 0)
        assert len(extent) == 8
        send(kafka, topic, "later")
        assert values(reader, extent) == ["kept", "kept too"]


def test_what_is_deleted_meanwhile_and_an_absent_topic_are_one_line(kafka: str, topic: str) -> None:
    send(kafka, topic, "a", "b", "c")
    with ExtentReader(Settings(kafka_bootstrap=kafka)) as reader:
        extent = reader.bounds(topic, 0)
        gone = TopicPartition(topic, 0, 2)
        admin = AdminClient({"bootstrap.servers": kafka})
        admin.delete_records([gone])[gone].result(20)
        with pytest.raises(ParallaxError, match="lost records while it was read"):
            values(reader, extent)
        assert values(reader, reader.bounds(topic, 0)) == ["c"]
        with pytest.raises(SetupError, match="parallax topics create"):
            reader.whole("nobody-made-this")
