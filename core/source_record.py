"""What is read of a record that was fetched from an input topic."""

from collections.abc import Sequence
from typing import Protocol

from schemas import dead_letter


class SourceRecord(Protocol):
    """What is read of a fetched record."""

    @property
    def offset(self) -> int:
        """Its place in the partition."""

    @property
    def timestamp(self) -> int:
        """When it arrived, UTC milliseconds."""

    @property
    def key(self) -> bytes | None:
        """Its key."""

    @property
    def value(self) -> bytes | None:
        """Its payload."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        """Its headers."""


def arrival_of(record: SourceRecord) -> int:
    """When a record arrived, UTC milliseconds: a redriven one when it did so first, so that it is never newer than
    what was said since.
    """
    redrive = dead_letter.redrive_of(record.headers, record.timestamp) if record.headers else None
    return redrive.arrival_ms if redrive else record.timestamp
