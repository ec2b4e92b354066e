"""The three caches on a real Redis: TTLs, one computation a miss, stale answers marked, the hit rate measured."""

import asyncio
import doctest
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

import stream_app.caches
from stream_app.caches import TTL_SECONDS, CacheCounts, Cached, Caches, bucket, budget_key, insight_key, patterns_key
from stream_app.embedded import RedisServer, free_port
from stream_app.settings import Settings

Address = tuple[str, int]

pytestmark = pytest.mark.redis


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


class Source:
    """What is behind the cache: counts its computations, may be slow or fail."""

    def __init__(self, value: bytes = b"v", error: Exception | None = None) -> None:
        self.value, self.error = value, error
        self.computed = 0
        self.gate: asyncio.Event | None = None

    async def __call__(self) -> bytes:
        self.computed += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.value


@asynccontextmanager
async def opened(address: Address, prefix: str = "", **options: Any) -> AsyncIterator[Caches]:
    client = Redis(host=address[0], port=address[1], socket_timeout=2, retry=Retry(NoBackoff(), 0))
    caches = Caches(client, prefix=prefix or f"test-{uuid.uuid4().hex}", **options)
    try:
        yield caches
    finally:
        await caches.close()


async def until(condition: Callable[[], Any]) -> None:
    """Let others run until it holds."""
    for _ in range(100_000):
        found = condition()
        if await found if isinstance(found, Awaitable) else found:
            return
        await asyncio.sleep(0)
    pytest.fail("it never came to pass")


def client_of(caches: Caches) -> Any:
    return caches._client


async def gone(caches: Caches) -> bool:
    return not await client_of(caches).exists(caches._key("cache", "insight", "k"))


@pytest.mark.parametrize("kind", TTL_SECONDS)
def test_a_value_is_kept_for_its_kinds_ttl(redis_server: Address, kind: Any) -> None:
    async def check() -> None:
        async with opened(redis_server) as caches:
            source = Source()
            first = await caches.get(kind, "k", source)
            second = await caches.get(kind, "k", source)
            assert (first.source, second.source, second.value) == ("computed", "stored", b"v")
            assert source.computed == 1
            left = await client_of(caches).ttl(caches._key("cache", kind, "k"))
            assert TTL_SECONDS[kind] - 5 <= left <= TTL_SECONDS[kind]

    assert TTL_SECONDS == {"insight": 3_600, "patterns": 7_200, "budget": 1_800}
    run(check())


def test_an_expired_value_is_computed_anew(redis_server: Address) -> None:
    async def check() -> None:
        async with opened(redis_server) as caches:
            source = Source()
            await caches.get("insight", "k", source)
            assert await client_of(caches).pexpire(caches._key("cache", "insight", "k"), 1)
            await until(lambda: gone(caches))
            assert (await caches.get("insight", "k", source)).source == "computed"
            assert source.computed == 2

    run(check())


def test_one_caller_computes_and_the_others_share(redis_server: Address) -> None:
    async def check() -> None:
        async with opened(redis_server) as caches:
            source = Source()
            source.gate = asyncio.Event()
            callers = [asyncio.create_task(caches.get("patterns", "all", source)) for _ in range(50)]
            await until(lambda: source.computed)
            source.gate.set()
            found = await asyncio.gather(*callers)
            assert source.computed == 1
            assert {each.value for each in found} == {b"v"}
            counts = caches.counts["patterns"]
            assert counts.misses == 1
            assert counts.misses + counts.shared + counts.hits == 50

    run(check())


def test_a_caller_that_gives_up_leaves_the_others_their_answer(redis_server: Address) -> None:
    async def check() -> None:
        async with opened(redis_server) as caches:
            source = Source()
            source.gate = asyncio.Event()
            first = asyncio.create_task(caches.get("insight", "k", source))
            await until(lambda: source.computed)
            second = asyncio.create_task(caches.get("insight", "k", source))
            await asyncio.sleep(0)
            first.cancel()
            source.gate.set()
            assert (await second).value == b"v"
            assert source.computed == 1

    run(check())


def test_between_processes_one_computes_too(redis_server: Address) -> None:
    async def check() -> None:
        prefix = f"test-{uuid.uuid4().hex}"
        async with opened(redis_server, prefix) as one, opened(redis_server, prefix) as other:
            slow, idle = Source(b"slow"), Source(b"idle")
            slow.gate = asyncio.Event()
            first = asyncio.create_task(one.get("insight", "k", slow))
            await until(lambda: slow.computed)
            second = asyncio.create_task(other.get("insight", "k", idle))
            await until(lambda: other._flights)
            slow.gate.set()
            assert (await first).value == (await second).value == b"slow"
            assert idle.computed == 0

    run(check())


def test_a_lock_whose_holder_died_expires(redis_server: Address) -> None:
    async def check() -> None:
        async with opened(redis_server, lock_seconds=0.2) as caches:
            await client_of(caches).set(caches._key("lock", "insight", "k"), b"dead", px=100)
            assert (await caches.get("insight", "k", Source())).source == "computed"

    run(check())


def test_where_it_cannot_be_computed_the_stale_copy_answers_and_is_marked(redis_server: Address) -> None:
    async def check() -> None:
        clock = [1_000.0]
        async with opened(redis_server, now=lambda: clock[0]) as caches:
            await caches.get("insight", "k", Source(b"old"))
            await client_of(caches).delete(caches._key("cache", "insight", "k"))
            clock[0] += 4_000
            found = await caches.get("insight", "k", Source(error=RuntimeError("no history")))
            assert found == Cached(b"old", "stale", 4_000.0)
            assert found.stale
            with pytest.raises(RuntimeError, match="no history"):
                await caches.get("insight", "never seen", Source(error=RuntimeError("no history")))
            assert caches.counts["insight"].stale == 1
            assert caches.counts["insight"].failures == 2

    run(check())


def test_while_another_computes_the_stale_copy_answers(redis_server: Address) -> None:
    async def check() -> None:
        async with opened(redis_server) as caches:
            await caches.get("budget", "k", Source(b"old"))
            await client_of(caches).delete(caches._key("cache", "budget", "k"))
            await client_of(caches).set(caches._key("lock", "budget", "k"), b"another")
            source = Source(b"new")
            assert (await caches.get("budget", "k", source)).source == "stale"
            assert source.computed == 0

    run(check())


def test_without_redis_everybody_computes(tmp_path: Path) -> None:
    async def check(address: Address) -> None:
        async with opened(address, deadline_seconds=0.5) as caches:
            source = Source()
            assert (await caches.get("insight", "k", source)).value == b"v"
            assert (await caches.get("insight", "k", source)).value == b"v"
            assert source.computed == 2
            assert caches.counts["insight"].errors > 0

    with RedisServer(tmp_path) as server:
        address = (server.host, server.port)
    run(check(address))


def test_processes_sum_up_their_counts_in_redis(redis_server: Address) -> None:
    async def check() -> None:
        prefix = f"test-{uuid.uuid4().hex}"
        for _ in range(3):
            async with opened(redis_server, prefix) as caches:
                await caches.get("patterns", "all", Source())
                await caches.get("patterns", "all", Source())
                with pytest.raises(RuntimeError):
                    await caches.get("budget", "k", Source(error=RuntimeError("no")))
        async with opened(redis_server, prefix) as reader:
            told = await reader.counts_of_all()
            assert told is not None
            assert told["patterns"] == CacheCounts(hits=5, misses=1)
            assert told["patterns"].hit_rate == pytest.approx(5 / 6)
            assert told["budget"] == CacheCounts(failures=3)
            assert told["insight"] == CacheCounts()
            # Asking changes nothing, and what cannot be counted is answered all the same.
            assert await reader.counts_of_all() == told
            await client_of(reader).set(f"{prefix}:cache:counts", b"taken")
            for _ in range(3):
                assert (await reader.get("patterns", "all", Source())).source == "stored"

    run(check())


def test_counts_wait_while_redis_is_away(redis_server: Address) -> None:
    async def check() -> None:
        prefix = f"test-{uuid.uuid4().hex}"
        async with opened(redis_server, prefix) as caches:
            there, gone = client_of(caches), Redis(host=redis_server[0], port=free_port(), retry=Retry(NoBackoff(), 0))
            caches._client = gone
            await caches.get("insight", "k", Source())
            errors = caches.counts["insight"].errors
            caches._client = there
            told = await caches.counts_of_all()
            assert told is not None
            assert told["insight"] == CacheCounts(misses=1, errors=errors)
            caches._client = gone
            assert await caches.counts_of_all() is None
            caches._client = there
            await gone.aclose()

    run(check())


def test_what_was_computed_elsewhere_can_be_put(redis_server: Address) -> None:
    async def check() -> None:
        async with opened(redis_server) as caches:
            assert await caches.put("patterns", "all", b"new")
            found = await caches.get("patterns", "all", Source(b"computed"))
            assert (found.value, found.source) == (b"new", "stored")
        async with opened(redis_server, enabled=False) as off:
            assert not await off.put("patterns", "all", b"new")

    run(check())


def test_switched_off_it_asks_nothing(redis_server: Address) -> None:
    async def check() -> None:
        async with opened(redis_server, enabled=False) as caches:
            source = Source()
            for _ in range(3):
                assert (await caches.get("insight", "k", source)).source == "computed"
            assert source.computed == 3
            assert not await client_of(caches).keys(f"{caches._prefix}:*")

    run(check())


def test_what_is_forgotten_is_computed_anew(redis_server: Address) -> None:
    async def check() -> None:
        async with opened(redis_server) as caches:
            source = Source()
            await caches.get("patterns", "all", source)
            await caches.forget("patterns", "all")
            assert (await caches.get("patterns", "all", source)).source == "computed"

    run(check())


def test_the_settings_reach_the_caches() -> None:
    async def check() -> None:
        caches = Caches.of(Settings(cache_ttl=60, cache_enabled=False, redis_port=7001))
        assert caches._ttl == {"insight": 60, "patterns": 7_200, "budget": 1_800}
        assert not caches._enabled
        assert client_of(caches).connection_pool.connection_kwargs["port"] == 7001
        await caches.close()

    run(check())


def test_keys_keep_what_differs_apart() -> None:
    assert insight_key("a:b", "24h") != insight_key("a", "24h:b")
    assert patterns_key("all") != patterns_key()
    assert budget_key("ad", 100, 5, 10, 5) != budget_key("ad2", 100, 5, 10, 5)
    assert budget_key("ad", 100, 5, 10, 5) != budget_key("ad", 200, 5, 10, 5)
    assert bucket(0) == bucket(0.99) == 0
    assert all(bucket(value) < bucket(value * 1.5) for value in (1, 7, 1e3, 1e12))
    with pytest.raises(ValueError, match="finite"):
        bucket(float("nan"))


def test_a_realistic_access_pattern_hits_at_least_95_of_100(redis_server: Address) -> None:
    """Readers ask for campaigns as Zipf has it, exponent 1.1; ads keep delivering while their budgets are asked for."""

    async def check() -> None:
        rng = np.random.default_rng(17)
        requests, campaigns, accounts = 36_000, 400, 25

        def ranks(of: int) -> Any:
            weights = 1 / np.arange(1, of + 1) ** 1.1
            return rng.choice(of, size=requests, p=weights / weights.sum())

        campaign, account = ranks(campaigns), ranks(accounts)
        kinds = rng.choice(["insight", "patterns", "budget"], size=requests, p=[0.5, 0.2, 0.3])
        windows = rng.choice(["24h", "7d"], size=requests, p=[0.7, 0.3])
        delivered = 1_000 * np.exp(rng.normal(0, 1, campaigns))

        async with opened(redis_server) as caches:
            source = Source(b"x" * 1_500)

            async def ask(at: int) -> None:
                ad, kind = int(campaign[at]), str(kinds[at])
                if kind == "insight":
                    await caches.get("insight", insight_key(f"cmp-{ad}", str(windows[at])), source)
                elif kind == "patterns":
                    await caches.get("patterns", patterns_key(f"act-{account[at]}"), source)
                else:
                    # Half an hour of delivery over the whole run: a fiftieth more than the day so far.
                    shown = delivered[ad] * (1 + 0.02 * at / requests)
                    await caches.get("budget", budget_key(f"ad-{ad}", shown, shown * 0.02, shown * 0.01, 24), source)

            for start in range(0, requests, 32):
                await asyncio.gather(*(ask(at) for at in range(start, min(start + 32, requests))))
            rates = {kind: counts.hit_rate for kind, counts in caches.counts.items()}
            hits = sum(counts.hits for counts in caches.counts.values())
            assert hits / requests >= 0.95, rates
            assert source.computed == sum(counts.misses for counts in caches.counts.values())
            assert caches.counters()["insight_hits"] == caches.counts["insight"].hits
            assert all(counts.errors == 0 for counts in caches.counts.values())
            print(f"hit rate {hits / requests:.4f}, by kind {rates}")

    run(check())


def test_examples_in_the_docstrings_run() -> None:
    result = doctest.testmod(stream_app.caches)
    assert result.attempted > 0
    assert result.failed == 0
