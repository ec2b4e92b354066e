"""One stage's checkpoints: when they are due, and that only one runs at a time.

Applying a batch is synchronous and cheap; making it durable is not. So batches are applied as they come, and a
checkpoint every ``interval`` (or ``limit`` records) writes what they changed and finishes them. While one is being
written the next ones are applied.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable

from faust.types import TP

log = logging.getLogger(__name__)

Finished = dict[TP, list[int]]


class Checkpoints:
    """Collects applied batches and runs ``write`` for them; ``finish`` is called for each batch once that has returned.

    ``write`` gives the partitions that have another owner, whose batches are not finished. It raises when anything
    else could not be made durable: then nothing is finished, and the caller lets the worker end.
    """

    def __init__(
        self,
        write: Callable[[], Awaitable[set[int]]],
        finish: Callable[[TP, int], None],
        *,
        interval_seconds: float,
        limit: int = 50_000,
    ) -> None:
        self._write = write
        self._finish = finish
        self._interval = interval_seconds
        self._limit = limit
        self._applied: Finished = defaultdict(list)
        self._records = 0
        self._running = asyncio.Lock()
        self._last = time.monotonic()
        self.count = 0
        self.seconds = 0.0
        self.last_at = time.time()

    def applied(self, tp: TP, last_offset: int, records: int) -> None:
        """A batch has been applied in memory."""
        self._applied[tp].append(last_offset)
        self._records += records

    @property
    def due(self) -> bool:
        """Whether it is time."""
        return self._records >= self._limit or time.monotonic() - self._last >= self._interval

    @property
    def writing(self) -> bool:
        """Whether a checkpoint has been taken from the state and is not yet durable."""
        return self._running.locked()

    def forget(self, partitions: set[int]) -> None:
        """Batches of lost partitions are for their new owner to apply."""
        for tp in [tp for tp in self._applied if tp.partition in partitions]:
            del self._applied[tp]

    async def run(self) -> None:
        """Make everything applied so far durable, after the checkpoint that is being written, if any."""
        async with self._running:
            self._last = started = time.monotonic()
            applied, self._applied = self._applied, defaultdict(list)
            self._records = 0
            lost = await self._write()
            for tp, offsets in applied.items():
                if tp.partition not in lost:
                    for offset in offsets:
                        self._finish(tp, offset)
            self.count += 1
            self.seconds += time.monotonic() - started
            self.last_at = time.time()
