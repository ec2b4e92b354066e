"""Publishing records while keeping what the broker made of them: the input of an offline recomputation."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

import msgspec
from confluent_kafka import Producer

from stream_app.errors import ServerAbsent
from stream_app.settings import Settings
from stream_app.simulator import SimRecord
from stream_app.topics import name

MOCK_STAMP: Final = 1234
"""librdkafka's mock cluster answers every produce request with this stamp, and stores the producer's."""


class StoredRecord(msgspec.Struct, frozen=True, gc=False):
    """A record as the broker stored it: offset and time stamp are the broker's."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


class Feed:
    """An idempotent producer. ``stored`` has the delivered records by base topic and partition, in offset order.

    With ``keep`` false nothing is stored.
    """

    def __init__(self, settings: Settings, *, keep: bool = True) -> None:
        self._settings = settings
        self._keep = keep
        self._producer = Producer(
            settings.confluent_config()
            | {"enable.idempotence": True, "linger.ms": 5, "log_level": 0, "partitioner": "murmur2_random"}
        )
        self.stored: dict[tuple[str, int], list[StoredRecord]] = defaultdict(list)
        self.count = 0
        self.failed = 0

    def publish(self, records: Iterable[SimRecord]) -> int:
        """Publish records with their own time stamps and wait until all are stored; how many they were.

        Raises ``ServerAbsent`` when one could not be delivered.
        """
        before = self.count
        for record in records:
            self.send(record)
        self.flush()
        return self.count - before

    def send(self, record: SimRecord) -> None:
        """Hand one record to the producer."""

        def delivered(error: Any, message: Any) -> None:
            if error is not None:
                self.failed += 1
                return
            if not self._keep:
                return
            _, stamp = message.timestamp()
            timestamp = record.timestamp_ms if stamp == MOCK_STAMP else stamp
            self.stored[record.topic, message.partition()].append(
                StoredRecord(message.offset(), timestamp, record.key, record.value, record.headers)
            )

        full_name = name(self._settings, record.topic)
        while True:
            try:
                self._producer.produce(
                    full_name,
                    record.value,
                    record.key,
                    timestamp=record.timestamp_ms,
                    headers=[*record.headers] or None,
                    on_delivery=delivered,
                )
            except BufferError:
                self._producer.poll(0.05)
            else:
                break
        self.count += 1
        self._producer.poll(0)

    def flush(self) -> None:
        """Wait until everything sent is stored. Raises ``ServerAbsent``."""
        if self._producer.flush(30) or self.failed:
            raise ServerAbsent(f"Kafka at {self._settings.kafka_bootstrap} did not take every record")
