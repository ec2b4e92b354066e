"""INSIGHTS: rollups change campaigns; insights, predictions and scorecards go to their topics, hot ones to Redis."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator

from core.campaigns import Campaigns, Emission, InsightConfig
from core.learning.ctr_model import CtrModel
from schemas import dead_letter
from schemas import prediction as prediction_codec
from schemas import scorecard as scorecard_codec
from schemas import topics as names
from schemas.calendar import instant_ms
from schemas.dead_letter import SourcePosition
from schemas.envelope import target_partition
from schemas.event import RejectCode
from schemas.prediction import CtrPrediction
from stream_app import hot_scorecards
from stream_app.batch_transport import BatchConsumer
from stream_app.hot_scorecards import HotScorecards
from stream_app.hot_store import HotEntry
from stream_app.hot_writer import HotWriter
from stream_app.partition_writer import PartitionWriter
from stream_app.producer import Outgoing
from stream_app.settings import Settings
from stream_app.stage import PartitionedStage, Work
from stream_app.table import ChangelogTable
from stream_app.topics import DERIVED_MAX_BYTES, name

LARGEST_OUTPUT = DERIVED_MAX_BYTES - 4_096
"""What a record of an output topic holds beside its key and framing."""
Encoded = tuple[CtrPrediction, bytes]
"""A prediction and its bytes, which Kafka and Redis share."""
REBUILD_CHUNK = 200
"""Campaigns offered to Redis between two looks at the event loop."""


class InsightStage(PartitionedStage[Campaigns]):
    """One worker's partitions of the rollups topic."""

    def __init__(
        self,
        settings: Settings,
        config: InsightConfig,
        table: ChangelogTable,
        writer_of: Callable[[int], PartitionWriter],
        consumer: Callable[[], BatchConsumer],
        hot: HotWriter | None,
        model: Callable[[], CtrModel | None] = lambda: None,
        refused: Callable[[], str | None] = lambda: None,
    ) -> None:
        super().__init__(settings, table, writer_of, consumer)
        self._config = config
        self._hot = hot
        self._model, self._refused = model, refused
        self._insights = name(settings, names.INSIGHTS)
        self._latest = name(settings, names.INSIGHTS_LATEST)
        self._predictions = name(settings, names.PREDICTIONS)
        self._scorecards = name(settings, names.SCORECARDS)
        self._rebuild: Iterator[list[HotEntry]] | None = None
        self._cards = HotScorecards(settings.cache_ttl)
        self._dead_letters = name(settings, names.DEAD_LETTERS)
        self.published = 0
        self.too_large = 0

    def _restore(self, partition: int) -> Campaigns:
        return Campaigns.restore(self._table.contents(partition), self._config, self._settings.partitions)

    async def open(self, partitions: set[int], cancelled: threading.Event) -> None:
        """Own the partitions that were assigned, and offer what they hold to Redis."""
        await super().open(partitions, cancelled)
        self.rebuild()

    def rebuild(self) -> None:
        """Begin to offer everything to Redis, a part at each checkpoint."""
        self._rebuild = self._hot_entries() if self._hot is not None else None
        self._cards.renew()

    @property
    def rebuilding(self) -> bool:
        """Whether Redis is being made whole."""
        return self._rebuild is not None

    def _take(self, partition: int, state: Campaigns) -> Work | None:
        if (model := self._model()) is not None:
            state.adopt(model)
        state.ctr.model_refused = self._refused()
        if not state.pending:
            return None
        checkpoint = state.take(time.monotonic_ns() // 1_000_000, preliminary=True)

        predictions = _encoded(checkpoint.predictions)

        def published() -> None:
            self.published += len(checkpoint.emissions)
            if self._hot is not None:
                self._hot.offer(_entries(checkpoint.hot, predictions))
                if checkpoint.scorecard is not None:
                    self._hot.offer(hot_scorecards.entries(partition, checkpoint.scorecard))

        outgoing = list(self._outgoing(checkpoint.emissions, predictions))
        if checkpoint.scorecard is not None:
            value = scorecard_codec.encode(checkpoint.scorecard)
            outgoing.append(Outgoing(self._scorecards, partition, str(partition).encode(), value))
        return Work(checkpoint.writes, outgoing, published)

    async def _finish(self) -> None:
        if self._hot is None:
            return
        if self._rebuild is not None:
            part = next(self._rebuild, None)
            if part is None:
                self._rebuild = None
            else:
                self._hot.offer(part)
        self._hot.offer(self._cards.due({partition: state.ctr for partition, state in self._states.items()}))
        await self._hot.flush()

    def _outgoing(self, emissions: Iterable[Emission], predictions: Iterable[Encoded]) -> Iterator[Outgoing]:
        homes: dict[str, tuple[int, bytes]] = {}
        for emission in emissions:
            insight = emission.insight
            partition, key = self._home(insight.campaign_id, homes)
            if len(emission.payload) > LARGEST_OUTPUT:
                yield self._letter(emission, partition, key)
                continue
            yield Outgoing(self._insights, partition, key, emission.payload)
            yield Outgoing(self._latest, partition, insight.insight_id.encode(), emission.payload)
        for prediction, value in predictions:
            yield Outgoing(self._predictions, *self._home(prediction.campaign_id, homes), value)

    def _home(self, campaign_id: str, known: dict[str, tuple[int, bytes]]) -> tuple[int, bytes]:
        """The partition and key of a campaign's records."""
        home = known.get(campaign_id)
        if home is None:
            key = campaign_id.encode("utf-8", "surrogatepass")
            home = known[campaign_id] = target_partition(campaign_id, self._settings.partitions), key
        return home

    def _letter(self, emission: Emission, partition: int, key: bytes) -> Outgoing:
        """What is said instead of an insight that would stall its partition. Redis still holds it."""
        self.too_large += 1
        insight = emission.insight
        sentence = (
            f"the {insight.window} insight from {insight.window_start} has {len(emission.payload):,} bytes, at most"
            f" {LARGEST_OUTPUT:,} fit: split its campaign"
        )
        source = SourcePosition(names.ROLLUPS, partition, emission.position, 0, -1)
        letter = dead_letter.describe(source, RejectCode.OUTPUT_TOO_LARGE, sentence)
        return Outgoing(self._dead_letters, partition, key, None, [(dead_letter.HEADER, dead_letter.encode(letter))])

    def _hot_entries(self) -> Iterator[list[HotEntry]]:
        part: list[HotEntry] = []
        for partition, state in list(self._states.items()):
            # A partition that has gone meanwhile is offered by its new owner, and its table is closed.
            if self._states.get(partition) is not state:
                continue
            for count, (emissions, predictions) in enumerate(state.hot(), start=1):
                part += _entries(emissions, _encoded(predictions))
                if count % REBUILD_CHUNK == 0:
                    yield part
                    part = []
                    if self._states.get(partition) is not state:
                        break
        yield part


def _encoded(predictions: Iterable[CtrPrediction]) -> list[Encoded]:
    return [(prediction, prediction_codec.encode(prediction)) for prediction in predictions]


def _entries(emissions: Iterable[Emission], predictions: Iterable[Encoded]) -> Iterator[HotEntry]:
    for emission in emissions:
        insight = emission.insight
        yield HotEntry(
            kind="insight",
            campaign_id=insight.campaign_id,
            window=insight.window,
            revision=emission.position + 1,
            phase=insight.version.phase,
            value=emission.payload,
            as_of_ms=instant_ms(insight.as_of),
        )
    for prediction, value in predictions:
        yield HotEntry(
            kind="prediction",
            campaign_id=prediction.campaign_id,
            window=prediction.window,
            revision=prediction.revision,
            phase=0,
            value=value,
            as_of_ms=instant_ms(prediction.feature_end),
        )
