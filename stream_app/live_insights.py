"""Reading ``insights.latest`` for the campaigns that are live: without a group, committed transactions alone, from
where the last snapshot ends, or from the beginning, to the present end and then on.
"""

import time
from collections.abc import Callable, Mapping
from typing import Final, Generic, Protocol, Self, TypeVar

import msgspec
from confluent_kafka import KafkaError, Message, TopicPartition

from core.learning.live_campaigns import LiveCampaigns
from schemas import insight as insight_codec
from schemas import topics as names
from schemas.event import DAY_MS
from schemas.insight import CrossPlatformInsight
from schemas.patterns import WINDOW
from stream_app.domain import insight_config
from stream_app.errors import ServerAbsent, SetupError
from stream_app.extent import UNSETTLED, Extent, ExtentReader
from stream_app.groupless import groupless
from stream_app.live_snapshot import Snapshot, load, snapshot_file, store, topic_id
from stream_app.settings import Settings
from stream_app.topics import DERIVED_MAX_BYTES, name

BATCH: Final = 2_000
POLL_S: Final = 0.2
STALLED_S: Final = 30.0
PASSING: Final = (
    *(KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._RESOLVE, KafkaError._TIMED_OUT),
    *UNSETTLED,
)
"""What librdkafka mends itself."""

Progress = Callable[[int, int], None]


class Taker(Protocol):
    """What insights of one window are fed to."""

    @property
    def window(self) -> str:
        """The name of the window; insights of others need not come."""

    def __len__(self) -> int:
        """How many campaigns there are."""

    def take(self, insight: CrossPlatformInsight) -> None:
        """Take an insight. Raises ``ValueError`` for what is no sound one."""


Fed = TypeVar("Fed", bound=Taker)


def need_window(settings: Settings, window: str) -> None:
    """Raises ``SetupError`` where a window is not computed."""
    if window not in settings.windows:
        raise SetupError(
            f"campaigns are told by their window {window}, which is not computed: add it to PARALLAX_WINDOWS"
        )


def live_campaigns(settings: Settings) -> LiveCampaigns:
    """What the settings make of live campaigns, none yet. Raises ``SetupError`` where their window is not computed."""
    need_window(settings, WINDOW)
    profile = insight_config(settings).profile
    return LiveCampaigns(profile.currency, max(1, settings.horizon.ms // DAY_MS))


class LiveInsights(Generic[Fed]):
    """Feeds ``campaigns``. ``malformed`` counts records that are no insights. Errors are ``ServerAbsent`` and
    ``SetupError``; while a broker that has answered is away, ``poll`` waits.
    """

    def __init__(self, settings: Settings, campaigns: Fed) -> None:
        self.campaigns = campaigns
        self.records = self.malformed = 0
        self._settings, self._servers = settings, settings.kafka_bootstrap
        self._topic = name(settings, names.INSIGHTS_LATEST)
        self._topic_id = ""
        self._reached: dict[int, int] = {}
        sizes = {
            "fetch.wait.max.ms": 100,
            "queued.max.messages.kbytes": 65_536,
            "fetch.message.max.bytes": DERIVED_MAX_BYTES,
        }
        self._consumer = groupless(settings, "live-insights", sizes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def catch_up(self, progress: Progress | None = None) -> None:
        """Read all that the topic holds now and that the snapshot does not know. ``progress`` gets the offsets passed
        and how many there are.
        """
        with ExtentReader(self._settings) as reader:
            extents = {extent.partition: extent for extent in reader.whole(self._topic)}
        starts = self._restored(extents)
        self._reached = dict(starts)
        ends = {partition: extent.end for partition, extent in extents.items()}
        self._consumer.assign([TopicPartition(self._topic, partition, start) for partition, start in starts.items()])
        total, heard = sum(ends[partition] - start for partition, start in starts.items()), time.monotonic()
        while any(self._reached[partition] < end for partition, end in ends.items()):
            if self.poll(POLL_S):
                heard = time.monotonic()
            elif time.monotonic() - heard > STALLED_S:
                raise ServerAbsent(f"Kafka at {self._servers} gives nothing of topic {self._topic}: is it down?")
            if progress is not None:
                passed = (self._reached[partition] - start for partition, start in starts.items())
                progress(min(total, sum(passed)), total)

    def _restored(self, extents: Mapping[int, Extent]) -> dict[int, int]:
        """Where to read from, by partition, with the campaigns of the snapshot if it is one of these."""
        starts = {partition: extent.start for partition, extent in extents.items()}
        if not isinstance(self.campaigns, LiveCampaigns):
            return starts
        self._topic_id = topic_id(self._settings, self._topic)
        snapshot = load(snapshot_file(self._settings))
        if snapshot is None or not self._topic_id or snapshot.topic_id != self._topic_id:
            return starts
        offsets = snapshot.offsets
        if not all(partition in extents and offset <= extents[partition].end for partition, offset in offsets.items()):
            return starts
        try:
            self.campaigns.restore(snapshot.campaigns)
        except ValueError:
            return starts
        return {partition: max(start, offsets.get(partition, start)) for partition, start in starts.items()}

    def keep(self) -> None:
        """Let the next start with live campaigns go on from here. Raises ``OSError``."""
        if self._topic_id and isinstance(self.campaigns, LiveCampaigns):
            store(snapshot_file(self._settings), Snapshot(self._topic_id, self._reached, self.campaigns.dump()))

    def poll(self, seconds: float) -> int:
        """Take what comes within this time; how much came."""
        found = self._consumer.consume(BATCH, seconds)
        for message in found:
            error = message.error()
            partition, offset = message.partition() or 0, message.offset() or 0
            if error is None:
                self._reached[partition] = offset + 1
                self._take(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                # Behind the last record there may be transaction markers.
                self._reached[partition] = offset
            elif error.code() not in PASSING:
                raise ServerAbsent(f"Kafka at {self._servers} refuses topic {self._topic}: {error.str()}")
        return len(found)

    def _take(self, message: Message) -> None:
        self.records += 1
        payload = message.value()
        # Most are of other windows: their bytes say so, and are not decoded.
        if payload is None or not insight_codec.is_of(payload, self.campaigns.window):
            return
        try:
            self.campaigns.take(insight_codec.decode(payload))
        except (msgspec.DecodeError, ValueError):
            self.malformed += 1
