"""The follower of patterns beside a worker: off unless ``PARALLAX_PATTERNS_EVERY`` is set. Who runs it, and until when.

It is ``parallax patterns --follow`` in a process of its own, at the lowest priority. One worker leads; a process whose
worker is gone, however that ended, sees the end of its standard input and ends too.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import StrEnum
from typing import Final

import msgspec

from stream_app.child import begun, ended, environment
from stream_app.settings import Settings

LOOK_S: Final = 1.0
GRACE_S: Final = 15.0
"""How long a worker must not lead for its process to end: a rebalance takes partitions away and gives them back."""
PAUSE_S: Final = 30.0
LONGEST_LINE: Final = 300

COMMAND: Final = (sys.executable, "-m", "stream_app", "patterns", "--follow", "--tethered")


class State(StrEnum):
    """What the process is doing: nothing, for it is off or another worker leads; its work; or waiting to start anew."""

    OFF = "off"
    STANDING_BY = "standing by"
    RUNNING = "running"
    PAUSING = "pausing"


class PatternsStatus(msgspec.Struct, frozen=True):
    """``outcome`` is the last line that the process wrote, or how it ended; ``starts`` how often it was started."""

    state: State
    outcome: str
    starts: int
    pid: int | None


class PatternsProcess:
    """Runs as a task beside a worker. ``leads`` says whether this worker is the one to run the process."""

    def __init__(
        self,
        settings: Settings,
        leads: Callable[[], bool],
        command: Sequence[str] = COMMAND,
        *,
        look_s: float = LOOK_S,
        grace_s: float = GRACE_S,
        pause_s: float = PAUSE_S,
    ) -> None:
        self._settings, self._leads, self._command = settings, leads, command
        self._look, self._grace, self._pause = look_s, grace_s, pause_s
        self._state = State.OFF
        self._outcome = ""
        self._starts = 0
        self._pid: int | None = None

    def status(self) -> PatternsStatus:
        """For the health page."""
        return PatternsStatus(self._state, self._outcome, self._starts, self._pid)

    async def run(self) -> None:
        """Keep the process running while this worker leads, until cancelled; returns at once where it is off."""
        if self._settings.patterns_every is None:
            return
        while True:
            self._state = State.STANDING_BY
            while not self._leads():  # noqa: ASYNC110 - an assignment announces itself to nobody
                await asyncio.sleep(self._look)
            self._state = State.RUNNING
            self._starts += 1
            if await self._follow():
                self._state = State.PAUSING
                await asyncio.sleep(self._pause)

    async def _follow(self) -> bool:
        """Run the process; whether it ended by itself, and not because this worker leads no more."""
        pipe = asyncio.subprocess.PIPE
        process = await begun(
            self._command,
            environment(self._settings, os.environ),
            stdin=pipe,
            stdout=pipe,
            stderr=asyncio.subprocess.STDOUT,
        )
        self._pid = process.pid
        try:
            return await self._watch(process)
        finally:
            await ended(process)
            self._pid = None

    async def _watch(self, process: asyncio.subprocess.Process) -> bool:
        assert process.stdout is not None, "its output is a pipe"  # noqa: S101 - for the types
        clock = asyncio.get_running_loop().time
        led_at = clock()
        while clock() - led_at < self._grace:
            if self._leads():
                led_at = clock()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._look):
                    line = await process.stdout.readline()
                    if not line:
                        code = await process.wait()
                        self._outcome = f"ended with exit code {code}" + (f": {self._outcome}" if self._outcome else "")
                        return True
                    self._outcome = line.decode("utf-8", "replace").strip()[:LONGEST_LINE]
        return False
