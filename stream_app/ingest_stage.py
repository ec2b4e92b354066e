"""INGEST: fetched batches of the input topics become envelopes on the routed topic and dead letters.

A batch is decoded at once, its records are handed to the producer in order, and the next batch is decoded while they
are on their way. A batch is finished when all of them are durable.
"""

import asyncio
import logging
import time
from collections import Counter
from typing import Any

import msgspec
from faust.types import TP

from core.aggregate import rollup_record
from core.ingest import Ingest, Ingested, RejectedRow
from schemas import dead_letter
from schemas import topics as names
from stream_app.account_follower import AccountFollower
from stream_app.batch_transport import Batch, BatchConsumer
from stream_app.producer import BatchProducer, Outgoing, Sent
from stream_app.settings import Settings
from stream_app.topics import largest_letter, name

log = logging.getLogger(__name__)

IN_FLIGHT = 4
"""Batches under way; more would only fill memory while the broker is slow."""


class IngestStage:
    """State of one worker: what each source partition has observed, and what has been told of it."""

    def __init__(self, settings: Settings, ingest: Ingest, producer: BatchProducer, accounts: AccountFollower) -> None:
        self._settings = settings
        self._accounts = accounts
        self._ingest = ingest
        self._producer = producer
        self._routed = name(settings, names.ROUTED)
        self._rollups = name(settings, names.ROLLUPS)
        self._dead_letters = name(settings, names.DEAD_LETTERS)
        self._largest_letter = largest_letter(settings)
        self._base = {name(settings, base): base for base in names.INGEST_TOPICS}
        self._watermarks: dict[TP, int] = {}
        self._told: dict[TP, tuple[int, bool]] = {}
        self._room = asyncio.Semaphore(IN_FLIGHT)
        self._tasks: set[asyncio.Task[None]] = set()
        self.rows = 0
        self.records = 0
        self.first_at: float | None = None
        self.rejected: Counter[str] = Counter()

    @property
    def topics(self) -> list[str]:
        """Full names of the topics that are read."""
        return list(self._base)

    async def take(self, event: Any, consumer: BatchConsumer) -> None:
        """Decode and send one batch. Returns when there is room for the next; failures come out of ``drain``."""
        batch: Batch = event.message.value
        tp: TP = event.message.tp
        await self._room.acquire()
        try:
            await self._accounts.catch_up()
            highwater = consumer.highwater(tp) or 0
            lag = max(0, highwater - batch.records[-1].offset - 1)
            ingested = self._ingest.batch(
                self._base[tp.topic],
                tp.partition,
                batch.records,
                self._watermarks.get(tp, -1),
                lag,
                self._accounts.history,
            )
            self._watermarks[tp] = ingested.watermark_ms
            # What speaks is not idle to those who hear it: whether it has come to its end is to be told again.
            self._told.pop(tp, None)
            self._count(batch, ingested)
            sent = await self._producer.enqueue(self._outgoing(ingested))
        except BaseException:
            self._room.release()
            raise
        task = asyncio.create_task(self._finish(sent, consumer, tp, batch.records[-1].offset))
        self._tasks.add(task)
        task.add_done_callback(self._settled)

    def _settled(self, task: "asyncio.Task[None]") -> None:
        self._room.release()
        # A rebalance that gave up waiting has cancelled it: the batch is not finished, and will be redelivered.
        if task.cancelled() or task.exception() is None:
            self._tasks.discard(task)

    async def _finish(self, sent: list[Sent], consumer: BatchConsumer, tp: TP, last: int) -> None:
        await asyncio.gather(*(each.future for each in sent))
        consumer.finish(tp, last)

    def failure(self) -> BaseException | None:
        """Why a batch could not be made durable, if one could not."""
        return next((task.exception() for task in self._tasks if task.done() and not task.cancelled()), None)

    async def drain(self) -> None:
        """Wait until every batch taken is durable. Raises what kept one from it."""
        if self._tasks:
            await asyncio.gather(*self._tasks)

    def _count(self, batch: Batch, ingested: Ingested) -> None:
        self.first_at = self.first_at or time.time()
        self.records += len(batch.records)
        self.rows += ingested.rows
        for row in ingested.rejected:
            self.rejected[row.letter.code] += 1

    def _outgoing(self, ingested: Ingested) -> list[Outgoing]:
        sent = [Outgoing(self._routed, partition, None, payload) for partition, payload in ingested.envelopes]
        for fact in ingested.rates:
            key, payload = rollup_record(fact)
            sent += [Outgoing(self._rollups, partition, key, payload) for partition in range(self._settings.partitions)]
        return sent + [self._letter(row) for row in ingested.rejected]

    def _letter(self, row: RejectedRow) -> Outgoing:
        record = row.record
        partition = row.letter.source.partition % self._settings.partitions
        letter, key, value, headers = row.letter, record.key, record.value, list(record.headers)
        beside = len(key or b"") + sum(len(name) + len(held or b"") for name, held in headers)
        size = beside + len(value or b"")
        if size > self._largest_letter:
            # A compressed record may hold any number of times what its topic takes.
            if beside > self._largest_letter // 2:
                key, headers, beside = None, [], 0
            value = None if value is None else value[: self._largest_letter - beside]
            letter = msgspec.structs.replace(letter, cut_bytes=size - beside - len(value or b""))
        headers.append((dead_letter.HEADER, dead_letter.encode(letter)))
        return Outgoing(self._dead_letters, partition, key, value, headers)

    async def heartbeat(self, consumer: BatchConsumer, assigned: set[TP]) -> None:
        """Tell every target partition what the sources have observed, and which of them are read to their end."""
        sent: list[Outgoing] = []
        for tp in assigned:
            base = self._base.get(tp.topic)
            if base is None:
                continue
            told = (self._watermarks.get(tp, -1), consumer.at_end(tp))
            if self._told.get(tp) == told:
                continue
            self._told[tp] = told
            watermark, idle = told
            sent += [
                Outgoing(self._routed, partition, None, payload)
                for partition, payload in self._ingest.heartbeat(base, tp.partition, watermark, idle=idle)
            ]
        if sent:
            await self._producer.send(sent)

    def revoke(self, revoked: set[TP]) -> None:
        """Forget what was told: a new owner, this worker again perhaps, tells it anew."""
        for tp in revoked:
            self._told.pop(tp, None)
            self._watermarks.pop(tp, None)
