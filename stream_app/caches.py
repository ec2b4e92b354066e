"""Three caches in Redis for what is costly to compute: insights, patterns, budget allocations.

==========  =====================================================================  =======
kind        key                                                                    TTL
==========  =====================================================================  =======
insight     campaign and window                                                    3,600 s
patterns    account, or ``all``                                                    7,200 s
budget      ad, with impressions, clicks, spend and age in buckets                 1,800 s
==========  =====================================================================  =======

``{prefix}:cache:{kind}:{key}`` holds the time of writing (8 bytes, epoch milliseconds, big endian) and the value, for
the kind's TTL. A copy under ``{prefix}:stale:…`` lives longer and is served, marked as stale, where the value cannot be
computed or somebody else is computing it. On a miss one caller computes: within the process the others wait for it,
between processes a lock with a deadline decides. Without Redis every caller computes: a cache is no source of truth.

The hash ``{prefix}:cache:counts`` sums up the counts of all processes, as ``{kind}_{count}``. They travel with the next
question to Redis, the last ones at ``close``; what a process that is killed still owes is lost.
"""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from math import floor, isfinite, log2
from typing import Any, Final, Literal, Self

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from stream_app.settings import Settings

Kind = Literal["insight", "patterns", "budget"]
Source = Literal["stored", "computed", "shared", "stale"]
Compute = Callable[[], Awaitable[bytes]]

TTL_SECONDS: Final[dict[Kind, int]] = {"insight": 3_600, "patterns": 7_200, "budget": 1_800}
STALE_TIMES: Final = 4
"""The stale copy lives this many TTLs."""

BUCKETS_A_DOUBLING: Final = 2
POLL_SECONDS: Final = 0.02
_STAMP: Final = 8

# Only the holder may release: by then the lock may have expired and be another's.
_RELEASE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


class Cached(msgspec.Struct, frozen=True):
    """A value and where it came from. ``stale`` says that it has outlived its TTL; ``age_seconds`` since written."""

    value: bytes
    source: Source
    age_seconds: float

    @property
    def stale(self) -> bool:
        """Whether the value is older than its TTL allows."""
        return self.source == "stale"


class CacheCounts(msgspec.Struct):
    """Answers by where they came from, of one kind since the process began.

    ``hits``: from Redis in time. ``misses``: computed. ``shared``: waited for another's computation. ``stale``: served
    from the stale copy. ``errors``: times that Redis failed. ``failures``: computations that raised.
    """

    hits: int = 0
    misses: int = 0
    shared: int = 0
    stale: int = 0
    errors: int = 0
    failures: int = 0

    @property
    def hit_rate(self) -> float | None:
        """Hits over all answers; one that waited is none. ``None`` before the first."""
        answers = self.hits + self.misses + self.shared + self.stale
        return self.hits / answers if answers else None


class Caches:
    """The three caches. ``client`` must not decode responses; ``now`` gives epoch seconds.

    ``deadline_seconds`` bounds one exchange with Redis, ``lock_seconds`` how long others leave a computation to its
    first caller.
    """

    def __init__(
        self,
        client: Redis,
        *,
        enabled: bool = True,
        ttl_seconds: Mapping[Kind, int] = TTL_SECONDS,
        prefix: str = "parallax",
        deadline_seconds: float = 2.0,
        lock_seconds: float = 10.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._client: Any = client
        self._enabled = enabled
        self._ttl = {**TTL_SECONDS, **ttl_seconds}
        self._prefix = prefix
        self._deadline = deadline_seconds
        self._lock = lock_seconds
        self._now = now
        self._flights: dict[tuple[Kind, str], asyncio.Task[Cached]] = {}
        self._owed: Counter[str] = Counter()
        self.counts: dict[Kind, CacheCounts] = {kind: CacheCounts() for kind in TTL_SECONDS}

    @classmethod
    def of(cls, settings: Settings, *, lock_seconds: float = 10.0) -> Self:
        """The caches that the settings name; ``CACHE_TTL`` is the insights'."""
        checked: dict[str, Any] = {
            "ssl_cert_reqs": "required",
            "ssl_check_hostname": True,
            "ssl_ca_certs": str(settings.redis_cafile) if settings.redis_cafile else None,
        }
        client = Redis(
            host=settings.redis_host,
            port=settings.redis_port,
            db=settings.redis_db,
            username=settings.redis_username or None,
            password=settings.redis_password.get_secret_value() or None,
            socket_timeout=2.0,
            socket_connect_timeout=2.0,
            retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
            ssl=settings.redis_tls,
            **(checked if settings.redis_tls else {}),
        )
        ttl: dict[Kind, int] = {"insight": settings.cache_ttl}
        return cls(client, enabled=settings.cache_enabled, ttl_seconds=ttl, lock_seconds=lock_seconds)

    async def get(self, kind: Kind, key: str, compute: Compute) -> Cached:
        """The value of a key, computed on a miss by one caller. Raises what ``compute`` does where no copy is left."""
        stored = await self._stored(kind, key)
        if stored is not None:
            self._count(kind, "hits")
            return stored
        flight = self._flights.get((kind, key))
        leads = flight is None
        if flight is None:
            flight = asyncio.create_task(self._fly(kind, key, compute))
            self._flights[kind, key] = flight
            flight.add_done_callback(lambda done: self._landed(kind, key, done))
        # A caller that gives up must not take the others' computation down.
        found = await asyncio.shield(flight)
        if found.source == "stale":
            self._count(kind, "stale")
        elif not leads:
            self._count(kind, "shared")
            return msgspec.structs.replace(found, source="shared")
        elif found.source == "computed":
            self._count(kind, "misses")
        else:
            self._count(kind, "shared")
        return found

    async def put(self, kind: Kind, key: str, value: bytes) -> bool:
        """Store what was computed elsewhere, as if on a miss; whether Redis took it."""
        return bool(await self._store(kind, key, value))

    async def forget(self, kind: Kind, key: str) -> bool:
        """Drop a value and its stale copy; whether Redis did. Without Redis there is nothing to drop."""
        keys = self._key("cache", kind, key), self._key("stale", kind, key)
        return await self._ask(kind, lambda: self._client.delete(*keys)) is not None

    def counters(self) -> dict[str, int]:
        """Every count as ``{kind}_{count}``, for export."""
        return {
            f"{kind}_{name}": number
            for kind, counts in self.counts.items()
            for name, number in msgspec.structs.asdict(counts).items()
        }

    async def counts_of_all(self) -> dict[Kind, CacheCounts] | None:
        """The counts of all processes since Redis lost its memory last; ``None`` where Redis does not answer."""
        told = await self._ask("insight", lambda: self._exchange(lambda pipe: pipe.hgetall(self._counts_key)))
        if told is None:
            return None
        numbers = {name.decode(): int(number) for name, number in told.items()}
        return {
            kind: CacheCounts(**{name: numbers.get(f"{kind}_{name}", 0) for name in CacheCounts.__struct_fields__})
            for kind in TTL_SECONDS
        }

    async def close(self) -> None:
        """Give up running computations, tell the last counts, and close the connections."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
        if self._owed:
            await self.counts_of_all()
        await self._client.aclose()

    async def _fly(self, kind: Kind, key: str, compute: Compute) -> Cached:
        token = secrets.token_bytes(16)
        lock = self._key("lock", kind, key)
        if self._enabled:
            held = await self._ask(
                kind, lambda: self._client.set(lock, token, nx=True, px=round(self._lock * 1000)), failed=True
            )
            if not held:
                found = await self._of_another(kind, key)
                if found is not None:
                    return found
        try:
            value = await compute()
        except Exception:
            self._count(kind, "failures")
            copy = await self._copy(kind, key)
            if copy is None:
                raise
            return copy
        else:
            await self._store(kind, key, value)
            return Cached(value, "computed", 0.0)
        finally:
            if self._enabled:
                await self._ask(kind, lambda: self._client.eval(_RELEASE, 1, lock, token))

    def _landed(self, kind: Kind, key: str, flight: asyncio.Task[Cached]) -> None:
        del self._flights[kind, key]
        if not flight.cancelled():
            flight.exception()  # every caller may have given up: then nobody else takes note of it

    async def _of_another(self, kind: Kind, key: str) -> Cached | None:
        """What another process makes of it: the stale copy meanwhile, or its value once it is there."""
        copy = await self._copy(kind, key)
        if copy is not None:
            return copy
        for _ in range(round(self._lock / POLL_SECONDS)):
            await asyncio.sleep(POLL_SECONDS)
            stored = await self._stored(kind, key)
            if stored is not None:
                return stored
            waiting = await self._ask(kind, lambda: self._client.exists(self._key("lock", kind, key)))
            if not waiting:
                return None
        return None

    async def _stored(self, kind: Kind, key: str) -> Cached | None:
        return await self._read("cache", kind, key, "stored")

    async def _copy(self, kind: Kind, key: str) -> Cached | None:
        return await self._read("stale", kind, key, "stale")

    async def _read(self, place: str, kind: Kind, key: str, source: Source) -> Cached | None:
        raw = await self._ask(kind, lambda: self._exchange(lambda pipe: pipe.get(self._key(place, kind, key))))
        if raw is None or len(raw) < _STAMP:
            return None
        written = int.from_bytes(raw[:_STAMP], "big") / 1000
        return Cached(raw[_STAMP:], source, max(0.0, self._now() - written))

    async def _store(self, kind: Kind, key: str, value: bytes) -> Any:
        raw = round(self._now() * 1000).to_bytes(_STAMP, "big") + value
        ttl = self._ttl[kind]

        async def write() -> bool:
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.set(self._key("cache", kind, key), raw, ex=ttl)
                pipe.set(self._key("stale", kind, key), raw, ex=ttl * STALE_TIMES)
                await pipe.execute()
            return True

        return await self._ask(kind, write)

    def _count(self, kind: Kind, name: str) -> None:
        counts = self.counts[kind]
        setattr(counts, name, getattr(counts, name) + 1)
        if self._enabled:
            self._owed[f"{kind}_{name}"] += 1

    async def _exchange(self, question: Callable[[Any], Any]) -> Any:
        """Redis's answer to one question, which takes along the counts that Redis has not been told."""
        owed, self._owed = self._owed, Counter()
        async with self._client.pipeline(transaction=False) as pipe:
            for name, number in owed.items():
                pipe.hincrby(self._counts_key, name, number)
            question(pipe)
            try:
                # Whatever stands in the place of the counts, it must not hinder an answer.
                answer = (await pipe.execute(raise_on_error=False))[-1]
            except BaseException:
                self._owed.update(owed)
                raise
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _ask(self, kind: Kind, question: Callable[[], Awaitable[Any]], failed: Any = None) -> Any:
        """Redis's answer, or ``failed`` where the caches are off or it does not give one."""
        if not self._enabled:
            return failed
        try:
            async with asyncio.timeout(self._deadline):
                return await question()
        except (RedisError, OSError, TimeoutError):
            self._count(kind, "errors")
            return failed

    @property
    def _counts_key(self) -> bytes:
        return f"{self._prefix}:cache:counts".encode()

    def _key(self, place: str, kind: Kind, key: str) -> bytes:
        return f"{self._prefix}:{place}:{kind}:{key}".encode("utf-8", "surrogatepass")


def insight_key(campaign_id: str, window: str) -> str:
    """The key of a campaign's insight; a window's name holds no colon, so two never meet."""
    return f"{window}:{campaign_id}"


def patterns_key(account_id: str = "", min_roas: float | None = None) -> str:
    """The key of an account's patterns, or of all accounts'; with a ROAS that wins other than the usual one, if named.

    >>> patterns_key(), patterns_key("all"), patterns_key("meta:1", 3.5)
    ('all', 'account:all', 'roas:3.5:account:meta:1')
    """
    key = f"account:{account_id}" if account_id else "all"
    return key if min_roas is None else f"roas:{min_roas!r}:{key}"


def budget_key(ad_id: str, impressions: float, clicks: float, spend: float, age_hours: float) -> str:
    """The key of an ad's budget allocation: nearby inputs share it, buckets being half a doubling wide.

    >>> budget_key("ad-1", 10_000, 150, 80.0, 30) == budget_key("ad-1", 10_400, 155, 83.0, 31)
    True
    """
    return ":".join([*(str(bucket(value)) for value in (impressions, clicks, spend, age_hours)), ad_id])


def bucket(value: float) -> int:
    """The bucket of a number: 0 for less than 1, then two a doubling. Raises ``ValueError`` for what is not finite."""
    if not isfinite(value):
        raise ValueError(f"only finite numbers have a bucket, not {value}")
    return 0 if value < 1 else 1 + floor(BUCKETS_A_DOUBLING * log2(value))
