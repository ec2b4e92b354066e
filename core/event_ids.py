"""Event ids of one aggregate partition by day: a delta counts once.

They are kept for the days that still take deltas, in memory whole, and in the table as chunks, one or more for each
checkpoint and day.
"""

from collections import defaultdict
from itertools import repeat
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.aggregate_table import TableWrite, ids_key
from schemas.envelope import ID_BYTES

IDS_PER_CHUNK: Final = 32_768


class EventIds:
    """``len`` is how many are remembered."""

    def __init__(self) -> None:
        self._seen: dict[int, set[bytes]] = defaultdict(set)
        self._new: dict[int, list[bytes]] = defaultdict(list)
        self._chunks: dict[int, set[bytes]] = defaultdict(set)

    def __len__(self) -> int:
        return sum(map(len, self._seen.values()))

    def restore(self, day: int, key: bytes, ids: bytes | None) -> None:
        """Take a chunk from the table; one without ids is only known, so that it is deleted with its day."""
        self._chunks[day].add(key)
        if ids is not None:
            self._seen[day].update(_split(ids))

    def fresh(self, digests: list[bytes], key_index: NDArray[np.uint32], days: list[int]) -> NDArray[np.bool_]:
        """Which rows (n,) carry an id for the first time on their day. Row i has the id ``digests[i]`` and falls on
        ``days[key_index[i]]``.
        """
        fresh = np.ones(len(digests), dtype=bool)
        one_day = len(set(days)) == 1
        if one_day:
            seen, distinct = self._seen[days[0]], set(digests)
            if len(distinct) == len(digests) and seen.isdisjoint(distinct):
                seen |= distinct
                self._new[days[0]] += digests
                return fresh
        row_days = repeat(days[0]) if one_day else [days[index] for index in key_index.tolist()]
        for row, (digest, day) in enumerate(zip(digests, row_days, strict=False)):
            seen = self._seen[day]
            if digest in seen:
                fresh[row] = False
            else:
                seen.add(digest)
                self._new[day].append(digest)
        return fresh

    def take_writes(self, position: int) -> list[TableWrite]:
        """The chunks that a checkpoint at a position adds."""
        writes = []
        for day, ids in self._new.items():
            for chunk, start in enumerate(range(0, len(ids), IDS_PER_CHUNK)):
                key = ids_key(day, position, chunk)
                self._chunks[day].add(key)
                writes.append(TableWrite(key, b"".join(ids[start : start + IDS_PER_CHUNK])))
        self._new.clear()
        return writes

    def expire(self, floor: int) -> list[TableWrite]:
        """Forget the days before a floor; the deletes of their chunks."""
        for known in (self._seen, self._new):
            for day in [day for day in known if day < floor]:
                del known[day]
        expired = [day for day in self._chunks if day < floor]
        return [TableWrite(key, None) for day in expired for key in sorted(self._chunks.pop(day))]


def _split(ids: bytes) -> list[bytes]:
    found: list[bytes] = np.frombuffer(ids, dtype=f"V{ID_BYTES}").tolist()
    return found
