"""Delta panes: int64 sums an hour, level and currency, kept as rows of one matrix so that a whole envelope is added
at once.

Addition of integers commutes, so the sums do not depend on order or batching. A sum stops at ``MAX_SUM``: no row is
negative, so that does not depend on order either.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.envelope import PaneKey, decode_pane_key
from schemas.metrics import MAX_MICROS, WIDTH, Values

AS_OF = WIDTH
"""Column of the newest event time in a pane, UTC milliseconds, behind the metrics."""
CARRIED = WIDTH + 1
"""Column of a bit mask of the metrics that some row of the pane carries."""
COLUMNS = WIDTH + 2
MAX_SUM: Final = 10**18
"""The greatest sum that is kept, a trillion units of money: more is poison, and would leave int64 behind."""
AT_ONCE: Final = ((1 << 63) - 1 - MAX_SUM) // MAX_MICROS
"""How many of the greatest rows may be added to the greatest sum within int64."""

Ints = NDArray[np.int64]


class Panes:
    """All decoded panes of one aggregate partition; ``len`` is how many there are. Freed rows are used again."""

    def __init__(self, room: int = 1024) -> None:
        self._matrix: Ints = np.zeros((room, COLUMNS), dtype=np.int64)
        self._row_of: dict[bytes, int] = {}
        self._encoded: list[bytes] = []
        self._keys: list[PaneKey] = []
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._row_of)

    @property
    def rows(self) -> int:
        """How many rows have ever been in use at once."""
        return len(self._keys)

    def find(self, encoded: bytes) -> int | None:
        """The row of an encoded pane key, if it has one."""
        return self._row_of.get(encoded)

    def row(self, encoded: bytes) -> int:
        """The row of an encoded pane key; a new one holds zeros."""
        row = self._row_of.get(encoded)
        return self._new(encoded, decode_pane_key(encoded)) if row is None else row

    def key(self, row: int) -> PaneKey:
        """The key of a row."""
        return self._keys[row]

    def _new(self, encoded: bytes, key: PaneKey) -> int:
        if self._free:
            row = self._free.pop()
            self._keys[row], self._encoded[row] = key, encoded
        else:
            row = len(self._keys)
            self._keys.append(key)
            self._encoded.append(encoded)
            if row == len(self._matrix):
                self._matrix = np.concatenate([self._matrix, np.zeros_like(self._matrix)])
        self._row_of[encoded] = row
        return row

    def free(self, rows: Iterable[int]) -> None:
        """Give rows back; they hold zeros from now on."""
        freed = list(rows)
        self._matrix[freed] = 0
        for row in freed:
            del self._row_of[self._encoded[row]]
        self._free += freed

    def add(self, rows: Ints, values: Ints, observed: Ints) -> list[int]:
        """Add values (n, ``WIDTH``; −1 where not carried) and event times (n,) to rows (n,), in which a row may
        recur. The distinct rows.
        """
        carried = values >= 0
        bits = carried @ (1 << np.arange(WIDTH, dtype=np.int64))
        touched = np.unique(rows)
        step = AT_ONCE if len(rows) > AT_ONCE and values.max() > MAX_SUM // len(rows) else max(1, len(rows))
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            for metric in np.flatnonzero(carried[part].any(axis=0)):
                added = np.where(carried[part, metric], values[part, metric], 0)
                np.add.at(self._matrix[:, metric], rows[part], added)
            sums = self._matrix[touched, :WIDTH]
            if sums.max() > MAX_SUM:
                self._matrix[touched, :WIDTH] = np.minimum(sums, MAX_SUM)
        np.maximum.at(self._matrix[:, AS_OF], rows, observed)
        np.bitwise_or.at(self._matrix[:, CARRIED], rows, bits)
        found: list[int] = touched.tolist()
        return found

    def values(self, row: int) -> tuple[Values, int]:
        """A pane's sums, None where nothing carried the metric, and its newest event time."""
        cells = self._matrix[row].tolist()
        carried = cells[CARRIED]
        return tuple(cells[metric] if carried >> metric & 1 else None for metric in range(WIDTH)), cells[AS_OF]

    def dump(self, rows: list[int]) -> Iterator[tuple[bytes, bytes]]:
        """Encoded key and little-endian row of each of the rows to which something was added."""
        for row in rows:
            if self._matrix[row, CARRIED]:
                yield self._encoded[row], self._matrix[row].astype("<i8").tobytes()

    def load(self, encoded: bytes, cells: bytes) -> int:
        """Put a dumped row back; its row."""
        row = self.row(encoded)
        self._matrix[row] = np.frombuffer(cells, dtype="<i8")
        return row
