"""What happens to the broker: restarts, clean and hard, and outages, also when the workers start."""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ClassVar, Final

from tests.chaos.cluster import Application
from tests.chaos.trial import RECOVERY_S, Fault, Trial
from tests.own_servers import KafkaServer

PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
GROWTH_BYTES: Final = 256 * 1024 * 1024
RETURN_S: Final = 30.0
"""Within this time of the broker's return all is as before."""


def resident_bytes(app: Application) -> int:
    """The most memory that any worker has."""
    pages = [Path(f"/proc/{worker.pid}/statm") for worker in app.supervisor.running]
    return max((int(told.read_text().split()[1]) for told in pages if told.exists()), default=0) * PAGE_BYTES


class BrokerFault(Fault):
    """The broker is away for some time, and the workers wait for it."""

    allowed_exits = 0

    def verify(self, trial: Trial) -> None:
        recovery = trial.result.recovery
        trial.require(
            recovery is not None and recovery <= RETURN_S, f"{recovery} s from the broker's return to a checkpoint"
        )


class Bounce(BrokerFault):
    """The broker ends in some way, and starts."""

    end: ClassVar[Callable[[KafkaServer], None]]

    def inject(self, trial: Trial) -> None:
        for _ in range(3 if trial.long else 1):
            trial.strike()
            type(self).end(trial.app.servers.kafka)
            trial.app.servers.kafka.start()
            if trial.long:
                trial.app.wait(
                    "the workers go on after the broker", partial(trial.app.checkpointed, time.time()), RECOVERY_S
                )


class BrokerRestart(Bounce):
    """A controlled shutdown."""

    name = "broker restart"
    end = KafkaServer.stop


class BrokerKill(Bounce):
    """kill -9."""

    name = "broker kill -9"
    end = KafkaServer.kill


class BrokerDown(BrokerFault):
    """Away for longer than most timeouts."""

    name = "broker down"

    def inject(self, trial: Trial) -> None:
        before = resident_bytes(trial.app)
        trial.strike()
        trial.app.servers.kafka.stop()
        time.sleep(70 if trial.long else 10)
        grown = resident_bytes(trial.app) - before
        trial.result.facts["grown MiB"] = grown >> 20
        trial.require(grown < GROWTH_BYTES, f"a worker grew by {grown >> 20} MiB while the broker was away")
        trial.app.servers.kafka.start()


class BrokerDownAtStart(BrokerFault):
    """The workers start when there is no broker, which comes later."""

    name = "broker down at start"
    allowed_exits = 12

    def inject(self, trial: Trial) -> None:
        app = trial.app
        workers = app.supervisor.wanted
        for worker in workers:
            app.supervisor.terminate(worker, 20)
        trial.strike()
        app.servers.kafka.stop()
        exits = len(app.supervisor.exits)
        for worker in workers:
            app.supervisor.resume(worker)
        time.sleep(30 if trial.long else 8)
        app.servers.kafka.start()
        # A worker may say in one line that there is no broker, and leave it to its supervisor to try again.
        odd = [gone for gone in app.supervisor.exits[exits:] if not gone.line.startswith("parallax: no Kafka at")]
        trial.require(not odd, f"a worker that found no broker ended in another way: {odd}")
