"""Workers that die, leave and join in mid-run: the insights at the end are those of the records, each counted once."""

import json
import os
import signal
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import pytest

from core.campaigns import InsightConfig
from core.ingest import Ingest
from core.offline import Computed, compute
from schemas import topics as names
from stream_app.feed import Feed, StoredRecord
from stream_app.local_worker import LocalWorker
from stream_app.outputs import Outputs
from stream_app.simulator import SimRecord, live, simulate
from tests.live import Insights, Live, Stream, by_id, differences, offline, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(150)]

SEED = int(os.environ.get("PARALLAX_TEST_SEED", "20250615"))
CAMPAIGNS, DAYS = 8, 6
PER_SECOND = 4_000
LIVE_EVENTS = 12_000
EXIT_S = 10.0


@pytest.fixture(scope="module")
def records() -> list[SimRecord]:
    """Some 34,000 records: native rows with restatements and duplicates, poison, late links, and canonical deltas."""
    simulation = simulate(SEED, CAMPAIGNS, DAYS)
    days = [record for step in simulation.steps for record in step.records]
    last = max(record.timestamp_ms for record in days)
    return [*days, *islice(live(SEED, last + 1_000, CAMPAIGNS, DAYS), LIVE_EVENTS)]


@pytest.fixture
def running(kafka: str, redis_server: tuple[str, int], tmp_path: Path) -> Iterator[Live]:
    print(f"PARALLAX_TEST_SEED={SEED}")
    accounts = simulate(SEED, CAMPAIGNS, DAYS).accounts
    with Live(kafka, redis_server, tmp_path, redis_db=12, accounts=accounts, partitions=6) as app:
        yield app


def in_mid_run(app: Live, worker: LocalWorker, stream: Stream) -> bool:
    """Whether a worker has made a checkpoint since it got input, and has been given more than it has finished."""
    status = worker.status()
    return (
        status is not None
        and stream.publishing
        and status["ingest"]["records"] > 1_000
        and bool(status["partitions"][names.ROUTED])
        and bool(status["partitions"][names.ROLLUPS])
        and sum(status["lag"].values()) > 0
        and status["checkpoints"]["aggregate"]["last_at"] > status["ingest"]["first_at"]
    )


def unfinished_of(app: Live, owned: set[int]) -> int:
    """How many records the topics hold in some partitions beyond what the group has committed."""
    committed, ends = app.committed(), app.ends()
    return sum(ends[base, p] - committed[base, p] for base, p in ends if p in owned)


def check(app: Live, feed: Feed) -> Computed:
    """Nothing is left; insights, dead letters and accounting are those of the records as the broker stored them."""
    accounting = app.drain(feed.count)
    computed = offline(feed, app.settings)
    app.check(by_id(computed.insights))
    expected = computed.accounting
    assert expected.adds_up
    assert expected.rows > expected.records == accounting["records"]
    for what in ("dead_letters", "ignored"):
        assert accounting[what] == getattr(expected, what)
    ends = accounting["applied"] + accounting["duplicate"] + accounting["superseded"]
    assert ends + sum(accounting["dead_letters"].values()) + sum(accounting["ignored"].values()) == expected.rows
    # Deltas are deduplicated by their ids, whatever worker saw them, and equal rows however they are ordered.
    assert ends == expected.applied + expected.duplicate + expected.superseded
    assert accounting["duplicate"] > 0
    with Outputs(app.settings) as outputs:
        assert outputs.catch_up()
        assert outputs.dead_letters.keys() == {row.letter.id for row in computed.rejected}
    return computed


def test_kill_9_of_one_of_two_in_mid_run_changes_nothing(running: Live, records: list[SimRecord]) -> None:
    """Scenario: two workers share a stream; one is killed with work in flight; the other takes its partitions over.

    Expectation: insights, Redis and accounting are those of the records, each counted once.
    """
    app = running
    victim, heir = app.start(), app.start()
    app.ready(victim, heir)
    feed = Feed(app.settings)
    with Stream(feed, records, PER_SECOND) as stream:
        wait_until("the victim is in mid-run", lambda: in_mid_run(app, victim, stream))
        status = victim.status()
        victim.process.process.send_signal(signal.SIGKILL)
        assert victim.process.process.wait(5) == -signal.SIGKILL
        assert status is not None
        owned = set(status["partitions"][names.ROUTED]) | set(status["partitions"][names.ROLLUPS])
        assert owned
        assert unfinished_of(app, owned) > 0, "the kill came when nothing was in flight"
        assert stream.publishing
        assert stream.finish() == len(records)
    app.ready(heir)
    computed = check(app, feed)
    assert len(computed.insights) > 200
    heir_status = heir.status()
    assert heir_status is not None
    assert heir_status["malformed"] == 0


def test_workers_join_and_leave_in_mid_run(running: Live, records: list[SimRecord]) -> None:
    """Scenario: one worker, a second joins, a third; one is told to stop, and one is killed; one is left.

    Expectation: the same end, and the one that was told to stop has ended in good order.
    """
    app = running
    first = app.start()
    app.ready(first)
    feed = Feed(app.settings)
    with Stream(feed, records, 1_500) as stream:
        wait_until("the first is in mid-run", lambda: in_mid_run(app, first, stream))
        second = app.start()
        app.ready(first, second)
        third = app.start()
        app.ready(first, second, third)
        assert stream.publishing
        wait_until(
            "the third is in mid-run",
            lambda: (
                (status := third.status()) is not None
                and bool(status["partitions"][names.ROUTED])
                and sum(status["lag"].values()) > 0
            ),
        )
        first.process.process.terminate()
        assert first.process.process.wait(EXIT_S) == 0
        app.ready(second, third)
        assert stream.publishing
        third.process.kill()
        assert stream.publishing
        assert stream.finish() == len(records)
    app.ready(second)
    check(app, feed)


def test_the_check_notices_a_loss_a_duplicate_and_a_swap(records: list[SimRecord]) -> None:
    """A checker that finds nothing must be able to find something."""
    deltas = records[-LIVE_EVENTS:][:400]
    ours = [record for record in deltas if record.topic == deltas[0].topic]
    whole = insights_of(ours)
    assert not differences(insights_of(ours[::-1]), whole)
    assert not differences(insights_of([*ours, ours[0]]), whole), "an event id counts once"
    assert differences(insights_of(ours[1:]), whole)
    assert differences(insights_of([*ours, with_event_id(ours[0], "another")]), whole)
    one, other = (next(r for r in ours if r.key == key) for key in sorted({r.key or b"" for r in ours})[:2])
    swapped = [with_campaign_of(r, other if r is one else one) if r in (one, other) else r for r in ours]
    assert differences(insights_of(swapped), whole)


def insights_of(records: Sequence[SimRecord]) -> Insights:
    stored = [
        StoredRecord(offset, record.timestamp_ms, record.key, record.value, record.headers)
        for offset, record in enumerate(records)
    ]
    computed = compute([(records[0].topic, 0, stored)], Ingest(partitions=1), InsightConfig())
    return by_id(computed.insights)


def with_event_id(record: SimRecord, event_id: str) -> SimRecord:
    return record._replace(value=json.dumps({**json.loads(record.value or b""), "event_id": event_id}).encode())


def with_campaign_of(record: SimRecord, other: SimRecord) -> SimRecord:
    """The record, as if its event had happened to the other one's campaign."""
    campaign = json.loads(other.value or b"")["campaign_id"]
    return record._replace(value=json.dumps({**json.loads(record.value or b""), "campaign_id": campaign}).encode())
