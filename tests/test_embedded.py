"""The embedded servers: they speak the real protocols, and nothing of them is left behind."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from redis import Redis

from stream_app import embedded
from stream_app.embedded import MOCK_PARTITIONS, RedisServer, embedded_kafka, embedded_redis
from stream_app.errors import ParallaxError, SetupError

ROOT = Path(__file__).parents[1]


async def round_trip(bootstrap: str, values: list[bytes]) -> list[bytes]:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        for index, value in enumerate(values):
            await producer.send_and_wait("letters", value, partition=index % MOCK_PARTITIONS)
    consumer = AIOKafkaConsumer(
        "letters",
        bootstrap_servers=bootstrap,
        group_id="readers",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    async with consumer:
        found = [(await consumer.getone()).value for _ in values]
        await consumer.commit()
        assert len(consumer.assignment()) == MOCK_PARTITIONS
    return [value for value in found if value is not None]


def test_the_mock_cluster_serves_aiokafka_producers_and_groups() -> None:
    values = [b"letter %d" % number for number in range(40)]
    with embedded_kafka() as bootstrap:
        found = asyncio.run(asyncio.wait_for(round_trip(bootstrap, values), timeout=60))
    assert sorted(found) == sorted(values)


def test_two_mock_clusters_are_apart() -> None:
    with embedded_kafka() as one, embedded_kafka() as other:
        assert one != other
        assert asyncio.run(asyncio.wait_for(round_trip(one, [b"x"]), timeout=60)) == [b"x"]


def test_redis_is_real_and_gone_after_the_block() -> None:
    with embedded_redis() as (host, port):
        client = Redis(host, port)
        assert client.set("key", "value", ex=60)
        assert client.eval("return redis.call('get', KEYS[1])", 1, "key") == b"value"
        pid = int(client.info("server")["process_id"])
        client.close()
    assert not alive(pid)


def test_redis_is_stopped_when_the_block_raises() -> None:
    pids = []
    with pytest.raises(RuntimeError), embedded_redis() as (host, port):  # noqa: PT012 the block is what is tested
        with Redis(host, port) as client:
            pids.append(int(client.info("server")["process_id"]))
        raise RuntimeError
    assert not alive(pids[0])


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_redis_does_not_outlive_a_killed_process(ending: signal.Signals) -> None:
    script = """
import redis
from stream_app.embedded import embedded_redis
with embedded_redis() as (host, port):
    print(redis.Redis(host, port).info("server")["process_id"], flush=True)
    input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert alive(pid)
        process.send_signal(ending)
        process.wait(20)
    wait_until_gone(pid)


def test_a_redis_can_be_bounced_on_its_port(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        port = server.port
        server.kill()
        server.start()
        server.stop()
        server.start()
        with Redis(server.host, port) as client:
            assert client.ping()


def test_a_redis_that_cannot_start_says_why_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ParallaxError, match=r"redis-server did not start: .+") as refusal:
        RedisServer(tmp_path, "--no-such-option", "1").start()
    assert "\n" not in str(refusal.value)


def test_without_a_binary_the_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "redis_binary", lambda: None)
    with pytest.raises(SetupError, match="apt-get install redis-server"):
        RedisServer(tmp_path).start()


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until_gone(pid: int) -> None:
    """The watcher is asynchronous: the test's own time limit is the limit."""
    while alive(pid):
        os.sched_yield()
