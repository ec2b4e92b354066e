"""Rollups and watermarks on the rollups topic: version 1 for ever, keys for compaction."""

import msgspec
import pytest

from schemas import rollup
from schemas.platform import Platform
from schemas.rollup import Message, Money, RateFact, Rollup, Totals, Watermark

ROLLUP = Rollup(
    campaign_id="spring",
    platform=Platform.META,
    platform_campaign_id="12021",
    account_id="77",
    day=20_519,
    revision=70_001,
    day_totals=Totals(
        (1000, 20, None, None, 1_500_000, None, 31, 0, 550_000, 1000),
        (Money("", None, 5), Money("USD", 12_345_678, None)),
    ),
    hours=((492_456, Totals((10, None, None, None, None, None, None, None, None, None))),),
    start_ms=1_772_870_400_000,
    zone="America/Los_Angeles",
    covered_ms=1_772_900_000_000,
    as_of_ms=1_772_900_000_001,
    basis="snapshot+delta",
    link_revision=70_001,
)
ROLLUP_WITHOUT_LINK_REVISION = bytes.fromhex(
    "dc0010a6726f6c6c757001a6737072696e67a46d657461a53132303231a23737cd5027ce00011171c2929acd03e814c0"
    "c0ce0016e360c01f00ce00086470cd03e89293a0c00593a3555344ce00bc614ec09192ce000783a8929a0ac0c0c0c0c0"
    "c0c0c0c090cf0000019cc74f7800b3416d65726963612f4c6f735f416e67656c6573cf0000019cc9132100cf0000019c"
    "c9132101ae736e617073686f742b64656c7461"
)
ROLLUP_BYTES = bytes.fromhex(
    ROLLUP_WITHOUT_LINK_REVISION.hex().replace("dc0010", "dc0011", 1) + "ce00011171",
)
WATERMARK = Watermark(partition=3, watermark_ms=1_772_841_600_123)
RATE = RateFact(currency="EUR", day=20_456, per="USD", nanos=1_083_100_000, updated_ms=1_767_225_600_000)
RATE_BYTES = bytes.fromhex("97a47261746501a3455552cd4fe8a3555344ce408ecb60cf0000019b76daa800")
WATERMARK_BYTES = bytes.fromhex("94a977617465726d61726b0103cf0000019cc598047b")


@pytest.mark.parametrize(
    ("message", "golden"), [(ROLLUP, ROLLUP_BYTES), (WATERMARK, WATERMARK_BYTES), (RATE, RATE_BYTES)]
)
def test_version_1_is_for_ever(message: Message, golden: bytes) -> None:
    assert rollup.encode(message) == golden
    assert rollup.decode(golden) == message


def test_a_rollup_of_before_the_link_revision_is_read_without_one() -> None:
    assert rollup.decode(ROLLUP_WITHOUT_LINK_REVISION) == msgspec.structs.replace(ROLLUP, link_revision=0)


def test_one_key_for_each_campaign_platform_campaign_and_day() -> None:
    names = ("campaign_id", "platform_campaign_id", "day", "platform")
    changed = [
        msgspec.structs.replace(ROLLUP, **{name: value})
        for name, value in zip(names, ("a", "b", 1, Platform.TIKTOK), strict=True)
    ]
    messages: list[Message] = [ROLLUP, *changed, WATERMARK, Watermark(partition=4, watermark_ms=0)]
    keys = {rollup.key(message) for message in messages}
    assert len(keys) == 7
    assert rollup.key(ROLLUP) == rollup.key(
        msgspec.structs.replace(ROLLUP, revision=1, withdrawn=True, day_totals=None)
    )
    assert rollup.key(ROLLUP).hex() == "94a6737072696e67a46d657461a53132303231cd5027"


def test_compaction_takes_only_repetitions_of_a_rate() -> None:
    other = [msgspec.structs.replace(RATE, **{name: 7}) for name in ("day", "nanos", "updated_ms")]
    other += [msgspec.structs.replace(RATE, **{name: "GBP"}) for name in ("currency", "per")]
    assert len({rollup.key(fact) for fact in (RATE, *other)}) == 6
    assert rollup.key(RATE) == rollup.key(rollup.decode(RATE_BYTES))


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"{}", ROLLUP_BYTES[:-1], msgspec.msgpack.encode(["other", 1])])
def test_bytes_that_are_no_rollup_are_refused(payload: bytes) -> None:
    with pytest.raises(ValueError, match=r"^not a rollup: "):
        rollup.decode(payload)


@pytest.mark.parametrize("message", [ROLLUP, WATERMARK, RATE])
def test_another_version_is_refused_by_its_number(message: Message) -> None:
    with pytest.raises(ValueError, match="rollup version 2 is not known here; version 1 is"):
        rollup.decode(rollup.encode(msgspec.structs.replace(message, version=2)))
