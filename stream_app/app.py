"""Bootstrap: the Faust application of a worker, all of its parts put together in one place."""

import asyncio
import logging
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import faust
from faust.types import TP
from mode import CrashingSupervisor
from yarl import URL

from schemas import topics as names
from stream_app import continuity
from stream_app.account_follower import AccountFollower
from stream_app.agents import attach
from stream_app.aggregate_stage import AggregateStage
from stream_app.batch_transport import Batch, BatchConsumer, BatchTransport
from stream_app.domain import ingest_config, insight_config
from stream_app.end_offsets import EndOffsets
from stream_app.hot_store import HotStore
from stream_app.hot_writer import HotWriter
from stream_app.ingest_stage import IngestStage
from stream_app.insight_stage import InsightStage
from stream_app.model_follower import ModelFollower
from stream_app.outage import passing
from stream_app.partition_writer import writer_of
from stream_app.patterns_process import PatternsProcess
from stream_app.producer import BatchProducer
from stream_app.settings import Settings
from stream_app.store import Store, store_of
from stream_app.table import ChangelogTable
from stream_app.topics import blocks_changelog, campaigns_changelog, name
from stream_app.watchdog import Progress, Watchdog

log = logging.getLogger(__name__)

FETCH_BYTES = 4 * 1024 * 1024
QUEUED_BATCHES = 8
REVOKE_S = 20.0
"""A rebalance waits this long for a last checkpoint; what it misses is redelivered."""
AGAIN_S = 1.0
LOOKS_PER_STALL = 10
"""How often the ends of the partitions are asked for while a stall counts as one."""


class WorkerStalled(Exception):
    """The worker falls behind and commits nothing."""


class ParallaxApp(faust.App):
    """A Faust application with batch delivery and three stages: ``ingest``, ``aggregate`` and ``insights``.

    ``stopping`` is called when it begins to stop.
    """

    def __init__(self, settings: Settings, stopping: Callable[[], None] = lambda: None) -> None:
        self.settings = settings
        self._stopping = stopping
        self.consumer: Any
        super().__init__(
            settings.topic_prefix + settings.app_id,
            broker=[URL(f"kafka://{server.strip()}") for server in settings.kafka_bootstrap.split(",")],
            broker_credentials=_credentials(settings),
            store="memory://",
            datadir=str(settings.datadir),
            key_serializer="raw",
            value_serializer="raw",
            topic_partitions=settings.partitions,
            topic_allow_declare=False,
            topic_disable_leader=True,
            consumer_auto_offset_reset="earliest",
            consumer_max_fetch_size=FETCH_BYTES,
            stream_buffer_maxsize=QUEUED_BATCHES,
            stream_wait_empty=False,
            broker_commit_interval=1.0,
            broker_session_timeout=settings.session_timeout.seconds,
            broker_heartbeat_interval=min(3.0, settings.session_timeout.seconds / 3),
            broker_rebalance_timeout=60.0,
            producer_request_timeout=30.0,
            producer_threaded=False,
            agent_supervisor=CrashingSupervisor,
            web_enabled=settings.health_port > 0,
            web_bind="127.0.0.1",
            web_host="127.0.0.1",
            web_port=settings.health_port or 6066,
            web_tables_enabled=False,
            web_router_enabled=False,
        )
        self._open: set[TP] = set()
        self._opening: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._cancelled = threading.Event()
        self.lost_records: Counter[str] = Counter()
        self._draining = False
        self._outdated = -1
        self.revoking = False
        self._streaming = False
        self.batches = BatchProducer(settings)
        self.hot = HotWriter(HotStore.of(settings), lambda: self.insights.rebuild()) if settings.cache_enabled else None
        ingest, insights = ingest_config(settings), insight_config(settings)
        self.accounts = AccountFollower(settings, ingest)
        self.models = ModelFollower(settings, insights.profile.version)
        self.ingest = IngestStage(settings, ingest, self.batches, self.accounts)
        self.aggregate = AggregateStage(
            settings,
            self._table("blocks", blocks_changelog(settings)),
            partial(writer_of, settings, self.batches, "aggregate"),
            lambda: self.consumer,
        )
        self.insights = InsightStage(
            settings,
            insights,
            self._table("campaigns", campaigns_changelog(settings)),
            partial(writer_of, settings, self.batches, "insights"),
            lambda: self.consumer,
            self.hot,
            self.models.take,
            self.models.refused,
        )
        # One of the workers is enough: the one that has the first partition.
        self.patterns = PatternsProcess(settings, leads=lambda: 0 in self.insights.partitions)
        self.watchdog = Watchdog(
            settings.stall_timeout.seconds, self._progress, self._stalled, lambda: self.consumer_generation_id > 0
        )
        self._ends = EndOffsets(settings, settings.stall_timeout.seconds / LOOKS_PER_STALL)
        self.started_at = time.time()
        attach(self)

    def _table(self, table: str, changelog: str) -> ChangelogTable:
        settings = self.settings

        def open_store(partition: int) -> Store:
            folder = settings.datadir / f"{settings.topic_prefix}{settings.app_id}" / f"{table}-{partition}"
            return store_of(settings.store, folder)

        return ChangelogTable(settings, changelog, open_store)

    def _new_transport(self) -> BatchTransport:
        class Consumer(BatchConsumer):
            before_revoke = staticmethod(self._before_revoke)

        class Transport(BatchTransport):
            committed_only = self.settings.fencing != "none"

        Transport.Consumer = Consumer
        return Transport(self.conf.broker_consumer, self)

    def _full(self, base: str) -> str:
        return name(self.settings, base)

    def partitions_of(self, base: str, assigned: set[TP]) -> set[int]:
        """The assigned partitions of a topic."""
        return {tp.partition for tp in assigned if tp.topic == self._full(base)}

    def on_rebalance_start(self) -> None:
        """A rebalance has begun, in the consumer's thread, whatever is going on here."""
        self.revoking = True
        self._streaming = False
        super().on_rebalance_start()

    def on_rebalance_end(self) -> None:
        """The streams go on, unless the next rebalance has begun meanwhile: it ends itself.

        Faust would take that for over. Then partitions are opened that are being given up, and batches are applied
        behind others that were not, because they did not belong to anybody.
        """
        tables: Any = self.tables
        if not self.revoking and tables.recovery._generation_id == self.consumer_generation_id:
            super().on_rebalance_end()
            self._streaming = True

    async def _before_revoke(self, revoked: set[TP]) -> None:
        await self._stop_opening()
        try:
            await asyncio.wait_for(self.settle(), REVOKE_S)
        except Exception as error:  # noqa: BLE001 - whatever failed was not finished, and will be redelivered
            log.warning("no last checkpoint before the rebalance: %s", error)
        self.ingest.revoke(revoked)
        self._open = set()
        for base, stage in self._stages:
            await stage.close(self.partitions_of(base, revoked) | stage.held)

    async def _stop_opening(self) -> None:
        self._cancelled.set()
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait({self._opening})

    @property
    def _stages(self) -> tuple[tuple[str, AggregateStage | InsightStage], ...]:
        return (names.ROUTED, self.aggregate), (names.ROLLUPS, self.insights)

    async def settle(self) -> None:
        """Make everything that was taken durable."""
        await self.ingest.drain()
        await self.aggregate.checkpoints.run()
        await self.insights.checkpoints.run()

    @property
    def settled(self) -> bool:
        """Whether partitions are assigned."""
        tables: Any = self.tables
        return not self.rebalancing and bool(tables.recovery.completed.is_set())

    @property
    def opened(self) -> bool:
        """Whether everything that is assigned has been recovered."""
        return self.settled and set(self.consumer.assignment()) <= self._open

    def _must_open(self) -> bool:
        return self.settled and not self._draining and not self.opened and self.rebalancing_count > self._outdated

    async def open_assigned(self) -> None:
        """Open the partitions that were assigned since the last look. Returns when they are, or are ours no more; a
        broker that is away is waited for.
        """
        if not self._must_open():
            return
        async with self._turn:
            while self._must_open():
                assigned = set(self.consumer.assignment())
                self._cancelled = threading.Event()
                self._opening = asyncio.ensure_future(self._open_partitions(assigned - self._open, assigned))
                # A rebalance cancels it, and not whoever waits for it.
                await asyncio.wait({self._opening})
                opening, self._opening = self._opening, None
                if opening.cancelled():
                    continue
                if (error := opening.exception()) is not None:
                    if not passing(error):
                        raise error
                    log.warning("partitions cannot be opened (%s: %s): trying again", type(error).__name__, error)
                    await asyncio.sleep(AGAIN_S)

    async def _open_partitions(self, new: set[TP], assigned: set[TP]) -> None:
        cancelled = self._cancelled
        await continuity.count_gaps(self.consumer, new, self.lost_records)
        rewound = False
        for base, stage in self._stages:
            await stage.keep(self.partitions_of(base, assigned), cancelled)
            if opened := self.partitions_of(base, new):
                await stage.open(opened, cancelled)
                positions = self._positions(base, stage, opened)
                await continuity.check_ends(self.consumer, positions)
                rewound |= await continuity.rewind(self.consumer, self.settings, positions)
        if cancelled.is_set():
            return
        if rewound:
            # What is being delivered comes from further on.
            for _, stage in self._stages:
                await stage.close(stage.held)
            self._outdated = self.rebalancing_count
            self.consumer.rejoin()
            return
        self._open = assigned
        # What a crash kept from being published goes out as it was, before anything changes it.
        await self.insights.checkpoints.run()

    def _positions(self, base: str, stage: AggregateStage | InsightStage, opened: set[int]) -> dict[TP, int]:
        topic = self._full(base)
        return {TP(topic, at): state.position for at, state in stage.partitions.items() if at in opened}

    def is_current(self, event: Any) -> bool:
        """Whether a batch was fetched under the assignment that holds now; older ones belong to nobody."""
        if self._draining or self.rebalancing:
            return False
        batch: Batch = event.message.value
        return batch.assignment == self.rebalancing_count and event.message.tp in self.consumer.assignment()

    async def check(self) -> None:
        """Write the checkpoints that are due, and raise what kept ingest from making a batch durable."""
        await self.open_assigned()
        if (error := self.ingest.failure()) is not None:
            raise error
        for stage in (self.aggregate, self.insights):
            if stage.checkpoints.due and not self._draining:
                await stage.checkpoints.run()

    async def beat(self) -> None:
        """Tell the aggregate partitions what the sources have observed."""
        if self.settled and self.batches.ready and not self._draining:
            await self.ingest.heartbeat(self.consumer, set(self.consumer.assignment()))

    def lag(self, tp: TP) -> int:
        """How many offsets of an assigned partition, as far as it is known, have not been finished."""
        return int(max(self.consumer.lag(tp), self._ends.of(tp) - self.consumer.reached(tp)))

    def _progress(self) -> Mapping[str, Progress] | None:
        # In a thread: what Faust makes when it is first asked for would belong to an event loop that never runs.
        if not self._streaming or self._draining:
            return None
        durable = dict(self.consumer.durable)
        hops = {
            "ingest": set(self.ingest.topics),
            "aggregate": {self._full(names.ROUTED)},
            "insights": {self._full(names.ROLLUPS)},
        }
        assigned = set(self.consumer.assignment())
        self._ends.refresh(assigned)
        return {
            hop: Progress(
                sum(self.lag(tp) for tp in assigned if tp.topic in topics),
                sum(offset for tp, offset in durable.items() if tp.topic in topics),
            )
            for hop, topics in hops.items()
        }

    def _stalled(self, reason: str) -> None:
        asyncio.run_coroutine_threadsafe(self.fail(WorkerStalled(reason)), self.loop)

    async def on_first_start(self) -> None:
        """The producer is there, and the accounts are known, before the first batch comes."""
        self.watchdog.start()
        await self.batches.start()
        await self.accounts.start()
        self.models.start()
        await super().on_first_start()

    async def on_stop(self) -> None:
        """A clean stop takes nothing more, makes what was taken durable, and commits it."""
        self._draining = True
        self._stopping()
        self.watchdog.stop()
        await self._stop_opening()
        if not self.crashed:
            try:
                await asyncio.wait_for(self.settle(), REVOKE_S)
            except Exception as error:  # noqa: BLE001 - it was not finished, and will be redelivered
                log.warning("no last checkpoint before the stop: %s", error)
        for _, stage in self._stages:
            await stage.close(stage.held)
        await super().on_stop()
        await asyncio.to_thread(self.models.stop)
        await self.batches.stop()
        await self.accounts.stop()

    @property
    def draining(self) -> bool:
        """Whether the worker takes nothing more, because it is to stop."""
        return self._draining

    async def fail(self, error: BaseException) -> None:
        """End the worker: what could not be made durable is not acknowledged."""
        if self._draining:
            log.warning("%s while stopping; what was not finished will be redelivered", type(error).__name__)
            return
        log.error("%s: %s; the worker ends, and what was not finished will be redelivered", type(error).__name__, error)
        await self.crash(error)


def _credentials(settings: Settings) -> Any:
    context = settings.aiokafka_security().get("ssl_context")
    if settings.security_protocol.startswith("SASL"):
        return faust.SASLCredentials(
            mechanism=settings.sasl_mechanism,
            username=settings.sasl_username,
            password=settings.sasl_password.get_secret_value(),
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if isinstance(context, ssl.SSLContext) else None
