"""Running one worker in the foreground until it is told to stop, or cannot go on."""

import contextlib
import gc
import os
import sys
import threading
import time
from functools import partial
from typing import Final

from stream_app import quiet_log, records
from stream_app.app import ParallaxApp
from stream_app.errors import ServerAbsent
from stream_app.settings import Settings
from stream_app.topics import verify
from stream_app.watchdog import EXIT_CODE

POLL_S: Final = 1.0

COLLECTED_AFTER: Final = (200_000, 50, 100)
"""Thresholds of the garbage collector: nearly all that a worker makes is gone without it."""


def _wait_for_servers(settings: Settings) -> None:
    """Return when Kafka answers and its topics are right. Raises ``ParallaxError`` when that is not so in time."""
    until = time.monotonic() + settings.start_patience.seconds
    told = False
    while True:
        try:
            verify(settings)
        except ServerAbsent as error:
            if time.monotonic() >= until:
                raise
            if not told:
                print(f"parallax: {error}; waiting {settings.start_patience} for it", file=sys.stderr, flush=True)
                told = True
            time.sleep(min(POLL_S, max(0.0, until - time.monotonic())))
        else:
            return


def _end_within(seconds: float) -> None:
    """A process that is to stop and cannot, for its broker is away and the client asks on, ends all the same."""
    last = threading.Timer(seconds, _leave, [seconds])
    last.daemon = True
    last.start()


def _leave(seconds: float) -> None:
    # The log may be on the disk that is full.
    with contextlib.suppress(OSError):
        print(
            f"parallax: the worker had {seconds:.0f} s to stop and did not: is the broker away? It ends now, and what"
            " it has not committed will be delivered again",
            file=sys.stderr,
            flush=True,
        )
    os._exit(EXIT_CODE)


def run(settings: Settings) -> None:
    """Run a worker; ends the process. Raises ``ParallaxError`` when its servers or topics are not there."""
    _wait_for_servers(settings)
    quiet_log.set_up(settings.log_level)
    records.install()
    # Few of the objects made per batch live long: a full collection for every 700 of them costs a sixth of the time.
    gc.set_threshold(*COLLECTED_AFTER)
    app = ParallaxApp(settings, partial(_end_within, settings.stop_patience.seconds))
    worker = app.Worker(
        loglevel=settings.log_level,
        redirect_stdouts=False,
        console_port=0,
        blocking_timeout=0.0,
        override_logging=False,
    )
    worker.execute_from_commandline()
