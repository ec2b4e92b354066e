"""Retention: which days a partition still takes rows for, and which it still keeps.

Everything follows from the partition's watermark, so it is a function of a prefix of the log: a replay refuses and
forgets what the live stream did. Ingest judges lateness by a record's arrival; what is refused here was in time when
it arrived and has been held up since, by more than ``grace_ms``.
"""

from typing import Final, NamedTuple

import msgspec

from schemas.event import DAY_MS

NEVER: Final = -(1 << 62)
"""Before every day."""


class Floors(NamedTuple):
    """The first days (counted from 1970-01-01) that take snapshots, that take deltas, and whose blocks are kept."""

    snapshot: int
    delta: int
    block: int


NO_FLOORS: Final = Floors(NEVER, NEVER, NEVER)


class Retention(msgspec.Struct, frozen=True):
    """``horizon_ms`` and ``delta_ms`` are ingest's lateness of snapshots and deltas; ``window_days`` is the longest
    window. A source that is idle is waited for ``quiet_ms``, so a worker that was down for no longer than that refuses
    nothing that came meanwhile.

    Raises ``ValueError`` for values that would forget what ingest may still let in.
    """

    horizon_ms: int = 100 * DAY_MS
    delta_ms: int = DAY_MS
    window_days: int = 7
    grace_ms: int = DAY_MS
    quiet_ms: int = 3 * DAY_MS

    def __post_init__(self) -> None:
        shortest = min(self.delta_ms, self.grace_ms, self.quiet_ms)
        if shortest < 0 or self.horizon_ms < self.delta_ms or self.window_days < 1:
            raise ValueError("retention wants 0 <= delta <= horizon, no negative time, and a window of a day or more")

    def floors(self, watermark_ms: int) -> Floors:
        """The floors at a watermark (``Watermarks.settled``), −1 for none. They rise with it.

        A day takes rows until two days after its date began in UTC, which is past its end in every zone, plus the
        lateness and the grace. Its block stays a longest window more, for links move whole windows.
        """
        if watermark_ms < 0:
            return NO_FLOORS
        snapshot = (watermark_ms - self.horizon_ms - self.grace_ms) // DAY_MS - 1
        delta = (watermark_ms - self.delta_ms - self.grace_ms) // DAY_MS - 1
        return Floors(snapshot, delta, snapshot - self.window_days)
