"""The producer of the workload: an endless stream of chapters at a steady pace, and a ledger of all sends.

What a send's end is unknown of is sent again: events carry ids, so that it counts once however often it was stored.
"""

import itertools
import threading
import time
import zlib
from collections import deque
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from confluent_kafka import Producer

from stream_app.settings import Settings
from stream_app.topics import name
from tests.chaos.chapters import Chapter, Expected, Sent

DELIVERY_MS: Final = 240_000
PACED: Final = 20
FLUSH_S: Final = 150.0


class Acknowledged(NamedTuple):
    """A record that the broker said it had stored, by base topic."""

    topic: str
    partition: int
    offset: int
    checksum: int


class Indeterminate(NamedTuple):
    """A send of which nobody knows whether it was stored. It was sent again."""

    topic: str
    key: bytes | None
    reason: str


def checksum(value: bytes | None) -> int:
    """Tells the values of a topic apart."""
    return -1 if value is None else zlib.crc32(value)


class Stream:
    """Publishes chapter after chapter until it is told to stop, which completes the chapter that was begun."""

    def __init__(self, settings: Settings, run: str, seed: int, *, values: int, per_second: int) -> None:
        self._settings = settings
        self._run_name, self._seed = run, seed
        self._values, self._per_second = values, per_second
        self._producer = Producer(
            settings.confluent_config()
            | {
                "enable.idempotence": True,
                "linger.ms": 5,
                "partitioner": "murmur2_random",
                "message.timeout.ms": DELIVERY_MS,
                "reconnect.backoff.max.ms": 1_000,
                "log_level": 0,
                "error_cb": lambda _: None,
            }
        )
        self._numbers = itertools.count()
        self._again: deque[Sent] = deque()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._withheld: list[Sent] = []
        self.chapters: list[Chapter] = []
        self.released = 0
        self.extra: Expected = {}
        self.acknowledged: list[Acknowledged] = []
        self.indeterminate: list[Indeterminate] = []
        self.sent = 0

    def start(self) -> None:
        """Begin a new chapter."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, daemon=True, name="stream")
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether more is to come."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """Complete the chapter as fast as can be, and wait until everything is acknowledged. Raises what went wrong."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failure is not None:
            raise self._failure
        self.flush()

    def release(self) -> None:
        """Send what the chapters have withheld."""
        for record in self._withheld:
            self.send(record)
        self._withheld = []
        self.released = len(self.chapters)
        self.flush()

    def publish(self, records: Iterable[Sent]) -> None:
        """Send records that belong to no chapter, and wait until they are acknowledged."""
        for record in records:
            self.send(record)
        self.flush()

    def expected(self) -> Expected:
        """The closed form of all chapters, and of what faults have sent beside them."""
        found = dict(self.extra)
        for place, chapter in enumerate(self.chapters):
            found |= chapter.expected(released=place < self.released)
        return found

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._chapter()
        except BaseException as error:  # noqa: BLE001 - told by stop
            self._failure = error

    def _chapter(self) -> None:
        chapter = self.next_chapter()
        began = time.monotonic()
        for place, record in enumerate(chapter.records()):
            if place % PACED == 0:
                self._stopping.wait(max(0.0, began + place / self._per_second - time.monotonic()))
            self.send(record)

    def next_chapter(self) -> Chapter:
        """A chapter that counts from now on: its records are to be sent."""
        chapter = Chapter(self._run_name, next(self._numbers), self._values, self._seed)
        self.chapters.append(chapter)
        self._withheld += chapter.withheld
        return chapter

    def send(self, record: Sent) -> None:
        """Hand one record over; waits while the producer's buffer is full."""
        full_name = name(self._settings, record.topic)

        def delivered(error: Any, message: Any) -> None:
            if error is not None:
                self.indeterminate.append(Indeterminate(record.topic, record.key, str(error)))
                self._again.append(record)
                return
            self.acknowledged.append(
                Acknowledged(record.topic, message.partition(), message.offset(), checksum(record.value))
            )

        while True:
            try:
                self._producer.produce(full_name, record.value, record.key, on_delivery=delivered)
            except BufferError:
                self._producer.poll(0.05)
            else:
                break
        self.sent += 1
        self._producer.poll(0)

    def flush(self) -> None:
        """Wait until everything sent is acknowledged, and send again what was not."""
        end = time.monotonic() + FLUSH_S
        while True:
            left = self._producer.flush(1.0)
            while self._again:
                self.send(self._again.popleft())
                left = 1
            if not left:
                return
            assert time.monotonic() < end, f"{left} records are not acknowledged after {FLUSH_S:.0f} s"
