"""Snapshots of live campaigns: a file in the data directory that spares a start the reading of all insights.

A snapshot says which campaigns there were, and up to which offset of each partition its insights had been taken: a
reader goes on from there. Campaigns are the same for the same insights, in whatever order and however often they come,
so an old snapshot costs time and nothing else. One that is of another topic, of other settings or unsound is none.
"""

import os
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from stream_app.settings import Settings
from stream_app.topics import ANSWER_S, MOCK_CLUSTER

VERSION: Final = b"\x01"
CRC_BYTES: Final = 4


class Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """``topic_id`` is Kafka's own, another one for a topic that was made anew; ``offsets`` has the next one to read by
    partition, ``campaigns`` what ``LiveCampaigns.dump`` gave.
    """

    topic_id: str
    offsets: dict[int, int]
    campaigns: bytes


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Snapshot).decode


def snapshot_file(settings: Settings) -> Path:
    """Where an application's snapshot lies."""
    return settings.datadir / f"{settings.topic_prefix}{settings.app_id}" / "live-campaigns"


def topic_id(settings: Settings, topic: str) -> str:
    """The id that Kafka gave a topic when it was made; empty where it tells none, as librdkafka's mock cluster does."""
    quiet: dict[str, Any] = {"log_level": 0, "error_cb": lambda _error: None}
    admin = AdminClient(settings.confluent_config() | quiet)
    with suppress(KafkaException):
        if str(admin.list_topics(timeout=ANSWER_S).cluster_id).startswith(MOCK_CLUSTER):
            return ""
        asked = admin.describe_topics(TopicCollection([topic]), request_timeout=ANSWER_S)
        return str(asked[topic].result().topic_id)
    return ""


def load(path: Path) -> Snapshot | None:
    """The snapshot of a file, if it holds a sound one."""
    try:
        payload = path.read_bytes()
    except OSError:
        return None
    head, body = len(VERSION) + CRC_BYTES, payload[len(VERSION) + CRC_BYTES :]
    if payload[:head] != VERSION + zlib.crc32(body).to_bytes(CRC_BYTES, "big"):
        return None
    try:
        return _decode(body)
    except msgspec.DecodeError:
        return None


def store(path: Path, snapshot: Snapshot) -> None:
    """Replace a file as a whole. Raises ``OSError``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    body = _encode(snapshot)
    # Two followers may be at it for a moment, when the lead goes from one worker to another.
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(VERSION + zlib.crc32(body).to_bytes(CRC_BYTES, "big") + body)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
