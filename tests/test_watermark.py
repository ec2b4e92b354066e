"""The watermark: what has been observed everywhere. Wrong clocks, quiet sources and restarts do not move it back."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.aggregate import Aggregate
from core.ingest import Ingest
from core.watermark import Watermarks
from schemas import insight as insight_codec
from schemas.rollup import Watermark
from tests.histories import DAY, HOUR, LINKS, T0, TOPICS, Fact, arrange, delta, examples, link, snapshot
from tests.pipeline import Pipeline

YEAR = 365 * DAY
reports = st.lists(st.tuples(st.integers(0, 2), st.integers(-1, 20), st.booleans()), max_size=30)


@examples(200)
@given(reports)
def test_it_never_falls_and_never_passes_what_an_active_source_has_observed(
    told: list[tuple[int, int, bool]],
) -> None:
    watermarks = Watermarks(range(3))
    newest, idle, last = [-1, -1, -1], [False, False, False], -1
    for source, value, quiet in told:
        watermarks.observe(source, value, idle=quiet)
        newest[source], idle[source] = max(newest[source], value), quiet
        active = [seen for seen, silent in zip(newest, idle, strict=True) if not silent]
        assert watermarks.value == max(last, min(active) if active else max(newest))
        last = watermarks.value


def test_it_waits_for_a_source_that_has_shown_nothing() -> None:
    watermarks = Watermarks(["a", "b"])
    watermarks.observe("a", 100)
    assert watermarks.value == -1
    watermarks.observe("b", 50)
    assert watermarks.value == 50


def test_an_idle_source_does_not_hold_it_back_until_it_speaks_again() -> None:
    watermarks = Watermarks(["a", "b"])
    watermarks.observe("a", 100)
    watermarks.observe("b", 50, idle=True)
    assert watermarks.value == 100
    watermarks.observe("b", 60)
    watermarks.observe("a", 200)
    assert watermarks.value == 100
    watermarks.observe("b", 300)
    assert watermarks.value == 200


@examples(300)
@given(reports, st.integers(0, 8))
def test_what_is_settled_waits_for_whoever_may_have_a_backlog(told: list[tuple[int, int, bool]], quiet: int) -> None:
    """It never falls or passes the watermark, nor an active source, nor an idle one but by the time allowed."""
    watermarks = Watermarks(range(3))
    newest, idle, last = [-1, -1, -1], [False, False, False], -1
    for source, value, silent in told:
        watermarks.observe(source, value, idle=silent)
        newest[source], idle[source] = max(newest[source], value), silent
        reached, settled = watermarks.value, watermarks.settled(quiet, {2})
        waits = [seen for seen, still in zip(newest[:2], idle, strict=False) if not still]
        waits += [
            max(seen, reached - quiet) for seen, still in zip(newest[:2], idle, strict=False) if still and seen >= 0
        ]
        assert settled == max(last, min([reached, *waits]))
        assert last <= settled <= reached
        last = settled


def observed(*facts: Fact) -> int:
    (source,) = arrange(facts)
    return Ingest(partitions=1).batch(*source, arrange(facts)[source]).watermark_ms


@pytest.mark.parametrize("ahead", [6 * 60_000, DAY, 100 * YEAR])
def test_a_clock_that_runs_ahead_moves_nothing(ahead: int) -> None:
    """A delta, a pull time and a link from the future are dead letters; the watermark stays at the sound rows'."""
    sound, mad = delta("a", HOUR, clicks=1), delta("b", HOUR + ahead, clicks=1)
    assert observed(sound, replace(mad, arrival=sound.arrival)) == T0 + HOUR
    row = snapshot(clicks=1)
    assert row.wire
    hasty = json.dumps({**row.wire, "observed_at": min(row.arrival + ahead, T0 + 70 * YEAR)}).encode()
    assert observed(row, replace(row, value=hasty)) == row.arrival
    told = {"version": 1, "platform": "meta", "platform_campaign_id": "1", "campaign_id": "spring"}
    mistimed = json.dumps({**told, "updated_at": min(T0 + ahead, T0 + 70 * YEAR)}).encode()
    ingested = Ingest(partitions=1).batch(LINKS, 0, arrange([Fact(LINKS, T0, mistimed)])[LINKS, 0])
    assert (ingested.watermark_ms, [row.letter.code for row in ingested.rejected]) == (-1, ["in_the_future"])


@pytest.mark.parametrize("instant", [0, -1, -DAY])
def test_a_clock_that_stands_at_the_epoch_moves_nothing(instant: int) -> None:
    fact = delta("a", clicks=1)
    assert fact.wire
    stopped = replace(fact, value=json.dumps({**fact.wire, "period_start": instant}).encode())
    assert observed(stopped) == -1
    assert observed(replace(fact, arrival=instant)) == -1


@pytest.mark.parametrize(
    ("ahead", "code"),
    [
        (DAY, "in_the_future"),
        (100 * YEAR, "bad_time"),
        (-T0, "bad_time"),
        (-T0 - 1, "bad_time"),
        (-2 * DAY, "too_late"),
    ],
)
def test_what_a_wrong_clock_wrote_is_a_dead_letter_and_sets_no_watermark(ahead: int, code: str) -> None:
    """Clocks a day and a century ahead, at the epoch, before it, and two days behind."""
    fact = delta("a", HOUR, clicks=1)
    assert fact.wire
    wrong = replace(fact, value=json.dumps({**fact.wire, "period_start": T0 + ahead}).encode())
    report = {**fact.wire, "kind": "snapshot", "period_start": T0, "period_end": T0 + DAY, "observed_at": T0 + ahead}
    del report["event_id"]
    pulled = replace(fact, value=json.dumps(report).encode())
    (source,) = sources = arrange([fact, wrong, pulled])
    ingested = Ingest(partitions=1).batch(*source, sources[source])
    assert ingested.watermark_ms == T0 + HOUR
    dead = [(row.letter.source.offset, row.letter.code) for row in ingested.rejected]
    assert dead == [(1, code), *([(2, code)] if code != "too_late" else [])], "an old pull may be told late"


def daily(days: int) -> list[Fact]:
    """Each day is reported at noon and at its end, and restated half an hour later."""
    pulls = ((DAY // 2, 1), (DAY, 2), (DAY + HOUR // 2, 3))
    return [snapshot(day=day, pulled=pulled, clicks=9 * day + count) for day in range(days) for pulled, count in pulls]


def finals(pipeline: Pipeline) -> dict[str, bytes]:
    read = [insight_codec.decode(payload) for payload in pipeline.reader.payloads.values()]
    return {each.insight_id: insight_codec.content(each) for each in read if each.phase == "final"}


@examples(30)
@given(st.lists(st.tuples(st.integers(1, 12), st.integers(1, 3), st.booleans()), min_size=1, max_size=20))
def test_a_replay_at_any_speed_gives_the_finals_of_the_live_stream(pace: list[tuple[int, int, bool]]) -> None:
    """Batches of any size, stages that lag, insights that wait: finals come of what was observed, not of when."""
    history = arrange(daily(10))
    ((source, records),) = history.items()
    live, replay = Pipeline(history), Pipeline(history)
    for pipeline in (live, replay):
        pipeline.idle()
    for _ in records:
        live.read(source, 1)
        live.drain_stages()
    for batch, lag, preliminary in pace:
        replay.read(source, batch)
        replay.apply(0, lag)
        replay.checkpoint(0)
        replay.feed(0, lag)
        replay.emit(0, preliminary=preliminary)
    replay.read(source, len(records))
    replay.drain_stages()
    assert finals(replay) == finals(live)
    assert len(finals(live)) == 2 * 9


def test_quiet_hours_and_sources_hold_nothing_back() -> None:
    """Scenario: one partition reports until 05:00 and is read to its end; another goes on. The first one's hours are
    final with the second one's time; the quiet hours between have no window.
    """
    early, later = delta("a", 4 * HOUR, clicks=1), delta("b", 9 * HOUR, campaign="2", clicks=2)
    last = delta("c", 12 * HOUR, campaign="2", clicks=4)
    pipeline = Pipeline(arrange([early, later, last], [0, 1, 1]))

    def hours() -> dict[str, str]:
        found = pipeline.reader.latest.values()
        return {each.window_start[11:16]: each.phase for each in found if each.window == "1h"}

    pipeline.read((early.topic, 0), 1)
    pipeline.read((early.topic, 1), 1)
    pipeline.drain_stages()
    assert hours() == {"04:00": "preliminary", "09:00": "preliminary"}, "other sources have shown nothing"
    pipeline.idle()
    pipeline.read((early.topic, 1), 1)
    pipeline.drain_stages()
    assert hours() == {"04:00": "final", "09:00": "final", "12:00": "preliminary"}


def test_a_restored_partition_tells_no_older_watermark() -> None:
    """Scenario: both sources idle at 5 h and 9 h, so it stands at 9 h; then the slower one speaks; then a crash."""
    topic = TOPICS["meta"]
    sources = [(topic, 0), (topic, 1)]
    ingest, aggregate, table = Ingest(partitions=1), Aggregate(0, sources), {}
    beats = [
        ingest.heartbeat(topic, 0, T0 + 5 * HOUR, idle=True),
        ingest.heartbeat(topic, 1, T0 + 9 * HOUR, idle=True),
        ingest.heartbeat(topic, 0, T0 + 6 * HOUR, idle=False),
    ]
    told = []
    for offset, ((_, payload),) in enumerate(beats):
        aggregate.apply(offset, payload)
        writes, messages = aggregate.take_writes(publish=True)
        table.update({key: value for key, value in writes if value is not None})
        told += [message.watermark_ms for message in messages if isinstance(message, Watermark)]
    assert told == [T0 + 9 * HOUR]
    restored = Aggregate.restore(table, 0, sources)
    assert restored.watermarks.value == aggregate.watermarks.value == T0 + 9 * HOUR


def test_old_links_do_not_set_it_back() -> None:
    assert observed(link("spring", 2 * HOUR), link("summer", HOUR)) == T0 + 2 * HOUR
