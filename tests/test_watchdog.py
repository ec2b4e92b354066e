"""A worker that falls behind and commits nothing is told from one that is slow, idle or cut off."""

import subprocess
import sys
import textwrap
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app import watchdog
from stream_app.watchdog import EXIT_CODE, Progress, StallRule, Watchdog
from tests.live import ROOT

pytestmark = pytest.mark.alone


def looks(rule: StallRule, *seen: tuple[float, Progress | None]) -> list[str]:
    return [rule.look(now, progress) for now, progress in seen]


def test_a_lag_that_grows_for_a_minute_without_a_commit_is_a_stall() -> None:
    told = looks(StallRule(60), *((t, Progress(5 + 10 * t, 100)) for t in range(61)))
    assert not any(told[:60])
    assert told[60] == "nothing was committed for 60 s while the lag grew from 5 to 605 records"


def test_slow_is_not_stalled() -> None:
    assert not any(looks(StallRule(60), *((t, Progress(10 * t, t // 50)) for t in range(1_000))))


def test_a_broker_that_is_away_is_no_stall() -> None:
    """What cannot be fetched is not known to have arrived, so the lag stands still."""
    rule = StallRule(60)
    assert not any(looks(rule, *((t, Progress(t, 7)) for t in range(5))))
    assert not any(looks(rule, *((t, Progress(40, 7)) for t in range(5, 600))))
    assert not any(looks(rule, *((t, Progress(t, 7)) for t in range(600, 655))))
    assert rule.look(661, Progress(700, 7))


def test_a_rebalance_begins_the_count_anew() -> None:
    rule = StallRule(60)
    assert not any(looks(rule, *((t, Progress(1 + t, 1)) for t in range(59)), (59, None)))
    assert not any(looks(rule, *((t, Progress(1 + t, 1)) for t in range(62, 122))))
    assert rule.look(123, Progress(200, 1))


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(0, 100), st.integers(0, 3)), max_size=60))
def test_no_stall_is_told_within_the_limit_of_a_commit(steps: list[tuple[float, int, int]]) -> None:
    rule, now, committed, since = StallRule(60), 0.0, 0, 0.0
    for wait, lag, more in steps:
        now += wait
        committed += more
        since = now if more or lag == 0 else since
        reason = rule.look(now, Progress(lag, committed))
        assert not reason or now - since >= 60


def test_a_process_whose_event_loop_stands_still_ends() -> None:
    script = """
        import time
        from stream_app import watchdog
        watchdog.POLL_S, watchdog.MERCY_S = 0.01, 0.05
        lag = iter(range(1, 10**9))
        progress = lambda: {"aggregate": watchdog.Progress(next(lag), 1), "ingest": watchdog.Progress(1, next(lag))}
        dog = watchdog.Watchdog(0.1, progress, lambda reason: None)
        dog.start()
        time.sleep(30)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert run.returncode == EXIT_CODE
    assert run.stderr.splitlines()[-1].startswith(
        "parallax: the worker is stalled: aggregate: nothing was committed for"
    )


def test_a_look_at_partitions_that_are_moving_does_not_end_the_watch() -> None:
    """The consumer's thread takes partitions away while the watchdog counts their lag."""
    looked, seen = threading.Event(), iter(range(1, 10**9))

    def progress() -> dict[str, Progress]:
        if next(seen) == 1:
            raise AssertionError("Partition is not assigned")
        looked.set()
        return {"ingest": Progress(0, 0)}

    dog = Watchdog(60, progress, lambda _reason: None)
    dog.start()
    assert looked.wait(10)
    dog.stop()


def test_a_worker_that_its_group_does_not_know_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "JOIN_S", 0.05)
    monkeypatch.setattr(watchdog, "POLL_S", 0.01)
    told = threading.Event()
    reasons: list[str] = []

    def on_stall(reason: str) -> None:
        reasons.append(reason)
        told.set()

    dog = Watchdog(0.05, lambda: None, on_stall, joined=lambda: False)
    dog.start()
    assert told.wait(10)
    dog.stop()
    assert reasons[0].startswith("the group has assigned nothing")


def test_a_worker_with_an_empty_assignment_stands_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "JOIN_S", 0.0)
    asked = threading.Event()

    def joined() -> bool:
        asked.set()
        return True

    dog = Watchdog(0.001, lambda: None, lambda _reason: None, joined=joined)
    dog.start()
    assert asked.wait(10)
    dog.stop()
    assert not dog.reason
