"""Publishing files: Kafka has every record byte for byte, under its key, or one line says why not."""

import gzip
import io
import json
import socket
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from stream_app.embedded import embedded_kafka
from stream_app.errors import ServerAbsent, SetupError
from stream_app.files import ACCOUNT_HEADER, key_of
from stream_app.publish import publish


def test_a_wrong_file_or_server_is_one_line(tmp_path: Path) -> None:
    nothing = {"bootstrap.servers": "127.0.0.1:1"}
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    (tmp_path / "rows.csv").write_text("a")
    with pytest.raises(SetupError, match=r"rows\.csv: rows are read from"):
        publish([rows, tmp_path / "rows.csv"], config=nothing, topic="t")
    with pytest.raises(SetupError, match="no such file"):
        publish([tmp_path / "absent.jsonl"], config=nothing, topic="t")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(ServerAbsent, match=address):
            publish([rows], config={"bootstrap.servers": address}, topic="t", timeout_seconds=1)


def test_an_absent_topic_is_not_created(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    with embedded_kafka() as bootstrap:
        for _ in range(2):
            with pytest.raises(SetupError, match="parallax topics create"):
                publish([rows], config={"bootstrap.servers": bootstrap}, topic="absent")


def test_a_broker_that_goes_silent_stops_the_reading(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n" * 5000)
    slow: Any = {"test.mock.num.brokers": 1, "test.mock.broker.rtt": 400, "log_level": 0}
    cluster = Producer(slow)
    brokers = cluster.list_topics("t", timeout=10).brokers
    bootstrap = f"{brokers[1].host}:{brokers[1].port}"
    impatient = {
        "bootstrap.servers": bootstrap,
        "message.timeout.ms": 50,
        "linger.ms": 0,
        "queue.buffering.max.messages": 100,
    }
    report = publish([rows], config=impatient, topic="t")
    assert not report.ok
    assert report.published + report.failed < 1000
    assert "\n" not in report.sentence
    assert report.reason in report.sentence


def make_topic(bootstrap: str) -> str:
    topic = f"publish-{uuid.uuid4().hex}"
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, num_partitions=3, replication_factor=1)])[topic].result(20)
    return topic


def read_all(bootstrap: str, topic: str) -> list[Any]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "none", "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, number, 0) for number in range(3)])
    found: list[Any] = []
    ended = 0
    while ended < 3:
        message = consumer.poll(20)
        assert message is not None, "Kafka said nothing for 20 s"
        if message.error() is None:
            found.append(message)
        else:
            ended += 1
    consumer.close()
    return found


@pytest.mark.kafka
def test_every_record_arrives_with_key_and_account(kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [json.dumps({"campaign_id": f"c{n % 7}", "n": n}).encode() for n in range(2500)] + [b"\xff bad"]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(lines))
    (tmp_path / "more.ndjson.gz").write_bytes(gzip.compress(b'{"campaign_id": "zipped"}\n'))
    (tmp_path / "body.json").write_bytes(b'[{"campaign_id": "x"}, 5]')
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"campaign_id": "piped"}\n')))
    seen: list[tuple[int, int]] = []
    topic = make_topic(kafka)
    report = publish(
        [tmp_path / "rows.jsonl", tmp_path / "more.ndjson.gz", tmp_path / "body.json", "-"],
        config={"bootstrap.servers": kafka},
        topic=topic,
        account="act_1",
        progress=lambda records, taken: seen.append((records, taken)),
    )
    sent = [*lines, b'{"campaign_id": "zipped"}', b'{"campaign_id": "x"}', b"5", b'{"campaign_id": "piped"}']
    assert (report.published, report.failed, report.bytes) == (len(sent), 0, sum(map(len, sent)))
    arrived = read_all(kafka, topic)
    assert Counter(message.value() for message in arrived) == Counter(sent)
    assert all(message.key() == key_of(message.value()) for message in arrived)
    assert all(message.headers() == [(ACCOUNT_HEADER, b"act_1")] for message in arrived)
    partitions: dict[bytes, set[int]] = {}
    for message in arrived:
        partitions.setdefault(message.key(), set()).add(message.partition())
    assert all(len(found) == 1 for key, found in partitions.items() if key is not None)
    on_disk = sum((tmp_path / name).stat().st_size for name in ("rows.jsonl", "more.ndjson.gz", "body.json"))
    assert seen == sorted(seen)
    assert seen[0][0] == 1000
    assert seen[-1] == (len(sent), on_disk + len(b'{"campaign_id": "piped"}\n'))


@pytest.mark.kafka
def test_a_record_that_is_too_large_fails_alone(kafka: str, tmp_path: Path) -> None:
    small = [b'{"campaign_id":"%d"}' % n for n in range(50)]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join([*small[:25], b'"' + b"x" * 5000 + b'"', *small[25:]]))
    topic = make_topic(kafka)
    report = publish(
        [tmp_path / "rows.jsonl"], config={"bootstrap.servers": kafka, "message.max.bytes": 2000}, topic=topic
    )
    assert (report.published, report.failed, report.ok) == (50, 1, False)
    assert "too large" in report.sentence.lower()
    arrived = read_all(kafka, topic)
    assert sorted(message.value() for message in arrived) == sorted(small)
    assert all(message.headers() is None for message in arrived)


@pytest.mark.kafka
def test_a_cut_gzip_file_is_told_and_what_was_read_is_delivered(kafka: str, tmp_path: Path) -> None:
    rows = b"".join(b'{"campaign_id":"%d"}\n' % n for n in range(5000))
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(rows)[:-200])
    topic = make_topic(kafka)
    with pytest.raises(SetupError, match=r"cut\.jsonl\.gz: not sound gzip"):
        publish([tmp_path / "cut.jsonl.gz"], config={"bootstrap.servers": kafka}, topic=topic)
    assert read_all(kafka, topic)
