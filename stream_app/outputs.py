"""What the stream has published, as a reader of its topics sees it."""

import threading
import time
from collections.abc import Mapping
from typing import Any, Final, Self

from confluent_kafka import KafkaError, TopicPartition

from schemas import dead_letter
from schemas import insight as insight_codec
from schemas import prediction as prediction_codec
from schemas import topics as names
from schemas.dead_letter import DeadLetter
from schemas.insight import CrossPlatformInsight
from schemas.prediction import CtrPrediction
from stream_app.groupless import groupless
from stream_app.settings import Settings
from stream_app.summary import Latency
from stream_app.topics import name

TOPICS: Final = (names.INSIGHTS, names.PREDICTIONS, names.DEAD_LETTERS)


class Outputs:
    """Reads insights, predictions and dead letters from their beginning, in a thread, until ``close``.

    Of each insight the highest version is kept. ``first_seen`` says when (``time.monotonic`` seconds) an insight
    arrived first that rests on a platform campaign (``platform:campaign id``) and has an ``as_of``.
    """

    def __init__(self, settings: Settings) -> None:
        self.insights: dict[str, CrossPlatformInsight] = {}
        self.predictions: list[CtrPrediction] = []
        self.dead_letters: dict[str, DeadLetter] = {}
        self.first_seen: dict[tuple[str, str], float] = {}
        self.published = 0
        self._topics = {name(settings, base): base for base in TOPICS}
        self._settings = settings
        self._consumer = groupless(settings, "outputs", {"fetch.wait.max.ms": 50})
        self._partitions = [TopicPartition(topic, p, 0) for topic in self._topics for p in range(settings.partitions)]
        self._consumer.assign(self._partitions)
        self._read: dict[tuple[str, int], int] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="outputs")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading."""
        if not self._closing.is_set():
            self._closing.set()
            self._thread.join()
            self._consumer.close()

    def catch_up(self, deadline_seconds: float = 20.0) -> bool:
        """Wait until everything that the topics hold now has been read; whether that came about in time."""
        # A consumer that is being read from answers such questions only between two fetches.
        asking = groupless(self._settings, "outputs", {})
        ends = {(tp.topic, tp.partition): asking.get_watermark_offsets(tp, timeout=10)[1] for tp in self._partitions}
        asking.close()
        deadline = time.monotonic() + deadline_seconds
        while time.monotonic() < deadline:
            if all(self._read.get(key, 0) >= end for key, end in ends.items()):
                return True
            time.sleep(0.02)
        return False

    def latency(self, sent: Mapping[tuple[str, str], float], deadline_seconds: float) -> Latency | None:
        """From publication (platform campaign and event time, to ``time.monotonic`` seconds) to the insight that has
        that event as its newest. Events that another one of their campaign overtook are no samples.
        """
        end = time.monotonic() + deadline_seconds
        last = max(sent, key=lambda key: sent[key])
        while last not in self.first_seen and time.monotonic() < end:
            time.sleep(0.02)
        waits = sorted(1000 * (self.first_seen[key] - at) for key, at in sent.items() if key in self.first_seen)
        if not waits:
            return None
        return Latency(
            p50_ms=waits[len(waits) // 2], p99_ms=waits[min(len(waits) - 1, len(waits) * 99 // 100)], samples=len(waits)
        )

    def _run(self) -> None:
        while not self._closing.is_set():
            messages: list[Any] = self._consumer.consume(1_000, 0.05)
            for message in messages:
                error = message.error()
                if error is None:
                    self._take(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    self._read[message.topic(), message.partition()] = message.offset()

    def _take(self, message: Any) -> None:
        base = self._topics[message.topic()]
        if base == names.INSIGHTS:
            insight = insight_codec.decode(message.value())
            held = self.insights.get(insight.insight_id)
            if held is None or held.version < insight.version:
                self.insights[insight.insight_id] = insight
            arrived = time.monotonic()
            for platform, breakdown in insight.platform_breakdown.items():
                for campaign in breakdown.platform_campaigns:
                    self.first_seen.setdefault((f"{platform}:{campaign}", insight.as_of), arrived)
            self.published += 1
        elif base == names.PREDICTIONS:
            self.predictions.append(prediction_codec.decode(message.value()))
        else:
            headers = dict(message.headers() or [])
            if dead_letter.HEADER in headers:
                letter = dead_letter.decode(headers[dead_letter.HEADER])
                self.dead_letters[letter.id] = letter
        self._read[message.topic(), message.partition()] = message.offset() + 1
