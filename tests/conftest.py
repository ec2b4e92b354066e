"""Fixtures that every suite shares: the real servers, and an application on them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from stream_app.embedded import RedisServer
from stream_app.errors import ParallaxError
from tests.live import Live
from tests.own_servers import own_redis
from tests.servers import running_kafka, running_redis


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
