"""What happens to workers: kill -9, SIGTERM, a stall past the session, a crash at each step, joins and leaves."""

import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from schemas import topics as names
from tests.chaos.armed_worker import EXIT_CODE, POINTS
from tests.chaos.cluster import SESSION
from tests.chaos.supervisor import Worker
from tests.chaos.trial import Fault, Trial

CLEAN_EXIT_S: Final = 5.0
POINT_S: Final = 30.0
TAKEOVER_S: Final = 60.0
REFUSAL_S: Final = 10.0
REDIS_REFUSAL_S: Final = 3.0
PROGRESS_S: Final = 10.0


class KillStorm(Fault):
    """kill -9 of any worker, again and again at 0.1 to 1 s; then spaced, each after a checkpoint that is new."""

    name = "kill -9 storm"
    fresh_state = True

    def inject(self, trial: Trial) -> None:
        for _ in range(6 if trial.long else 1):
            self._storm(trial, 30 if trial.long else 10)
            self._spaced(trial, 8 if trial.long else 2)

    def _storm(self, trial: Trial, kills: int) -> None:
        for _ in range(kills):
            _kill_any(trial)
            time.sleep(trial.rng.uniform(0.1, 1.0))

    def _spaced(self, trial: Trial, kills: int) -> None:
        app = trial.app
        for _ in range(kills):
            since, taken = time.time(), app.taken()
            app.wait(
                "a new checkpoint, committed, between two kills",
                partial(app.advanced, since, taken),
                TAKEOVER_S,
            )
            time.sleep(trial.rng.uniform(0.0, 0.3))
            _kill_any(trial)


def _kill_any(trial: Trial) -> None:
    app = trial.app
    worker = trial.rng.choice(app.supervisor.wanted)
    app.wait("the supervisor has started the worker again", lambda: worker.running, 10)
    starts = worker.starts
    trial.strike()
    worker.signal(signal.SIGKILL)
    app.wait("the killed worker is started again", lambda: worker.starts > starts, 10)


class RollingTerm(Fault):
    """SIGTERM of each worker in turn: it ends in time with exit code 0, and what it did is committed."""

    name = "rolling SIGTERM"
    allowed_exits = 0

    def __init__(self) -> None:
        self._again = 0

    def inject(self, trial: Trial) -> None:
        app = trial.app
        app.reader.catch_up()
        self._again = app.reader.delivered_again()
        longest = 0.0
        for _ in range(3 if trial.long else 1):
            for worker in app.supervisor.wanted:
                trial.strike()
                took, code = app.supervisor.terminate(worker, 4 * CLEAN_EXIT_S)
                longest = max(longest, took)
                trial.require(took <= CLEAN_EXIT_S, f"a clean stop took {took:.1f} s")
                trial.require(code == 0, f"a clean stop ended with exit code {code}: {worker.last_line()}")
                app.supervisor.resume(worker)
                app.wait("the workers go on after a clean stop", partial(app.checkpointed, time.time()), TAKEOVER_S)
        trial.result.facts["longest clean stop"] = round(longest, 2)

    def verify(self, trial: Trial) -> None:
        again = trial.app.reader.delivered_again() - self._again
        trial.result.facts["delivered again"] = again
        trial.require(again == 0, f"{again} rows were delivered again after clean stops: committed was not processed")


class Zombie(Fault):
    """A worker is stopped within a checkpoint; when others own its partitions and have gone on, it is continued."""

    name = "zombie"
    allowed_exits = 120
    fresh_state = True

    def inject(self, trial: Trial) -> None:
        stalls = 60 if trial.long else 3
        refused = sum(self._stall_one(trial, "checkpoint taken", _fenced, REFUSAL_S) for _ in range(stalls))
        trial.result.facts["refused"] = f"{refused} of {stalls}"
        trial.require(
            refused == stalls,
            f"{refused} of {stalls} zombies were refused: the others neither say so (`fenced` of the health page) nor"
            " have ended with a reason",
        )
        # What these have for Redis may be the newest still: then there is nothing to refuse.
        stalls = 10 if trial.long else 1
        refused = sum(self._stall_one(trial, "before redis", _stale, REDIS_REFUSAL_S) for _ in range(stalls))
        trial.result.facts["refused by redis"] = f"{refused} of {stalls}"

    def _stall_one(self, trial: Trial, point: str, refusals: Callable[[dict[str, Any]], int], patience: float) -> bool:
        """Whether the zombie says within some seconds that it was refused, or has ended."""
        app = trial.app
        app.wait("the workers share all partitions before a stall", app.shared, TAKEOVER_S)
        zombie = trial.rng.choice(app.supervisor.wanted)
        others = [worker for worker in app.supervisor.wanted if worker is not zombie]
        before = refusals(zombie.status() or {})
        zombie.arm(point, "stop", trial.rng.randint(1, 3))
        app.wait(f"the worker comes to the point {point!r}", lambda: not zombie.armed, POINT_S)
        trial.strike()
        since, taken = time.time(), app.taken()
        try:
            app.wait(
                f"others own its partitions and commit, {SESSION} being the session",
                partial(app.advanced, since, taken, others),
                TAKEOVER_S,
            )
        finally:
            exits = len(app.supervisor.exits)
            zombie.signal(signal.SIGCONT)

        def answered() -> bool:
            ended = any(gone.worker == zombie.number for gone in app.supervisor.exits[exits:])
            return ended or refusals(zombie.status() or {}) > before

        end = time.monotonic() + patience
        while not answered() and time.monotonic() < end:
            time.sleep(0.1)
        return answered()


def _fenced(page: dict[str, Any]) -> int:
    return int(page.get("fenced", 0))


def _stale(page: dict[str, Any]) -> int:
    return int(page.get("redis", {}).get("stale_refused", 0))


class CrashAtEachStep(Fault):
    """A worker ends at each step of its work in turn: what is durable then differs from step to step."""

    name = "crash at each step"
    fresh_state = True

    def inject(self, trial: Trial) -> None:
        app = trial.app
        for _ in range(5 if trial.long else 1):
            for point in POINTS:
                app.wait("the workers share all partitions before a crash", app.shared, TAKEOVER_S)
                worker = trial.rng.choice(app.supervisor.wanted)
                at_rebalance = POINTS[point].method == "_before_revoke"
                seen, in_flight = len(app.supervisor.exits), app.in_flight()
                worker.arm(point, "exit", 1 if at_rebalance else trial.rng.randint(1, 3))
                if at_rebalance:
                    self._rebalance(trial, worker)
                self._await_crash(trial, worker, point, seen)
                trial.result.injected += 1
                trial.result.in_flight.append(in_flight)

    def _rebalance(self, trial: Trial, worker: Worker) -> None:
        supervisor = trial.app.supervisor
        other = trial.rng.choice([other for other in supervisor.wanted if other is not worker])
        supervisor.terminate(other, 4 * CLEAN_EXIT_S)
        supervisor.resume(other)

    def _await_crash(self, trial: Trial, worker: Worker, point: str, seen: int) -> None:
        app = trial.app

        def crashed() -> bool:
            return any(gone.worker == worker.number and gone.code == EXIT_CODE for gone in app.supervisor.exits[seen:])

        try:
            app.wait(f"the worker comes to the point {point!r} and ends there", crashed, POINT_S)
        finally:
            worker.disarm()


class RebalanceStorm(Fault):
    """Every second one worker joins or another one leaves, beside two that stay."""

    name = "rebalance storm"
    workers = 2

    def inject(self, trial: Trial) -> None:
        app = trial.app
        guests: list[Worker] = []
        began = window = time.monotonic()
        taken = app.taken()
        slowest = None
        turn = 0
        while time.monotonic() - began < (60 if trial.long else 20):
            due = began + turn
            time.sleep(max(0.0, due - time.monotonic()))
            trial.strike()
            if turn % 2 == 0:
                guests.append(app.grow())
            elif len(guests) > 1:
                app.supervisor.terminate(guests.pop(0), 4 * CLEAN_EXIT_S)
            turn += 1
            if time.monotonic() - window >= PROGRESS_S:
                now = app.taken()
                slowest = now - taken if slowest is None else min(slowest, now - taken)
                window, taken = time.monotonic(), now
        for guest in guests:
            app.supervisor.terminate(guest, 4 * CLEAN_EXIT_S)
        trial.result.facts["least progress in 10 s"] = slowest
        trial.require(bool(slowest), f"no progress within a window of {PROGRESS_S:.0f} s")


class Rescale(Fault):
    """Two workers, then three, then one."""

    name = "2 -> 3 -> 1 workers"
    workers = 2
    allowed_exits = 0

    def inject(self, trial: Trial) -> None:
        app = trial.app
        trial.strike()
        app.grow()
        app.wait("three workers share the partitions", app.shared, TAKEOVER_S)
        owners = app.shared() or {}
        trial.require(
            len(owners) == 3 and all(page["partitions"][names.ROUTED] for page in owners.values()),
            "the third worker was given nothing",
        )
        for worker in app.supervisor.wanted[1:]:
            trial.strike()
            took, code = app.supervisor.terminate(worker, 4 * CLEAN_EXIT_S)
            trial.require(code == 0, f"a clean stop ended with exit code {code} after {took:.1f} s")
        app.wait("one worker has all partitions", app.shared, TAKEOVER_S)
