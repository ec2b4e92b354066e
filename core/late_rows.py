"""Late rows: what came too late for its day in spite of having been in time at ingest, ready for the dead letters."""

import msgspec

from core.delta_rows import DeltaRows
from schemas.calendar import iso_date, iso_instant
from schemas.envelope import Envelope, PaneKey, SnapshotRow, decode_pane_key
from schemas.event import Kind
from schemas.metrics import METRICS, Values


class LateRow(msgspec.Struct, frozen=True):
    """A row refused for its day: its source position, one sentence that says why, and what it said, as JSON."""

    topic: str
    partition: int
    offset: int
    index: int
    sentence: str
    row: bytes


def late_snapshot(message: Envelope, row: SnapshotRow, watermark_ms: int) -> LateRow:
    """A snapshot that was refused at a watermark."""
    event = row.event
    fields = {name: getattr(event, name) for name in event.__struct_fields__ if name != "event_id"}
    fields |= {"segments": dict(event.segments), "values": _named(event.values)}
    sentence = _why(Kind.SNAPSHOT, event.day, watermark_ms)
    return LateRow(message.topic, message.partition, row.offset, row.index, sentence, msgspec.json.encode(fields))


def late_deltas(message: Envelope, keys: list[bytes], rows: DeltaRows, watermark_ms: int) -> list[LateRow]:
    """Deltas that were refused at a watermark. Of their event ids only the digests are known by now."""
    return [
        _late_delta(message, decode_pane_key(keys[rows.key_index[row]]), rows, row, watermark_ms)
        for row in range(len(rows.key_index))
    ]


def _late_delta(message: Envelope, key: PaneKey, rows: DeltaRows, row: int, watermark_ms: int) -> LateRow:
    fields = {
        "kind": Kind.DELTA,
        **{name: getattr(key, name) for name in key.__struct_fields__},
        "segments": dict(key.segments),
        "event_digest": rows.ids[row].tobytes().hex(),
        "observed_ms": int(rows.observed[row]),
        "values": _named(tuple(value if value >= 0 else None for value in rows.values[row].tolist())),
    }
    place = int(rows.offsets[row]), int(rows.indexes[row])
    sentence = _why(Kind.DELTA, key.day, watermark_ms)
    return LateRow(message.topic, message.partition, *place, sentence, msgspec.json.encode(fields))


def _why(kind: Kind, day: int, watermark_ms: int) -> str:
    return (
        f"the {kind}'s day {iso_date(day)} takes no more rows:"
        f" everything up to {iso_instant(watermark_ms)} has been observed"
    )


def _named(values: Values) -> dict[str, int]:
    return {name: value for name, value in zip(METRICS, values, strict=True) if value is not None}
