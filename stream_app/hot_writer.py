"""The buffer in front of the hot store, which outlives outages and losses of Redis."""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

from stream_app.hot_store import CHUNK, HotEntry, HotStore, HotStoreDown, Slot, Written

log = logging.getLogger(__name__)


class HotWriter:
    """The buffer in front of the store: one newest entry for each kind, campaign and window, kept until Redis has it.

    It never raises for Redis's sake, so the stream goes on. Its beacon tells a loss exactly: each flush, after its
    entries, moves the beacon on, and Redis keeps or loses a suffix of what it was told, so a beacon that is behind,
    or gone, says that entries may be lost (restart without or from an older file, FLUSHALL, failover, an outage
    longer than the TTL). ``on_loss`` is then called, in which the owner offers all that it knows; that goes out in
    the same flush. An outage in which nothing was lost needs no more than what is pending. A new writer knows of no
    earlier writes: its owner offers what it restored.

    ``now`` gives monotonic seconds; ``check_seconds`` is how often a writer with nothing to write looks for a loss.
    """

    SHORTEST_PAUSE: Final = 0.25
    LONGEST_PAUSE: Final = 10.0

    def __init__(
        self,
        store: HotStore,
        on_loss: Callable[[], None] | None = None,
        *,
        now: Callable[[], float] = time.monotonic,
        check_seconds: float = 5.0,
    ) -> None:
        self._store = store
        self._on_loss = on_loss
        self._now = now
        self._check_seconds = check_seconds
        self._id = uuid.uuid4().hex
        self._pending: dict[Slot, HotEntry] = {}
        self._busy = asyncio.Lock()
        self._confirmed = -1
        self._number = 0
        self._next_check = float("-inf")
        self._retry_at = float("-inf")
        self._pause = self.SHORTEST_PAUSE
        self.down_since: float | None = None
        self.down_reason = ""
        self.stale_refused = 0
        self.losses = 0

    @property
    def pending(self) -> int:
        """How many entries Redis does not have yet."""
        return len(self._pending)

    def offer(self, entries: Iterable[HotEntry]) -> None:
        """Take entries for the next flush; of one slot only the newest is kept."""
        for entry in entries:
            held = self._pending.get(entry.slot)
            if held is None or entry.version >= held.version:
                self._pending[entry.slot] = entry

    async def flush(self) -> Written | None:
        """Write what is pending.

        ``None`` when there was nothing to do, or Redis is down and everything is kept for later.
        """
        async with self._busy:
            if self._now() < self._retry_at or not (self._pending or self._now() >= self._next_check):
                return None
            written = Written()
            try:
                for _ in range(2):
                    if self._confirmed < 0:
                        await self._advance()
                    written += await self._write()
                    if await self._advance():
                        break
                    self._lost()
            except HotStoreDown as error:
                self._went_down(error.reason)
                return None
            self._came_back()
            return written

    async def _write(self) -> Written:
        total = Written()
        waiting = iter(list(self._pending.values()))
        while chunk := list(islice(waiting, CHUNK)):
            done = await self._store.put_many(chunk)
            self.stale_refused += done.stale
            total += done
            for entry in chunk:
                if self._pending.get(entry.slot) is entry:
                    del self._pending[entry.slot]
        return total

    async def _advance(self) -> bool:
        held = await self._store.beacon(self._id, self._confirmed, self._number + 1)
        self._number += 1
        self._confirmed = self._number if held else -1
        self._next_check = self._now() + self._check_seconds
        return held

    def _lost(self) -> None:
        self.losses += 1
        log.warning("redis lost what was written to it; writing it again from state")
        if self._on_loss is not None:
            self._on_loss()

    def _went_down(self, reason: str) -> None:
        if self.down_since is None:
            self.down_since = self._now()
            self._pause = self.SHORTEST_PAUSE
            log.warning("redis is down: %s; the stream goes on, %d values wait", reason, self.pending)
        self.down_reason = reason
        self._retry_at = self._now() + self._pause
        self._pause = min(2 * self._pause, self.LONGEST_PAUSE)

    def _came_back(self) -> None:
        if self.down_since is not None:
            log.warning("redis is back after %.1f s", self._now() - self.down_since)
            self.down_since = None
            self.down_reason = ""
            self._retry_at = float("-inf")
