"""Running one worker in the foreground until it is told to stop, or cannot go on."""

import gc

from stream_app import quiet_log, records
from stream_app.app import ParallaxApp
from stream_app.settings import Settings
from stream_app.topics import verify


def run(settings: Settings) -> None:
    """Run a worker; ends the process. Raises ``ParallaxError`` when its servers or topics are not there."""
    verify(settings)
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
