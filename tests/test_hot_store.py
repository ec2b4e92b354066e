"""The hot store against a real redis-server: newest wins, outages and losses are survived."""

import asyncio
import itertools
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from stream_app.embedded import RedisServer
from stream_app.hot_store import CHUNK, LARGEST_EXACT, HotEntry, HotStore, HotStoreDown, Written
from stream_app.hot_writer import HotWriter

Address = tuple[str, int]

pytestmark = pytest.mark.redis


class PrivateRedis(RedisServer):
    """A redis-server that a test may stop, flush and starve."""

    @property
    def address(self) -> Address:
        return self.host, self.port

    def admin(self, *command: str) -> Any:
        with redis.Redis(self.host, self.port) as client:
            return client.execute_command(*command)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PrivateRedis]:
    with PrivateRedis(tmp_path) as private:
        yield private


class Clock:
    def __init__(self, at: float = 1_000_000.0) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


@asynccontextmanager
async def opened(address: Address, **options: Any) -> AsyncIterator[HotStore]:
    client = Redis(host=address[0], port=address[1], socket_timeout=2, retry=Retry(NoBackoff(), 0))
    store = HotStore(client, prefix=f"test-{uuid.uuid4().hex}", **options)
    try:
        yield store
    finally:
        await store.close()


def entry(campaign: str = "c1", *, revision: int = 1, phase: int = 0, value: bytes = b"", **other: Any) -> HotEntry:
    version = f"{revision}/{phase}".encode()
    fields: dict[str, Any] = {"kind": "insight", "window": "24h", "as_of_ms": 5, **other}
    return HotEntry(campaign_id=campaign, revision=revision, phase=phase, value=value or version, **fields)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


ORDERED = [
    entry(revision=1),
    entry(revision=1, phase=1),
    entry(revision=2),
    entry(revision=3, phase=0),
]


@pytest.mark.parametrize("order", list(itertools.permutations(ORDERED)))
def test_any_order_of_versions_ends_with_the_newest(redis_server: Address, order: tuple[HotEntry, ...]) -> None:
    async def work() -> None:
        async with opened(redis_server) as store:
            refused = 0
            highest: tuple[int, int] = (-1, 0)
            for one in order:
                outcome = await store.put_many([one])
                assert outcome == (Written(1, 0) if one.version > highest else Written(0, 1))
                highest = max(highest, one.version)
                refused += outcome.stale
            held = await store.get("c1", "24h")
            assert held is not None
            assert (held.version, held.value) == ((3, 0), b"3/0")

    run(work())


VERSIONS = st.tuples(st.sampled_from([0, 9, 10, LARGEST_EXACT - 1, LARGEST_EXACT]), st.integers(0, 2))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(VERSIONS, max_size=6), min_size=1, max_size=4))
def test_batches_of_any_order_and_overlap_agree_with_the_maximum(
    redis_server: Address, batches: list[list[tuple[int, int]]]
) -> None:
    async def work() -> None:
        async with opened(redis_server) as one, opened(redis_server) as other:
            other._prefix = one._prefix
            puts = [
                (one, other)[at % 2].put_many([entry(revision=r, phase=p) for r, p in batch])
                for at, batch in enumerate(batches)
            ]
            outcome = sum(await asyncio.gather(*puts), Written())
            versions = [version for batch in batches for version in batch]
            assert outcome.written + outcome.stale == len(versions)
            held = await one.get("c1", "24h")
            assert (held and held.version) == max(versions, default=None)

    run(work())


def test_concurrent_clients_never_lose_the_newest(redis_server: Address) -> None:
    async def work() -> None:
        async with opened(redis_server) as one, opened(redis_server) as other:
            other._prefix = one._prefix
            campaigns = [f"c{n}" for n in range(7)]

            async def climb(store: HotStore, revisions: range) -> None:
                for revision in revisions:
                    await store.put_many([entry(campaign, revision=revision) for campaign in campaigns])

            await asyncio.gather(climb(one, range(1, 60, 2)), climb(other, range(60, 0, -2)))
            for campaign in campaigns:
                held = await one.get(campaign, "24h")
                assert held is not None
                assert held.version == (60, 0)

    run(work())


def test_an_equal_version_confirms_the_value_and_renews_its_ttl(redis_server: Address) -> None:
    async def work() -> None:
        clock = Clock()
        async with opened(redis_server, ttl_seconds=100, now=clock) as store:
            await store.put_many([entry()])
            await store._client.pexpire(store._key("insight", "c1", "24h"), 1000)
            clock.at += 60
            before = await store.get("c1", "24h")
            assert before is not None
            assert before.ttl_seconds <= 1
            assert before.age_seconds == 60
            assert before.freshness == "stale"
            assert await store.put_many([entry()]) == Written(1, 0)
            after = await store.get("c1", "24h")
            assert after is not None
            assert after.age_seconds == 0
            assert after.freshness == "fresh"
            assert 99 <= after.ttl_seconds <= 100

    run(work())


def test_a_stale_write_does_not_renew_the_ttl(redis_server: Address) -> None:
    async def work() -> None:
        async with opened(redis_server) as store:
            await store.put_many([entry(revision=2)])
            await store._client.pexpire(store._key("insight", "c1", "24h"), 5000)
            await store.put_many([entry(revision=1)])
            held = await store.get("c1", "24h")
            assert held is not None
            assert held.ttl_seconds <= 5

    run(work())


def test_a_value_comes_back_with_age_freshness_and_ttl(redis_server: Address) -> None:
    async def work() -> None:
        clock = Clock()
        raw = bytes(range(256))
        async with opened(redis_server, ttl_seconds=50, stale_after_seconds=10, now=clock) as store:
            await store.put_many([entry(value=raw, as_of_ms=77, revision=4, phase=2)])
            clock.at += 10
            held = await store.get("c1", "24h")
            assert held is not None
            assert (held.value, held.as_of_ms, held.version, held.age_seconds) == (raw, 77, (4, 2), 10.0)
            assert held.freshness == "fresh"
            assert 45 < held.ttl_seconds <= 50
            clock.at += 0.5
            later = await store.get("c1", "24h")
            assert later is not None
            assert later.freshness == "stale"
            clock.at -= 1000
            skewed = await store.get("c1", "24h")
            assert skewed is not None
            assert skewed.age_seconds == 0
            assert await store.get("c1", "1h") is None
            assert await store.get("c1", "24h", "prediction") is None

    run(work())


ODD = [
    "",
    ":",
    "a:24h",
    "insight:a",
    "meta:act_1:123",
    "a b\n",
    "{a}",
    "*",
    "é",
    "e\u0301",
    "\ud800",
    "?",
    "\x00",
    "x" * 5000,
]


def test_odd_campaign_ids_are_kept_apart(redis_server: Address) -> None:
    async def work() -> None:
        async with opened(redis_server) as store:
            slots = list(itertools.product(("insight", "prediction"), ODD, ("24h", "1h")))
            entries = [entry(c, kind=k, window=w, value=repr((k, c, w)).encode()) for k, c, w in slots]
            assert await store.put_many(entries) == Written(len(slots), 0)
            for kind, campaign, window in slots:
                held = await store.get(campaign, window, kind)  # type: ignore[arg-type]
                assert held is not None
                assert held.value == repr((kind, campaign, window)).encode()

    run(work())


def test_more_than_a_chunk_is_written_whole(redis_server: Address) -> None:
    async def work() -> None:
        async with opened(redis_server) as store:
            many = [entry(f"c{n}") for n in range(2 * CHUNK + 1)]
            assert await store.put_many(many) == Written(len(many), 0)
            assert await store.put_many([]) == Written()

    run(work())


@pytest.mark.parametrize(
    "fields", [{"revision": LARGEST_EXACT + 1}, {"revision": -LARGEST_EXACT - 1}, {"window": "24:h"}, {"window": ""}]
)
def test_what_no_version_or_key_can_hold_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"2\^53|window"):
        entry(**fields)


def test_a_foreign_value_in_a_slot_is_replaced(redis_server: Address) -> None:
    async def work() -> None:
        async with opened(redis_server) as store:
            await store._client.set(store._key("insight", "c1", "24h"), "foreign")
            with pytest.raises(HotStoreDown, match="WRONGTYPE"):
                await store.get("c1", "24h")
            assert await store.put_many([entry()]) == Written(1, 0)
            held = await store.get("c1", "24h")
            assert held is not None
            assert held.version == (1, 0)

    run(work())


@pytest.mark.parametrize("command", [("FLUSHALL",), ("SCRIPT", "FLUSH")])
def test_a_forgotten_script_is_loaded_again(server: PrivateRedis, command: tuple[str, ...]) -> None:
    async def work() -> None:
        async with opened(server.address) as store:
            await store.put_many([entry(revision=1)])
            server.admin("SCRIPT", "FLUSH")
            server.admin(*command)
            assert await store.put_many([entry(revision=2), entry("c2")]) == Written(2, 0)

    run(work())


def test_out_of_memory_is_down_and_a_repeat_completes_the_batch(server: PrivateRedis) -> None:
    async def work() -> None:
        async with opened(server.address) as store:
            await store.put_many([entry("warm")])
            used = int(server.admin("INFO", "memory")["used_memory"])
            server.admin("CONFIG", "SET", "maxmemory", str(used + 1_500_000))
            batch = [entry(f"c{n}", value=bytes(100_000)) for n in range(40)]
            with pytest.raises(HotStoreDown, match=r"OOM|maxmemory|memory"):
                await store.put_many(batch)
            assert await store.get("c0", "24h") is not None, "only some commands of the pipeline were to fail"
            assert await store.get("c39", "24h") is None
            server.admin("CONFIG", "SET", "maxmemory", "0")
            assert await store.put_many(batch) == Written(40, 0)

    run(work())


def test_an_absent_server_is_down(server: PrivateRedis) -> None:
    async def work() -> None:
        async with opened(server.address) as store:
            assert await store.ping()
            server.kill()
            assert not await store.ping()
            for failing in (store.put_many([entry()]), store.get("c1", "24h")):
                with pytest.raises(HotStoreDown) as down:
                    await failing
                assert down.value.reason
                assert "\n" not in down.value.reason

    run(work())


def test_a_server_that_does_not_answer_is_down_within_the_deadline(server: PrivateRedis) -> None:
    async def work() -> None:
        async with opened(server.address, deadline_seconds=0.05) as store:
            server.admin("CLIENT", "PAUSE", "60000")
            with pytest.raises(HotStoreDown):
                await store.put_many([entry()])

    run(work())


def test_a_connected_store_refuses_a_wrong_password_without_repeating_it(server: PrivateRedis) -> None:
    async def work() -> None:
        server.admin("CONFIG", "SET", "requirepass", "canary-right")
        wrong = HotStore.connect(host=server.address[0], port=server.address[1], password="canary-wrong")
        right = HotStore.connect(host=server.address[0], port=server.address[1], password="canary-right")
        with pytest.raises(HotStoreDown) as down:
            await wrong.put_many([entry()])
        assert "canary" not in down.value.reason
        assert await right.put_many([entry()]) == Written(1, 0)
        await wrong.close()
        await right.close()

    run(work())


def test_a_decoding_client_is_refused() -> None:
    with pytest.raises(ValueError, match="decode"):
        HotStore(Redis(decode_responses=True))


class Owner:
    """What a stage knows: the newest entry of each slot, offered again on loss."""

    def __init__(self, store: HotStore, clock: Callable[[], float]) -> None:
        self.state: dict[str, HotEntry] = {}
        self.writer = HotWriter(store, self.offer_all, now=clock)

    def offer_all(self) -> None:
        self.writer.offer(self.state.values())

    def change(self, *entries: HotEntry) -> None:
        self.state.update({one.campaign_id: one for one in entries})
        self.writer.offer(entries)


async def is_whole(store: HotStore, owner: Owner) -> bool:
    held = [(await store.get(campaign, "24h"), known) for campaign, known in owner.state.items()]
    return all(value is not None and value.version == known.version for value, known in held)


def test_a_writer_keeps_only_the_newest_entry_of_a_slot(redis_server: Address) -> None:
    async def work() -> None:
        async with opened(redis_server) as store:
            writer = HotWriter(store)
            writer.offer([entry(revision=r) for r in (3, 9, 4)] + [entry(kind="prediction"), entry(window="1h")])
            assert writer.pending == 3
            assert await writer.flush() == Written(3, 0)
            assert writer.pending == 0
            held = await store.get("c1", "24h")
            assert held is not None
            assert held.version == (9, 0)
            assert await writer.flush() is None

    run(work())


def test_a_zombie_is_refused_and_counted(redis_server: Address) -> None:
    async def work() -> None:
        async with opened(redis_server) as store:
            zombie, owner = HotWriter(store), HotWriter(store)
            zombie.offer([entry(revision=1), entry("c2", revision=1)])
            owner.offer([entry(revision=2)])
            await owner.flush()
            assert await zombie.flush() == Written(1, 1)
            assert (zombie.stale_refused, owner.stale_refused) == (1, 0)
            held = await store.get("c1", "24h")
            assert held is not None
            assert held.version == (2, 0)

    run(work())


class Interrupted(HotStore):
    """A store in which something happens right after each batch has been written."""

    meanwhile: Callable[[], None] = staticmethod(lambda: None)

    async def put_many(self, entries: Sequence[HotEntry]) -> Written:
        written = await super().put_many(entries)
        self.meanwhile()
        return written


def test_offers_made_during_a_flush_are_kept(redis_server: Address) -> None:
    async def work() -> None:
        store = Interrupted.connect(host=redis_server[0], port=redis_server[1])
        campaign = uuid.uuid4().hex
        writer = HotWriter(store)
        store.meanwhile = lambda: writer.offer([entry(campaign, revision=2)])
        writer.offer([entry(campaign, revision=1)])
        await writer.flush()
        assert writer.pending == 1
        await writer.flush()
        held = await store.get(campaign, "24h")
        assert held is not None
        assert held.version == (2, 0)
        await store.close()

    run(work())


def test_a_loss_within_the_very_first_flush_is_noticed(server: PrivateRedis) -> None:
    async def work() -> None:
        store = Interrupted.connect(host=server.host, port=server.port)
        owner = Owner(store, Clock())
        owner.change(entry("a"), entry("b"))

        def flush_once() -> None:
            store.meanwhile = lambda: None
            server.admin("FLUSHALL")

        store.meanwhile = flush_once
        await owner.writer.flush()
        assert owner.writer.losses == 1
        assert await is_whole(store, owner)
        await store.close()

    run(work())


def test_a_restarted_server_is_made_whole_from_state(server: PrivateRedis, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        clock = Clock()
        async with opened(server.address) as store:
            owner = Owner(store, clock)
            owner.change(*(entry(f"c{n}") for n in range(20)))
            await owner.writer.flush()
            server.kill()
            owner.change(entry("c3", revision=2), entry("new"))
            for _ in range(10):
                assert await owner.writer.flush() is None
                clock.at += 3
            assert owner.writer.pending == 2
            assert (owner.writer.down_since, bool(owner.writer.down_reason)) == (1_000_000.0, True)
            server.start()
            clock.at += HotWriter.LONGEST_PAUSE
            written = await owner.writer.flush()
            assert written is not None
            assert written.stale == 0
            assert (owner.writer.down_since, owner.writer.losses) == (None, 1)
            assert await is_whole(store, owner)

    with caplog.at_level(logging.WARNING, "stream_app.hot_writer"):
        run(work())
    said = [record.message for record in caplog.records]
    assert [sum(word in line for line in said) for word in ("is down", "is back", "lost")] == [1, 1, 1]


def test_a_down_server_is_left_alone_between_tries(server: PrivateRedis) -> None:
    async def work() -> None:
        clock = Clock()
        async with opened(server.address) as store:
            writer = HotWriter(store, now=clock)
            writer.offer([entry()])
            server.kill()
            await writer.flush()
            server.start()
            assert await writer.flush() is None, "the pause has not passed"
            clock.at += HotWriter.SHORTEST_PAUSE
            assert await writer.flush() == Written(1, 0)

    run(work())


@pytest.mark.parametrize("fresh_change", [True, False])
def test_a_flushed_server_is_noticed_by_a_busy_and_by_an_idle_writer(server: PrivateRedis, fresh_change: bool) -> None:
    async def work() -> None:
        clock = Clock()
        async with opened(server.address) as store:
            owner = Owner(store, clock)
            owner.change(entry("a"), entry("b"))
            await owner.writer.flush()
            server.admin("FLUSHALL")
            if fresh_change:
                owner.change(entry("a", revision=2))
            else:
                assert await owner.writer.flush() is None
                clock.at += 5
            await owner.writer.flush()
            assert owner.writer.losses == 1
            assert await is_whole(store, owner)
            clock.at += 60
            assert await owner.writer.flush() == Written()
            assert owner.writer.losses == 1

    run(work())


def test_a_restart_between_two_flushes_is_noticed_as_loss_without_an_outage(server: PrivateRedis) -> None:
    async def work() -> None:
        store = HotStore.connect(host=server.address[0], port=server.address[1])
        owner = Owner(store, Clock())
        owner.change(entry("a"), entry("b"))
        await owner.writer.flush()
        server.kill()
        server.start()
        owner.change(entry("a", revision=2))
        assert await owner.writer.flush() is not None
        assert owner.writer.losses == 1
        assert await is_whole(store, owner)
        await store.close()

    run(work())


def test_a_store_rolled_back_to_an_older_file_is_noticed(server: PrivateRedis) -> None:
    async def work() -> None:
        clock = Clock()
        async with opened(server.address) as store:
            owner = Owner(store, clock)
            owner.change(entry("a"), entry("b"))
            await owner.writer.flush()
            server.admin("SAVE")
            owner.change(entry("a", revision=2))
            await owner.writer.flush()
            server.kill()
            server.start()
            assert server.admin("DBSIZE") > 0
            clock.at += 60
            await owner.writer.flush()
            clock.at += 60
            await owner.writer.flush()
            assert owner.writer.losses == 1
            assert await is_whole(store, owner)

    run(work())


def test_an_outage_without_loss_writes_only_what_waited(server: PrivateRedis) -> None:
    async def work() -> None:
        clock = Clock()
        async with opened(server.address, deadline_seconds=0.05) as store:
            owner = Owner(store, clock)
            owner.change(entry("a"), entry("b"))
            await owner.writer.flush()
            server.admin("CLIENT", "PAUSE", "300", "WRITE")
            owner.change(entry("a", revision=2))
            assert await owner.writer.flush() is None
            store._deadline = 5
            clock.at += 60
            assert await owner.writer.flush() is not None
            assert (owner.writer.losses, owner.writer.pending) == (0, 0)
            assert await is_whole(store, owner)

    run(work())


def test_out_of_memory_loses_nothing(server: PrivateRedis) -> None:
    async def work() -> None:
        clock = Clock()
        async with opened(server.address) as store:
            owner = Owner(store, clock)
            await owner.writer.flush()
            server.admin("CONFIG", "SET", "maxmemory", "1")
            owner.change(*(entry(f"c{n}") for n in range(CHUNK + 5)))
            assert await owner.writer.flush() is None
            assert owner.writer.down_since is not None
            assert owner.writer.pending == CHUNK + 5
            server.admin("CONFIG", "SET", "maxmemory", "0")
            clock.at += 60
            assert await owner.writer.flush() == Written(CHUNK + 5, 0)
            assert await is_whole(store, owner)

    run(work())
