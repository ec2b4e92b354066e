"""Deltas of a batch as columns: the hot path of ingest.

A canonical delta in its usual dress (integer times, no segments) is decoded by one msgspec call and appended to
columns; whatever is dressed otherwise takes the general decoder and arrives here as a ``MetricEvent``. Both ways give
the same columns.
"""

from hashlib import blake2b
from typing import Annotated, Final, Literal

import msgspec
import numpy as np

from core.lateness import Lateness
from schemas.calendar import Accounts, local_day
from schemas.canonical import PLATFORMS, QUARTER_HOUR_MS, Count, Currency, Id, Micros, OptionalId
from schemas.dates import EARLIEST_MS, LATEST_MS, is_zone
from schemas.envelope import ID_BYTES, DeltaColumns, PaneKey, encode_pane_key, target_partition
from schemas.event import HOUR_MS, MetricEvent
from schemas.metrics import QUALITY_POINTS, WIDTH

Time = Annotated[int, msgspec.Meta(ge=EARLIEST_MS, lt=LATEST_MS)]
Absent = Annotated[int, msgspec.Meta(gt=0, lt=1)]
"""No value satisfies it: the contract takes no null there, so null must fail here too."""


class _UsualDelta(msgspec.Struct, gc=False):
    """The canonical delta's usual dress. Stricter than the contract: what fails here is judged by the general
    decoder. What passes must pass there, with the same outcome: which of the two is tried depends on the batch.
    """

    version: Literal[1]
    kind: Literal["delta"]
    event_id: Id
    platform: Literal["meta", "tiktok", "google_ads"]
    campaign_id: Id
    period_start: Time
    account_id: OptionalId = ""
    ad_group_id: OptionalId = ""
    ad_id: OptionalId = ""
    report: OptionalId = ""
    currency: Currency = ""
    period_end: None = None
    observed_at: None = None
    time_zone: Absent = 0
    segments: Absent = 0
    quality: None = None
    impressions: Count = -1
    clicks: Count = -1
    link_clicks: Count = -1
    spend_micros: Micros = -1
    conversions_micros: Micros = -1
    revenue_micros: Micros = -1
    engagements: Count = -1
    video_views: Count = -1


_decode: Final = msgspec.json.Decoder(_UsualDelta).decode


def event_digest(platform_campaign: str, event_id: str) -> bytes:
    """16 bytes that stand for an event id within its platform campaign (BLAKE2b; a collision has odds of 2⁻¹²⁸ a
    pair).
    """
    return blake2b(f"{platform_campaign}\0{event_id}".encode("utf-8", "surrogatepass"), digest_size=ID_BYTES).digest()


class DeltaBatch:
    """Collects a batch's deltas, then splits them by target partition. Not reusable."""

    def __init__(self, accounts: Accounts, lateness: Lateness, partitions: int) -> None:
        self._accounts = accounts
        self._lateness = lateness
        self._partitions = partitions
        self._slots: dict[tuple[str, str, str, str, str, str, int], int] = {}
        self._keys: dict[bytes, int] = {}
        self._key_targets: list[int] = []
        self._key_index: list[int] = []
        self._positions: list[tuple[int, int, int]] = []
        self._ids: list[bytes] = []
        self._rows: list[tuple[int, ...]] = []
        self._usual = True

    def add_payload(self, payload: bytes, offset: int, arrival_ms: int) -> int:
        """Take a payload that is a canonical delta in its usual dress and in time; the event's time, or −1 where it
        is not.
        """
        # The general decoder looks for the marks of a canonical event before it reads escapes.
        if b"\\" in payload or not (self._usual or payload.startswith(b'{"version"')):
            return -1
        try:
            event = _decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._usual = False
            return -1
        self._usual = True
        start = event.period_start
        lateness = self._lateness
        if not arrival_ms - lateness.delta_ms <= start <= arrival_ms + lateness.clock_ms:
            return -1
        values = (
            event.impressions,
            event.clicks,
            event.link_clicks,
            event.spend_micros,
            event.conversions_micros,
            event.revenue_micros,
            event.engagements,
            event.video_views,
        )
        slot = (
            event.platform,
            event.campaign_id,
            event.account_id,
            event.ad_group_id,
            event.ad_id,
            event.currency,
            start // QUARTER_HOUR_MS,
        )
        if max(values) < 0:
            return -1
        index = self._slots.get(slot)
        if index is None:
            index = self._slots[slot] = self._usual_key(event)
        self._key_index.append(index)
        self._positions.append((offset, 0, start))
        self._ids.append(event_digest(f"{event.platform}:{event.campaign_id}", event.event_id))
        self._rows.append(values)
        return start

    def _usual_key(self, event: _UsualDelta) -> int:
        platform = PLATFORMS[event.platform]
        account = self._accounts.of(platform, event.account_id)
        zone = account.time_zone if is_zone(account.time_zone) else ""
        return self._key(
            PaneKey(
                platform,
                event.campaign_id,
                local_day(event.period_start, zone),
                event.period_start // HOUR_MS,
                event.ad_group_id,
                event.ad_id,
                (),
                event.currency or account.currency,
                zone,
                event.account_id,
            )
        )

    def add_event(self, event: MetricEvent, offset: int, index: int) -> None:
        """Take a decoded delta that has been judged in time."""
        key = PaneKey(
            event.platform,
            event.campaign_id,
            event.day,
            event.start_ms // HOUR_MS,
            event.ad_group_id,
            event.ad_id,
            event.segments,
            event.currency,
            event.zone,
            event.account_id,
        )
        self._key_index.append(self._key(key))
        self._positions.append((offset, index, event.observed_ms))
        self._ids.append(event_digest(f"{event.platform}:{event.campaign_id}", event.event_id))
        self._rows.append(tuple(-1 if value is None else value for value in event.values))

    def _key(self, key: PaneKey) -> int:
        encoded = encode_pane_key(key)
        index = self._keys.get(encoded)
        if index is None:
            index = self._keys[encoded] = len(self._keys)
            self._key_targets.append(target_partition(f"{key.platform}:{key.campaign_id}", self._partitions))
        return index

    def columns(self) -> dict[int, DeltaColumns]:
        """The columns of each target partition that has rows, in source order."""
        rows = len(self._key_index)
        if not rows:
            return {}
        quality_missing = (-1,) * (WIDTH - QUALITY_POINTS)
        if any(len(row) == WIDTH for row in self._rows):
            self._rows = [row if len(row) == WIDTH else row + quality_missing for row in self._rows]
        matrix = np.array(self._rows, dtype=np.int64)
        key_index = np.array(self._key_index, dtype=np.int64)
        positions = np.array(self._positions, dtype=np.int64)
        ids = np.frombuffer(b"".join(self._ids), dtype=f"V{ID_BYTES}")
        keys = list(self._keys)
        targets = np.array(self._key_targets, dtype=np.int64)[key_index]
        return {
            int(target): _select(keys, key_index, positions, ids, matrix, np.flatnonzero(targets == target))
            for target in np.unique(targets)
        }


def _select(
    keys: list[bytes],
    key_index: np.ndarray,
    positions: np.ndarray,
    ids: np.ndarray,
    matrix: np.ndarray,
    chosen: np.ndarray,
) -> DeltaColumns:
    used, local_index = np.unique(key_index[chosen], return_inverse=True)
    values = matrix[chosen]
    place = positions[chosen]
    return DeltaColumns(
        keys=[keys[key] for key in used],
        key_index=local_index.astype("<u4").tobytes(),
        offsets=place[:, 0].astype("<i8").tobytes(),
        indexes=place[:, 1].astype("<u4").tobytes(),
        observed=place[:, 2].astype("<i8").tobytes(),
        ids=ids[chosen].tobytes(),
        columns=[
            (metric, values[:, metric].astype("<i8").tobytes())
            for metric in range(values.shape[1])
            if values[:, metric].max() >= 0
        ],
    )
