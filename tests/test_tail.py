"""Tailing a topic: one line a record, whatever the record, live and from the beginning."""

import asyncio
import io
import json
import socket
import uuid
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from hypothesis import given
from hypothesis import strategies as st

from schemas import dead_letter
from stream_app.embedded import embedded_kafka
from stream_app.errors import ServerAbsent, SetupError
from stream_app.tail import Format, as_json, as_text, tail


class Read(msgspec.Struct):
    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()


def record(body: Any, **other: Any) -> Read:
    return Read(json.dumps(body).encode(), **other)


INSIGHT = {
    "insight_id": "i1",
    "campaign_id": "summer",
    "window": "24h",
    "window_start": "2026-01-31T00:00:00.000Z",
    "version": {"revision": 12, "phase": 1},
    "phase": "final",
    "totals": {"impressions": 12345, "clicks": 67, "spend_micros": 8_900_000, "currency": "EUR"},
    "roas": 2.5,
    "best_platform": "tiktok",
    "consistency_score": 0.875,
}
PREDICTION = {
    "prediction_id": "p1",
    "campaign_id": "summer",
    "window": "24h",
    "label_start": "2026-02-01T00:00:00.000Z",
    "rate": 0.0123,
    "low": 0.01,
    "high": 0.015,
    "source": "empirical_bayes",
    "platforms": {"meta": {"rate": 0.02, "low": 0.01, "high": 0.03}},
}
SOURCE = dead_letter.SourcePosition(topic="ads.metrics.meta", partition=3, offset=99, index=2, timestamp_ms=0)
LETTER = dead_letter.encode(dead_letter.describe(SOURCE, "not_utf8", "the row is not UTF-8"))


def test_an_insight_is_one_readable_line() -> None:
    line = as_text(record(INSIGHT))
    for shown in ("final", "summer", "24h", "r12", "12,345", "67", "8.90 EUR", "2.50", "tiktok", "0.88"):
        assert shown in line


def test_money_in_several_currencies_is_not_added() -> None:
    money = [
        {"currency": "EUR", "spend_micros": 1_500_000, "revenue_micros": None},
        {"currency": "USD", "spend_micros": 2_000_000, "revenue_micros": None},
        {"currency": "", "spend_micros": None, "revenue_micros": 1},
    ]
    line = as_text(record({**INSIGHT, "totals": {"spend_micros": None, "currency": None, "money": money}}))
    assert "spend 1.50 EUR + 2.00 USD" in line


def test_a_prediction_shows_each_rate_with_its_interval() -> None:
    line = as_text(record(PREDICTION))
    assert "all 1.230% [1.000%, 1.500%]" in line
    assert "meta 2.000% [1.000%, 3.000%]" in line
    assert "empirical_bayes" in line
    assert "refused" not in line
    assert as_text(record({**PREDICTION, "model_refused": "checksum"})) == f"{line}  model refused: checksum"
    single = {"campaign_id": "c", "platform": "tiktok", "rate": 0.5, "low": 0.4, "high": 0.6}
    assert "tiktok 50.000% [40.000%, 60.000%]" in as_text(record(single))


def test_a_dead_letter_shows_code_place_sentence_and_payload() -> None:
    read = Read(b"\xffpay\x1b[2Jload\n", b"k", [("parallax-account", b"a"), (dead_letter.HEADER, LETTER)])
    line = as_text(read)
    for shown in ("not_utf8", "ads.metrics.meta/3/99/2", "the row is not UTF-8", "pay"):
        assert shown in line
    body = json.loads(as_json(read))
    assert (body["code"], body["source"]["offset"], body["key"]) == ("not_utf8", 99, "k")
    assert body["payload"] == "\ufffdpay\x1b[2Jload\n"


def test_json_is_the_value_on_one_line() -> None:
    pretty = json.dumps(INSIGHT, indent=2).encode()
    assert "\n" not in as_json(Read(pretty))
    assert json.loads(as_json(Read(pretty))) == INSIGHT
    assert json.loads(as_json(Read(None, b"i1"))) == {"tombstone": "i1"}
    assert json.loads(as_json(Read(b"\xff{"))) == {"raw": "\ufffd{"}
    assert "i1" in as_text(Read(None, b"i1"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("ab\x1b\n\u202eé", max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from([INSIGHT, PREDICTION]), st.dictionaries(st.sampled_from([*INSIGHT, *PREDICTION]), JSON))
def test_missing_and_strange_fields_still_give_a_line(known: dict[str, Any], changes: dict[str, Any]) -> None:
    read = record({**known, **changes})
    assert as_text(read).isprintable()
    assert "\n" not in as_json(read)
    letter = Read(None, None, [(dead_letter.HEADER, json.dumps(changes).encode())])
    assert as_text(letter).isprintable()


@given(st.binary(), st.none() | st.binary(), st.binary())
def test_any_bytes_give_one_line(value: bytes, key: bytes | None, header: bytes) -> None:
    for read in (Read(value, key), Read(value, key, [(dead_letter.HEADER, header)]), Read(None, key)):
        assert as_text(read).isprintable()
        assert "\n" not in as_json(read)


def test_an_absent_broker_or_topic_is_one_line() -> None:
    async def follow(bootstrap: str) -> None:
        await tail("absent", config={"bootstrap_servers": bootstrap}, from_beginning=True, limit=1, out=io.StringIO())

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(ServerAbsent, match=address):
            asyncio.run(follow(address))
    with embedded_kafka() as bootstrap:
        for _ in range(2):
            with pytest.raises(SetupError, match="parallax topics create"):
                asyncio.run(follow(bootstrap))


def make_topic(bootstrap: str, partitions: int = 3) -> str:
    topic = f"tail-{uuid.uuid4().hex}"
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, num_partitions=partitions, replication_factor=1)])[topic].result(20)
    return topic


def send(bootstrap: str, topic: str, numbers: range) -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    for number in numbers:
        producer.produce(topic, b'{"n": %d}' % number, b"%d" % number)
    assert producer.flush(20) == 0


@pytest.mark.kafka
@pytest.mark.parametrize("style", ["json", "text"])
def test_from_the_beginning_every_partition_is_printed_up_to_the_limit(kafka: str, style: Format) -> None:
    topic = make_topic(kafka)
    send(kafka, topic, range(50))
    for limit in (50, 7):
        out = io.StringIO()
        config = {"bootstrap_servers": kafka}
        printed = asyncio.run(tail(topic, config=config, from_beginning=True, limit=limit, out=out, style=style))
        lines = out.getvalue().splitlines()
        assert printed == len(lines) == limit
        assert {json.loads(line)["n"] for line in lines} <= set(range(50))
        assert len(set(lines)) == limit


@pytest.mark.kafka
def test_live_starts_at_the_end_and_follows(kafka: str) -> None:
    topic = make_topic(kafka)
    send(kafka, topic, range(20))

    class Watched(io.StringIO):
        """Sends the next record when the tail has printed the one before."""

        def flush(self) -> None:
            sent = len(self.getvalue().splitlines())
            if sent == self.expected:
                self.expected += 1
                send(kafka, topic, range(100 + sent, 101 + sent))

        expected = 0

    out = Watched()
    config = {"bootstrap_servers": kafka}
    assert asyncio.run(tail(topic, config=config, from_beginning=False, limit=3, out=out, style="json")) == 3
    assert [json.loads(line)["n"] for line in out.getvalue().splitlines()] == [100, 101, 102]


@pytest.mark.kafka
def test_a_reader_that_goes_away_ends_the_tail(kafka: str) -> None:
    topic = make_topic(kafka)
    send(kafka, topic, range(3))

    class Closed(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    config = {"bootstrap_servers": kafka}
    asyncio.run(asyncio.wait_for(tail(topic, config=config, from_beginning=True, limit=None, out=Closed()), 30))
