"""Running one worker in the foreground until it is told to stop, or cannot go on."""

import gc
import logging
import sys

from stream_app import records
from stream_app.app import ParallaxApp
from stream_app.settings import Settings
from stream_app.topics import verify


def run(settings: Settings) -> None:
    """Run a worker; ends the process. Raises ``ParallaxError`` when its servers or topics are not there."""
    verify(settings)
    logging.basicConfig(
        level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    for chatty in ("faust", "mode", "aiokafka"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLevelName(settings.log_level)))
    records.install()
    # Few of the objects made per batch live long: a full collection for every 700 of them costs a sixth of the time.
    gc.set_threshold(200_000, 50, 100)
    app = ParallaxApp(settings)
    worker = app.Worker(loglevel=settings.log_level, redirect_stdouts=False, console_port=0, blocking_timeout=0.0)
    worker.execute_from_commandline()
