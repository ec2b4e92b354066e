"""The tables of the agents: Faust tables of bytes by partition, whose changelog is read and written in batches.

Faust assigns and recovers them together with the topic that feeds them. Recovery gets whole fetched batches, so it
runs at the speed of a raw read. Writes go through the worker's batch producer, awaited, and are put here when they
are durable.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import faust
from faust.types import TP

from core.aggregate import TableWrite
from stream_app.batch_transport import Batch
from stream_app.producer import Outgoing


class PartitionedTable(faust.Table[bytes, bytes]):
    """Bytes by key, apart for each partition, as ``contents[partition][key]``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.contents: dict[int, dict[bytes, bytes]] = defaultdict(dict)

    def apply_changelog_batch(self, batch: Iterable[Any]) -> None:
        """Take what recovery read."""
        for event in batch:
            delivered: Batch = event.message.value
            held = self.contents[event.message.tp.partition]
            for record in delivered.records:
                if record.value is None:
                    held.pop(record.key, None)
                else:
                    held[record.key] = record.value

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Forget what went to other workers."""
        await super().on_rebalance(assigned, revoked, newly_assigned, generation_id)
        name = self.changelog_topic.get_topic_name()
        kept = {tp.partition for tp in assigned if tp.topic == name}
        for partition in [partition for partition in self.contents if partition not in kept]:
            del self.contents[partition]

    def outgoing(self, partition: int, writes: Iterable[TableWrite]) -> list[Outgoing]:
        """The changelog records of some writes, in their order."""
        name = self.changelog_topic.get_topic_name()
        return [Outgoing(name, partition, write.key, write.value) for write in writes]

    def written(self, partition: int, writes: Iterable[TableWrite]) -> None:
        """Put writes whose changelog is durable."""
        held = self.contents[partition]
        for write in writes:
            if write.value is None:
                held.pop(write.key, None)
            else:
                held[write.key] = write.value
