"""What a run stands on: a Kafka and a Redis of its own, and an application on them with workers under a supervisor."""

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from redis import Redis

from schemas import topics as names
from stream_app.embedded import RedisServer
from stream_app.local_worker import Drained
from stream_app.topics import create, name
from tests.chaos.sinks import HotWatch, Sinks, TopicReader, hot_insights
from tests.chaos.slow_proxy import SlowProxy
from tests.chaos.stream import Stream
from tests.chaos.supervisor import Supervisor, Worker
from tests.live import Live
from tests.own_servers import KafkaServer, own_kafka, own_redis

PARTITIONS: Final = 6
SESSION: Final = "2s"
POLL_S: Final = 0.1
READY_S: Final = 90.0
DRAIN_S: Final = 120.0
ANSWER_S: Final = 5.0
SETTLED_S: Final = 20.0
IN_FLIGHT_TOPICS: Final = (*names.INGEST_TOPICS, names.ROUTED)
Answer = TypeVar("Answer")
ACCOUNTED: Final = ("applied", "duplicate", "superseded")


class Servers:
    """One Kafka and one Redis, for any number of applications, one after another."""

    def __init__(self, kafka: KafkaServer, redis: RedisServer, proxy: SlowProxy) -> None:
        self.kafka = kafka
        self.redis = redis
        self.proxy = proxy


@contextlib.contextmanager
def servers() -> Iterator[Servers]:
    """Servers that faults may stop, kill and start. Raises ``SetupError`` where Java or Maven are missing."""
    with own_kafka("log.retention.check.interval.ms=3600000") as kafka, own_redis() as redis:
        proxy = SlowProxy((redis.host, redis.port))
        try:
            yield Servers(kafka, redis, proxy)
        finally:
            proxy.close()


class Application:
    """Topics of its own, workers, a stream that feeds them, and what came of it."""

    def __init__(
        self, servers: Servers, folder: Path, run: str, seed: int, *, workers: int, values: int, per_second: int
    ) -> None:
        self.servers = servers
        self.folder = folder
        self._live = Live(
            servers.kafka.bootstrap,
            ("127.0.0.1", servers.proxy.port),
            folder,
            topic_prefix=f"chaos-{run}.",
            partitions=PARTITIONS,
            session_timeout=SESSION,
            cache_ttl=86_400,
            windows=("1h", "24h", "2d"),
        )
        self.settings = self._live.settings
        create(self.settings)
        with self.redis() as client:
            client.flushall()
        config = self.settings.confluent_config() | {
            "log_level": 0,
            "reconnect.backoff.max.ms": 500,
            "error_cb": _silent,
        }
        self._admin = AdminClient(config)
        # It asks about the workers' group without ever joining it.
        group = self.settings.topic_prefix + self.settings.app_id
        self._asking = Consumer(config | {"group.id": group, "enable.auto.commit": False})
        self._drained = Drained(self.settings)
        self.reader = TopicReader(self.settings)
        self.watch = HotWatch(servers.redis.host, servers.redis.port)
        self.stream = Stream(self.settings, run, seed, values=values, per_second=per_second)
        self.supervisor = Supervisor(folder, self._live.environment())
        self.deleted = 0
        for _ in range(workers):
            self.supervisor.add()

    def replay(self) -> subprocess.CompletedProcess[str]:
        """``parallax replay`` of all that the input topics hold, against what is live."""
        return self._live.command("replay", "--format", "json")

    def close(self) -> None:
        """End the workers and all that looks at them."""
        self.supervisor.close()
        self.watch.close()
        self._drained.close()
        self._asking.close()

    def keep(self, folder: Path) -> None:
        """Copy the logs of workers and broker."""
        folder.mkdir(parents=True, exist_ok=True)
        for log in self.folder.glob("*.log"):
            shutil.copy(log, folder)

    def redis(self) -> Redis:
        """A client of the real Redis, past the proxy."""
        return Redis(host=self.servers.redis.host, port=self.servers.redis.port)

    @property
    def admin(self) -> AdminClient:
        """The broker's administration."""
        return self._admin

    def statuses(self) -> dict[Worker, dict[str, Any]]:
        """The health pages of the running workers that answer."""
        pages = [(worker, worker.status()) for worker in self.supervisor.running]
        return {worker: page for worker, page in pages if page is not None}

    def shared(self, among: Iterable[Worker] | None = None) -> dict[Worker, dict[str, Any]] | None:
        """The pages of the wanted workers, or of some others, when they are ready and together own each partition
        exactly once; else None.
        """
        pages: dict[Worker, dict[str, Any]] = {}
        for worker in self.supervisor.wanted if among is None else among:
            page = worker.status() if worker.running else None
            if page is None or not page["ready"]:
                return None
            pages[worker] = page
        for base in (names.ROUTED, names.ROLLUPS):
            owned = sorted(partition for page in pages.values() for partition in page["partitions"][base])
            if owned != list(range(PARTITIONS)):
                return None
        return pages

    def wait(self, what: str, holds: Callable[[], object], seconds: float = READY_S) -> float:
        """Look until something holds; how many seconds that took. An ``AssertionError`` when it does not in time."""
        began = time.monotonic()
        while not holds():
            assert time.monotonic() - began < seconds, f"not within {seconds:.0f} s: {what}"
            time.sleep(POLL_S)
        return time.monotonic() - began

    def ready(self) -> float:
        """Wait until the wanted workers share all partitions; the seconds that it took."""
        return self.wait("the workers share all partitions", self.shared)

    def scale(self, workers: int) -> None:
        """Let so many workers run, and wait until they share all partitions."""
        for worker in self.supervisor.wanted[workers:]:
            self.supervisor.terminate(worker, READY_S)
        while len(self.supervisor.wanted) < workers:
            self.grow()
        self.ready()

    def grow(self) -> Worker:
        """One more worker, in the place of one that was told to go, if there is any."""
        for worker in self.supervisor.workers:
            if not worker.wanted and not worker.running:
                self.supervisor.resume(worker)
                return worker
        return self.supervisor.add()

    def checkpointed(self, since: float, among: Iterable[Worker] | None = None) -> bool:
        """Whether the workers share all partitions and each has made a checkpoint since some time (epoch seconds)."""
        pages = self.shared(among)
        return pages is not None and all(
            stage["last_at"] > since for page in pages.values() for stage in page["checkpoints"].values()
        )

    def advanced(self, since: float, taken: int, among: Iterable[Worker] | None = None) -> bool:
        """Whether workers have made a checkpoint since some time, and the group has committed more than ``taken``.

        ``among`` names workers that must share all partitions, else any will do.
        """
        new = self.any_checkpoint(since) if among is None else self.checkpointed(since, among)
        return new and self.taken() > taken

    def any_checkpoint(self, since: float) -> bool:
        """Whether some worker with partitions has made a checkpoint of aggregates since some time."""
        return any(
            page["checkpoints"]["aggregate"]["last_at"] > since and page["partitions"][names.ROUTED]
            for page in self.statuses().values()
        )

    def ends(self, topics: tuple[str, ...] = IN_FLIGHT_TOPICS) -> dict[tuple[str, int], int]:
        """End offsets by base topic and partition. Raises ``KafkaException`` without a broker."""

        def ask() -> dict[tuple[str, int], int]:
            return {
                (base, partition): self._asking.get_watermark_offsets(
                    TopicPartition(name(self.settings, base), partition), timeout=ANSWER_S
                )[1]
                for base in topics
                for partition in range(PARTITIONS)
            }

        return _patiently(ask)

    def committed(self) -> dict[tuple[str, int], int]:
        """The group's committed offsets, 0 for none. Raises ``KafkaException`` without a broker."""
        partitions = [
            TopicPartition(name(self.settings, base), partition)
            for base in (*IN_FLIGHT_TOPICS, names.ROLLUPS)
            for partition in range(PARTITIONS)
        ]
        found = _patiently(lambda: self._asking.committed(partitions, timeout=ANSWER_S))
        prefix = self.settings.topic_prefix
        return {(tp.topic.removeprefix(prefix), tp.partition): max(0, tp.offset) for tp in found}

    def in_flight(self) -> int:
        """How many records of the inputs and the routed topic the group has not committed."""
        ends, committed = self.ends(), self.committed()
        return sum(max(0, end - committed[where]) for where, end in ends.items())

    def taken(self) -> int:
        """How many offsets the group has committed, over all topics."""
        return sum(self.committed().values())

    def drain(self) -> float:
        """Wait until nothing is left to do for what is on the topics; the seconds that it took."""
        began = time.monotonic()
        self.ready()
        quiet = 0
        left = -1
        while quiet < 2:
            if time.monotonic() - began > DRAIN_S:
                told = {worker.number: page for worker, page in self.statuses().items()}
                raise AssertionError(f"not drained within {DRAIN_S:.0f} s: {left} left: {told}")
            time.sleep(POLL_S)
            pages = self.shared()
            if pages is None:
                quiet = 0
                continue
            left = _patiently(partial(self._left, pages.values()))

            quiet = quiet + 1 if left == 0 else 0
        return time.monotonic() - began

    def _left(self, pages: Collection[dict[str, Any]]) -> int:
        left: int = self._drained.remaining(pages, self.published())
        for page in pages:
            left += sum(page["lag"].values())
        return left

    def published(self) -> int:
        """How many records the inputs have taken, less those that were deleted before anybody had read them."""
        ends = self.ends(names.INGEST_TOPICS)
        return sum(ends.values()) - self.deleted

    def accounting(self) -> dict[str, Any]:
        """What the workers together say became of all rows."""
        total: dict[str, Any] = {"records": 0, **dict.fromkeys(ACCOUNTED, 0), "dead_letters": {}, "ignored": {}}
        for page in self.statuses().values():
            for what, value in page["accounting"].items():
                if isinstance(value, int):
                    total[what] = total.get(what, 0) + value
                else:
                    for reason, count in value.items():
                        total[what][reason] = total[what].get(reason, 0) + count
        return total

    def sinks(self) -> Sinks:
        """Everything that is to be compared, read back."""
        self.reader.catch_up()
        return Sinks(
            inputs=self.reader.inputs,
            insights=self.reader.insights,
            latest=self.reader.latest,
            letters=self.reader.letters,
            hot=hot_insights(self.servers.redis.host, self.servers.redis.port),
            accounting=self.accounting(),
            hot_falls=self.watch.falls,
        )


def _patiently(ask: Callable[[], Answer]) -> Answer:
    """An answer from a broker that has just come back. Raises ``KafkaException`` when it does not come round."""
    end = time.monotonic() + SETTLED_S
    while True:
        try:
            return ask()
        except KafkaException:
            if time.monotonic() > end:
                raise
            time.sleep(POLL_S)


def _silent(_error: object) -> None:
    """Outages are what this is about."""
