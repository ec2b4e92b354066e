"""Envelopes on the routed topic: version 1 for ever, and a plain refusal of anything else."""

import msgspec
import numpy as np
import pytest

from schemas import envelope
from schemas.envelope import DeltaColumns, Envelope, LinkRow, OutcomeRow, PaneKey, SnapshotRow
from schemas.event import Grain, Kind, MetricEvent
from schemas.link import Link
from schemas.platform import Platform

PANE_KEY = PaneKey(
    Platform.GOOGLE_ADS, "12021", 20_519, 492_456, "g", "a", (("device", "mobile"),), "EUR", "Europe/Berlin"
)
PANE_KEY_BYTES = bytes.fromhex(
    "99aa676f6f676c655f616473a53132303231cd5027ce000783a8a167a1619192a6646576696365a66d6f62696c65"
    "a3455552ad4575726f70652f4265726c696e"
)
OWNED_PANE_KEY = msgspec.structs.replace(PANE_KEY, account_id="77")
OWNED_PANE_KEY_BYTES = b"\x9a" + PANE_KEY_BYTES[1:] + b"\xa277"
ENVELOPE = Envelope(
    topic="ads.metrics.google",
    partition=3,
    watermark_ms=1_772_841_600_123,
    idle=False,
    lag=17,
    outcomes=[OutcomeRow(40, 1, "negative")],
    snapshots=[
        SnapshotRow(
            41,
            2,
            MetricEvent(
                Kind.SNAPSHOT,
                Platform.META,
                "77",
                "1",
                "",
                "9",
                "ads_insights",
                (("age", "18-24"),),
                Grain.DAY,
                20_519,
                1_772_841_600_000,
                "",
                1_772_900_000_000,
                "",
                "USD",
                (1000, 20, None, 12_345_678, None, None, 31, 0, None, None),
            ),
        )
    ],
    links=[LinkRow(42, 0, Link(Platform.TIKTOK, "7", "spring", 1_772_841_600_000))],
    deltas=DeltaColumns(
        keys=[PANE_KEY_BYTES],
        key_index=np.array([0, 0], "<u4").tobytes(),
        offsets=np.array([43, 44], "<i8").tobytes(),
        indexes=np.array([0, 5], "<u4").tobytes(),
        observed=np.array([1_772_841_600_000, 1_772_841_600_001], "<i8").tobytes(),
        ids=bytes(range(32)),
        columns=[(1, np.array([3, -1], "<i8").tobytes())],
    ),
)
ENVELOPE_BYTES = bytes.fromhex(
    "9a01b26164732e6d6574726963732e676f6f676c6503cf0000019cc598047bc21191932801a86e656761746976659193"
    "2902dc0010a8736e617073686f74a46d657461a23737a131a0a139ac6164735f696e7369676874739192a3616765a531"
    "382d3234a3646179cd5027cf0000019cc5980400a0cf0000019cc9132100a0a35553449acd03e814c0ce00bc614ec0c0"
    "1f00c0c091932a0094a674696b746f6ba137a6737072696e67cf0000019cc59804009791c44099aa676f6f676c655f61"
    "6473a53132303231cd5027ce000783a8a167a1619192a6646576696365a66d6f62696c65a3455552ad4575726f70652f"
    "4265726c696ec4080000000000000000c4102b000000000000002c00000000000000c4080000000005000000c4100004"
    "98c59c010000010498c59c010000c420000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
    "919201c4100300000000000000ffffffffffffffff"
)


def test_version_1_of_an_envelope_is_for_ever() -> None:
    assert envelope.encode(ENVELOPE) == ENVELOPE_BYTES
    assert envelope.decode(ENVELOPE_BYTES) == ENVELOPE
    assert envelope.encode(envelope.decode(ENVELOPE_BYTES)) == ENVELOPE_BYTES


def test_version_1_of_a_pane_key_is_for_ever() -> None:
    assert envelope.encode_pane_key(PANE_KEY) == PANE_KEY_BYTES
    assert envelope.decode_pane_key(PANE_KEY_BYTES) == PANE_KEY
    assert envelope.encode_pane_key(OWNED_PANE_KEY) == OWNED_PANE_KEY_BYTES
    assert envelope.decode_pane_key(OWNED_PANE_KEY_BYTES) == OWNED_PANE_KEY


def test_columns_that_no_row_carries_read_as_absent() -> None:
    assert ENVELOPE.deltas is not None
    matrix = envelope.column_matrix(ENVELOPE.deltas)
    assert matrix.tolist() == [[-1, 3, *[-1] * 8], [-1] * 10]


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"{}", msgspec.msgpack.encode([1, 2]), ENVELOPE_BYTES[:-1]])
def test_bytes_that_are_no_envelope_are_refused(payload: bytes) -> None:
    with pytest.raises(ValueError, match=r"^not an envelope: "):
        envelope.decode(payload)


def test_another_version_is_refused_by_its_number() -> None:
    later = msgspec.structs.replace(ENVELOPE, version=2)
    with pytest.raises(ValueError, match="envelope version 2 is not known here; version 1 is"):
        envelope.decode(envelope.encode(later))


def test_a_partition_depends_on_the_name_alone() -> None:
    """A changed hash would move campaigns to partitions that do not hold their state."""
    assert [envelope.target_partition(name, 16) for name in ("meta:1", "tiktok:7", "spring")] == [5, 1, 9]
