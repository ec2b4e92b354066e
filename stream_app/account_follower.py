"""Following ``ads.accounts``: every worker that decodes rows needs all that was said of the accounts.

The facts are read without a group, from the beginning, into memory. Before a batch is decoded the follower reads as
far as the topic goes at that moment, so that whatever arrived before the batch did is known.
"""

import asyncio
import logging
from typing import Any

import aiokafka
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from core.accounts import AccountHistory
from core.ingest import Ingest
from schemas import topics as names
from stream_app.errors import ServerAbsent
from stream_app.outage import passing
from stream_app.settings import Settings
from stream_app.topics import name

log = logging.getLogger(__name__)

FETCH_WAIT_MS = 20
"""A broker answers a connection's requests in turn: a question waits for a fetch that waits for news. So none is under
way while there is nothing to read, and the last one that is ends soon.
"""
AGAIN_S = 0.2


class AccountFollower:
    """``history`` is what is known. ``asked`` counts the questions to the broker."""

    def __init__(self, settings: Settings, ingest: Ingest) -> None:
        self._settings = settings
        self._ingest = ingest
        topic = name(settings, names.ACCOUNTS)
        self._partitions = [TopicPartition(topic, partition) for partition in range(settings.partitions)]
        self._consumer: Any = None
        self._turn = asyncio.Lock()
        self.history = AccountHistory(ingest.accounts)
        self.asked = 0
        self._answered = 0

    async def start(self) -> None:
        """Read everything that there is. Raises ``ServerAbsent``."""
        self._consumer = aiokafka.AIOKafkaConsumer(
            bootstrap_servers=self._settings.kafka_bootstrap,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_uncommitted" if self._settings.fencing == "none" else "read_committed",
            fetch_max_wait_ms=FETCH_WAIT_MS,
            **self._settings.aiokafka_security(),
        )
        try:
            await self._consumer.start()
        except KafkaError as error:
            await self.stop()
            raise ServerAbsent(f"no Kafka at {self._settings.kafka_bootstrap}: {error}") from error
        self._consumer.assign(self._partitions)
        self._consumer.pause(*self._partitions)
        # Not by ``seek_to_beginning``: a position that the election of a leader hid is never looked for
        # again in a partition that is paused, and whoever waits for it waits for ever.
        for tp, first in (await self._beginnings()).items():
            self._consumer.seek(tp, first)
        await self.catch_up()

    async def _beginnings(self) -> dict[TopicPartition, int]:
        while True:
            try:
                found: dict[TopicPartition, int] = await self._consumer.beginning_offsets(self._partitions)
            except KafkaError as error:
                log.warning("the accounts cannot be read (%s): trying again", type(error).__name__)
                await asyncio.sleep(AGAIN_S)
            else:
                return found

    async def stop(self) -> None:
        """Disconnect."""
        if self._consumer is not None:
            await self._consumer.stop()
            self._consumer = None

    async def catch_up(self) -> None:
        """Read as far as the topic goes now. A broker that is away is waited for."""
        before = self.asked
        async with self._turn:
            # One question that was asked after several had begun to wait serves them all.
            if self._answered > before:
                return
            self.asked += 1
            while self._answered < self.asked:
                try:
                    await self._read(await self._consumer.end_offsets(self._partitions))
                except KafkaError as error:
                    if not passing(error):
                        raise
                    log.warning("the accounts cannot be read (%s): trying again", type(error).__name__)
                    await asyncio.sleep(AGAIN_S)
                else:
                    self._answered = self.asked

    async def _read(self, ends: dict[TopicPartition, int]) -> None:
        behind = [tp for tp, end in ends.items() if await self._consumer.position(tp) < end]
        self._consumer.resume(*behind)
        try:
            for tp in behind:
                while await self._consumer.position(tp) < ends[tp]:
                    fetched = await self._consumer.getmany(timeout_ms=FETCH_WAIT_MS)
                    for records in fetched.values():
                        self.history.take(records, self._ingest.lateness, self._ingest.max_payload_bytes)
        finally:
            self._consumer.pause(*behind)
