"""Notices that a worker falls behind and commits nothing.

It runs in a thread of its own, for what it is to notice may be that the event loop stands still. While the broker is
away nothing is known to arrive, so the lag does not grow and an outage is no stall.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

log = logging.getLogger(__name__)

POLL_S: Final = 0.5
JOIN_S: Final = 60.0
MERCY_S: Final = 15.0
"""How long a stalled worker has to end by itself."""
EXIT_CODE: Final = 4


class Progress(NamedTuple):
    """``lag``: records known and not finished; ``committed``: the sum of all committed offsets."""

    lag: int
    committed: int


class StallRule:
    """Stalled: nothing was committed for ``limit_seconds`` in which the lag kept growing, without a pause of half that.

    While a broker is away nothing is known to arrive, and when it is back the count begins. Times are monotonic
    seconds.
    """

    def __init__(self, limit_seconds: float) -> None:
        self._limit = limit_seconds
        self._since: float | None = None
        self._committed = -1
        self._first_lag = 0
        self._lag = 0
        self._grew_at = 0.0

    def look(self, now: float, progress: Progress | None) -> str:
        """Why the worker counts as stalled, empty while it does not. ``progress`` is None while partitions move."""
        if progress is None or progress.committed != self._committed or progress.lag == 0 or self._since is None:
            self._since = self._grew_at = now
            self._committed = -1 if progress is None else progress.committed
            self._first_lag = self._lag = 0 if progress is None else progress.lag
            return ""
        if progress.lag > self._lag:
            if now - self._grew_at > self._limit / 2:
                self._since, self._first_lag = now, self._lag
            self._lag, self._grew_at = progress.lag, now
        stalled = now - self._since
        if stalled < self._limit or now - self._grew_at > self._limit / 2 or self._lag <= self._first_lag:
            return ""
        grown = f"the lag grew from {self._first_lag:,} to {progress.lag:,} records"
        return f"nothing was committed for {stalled:.0f} s while {grown}"


class Watchdog:
    """Looks at a worker twice a second, hop by hop: one that stands still is not excused by another that does not.

    ``joined`` says whether it has ever been given an assignment, if an empty one. ``on_stall`` is to end the worker; if
    it has not after ``MERCY_S``, the process ends.
    """

    def __init__(
        self,
        limit_seconds: float,
        progress: Callable[[], Mapping[str, Progress] | None],
        on_stall: Callable[[str], None],
        joined: Callable[[], bool] = lambda: True,
    ) -> None:
        self._limit = limit_seconds
        self._joined = joined
        self._started_at = 0.0
        self._rules: dict[str, StallRule] = {}
        self._progress = progress
        self._on_stall = on_stall
        self._stopped = threading.Event()
        self.reason = ""

    def start(self) -> None:
        """Begin to look."""
        self._started_at = time.monotonic()
        threading.Thread(target=self._run, daemon=True, name="watchdog").start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()

    def look(self, now: float, progress: Mapping[str, Progress] | None) -> str:
        """Why the worker counts as stalled, empty while it does not."""
        for hop in progress or ():
            self._rules.setdefault(hop, StallRule(self._limit))
        looks = {
            hop: rule.look(now, None if progress is None else progress.get(hop)) for hop, rule in self._rules.items()
        }
        reason = next((f"{hop}: {reason}" for hop, reason in looks.items() if reason), "")
        if not reason or progress is None:
            return reason
        # A hop that stands still holds up those before it: the last one with something unfinished is to blame.
        return f"{reason} (unfinished: {', '.join(f'{hop} {each.lag:,}' for hop, each in progress.items())})"

    def _astray(self, now: float) -> str:
        """Why a worker that has just been started counts as stalled: its group does not know of it."""
        waited = now - self._started_at
        if waited < max(JOIN_S, self._limit) or self._joined():
            return ""
        return f"the group has assigned nothing, not even nothing, within {waited:.0f} s of the start"

    def _run(self) -> None:
        while not self._stopped.wait(POLL_S):
            try:
                progress = self._progress()
            except Exception:  # noqa: BLE001 - partitions move, in another thread, while they are looked at
                progress = None
            self.reason = self.look(time.monotonic(), progress) or self._astray(time.monotonic())
            if self.reason:
                log.error("the worker is stalled: %s", self.reason)
                self._on_stall(self.reason)
                if not self._stopped.wait(MERCY_S):
                    print(f"parallax: the worker is stalled: {self.reason}", file=sys.stderr, flush=True)
                    os._exit(EXIT_CODE)
