"""What happens to Redis: it is gone, empty, slow, full. The stream goes on, and Redis is made whole from state."""

import time
from collections.abc import Callable
from functools import partial
from typing import Final

from tests.chaos.cluster import Application
from tests.chaos.trial import Fault, Trial

GOES_ON_S: Final = 30.0
NOTICED_S: Final = 30.0


class RedisFault(Fault):
    """The stream must not stop for Redis's sake."""

    allowed_exits = 0

    def recovered(self, app: Application, since: float) -> bool:
        pages = app.shared()
        return (
            pages is not None
            and app.checkpointed(since)
            and all(
                page["redis"]["up"] and not page["redis"]["pending"] and not page["redis"]["rebuilding"]
                for page in pages.values()
            )
        )


def goes_on(trial: Trial) -> None:
    """More is committed than a moment ago."""
    taken = trial.app.taken()
    trial.app.wait("the stream goes on while Redis does not serve", lambda: trial.app.taken() > taken, GOES_ON_S)


def noticed(trial: Trial) -> None:
    """Some worker says that Redis is down."""

    def told() -> bool:
        return any(not page["redis"]["up"] for page in trial.app.statuses().values())

    trial.app.wait("a worker says that Redis is down", told, NOTICED_S)


def during(trial: Trial, seconds: float, holds: Callable[[Trial], None]) -> None:
    """Something must hold again and again for some time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        holds(trial)


class RedisDown(RedisFault):
    """Stopped, and started again without any data; then killed."""

    name = "redis down"

    def inject(self, trial: Trial) -> None:
        redis = trial.app.servers.redis
        for end in (redis.stop, redis.kill):
            trial.strike()
            with trial.app.watch.losing():
                end()
                noticed(trial)
                during(trial, 30 if trial.long else 2, goes_on)
                redis.start()
            trial.app.wait("redis is whole", partial(self.recovered, trial.app, time.time()), 60)


class RedisFlushed(RedisFault):
    """FLUSHALL in mid-run."""

    name = "redis flushed"

    def inject(self, trial: Trial) -> None:
        for _ in range(20 if trial.long else 3):
            trial.strike()
            with trial.app.watch.losing(), trial.app.redis() as client:
                client.flushall()
            goes_on(trial)


class RedisSlow(RedisFault):
    """First slower than usual, then slower than anybody waits for."""

    name = "redis slow"

    def inject(self, trial: Trial) -> None:
        proxy = trial.app.servers.proxy
        try:
            for delay in (0.2, 3.0):
                trial.strike()
                proxy.delay = delay
                if delay > 1:
                    noticed(trial)
                during(trial, 15 if trial.long else 2, goes_on)
        finally:
            proxy.delay = 0.0


class RedisFull(RedisFault):
    """Out of memory: it answers, and takes nothing."""

    name = "redis out of memory"

    def inject(self, trial: Trial) -> None:
        with trial.app.redis() as client:
            client.config_set("maxmemory-policy", "noeviction")
            trial.strike()
            client.config_set("maxmemory", "1mb")
            try:
                noticed(trial)
                during(trial, 30 if trial.long else 2, goes_on)
            finally:
                client.config_set("maxmemory", "0")
