"""A partition is given up at once, whatever its checkpoint waits for."""

import asyncio
from types import SimpleNamespace
from typing import Any

import aiokafka
import pytest

from stream_app.partition_writer import TenureLost, TransactionalWriter
from stream_app.producer import Outgoing
from stream_app.settings import Settings
from tests.memory_kafka import MemoryKafka, MemoryProducer, until


class Transacting(MemoryProducer):
    """A producer whose transactions take ``begun`` and ``committed``, once it may."""

    def __init__(self, kafka: MemoryKafka, begun: asyncio.Event, committed: asyncio.Event) -> None:
        super().__init__(kafka)
        self.waits = 0
        self._sender = SimpleNamespace(close=self._nothing)
        self.client = SimpleNamespace(close=self._nothing)
        self._closed = False
        self._begun, self._committed = begun, committed

    async def _nothing(self) -> None: ...

    async def begin_transaction(self) -> None:
        await self._wait(self._begun)

    async def commit_transaction(self) -> None:
        await self._wait(self._committed)

    async def _wait(self, allowed: asyncio.Event) -> None:
        self.waits += not allowed.is_set()
        await allowed.wait()

    async def stop(self) -> None:
        """As aiokafka's, which waits until all that it took has been sent."""
        await self._begun.wait()
        await self._committed.wait()


@pytest.mark.parametrize("stuck", ["begin", "commit"])
def test_a_partition_is_given_up_in_the_middle_of_its_checkpoint(monkeypatch: pytest.MonkeyPatch, stuck: str) -> None:
    """Scenario: the broker does not answer, and a rebalance has waited long enough for the last checkpoint.

    Expectation: whoever gives up the partition waits for no answer, and whoever writes the checkpoint is told that it
    has lost its tenure: else all checkpoints of its stage would wait behind it for ever.
    """

    async def run() -> None:
        begun, committed = asyncio.Event(), asyncio.Event()
        producer = Transacting(MemoryKafka(), begun, committed)
        monkeypatch.setattr(aiokafka, "AIOKafkaProducer", lambda **_: producer)
        if stuck == "commit":
            begun.set()
        writer = TransactionalWriter(Settings(), "stage", 0)
        await writer._producer.start()
        checkpoint = asyncio.create_task(writer.write([Outgoing("changelog", 0, b"key", b"value")], []))
        await until(lambda: producer.waits, "the transaction waits for the broker")
        await asyncio.wait_for(writer.close(), 5)
        with pytest.raises(TenureLost):
            await asyncio.wait_for(checkpoint, 5)
        with pytest.raises(TenureLost):
            await writer.write([], [])

    asyncio.run(run())


def test_who_cancels_a_checkpoint_is_not_told_of_a_lost_tenure(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        producer: Any = Transacting(MemoryKafka(), asyncio.Event(), asyncio.Event())
        monkeypatch.setattr(aiokafka, "AIOKafkaProducer", lambda **_: producer)
        writer = TransactionalWriter(Settings(), "stage", 0)
        await writer._producer.start()
        checkpoint = asyncio.create_task(writer.write([Outgoing("changelog", 0, b"key", b"value")], []))
        await until(lambda: producer.waits, "the transaction waits for the broker")
        checkpoint.cancel()
        with pytest.raises(asyncio.CancelledError):
            await checkpoint
        with pytest.raises(TenureLost):
            await writer.write([], [])
        await asyncio.wait_for(writer.close(), 5)

    asyncio.run(run())
