"""What is read of a record that was fetched from an input topic."""

from collections.abc import Sequence
from typing import Protocol


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
