"""Rows that come too late for their day, in spite of having been in time at ingest: each ends once, by name."""

import json

from core.accounting import account
from core.aggregate import Aggregate, LateRow
from schemas.rollup import Rollup
from schemas.topics import FACT_TOPICS
from tests.histories import DAY, HOUR, T0, delta, snapshot
from tests.pipeline import put
from tests.routed_log import FIRST, SHORT, SOURCES, Log, Table, applied, now, totals


def late_log() -> Log:
    """Rows of the first day that were in time when they arrived, and are applied five days later."""
    log = Log().write([delta("a", HOUR, clicks=1), snapshot(clicks=5, pulled=DAY), *now(1)]).write(now(7))
    late = [delta("b", HOUR, clicks=2, spend_micros=7), snapshot(clicks=9, pulled=2 * DAY, segments={"device": "tv"})]
    return log.write([*late, delta("c", 7 * DAY, clicks=3)])


def test_a_row_held_up_past_its_day_ends_too_late_and_is_handed_out() -> None:
    state = applied(Aggregate(0, SOURCES, retention=SHORT), late_log().payloads)
    late = sorted(state.take_late(), key=lambda row: row.offset)
    assert [(row.topic, row.partition, row.offset, row.index) for row in late] == [
        ("ads.metrics.meta", 0, 4, 0),
        ("ads.metrics.meta", 0, 5, 0),
    ]
    said = "takes no more rows: everything up to 2026-03-14T00:00:00.000Z has been observed"
    assert [row.sentence for row in late] == [
        f"the delta's day 2026-03-07 {said}",
        f"the snapshot's day 2026-03-07 {said}",
    ]
    first, second = (json.loads(row.row) for row in late)
    assert (first["campaign_id"], first["observed_ms"], first["kind"]) == ("1", T0 + HOUR, "delta")
    assert first["values"] == {"clicks": 2, "spend_micros": 7}
    assert len(first["event_digest"]) == 32
    assert (second["day"], second["values"], second["segments"]) == (FIRST, {"clicks": 9}, {"device": "tv"})
    counted = account(state.tallies.values())
    assert (counted.dead_letters, counted.adds_up, counted.rows) == ({"too_late": 2}, True, 11)
    assert counted.records == 11
    assert state.take_late() == []


def test_without_retention_nothing_is_refused_and_nothing_goes() -> None:
    state = applied(Aggregate(0, SOURCES), late_log().payloads)
    assert state.take_late() == []
    assert all(write.value is not None for write in state.take_writes(publish=True)[0])
    assert len(state.blocks) == 1 + 3 * 2 + 1


def test_a_refused_row_leaves_no_trace_in_the_state() -> None:
    """Neither its id, which would make a duplicate of nothing, nor an empty block or pane."""
    log = Log().write(now(7)).write([delta("b", HOUR, clicks=2), snapshot(clicks=9, day=1)])
    state = applied(Aggregate(0, SOURCES, retention=SHORT), log.payloads)
    assert len(state.take_late()) == 2
    assert (len(state.blocks), state.blocks.decoded, len(state.blocks.panes), len(state.ids)) == (3, 3, 3, 3)


def test_a_run_of_deltas_is_refused_row_by_row() -> None:
    """Rows of an old and a new day in one envelope, with a repeated id: each has its own end."""
    log = Log().write(now(7))
    mixed = [delta("a", HOUR, clicks=1), delta("b", 7 * DAY, clicks=2), delta("c", 2 * HOUR, clicks=4)]
    log.write([*mixed, delta("b", 7 * DAY, clicks=2)])
    state = applied(Aggregate(0, SOURCES, retention=SHORT), log.payloads)
    assert [row.offset for row in state.take_late()] == [1, 3]
    assert state.tallies["ads.metrics.meta"] == {"applied": 2, "duplicate": 1, "too_late": 2, "records": 5}
    found = [m for m in state.take_writes(publish=True)[1] if isinstance(m, Rollup) and m.platform_campaign_id == "1"]
    assert [totals(message) for message in found] == [{"clicks": 2}]


def test_a_redelivered_row_is_not_refused_again() -> None:
    """Neither one that was refused, nor one that was applied while its day was open."""
    log = late_log()
    state = applied(Aggregate(0, SOURCES, retention=SHORT), log.payloads)
    assert len(state.take_late()) == 2
    counted = account(state.tallies.values())
    for offset, payload in enumerate(log.payloads, start=len(log.payloads)):
        state.apply(offset, payload)
    assert state.take_late() == []
    assert account(state.tallies.values()) == counted


def test_a_refusal_whose_mark_was_lost_is_handed_out_again_the_same() -> None:
    log, table = late_log(), Table()
    state = Aggregate.restore(table, 0, SOURCES, retention=SHORT)
    # Behind the two envelopes with the late rows stands the word on each topic of facts.
    cut = len(log.payloads) - 2 - len(FACT_TOPICS)
    applied(state, log.payloads[:cut])
    put(table, state.take_writes(publish=True)[0])
    first = applied(state, log.payloads).take_late()
    again = applied(Aggregate.restore(table, 0, SOURCES, retention=SHORT), log.payloads).take_late()
    assert len(first) == 2
    assert again == first
    assert isinstance(first[0], LateRow)
