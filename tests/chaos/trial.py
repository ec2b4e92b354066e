"""One fault on a running application: it strikes while work is in flight, and then everything is compared."""

import random
import time
import traceback
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Final

from confluent_kafka import KafkaException
from redis.exceptions import RedisError

from tests.chaos.checker import Findings, check
from tests.chaos.cluster import Application

RECOVERY_S: Final = 120.0
MID_RUN_S: Final = 60.0


@dataclass
class Result:
    """A row of the report. ``recovery`` is in seconds, from the fault's end to the first checkpoint after it."""

    fault: str
    injected: int = 0
    in_flight: list[int] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    recovery: float | None = None
    exits: int = 0
    seconds: float = 0.0
    indeterminate: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.findings.ok and not self.problems

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "ok": self.ok}


class Fault(ABC):
    """Something that is done to a running application.

    ``workers`` is how many there are; ``allowed_exits`` how many of their ends on their own are no exit loop;
    ``fresh_state`` asks that one new worker, which knows the changelogs alone, goes on from what the others leave.
    """

    name: ClassVar[str]
    workers: ClassVar[int] = 3
    allowed_exits: ClassVar[int] = 3
    fresh_state: ClassVar[bool] = False

    @abstractmethod
    def inject(self, trial: "Trial") -> None:
        """Do it, once or many times; each time after ``trial.strike()``."""

    def recovered(self, app: Application, since: float) -> bool:
        """Whether the application works again as before."""
        return app.checkpointed(since)

    def verify(self, trial: "Trial") -> None:
        """What must hold of the end, beyond what always does."""
        del trial


class Trial:
    """A fault's course. What is wrong is collected, so that one fault does not hide the next."""

    def __init__(self, app: Application, fault: Fault, seed: int, *, long: bool) -> None:
        self.app = app
        self.fault = fault
        self.long = long
        self.rng = random.Random(f"{seed}/{fault.name}")
        self.result = Result(fault.name)

    def strike(self) -> None:
        """Count an injection that is about to be made, and what is in flight before it."""
        self.result.injected += 1
        self.result.in_flight.append(self.app.in_flight())

    def require(self, holds: bool, sentence: str) -> None:
        """Note what does not hold."""
        if not holds:
            self.result.problems.append(sentence)

    def run(self) -> Result:
        """The whole course."""
        began = time.monotonic()
        exits = len(self.app.supervisor.exits)
        try:
            self._run()
        except (AssertionError, KafkaException, RedisError, OSError) as error:
            self.result.problems.append(" ".join(str(error).split())[:2_000] or traceback.format_exc(limit=3))
        own = [gone for gone in self.app.supervisor.exits[exits:] if not gone.by_us]
        self.result.exits = len(own)
        self.result.facts["exits"] = [f"worker {gone.worker}, code {gone.code}: {gone.line}" for gone in own[:10]]
        self.require(
            len(own) <= self.fault.allowed_exits,
            f"the workers ended {len(own)} times on their own where {self.fault.allowed_exits} are allowed, such as:"
            f" {own[0].line if own else ''}",
        )
        self.result.indeterminate = len(self.app.stream.indeterminate)
        self.result.seconds = round(time.monotonic() - began, 1)
        return self.result

    def _run(self) -> None:
        app = self.app
        app.scale(self.fault.workers)
        since = time.time()
        app.stream.start()
        try:
            app.wait(
                "a checkpoint is made and more is in flight",
                lambda: app.any_checkpoint(since) and app.in_flight() > 0,
                MID_RUN_S,
            )
            self.fault.inject(self)
            ended = time.time()
            app.wait(
                "the workers share all partitions and make checkpoints after the fault",
                lambda: self.fault.recovered(app, ended),
                RECOVERY_S,
            )
            self.result.recovery = round(time.time() - ended, 1)
            self.require(app.stream.running, "the stream had ended before the fault was over")
        finally:
            app.stream.stop()
        if self.fault.fresh_state:
            self._fresh_state()
        app.stream.release()
        app.drain()
        self.result.findings = check(app.sinks(), app.stream.acknowledged, app.stream.expected(), app.settings)
        self.fault.verify(self)
        self.require(self.result.injected > 0, "the fault was not injected")
        self.require(
            min(self.result.in_flight, default=0) > 0, f"nothing was in flight at a fault: {self.result.in_flight}"
        )

    def _fresh_state(self) -> None:
        """One new worker with the changelogs alone; Redis is empty, and the withheld records are still to come."""
        app = self.app
        first, *others = app.supervisor.wanted
        for worker in others:
            app.supervisor.terminate(worker, RECOVERY_S)
        app.supervisor.terminate(first, RECOVERY_S)
        with app.watch.losing(), app.redis() as client:
            client.flushall()
        app.supervisor.resume(first)
        app.ready()
