"""The short tier of the fault injection, and its checker, which must be able to find what it looks for."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from confluent_kafka import Producer

from core.offline import Computed, compute
from schemas import insight as insight_codec
from schemas import topics as names
from schemas.insight import CrossPlatformInsight, Version
from stream_app.domain import ingest_config, insight_config
from stream_app.errors import ParallaxError
from stream_app.feed import StoredRecord
from stream_app.settings import Settings
from stream_app.topics import name
from tests.chaos import armed_worker
from tests.chaos.chapters import KEYS, LINKS, Chapter, Sent, is_poison, is_restated
from tests.chaos.checker import Findings, check
from tests.chaos.cluster import Application, Servers, servers
from tests.chaos.faults import GROUPS
from tests.chaos.input_faults import RetentionPassed
from tests.chaos.redis_faults import RedisFlushed
from tests.chaos.session import Session
from tests.chaos.sinks import Letter, Logs, Sinks
from tests.chaos.stream import Acknowledged, checksum
from tests.live import EVER, ROOT, by_id, newest_windows, with_content

SEED: Final = int(os.environ.get("PARALLAX_TEST_SEED", "20261124"))
ARRIVAL: Final = 1_750_000_000_000
WANTED: Final[dict[str, Any]] = {
    "partitions": 2,
    "horizon": EVER,
    "delta_lateness": EVER,
    "windows": ("1h", "24h", "2d"),
}
SETTINGS: Final = Settings(**WANTED)


pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def on() -> Iterator[Servers]:
    """Servers of this module alone. Their absence ends the run: it is never a skip."""
    try:
        with servers() as running:
            yield running
    except ParallaxError as error:
        pytest.exit(str(error), returncode=error.exit_code)


@pytest.mark.kafka
@pytest.mark.redis
@pytest.mark.timeout(400)
@pytest.mark.parametrize("group", GROUPS)
def test_faults_lose_nothing_and_count_nothing_twice(on: Servers, group: str, tmp_path: Path) -> None:
    print(f"PARALLAX_TEST_SEED={SEED}")
    session = Session(on, SEED, long=False, kept=tmp_path)
    results, deleted = [], False
    for result, app in session.run(GROUPS[group]):
        results.append(result)
        deleted = deleted or result.fault == RetentionPassed.name
        if result.fault == GROUPS[group][-1].name and result.ok:
            replayed = app.replay()
            # Where retention took records, replay says that it cannot prove anything, and only that.
            assert replayed.returncode == (4 if deleted else 0), replayed.stdout + replayed.stderr
    assert [result.fault for result in results] == [fault.name for fault in GROUPS[group]]
    assert not {result.fault: (result.problems, result.findings) for result in results if not result.ok}


@pytest.mark.kafka
@pytest.mark.redis
@pytest.mark.timeout(180)
def test_tampering_with_topics_and_redis_is_noticed(on: Servers, tmp_path: Path) -> None:
    """Scenario: after a run in which nothing was wrong, each sink is changed by hand.

    Expectation: the same check finds each change, and tells a loss, a second count and a stale overwrite apart.
    """
    for result, app in Session(on, SEED, long=False, kept=tmp_path).run([RedisFlushed]):
        assert result.ok, (result.problems, result.findings)
        tamper_with(app)


def tamper_with(app: Application) -> None:
    # The first of a campaign's two days: Redis holds the other one.
    campaign, day = min(cell for cell in app.stream.chapters[0].expected(released=True) if not is_restated(cell[0]))
    [held] = [
        insight
        for insight in with_content(by_id(_newest(app.sinks().insights))).values()
        if (insight.campaign_id, insight.window, insight.window_start[:10]) == (campaign, "24h", day)
    ]
    clicks = held.totals.clicks or 0

    _publish(app, names.INSIGHTS, _changed(held, 1, clicks - 1))
    found = _checked(app)
    assert (found.lost, found.twice, found.stale) == (1, 0, 0)
    assert any("insights topic: 1 insights differ" in problem for problem in found.problems)

    _publish(app, names.INSIGHTS, _changed(held, 2, clicks + 2))
    found = _checked(app)
    assert (found.lost, found.twice, found.stale) == (0, 2, 0)

    _publish(app, names.INSIGHTS_LATEST, _changed(held, -1, clicks))
    assert _checked(app).stale == 1

    _publish(app, names.INSIGHTS, _changed(held, 3, clicks))
    newest = next(insight for insight in app.sinks().hot.values() if insight.platform_breakdown)
    with app.redis() as client:
        older = msgspec.structs.replace(newest, version=Version(0, 0), confidence=0.5)
        client.hset(
            f"parallax:insight:{newest.campaign_id}:{newest.window}",
            mapping={"revision": 0, "phase": 0, "value": insight_codec.encode(older)},
        )
    app.wait("the watch has seen the version fall", lambda: app.watch.falls, 10)
    found = _checked(app)
    assert found.stale == 3
    assert any("redis: 1 insights differ" in problem for problem in found.problems)


def _newest(insights: Iterable[CrossPlatformInsight]) -> Iterable[CrossPlatformInsight]:
    found: dict[str, CrossPlatformInsight] = {}
    for insight in insights:
        if insight.insight_id not in found or found[insight.insight_id].version < insight.version:
            found[insight.insight_id] = insight
    return found.values()


def _changed(insight: CrossPlatformInsight, later: int, clicks: int) -> CrossPlatformInsight:
    version = Version(insight.version.revision + later, insight.version.phase)
    totals = msgspec.structs.replace(insight.totals, clicks=clicks)
    return msgspec.structs.replace(insight, version=version, totals=totals)


def _publish(app: Application, base: str, insight: CrossPlatformInsight) -> None:
    producer = Producer(app.settings.confluent_config())
    producer.produce(name(app.settings, base), insight_codec.encode(insight), insight.insight_id.encode(), partition=0)
    assert producer.flush(10) == 0


def _checked(app: Application) -> Findings:
    return check(app.sinks(), app.stream.acknowledged, app.stream.expected(), app.settings)


class World:
    """Sinks as they would be, had ``processed`` been processed of what was ``sent``."""

    def __init__(self) -> None:
        self.chapters = [Chapter("self", number, 30, SEED) for number in range(2)]
        self.sent = [record for chapter in self.chapters for record in (*chapter.records(), *chapter.withheld)]
        self.expected = {cell: sums for each in self.chapters for cell, sums in each.expected(released=True).items()}
        self.inputs = stored(self.sent)
        self.acknowledged = [
            Acknowledged(topic, partition, record.offset, checksum(record.value))
            for (topic, partition), records in self.inputs.items()
            for record in records
        ]

    def sinks(self, processed: Sequence[Sent] | None = None) -> Sinks:
        done = computed(stored(self.sent if processed is None else processed))
        early = computed(stored(self.sent[: len(self.sent) // 2]))
        insights = [
            msgspec.structs.replace(insight, version=Version(revision, 0))
            for revision, each in enumerate((early, done), start=1)
            for insight in each.insights
        ]
        final = with_content(by_id(insights[len(early.insights) :]))
        # A campaign that has got a link loses what it had under its own name.
        emptied = [
            msgspec.structs.replace(insight, version=Version(2, 0), platform_breakdown={})
            for insight in insights[: len(early.insights)]
            if insight.insight_id not in final
        ]
        insights += emptied
        return Sinks(
            inputs=self.inputs,
            insights=insights,
            latest=[(insight.insight_id, insight) for insight in insights],
            letters=[Letter(row.letter, row.record.key, row.record.value) for row in done.rejected],
            hot=newest_windows(final),
            accounting=msgspec.to_builtins(done.accounting),
        )

    def check(self, sinks: Sinks) -> Findings:
        return check(sinks, self.acknowledged, self.expected, SETTINGS)


def stored(records: Iterable[Sent]) -> Logs:
    logs: Logs = defaultdict(list)
    for record in records:
        log = logs[record.topic, len(record.key or b"") % 2]
        log.append(StoredRecord(len(log), ARRIVAL, record.key, record.value, []))
    return logs


def computed(logs: Logs) -> Computed:
    batches = [(topic, partition, records) for (topic, partition), records in logs.items()]
    return compute(batches, ingest_config(SETTINGS), insight_config(SETTINGS))


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def a_delta(world: World, key: int) -> Sent:
    """An event of a key that was sent once."""
    records = [
        record for record in world.sent if f".{key:02d}.".encode() in (record.key or b"") and record.topic != LINKS
    ]
    return next(record for record in records if world.sent.count(record) == 1 and not is_poison(record.key))


def altered(record: Sent, **changed: object) -> Sent:
    return record._replace(value=json.dumps({**json.loads(record.value or b""), **changed}).encode())


def test_the_two_oracles_agree_where_nothing_is_wrong(world: World) -> None:
    assert len(world.sent) > 1.05 * len(set(world.sent)), "there are duplicates"
    assert world.check(world.sinks()) == Findings()


def test_a_loss_is_found(world: World) -> None:
    lost = a_delta(world, KEYS - 2)
    found = world.check(world.sinks([record for record in world.sent if record != lost]))
    assert (found.lost, found.twice, found.stale) == (1, 0, 0)
    assert len([problem for problem in found.problems if "differ from core offline" in problem]) == 3
    assert any(problem.startswith("accounting") for problem in found.problems)


def test_a_second_count_is_found(world: World) -> None:
    again = altered(a_delta(world, KEYS - 2), event_id="another")
    found = world.check(world.sinks([*world.sent, again]))
    assert (found.lost, found.twice, found.stale) == (0, 1, 0)
    assert len([problem for problem in found.problems if "differ from core offline" in problem]) == 3


def test_a_swap_is_found(world: World) -> None:
    one, other = a_delta(world, KEYS - 2), a_delta(world, KEYS - 5)
    campaigns = [json.loads(record.value or b"")["campaign_id"] for record in (other, one)]
    assert campaigns[0] != campaigns[1]
    swapped = {one: altered(one, campaign_id=campaigns[0]), other: altered(other, campaign_id=campaigns[1])}
    found = world.check(world.sinks([swapped.get(record, record) for record in world.sent]))
    assert (found.lost, found.twice) == (2, 2)
    assert len([problem for problem in found.problems if "differ from core offline" in problem]) == 3


def test_a_restatement_that_was_not_the_last_is_found(world: World) -> None:
    newest = f'"observed_at": {max(json.loads(record.value or b"{}").get("observed_at", 0) for record in restated())}'
    kept = [record for record in world.sent if newest.encode() not in (record.value or b"")]
    assert len(kept) < len(world.sent)
    assert world.check(world.sinks(kept)).lost > 0


def restated() -> list[Sent]:
    return [record for record in Chapter("self", 0, 30, SEED).records() if b".restated-" in (record.key or b"")]


def older(insight: CrossPlatformInsight) -> CrossPlatformInsight:
    return msgspec.structs.replace(insight, version=Version(1, 0), confidence=0.125)


def stale_compacted(sinks: Sinks) -> Sinks:
    key, last = sinks.latest[-1]
    return sinks._replace(latest=[*sinks.latest, (key, older(last))])


def stale_hot(sinks: Sinks) -> Sinks:
    slot, held = next(iter(sinks.hot.items()))
    return sinks._replace(hot={**sinks.hot, slot: older(held)})


def fallen_hot(sinks: Sinks) -> Sinks:
    return sinks._replace(hot_falls=1)


@pytest.mark.parametrize("tamper", [stale_compacted, stale_hot, fallen_hot])
def test_a_stale_overwrite_is_found(world: World, tamper: Callable[[Sinks], Sinks]) -> None:
    found = world.check(tamper(world.sinks()))
    assert (found.lost, found.twice, found.stale) == (0, 0, 1)


def falls(sinks: Sinks) -> Sinks:
    return sinks._replace(insights=[*sinks.insights, older(sinks.insights[-1])])


def two_contents(sinks: Sinks) -> Sinks:
    return sinks._replace(insights=[*sinks.insights, msgspec.structs.replace(sinks.insights[-1], confidence=0.125)])


def no_letter(sinks: Sinks) -> Sinks:
    return sinks._replace(letters=sinks.letters[1:])


def odd_letter(sinks: Sinks) -> Sinks:
    letter = sinks.letters[0]
    source = msgspec.structs.replace(letter.described.source, offset=999_999)
    identity = f"{source.topic}/{source.partition}/{source.offset}/{source.index}"
    described = msgspec.structs.replace(letter.described, id=identity, source=source)
    return sinks._replace(letters=[*sinks.letters, letter._replace(described=described)])


def wrong_code(sinks: Sinks) -> Sinks:
    first, *others = sinks.letters
    described = msgspec.structs.replace(first.described, code="too_late")
    return sinks._replace(letters=[first._replace(described=described), *others])


def torn_letter(sinks: Sinks) -> Sinks:
    first, *others = sinks.letters
    return sinks._replace(letters=[first._replace(value=b"cut"), *others])


def miscounted(sinks: Sinks) -> Sinks:
    return sinks._replace(accounting={**sinks.accounting, "duplicate": sinks.accounting["duplicate"] - 1})


def emptied_hot(sinks: Sinks) -> Sinks:
    return sinks._replace(hot=dict(list(sinks.hot.items())[1:]))


def unacknowledged(sinks: Sinks) -> Sinks:
    where, records = max(sinks.inputs.items(), key=lambda log: len(log[1]))
    return sinks._replace(inputs={**sinks.inputs, where: records[:-1]})


@pytest.mark.parametrize(
    ("tamper", "told"),
    [
        (falls, "a version fell"),
        (two_contents, "two contents"),
        (no_letter, "are missing"),
        (odd_letter, "are unexplained"),
        (wrong_code, "are not what was sent"),
        (torn_letter, "are not what was sent"),
        (miscounted, "accounting"),
        (emptied_hot, "redis"),
        (unacknowledged, "acknowledged records are not on their topics"),
    ],
)
def test_whatever_else_is_wrong_is_found(world: World, tamper: Callable[[Sinks], Sinks], told: str) -> None:
    found = world.check(tamper(world.sinks()))
    assert any(told in problem for problem in found.problems), found


def test_a_dead_letter_that_was_written_again_is_no_fault_and_is_counted(world: World) -> None:
    sinks = world.sinks()
    assert world.check(sinks._replace(letters=[*sinks.letters, sinks.letters[0]])) == Findings(repeats=1)


def test_a_seed_repeats_the_workload() -> None:
    one, other, different = (Chapter("run", 3, 30, seed).records() for seed in (1, 1, 2))
    assert one == other
    assert one != different
    assert sorted(map(repr, set(one))) == sorted(map(repr, set(different)))


def test_a_worker_can_be_ended_at_every_point() -> None:
    code = "from tests.chaos.armed_worker import *; print(arm(Trigger(Path('absent'))))"
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert told.strip() == "[]"


def test_the_trigger_strikes_once_at_the_count_and_point_that_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trigger"
    ended: list[int] = []
    stopped: list[Any] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(os, "kill", lambda *call: stopped.append(call))
    trigger = armed_worker.Trigger(path)
    trigger.reached("decoded")
    path.write_text("before redis exit 2")
    for point in ("before redis", "decoded", "decoded"):
        trigger.reached(point)
    assert not ended
    trigger.reached("before redis")
    trigger.reached("before redis")
    assert ended == [armed_worker.EXIT_CODE]
    assert not path.exists()
    path.write_text("checkpoint taken stop 1")
    trigger.reached("checkpoint taken")
    assert len(stopped) == 1
