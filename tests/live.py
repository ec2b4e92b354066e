"""The application on real servers: topics of its own, worker processes, and what they have published and stored."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient
from redis import Redis

from core.offline import Computed, compute
from schemas import insight as insight_codec
from schemas import topics as names
from schemas.insight import CrossPlatformInsight
from stream_app.domain import ingest_config, insight_config
from stream_app.feed import Feed
from stream_app.hot_store import HotStore
from stream_app.local_worker import Drained, LocalWorker
from stream_app.outputs import Outputs
from stream_app.settings import PREFIX, UNPREFIXED, Settings, shown, variable
from stream_app.simulator import SimRecord
from stream_app.topics import create, name

ROOT: Final = Path(__file__).parents[1]
EVER: Final = "3660d"
DEADLINE_S: Final = 75.0
POLL_S: Final = 0.05
GROUP_TOPICS: Final = (*names.INGEST_TOPICS, names.ROUTED, names.ROLLUPS)

Insights = dict[str, CrossPlatformInsight]


def bare_environment() -> dict[str, str]:
    """This process's environment without any setting of the application."""
    unprefixed = {field.upper() for field in UNPREFIXED}
    return {key: value for key, value in os.environ.items() if not key.startswith(PREFIX) and key not in unprefixed}


def wait_until(what: str, holds: Callable[[], bool], seconds: float = DEADLINE_S) -> None:
    """Looks again and again until something holds; fails when it does not in time."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(POLL_S)


class Live:
    """One application; entering it creates its topics. They stamp on arrival, and every row is in time, however old."""

    def __init__(self, kafka: str, redis: tuple[str, int], folder: Path, **wanted: Any) -> None:
        fields: dict[str, Any] = {
            "kafka_bootstrap": kafka,
            "redis_host": redis[0],
            "redis_port": redis[1],
            "topic_prefix": f"live-{uuid.uuid4().hex[:12]}.",
            "datadir": folder / "data",
            "horizon": EVER,
            "delta_lateness": EVER,
            "session_timeout": "6s",
            "log_level": "WARNING",
        }
        self.settings = Settings(**(fields | wanted))
        self._folder = folder
        self.workers: list[LocalWorker] = []
        self._drained = Drained(self.settings)
        self._admin = AdminClient(self.settings.confluent_config() | {"log_level": 0})

    def __enter__(self) -> Self:
        create(self.settings)
        if self.settings.redis_db:
            with Redis(**self.settings.redis_url_kwargs()) as client:
                client.flushdb()
        return self

    def __exit__(self, failure: object, *_: object) -> None:
        for worker in self.workers:
            worker.process.kill()
            if failure is not None:
                print(f"--- {worker.log.name}\n{worker.log.read_text(errors='replace')[-6000:]}", file=sys.stderr)
        self._drained.close()

    def environment(self) -> dict[str, str]:
        """These settings as variables, and none of the ones that this process was given."""
        fields = self.settings.model_fields_set
        return bare_environment() | {variable(field): shown(getattr(self.settings, field)) for field in fields}

    def command(self, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """``parallax`` in a process of its own, with these settings and some variables more."""
        return subprocess.run(
            [sys.executable, "-m", "stream_app", *map(str, arguments)],
            cwd=ROOT,
            env=self.environment() | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_S,
        )

    def start(self) -> LocalWorker:
        """One more worker process, not yet ready."""
        worker = LocalWorker(self.environment(), self._folder / f"worker-{len(self.workers) + 1}.log")
        self.workers.append(worker)
        return worker

    def ready(self, *workers: LocalWorker) -> None:
        """Waits until these workers are ready, and together have all partitions, each at least one."""

        def shared() -> bool:
            statuses = [worker.status() for worker in workers]
            if any(status is None or not status["ready"] for status in statuses):
                return False
            for base in (names.ROUTED, names.ROLLUPS):
                owned = [partition for status in statuses if status for partition in status["partitions"][base]]
                if sorted(owned) != list(range(self.settings.partitions)):
                    return False
            return all(status and status["partitions"][names.ROUTED] for status in statuses)

        wait_until("the workers share all partitions", shared)

    @property
    def running(self) -> list[LocalWorker]:
        """The workers that have not ended."""
        return [worker for worker in self.workers if worker.process.running]

    def drain(self, records: int, seconds: float = DEADLINE_S) -> dict[str, Any]:
        """Waits until the running workers have nothing left to do for the records published; their accounting
        together.
        """
        workers = self.running
        if not self._drained.wait(workers, records, seconds):
            left = [worker.status() for worker in workers]
            raise AssertionError(f"not drained of {records} records within {seconds:.0f} s: {left}")
        wait_until("all is committed", lambda: not any(self.unfinished().values()))
        return self.accounting()

    def unfinished(self) -> dict[str, int]:
        """By topic, how many records the running workers know of and have not finished, once that is told by all."""
        lags: dict[str, int] = {}

        def told() -> bool:
            lags.clear()
            for worker in self.running:
                status = worker.status()
                if status is None or not status["ready"]:
                    return False
                for base, lag in status["lag"].items():
                    lags[base] = lags.get(base, 0) + lag
            return not any(lags.values())

        end = time.monotonic() + 10
        while not told() and time.monotonic() < end:
            time.sleep(POLL_S)
        return lags

    def accounting(self) -> dict[str, Any]:
        """What the running workers say became of all rows."""
        total: dict[str, Any] = {"dead_letters": {}, "ignored": {}}
        for worker in self.running:
            status = worker.status()
            assert status is not None
            for what, value in status["accounting"].items():
                if isinstance(value, int):
                    total[what] = total.get(what, 0) + value
                else:
                    for reason, count in value.items():
                        total[what][reason] = total[what].get(reason, 0) + count
        return total

    def committed(self) -> dict[tuple[str, int], int]:
        """Offsets that the group has committed, by base topic and partition; 0 where it has none."""
        return {key: max(0, offset) for key, offset in self._group_offsets().items()}

    def _group_offsets(self) -> dict[tuple[str, int], int]:
        partitions = [
            TopicPartition(name(self.settings, base), p)
            for base in GROUP_TOPICS
            for p in range(self.settings.partitions)
        ]
        group = self.settings.topic_prefix + self.settings.app_id
        [answer] = self._admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group, partitions)]).values()
        found = answer.result(timeout=10).topic_partitions
        return {(tp.topic.removeprefix(self.settings.topic_prefix), tp.partition): tp.offset for tp in found}

    def ends(self) -> dict[tuple[str, int], int]:
        """End offsets of the topics that the group reads."""
        with self._reader() as consumer:
            return {
                (base, partition): consumer.get_watermark_offsets(
                    TopicPartition(name(self.settings, base), partition), timeout=10
                )[1]
                for base in GROUP_TOPICS
                for partition in range(self.settings.partitions)
            }

    @contextmanager
    def _reader(self) -> Iterator[Consumer]:
        consumer = Consumer(
            self.settings.confluent_config()
            | {"group.id": "reader", "enable.auto.commit": False, "enable.partition.eof": True, "log_level": 0}
        )
        try:
            yield consumer
        finally:
            consumer.close()

    def read(self, base: str) -> list[Any]:
        """All records of a topic, from its beginning to what is its end now, each partition in order."""
        topic, count = name(self.settings, base), self.settings.partitions
        with self._reader() as consumer:
            ends = {p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10)[1] for p in range(count)}
            consumer.assign([TopicPartition(topic, p, 0) for p in range(count)])
            found: list[Any] = []
            reached: dict[int, int] = {}

            def whole() -> bool:
                messages: list[Any] = consumer.consume(2_000, 0.2)
                for message in messages:
                    if message.error() is None:
                        found.append(message)
                    else:
                        assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                        reached[message.partition()] = message.offset()
                return all(reached.get(partition, -1) >= end for partition, end in ends.items())

            wait_until(f"{topic} is read to its end", whole)
        return [message for message in found if message.offset() < ends[message.partition()]]

    def published(self) -> Insights:
        """The highest version of every insight in the stream's topic, those that lost all content left out."""
        with Outputs(self.settings) as outputs:
            assert outputs.catch_up(DEADLINE_S)
            return with_content(outputs.insights)

    def latest(self) -> Insights:
        """The compacted topic's last record of each key, those that lost all content left out. The last of a key is
        its highest version: compaction keeps it.
        """
        last: Insights = {}
        for message in self.read(names.INSIGHTS_LATEST):
            insight = insight_codec.decode(message.value())
            key = message.key().decode()
            assert insight.insight_id == key
            assert key not in last or last[key].version <= insight.version, "compaction would keep an older version"
            last[key] = insight
        return with_content(last)

    def hot_slots(self) -> list[tuple[str, str]]:
        """Campaign and window of every insight in Redis."""
        with Redis(**self.settings.redis_url_kwargs()) as client:
            keys = [key.decode().removeprefix("parallax:insight:") for key in client.scan_iter("parallax:insight:*")]
        return [(campaign, window) for campaign, _, window in (key.rpartition(":") for key in keys)]

    def hot(self, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], CrossPlatformInsight]:
        """What the hot store gives for campaigns and windows; absent ones are left out."""

        async def ask() -> dict[tuple[str, str], CrossPlatformInsight]:
            store = HotStore.connect(
                host=self.settings.redis_host, port=self.settings.redis_port, db=self.settings.redis_db
            )
            try:
                found = {key: await store.get(*key) for key in wanted}
            finally:
                await store.close()
            return {key: insight_codec.decode(value.value) for key, value in found.items() if value is not None}

        return asyncio.run(ask())

    def check(self, expected: Insights) -> None:
        """The stream's topic, the compacted topic and Redis hold the content of the expected insights, and no other."""
        assert expected, "nothing is expected: the check would say nothing"
        assert not differences(self.published(), expected)
        assert not differences(self.latest(), expected)
        self.check_hot(expected)

    def check_hot(self, expected: Insights) -> None:
        """Redis holds the newest window of each campaign and kind, and nothing else with content."""
        newest = newest_windows(expected)
        held = {key: insight for key, insight in self.hot(self.hot_slots()).items() if insight.platform_breakdown}
        assert not newest.keys() - held.keys(), "Redis lacks insights"
        assert not held.keys() - newest.keys(), "Redis holds insights of campaigns that have none"
        assert not differences(
            {insight.insight_id: insight for insight in held.values()},
            {insight.insight_id: insight for insight in newest.values()},
        )


def with_content(insights: Mapping[str, CrossPlatformInsight]) -> Insights:
    """Without the insights whose window has lost all content."""
    return {key: insight for key, insight in insights.items() if insight.platform_breakdown}


def newest_windows(insights: Insights) -> dict[tuple[str, str], CrossPlatformInsight]:
    """By campaign and kind, the insight of the newest window."""
    newest: dict[tuple[str, str], CrossPlatformInsight] = {}
    for insight in insights.values():
        key = (insight.campaign_id, insight.window)
        if key not in newest or newest[key].window_start < insight.window_start:
            newest[key] = insight
    return newest


def differences(found: Insights, expected: Insights) -> list[str]:
    """Where two sets of insights differ in content: missing, unexpected, or of another content."""
    told = [f"missing: {_place(expected[key])}" for key in sorted(expected.keys() - found.keys())]
    told += [f"unexpected: {_place(found[key])}" for key in sorted(found.keys() - expected.keys())]
    for key in sorted(found.keys() & expected.keys()):
        one, other = insight_codec.content(found[key]), insight_codec.content(expected[key])
        if one != other:
            fields = {field: value for field, value in json.loads(other).items() if json.loads(one)[field] != value}
            told.append(f"differs: {_place(expected[key])}: {fields} expected")
    return told


def _place(insight: CrossPlatformInsight) -> str:
    return f"{insight.campaign_id} {insight.window} from {insight.window_start}"


def offline(feed: Feed, settings: Settings) -> Computed:
    """``core`` over the records as the broker stored them."""
    batches = [(topic, partition, records) for (topic, partition), records in feed.stored.items()]
    return compute(batches, ingest_config(settings), insight_config(settings))


def by_id(insights: Iterable[CrossPlatformInsight]) -> Insights:
    """Insights by their id, which must be unique."""
    listed = list(insights)
    found = {insight.insight_id: insight for insight in listed}
    assert len(found) == len(listed)
    return found


class Stream:
    """Records that a thread publishes at a steady pace while the test does something else.

    The last fifth waits for ``finish``: however slow the machine, there is more to come until the test says so. What
    is left then comes as fast as it can.
    """

    def __init__(self, feed: Feed, records: Sequence[SimRecord], per_second: int) -> None:
        self._feed = feed
        self._records = records
        self._per_second = per_second
        self._thread = threading.Thread(target=self._run, daemon=True, name="stream")
        self._failure: BaseException | None = None
        self._may_end = threading.Event()
        self.sent = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._may_end.set()
        self._thread.join()

    @property
    def publishing(self) -> bool:
        """Whether more is to come."""
        return self._thread.is_alive()

    def finish(self) -> int:
        """Waits until all is stored; how many records there were."""
        self._may_end.set()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()
        if self._failure is not None:
            raise self._failure
        return self.sent

    def _run(self) -> None:
        began = time.monotonic()
        try:
            for record in self._records:
                if self.sent == len(self._records) * 4 // 5:
                    self._may_end.wait()
                if self.sent % 200 == 0 and not self._may_end.is_set():
                    time.sleep(max(0.0, began + self.sent / self._per_second - time.monotonic()))
                self._feed.send(record)
                self.sent += 1
            self._feed.flush()
        except BaseException as error:  # noqa: BLE001 - told by finish
            self._failure = error
