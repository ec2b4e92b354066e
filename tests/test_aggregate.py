"""Aggregate: a function of a prefix of the routed log, whatever the checkpoints and crashes on the way."""

from collections.abc import Iterable
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.aggregate import Aggregate, CorruptTable, Mark, TableWrite, rollup_record
from core.ingest import Ingest
from schemas import rollup as rollup_codec
from schemas.rollup import Rollup, Watermark
from tests.histories import DAY, HOUR, Fact, History, arrange, delta, dressed, examples, histories, link, snapshot
from tests.pipeline import Pipeline, Step, put, schedules

Table = dict[bytes, bytes]
Pairs = dict[tuple[bytes, int], bytes]


def routed(history: Iterable[Fact]) -> list[bytes]:
    """One routed log, an envelope for each record."""
    ingest, log = Ingest(partitions=1), []
    offsets: dict[str, int] = {}
    for fact in history:
        offset = offsets[fact.topic] = offsets.get(fact.topic, -1) + 1
        (record,) = arrange([fact])[fact.topic, 0]
        record.offset = offset
        log += [payload for _, payload in ingest.batch(fact.topic, 0, [record]).envelopes]
    return log


def pairs(messages: Iterable[Rollup | Watermark]) -> Pairs:
    return {
        (rollup_codec.key(message), message.revision): rollup_codec.encode(message)
        for message in messages
        if isinstance(message, Rollup)
    }


def standing(messages: Iterable[Rollup | Watermark]) -> dict[bytes, Rollup]:
    """What holds in the end. A link that finds no rollup to withdraw may or may not say so."""
    return {key: rollup for key, rollup in latest(messages).items() if not rollup.withdrawn}


def latest(messages: Iterable[Rollup | Watermark]) -> dict[bytes, Rollup]:
    """What a reader that keeps the highest revision of each key holds."""
    held: dict[bytes, Rollup] = {}
    for message in messages:
        if isinstance(message, Rollup):
            key = rollup_codec.key(message)
            if key not in held or held[key].revision < message.revision:
                held[key] = message
    return held


def run(log: list[bytes], *, every: int = 1, publish: int = 1) -> tuple[Table, list[Rollup | Watermark]]:
    """The table and messages after checkpoints of every so many envelopes, of which every so many publish."""
    state = Aggregate()
    table: Table = {}
    sent: list[Rollup | Watermark] = []
    for offset, payload in enumerate(log):
        state.apply(offset, payload)
        if (offset + 1) % every == 0:
            writes, messages = state.take_writes(publish=(offset + 1) % (every * publish) == 0)
            put(table, writes)
            sent += messages
    writes, messages = state.take_writes(publish=True)
    put(table, writes)
    return table, sent + messages


def content(table: Table) -> Table:
    """Blocks and links. Event ids lie in chunks by checkpoint, and the mark tells of publication too."""
    decode = msgspec.msgpack.Decoder(tuple[str, str, str, int]).decode
    return {key: value for key, value in table.items() if decode(key)[0] in ("block", "link")}


@examples(80)
@given(histories(), st.integers(1, 5), st.integers(1, 3))
def test_a_revision_stands_for_one_content_whatever_the_checkpoints(history: History, every: int, publish: int) -> None:
    log = routed(history)
    one_table, one_sent = run(log)
    other_table, other_sent = run(log, every=every, publish=publish)
    assert content(one_table) == content(other_table)
    one, other = pairs(one_sent), pairs(other_sent)
    assert all(one[pair] == other[pair] for pair in one.keys() & other.keys())
    assert standing(one_sent) == standing(other_sent)


@examples(80)
@given(histories(), schedules())
def test_tables_do_not_remember_crashes(history: History, schedule: list[Step]) -> None:
    """Blocks and links are byte for byte those of one uncrashed run over the same routed log."""
    pipeline = Pipeline(arrange(history)).run(schedule).drain()
    assert content(pipeline.tables[0]) == content(run(pipeline.routed[0])[0])


@examples(100)
@given(histories(), st.integers(1, 4), st.data())
def test_a_crash_after_any_write_of_any_checkpoint_changes_no_rollup(
    history: History, every: int, data: st.DataObject
) -> None:
    """The heir publishes at once what it owes, and after every envelope of the log that it applies again."""
    log = routed(history)
    _, expected = run(log)
    state = Aggregate()
    table: Table = {}
    sent: list[Rollup | Watermark] = []
    crash_at = data.draw(st.integers(0, len(log) - 1))
    for offset, payload in enumerate(log[: crash_at + 1]):
        state.apply(offset, payload)
        if (offset + 1) % every == 0 and offset < crash_at:
            writes, messages = state.take_writes(publish=True)
            put(table, writes)
            sent += messages
    writes, messages = state.take_writes(publish=True)
    put(table, writes[: data.draw(st.integers(0, len(writes)))])
    state = Aggregate.restore(table)
    for offset in range(-1, len(log)):
        if offset >= 0:
            state.apply(offset, log[offset])
        writes, messages = state.take_writes(publish=True)
        put(table, writes)
        sent += messages
    assert not state.owes
    assert standing(sent) == standing(expected)
    known = pairs(expected)
    assert all(known[pair] == payload for pair, payload in pairs(sent).items() if pair in known)


def torn(log: list[bytes], durable: int, *, kinds: tuple[str, ...]) -> Aggregate:
    """The heir of a worker that had applied the whole log and died after the writes of some kinds."""
    state = Aggregate()
    table: Table = {}
    for offset, payload in enumerate(log):
        state.apply(offset, payload)
        if offset + 1 == durable:
            put(table, state.take_writes(publish=True)[0])
    writes, _ = state.take_writes(publish=True)
    put(table, [write for write in writes if msgspec.msgpack.decode(write.key)[0] in kinds])
    return Aggregate.restore(table)


def test_a_link_is_not_overtaken_by_blocks_that_survived_it() -> None:
    """Scenario: rows, a link, more rows; the checkpoint dies after the blocks. The old campaign must end empty."""
    log = routed([snapshot(clicks=1), link("spring"), snapshot(clicks=2, pulled=2 * DAY)])
    state = torn(log, 1, kinds=("ids", "block"))
    sent: list[Rollup | Watermark] = []
    for offset in range(len(log) + 1):
        sent += state.take_writes(publish=True)[1]
        if offset < len(log):
            state.apply(offset, log[offset])
    held = {message.campaign_id: message for message in latest(sent).values()}
    assert held["meta:1"].withdrawn
    assert held["spring"].day_totals
    assert held["spring"].day_totals.values[1] == 2


def test_no_delta_is_lost_or_doubled_by_a_crash_between_ids_and_blocks() -> None:
    facts = [delta("a", clicks=1), delta("b", clicks=10), delta("a", clicks=1), delta("c", clicks=100)]
    log = routed(facts)
    for kinds in ((), ("ids",), ("ids", "block"), ("ids", "block", "mark")):
        state = torn(log, 2, kinds=kinds)
        for offset, payload in enumerate(log):
            state.apply(offset, payload)
        (rollup,) = latest(state.take_writes(publish=True)[1]).values()
        assert rollup.day_totals
        assert rollup.day_totals.values[1] == 111, kinds


def test_a_partly_restored_state_does_not_ask_for_checkpoints_that_publish_nothing() -> None:
    state = torn(routed([snapshot(clicks=1), link("spring")]), 0, kinds=("block", "link"))
    assert state.owes
    assert not state.pending


def test_a_duplicate_in_another_place_leaves_no_trace() -> None:
    """Scenario: an event id returns with another ad and hour. It is counted once, and covers no other hour."""
    first, second = delta("a", HOUR, clicks=1), delta("a", 9 * HOUR, clicks=1, ad_id="9", currency="EUR")
    third = delta("b", HOUR, clicks=1)
    (with_it,) = latest(run(routed([first, second, third]))[1]).values()
    (without,) = latest(run(routed([first, third]))[1]).values()
    assert with_it == msgspec.structs.replace(without, revision=with_it.revision)


def test_event_ids_are_told_apart_by_platform_campaign() -> None:
    facts = [delta("a", clicks=1), delta("a", clicks=1, campaign="2"), delta("a", clicks=1, platform="tiktok")]
    assert len(latest(run(routed(facts))[1])) == 3


def test_a_link_that_says_the_same_again_owes_nothing() -> None:
    log = routed([snapshot(clicks=1), link("spring"), link("spring", HOUR)])
    state = Aggregate()
    for offset, payload in enumerate(log[:2]):
        state.apply(offset, payload)
    state.take_writes(publish=True)
    state.apply(2, log[2])
    assert not state.owes
    writes, messages = state.take_writes(publish=True)
    assert pairs(messages) == {}
    assert len(writes) == 2, "the newer link and the mark"


def test_a_link_that_comes_and_goes_leaves_the_former_campaigns_withdrawn() -> None:
    log = routed([snapshot(clicks=1), link("a", 1), link("b", 2), link(None, 3)])
    held = {message.campaign_id: message.withdrawn for message in latest(run(log)[1]).values()}
    assert held == {"meta:1": False, "a": True, "b": True}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_links_of_one_time_the_greater_campaign_holds_in_any_order(order: tuple[int, int]) -> None:
    links = [link("spring", HOUR), link("summer", HOUR)]
    log = routed([snapshot(clicks=1), *(links[index] for index in order)])
    held = {message.campaign_id for message in latest(run(log)[1]).values() if not message.withdrawn}
    assert held == {"summer"}


def test_platform_campaigns_without_a_link_are_listed() -> None:
    state = Aggregate()
    facts = [snapshot(clicks=1), snapshot(clicks=1, campaign="2"), link("spring"), link("autumn", campaign="3")]
    for offset, payload in enumerate(routed([*facts, snapshot(clicks=1, platform="tiktok"), link(None, campaign="2")])):
        state.apply(offset, payload)
    assert state.unlinked() == ["meta:2", "tiktok:1"]


def test_deferred_rollups_are_owed_across_a_crash() -> None:
    log = routed([snapshot(clicks=1), snapshot(clicks=1, day=1)])
    state = Aggregate()
    table: Table = {}
    for offset, payload in enumerate(log):
        state.apply(offset, payload)
        writes, messages = state.take_writes(publish=False)
        assert messages == []
        put(table, writes)
    assert (state.owes, Aggregate.restore(table).owes) == (2, 2)


def test_offsets_that_were_applied_are_skipped() -> None:
    log = routed([snapshot(clicks=1)])
    state = Aggregate()
    for _ in range(2):
        state.apply(0, log[0])
    assert state.tallies["ads.metrics.meta"] == {"applied": 1, "records": 1}


@examples(60)
@given(histories(), st.data())
def test_redelivery_of_any_suffix_counts_nothing_again(history: History, data: st.DataObject) -> None:
    pipeline = Pipeline(arrange(history)).drain()
    once = pipeline.accounting()
    for source in pipeline.sources:
        pipeline.rewind(source, data.draw(st.integers(0, 14)))
    assert pipeline.drain().accounting() == once


def test_duplicates_and_restatements_are_told_apart() -> None:
    row = snapshot(clicks=5)
    facts = [row, row, snapshot(clicks=4, pulled=2 * DAY), snapshot(clicks=6, pulled=HOUR), snapshot(clicks=3)]
    facts += [delta("a", clicks=1), dressed(delta("a", clicks=1), 3)]
    counted = Pipeline(arrange(facts)).drain().accounting()
    assert (counted.applied, counted.duplicate, counted.superseded) == (3, 2, 2)
    assert (counted.rows, counted.records, counted.adds_up) == (7, 7, True)


def test_revisions_rise_along_the_log() -> None:
    log = routed([snapshot(clicks=value, pulled=DAY + value) for value in (3, 1, 2)])
    revisions = [message.revision for message in run(log)[1] if isinstance(message, Rollup)]
    assert all(before < after for before, after in pairwise(revisions))


def test_what_the_table_may_not_hold_yet_stays_in_memory() -> None:
    """Scenario: more rows of a day come while its checkpoint is on its way to the table."""
    log = routed([delta(name, HOUR, clicks=1) for name in "abcd"] + [snapshot(campaign="2", clicks=1)] * 2)
    table: Table = {}
    state = Aggregate.restore(table, in_memory=0)
    decoded = []
    for offset in range(0, len(log), 2):
        state.apply(offset, log[offset])
        writes, _ = state.take_writes(publish=True)
        state.apply(offset + 1, log[offset + 1])
        decoded.append(state.blocks.decoded)
        put(table, writes)
    put(table, state.take_writes(publish=True)[0])
    assert decoded == [1, 1, 2]
    put(table, state.take_writes(publish=True)[0])
    assert (state.blocks.decoded, len(state.blocks.panes), len(state.blocks)) == (0, 0, 2)
    assert content(table) == content(run(log)[0])


@examples(80)
@given(histories(), st.integers(0, 3), st.integers(1, 3))
def test_blocks_that_leave_memory_come_back_the_same(history: History, in_memory: int, every: int) -> None:
    log, table, sent = routed(history), Table(), []
    state = Aggregate.restore(table, in_memory=in_memory)
    for offset, payload in enumerate(log):
        state.apply(offset, payload)
        if offset % every == 0:
            writes, messages = state.take_writes(publish=offset % 2 == 0)
            put(table, writes)
            sent += messages
    for _ in range(2):
        writes, messages = state.take_writes(publish=True)
        put(table, writes)
        sent += messages
    assert state.blocks.decoded <= in_memory
    expected_table, expected = run(log)
    assert content(table) == content(expected_table)
    assert standing(sent) == standing(expected)


BLOCK = (
    "0200000000000000029291929503a0a13990a096cf0000019ccb2c3d009ac004c005c0c0c0c0c0c0cf0000019cc605e100a0"
    "a3455552ad4575726f70652f4265726c696e9192c42499a46d657461a131cd5027ce000783a9a0a09192a6646576696365a6"
    "6d6f62696c65a0a0c46009000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "0000000000000000000000000000000000000000000000000000000000000000000000000000000080f2cec59c0100000100"
    "000000000000"
)
BLOCK_1 = bytes.fromhex("940102919295")
"""How a block of version 1 began."""
MARK = (
    "9702009194b06164732e6d6574726963732e6d6574610002009194b06164732e6d6574726963732e6d65746100cf0000019c"
    "cb2c3d00c281b06164732e6d6574726963732e6d65746184a76170706c69656402a77265636f72647303a96475706c696361"
    "746500ae6d616c666f726d65645f6a736f6e01cf0000019ccb2c3d00ff"
)


def golden_state() -> tuple[Aggregate, list[TableWrite]]:
    """A state with a cell, a pane and a dead letter, and its first checkpoint, which publishes nothing."""
    facts = [
        snapshot(ad_id="9", hour=3, zone="Europe/Berlin", currency="EUR", clicks=4, spend_micros=5, quality=7.5),
        delta("a", HOUR, impressions=9, segments={"device": "mobile"}),
        Fact("ads.metrics.meta", 0, b"{"),
    ]
    state = Aggregate(0, [("ads.metrics.meta", 0)])
    for offset, payload in enumerate(routed(facts)):
        state.apply(offset, payload)
    return state, state.take_writes(publish=False)[0]


def test_version_2_of_a_block_and_version_1_of_a_mark_are_for_ever() -> None:
    state, writes = golden_state()
    block, mark = (next(w for w in writes if msgspec.msgpack.decode(w.key)[0] == kind) for kind in ("block", "mark"))
    assert block.value
    assert mark.value
    assert (block.value.hex(), mark.value.hex()) == (BLOCK, MARK)
    decoded = msgspec.msgpack.decode(bytes.fromhex(MARK), type=Mark)
    assert msgspec.msgpack.encode(decoded).hex() == MARK
    shorter = msgspec.msgpack.decode(bytes.fromhex("96" + MARK[2:-2]), type=Mark)
    assert shorter == decoded, "one that was written before it had its last field"
    restored = Aggregate.restore({write.key: write.value for write in writes if write.value is not None})
    (rollup,) = latest(restored.take_writes(publish=True)[1]).values()
    assert rollup == latest(state.take_writes(publish=True)[1])[rollup_record(rollup)[0]]


def test_a_block_of_another_version_is_refused_by_its_number() -> None:
    _, writes = golden_state()
    table = {write.key: write.value for write in writes if write.value is not None}
    key = next(key for key in table if msgspec.msgpack.decode(key)[0] == "block")
    for version, former in ((1, BLOCK_1 + bytes(9)), (3, b"\x03" + table[key][1:])):
        with pytest.raises(ValueError, match=f"block version {version} is not known here; version 2 is"):
            Aggregate.restore({**table, key: former})
    with pytest.raises(ValueError, match="not a block"):
        Aggregate.restore({**table, key: b"{}"})


def test_a_block_that_is_torn_or_missing_stops_the_worker_instead_of_the_row() -> None:
    """A stage skips envelopes that raise ``ValueError``: this is no fault of an envelope."""
    state, writes = golden_state()
    table = {write.key: write.value for write in writes if write.value is not None}
    key = next(key for key in table if msgspec.msgpack.decode(key)[0] == "block")
    again = routed([snapshot(ad_id="9", clicks=3)])[0]
    for broken in ({**table, key: table[key][:-1]}, {name: value for name, value in table.items() if name != key}):
        held = dict(table)
        state = Aggregate.restore(held)
        held.clear()
        held.update(broken)
        with pytest.raises(CorruptTable, match="block"):
            state.apply(state.position + 1, again)
