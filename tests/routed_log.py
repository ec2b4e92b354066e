"""Routed logs written by hand, and the reader of what comes of them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.aggregate import Aggregate
from core.ingest import Ingest
from core.lateness import Lateness
from core.retention import Retention
from schemas import rollup as rollup_codec
from schemas.metrics import METRICS, REVENUE, SPEND
from schemas.rollup import Rollup, Watermark
from schemas.topics import FACT_TOPICS
from tests.histories import DAY, HOUR, T0, TOPICS, Fact, Flat, arrange, delta

FIRST = T0 // DAY
SHORT = Retention(horizon_ms=2 * DAY, delta_ms=DAY, window_days=1, grace_ms=DAY)
WHOLE: dict[str, Any] = {"ad_group_id": "", "ad_id": "", "account_id": "", "currency": "USD"}
"""Fields that the oracle wants to see."""
SOURCES = [(topic, 0) for topic in (*TOPICS.values(), *FACT_TOPICS)]
Table = dict[bytes, bytes]


@dataclass
class Log:
    """A routed log, written by ingest."""

    lateness: Lateness = field(default_factory=Lateness)
    payloads: list[bytes] = field(default_factory=list)
    offsets: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    watermarks: dict[str, int] = field(default_factory=dict)

    def write(self, facts: Iterable[Fact]) -> "Log":
        """One envelope for each topic among the facts, then the word that facts are read to their end."""
        ingest = Ingest(partitions=1, lateness=self.lateness)
        for (topic, _), records in arrange(list(facts)).items():
            for record in records:
                record.offset = self.offsets[topic]
                self.offsets[topic] += 1
            ingested = ingest.batch(topic, 0, records, self.watermarks.get(topic, -1))
            assert not ingested.rejected
            self.watermarks[topic] = ingested.watermark_ms
            self.payloads += [payload for _, payload in ingested.envelopes]
        for topic in FACT_TOPICS:
            beat = ingest.heartbeat(topic, 0, self.watermarks.get(topic, -1), idle=True)
            self.payloads += [payload for _, payload in beat]
        return self


def applied(state: Aggregate, payloads: Sequence[bytes]) -> Aggregate:
    """The state after what it has not applied yet of a log whose first offset is 0."""
    for offset in range(state.position + 1, len(payloads)):
        state.apply(offset, payloads[offset])
    return state


def now(day: int, hour: int = 0, *, platforms: Iterable[str] = TOPICS) -> list[Fact]:
    """Something from every platform, by which everything up to an hour of a day has been observed."""
    at = day * DAY + hour * HOUR
    return [delta(f"now-{at}", at, platform=platform, campaign="clock", clicks=1, **WHOLE) for platform in platforms]


def totals(message: Rollup) -> Flat:
    """A rollup's day by metric, and money by currency."""
    if message.day_totals is None:
        return {}
    flat = {
        name: value
        for metric, (name, value) in enumerate(zip(METRICS, message.day_totals.values, strict=True))
        if value is not None and metric not in (SPEND, REVENUE)
    }
    for money in message.day_totals.money:
        for name in ("spend_micros", "revenue_micros"):
            if (amount := getattr(money, name)) is not None:
                flat[f"{name}:{money.currency}" if money.currency else name] = amount
    return flat


class Reader:
    """Whoever keeps the highest revision of each rollup. One revision stands for one content."""

    def __init__(self) -> None:
        self.held: dict[bytes, Rollup] = {}
        self.known: dict[tuple[bytes, int], bytes] = {}

    def read(self, messages: Iterable[Rollup | Watermark]) -> None:
        for message in messages:
            if isinstance(message, Rollup):
                key, payload = rollup_codec.key(message), rollup_codec.encode(message)
                assert self.known.setdefault((key, message.revision), payload) == payload
                if key not in self.held or self.held[key].revision <= message.revision:
                    self.held[key] = message

    @property
    def standing(self) -> dict[bytes, Rollup]:
        return {key: message for key, message in self.held.items() if not message.withdrawn}
