"""What the topics, Redis and the health pages hold, read back for the checker."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, TopicPartition
from redis import Redis
from redis.exceptions import RedisError

from schemas import dead_letter, envelope
from schemas import insight as insight_codec
from schemas import topics as names
from schemas.dead_letter import DeadLetter
from schemas.insight import CrossPlatformInsight
from stream_app.feed import StoredRecord
from stream_app.settings import Settings
from stream_app.topics import name

READ_S: Final = 60.0
WATCH_S: Final = 0.3
INSIGHT_KEYS: Final = "parallax:insight:*"
Logs = dict[tuple[str, int], list[StoredRecord]]


class Letter(NamedTuple):
    """A dead letter and the value and key of the record that came to it."""

    described: DeadLetter
    key: bytes | None
    value: bytes | None


class Sinks(NamedTuple):
    """Everything there is to compare. ``hot_falls``: how often a version in Redis was seen to fall."""

    inputs: Logs
    insights: list[CrossPlatformInsight]
    latest: list[tuple[str, CrossPlatformInsight]]
    letters: list[Letter]
    hot: Mapping[tuple[str, str], CrossPlatformInsight]
    accounting: Mapping[str, Any]
    hot_falls: int = 0


class TopicReader:
    """Reads topics from their beginning on, more at each ``catch_up``, as a reader of committed records sees them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._bases = (*names.INGEST_TOPICS, names.ROUTED, names.INSIGHTS, names.INSIGHTS_LATEST, names.DEAD_LETTERS)
        self._next: dict[tuple[str, int], int] = defaultdict(int)
        self.inputs: Logs = defaultdict(list)
        self.insights: list[CrossPlatformInsight] = []
        self.latest: list[tuple[str, CrossPlatformInsight]] = []
        self.letters: list[Letter] = []
        self.routed: list[bytes] = []

    def catch_up(self) -> None:
        """Read what has come."""
        decoded: dict[bytes, CrossPlatformInsight] = {}

        def insight(payload: bytes) -> CrossPlatformInsight:
            # Each is on two topics.
            found = decoded.get(payload)
            if found is None:
                found = decoded[payload] = insight_codec.decode(payload)
            return found

        for base, message in self._new():
            where = (base, message.partition())
            self._next[where] = message.offset() + 1
            if base in names.INGEST_TOPICS:
                _, stamp = message.timestamp()
                headers = message.headers() or []
                self.inputs[where].append(
                    StoredRecord(message.offset(), stamp, message.key(), message.value(), headers)
                )
            elif base == names.ROUTED:
                self.routed.append(message.value())
            elif base == names.INSIGHTS:
                self.insights.append(insight(message.value()))
            elif base == names.INSIGHTS_LATEST:
                self.latest.append((message.key().decode(), insight(message.value())))
            else:
                headers = dict(message.headers() or [])
                described = dead_letter.decode(headers[dead_letter.HEADER])
                self.letters.append(Letter(described, message.key(), message.value()))

    def skip(self, base: str, partition: int, offset: int) -> None:
        """Go on from an offset: what lies before has been deleted."""
        self._next[base, partition] = max(self._next[base, partition], offset)

    def _new(self) -> Iterable[tuple[str, Any]]:
        by_name = {name(self._settings, base): base for base in self._bases}
        consumer = Consumer(
            self._settings.confluent_config()
            | {
                "group.id": "chaos",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 20,
                "log_level": 0,
                "error_cb": lambda _: None,
            }
        )
        open_ends = {(topic, p) for topic in by_name for p in range(self._settings.partitions)}
        found: list[tuple[str, Any]] = []
        end = time.monotonic() + READ_S
        try:
            consumer.assign([TopicPartition(topic, p, self._next[by_name[topic], p]) for topic, p in open_ends])
            while open_ends:
                assert time.monotonic() < end, f"the topics are not read to their ends within {READ_S:.0f} s"
                for message in consumer.consume(5_000, 0.1):
                    error = message.error()
                    if error is None:
                        found.append((by_name[str(message.topic())], message))
                    elif error.code() == KafkaError._PARTITION_EOF:
                        open_ends.discard((message.topic(), message.partition()))
                    else:
                        raise AssertionError(f"{message.topic()}/{message.partition()}: {error}")
        finally:
            consumer.close()
        return found

    def delivered_again(self) -> int:
        """How many source rows are on the routed topic more than once: ingest has taken them again."""
        seen: set[tuple[str, int, int, int]] = set()
        again = 0
        for payload in self.routed:
            routed = envelope.decode(payload)
            for row in _positions(routed):
                place = (routed.topic, routed.partition, *row)
                again += place in seen
                seen.add(place)
        return again


def _positions(routed: envelope.Envelope) -> list[tuple[int, int]]:
    rows = [(row.offset, row.index) for row in routed.outcomes]
    rows += [(row.offset, row.index) for row in routed.snapshots]
    rows += [(row.offset, row.index) for row in routed.links]
    if routed.deltas is not None:
        columns = (memoryview(routed.deltas.offsets).cast("q"), memoryview(routed.deltas.indexes).cast("I"))
        rows += zip(*(column.tolist() for column in columns), strict=True)
    return rows


def hot_insights(host: str, port: int) -> dict[tuple[str, str], CrossPlatformInsight]:
    """What Redis holds, by campaign and kind of window."""
    found = {}
    with Redis(host=host, port=port) as client:
        keys = list(client.scan_iter(INSIGHT_KEYS, count=1_000))
        pipe: Any = client.pipeline(transaction=False)
        for key in keys:
            pipe.hget(key, "value")
        for key, value in zip(keys, pipe.execute(), strict=True):
            campaign, _, window = key.decode().removeprefix(INSIGHT_KEYS[:-1]).rpartition(":")
            if value is not None:
                found[campaign, window] = insight_codec.decode(value)
    return found


class HotWatch:
    """Looks at the versions in Redis again and again, in a thread: none may fall while Redis keeps what it has."""

    def __init__(self, host: str, port: int) -> None:
        self._client = Redis(host=host, port=port, socket_timeout=2)
        self._seen: dict[bytes, tuple[int, int]] = {}
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self.falls = 0
        self.looks = 0
        self._thread = threading.Thread(target=self._run, daemon=True, name="hot-watch")
        self._thread.start()

    @contextmanager
    def losing(self) -> Iterator[None]:
        """What Redis holds is lost within: versions count anew."""
        with self._lock:
            yield
            self._seen.clear()

    def close(self) -> None:
        """Stop looking."""
        self._closing.set()
        self._thread.join()
        self._client.close()

    def _run(self) -> None:
        while not self._closing.wait(WATCH_S):
            with self._lock:
                try:
                    self._look()
                except RedisError:
                    continue

    def _look(self) -> None:
        keys = list(self._client.scan_iter(INSIGHT_KEYS, count=2_000))
        pipe: Any = self._client.pipeline(transaction=False)
        for key in keys:
            pipe.hmget(key, "revision", "phase")
        for key, (revision, phase) in zip(keys, pipe.execute(), strict=True):
            if revision is None or phase is None:
                continue
            version = (int(revision), int(phase))
            held = self._seen.get(key)
            self.falls += held is not None and version < held
            self._seen[key] = version
        self.looks += 1
