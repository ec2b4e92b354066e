"""The tables of the stages: bytes by key and partition, recovered from a compacted changelog.

Recovery reads a partition's changelog as fast as the client gives it, once nobody else can write to it any more, and
only what is not held yet. Faust's own tables are not used: their recovery reads a record at a time, does not know of
transactions, and ends with emptied streams.
"""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from core.aggregate import TableWrite
from stream_app.errors import ServerAbsent
from stream_app.groupless import groupless
from stream_app.producer import Ends, Outgoing
from stream_app.settings import Settings
from stream_app.store import Contents, Store

CHUNK: Final = 10_000
POLL_S: Final = 0.2
ASK_S: Final = 5.0
ANSWER_S: Final = 30.0


class Recovered(NamedTuple):
    """What a recovery read, and how long it took."""

    records: int
    seconds: float


class ChangelogTable:
    """The partitions of one table that this worker holds. ``open_store`` makes or finds a partition's store."""

    def __init__(self, settings: Settings, topic: str, open_store: Callable[[int], Store]) -> None:
        self.topic = topic
        self._settings = settings
        self._open_store = open_store
        self._stores: dict[int, Store] = {}
        self._reading = threading.Lock()
        self.recovered = Recovered(0, 0.0)

    def contents(self, partition: int) -> Contents:
        """What is known of a partition."""
        return self._store(partition).contents

    def _store(self, partition: int) -> Store:
        store = self._stores.get(partition)
        if store is None:
            store = self._stores[partition] = self._open_store(partition)
        return store

    def keep(self, partitions: set[int], cancelled: threading.Event) -> None:
        """Let go of all other partitions. Blocks while a recovery that was cancelled has not noticed yet."""
        with self._reading:
            if not cancelled.is_set():
                for partition in [partition for partition in self._stores if partition not in partitions]:
                    self._stores.pop(partition).close()

    def outgoing(self, partition: int, writes: Iterable[TableWrite]) -> list[Outgoing]:
        """The changelog records of some writes, in their order."""
        return [Outgoing(self.topic, partition, write.key, write.value) for write in writes]

    def written(self, partition: int, writes: Iterable[TableWrite], ends: Ends) -> None:
        """Put writes whose changelog is durable. Raises ``StoreFailed``."""
        self._store(partition).put(writes, ends.get((self.topic, partition), -1))

    def recover(self, partitions: Iterable[int], cancelled: threading.Event) -> None:
        """Read what the changelog holds beyond what is known. Blocks: it is made for a thread of its own, and waits for
        one that was cancelled and has not noticed yet, which would write old values over new ones.

        Raises ``ServerAbsent`` when the broker does not answer, aiokafka's and confluent's own errors never.
        """
        with self._reading:
            if not cancelled.is_set():
                self._recover(set(partitions), cancelled)

    def _recover(self, partitions: set[int], cancelled: threading.Event) -> None:
        began = time.monotonic()
        more = {
            "isolation.level": "read_uncommitted" if self._settings.fencing == "none" else "read_committed",
            "fetch.wait.max.ms": 50,
            "queued.max.messages.kbytes": 65_536,
        }
        consumer = groupless(self._settings, "recovery", more)
        try:
            read = self._read(consumer, partitions, cancelled)
        except KafkaException as error:
            raise ServerAbsent(
                f"{self.topic} cannot be read from {self._settings.kafka_bootstrap}: {error.args[0]}"
            ) from error
        finally:
            consumer.close()
        self.recovered = Recovered(read, time.monotonic() - began)

    def _read(self, consumer: Consumer, waiting: set[int], cancelled: threading.Event) -> int:
        starts = {partition: self._start(consumer, partition, cancelled) for partition in sorted(waiting)}
        consumer.assign([TopicPartition(self.topic, partition, start) for partition, start in starts.items()])
        read = 0
        while waiting and not cancelled.is_set():
            fetched: dict[int, list[TableWrite]] = {}
            ends: dict[int, int] = {}
            done: set[int] = set()
            messages: list[Any] = consumer.consume(CHUNK, POLL_S)
            for message in messages:
                partition = message.partition()
                error = message.error()
                if error is None:
                    fetched.setdefault(partition, []).append(TableWrite(message.key(), message.value()))
                    ends[partition] = message.offset() + 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    done.add(partition)
                    ends[partition] = max(ends.get(partition, 0), message.offset())
                elif not error.retriable():
                    raise KafkaException(error)
            if cancelled.is_set():
                break
            for partition, end in ends.items():
                writes = fetched.get(partition, [])
                self._store(partition).put(writes, end)
                read += len(writes)
            waiting -= done
        return read

    def _start(self, consumer: Consumer, partition: int, cancelled: threading.Event) -> int:
        """Where to read on; from the beginning, with an empty store, when the changelog is not the one it copies."""
        if cancelled.is_set():
            return 0
        store = self._store(partition)
        low, high = self._bounds(consumer, partition, cancelled)
        if store.position > high or 0 <= store.position < low:
            store.clear()
        return int(max(low, store.position))

    def _bounds(self, consumer: Consumer, partition: int, cancelled: threading.Event) -> tuple[int, int]:
        until = time.monotonic() + ANSWER_S
        while True:
            try:
                return consumer.get_watermark_offsets(TopicPartition(self.topic, partition), timeout=ASK_S)
            except KafkaException:
                # A partition whose leader is being elected has none for a moment.
                if cancelled.is_set() or time.monotonic() > until:
                    raise
                time.sleep(POLL_S)
