"""Sending a few records from a command: idempotent, and every one that was not stored is told."""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from stream_app.producer import Outgoing
from stream_app.settings import Settings

BY_KEY: Final = -1
"""As a partition: the one that the key hashes to, as Java's clients hash."""
DELIVERY_S: Final = 30


class Sending(NamedTuple):
    """How many records were stored, and why each of the others was not."""

    stored: int
    failures: list[str]


def send_all(settings: Settings, records: Iterable[Outgoing], largest_bytes: int) -> Sending:
    """Send records in their order and wait for each one's end. Nothing is raised for Kafka's sake."""
    failures: list[str] = []
    stored = 0

    def delivered(error: KafkaError | None, _message: Message) -> None:
        nonlocal stored
        if error is None:
            stored += 1
        else:
            failures.append(" ".join(error.str().split()))

    config: dict[str, Any] = settings.confluent_config() | {
        "enable.idempotence": True,
        "acks": "all",
        "partitioner": "murmur2_random",
        "message.max.bytes": largest_bytes,
        "message.timeout.ms": DELIVERY_S * 1_000,
        "log_level": 0,
        "error_cb": lambda _error: None,
    }
    producer = Producer(config)
    for record in records:
        try:
            _hand_over(producer, record, delivered)
        except KafkaException as error:
            failures.append(error.args[0].str())
    if left := producer.flush(2 * DELIVERY_S):
        failures += ["no answer"] * left
    return Sending(stored, failures)


def _hand_over(producer: Producer, record: Outgoing, delivered: Any) -> None:
    headers: list[tuple[str, str | bytes | None]] = list(record.headers)
    while True:
        try:
            producer.produce(
                record.topic, record.value, record.key, record.partition, headers=headers, on_delivery=delivered
            )
        except BufferError:
            producer.poll(0.2)
        else:
            producer.poll(0)
            return
