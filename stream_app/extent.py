"""Extents: what topics hold between two offsets, read once and to an end that is known before, at librdkafka's speed.

No consumer group is joined and nothing is committed, so a worker never notices.
"""

import time
from collections.abc import Callable, Iterator
from typing import Final, Self, TypeVar

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from stream_app.errors import ParallaxError, ServerAbsent, SetupError
from stream_app.feed import StoredRecord
from stream_app.groupless import groupless
from stream_app.settings import Settings

BATCH: Final = 5_000
POLL_S: Final = 0.1
ANSWER_S: Final = 5.0
STALLED_S: Final = 30.0
UNSETTLED: Final = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_PARTITION,
)
Answer = TypeVar("Answer")
NO_HEADERS: Final[list[tuple[str, bytes]]] = []


class Extent(msgspec.Struct, frozen=True):
    """The records of a partition from one offset up to another. ``topic`` is the full name."""

    topic: str
    partition: int
    start: int
    end: int

    def __len__(self) -> int:
        return max(0, self.end - self.start)


class ExtentReader:
    """A consumer for extents; sees committed transactions alone. Errors are ``ServerAbsent`` and ``SetupError``."""

    def __init__(self, settings: Settings) -> None:
        self._servers = settings.kafka_bootstrap
        more = {
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 20,
            "queued.max.messages.kbytes": 65_536,
            "fetch.message.max.bytes": 4 * 1024 * 1024,
        }
        self._consumer = groupless(settings, "extents", more)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def partitions(self, topic: str) -> list[int]:
        """The partitions of a topic."""
        # Of all topics: asking for one by name would create it on brokers that do so.
        topics = self._ask(lambda: self._consumer.list_topics(timeout=ANSWER_S)).topics
        if topic not in topics:
            raise SetupError(f"topic {topic} does not exist: run `parallax topics create`")
        return sorted(topics[topic].partitions)

    def bounds(self, topic: str, partition: int) -> Extent:
        """All that a partition holds now."""
        asked = TopicPartition(topic, partition)
        low, high = self._ask(lambda: self._consumer.get_watermark_offsets(asked, timeout=ANSWER_S))
        return Extent(topic, partition, low, high)

    def whole(self, topic: str) -> list[Extent]:
        """All that a topic holds now."""
        return [self.bounds(topic, partition) for partition in self.partitions(topic)]

    def offset_at(self, within: Extent, instant_ms: int) -> int:
        """The offset of the first record that arrived at an instant or later; the extent's end where none did."""
        asked = TopicPartition(within.topic, within.partition, max(0, instant_ms))

        def answer() -> TopicPartition:
            [told] = self._consumer.offsets_for_times([asked], timeout=ANSWER_S)
            if told.error is not None:
                raise KafkaException(told.error)
            return told

        found = self._ask(answer)
        return within.end if found.offset < 0 else min(found.offset, within.end)

    def read(self, extent: Extent) -> Iterator[list[StoredRecord]]:
        """The extent's records in order, in batches that may be empty."""
        for messages in self._messages(extent):
            yield [
                StoredRecord(
                    message.offset() or 0,
                    message.timestamp()[1],
                    message.key(),
                    message.value(),
                    message.headers() or NO_HEADERS,  # type: ignore[arg-type] # none of its values is text
                )
                for message in messages
            ]

    def _messages(self, extent: Extent) -> Iterator[list[Message]]:
        if not len(extent):
            return
        position, heard = extent.start, time.monotonic()
        self._consumer.assign([TopicPartition(extent.topic, extent.partition, extent.start)])
        try:
            while position < extent.end:
                # Compaction and transactions leave gaps, so the end may come before that many are there.
                found = self._consumer.consume(min(BATCH, extent.end - position), POLL_S)
                taken: list[Message] = []
                for message in found:
                    error = message.error()
                    if error is None:
                        position = (message.offset() or 0) + 1
                        if position <= extent.end:
                            taken.append(message)
                    elif error.code() == KafkaError._PARTITION_EOF:
                        position = extent.end
                    else:
                        raise self._broken(extent, error)
                if found:
                    heard = time.monotonic()
                elif time.monotonic() - heard > STALLED_S:
                    raise ServerAbsent(f"Kafka at {self._servers} gives nothing of topic {extent.topic}: is it down?")
                yield taken
        finally:
            self._consumer.unassign()

    def _ask(self, call: Callable[[], Answer]) -> Answer:
        """The broker's answer; a new topic's partition may still be without its leader."""
        until = time.monotonic() + ANSWER_S
        while True:
            try:
                return call()
            except KafkaException as error:
                if error.args[0].code() not in UNSETTLED or time.monotonic() > until:
                    raise ServerAbsent(
                        f"Kafka at {self._servers} does not answer ({error.args[0].str()}): start it or set"
                        " PARALLAX_KAFKA_BOOTSTRAP"
                    ) from None
            time.sleep(POLL_S)

    def _broken(self, extent: Extent, error: KafkaError) -> ParallaxError:
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            return ParallaxError(f"topic {extent.topic} lost records while it was read: run this again")
        return ServerAbsent(f"Kafka at {self._servers} refuses topic {extent.topic}: {error.str()}")
