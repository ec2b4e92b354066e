"""Follows ``models.ctr``: the newest good model of each kind and horizon, taken over between checkpoints.

A thread with a consumer of its own, without a group, reads the topic from its beginning and goes on. Every model is
looked at before anybody sees it (``stream_app.model_check``); one that is refused is counted, with its reason, and the
last good one stays. Without broker or topic it keeps trying: predictions go on with what there is.
"""

import threading
from collections.abc import Collection
from typing import Final, Self

import msgspec
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, Message, TopicPartition

from core.learning.ctr_model import KIND, CtrModel
from schemas import topics as names
from schemas.model import ModelRefused, RefusalCode, key
from stream_app.groupless import groupless
from stream_app.model_check import checked
from stream_app.settings import Settings
from stream_app.topics import DERIVED_MAX_BYTES, name

POLL_S: Final = 0.2
ANSWER_S: Final = 5.0
AGAIN_S: Final = 2.0
STOP_S: Final = 15.0
PASSING: Final = (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._RESOLVE, KafkaError._TIMED_OUT)
"""What librdkafka mends itself."""

DAILY: Final = key(KIND, "1d").decode()


class Refusal(msgspec.Struct, frozen=True):
    """A model that was not taken: why, and where it stands (``topic/partition/offset``)."""

    code: str
    reason: str
    position: str


class Followed(msgspec.Struct, frozen=True, kw_only=True):
    """One key: the newest good model, whether the worker has taken it, and the refusal of what was published since,
    if that was refused: then predictions come from an older model than somebody wanted.
    """

    model_id: str | None = None
    first_day: str | None = None
    last_day: str | None = None
    published_ms: int | None = None
    taken: bool = False
    refused_since: Refusal | None = None


class FollowerStatus(msgspec.Struct, frozen=True):
    """``caught_up``: all that the topic held has been read once. ``problem`` is what hinders reading, in a sentence."""

    caught_up: bool
    problem: str
    models: dict[str, Followed]
    refused: dict[str, int]


class _Slot:
    """What is known of one key; guarded by the follower's lock."""

    def __init__(self) -> None:
        self.model: CtrModel | None = None
        self.published_ms: int | None = None
        self.taken: str | None = None
        self.refused: Refusal | None = None

    def told(self) -> Followed:
        if self.model is None:
            return Followed(refused_since=self.refused)
        header = self.model.header
        return Followed(
            model_id=self.model.model_id,
            first_day=None if header.first_day is None else header.first_day.isoformat(),
            last_day=None if header.last_day is None else header.last_day.isoformat(),
            published_ms=self.published_ms,
            taken=self.taken == self.model.model_id,
            refused_since=self.refused,
        )


class ModelFollower:
    """Start it with the worker, ask it at checkpoints, stop it at the end. All methods may be called from any thread,
    and none waits for Kafka but ``stop`` and ``caught_up``.

    ``profile``: the version of the benchmarks that predictions are made with; a model of others is refused.
    """

    def __init__(self, settings: Settings, profile: str, keys: Collection[str] = (DAILY,)) -> None:
        self._settings, self._profile = settings, profile
        self._topic = name(settings, names.MODELS)
        self._lock = threading.Lock()
        self._slots = {wanted: _Slot() for wanted in keys}
        self._refused: dict[str, int] = {}
        self._read: dict[int, int] = {}
        self._problem = "not started"
        self._ended = threading.Event()
        self._caught_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="model-follower", daemon=True)

    def start(self) -> None:
        """Begin to read, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join(STOP_S)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def take(self, wanted: str = DAILY) -> CtrModel | None:
        """The newest good model of a key, which counts as taken from now on; ``None`` while there is none."""
        with self._lock:
            slot = self._slots[wanted]
            if slot.model is not None:
                slot.taken = slot.model.model_id
            return slot.model

    def refused(self, wanted: str = DAILY) -> str | None:
        """The code of the refusal of what was published since the newest good model, if that was refused."""
        with self._lock:
            refusal = self._slots[wanted].refused
            return None if refusal is None else refusal.code

    def status(self) -> FollowerStatus:
        """For the health page."""
        with self._lock:
            models = {wanted: slot.told() for wanted, slot in self._slots.items()}
            return FollowerStatus(self._caught_up.is_set(), self._problem, models, dict(self._refused))

    def caught_up(self, seconds: float) -> bool:
        """Wait until all that the topic held has been read once; whether that was in time."""
        return self._caught_up.wait(seconds)

    def _run(self) -> None:
        try:
            while not self._ended.is_set():
                try:
                    self._follow()
                except KafkaException as error:
                    self._hindered(f"Kafka at {self._settings.kafka_bootstrap}: {error.args[0].str()}")
                self._ended.wait(AGAIN_S)
        finally:
            self._hindered("not running")

    def _follow(self) -> None:
        """Read until the end is asked for, or the topic cannot be read any more."""
        consumer = groupless(self._settings, "models", {"fetch.message.max.bytes": DERIVED_MAX_BYTES})
        try:
            # Of all topics: asking for one by name would create it on brokers that do so.
            topics = consumer.list_topics(timeout=ANSWER_S).topics
            if self._topic not in topics:
                self._hindered(f"topic {self._topic} does not exist: run `parallax topics create`")
                return
            waiting = set(topics[self._topic].partitions)
            # What was read before the connection was lost is not judged twice.
            start = {partition: self._read.get(partition, OFFSET_BEGINNING) for partition in waiting}
            consumer.assign([TopicPartition(self._topic, partition, offset) for partition, offset in start.items()])
            self._hindered("")
            while not self._ended.is_set():
                message = consumer.poll(POLL_S)
                if message is None:
                    continue
                error = message.error()
                if error is None:
                    self._take(message)
                    self._hindered("")
                elif error.code() == KafkaError._PARTITION_EOF:
                    self._hindered("")
                    waiting.discard(message.partition() or 0)
                    if not waiting:
                        self._caught_up.set()
                elif error.code() in PASSING:
                    self._hindered(f"Kafka at {self._settings.kafka_bootstrap} does not answer: {error.str()}")
                else:
                    raise KafkaException(error)
        finally:
            consumer.close()

    def _hindered(self, problem: str) -> None:
        with self._lock:
            self._problem = problem

    def _take(self, message: Message) -> None:
        wanted = (message.key() or b"").decode("utf-8", "replace")
        partition, offset = message.partition() or 0, message.offset() or 0
        self._read[partition] = offset + 1
        if wanted not in self._slots:
            return
        position = f"{message.topic()}/{partition}/{offset}"
        try:
            model = self._checked(wanted, message.value())
        except ModelRefused as refused:
            self._refuse(wanted, Refusal(str(refused.code), refused.reason, position))
            return
        with self._lock:
            slot = self._slots[wanted]
            slot.model, slot.published_ms, slot.refused = model, message.timestamp()[1], None

    def _checked(self, wanted: str, payload: bytes | None) -> CtrModel:
        model = checked(payload, self._profile)
        told = key(model.header.kind, model.header.horizon).decode()
        if told != wanted:
            raise ModelRefused(RefusalCode.OTHER_KIND, f"the model says that it is {told[:60]}, its key {wanted}")
        return model

    def _refuse(self, wanted: str, refusal: Refusal) -> None:
        with self._lock:
            self._refused[refusal.code] = self._refused.get(refusal.code, 0) + 1
            self._slots[wanted].refused = refusal
