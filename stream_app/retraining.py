"""The retraining loop: off unless ``PARALLAX_RETRAIN_EVERY`` is set. When it is due, on what, and who does it.

Training is ``parallax train --publish`` in a process of its own, at the lowest priority: it takes neither time nor
memory from the worker's checkpoints, and is gone when it is done. What it publishes is judged there, and once more by
every worker that takes it.
"""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from typing import Final

import msgspec

from core.learning.promotion import DEFAULT_RULE, PromotionRule
from schemas.event import DAY_MS
from stream_app.child import begun, ended, environment
from stream_app.duration import Duration
from stream_app.history import EPOCH
from stream_app.settings import Settings

LOOK_S: Final = 30.0
LEARNED_DAYS: Final = 270
"""Days that are read before the judged ones: what the model tier learns from, and some for the default to settle."""

log: Final = logging.getLogger(__name__)


class Days(msgspec.Struct, frozen=True):
    """What is read, up to ``end``, and judged from ``split`` on; as ``date.toordinal`` counts."""

    first: int
    split: int
    end: int


def due(now_ms: int, every: Duration | None, published_ms: int | None, tried_ms: int | None) -> bool:
    """Whether a model is to be trained now: nobody has published one for that long, nor has this worker tried.

    >>> due(10_000, Duration(5_000), published_ms=6_000, tried_ms=None)
    False
    >>> due(10_000, Duration(5_000), published_ms=5_000, tried_ms=4_000)
    True
    """
    if every is None:
        return False
    latest = max((at for at in (published_ms, tried_ms) if at is not None), default=None)
    return latest is None or now_ms - latest >= every.ms


def days_at(now_ms: int, rule: PromotionRule = DEFAULT_RULE) -> Days:
    """The days that a training at an instant takes: whole ones, the last of them judged, as many as the rule asks."""
    end = now_ms // DAY_MS + EPOCH
    split = end - rule.windows
    return Days(split - LEARNED_DAYS, split, end)


def command(days: Days) -> list[str]:
    """The process that trains on these days and publishes what beats the default."""
    first, split, end = (date.fromordinal(day).isoformat() for day in (days.first, days.split, days.end))
    span = ["--from", first, "--split", split, "--to", end]
    return [sys.executable, "-m", "stream_app", "train", "--publish", *span, "--format", "json"]


class Retrainer:
    """Runs as a task beside a worker. ``published_ms`` says when the newest model was published, ``leads`` whether
    this worker is the one to train: one of them is enough.
    """

    def __init__(
        self,
        settings: Settings,
        published_ms: Callable[[], int | None],
        leads: Callable[[], bool] = lambda: True,
        command_of: Callable[[Days], Sequence[str]] = command,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._published_ms, self._leads = settings, published_ms, leads
        self._command_of, self._clock = command_of, clock
        self.tried_ms: int | None = None
        self.outcome = ""
        """How the last training ended: ``published``, ``not better``, or what went wrong."""

    async def run(self) -> None:
        """Train whenever it is due, until cancelled; returns at once where it is off."""
        every = self._settings.retrain_every
        while every is not None:
            now_ms = int(self._clock() * 1_000)
            if self._leads() and due(now_ms, every, self._published_ms(), self.tried_ms):
                self.tried_ms = now_ms
                self.outcome = await self._train(days_at(now_ms))
                log.info("retraining: %s", self.outcome)
            await asyncio.sleep(min(LOOK_S, every.seconds))

    async def _train(self, days: Days) -> str:
        pipe = asyncio.subprocess.PIPE
        nothing = asyncio.subprocess.DEVNULL
        process = await begun(
            self._command_of(days),
            environment(self._settings, os.environ),
            stdin=nothing,
            stdout=nothing,
            stderr=pipe,
        )
        try:
            _, told = await process.communicate()
        except asyncio.CancelledError:
            await ended(process)
            raise
        lines = told.decode("utf-8", "replace").strip().splitlines()
        return "published" if process.returncode == 0 else (lines or [f"exit code {process.returncode}"])[-1]
