"""What both sides of a comparison share: a place of their own on the broker, and what was measured."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from stream_app.errors import ParallaxError

ANSWER_S: Final = 30.0


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One side of one run. ``wrong`` says, one sentence each, what of its result is not right.

    ``seconds`` is from the first event to the last effect, ``cpu_seconds`` what the process used in that time, ``load``
    the machine's load average of one minute just before. ``seconds_from_start`` includes the start of the process.
    """

    events: int
    seconds: float
    cpu_seconds: float
    peak_rss_bytes: int
    load: float
    seconds_from_start: float
    wrong: list[str]

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.events / self.seconds


class TooSlow(ParallaxError):
    """A measurement did not end within its bound."""


def load_average() -> float:
    """Processes that wanted to run, mean of the last minute."""
    return round(os.getloadavg()[0], 2)


def admin_of(bootstrap: str) -> AdminClient:
    """A client that does not write to standard error on its own."""
    config: dict[str, Any] = {"bootstrap.servers": bootstrap, "log_level": 0, "error_cb": lambda _: None}
    return AdminClient(config)


@contextlib.contextmanager
def own_topics(bootstrap: str) -> Iterator[str]:
    """A prefix for topics; every topic that has it is deleted at the end."""
    prefix = f"bench-{uuid.uuid4().hex[:8]}-"
    try:
        yield prefix
    finally:
        admin = admin_of(bootstrap)
        # A broker that is gone has taken its topics along.
        with contextlib.suppress(KafkaException):
            own = [topic for topic in admin.list_topics(timeout=ANSWER_S).topics if topic.startswith(prefix)]
            for answer in admin.delete_topics(own, operation_timeout=ANSWER_S).values() if own else ():
                with contextlib.suppress(KafkaException):
                    answer.result(timeout=ANSWER_S)
