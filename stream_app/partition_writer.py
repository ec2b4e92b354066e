"""Writing a partition's checkpoints so that only its owner can.

A worker that was stalled past its session does not know that its partition has another owner. With transactions the
new owner's ``open`` makes the broker refuse whatever the old one has still on its way, changelog and outputs alike,
and a checkpoint becomes visible as a whole or not at all. Compare-and-set on revisions alone would not do: compaction
keeps the last record of a key, not its highest revision.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from aiokafka import errors

from stream_app.outage import passing
from stream_app.producer import BatchProducer, Ends, Outgoing
from stream_app.settings import Settings

FENCES = (
    errors.IllegalOperation,
    errors.InvalidProducerEpoch,
    errors.InvalidProducerIdMapping,
    errors.InvalidTxnState,
    errors.OutOfOrderSequenceNumber,
    errors.ProducerFenced,
)


class TenureLost(Exception):
    """The partition has, or may have, another owner: what is held of it in memory is worth nothing any more."""


class PartitionWriter(Protocol):
    """Writes the checkpoints of one partition of one stage."""

    async def open(self) -> None:
        """Become the only one who can write. Returns when earlier owners cannot any more."""

    async def write(self, changelog: Sequence[Outgoing], outputs: Sequence[Outgoing]) -> Ends:
        """Make a checkpoint durable, the changelog no later than the outputs.

        Raises ``TenureLost``, and aiokafka's ``KafkaError`` for what no other owner could do better.
        """

    async def close(self) -> None:
        """Give up the partition."""


class TransactionalWriter:
    """One transaction a checkpoint, under an id that all owners of the partition share."""

    def __init__(self, settings: Settings, stage: str, partition: int) -> None:
        self._producer = BatchProducer(settings, f"{settings.topic_prefix}{settings.app_id}-{stage}-{partition}")
        self._lost = False
        self._given_up = False
        self._transaction: asyncio.Future[Ends] | None = None

    async def open(self) -> None:
        """Become the only one who can write. Returns when earlier owners cannot any more."""
        await self._producer.start()
        await self._producer.fence()

    async def write(self, changelog: Sequence[Outgoing], outputs: Sequence[Outgoing]) -> Ends:
        """Make a checkpoint durable as a whole."""
        if self._lost or not self._producer.ready:
            raise TenureLost("the partition was given up")
        # Whether a transaction that was interrupted took effect, the changelog alone can tell.
        self._lost = True
        self._transaction = asyncio.ensure_future(self._producer.transact([*changelog, *outputs]))
        try:
            ends = await self._transaction
        except asyncio.CancelledError:
            if self._given_up:
                raise TenureLost("the partition was given up while its checkpoint was written") from None
            raise
        except FENCES as error:
            raise TenureLost(f"{type(error).__name__}: {error}") from error
        except AssertionError as error:
            # How aiokafka says that its producer had come to its end before the transaction began.
            raise TenureLost(str(error)) from error
        except Exception as error:
            # A partition that is given up takes the producer from under its last checkpoint.
            if self._given_up or passing(error):
                raise TenureLost(f"{type(error).__name__}: {error}") from error
            raise
        self._lost = False
        return ends

    async def close(self) -> None:
        """Give up the partition, in the middle of a checkpoint too. The broker ends a transaction that is open when the
        next owner begins.
        """
        self._given_up = True
        if self._transaction is not None:
            self._transaction.cancel()
        await self._producer.stop(abandon=self._lost)


class SharedWriter:
    """Writes through the worker's own producer: for brokers without transactions, and one worker alone."""

    def __init__(self, producer: BatchProducer) -> None:
        self._producer = producer
        self._open = False

    async def open(self) -> None:
        """Nothing keeps another worker from writing."""
        self._open = True

    async def write(self, changelog: Sequence[Outgoing], outputs: Sequence[Outgoing]) -> Ends:
        """Make the changelog durable, then the outputs."""
        if not self._open:
            raise TenureLost("the partition was given up")
        return {**await self._producer.send(changelog), **await self._producer.send(outputs)}

    async def close(self) -> None:
        """Give up the partition."""
        self._open = False


def writer_of(settings: Settings, producer: BatchProducer, stage: str, partition: int) -> PartitionWriter:
    """The writer of a stage's partition."""
    if settings.fencing == "none":
        return SharedWriter(producer)
    return TransactionalWriter(settings, stage, partition)
