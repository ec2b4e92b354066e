"""Publishing files: which records they hold, what their keys are, and that Kafka has them byte for byte."""

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
from hypothesis import given
from hypothesis import strategies as st

from stream_app.embedded import embedded_kafka
from stream_app.errors import ServerAbsent, SetupError
from stream_app.publish import ACCOUNT_HEADER, _records, key_of, publish

NATIVE = Path(__file__).parents[2] / "shared" / "native"


def records_of(path: Path) -> list[bytes]:
    return [record for record, _ in _records(path)]


@pytest.mark.parametrize(
    ("row", "key"),
    [
        ({"campaign_id": "23846765228240398", "spend": 1}, "23846765228240398"),
        ({"stream": "ads_insights", "data": {"campaign_id": "7"}, "emitted_at": 1}, "7"),
        ({"type": "RECORD", "stream": "s", "record": {"campaign_id": 8}}, "8"),
        ({"data": {"dimensions": {"ad_id": 1}, "metrics": {"campaign_id": 1714125042508817}}}, "1714125042508817"),
        ({"data": {"dimensions": {"campaign_id": "9"}, "metrics": {}}}, "9"),
        ({"data": {"campaign.id": 20643300404}}, "20643300404"),
        ({"campaign": {"id": "700001"}, "metrics": {}}, "700001"),
        ({"data": [{"campaign_id": "1"}, {"campaign_id": "1"}], "paging": {}}, "1"),
        ({"data": [{"campaign_id": "1"}, {"campaign_id": "2"}]}, None),
        ({"data": [{"campaign_id": "1"}, {"other": "2"}]}, None),
        ({"data": []}, None),
        ({"code": 0, "data": {"list": [{"dimensions": {"campaign_id": "5"}}]}}, "5"),
        ({"results": [{"campaign": {"id": "6"}}]}, "6"),
        ({"platform": "meta", "platform_campaign_id": "1", "campaign_id": "summer"}, "meta:1"),
        ({"campaign_id": "été"}, "été"),
        ({"campaign_id": None}, None),
        ({"campaign_id": True}, None),
        ({"campaign_id": 1.5}, None),
        ({"campaign_id": ""}, None),
        ({"data": "text"}, None),
        ([{"campaign_id": "1"}], None),
        ("text", None),
    ],
)
def test_the_key_is_the_one_campaign_of_a_record(row: Any, key: str | None) -> None:
    assert key_of(json.dumps(row).encode()) == (None if key is None else key.encode())


@given(st.binary())
def test_any_bytes_have_a_key_or_none(record: bytes) -> None:
    assert key_of(record) is None


def test_most_native_rows_are_keyed() -> None:
    rows = records_of(NATIVE / "meta" / "airbyte_ads_insights.jsonl")
    rows += records_of(NATIVE / "tiktok" / "airbyte_reports.jsonl")
    without = {json.loads(row)["stream"] for row in rows if key_of(row) is None}
    assert "customcustom_insight_stream" in without
    assert all(stream.startswith("advertisers_") for stream in without - {"customcustom_insight_stream"})
    assert len(rows) == 105


@pytest.mark.parametrize("ending", [".jsonl", ".ndjson", ".JSONL"])
def test_lines_are_records_byte_for_byte(tmp_path: Path, ending: str) -> None:
    lines = [b'{"a": 1}', b"\xff\xfe not text", b" ", b"{cut", b'{"b":\t2} ']
    path = tmp_path / f"rows{ending}"
    path.write_bytes(b"\r\n".join(lines[:2]) + b"\n\n" + b"\n".join(lines[2:]))
    assert records_of(path) == lines
    zipped = tmp_path / f"rows{ending}.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    assert records_of(zipped) == lines


@pytest.mark.parametrize(
    ("body", "records"),
    [
        (b'{\n "a": 1\n}\n', [b'{\n "a": 1\n}\n']),
        (b' [ {"a":  1.0}, [2] ,\n"x" ] ', [b'{"a":  1.0}', b"[2]", b'"x"']),
        (b"[]", []),
        (b'[{"a": 1}', [b'[{"a": 1}']),
        (b'[{"a": NaN}]', [b'[{"a": NaN}]']),
        (b"\xff", [b"\xff"]),
    ],
)
def test_a_json_file_is_one_record_or_its_array(tmp_path: Path, body: bytes, records: list[bytes]) -> None:
    for name, written in (("rows.json", body), ("rows.json.gz", gzip.compress(body))):
        (tmp_path / name).write_bytes(written)
        assert records_of(tmp_path / name) == records


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
