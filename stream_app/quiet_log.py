"""The worker's log: what is said again and again is said once in a while, with how often it was said."""

import logging
import sys
import time
from typing import Final

AGAIN_S: Final = 10.0


class Repeats(logging.Filter):
    """Lets a message of one kind pass once in ``AGAIN_S``: a broker's absence is told 100 times a second."""

    def __init__(self) -> None:
        super().__init__()
        self._passed: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be written."""
        kind = (record.name, str(record.msg))
        now = time.monotonic()
        at, dropped = self._passed.get(kind, (-AGAIN_S, 0))
        if now - at < AGAIN_S:
            self._passed[kind] = (at, dropped + 1)
            return False
        self._passed[kind] = (now, 0)
        if dropped:
            record.msg = f"{record.msg} (and {dropped} more like it)"
        return True


def set_up(level: str) -> None:
    """Log to standard error; of the libraries only what went wrong."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(Repeats())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for chatty in ("faust", "mode", "aiokafka"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLevelName(level)))
