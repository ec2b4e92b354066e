"""Publish files of rows: idempotent producer, keyed by campaign, every record as ``stream_app.files`` reads it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from stream_app.errors import ServerAbsent, SetupError
from stream_app.files import ACCOUNT_HEADER, Source, check, key_of, records

Progress = Callable[[int, int], None]
Headers = list[tuple[str, str | bytes | None]]

_PROGRESS_EVERY: Final = 1000
_ABOUT_ONE_RECORD: Final = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD, KafkaError.INVALID_MSG})
_DEFAULTS: Final[dict[str, Any]] = {
    "linger.ms": 20,
    "message.timeout.ms": 30_000,
    "partitioner": "murmur2_random",
    "queue.buffering.max.messages": 100_000,
    "queue.buffering.max.kbytes": 262_144,
    "log_level": 0,
}
_REQUIRED: Final[dict[str, Any]] = {"enable.idempotence": True, "acks": "all"}


class PublishReport(msgspec.Struct, frozen=True):
    """Records acknowledged and not, and the bytes of the acknowledged values.

    ``reason`` is that of the first failure.
    """

    published: int
    failed: int
    bytes: int
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Whether every record arrived."""
        return not self.failed

    @property
    def sentence(self) -> str:
        """One line for a person."""
        if self.ok:
            return f"{self.published} records published"
        return f"{self.failed} records were not delivered, {self.published} were; the first failure: {self.reason}"


def publish(
    paths: Sequence[Source],
    *,
    config: Mapping[str, Any],
    topic: str,
    account: str = "",
    progress: Progress | None = None,
    timeout_seconds: float = 10.0,
) -> PublishReport:
    """Send every record of ``paths`` to ``topic`` and wait for the broker's word on each.

    ``config`` is librdkafka's and may override all but idempotence and acks. ``progress`` gets the records read and the
    bytes taken from the files, as they lie on disk. After a failure that is not one record's own (broker gone, not
    authorised) no more is read. Raises ``SetupError`` for a file that is absent, of no known kind or no sound gzip,
    and for an absent topic; ``ServerAbsent`` for an absent broker.
    """
    check(paths)
    producer = Producer({**_DEFAULTS, **config, **_REQUIRED})
    _find_topic(producer, topic, str(config.get("bootstrap.servers", "")), timeout_seconds)
    delivery = _Delivery()
    headers: Headers = [(ACCOUNT_HEADER, account.encode())] if account else []
    read = 0
    done_bytes = 0
    try:
        for path in paths:
            position = 0
            for record, position in records(path):
                if delivery.broken:
                    break
                delivery.send(producer, topic, record, headers)
                read += 1
                if progress is not None and read % _PROGRESS_EVERY == 0:
                    progress(read, done_bytes + position)
            done_bytes += position
    finally:
        producer.flush()
    if progress is not None:
        progress(read, done_bytes)
    return PublishReport(delivery.published, delivery.failed, delivery.bytes, delivery.reason)


class _Delivery:
    """Counts what the broker says of each record."""

    def __init__(self) -> None:
        self.published = 0
        self.failed = 0
        self.bytes = 0
        self.reason = ""
        self.broken = False

    def send(self, producer: Producer, topic: str, record: bytes, headers: Headers) -> None:
        key = key_of(record)
        while not self.broken:
            try:
                producer.produce(topic, record, key, headers=headers, on_delivery=self._delivered)
            except BufferError:
                producer.poll(0.2)
            except KafkaException as error:
                self._fail(error.args[0])
                return
            else:
                producer.poll(0)
                return
        self.failed += 1

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._fail(error)
        else:
            self.published += 1
            self.bytes += len(message)

    def _fail(self, error: KafkaError) -> None:
        self.failed += 1
        self.reason = self.reason or " ".join(error.str().split())
        self.broken = self.broken or error.code() not in _ABOUT_ONE_RECORD


def _find_topic(producer: Producer, topic: str, servers: str, timeout_seconds: float) -> None:
    try:
        # Without a topic's name: asking for one by name would create it on brokers that do so.
        topics = producer.list_topics(timeout=timeout_seconds).topics
    except KafkaException as error:
        raise ServerAbsent(
            f"Kafka at {servers or 'no address'} does not answer ({error.args[0].str()}): start it or set"
            " PARALLAX_KAFKA_BOOTSTRAP"
        ) from None
    if topic not in topics:
        raise SetupError(f"topic {topic} does not exist: run `parallax topics create`")
