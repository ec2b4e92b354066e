"""Running one worker in the foreground until it is told to stop, or cannot go on."""

import gc
import sys
import time
from typing import Final

from stream_app import quiet_log, records
from stream_app.app import ParallaxApp
from stream_app.errors import ServerAbsent
from stream_app.settings import Settings
from stream_app.topics import verify

POLL_S: Final = 1.0


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


def run(settings: Settings) -> None:
    """Run a worker; ends the process. Raises ``ParallaxError`` when its servers or topics are not there."""
    _wait_for_servers(settings)
    quiet_log.set_up(settings.log_level)
    records.install()
    # Few of the objects made per batch live long: a full collection for every 700 of them costs a sixth of the time.
    gc.set_threshold(200_000, 50, 100)
    app = ParallaxApp(settings)
    worker = app.Worker(
        loglevel=settings.log_level,
        redirect_stdouts=False,
        console_port=0,
        blocking_timeout=0.0,
        override_logging=False,
    )
    worker.execute_from_commandline()
