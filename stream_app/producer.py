"""The producers of a worker: whole batches for one partition, idempotent, in order, and awaited.

What cannot be sent waits: a broker that is away for minutes costs minutes and nothing else. An expired batch would be
overtaken by the next one, and the order of a source's rows is what the accounting rests on.
"""

from asyncio import Future, gather, wait_for
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import aiokafka
from aiokafka.errors import KafkaError

from stream_app.errors import ServerAbsent
from stream_app.settings import Settings

BATCH_BYTES = 512 * 1024
REQUEST_BYTES = 8 * 1024 * 1024
REQUEST_TIMEOUT_MS = 30_000
PATIENCE_S = 7 * 86_400.0
TRANSACTION_TIMEOUT_MS = 600_000
"""An outage that lasts longer than this ends the open transaction, and with it the tenure of its partition."""
STOP_S = 10.0


class Outgoing(NamedTuple):
    """One record to send. No value is a tombstone."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


class Sent(NamedTuple):
    """Records that were handed over together: ``future`` gives the offset of the first."""

    topic: str
    partition: int
    records: int
    future: "Future[Any]"


Ends = Mapping[tuple[str, int], int]
"""By topic and partition, the offset behind the last record sent."""


class BatchProducer:
    """Sends records in the order given, a partition at a time. Every failure is raised: nothing is acknowledged after
    one.

    With a ``transactional_id`` it sends in transactions alone, and its start ends those of every producer that has
    started before it under that id.
    """

    def __init__(self, settings: Settings, transactional_id: str | None = None) -> None:
        self._settings = settings
        self._transactional_id = transactional_id
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
            transactional_id=self._transactional_id,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            **self._settings.aiokafka_security(),
        )
        _be_patient(self._producer)
        try:
            await self._producer.start()
        except KafkaError as error:
            await self.stop()
            raise ServerAbsent(f"no Kafka at {self._settings.kafka_bootstrap}: {error}") from error
        self.ready = True

    async def fence(self) -> None:
        """Wait until the broker refuses what earlier producers of the transactional id have on their way."""
        await self._producer.begin_transaction()
        await self._producer.abort_transaction()

    async def stop(self, *, abandon: bool = False) -> None:
        """Send what is under way, unless it is abandoned, and disconnect."""
        self.ready = False
        producer, self._producer = self._producer, None
        if producer is None:
            return
        if abandon:
            # Its own stop would wait for what nobody answers any more.
            producer._closed = True
            with suppress(KafkaError, TimeoutError):
                await wait_for(producer._sender.close(), STOP_S)
            await producer.client.close()
        else:
            await producer.stop()

    async def enqueue(self, records: Iterable[Outgoing]) -> list[Sent]:
        """Hand records over, in order; what became of each batch that they went into."""
        by_partition: dict[tuple[str, int], list[Outgoing]] = defaultdict(list)
        for record in records:
            by_partition[record.topic, record.partition].append(record)
        sent: list[Sent] = []
        for (topic, partition), own in by_partition.items():
            builder, count = self._producer.create_batch(), 0
            for record in own:
                if not _append(builder, record):
                    sent.append(await self._hand_over(builder, topic, partition, count))
                    builder, count = self._producer.create_batch(), 0
                    _append(builder, record)
                count += 1
            sent.append(await self._hand_over(builder, topic, partition, count))
        return sent

    async def _hand_over(self, builder: Any, topic: str, partition: int, count: int) -> Sent:
        builder.close()
        future: Future[Any] = await self._producer.send_batch(builder, topic, partition=partition)
        return Sent(topic, partition, count, future)

    async def send(self, records: Iterable[Outgoing]) -> Ends:
        """Send records and wait until all of them are durable. Raises aiokafka's ``KafkaError``."""
        sent = await self.enqueue(records)
        told = await gather(*(each.future for each in sent))
        return {
            (each.topic, each.partition): found.offset + each.records for each, found in zip(sent, told, strict=True)
        }

    async def transact(self, records: Sequence[Outgoing]) -> Ends:
        """Send records in one transaction: all of them become visible, or none. Raises aiokafka's ``KafkaError``.

        After an error nothing more can be sent.
        """
        if not records:
            return {}
        producer = self._producer
        await producer.begin_transaction()
        ends = await self.send(records)
        await producer.commit_transaction()
        return ends


def _be_patient(producer: Any) -> None:
    """Let batches wait for their broker longer than requests do: aiokafka has one setting for both."""
    accumulator: Any = getattr(producer, "_message_accumulator", None)
    if not (hasattr(accumulator, "_batch_ttl") and hasattr(producer, "_request_timeout_ms")):
        raise RuntimeError("this aiokafka keeps the patience of its batches elsewhere: use the pinned version")
    accumulator._batch_ttl = PATIENCE_S
    producer._request_timeout_ms = 1000 * PATIENCE_S


def _append(builder: Any, record: Outgoing) -> bool:
    added = builder.append(timestamp=None, key=record.key, value=record.value, headers=list(record.headers))
    return added is not None
