"""Watermarks: what has been observed on every source, never the wall clock.

A watermark decides when an insight is final and when state expires. It never decides what is counted.
"""

from collections.abc import Collection, Hashable
from typing import Generic, TypeVar

Source = TypeVar("Source", bound=Hashable)


class Watermarks(Generic[Source]):
    """The watermark over several sources: the least of theirs. Sources that have shown nothing hold it back.

    A source that is idle (read to its end, and quiet) does not hold it back until it speaks again. A source's own
    watermark never falls, and neither does the whole: ``reached`` and ``settled`` are where it stood before.
    """

    def __init__(self, expected: Collection[Source] = (), reached: int = -1, settled: int = -1) -> None:
        self._observed: dict[Source, int] = dict.fromkeys(expected, -1)
        self._idle: set[Source] = set()
        self._reached = reached
        self._settled = settled

    def observe(self, source: Source, watermark_ms: int, *, idle: bool = False) -> None:
        """Take a source's report."""
        self._observed[source] = max(self._observed.get(source, -1), watermark_ms)
        if idle:
            self._idle.add(source)
        else:
            self._idle.discard(source)

    @property
    def value(self) -> int:
        """UTC milliseconds, −1 while some source has shown nothing."""
        active = [observed for source, observed in self._observed.items() if source not in self._idle]
        if active:
            self._reached = max(self._reached, min(active))
        elif self._observed:
            self._reached = max(self._reached, max(self._observed.values()))
        return self._reached

    def settled(self, quiet_ms: int, free: Collection[Source] = ()) -> int:
        """As ``value``, but idle sources hold it back too, until the whole is ``quiet_ms`` past what they have shown,
        and so do those that speak again of what the whole has passed.

        For a source that was idle before an outage may have a backlog after it, and it is told late that it has.
        Sources of ``free``, and idle ones that have never shown anything, hold nothing back.
        """
        reached = self.value
        waits = [reached]
        for source, observed in self._observed.items():
            if source in free or (source in self._idle and observed < 0):
                continue
            waits.append(max(observed, reached - quiet_ms) if source in self._idle else observed)
        self._settled = max(self._settled, min(waits))
        return self._settled

    def dump(self) -> list[tuple[Source, int, bool]]:
        """Each source's watermark and whether it is idle."""
        return [(source, observed, source in self._idle) for source, observed in self._observed.items()]
