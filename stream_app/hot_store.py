"""Redis's hot store: the newest insight and prediction of each campaign and window.

Key ``{prefix}:{kind}:{campaign id}:{window}``. Neither kind nor window holds a colon, so a campaign id is kept whole,
whatever is in it, and two never meet in one key. The value is a hash, readable by any client:

============  =====================================================
``value``     the insight or prediction as it stands on its topic
``revision``  what the campaign has seen: the offset of its newest rollup, plus one
``phase``     0 preliminary, 1 final, 2 corrected, 3 replayed
``as_of``     what the value covers, UTC milliseconds
``written``   when it was last written or confirmed, UTC milliseconds
============  =====================================================

``(revision, phase)`` is the version, compared in that order by one script that also sets the TTL: an older
version never replaces a newer one, whoever writes it. Lua compares doubles, which are exact up to 2^53: ``HotEntry``
refuses what lies beyond. A scorecard has its partition for a campaign and its last day for a revision
(``stream_app.hot_scorecards``). ``{prefix}:writer:{writer}`` is a writer's beacon, see ``HotWriter``.
"""

import asyncio
import hashlib
import logging
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, Self

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError

from stream_app.errors import ServerAbsent
from stream_app.settings import Settings

log = logging.getLogger(__name__)

Kind = Literal["insight", "prediction", "scorecard"]
Version = tuple[int, int]
Slot = tuple[str, str, str]

CHUNK: Final = 500
LARGEST_EXACT: Final = 2**53
_WINDOW: Final = re.compile(r"[0-9A-Za-z_-]{1,32}")

# A slot that holds something else than a versioned hash is ours to replace: left in place it would block the writer
# for good.
_PUT: Final = """
local stored = redis.pcall('HMGET', KEYS[1], 'revision', 'phase')
if stored.err then
  if not string.find(stored.err, 'WRONGTYPE', 1, true) then return stored end
  redis.call('DEL', KEYS[1])
else
  for i = 1, 2 do
    local old, new = tonumber(stored[i] or ''), tonumber(ARGV[i])
    if not old or new > old then break end
    if new < old then return 0 end
  end
end
redis.call('HSET', KEYS[1], 'revision', ARGV[1], 'phase', ARGV[2],
           'as_of', ARGV[3], 'written', ARGV[4], 'value', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
return 1
"""
_BEACON: Final = """
local held = tonumber(redis.call('GET', KEYS[1]) or '-1') or -1
if held < tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""


def _sha(script: str) -> str:
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


_PUT_SHA: Final = _sha(_PUT)
_BEACON_SHA: Final = _sha(_BEACON)


class HotStoreDown(ServerAbsent):
    """Redis cannot serve: absent, too slow, out of memory, refusing. ``reason`` is one line and holds no secret."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"Redis does not serve: {reason}")
        self.reason = reason


class HotEntry(msgspec.Struct, frozen=True, gc=False):
    """One value on its way to the store.

    Raises ``ValueError`` for a version beyond 2^53 or a window that no key can hold.
    """

    kind: Kind
    campaign_id: str
    window: str
    revision: int
    phase: int
    value: bytes
    as_of_ms: int

    def __post_init__(self) -> None:
        if not all(abs(number) <= LARGEST_EXACT for number in self.version):
            raise ValueError(f"a version of the hot store lies within 2^53: {self.version}")
        if not _WINDOW.fullmatch(self.window):
            raise ValueError(f"a window's name is made of letters, digits, - and _: {self.window!r}")

    @property
    def version(self) -> Version:
        """(revision, phase): the greater one is the newer."""
        return self.revision, self.phase

    @property
    def slot(self) -> Slot:
        """(kind, campaign, window): what one key of the store holds."""
        return self.kind, self.campaign_id, self.window


class Written(msgspec.Struct, frozen=True):
    """What became of entries: ``written`` were stored or confirmed (equal version), ``stale`` met a newer version
    and were refused.
    """

    written: int = 0
    stale: int = 0

    def __add__(self, other: "Written") -> "Written":
        return Written(self.written + other.written, self.stale + other.stale)


class HotValue(msgspec.Struct, frozen=True):
    """A stored value.

    ``age_seconds`` counts from its last write; ``fresh`` turns ``stale`` past the store's threshold.
    """

    value: bytes
    age_seconds: float
    as_of_ms: int
    freshness: Literal["fresh", "stale"]
    ttl_seconds: float
    version: Version


class HotStore:
    """Versioned values in Redis. Every failure of Redis is a ``HotStoreDown``.

    ``client`` must not decode responses. ``stale_after_seconds`` is half of the TTL unless given;
    ``deadline_seconds`` bounds one pipeline of at most ``CHUNK`` entries as a whole, where a socket's timeout bounds
    one read. ``now`` gives epoch seconds.
    """

    def __init__(
        self,
        client: Redis,
        ttl_seconds: int = 3600,
        prefix: str = "parallax",
        *,
        stale_after_seconds: float | None = None,
        deadline_seconds: float = 5.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        if client.connection_pool.connection_kwargs.get("decode_responses"):
            raise ValueError("the hot store holds bytes: its Redis client must not decode responses")
        if ttl_seconds <= 0:
            raise ValueError(f"a TTL is a positive number of seconds: {ttl_seconds}")
        self._client: Any = client
        self._ttl_ms = ttl_seconds * 1000
        self._prefix = prefix
        self._stale_after = ttl_seconds / 2 if stale_after_seconds is None else stale_after_seconds
        self._deadline = deadline_seconds
        self._now = now

    @classmethod
    def connect(
        cls,
        *,
        host: str,
        port: int = 6379,
        db: int = 0,
        username: str | None = None,
        password: str | None = None,
        tls: bool = False,
        ca_file: str | None = None,
        ttl_seconds: int = 3600,
        timeout_seconds: float = 2.0,
    ) -> Self:
        """A store on a server, which is first spoken to when used.

        With ``tls`` its certificate and host name are checked, against ``ca_file`` or the system's authorities.
        """
        checked: dict[str, Any] = {"ssl_cert_reqs": "required", "ssl_check_hostname": True, "ssl_ca_certs": ca_file}
        client = Redis(
            host=host,
            port=port,
            db=db,
            username=username or None,
            password=password or None,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            # An idle connection may have been closed by a restart: that alone is no outage, and every command here is
            # idempotent.
            retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
            ssl=tls,
            **(checked if tls else {}),
        )
        return cls(client, ttl_seconds, deadline_seconds=2.5 * timeout_seconds)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The store that the settings name."""
        return cls.connect(
            host=settings.redis_host,
            port=settings.redis_port,
            db=settings.redis_db,
            username=settings.redis_username or None,
            password=settings.redis_password.get_secret_value() or None,
            tls=settings.redis_tls,
            ca_file=str(settings.redis_cafile) if settings.redis_cafile else None,
            ttl_seconds=settings.cache_ttl,
        )

    async def put_many(self, entries: Sequence[HotEntry]) -> Written:
        """Write entries, each atomically and only over an older or equal version.

        Raises ``HotStoreDown`` if any of them failed; the same call may then be made again.
        """
        total = Written()
        for first in range(0, len(entries), CHUNK):
            replies = await self._run([self._put(entry) for entry in entries[first : first + CHUNK]])
            written = sum(map(int, replies))
            total += Written(written, len(replies) - written)
        return total

    async def beacon(self, writer: str, expected: int, number: int) -> bool:
        """Move a writer's beacon from ``expected`` or beyond to ``number``; false, and no move, when the store
        holds less than that: it then has lost whatever was written since. An ``expected`` of -1 holds always.
        """
        key = f"{self._prefix}:writer:{writer}".encode()
        (held,) = await self._run([(_BEACON_SHA, key, (expected, number, self._ttl_ms))])
        return bool(held)

    async def get(self, campaign_id: str, window: str, kind: Kind = "insight") -> HotValue | None:
        """The newest value of a campaign and window, or ``None`` where there is none (any more)."""
        key = self._key(kind, campaign_id, window)
        try:
            # Not a transaction: Redis refuses those when it is out of memory, even to read.
            async with asyncio.timeout(self._deadline), self._client.pipeline(transaction=False) as pipe:
                pipe.hmget(key, "revision", "phase", "as_of", "written", "value").pttl(key)
                (*numbers, value), ttl_ms = await pipe.execute()
        except (RedisError, OSError, TimeoutError) as error:
            raise _down(error) from error
        if value is None or None in numbers or ttl_ms == -2:
            return None
        revision, phase, as_of, written = map(int, numbers)
        age = max(0.0, self._now() - written / 1000)
        freshness: Literal["fresh", "stale"] = "stale" if age > self._stale_after else "fresh"
        return HotValue(value, age, as_of, freshness, max(0, ttl_ms) / 1000, (revision, phase))

    async def ping(self) -> bool:
        """Whether Redis answers."""
        try:
            async with asyncio.timeout(self._deadline):
                return bool(await self._client.ping())
        except (RedisError, OSError, TimeoutError):
            return False

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _key(self, kind: str, campaign_id: str, window: str) -> bytes:
        return f"{self._prefix}:{kind}:{campaign_id}:{window}".encode("utf-8", "surrogatepass")

    def _put(self, entry: HotEntry) -> tuple[str, bytes, tuple[Any, ...]]:
        arguments = (*entry.version, entry.as_of_ms, round(self._now() * 1000), entry.value, self._ttl_ms)
        return _PUT_SHA, self._key(*entry.slot), arguments

    async def _run(self, calls: list[tuple[str, bytes, tuple[Any, ...]]]) -> list[Any]:
        try:
            async with asyncio.timeout(self._deadline):
                replies = await self._pipeline(calls)
                missing = [at for at, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
                if missing:
                    for script in (_PUT, _BEACON):
                        await self._client.script_load(script)
                    again = await self._pipeline([calls[at] for at in missing])
                    for at, reply in zip(missing, again, strict=True):
                        replies[at] = reply
        except (RedisError, OSError, TimeoutError) as error:
            raise _down(error) from error
        failed = next((reply for reply in replies if isinstance(reply, Exception)), None)
        if failed is not None:
            raise _down(failed) from failed
        return replies

    async def _pipeline(self, calls: list[tuple[str, bytes, tuple[Any, ...]]]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            for sha, key, arguments in calls:
                pipe.evalsha(sha, 1, key, *arguments)
            replies: list[Any] = await pipe.execute(raise_on_error=False)
            return replies


def _down(error: Exception) -> HotStoreDown:
    return HotStoreDown(" ".join((str(error) or type(error).__name__).split())[:200])
