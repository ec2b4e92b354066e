"""Replay over real servers: recompute from the input topics, compare with what is published, and mend it.

The recomputation has its own consumer and its state in memory. It writes nothing; ``promote`` alone does.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Literal

import msgspec
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from core.campaigns import InsightConfig
from core.ingest import SourceRecord
from core.offline import Computed, compute
from core.replay import Finding, Held, Scope, Slot, compare, promoted
from core.window import parse_window
from schemas import insight as insight_codec
from schemas import topics as names
from schemas.calendar import instant_ms, iso_instant
from schemas.envelope import target_partition
from schemas.insight import CrossPlatformInsight, Phase
from stream_app.domain import ingest_config, insight_config
from stream_app.errors import ServerAbsent, SetupError
from stream_app.extent import ANSWER_S, Extent, ExtentReader
from stream_app.hot_store import LARGEST_EXACT, HotEntry, HotStore, HotStoreDown
from stream_app.producer import Outgoing
from stream_app.sending import send_all
from stream_app.settings import Settings
from stream_app.topics import DERIVED_MAX_BYTES, name

Progress = Callable[[int, int], None]
ASKED_AT_ONCE: Final = 16
EXPIRY_MARGIN_MS: Final = 60_000


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What to replay. ``by`` says what the times mean: windows that end in them, or records that arrived in them."""

    from_ms: int | None = None
    to_ms: int | None = None
    by: Literal["event", "arrival"] = "event"
    campaigns: frozenset[str] = frozenset()
    platform: str = ""
    windows: tuple[str, ...] = ()


class Outcome(msgspec.Struct, kw_only=True):
    """What a replay found.

    ``compared`` counts the recomputed insights in scope. ``lost`` has a sentence for each partition that no longer
    holds all that bears on them. ``behind`` is how many input records the workers have not taken in, None where that
    is not known. ``read_to`` is where ``insights.latest`` was read to.
    """

    findings: list[Finding]
    compared: int
    records: int
    lost: list[str]
    behind: int | None
    live_as_of: str
    recomputed_as_of: str
    hot: bool
    read_to: list[Extent]


class Promotion(msgspec.Struct, frozen=True):
    """How many insights were published and put into Redis, and how many were left out, for they had moved on."""

    published: int
    hot: int
    moved_on: int


def scope_of(settings: Settings, request: Request) -> Scope:
    """What is compared. Raises ``SetupError`` for a window that the workers do not compute."""
    for window in request.windows:
        if window not in settings.windows:
            raise SetupError(f"window {window} is not computed here: PARALLAX_WINDOWS is {','.join(settings.windows)}")
    windows = tuple(parse_window(window) for window in request.windows or settings.windows)
    whole = request.by == "event"
    return Scope(
        windows=windows,
        from_ms=request.from_ms if whole else None,
        to_ms=request.to_ms if whole else None,
        campaigns=request.campaigns,
        platform=request.platform,
        whole=whole,
    )


def replay(settings: Settings, request: Request, progress: Progress | None = None) -> Outcome:
    """Recompute and compare. ``progress`` gets the records read and how many there are.

    Raises ``SetupError`` and ``ServerAbsent``.
    """
    scope = scope_of(settings, request)
    config = msgspec.structs.replace(insight_config(settings), windows=scope.windows)
    with ExtentReader(settings) as reader:
        extents, lost = inputs(reader, settings, request, scope)
        behind = _behind(settings, reader)
        counted = _Counted(sum(map(len, extents.values())), progress)
        computed = _recompute(reader, settings, config, extents, counted)
        read_to = reader.whole(name(settings, names.INSIGHTS_LATEST))
        topic, live_as_of = _latest(reader, read_to, scope)
    redis = None
    if settings.cache_enabled:
        redis = asyncio.run(_hot(settings, _slots(computed.insights, topic, scope)))
    ttl_ms = settings.cache_ttl * 1_000
    fresh_from_ms = time.time_ns() // 1_000_000 - ttl_ms + min(EXPIRY_MARGIN_MS, ttl_ms // 2)
    return Outcome(
        findings=compare(computed.insights, topic, redis, scope, fresh_from_ms=fresh_from_ms),
        compared=sum(map(scope.holds, computed.insights)),
        records=counted.done,
        lost=lost,
        behind=behind,
        live_as_of=live_as_of,
        recomputed_as_of=max((insight.as_of for insight in computed.insights), default=""),
        hot=redis is not None,
        read_to=read_to,
    )


def inputs(
    reader: ExtentReader, settings: Settings, request: Request, scope: Scope
) -> tuple[dict[tuple[str, int], Extent], list[str]]:
    """What is to be read, by base topic and partition, facts before rows and those of accounts first; and a sentence
    for each partition that no longer holds all of it. Ends are those of now.

    Facts stand, so all up to the end are read. A row arrives at most the tolerance before its period.
    """
    begin = request.from_ms
    if begin is not None and scope.whole:
        begin -= scope.reach_ms + settings.future_tolerance.ms
    extents: dict[tuple[str, int], Extent] = {}
    lost: list[str] = []
    for base in (names.ACCOUNTS, names.RATES, names.CAMPAIGN_LINKS, *names.METRICS_TOPICS.values()):
        for held in reader.whole(name(settings, base)):
            start, end = held.start, held.end
            if begin is not None and base not in names.FACT_TOPICS:
                start = reader.offset_at(held, begin)
            if request.to_ms is not None and not scope.whole:
                end = reader.offset_at(held, request.to_ms)
            if base not in names.FACT_TOPICS and held.start and start == held.start:
                lost.append(_lost(reader, held))
            extents[base, held.partition] = msgspec.structs.replace(held, start=start, end=end)
    return extents, lost


def _lost(reader: ExtentReader, held: Extent) -> str:
    first = next((batch[0] for batch in reader.read(msgspec.structs.replace(held, end=held.start + 1)) if batch), None)
    since = f"begins with what arrived at {iso_instant(first.timestamp)}" if first else "holds nothing any more"
    return f"{held.topic}/{held.partition} {since}, {held.start:,} records before that are gone"


class _Counted:
    """Records on their way, counted for a person."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done = 0
        self._total = total
        self._progress = progress

    def took(self, records: int) -> None:
        self.done += records
        if self._progress is not None:
            self._progress(self.done, self._total)


def _recompute(
    reader: ExtentReader,
    settings: Settings,
    config: InsightConfig,
    extents: dict[tuple[str, int], Extent],
    counted: _Counted,
) -> Computed:
    """The offline computation, partition after partition: the same records give the same state in the same order."""

    def batches() -> Iterator[tuple[str, int, Sequence[SourceRecord]]]:
        for (base, partition), extent in extents.items():
            for batch in reader.read(extent):
                counted.took(len(batch))
                yield base, partition, batch

    return compute(batches(), ingest_config(settings), config)


def _latest(reader: ExtentReader, extents: Iterable[Extent], scope: Scope) -> tuple[dict[str, Held], str]:
    """What ``insights.latest`` holds of what is compared, by id, of each the highest version; and the newest
    ``as_of`` of all.
    """
    found: dict[str, Held] = {}
    as_of = ""
    for extent in extents:
        for batch in reader.read(extent):
            for record in batch:
                key = (record.key or b"").decode("utf-8", "replace")
                held = found.get(key)
                if record.value is None:
                    found.pop(key, None)
                    continue
                insight = _decoded(record.value)
                if insight is None or insight.insight_id != key:
                    found[key] = Held(None, held.revision if held else 0, record.timestamp)
                    continue
                as_of = max(as_of, insight.as_of)
                if held is None or held.insight is None or held.insight.version <= insight.version:
                    revision = max(insight.version.revision, held.revision if held else 0)
                    found[key] = Held(insight, revision, record.timestamp)
    return {key: held for key, held in found.items() if held.insight is None or scope.holds(held.insight)}, as_of


def _decoded(value: bytes) -> CrossPlatformInsight | None:
    try:
        return insight_codec.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _slots(insights: Iterable[CrossPlatformInsight], topic: dict[str, Held], scope: Scope) -> list[Slot]:
    """The slots of Redis that may hold something of what is compared."""
    live = [held.insight for held in topic.values() if held.insight is not None]
    slots = {(insight.campaign_id, insight.window) for insight in (*insights, *live)}
    return sorted(slot for slot in slots if not scope.campaigns or slot[0] in scope.campaigns)


async def _hot(settings: Settings, slots: Sequence[Slot]) -> dict[Slot, Held]:
    store = HotStore.of(settings)
    room = asyncio.Semaphore(ASKED_AT_ONCE)

    async def ask(slot: Slot) -> Held | None:
        async with room:
            try:
                value = await store.get(*slot)
            except ValueError:
                return Held(None, 0)
            except HotStoreDown as down:
                if "WRONGTYPE" in down.reason:
                    return Held(None, 0)
                raise
        return None if value is None else Held(_decoded(value.value), min(value.version[0], LARGEST_EXACT))

    try:
        answers = await asyncio.gather(*map(ask, slots))
    except HotStoreDown as down:
        raise _redis_absent(settings, down) from None
    finally:
        await store.close()
    return {slot: held for slot, held in zip(slots, answers, strict=True) if held is not None}


def _redis_absent(settings: Settings, down: HotStoreDown) -> ServerAbsent:
    return ServerAbsent(
        f"Redis at {settings.redis_host}:{settings.redis_port} does not serve ({down.reason}): start it or set"
        " REDIS_HOST and REDIS_PORT, or CACHE_ENABLED=false to compare topics alone"
    )


def _behind(settings: Settings, reader: ExtentReader) -> int | None:
    """How many input records the workers' group has not committed; None where the broker does not tell."""
    ends = [extent for base in names.INGEST_TOPICS for extent in reader.whole(name(settings, base))]
    asked = [TopicPartition(extent.topic, extent.partition) for extent in ends]
    group = ConsumerGroupTopicPartitions(settings.topic_prefix + settings.app_id, asked)
    quiet: dict[str, Any] = {"log_level": 0, "error_cb": lambda _error: None}
    admin = AdminClient(settings.confluent_config() | quiet)
    try:
        [answer] = admin.list_consumer_group_offsets([group], request_timeout=ANSWER_S).values()
        committed = {(at.topic, at.partition): at.offset for at in answer.result().topic_partitions or ()}
    except KafkaException:
        return None
    left = (end.end - max(end.start, committed.get((end.topic, end.partition), 0)) for end in ends)
    return sum(int(each) for each in left if each > 0)


def promote(settings: Settings, request: Request, outcome: Outcome) -> Promotion:
    """Publish what mends the findings. An insight that has moved on since it was compared is left alone.

    Raises ``ServerAbsent``; the same replay may then be promoted again.
    """
    scope = scope_of(settings, request)
    config = insight_config(settings)
    with ExtentReader(settings) as reader:
        topic = name(settings, names.INSIGHTS_LATEST)
        ends = {extent.partition: extent.end for extent in reader.whole(topic)}
        since = [Extent(topic, each.partition, each.end, ends[each.partition]) for each in outcome.read_to]
        moved = {record.key for extent in since for batch in reader.read(extent) for record in batch}
    findings = [finding for finding in outcome.findings if finding.id.encode() not in moved]
    mended = [(finding, promoted(finding, scope.windows, config)) for finding in findings]
    published = [insight for finding, insight in mended if "topic" in finding.wrong]
    _publish(settings, published)
    entries = [
        HotEntry(
            kind="insight",
            campaign_id=insight.campaign_id,
            window=insight.window,
            revision=finding.redis.revision if finding.redis is not None else 0,
            phase=int(Phase.REPLAYED),
            value=insight_codec.encode(insight),
            as_of_ms=instant_ms(insight.as_of),
        )
        for finding, insight in mended
        if "redis" in finding.wrong
    ]
    written = asyncio.run(_put(settings, entries)) if entries else 0
    return Promotion(len(published), written, len(outcome.findings) - len(findings) + len(entries) - written)


async def _put(settings: Settings, entries: Sequence[HotEntry]) -> int:
    store = HotStore.of(settings)
    try:
        return (await store.put_many(entries)).written
    except HotStoreDown as down:
        raise _redis_absent(settings, down) from None
    finally:
        await store.close()


def _publish(settings: Settings, insights: Sequence[CrossPlatformInsight]) -> None:
    records: list[Outgoing] = []
    for insight in insights:
        partition = target_partition(insight.campaign_id, settings.partitions)
        key, value = insight.campaign_id.encode("utf-8", "surrogatepass"), insight_codec.encode(insight)
        for base, of in ((names.INSIGHTS, key), (names.INSIGHTS_LATEST, insight.insight_id.encode())):
            records.append(Outgoing(name(settings, base), partition, of, value))
    if failures := send_all(settings, records, DERIVED_MAX_BYTES).failures:
        raise ServerAbsent(
            f"Kafka at {settings.kafka_bootstrap} did not take every correction ({failures[0]}): promote again"
        )
