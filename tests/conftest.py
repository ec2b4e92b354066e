"""Fixtures that every suite shares: the real servers, one of each a session."""

from collections.abc import Iterator

import pytest

from stream_app.errors import ParallaxError
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
