"""A record before it has its arrival time: what one step holds until it is shuffled."""

from dataclasses import dataclass

from schemas.event import IgnoreReason, RejectCode


@dataclass(frozen=True)
class Draft:
    """``code`` is what the record's only row must be rejected with, ``reason`` what it must be ignored for."""

    topic: str
    key: bytes | None
    value: bytes
    rows: int = 1
    code: RejectCode | None = None
    reason: IgnoreReason | None = None
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def sound(self) -> bool:
        """Whether the record's rows enter the state."""
        return self.code is None and self.reason is None
