"""Creatives as facts: every record has its end, which statement holds, and which creative an ad shows."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.creatives import CreativeStatements, read_creative
from core.ingest import Ingest
from core.lateness import Lateness
from core.offline import compute
from schemas.creative import Creative, PlatformAd, encode
from schemas.dead_letter import REDRIVE_HEADER, Redrive, encode_redrive
from schemas.event import Rejection
from schemas.platform import Platform
from schemas.topics import CREATIVES
from stream_app.dead_letters import Dead, _again
from stream_app.settings import Settings
from tests.histories import DAY, T0, Record, examples, snapshot
from tests.pipeline import CONFIG

LIMIT = 65_536


def stated(creative_id: str = "cr-1", updated: int | None = 5, **fields: Any) -> bytes:
    wire = {"version": 1, "creative_id": creative_id, **fields}
    return json.dumps(wire if updated is None else wire | {"updated_at": updated}).encode()


def test_every_record_has_its_end_and_a_bad_one_is_a_dead_letter() -> None:
    records = [
        Record(0, T0, b"cr-1", stated()),
        Record(1, T0, b"cr-1", stated()),
        Record(2, T0, b"cr-1", b'{"version":2}'),
        Record(3, T0, b"other", stated()),
        Record(4, T0, b"cr-2", stated("cr-2", updated=T0 + DAY)),
        Record(5, T0, b"cr-1", None),
        Record(6, T0, None, None),
        Record(7, T0, b"cr-3", b" " * (LIMIT + 1)),
    ]
    row = snapshot(impressions=5, ad_group_id="g", ad_id="a")
    batches = [(CREATIVES, 1, records), (row.topic, 0, [Record(0, row.arrival, None, row.value)])]
    found = compute(batches, Ingest(partitions=1), CONFIG)
    assert [(each.letter.id, each.letter.code) for each in found.rejected] == [
        (f"{CREATIVES}/1/2/0", "bad_creative"),
        (f"{CREATIVES}/1/3/0", "bad_creative"),
        (f"{CREATIVES}/1/4/0", "in_the_future"),
        (f"{CREATIVES}/1/7/0", "oversize"),
    ]
    books = found.accounting
    assert books.adds_up
    assert (books.rows, books.applied, books.ignored) == (9, 4, {"tombstone": 1})


def test_creatives_move_no_watermark_and_reach_no_other_partition() -> None:
    done = Ingest(partitions=3).batch(CREATIVES, 2, [Record(0, T0, b"cr-1", stated())])
    assert done.watermark_ms == -1
    assert [target for target, _ in done.envelopes] == [2]


statements = st.builds(
    Creative,
    creative_id=st.sampled_from("xyz"),
    hook=st.sampled_from(("", "a", "b")),
    ads=st.lists(
        st.builds(
            PlatformAd,
            st.sampled_from((Platform.META, Platform.TIKTOK)),
            st.sampled_from(("", "1", "2")),
            st.sampled_from(("v", "w")),
        ),
        max_size=3,
    ).map(lambda ads: tuple(sorted(set(ads)))),
    updated_ms=st.integers(0, 2),
    withdrawn=st.booleans(),
).map(
    lambda one: (
        Creative(creative_id=one.creative_id, updated_ms=one.updated_ms, withdrawn=True) if one.withdrawn else one
    )
)


def held(creatives: Sequence[Creative]) -> CreativeStatements:
    found = CreativeStatements()
    for each in creatives:
        found.put(each)
    return found


@examples(200)
@given(st.lists(statements, max_size=9), st.randoms(use_true_random=False))
def test_what_holds_is_a_function_of_the_set_of_statements(said: list[Creative], mix: Any) -> None:
    one = held(said)
    again = [*said, *said]
    mix.shuffle(again)
    other = held(again)
    holding: dict[str, tuple[int, bytes, Creative]] = {}
    for each in said:
        rank = (each.updated_ms, encode(each) or b"", each)
        if each.creative_id not in holding or rank[:2] > holding[each.creative_id][:2]:
            holding[each.creative_id] = rank
    alive = {name: rank for name, rank in holding.items() if not rank[2].withdrawn}
    ads: dict[tuple[Platform, str], tuple[int, bytes, str]] = {}
    for name, (updated, payload, creative) in alive.items():
        for ad in creative.ads:
            if ad.ad_id:
                ads[ad.platform, ad.ad_id] = max(
                    ads.get((ad.platform, ad.ad_id), (-1, b"", "")), (updated, payload, name)
                )
    for found in (one, other):
        assert found.creatives() == [alive[name][2] for name in sorted(alive)]
        assert found.by_ad() == {ad: name for ad, (_, _, name) in ads.items()}


def test_of_two_creatives_that_claim_an_ad_the_newer_statement_holds_and_equal_ones_by_their_bytes() -> None:
    ads = (PlatformAd(Platform.META, "1", ""),)
    for updated, shown in ((4, "y"), (5, "z"), (6, "x")):
        claims = [
            Creative(creative_id="x", ads=ads, updated_ms=updated),
            Creative(creative_id="y", ads=ads, updated_ms=5),
            Creative(creative_id="z", updated_ms=9),
        ]
        if shown == "z":
            claims[2] = Creative(creative_id="z", ads=ads, updated_ms=5)
        assert held(claims).by_ad() == held(claims[::-1]).by_ad() == {(Platform.META, "1"): shown}


def test_a_withdrawal_holds_until_something_newer_is_said() -> None:
    records = [Record(0, 10, b"cr-1", stated(updated=9)), Record(1, 20, b"cr-1", None)]
    found = CreativeStatements()
    found.take(records, Lateness(), LIMIT)
    assert found.creatives() == []
    found.take([Record(2, 30, b"cr-1", stated(updated=19))], Lateness(), LIMIT)
    assert found.creatives() == []
    found.take([Record(3, 30, b"cr-1", stated(updated=None))], Lateness(), LIMIT)
    assert [each.updated_ms for each in found.creatives()] == [30]


@pytest.mark.parametrize(("key", "sound"), [(b"cr-1", True), (None, True), (b"cr-2", False)])
def test_a_redriven_creative_is_stamped_by_its_first_arrival_and_keeps_its_key(key: bytes | None, sound: bool) -> None:
    """It goes out under a key of its own, by which compaction drops nothing that was said since."""
    from schemas.dead_letter import SourcePosition, describe

    letter = describe(SourcePosition(CREATIVES, 0, 7, 0, T0), "oversize", "too large")
    out = _again(Settings(), Dead(letter, key, stated(updated=None), []))
    assert out.key not in (None, b"cr-1", b"cr-2")
    assert (out.topic, out.partition) == (CREATIVES, 0)
    assert [name for name, _ in out.headers] == [REDRIVE_HEADER]
    found = read_creative(Record(9, T0 + DAY, out.key, out.value, out.headers), Lateness(), LIMIT)
    if sound:
        assert isinstance(found, Creative)
        assert (found.creative_id, found.updated_ms) == ("cr-1", T0)
    else:
        assert isinstance(found, Rejection)


def test_a_redrive_of_a_redrive_is_the_same_creative() -> None:
    told = encode_redrive(Redrive(id=f"{CREATIVES}/0/7/0", arrival_ms=T0))
    record = Record(9, T0 + DAY, b"cr-1", stated(updated=None), [(REDRIVE_HEADER, told)])
    found = read_creative(record, Lateness(), LIMIT)
    assert isinstance(found, Creative)
    assert found.updated_ms == T0
