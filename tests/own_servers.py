"""Servers that one test has for itself, to stop, kill and start: Kafka from Maven's jars, and a redis-server."""

import base64
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from stream_app.embedded import LOOPBACK, RedisServer, Tethered, free_port
from stream_app.errors import ServerAbsent, SetupError

KAFKA_VERSION: Final = "4.1.1"
KAFKA_READY_S: Final = 60.0
JAVA_OLDEST: Final = 17

POM: Final = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>parallax</groupId><artifactId>kafka-for-tests</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"""

PROPERTIES: Final = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=2000
"""


class KafkaServer:
    """Apache Kafka in KRaft mode, one node, from Maven's jars. It keeps port and data over ``stop`` and ``start``."""

    def __init__(self, folder: Path, jars: Path, *properties: str) -> None:
        self.port = free_port()
        self.bootstrap: Final = f"{LOOPBACK}:{self.port}"
        self.log: Final = folder / "kafka.log"
        self._folder = folder
        self._java = ["java", "-Xmx512m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{jars}/*"]
        self._config = folder / "server.properties"
        text = PROPERTIES.format(port=self.port, controller=free_port(), data=folder / "data")
        self._config.write_text(text + "".join(f"{line}\n" for line in properties))
        self._server: Tethered | None = None

    def __enter__(self) -> "KafkaServer":
        subprocess.run(
            [*self._java, "kafka.tools.StorageTool", "format", "-t", _cluster_id(), "-c", self._config],
            check=True,
            capture_output=True,
        )
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.kill()

    def start(self) -> None:
        """Starts the broker and waits until it answers."""
        with self.log.open("ab") as output:
            self._server = Tethered([*self._java, "kafka.Kafka", self._config], output=output, cwd=self._folder)
        try:
            wait_for_kafka(self.bootstrap, lambda: self.server.running)
        except ServerAbsent:
            self._server.kill()
            print(self.log.read_text(errors="replace")[-4000:], file=sys.stderr)
            raise

    @property
    def server(self) -> Tethered:
        """The running process, for signals."""
        assert self._server is not None, "the broker is not started"
        return self._server

    def stop(self) -> None:
        """A controlled shutdown."""
        self.server.stop()
        self._server = None

    def kill(self) -> None:
        """kill -9."""
        self.server.kill()
        self._server = None


@contextlib.contextmanager
def own_kafka(*properties: str) -> Iterator[KafkaServer]:
    """A broker for one test alone, which may bounce it. Raises ``SetupError`` where Java or Maven are missing."""
    if not has_java_and_maven():
        raise SetupError(f"install Java {JAVA_OLDEST} or newer and mvn: this test restarts its own Kafka broker")
    fetch_kafka()
    # A broker that was killed may still write while its folder is removed.
    with (
        tempfile.TemporaryDirectory(prefix="parallax-kafka-", ignore_cleanup_errors=True) as folder,
        KafkaServer(Path(folder), kafka_jars(), *properties) as server,
    ):
        yield server


@contextlib.contextmanager
def own_redis(*options: str) -> Iterator[RedisServer]:
    """A Redis for one test alone, which may stop and start it."""
    with tempfile.TemporaryDirectory(prefix="parallax-redis-") as folder, RedisServer(Path(folder), *options) as server:
        yield server


def kafka_jars() -> Path:
    """Where the user's cache keeps the jars."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "parallax" / f"kafka-{KAFKA_VERSION}"


def fetch_kafka() -> None:
    """Brings the jars into the cache, all at once or not at all. Raises ``ServerAbsent`` when Maven cannot."""
    jars = kafka_jars()
    if jars.is_dir():
        return
    jars.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=jars.parent) as folder:
        (Path(folder) / "pom.xml").write_text(POM)
        fetched = subprocess.run(
            [
                *("mvn", "--batch-mode", "--quiet", "--strict-checksums", "dependency:copy-dependencies"),
                *("-DincludeScope=runtime", "-DoutputDirectory=libs"),
            ],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if fetched.returncode:
            first = next((line for line in fetched.stdout.splitlines() if "ERROR" in line), "no reason given")
            raise ServerAbsent(f"mvn cannot fetch Apache Kafka {KAFKA_VERSION}: {first}")
        # Another run may have put them there meanwhile.
        with contextlib.suppress(OSError):
            (Path(folder) / "libs").rename(jars)


def has_java_and_maven() -> bool:
    """Whether Maven and a Java that runs Kafka are installed."""
    if shutil.which("mvn") is None or shutil.which("java") is None:
        return False
    told = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    version = told.partition('"')[2].partition('"')[0].partition(".")[0].partition("-")[0]
    return version.isdigit() and int(version) >= JAVA_OLDEST


def wait_for_kafka(bootstrap: str, alive: Callable[[], bool]) -> None:
    """Waits until a broker answers. Raises ``ServerAbsent`` when it does not in time, or is no longer alive."""
    until = time.monotonic() + KAFKA_READY_S
    quiet: dict[str, Any] = {"bootstrap.servers": bootstrap, "log_level": 0, "error_cb": lambda _error: None}
    admin = AdminClient(quiet)
    while alive() and time.monotonic() < until:
        with contextlib.suppress(KafkaException):
            if admin.list_topics(timeout=1).brokers:
                return
    raise ServerAbsent(f"Kafka at {bootstrap} does not answer")


def _cluster_id() -> str:
    encoded = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    # The formatting tool takes a leading dash for an option.
    return _cluster_id() if encoded.startswith("-") else encoded
