"""Which records may still change the state: a property of the record, never of the moment of processing.

A row is judged by its own arrival stamp, that of a redriven record by its first. So a replay at any speed judges it
as the live stream did, and the state stays a function of the set of records.
"""

import msgspec

from schemas.event import DAY_MS, HOUR_MS, Kind, MetricEvent, RejectCode, Rejection


class Lateness(msgspec.Struct, frozen=True):
    """How far behind or ahead of its arrival a row may be, in milliseconds.

    ``future_ms`` bounds a reported period's start (dates run up to 14 hours ahead of UTC); ``clock_ms`` bounds what
    claims to have been observed, so that a wrong clock moves no watermark.
    """

    horizon_ms: int = 100 * DAY_MS
    delta_ms: int = 24 * HOUR_MS
    future_ms: int = DAY_MS
    clock_ms: int = 5 * 60_000

    def judge(self, event: MetricEvent, arrival_ms: int) -> Rejection | None:
        """A rejection for a row that is too late or in the future, else None."""
        if event.kind is Kind.DELTA:
            oldest, newest = arrival_ms - self.delta_ms, arrival_ms + self.clock_ms
        else:
            oldest, newest = arrival_ms - self.horizon_ms, arrival_ms + self.future_ms
        if event.start_ms < oldest:
            days = (arrival_ms - event.start_ms) / DAY_MS
            return Rejection(RejectCode.TOO_LATE, f"the {event.kind} arrived {days:.1f} days after its period began")
        if event.start_ms > newest:
            return Rejection(RejectCode.IN_THE_FUTURE, f"the {event.kind}'s period begins after the record arrived")
        if event.observed_ms > arrival_ms + self.clock_ms:
            return Rejection(
                RejectCode.IN_THE_FUTURE, "the row was observed after the record arrived: a clock is wrong"
            )
        return None

    def judge_fact(self, what: str, updated_ms: int, arrival_ms: int) -> Rejection | None:
        """A rejection for a fact (a link, a rate) from the future, which no later one could replace, else None."""
        if updated_ms > arrival_ms + self.clock_ms:
            return Rejection(
                RejectCode.IN_THE_FUTURE, f"the {what} was updated after the record arrived: a clock is wrong"
            )
        return None
