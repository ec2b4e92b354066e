"""The deltas of one envelope as arrays, so that they are judged and added at once."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.envelope import ID_BYTES, DeltaColumns, column_matrix

Mask = NDArray[np.bool_]


class DeltaRows(NamedTuple):
    """n rows: the key of each, its source position, when it happened (UTC milliseconds), its id's digest, and its
    metrics, (n, ``WIDTH``), −1 where not carried.
    """

    key_index: NDArray[np.uint32]
    offsets: NDArray[np.int64]
    indexes: NDArray[np.uint32]
    observed: NDArray[np.int64]
    ids: NDArray[np.void]
    values: NDArray[np.int64]

    @classmethod
    def of(cls, deltas: DeltaColumns) -> "DeltaRows":
        """The rows of an envelope's columns."""
        return cls(
            np.frombuffer(deltas.key_index, dtype="<u4"),
            np.frombuffer(deltas.offsets, dtype="<i8"),
            np.frombuffer(deltas.indexes, dtype="<u4"),
            np.frombuffer(deltas.observed, dtype="<i8"),
            np.frombuffer(deltas.ids, dtype=f"V{ID_BYTES}"),
            column_matrix(deltas),
        )

    def where(self, mask: Mask) -> "DeltaRows":
        """The rows of a mask (n,)."""
        key_index, offsets, indexes, observed, ids, values = self
        return DeltaRows(key_index[mask], offsets[mask], indexes[mask], observed[mask], ids[mask], values[mask])

    def beyond(self, fence: tuple[int, int]) -> Mask:
        """Which rows lie past a source position."""
        offset, index = fence
        beyond: Mask = (self.offsets > offset) | ((self.offsets == offset) & (self.indexes > index))
        return beyond
