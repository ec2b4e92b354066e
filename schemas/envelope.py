"""Envelopes: what ingest sends over ``ads.metrics.routed``, many rows of one source partition in one record.

Deltas travel as columns, so that a whole batch is applied by numpy; snapshots and links are fewer and travel as rows.
Every row keeps its source offset and its index in the source record. Rows that were rejected or ignored are listed by
position too, in the envelope for the source partition's home target: so the accounting is kept where the state is,
and survives with it.
"""

import zlib
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from schemas.event import MetricEvent
from schemas.link import Link
from schemas.metrics import WIDTH
from schemas.platform import Platform

VERSION: Final = 1
ID_BYTES: Final = 16

Ints = NDArray[np.int64]


class PaneKey(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a delta is added: its platform campaign and calendar day, UTC hour, level, segments, currency and account.

    On the wire the account is there where a row named one.
    """

    platform: Platform
    campaign_id: str
    day: int
    hour: int
    ad_group_id: str
    ad_id: str
    segments: tuple[tuple[str, str], ...]
    currency: str
    zone: str
    account_id: str = ""


class SnapshotRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A snapshot and its source position."""

    offset: int
    index: int
    event: MetricEvent


class LinkRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A campaign link and its source position."""

    offset: int
    index: int
    link: Link


class OutcomeRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A row that ended at ingest: a reject code or an ignore reason, and its source position."""

    offset: int
    index: int
    code: str


class DeltaColumns(msgspec.Struct, frozen=True, array_like=True):
    """Deltas of one envelope as little-endian columns, n rows each.

    ``keys`` are the distinct encoded ``PaneKey``; ``key_index`` (uint32) says which one a row adds to. ``ids`` holds
    ``ID_BYTES`` a row. ``columns`` lists (metric's position in ``METRICS``, int64 values); −1 says that the row does
    not carry the metric.
    """

    keys: list[bytes]
    key_index: bytes
    offsets: bytes
    indexes: bytes
    observed: bytes
    ids: bytes
    columns: list[tuple[int, bytes]]


class Envelope(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Rows of one source partition for one target partition, in source order.

    ``watermark_ms`` is the newest observation that the source partition has shown, −1 for none. ``idle`` says that
    the partition has been read to its end and holds no watermark back. ``lag`` is how many records of the partition
    ingest had yet to read.
    """

    version: int = VERSION
    topic: str
    partition: int
    watermark_ms: int = -1
    idle: bool = False
    lag: int = 0
    outcomes: list[OutcomeRow] = []
    snapshots: list[SnapshotRow] = []
    links: list[LinkRow] = []
    deltas: DeltaColumns | None = None


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Envelope)
_pane_key: Final = msgspec.msgpack.Decoder(PaneKey)


def encode(envelope: Envelope) -> bytes:
    """Msgpack of the envelope."""
    return _encoder.encode(envelope)


def decode(payload: bytes) -> Envelope:
    """The envelope of its bytes. Raises ``ValueError`` for bytes of another version or no envelope at all."""
    try:
        envelope = _decoder.decode(payload)
    except msgspec.DecodeError as error:
        raise ValueError(f"not an envelope: {error}") from error
    if envelope.version != VERSION:
        raise ValueError(f"envelope version {envelope.version} is not known here; version {VERSION} is")
    return envelope


def encode_pane_key(key: PaneKey) -> bytes:
    """Msgpack of the key: equal keys give equal bytes."""
    return _encoder.encode(key if key.account_id else msgspec.structs.astuple(key)[:-1])


def decode_pane_key(payload: bytes) -> PaneKey:
    """The key of its bytes."""
    return _pane_key.decode(payload)


def column_matrix(deltas: DeltaColumns) -> Ints:
    """The metrics as int64, shape (n, ``WIDTH``), −1 where a row does not carry one."""
    rows = len(deltas.key_index) // 4
    matrix = np.full((rows, WIDTH), -1, dtype=np.int64)
    for position, column in deltas.columns:
        matrix[:, position] = np.frombuffer(column, dtype="<i8")
    return matrix


def target_partition(key: str, partitions: int) -> int:
    """The partition of a platform campaign (``platform:campaign id``) or of a canonical campaign."""
    return zlib.crc32(key.encode("utf-8", "surrogatepass")) % partitions
