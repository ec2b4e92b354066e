"""The producer of a worker: whole batches for one partition, idempotent, in order, and awaited."""

from asyncio import Future, gather
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import aiokafka
from aiokafka.errors import KafkaError

from stream_app.errors import ServerAbsent
from stream_app.settings import Settings

BATCH_BYTES = 512 * 1024
REQUEST_BYTES = 8 * 1024 * 1024
REQUEST_TIMEOUT_MS = 30_000


class Outgoing(NamedTuple):
    """One record to send. No value is a tombstone."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


class BatchProducer:
    """Sends records in the order given, a partition at a time. Every failure is raised: nothing is acknowledged after
    one.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: Any = None
        self.ready = False

    async def start(self) -> None:
        """Connect. Raises ``ServerAbsent``."""
        self._producer = aiokafka.AIOKafkaProducer(
            bootstrap_servers=self._settings.kafka_bootstrap,
            enable_idempotence=True,
            acks="all",
            max_batch_size=BATCH_BYTES,
            max_request_size=REQUEST_BYTES,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            **self._settings.aiokafka_security(),
        )
        try:
            await self._producer.start()
        except KafkaError as error:
            await self._producer.stop()
            raise ServerAbsent(f"no Kafka at {self._settings.kafka_bootstrap}: {error}") from error
        self.ready = True

    async def stop(self) -> None:
        """Send what is under way and disconnect."""
        self.ready = False
        if self._producer is not None:
            await self._producer.stop()
            self._producer = None

    async def enqueue(self, records: Iterable[Outgoing]) -> list["Future[Any]"]:
        """Hand records over, in order; a future for each batch that they went into."""
        by_partition: dict[tuple[str, int], list[Outgoing]] = defaultdict(list)
        for record in records:
            by_partition[record.topic, record.partition].append(record)
        futures: list[Future[Any]] = []
        for (topic, partition), own in by_partition.items():
            builder = self._producer.create_batch()
            for record in own:
                if not _append(builder, record):
                    futures.append(await self._hand_over(builder, topic, partition))
                    builder = self._producer.create_batch()
                    _append(builder, record)
            futures.append(await self._hand_over(builder, topic, partition))
        return futures

    async def _hand_over(self, builder: Any, topic: str, partition: int) -> "Future[Any]":
        builder.close()
        future: Future[Any] = await self._producer.send_batch(builder, topic, partition=partition)
        return future

    async def send(self, records: Iterable[Outgoing]) -> None:
        """Send records and wait until all of them are durable. Raises aiokafka's ``KafkaError``."""
        futures = await self.enqueue(records)
        if futures:
            await gather(*futures)


def _append(builder: Any, record: Outgoing) -> bool:
    added = builder.append(timestamp=None, key=record.key, value=record.value, headers=list(record.headers))
    return added is not None
