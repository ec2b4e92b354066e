"""Delta panes: int64 sums an hour, level and currency, kept as rows of one matrix so that a whole envelope is added
at once.

Addition of integers commutes, so the sums do not depend on order or batching.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from schemas.envelope import PaneKey, decode_pane_key, encode_pane_key
from schemas.metrics import WIDTH, Values

AS_OF = WIDTH
"""Column of the newest event time in a pane, UTC milliseconds, behind the metrics."""
CARRIED = WIDTH + 1
"""Column of a bit mask of the metrics that some row of the pane carries."""
COLUMNS = WIDTH + 2

Ints = NDArray[np.int64]


class Panes:
    """All panes of one aggregate partition. Rows are never reused; ``compact`` belongs to expiry."""

    def __init__(self) -> None:
        self._matrix: Ints = np.zeros((1024, COLUMNS), dtype=np.int64)
        self._row_of: dict[bytes, int] = {}
        self._keys: list[PaneKey] = []

    def __len__(self) -> int:
        return len(self._keys)

    def row(self, encoded: bytes) -> int:
        """The row of an encoded pane key; a new one holds zeros."""
        row = self._row_of.get(encoded)
        return self._new(encoded, decode_pane_key(encoded)) if row is None else row

    def key(self, row: int) -> PaneKey:
        """The key of a row."""
        return self._keys[row]

    def _new(self, encoded: bytes, key: PaneKey) -> int:
        row = self._row_of[encoded] = len(self._keys)
        self._keys.append(key)
        if row == len(self._matrix):
            self._matrix = np.concatenate([self._matrix, np.zeros_like(self._matrix)])
        return row

    def add(self, rows: Ints, values: Ints, observed: Ints) -> None:
        """Add values (n, ``WIDTH``; −1 where not carried) and event times (n,) to rows (n,), in which a row may
        recur.
        """
        carried = values >= 0
        bits = carried @ (1 << np.arange(WIDTH, dtype=np.int64))
        for metric in np.flatnonzero(carried.any(axis=0)):
            np.add.at(self._matrix[:, metric], rows, np.where(carried[:, metric], values[:, metric], 0))
        np.maximum.at(self._matrix[:, AS_OF], rows, observed)
        np.bitwise_or.at(self._matrix[:, CARRIED], rows, bits)

    def values(self, row: int) -> tuple[Values, int]:
        """A pane's sums, None where nothing carried the metric, and its newest event time."""
        cells = self._matrix[row].tolist()
        carried = cells[CARRIED]
        return tuple(cells[metric] if carried >> metric & 1 else None for metric in range(WIDTH)), cells[AS_OF]

    def dump(self, rows: list[int]) -> Iterator[tuple[bytes, bytes]]:
        """Encoded key and little-endian row of each of the rows to which something was added."""
        for row in rows:
            if self._matrix[row, CARRIED]:
                yield encode_pane_key(self._keys[row]), self._matrix[row].astype("<i8").tobytes()

    def load(self, encoded: bytes, cells: bytes) -> int:
        """Put a dumped row back; its row."""
        row = self.row(encoded)
        self._matrix[row] = np.frombuffer(cells, dtype="<i8")
        return row
