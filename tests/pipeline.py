"""The pipeline driven by hand: sources, ingest, routed logs, aggregates, rollup logs, campaigns, topics.

Every step that a worker may take, in any order: batches of any size, redelivery, a checkpoint that publishes or does
not, and a crash after any of a checkpoint's writes and sends. The logs check on their way what must hold at any time.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

from hypothesis import strategies as st

from core.accounting import Accounting, account
from core.aggregate import Aggregate, TableWrite, rollup_record
from core.campaigns import Campaigns, Checkpoint, Emission, InsightConfig
from core.ingest import Ingest
from schemas import insight as insight_codec
from schemas.envelope import target_partition
from schemas.insight import CrossPlatformInsight
from schemas.rollup import Message, Rollup
from tests.histories import HOUR, SOURCES, Flat, Source, Sources

CONFIG = InsightConfig(
    final_after_ms=dict.fromkeys(("meta", "tiktok", "google_ads"), HOUR), emit_interval_ms=2, decoded=1, repriced=1
)

Step = tuple[str, int, int]
ACTIONS = (
    "read",
    "torn_read",
    "rewind",
    "idle",
    "apply",
    "checkpoint",
    "defer",
    "crash",
    "feed",
    "emit",
    "fail",
)
numbers = st.integers(0, 7)


@st.composite
def rounds(draw: st.DrawFn) -> list[Step]:
    """One batch on its way through all stages, each of which ends in a checkpoint or in a crash amid one."""
    source, aggregate, campaigns = draw(numbers), draw(numbers), draw(numbers)
    return [
        ("read", source, draw(numbers)),
        *([("idle", 0, 0)] if draw(st.booleans()) else []),
        ("apply", aggregate, 20),
        (draw(st.sampled_from(("checkpoint", "defer", "crash"))), aggregate, draw(numbers)),
        ("feed", campaigns, 20),
        (draw(st.sampled_from(("emit", "emit", "fail"))), campaigns, draw(numbers)),
    ]


def schedules() -> st.SearchStrategy[list[Step]]:
    """What the workers do: whole rounds, and steps out of any order."""
    step = st.tuples(st.sampled_from(ACTIONS), numbers, numbers).map(lambda step: [step])
    return st.lists(st.one_of(rounds(), rounds(), step), max_size=14).map(lambda parts: list(chain(*parts)))


def put(table: dict[bytes, bytes], writes: Iterable[TableWrite]) -> None:
    """Make writes durable."""
    for key, value in writes:
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value


class Pipeline:
    """All partitions of all stages, and everything that they have published."""

    def __init__(self, sources: Sources, aggregates: int = 1, campaigns: int = 1, config: InsightConfig = CONFIG):
        self.sources = sources
        self.config = config
        self.ingest = Ingest(partitions=aggregates)
        self.read_to: dict[Source, int] = dict.fromkeys(sources, 0)
        self.observed: dict[Source, int] = {}
        self.letters: set[str] = set()
        self.routed: list[list[bytes]] = [[] for _ in range(aggregates)]
        self.rollups: list[list[bytes]] = [[] for _ in range(campaigns)]
        self.tables: list[dict[bytes, bytes]] = [{} for _ in range(aggregates)]
        self.campaign_tables: list[dict[bytes, bytes]] = [{} for _ in range(campaigns)]
        self.aggregates = [self._restored(p) for p in range(aggregates)]
        self.campaigns = [Campaigns(config, aggregates) for _ in range(campaigns)]
        self.applied = [0] * aggregates
        self.fed = [0] * campaigns
        self.now = 0
        self.reader = Reader()
        self.hot: dict[tuple[str, str], tuple[tuple[int, int], CrossPlatformInsight]] = {}
        self._pairs: dict[tuple[bytes, int], bytes] = {}

    # Ingest

    def read(self, source: Source, count: int, *, torn: int | None = None) -> None:
        """Ingest a batch. A torn one loses all but ``torn`` of its envelopes, and is read again later."""
        position = self.read_to[source]
        records = self.sources[source][position : position + count]
        if not records:
            return
        ingested = self.ingest.batch(*source, records, self.observed.get(source, -1))
        for target, payload in ingested.envelopes[:torn]:
            self.routed[target].append(payload)
        for fact in ingested.rates[:torn]:
            self._send(fact)
        if torn is None:
            self.read_to[source] += len(records)
            self.observed[source] = ingested.watermark_ms
            self.letters |= {row.letter.id for row in ingested.rejected}
        else:
            self.observed.pop(source, None)

    def rewind(self, source: Source, count: int) -> None:
        """Another worker takes the source over, from some committed offset."""
        self.read_to[source] = max(0, self.read_to[source] - count)
        self.observed.pop(source, None)

    def idle(self) -> None:
        """Every source says what it has observed and that it is read to its end."""
        for topic, partition in SOURCES:
            watermark = self.observed.get((topic, partition), -1)
            for target, payload in self.ingest.heartbeat(topic, partition, watermark, idle=True):
                self.routed[target].append(payload)

    # Aggregate

    def apply(self, partition: int, count: int) -> None:
        """Apply some of the routed log."""
        first = self.applied[partition]
        for offset, payload in enumerate(self.routed[partition][first : first + count], start=first):
            self.aggregates[partition].apply(offset, payload)
            self.applied[partition] = offset + 1

    def checkpoint(self, partition: int, *, publish: bool = True, survive: int | None = None) -> None:
        """A checkpoint; ``survive`` is how many of its writes and sends are done before a crash ends it."""
        writes, messages = self.aggregates[partition].take_writes(publish=publish)
        put(self.tables[partition], writes[:survive])
        sent = messages if survive is None else messages[: max(0, survive - len(writes))]
        for message in sent:
            self._send(message)

    def crash(self, partition: int, survive: int, back: int) -> None:
        """A worker dies in a checkpoint. Its heir restores the table and reads the log from its mark or before."""
        self.checkpoint(partition, survive=survive)
        restored = self._restored(partition)
        self.aggregates[partition] = restored
        self.applied[partition] = max(0, restored.mark.position + 1 - back)

    def _restored(self, partition: int) -> Aggregate:
        # So few stay in memory that most blocks come from the table whenever they are worked on.
        return Aggregate.restore(self.tables[partition], partition, SOURCES, in_memory=1)

    def _send(self, message: Message) -> None:
        key, payload = rollup_record(message)
        if not isinstance(message, Rollup):
            for log in self.rollups:
                log.append(payload)
            return
        held = self._pairs.setdefault((key, message.revision), payload)
        assert held == payload, "two contents under one revision"
        self.rollups[target_partition(message.campaign_id, len(self.rollups))].append(payload)

    # Insights

    def feed(self, partition: int, count: int) -> None:
        """Apply some of the rollups log."""
        first = self.fed[partition]
        for offset, payload in enumerate(self.rollups[partition][first : first + count], start=first):
            self.campaigns[partition].apply(offset, payload)
            self.fed[partition] = offset + 1

    def emit(self, partition: int, *, preliminary: bool = True, survive: int | None = None) -> Checkpoint:
        """A checkpoint of the campaigns, up to a crash after ``survive`` of its writes and sends."""
        self.now += 1
        taken = self.campaigns[partition].take(self.now, preliminary=preliminary)
        put(self.campaign_tables[partition], taken.writes[:survive])
        left = None if survive is None else max(0, survive - len(taken.writes))
        for emission in taken.emissions[:left]:
            self.reader.take(emission)
        if left is None or left >= len(taken.emissions):
            for emission in taken.hot:
                self._offer(emission)
        return taken

    def _offer(self, emission: Emission) -> None:
        insight = emission.insight
        version = (emission.position, insight.version.phase)
        name = (insight.campaign_id, insight.window)
        if name not in self.hot or self.hot[name][0] <= version:
            self.hot[name] = (version, insight)

    def fail(self, partition: int, survive: int, back: int) -> None:
        """A worker of the campaigns dies in a checkpoint."""
        self.emit(partition, survive=survive)
        restored = Campaigns.restore(self.campaign_tables[partition], self.config, len(self.aggregates))
        self.campaigns[partition] = restored
        self.fed[partition] = max(0, restored.mark.position + 1 - back)

    # All of it

    def run(self, schedule: Sequence[Step]) -> "Pipeline":
        """Carry out a schedule. Choices beyond what there is wrap around."""
        for action, a, b in schedule:
            self._step(action, a, b)
        return self

    def _step(self, action: str, a: int, b: int) -> None:
        source = sorted(self.sources)[a % len(self.sources)]
        aggregate, campaigns = a % len(self.aggregates), a % len(self.campaigns)
        steps: dict[str, Callable[[], Any]] = {
            "read": lambda: self.read(source, b + 1),
            "torn_read": lambda: self.read(source, b + 1, torn=a % 2),
            "rewind": lambda: self.rewind(source, b),
            "idle": self.idle,
            "apply": lambda: self.apply(aggregate, b + 1),
            "checkpoint": lambda: self.checkpoint(aggregate),
            "defer": lambda: self.checkpoint(aggregate, publish=False),
            "crash": lambda: self.crash(aggregate, b, a % 3),
            "feed": lambda: self.feed(campaigns, b + 1),
            "emit": lambda: self.emit(campaigns, preliminary=b % 4 > 0),
            "fail": lambda: self.fail(campaigns, b, a % 3),
        }
        steps[action]()

    def drain(self) -> "Pipeline":
        """Read, apply and publish everything."""
        for source, records in self.sources.items():
            self.read(source, len(records))
        self.idle()
        return self.drain_stages()

    def drain_stages(self) -> "Pipeline":
        """Apply and publish everything that has been read."""
        for partition in range(len(self.aggregates)):
            self.apply(partition, len(self.routed[partition]))
            self.checkpoint(partition)
            assert not self.aggregates[partition].owes
        for partition in range(len(self.campaigns)):
            self.feed(partition, len(self.rollups[partition]))
            while self.campaigns[partition].pending:
                self.now += self.config.emit_interval_ms
                self.emit(partition)
        return self

    def insights(self) -> list[CrossPlatformInsight]:
        """All windows from state, in the order of the offline computation."""
        found = [insight for campaigns in self.campaigns for insight in campaigns.insights()]
        return sorted(found, key=lambda insight: insight.campaign_id)

    def contents(self) -> list[bytes]:
        """The content of all windows."""
        return [insight_codec.content(insight) for insight in self.insights()]

    def accounting(self) -> Accounting:
        """What the aggregates' tallies say became of the rows."""
        return account(tally for aggregate in self.aggregates for tally in aggregate.tallies.values())


class Reader:
    """A reader of the insights topic, who checks each insight against all earlier ones of its id."""

    def __init__(self) -> None:
        self.latest: dict[str, CrossPlatformInsight] = {}
        self.payloads: dict[tuple[str, int, int], bytes] = {}
        self.finals: dict[str, set[int]] = defaultdict(set)

    def take(self, emission: Emission) -> None:
        """Read one record."""
        insight = insight_codec.decode(emission.payload)
        assert insight == emission.insight
        version, held = insight.version, self.latest.get(insight.insight_id)
        assert held is None or held.version <= version, "a version fell"
        payload = self.payloads.setdefault((insight.insight_id, version.revision, version.phase), emission.payload)
        assert payload == emission.payload, "two contents under one version"
        if insight.phase == "final":
            self.finals[insight.insight_id].add(version.revision)
            assert len(self.finals[insight.insight_id]) == 1, "a second final"
        assert (insight.correction is not None) == (insight.phase == "corrected")
        if held is None:
            assert insight.phase != "corrected"
        elif held.version != version and insight.correction is not None:
            assert held.phase != "preliminary", "corrected before it was final"
            assert insight.correction.difference == changes(flat(held), flat(insight))
        self.latest[insight.insight_id] = insight


def flat(insight: CrossPlatformInsight) -> Flat:
    """An insight's totals by metric, money by currency, and by the reporting currency where there is one."""
    counts = ("impressions", "clicks", "link_clicks", "conversions_micros", "engagements", "video_views")
    totals = {name: value for name in counts if (value := getattr(insight.totals, name)) is not None}
    for money in insight.totals.money:
        for name in ("spend_micros", "revenue_micros"):
            if (value := getattr(money, name)) is not None:
                totals[f"{name}:{money.currency}" if money.currency else name] = value
    reporting = insight.totals.reporting
    if reporting is not None:
        for name in ("spend_micros", "revenue_micros"):
            if (value := getattr(reporting, name)) is not None:
                totals[f"reporting_{name}:{reporting.currency}"] = value
    return totals


def changes(before: Flat, after: Flat) -> Flat:
    """After minus before."""
    named = {name: after.get(name, 0) - before.get(name, 0) for name in {*before, *after}}
    return {name: change for name, change in named.items() if change}
