"""Retention: days past their floor refuse rows by name and leave memory and table; nothing else changes."""

from collections import defaultdict
from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import blocks
from core.aggregate import MARK_KEY, Aggregate, LateRow, Mark
from core.ingest import Ingest
from core.lateness import Lateness
from core.retention import NO_FLOORS, Retention
from schemas import rollup as rollup_codec
from schemas.calendar import iso_date
from schemas.rollup import Rollup
from tests.histories import DAY, HOUR, LINKS, T0, TOPICS, Fact, Flat, delta, examples, link, snapshot
from tests.oracle import added, window_totals
from tests.pipeline import put
from tests.routed_log import FIRST, SHORT, SOURCES, WHOLE, Log, Reader, Table, applied, now, totals


def kinds(table: Table) -> list[str]:
    decode = msgspec.msgpack.Decoder(tuple[str, str, str, int]).decode
    return [decode(key)[0] for key in table]


@pytest.mark.parametrize(
    ("hours", "snapshot_floor", "delta_floor"),
    [(0, -4, -3), (23, -4, -3), (24, -3, -2), (5 * 24, 1, 2), (5 * 24 + 23, 1, 2), (6 * 24, 2, 3)],
)
def test_a_day_takes_rows_until_two_days_after_it_began_plus_lateness_and_grace(
    hours: int, snapshot_floor: int, delta_floor: int
) -> None:
    floors = SHORT.floors(T0 + hours * HOUR)
    assert [floor - FIRST for floor in floors] == [snapshot_floor, delta_floor, snapshot_floor - 1]


@examples(200)
@given(st.integers(-1, 200 * DAY), st.integers(0, 5 * DAY), st.integers(0, 40), st.integers(0, 40))
def test_floors_rise_with_the_watermark_and_spare_every_row_in_time(
    watermark: int, later: int, delta_days: int, more_days: int
) -> None:
    """A row that arrives within its lateness of the watermark is never refused, in the westernmost zone neither."""
    retention = Retention(horizon_ms=(delta_days + more_days) * DAY, delta_ms=delta_days * DAY)
    before, after = retention.floors(watermark), retention.floors(watermark + later)
    assert all(low <= high for low, high in zip(before, after, strict=True))
    assert before.block <= before.snapshot <= before.delta
    if watermark >= 0:
        for floor, lateness in ((before.snapshot, retention.horizon_ms), (before.delta, retention.delta_ms)):
            oldest_start = watermark - lateness
            assert floor <= (oldest_start - 12 * HOUR) // DAY
    else:
        assert before == NO_FLOORS


@pytest.mark.parametrize(
    "wrong", [{"horizon_ms": DAY - 1}, {"delta_ms": -1}, {"window_days": 0}, {"grace_ms": -1}], ids=str
)
def test_a_retention_that_makes_no_sense_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="retention wants"):
        Retention(**wrong)


def beat(log: Log, platform: str, *, idle: bool) -> Log:
    """A source tells what it has observed, and whether it has been read to its end."""
    topic = TOPICS[platform]
    log.payloads += [payload for _, payload in Ingest(1).heartbeat(topic, 0, log.watermarks[topic], idle=idle)]
    return log


@pytest.mark.parametrize(("outage", "late"), [(3, 0), (5, 0), (6, 0), (7, 1), (30, 1)])
def test_a_source_that_was_idle_before_an_outage_is_waited_for_after_it(outage: int, late: int) -> None:
    """Scenario: all sources are idle, the worker is down for days, and then reads one source before the other. The
    other's oldest delta was in time when it arrived.
    """
    log = Log().write(now(1))
    for platform in TOPICS:
        beat(log, platform, idle=True)
    log.write(now(1 + outage, platforms=["meta"]))
    log.write([delta("a", DAY + HOUR, platform="tiktok", clicks=5)])
    state = applied(Aggregate(0, SOURCES, retention=SHORT), log.payloads)
    assert state.watermarks.value == T0 + (1 + outage) * DAY
    assert len(state.take_late()) == late


def test_a_source_that_speaks_again_is_waited_for_until_it_has_caught_up() -> None:
    log = Log().write(now(1))
    for platform in TOPICS:
        beat(log, platform, idle=True)
    beat(log, "tiktok", idle=False).write(now(30, platforms=["meta"])).write(now(2, platforms=["tiktok"]))
    log.write([delta("a", DAY + HOUR, platform="tiktok", clicks=5)])
    assert applied(Aggregate(0, SOURCES, retention=SHORT), log.payloads).take_late() == []


def test_ids_go_first_and_blocks_stay_a_window_longer_than_they_take_rows() -> None:
    log, table, seen = Log().write([delta("a", HOUR, clicks=1), snapshot(clicks=5)]), Table(), []
    state = Aggregate.restore(table, 0, SOURCES, retention=SHORT)
    for day in range(9):
        log.write(now(day, 1))
        applied(state, log.payloads)
        put(table, state.take_writes(publish=True)[0])
        seen.append({kind for kind, of in held_days(table) if of == FIRST})
    assert seen == [{"block", "ids"}] * 4 + [{"block"}] * 2 + [set()] * 3


def held_days(table: Table) -> list[tuple[str, int]]:
    """Kind and day of the blocks and ids in a table."""
    keys = [msgspec.msgpack.decode(key) for key in table]
    return [(key[0], key[3] if key[0] == "block" else int(key[1])) for key in keys if key[0] in ("block", "ids")]


def test_a_link_still_moves_a_day_that_takes_no_more_rows() -> None:
    log, reader = Log().write([snapshot(clicks=5), *now(1)]).write(now(5)), Reader()
    state = applied(Aggregate(0, SOURCES, retention=SHORT), log.payloads)
    reader.read(state.take_writes(publish=True)[1])
    log.write([link("spring", 5 * DAY)])
    reader.read(applied(state, log.payloads).take_writes(publish=True)[1])
    (moved,) = [m for m in reader.standing.values() if m.platform_campaign_id == "1"]
    assert (moved.campaign_id, totals(moved)) == ("spring", {"clicks": 5})


def waits(state: Aggregate) -> bool:
    """Whether the state wants a checkpoint."""
    return state.pending


def test_a_rollup_that_was_put_off_is_sent_before_its_block_goes() -> None:
    """Scenario: rollups wait while the log is caught up with, and days pass their floor meanwhile; then a crash."""
    log, table = Log().write([snapshot(clicks=5), *now(1)]).write(now(9)), Table()
    state = Aggregate.restore(table, 0, SOURCES, retention=SHORT)
    put(table, applied(state, log.payloads).take_writes(publish=False)[0])
    for heir in (state, Aggregate.restore(table, 0, SOURCES, retention=SHORT)):
        held, reader = dict(table), Reader()
        assert waits(heir)
        writes, messages = heir.take_writes(publish=True)
        assert not [write for write in writes if write.value is None and b"block" in write.key]
        put(held, writes)
        reader.read(messages)
        assert {"clicks": 5} in [totals(message) for message in reader.held.values()]
        assert waits(heir)
        put(held, heir.take_writes(publish=True)[0])
        assert not waits(heir)
        assert kinds(held).count("block") == len(heir.blocks) == 3
        again = Aggregate.restore(held, 0, SOURCES, retention=SHORT)
        assert (again.pending, again.owes) == (False, 0)


def test_deletes_that_a_crash_cut_off_are_owed_again() -> None:
    log, table = Log().write([snapshot(clicks=5), *now(1)]), Table()
    state = applied(Aggregate.restore(table, 0, SOURCES, retention=SHORT), log.payloads)
    put(table, state.take_writes(publish=True)[0])
    writes, _ = applied(state, log.write(now(9)).payloads).take_writes(publish=True)
    deletes = [write for write in writes if write.value is None]
    assert writes[-len(deletes) - 1].key == MARK_KEY, "the mark comes before all deletes"
    assert len(deletes) == 4 + 1, "blocks, and a chunk of ids"
    put(table, writes[:-1])
    while state.owes or state.pending:
        put(table, state.take_writes(publish=True)[0])
    put(table, state.take_writes(publish=True)[0])
    heir = Aggregate.restore(table, 0, SOURCES, retention=SHORT)
    assert (heir.owes, waits(heir)) == (0, True)
    assert [write for write in heir.take_writes(publish=True)[0] if write.value is None] == deletes[-1:]
    assert not waits(heir)


def test_a_move_that_was_put_off_is_sent_before_its_blocks_go() -> None:
    """Scenario: a link moves a day that still has a block; its rollups wait until the day is past its floor."""
    log, reader = Log().write([snapshot(clicks=5), *now(1)]).write(now(5)), Reader()
    state = applied(Aggregate(0, SOURCES, retention=SHORT), log.payloads)
    reader.read(state.take_writes(publish=True)[1])
    applied(state, log.write([link("spring", 5 * DAY)]).write(now(9)).payloads)
    reader.read(state.take_writes(publish=False)[1])
    reader.read(state.take_writes(publish=True)[1])
    assert [m.campaign_id for m in reader.standing.values() if m.platform_campaign_id == "1"] == ["spring"]
    state.take_writes(publish=True)
    assert len(state.blocks) == 2 * 3, "those of the clock"


def test_a_great_expiry_goes_by_and_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many blocks a checkpoint, whatever still owes a rollup; a crash on the way begins where it was."""
    monkeypatch.setattr(blocks, "AT_ONCE", 2)
    log, table = Log().write([snapshot(campaign=str(n), clicks=n) for n in range(5)] + now(1)), Table()
    state = applied(Aggregate.restore(table, 0, SOURCES, retention=SHORT), log.payloads)
    put(table, state.take_writes(publish=True)[0])
    left = []
    applied(state, log.write(now(9)).payloads)
    while state.pending:
        put(table, state.take_writes(publish=True)[0])
        left.append(len(state.blocks))
        if len(left) == 2:
            state = Aggregate.restore(table, 0, SOURCES, retention=SHORT)
            left.append(len(state.blocks))
    assert left[:3] == [9, 7, 5]
    assert left[-1] == kinds(table).count("block") == 3
    assert len(left) <= 6


def steps() -> list[list[Fact]]:
    """Ten days in steps of twelve hours: deltas, some repeated, restatements, links, and rows that were held up."""
    found = []
    for step in range(20):
        at = step * 12 * HOUR
        day = at // DAY
        facts = [delta(f"{step}-{n}", at + n * HOUR, clicks=1 + n, impressions=9, currency="USD") for n in range(2)]
        facts += [delta(f"{step}-0", at, clicks=1, impressions=9, currency="USD")]
        if step >= 7:
            # On some days this is the last envelope before the ids of the day expire.
            facts += [delta(f"{step - 7}-0", at - 7 * 12 * HOUR, clicks=1, impressions=9, currency="USD")]
        facts += [
            delta(f"{step}", at, platform="tiktok", clicks=7),
            delta(f"{step}", at, platform="google_ads", clicks=1),
        ]
        facts += [
            snapshot(day=day - back, pulled=back * DAY + at % DAY + HOUR, campaign="2", clicks=step, spend_micros=3)
            for back in (1, 2)
            if day >= back
        ]
        if step in (5, 13, 17):
            facts.append(link(("spring", "summer", None)[step % 3], at))
        if step >= 12 and step % 3 == 0:
            facts += [delta(f"held-{step}", DAY, clicks=100), snapshot(day=1, clicks=step, pulled=2 * DAY)]
        found.append(facts)
    return found


def course(log: list[bytes], ends: list[int], table: Table, reader: Reader, letters: set[LateRow]) -> list[Table]:
    """Checkpoints after every step of the log, from where the table stands, with the heir's first one before them.
    The tables before each of them.
    """
    state = Aggregate.restore(table, 0, SOURCES, retention=SHORT, in_memory=2)
    befores = []
    for end in [0, *(end for end in ends if end > state.position + 1), 0]:
        befores.append(dict(table))
        for offset in range(state.position + 1, end):
            state.apply(offset, log[offset])
        letters |= set(state.take_late())
        writes, messages = state.take_writes(publish=True)
        put(table, writes)
        reader.read(messages)
    assert not state.owes
    assert not state.pending
    return befores


def test_a_crash_after_any_write_around_an_expiry_changes_nothing() -> None:
    """Table, rollups and letters end as they do without a crash, whichever write is the last that is done."""
    log = Log()
    ends = [len(log.write(facts).payloads) for facts in steps()]
    table, reader, letters = Table(), Reader(), set[LateRow]()
    befores = course(log.payloads, ends, table, reader, letters)
    assert len(letters) == 5, "of the first pair the snapshot is still in time"
    crashes = deletes = 0
    for number, end in enumerate(ends):
        before = befores[number + 1]
        position = msgspec.msgpack.decode(before.get(MARK_KEY, b"\x90"), type=Mark).position
        dying = Aggregate.restore(before, 0, SOURCES, retention=SHORT)
        for offset in range(position + 1, end):
            dying.apply(offset, log.payloads[offset])
        told = set(dying.take_late())
        writes, messages = dying.take_writes(publish=True)
        deletes += sum(write.value is None for write in writes)
        for done in range(len(writes) + 1):
            crashes += 1
            left, again, sent = dict(before), Reader(), set(told)
            put(left, writes[:done])
            again.held, again.known = dict(reader_at(reader, position)), dict(reader.known)
            if done == len(writes):
                again.read(messages[::2])
            course(log.payloads, ends, left, again, sent)
            assert whole(left) == whole(table), (number, done)
            assert again.standing == reader.standing, (number, done)
            assert sent <= letters
    assert deletes > 20
    assert crashes > 150


def whole(table: Table) -> dict[bytes, object]:
    """A table's content. Rows of a block that was ahead of its mark were applied, and count as duplicates."""
    mark = msgspec.msgpack.decode(table[MARK_KEY], type=Mark)
    for tally in mark.tallies.values():
        tally["used"] = sum(tally.pop(end, 0) for end in ("applied", "duplicate", "superseded"))
    return {**table, MARK_KEY: mark}


def reader_at(reader: Reader, position: int) -> dict[bytes, Rollup]:
    """What a reader had kept of the rollups up to a position of the routed log."""
    held: dict[bytes, Rollup] = {}
    for (key, revision), payload in reader.known.items():
        message = rollup_codec.decode(payload)
        assert isinstance(message, Rollup)
        if revision <= position + 1 and (key not in held or held[key].revision < revision):
            held[key] = message
    return held


# A long run


SOAK = Retention(horizon_ms=10 * DAY, delta_ms=DAY, window_days=7, grace_ms=DAY)
SOAK_DAYS = 90


def hour_of(day: int, hour: int) -> list[Fact]:
    """What connectors say in one hour: deltas, some twice; in the morning every report of the last nine days, restated
    up and down; now and then a link.
    """
    at = day * DAY + hour * HOUR
    facts = [
        delta(f"{at}-{campaign}", at + 60_000, platform=platform, campaign=campaign, clicks=1 + hour, **WHOLE)
        for platform, campaign in (("meta", "1"), ("tiktok", "1"), ("google_ads", "7"))
    ]
    facts += [facts[0], *now(day, hour)]
    if hour == 6:
        facts += [
            snapshot(
                platform, campaign, day - back, pulled=back * DAY + 6 * HOUR, spend_micros=(day * back) % 7 + 1, **WHOLE
            )
            for platform, campaign in (("meta", "1"), ("meta", "2"), ("google_ads", "7"))
            for back in range(1, 10)
        ]
    if hour == 12 and day % 9 == 4:
        facts.append(link(("spring", "summer", None)[day // 9 % 3], at))
    return facts


def test_ninety_days_take_no_more_room_than_thirty() -> None:
    """Keys, bytes, blocks, panes and ids stay level once the first days have gone, and what is kept is right."""
    table, reader, log = Table(), Reader(), Log(Lateness(horizon_ms=SOAK.horizon_ms, delta_ms=SOAK.delta_ms))
    state = Aggregate.restore(table, 0, SOURCES, retention=SOAK, in_memory=20)
    history: list[Fact] = []
    sizes: list[dict[str, int]] = []
    for day in range(10, 10 + SOAK_DAYS):
        largest: dict[str, int] = {}
        for hour in range(24):
            facts = hour_of(day, hour)
            history += facts
            applied(state, log.write(facts).payloads)
            writes, messages = state.take_writes(publish=True)
            put(table, writes)
            reader.read(messages)
            for name, size in room(state, table).items():
                largest[name] = max(largest.get(name, 0), size)
        sizes.append(largest)
    for name in sizes[0]:
        by_day = [size[name] for size in sizes]
        assert max(by_day[20:]) <= 1.1 * max(by_day[20:30]), name
        assert min(by_day[20:]) > 0, name
    assert not state.take_late()
    floor = SOAK.floors(state.watermarks.value).block
    assert floor - FIRST == 10 + SOAK_DAYS - 1 - (10 + 1 + 7) - 1
    kept = [fact for fact in history if fact.topic == LINKS or day_of(fact) >= floor]
    expected = {
        (campaign, day): flat for (campaign, window, day), flat in window_totals(kept).items() if window == "24h"
    }
    assert by_campaign(reader.standing.values(), floor) == expected
    unsent = {**table, MARK_KEY: msgspec.msgpack.encode(Mark(position=state.position, reached=state.watermarks.value))}
    restored = Aggregate.restore(unsent, 0, SOURCES, retention=SOAK).take_writes(publish=True)[1]
    assert by_campaign([m for m in restored if isinstance(m, Rollup) and not m.withdrawn], floor) == expected


def room(state: Aggregate, table: Table) -> dict[str, int]:
    """What a state and its table take."""
    return {
        "keys": len(table),
        "bytes": sum(len(key) + len(value) for key, value in table.items()),
        "blocks": len(state.blocks),
        "decoded": state.blocks.decoded,
        "panes": state.blocks.panes.rows,
        "ids": len(state.ids),
    }


def day_of(fact: Fact) -> int:
    """The day of a metric record without a zone."""
    assert fact.wire
    return int(fact.wire["period_start"]) // DAY


def by_campaign(messages: Iterable[Rollup], floor: int) -> dict[tuple[str, str], Flat]:
    """The rollups' totals by campaign and day, from a floor on."""
    found = defaultdict(list)
    for message in messages:
        if message.day >= floor:
            found[message.campaign_id, iso_date(message.day)].append(totals(message))
    return {name: added(flats) for name, flats in found.items()}
