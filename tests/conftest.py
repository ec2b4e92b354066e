"""Fixtures that every suite shares: the real servers, and an application on them.

With ``-n`` tests run in several processes. They share one Kafka, and each has a Redis of its own; files of tests that
are marked ``alone`` come last, one at a time, when all others are done.
"""

import fcntl
import os
import signal
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest
from hypothesis import settings

from stream_app.embedded import RedisServer
from stream_app.errors import ParallaxError
from tests.live import Live
from tests.own_servers import own_redis
from tests.servers import KAFKA_VARIABLE, redis_provider, running_kafka, running_redis

TURN_VARIABLE: Final = "PARALLAX_TEST_TURN"
SHARED: Final = pytest.StashKey[ExitStack]()

# How long an example takes says more about what runs beside it; whatever hangs has the test's timeout.
settings.register_profile("unhurried", parent=settings.default, deadline=None)
settings.load_profile("unhurried")


def pytest_configure() -> None:
    """A shell has what it runs in the background ignore Ctrl-C, and so would every process that a test interrupts.

    A broker that lives for minutes does not earn back what it costs to compile it well.
    """
    os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionstart(session: pytest.Session) -> None:
    """What the processes share is there before they are started, and known to them by their environment."""
    config = session.config
    if not config.getoption("numprocesses", None) or hasattr(config, "workerinput"):
        return
    shared = config.stash[SHARED] = ExitStack()
    with tempfile.NamedTemporaryFile(prefix="parallax-turn-", delete=False) as turn:
        shared.callback(os.unlink, turn.name)
    os.environ[TURN_VARIABLE] = turn.name
    try:
        redis_provider()
        os.environ[KAFKA_VARIABLE] = shared.enter_context(running_kafka())
    except ParallaxError as error:
        pytest.exit(str(error), returncode=error.exit_code)


def pytest_unconfigure(config: pytest.Config) -> None:
    """The shared server ends when all processes have."""
    if SHARED in config.stash:
        config.stash[SHARED].close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever is to be alone waits for all others, so in several processes those come last."""
    if TURN_VARIABLE in os.environ:
        alone = {item.path for item in items if item.get_closest_marker("alone")}
        items.sort(key=lambda item: item.path in alone)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Tests share a turn; one that is to be alone has it for itself. Waiting for it is not part of the test's time."""
    with _turn(fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH):
        return (yield)


@contextmanager
def _turn(lock: int) -> Iterator[None]:
    if TURN_VARIABLE not in os.environ:
        yield
        return
    with Path(os.environ[TURN_VARIABLE]).open("rb") as file:
        fcntl.flock(file, lock)
        yield


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """Bootstrap address of a real Kafka. Its absence ends the run: it is never a skip."""
    try:
        with running_kafka() as bootstrap:
            yield bootstrap
    except ParallaxError as error:
        pytest.exit(str(error), returncode=error.exit_code)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[tuple[str, int]]:
    """Host and port of a real Redis. Its absence ends the run: it is never a skip."""
    try:
        with running_redis() as address:
            yield address
    except ParallaxError as error:
        pytest.exit(str(error), returncode=error.exit_code)


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A Redis of this test alone, running."""
    with own_redis() as server:
        yield server


@pytest.fixture
def app(kafka: str, redis: RedisServer, tmp_path: Path) -> Iterator[Live]:
    """An application on the suite's Kafka and a Redis of its own."""
    with Live(kafka, (redis.host, redis.port), tmp_path) as app:
        yield app
