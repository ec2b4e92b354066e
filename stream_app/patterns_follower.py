"""The patterns of winning campaigns, kept rolling: ``patterns.cross-platform`` and the ``patterns`` cache follow what
``insights.latest`` says of campaigns.

What an account's patterns are is a function of the insights: the follower keeps a snapshot of these and nothing else,
and one that starts again reads on from there and publishes only what differs from what the topic holds.
"""

import asyncio
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Final

import msgspec

from core.learning.account_patterns import MIN_ROAS, account_patterns
from core.learning.live_campaigns import LiveCampaigns
from core.normalizer import PlatformNormalizer
from schemas import patterns as patterns_codec
from schemas import topics as names
from schemas.patterns import ALL
from stream_app.caches import TTL_SECONDS, Caches, patterns_key
from stream_app.domain import insight_config
from stream_app.duration import Duration
from stream_app.errors import ServerAbsent
from stream_app.extent import ExtentReader
from stream_app.live_insights import LiveInsights, live_campaigns
from stream_app.producer import Outgoing
from stream_app.sending import BY_KEY, send_all
from stream_app.settings import Settings
from stream_app.topics import DERIVED_MAX_BYTES, name

POLL_S: Final = 0.5
EVERY: Final = Duration(300_000)
"""Where ``PARALLAX_PATTERNS_EVERY`` is not set."""
LOOK_S: Final = 60.0
"""How often topic and cache are looked after: what one of them did not take, or holds otherwise."""
KEEP_S: Final = 600.0
"""How old the snapshot from which the next follower goes on may become before a round takes another."""
HALF_LIFE_S: Final = TTL_SECONDS["patterns"] / 2


class Round(msgspec.Struct, frozen=True):
    """What a round did: accounts computed and published, campaigns that are live, why some were not sent and why there
    is no snapshot.
    """

    computed: int
    published: int
    accounts: int
    campaigns: int
    seconds: float
    failure: str = ""
    no_snapshot: str = ""

    def __str__(self) -> str:
        told = (
            f"{self.campaigns:,} campaigns of {self.accounts:,} accounts: {self.computed:,} patterns computed,"
            f" {self.published:,} published, in {self.seconds:.2f} s"
        )
        told += f"; not sent: {self.failure}" if self.failure else ""
        return told + (f"; no snapshot: {self.no_snapshot}" if self.no_snapshot else "")


def cache_key(account: str, min_roas: float) -> str:
    """Where an account's patterns are cached."""
    return patterns_key("" if account == ALL else account, None if min_roas == MIN_ROAS else min_roas)


def published(settings: Settings) -> dict[str, bytes]:
    """What the topic holds: each account's newest patterns. Raises ``ServerAbsent`` and ``SetupError``."""
    found: dict[str, bytes] = {}
    with ExtentReader(settings) as reader:
        for extent in reader.whole(name(settings, names.PATTERNS)):
            for batch in reader.read(extent):
                for record in batch:
                    account = (record.key or b"").decode("utf-8", "replace")
                    if record.value is None:
                        found.pop(account, None)
                    else:
                        found[account] = record.value
    return found


class PatternsFollower:
    """Follows until it is ended. ``told`` gets each round that computed anything."""

    def __init__(
        self,
        settings: Settings,
        min_roas: float = MIN_ROAS,
        told: Callable[[Round], None] = lambda _round: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._min_roas, self._told, self._clock = settings, min_roas, told, clock
        self._every = (settings.patterns_every or EVERY).seconds
        self._normalizer = PlatformNormalizer(insight_config(settings).profile)
        self._payloads: dict[str, bytes] = {}
        self._sent: dict[str, bytes] = {}
        self._stored: dict[str, float] = {}
        self._keep_at = -float("inf")

    def run(self, ended: Callable[[], bool] = lambda: False) -> None:
        """Raises ``ServerAbsent`` and ``SetupError`` where it cannot begin."""
        with LiveInsights(self._settings, live_campaigns(self._settings)) as insights:
            self._sent = published(self._settings)
            insights.catch_up()
            changed = {ALL, *self._sent}
            publish_at = self._clock()
            look_at = publish_at + LOOK_S
            while not ended():
                now = self._clock()
                if now >= publish_at and (changed := changed.union(insights.campaigns.changed())):
                    changed = self._publish(insights, changed)
                    publish_at = now + self._every
                if now >= look_at:
                    changed = changed | self._astray()
                    self._store([one for one, at in self._stored.items() if now - at >= HALF_LIFE_S])
                    look_at = now + LOOK_S
                insights.poll(POLL_S)

    def _astray(self) -> set[str]:
        """The accounts of which the topic does not hold what was published: another follower, not yet ended after it
        lost its lead, may have been slower.
        """
        with suppress(ServerAbsent):
            self._sent = published(self._settings)
        return {one for one in self._sent.keys() | self._payloads if self._sent.get(one) != self._payloads.get(one)}

    def _publish(self, insights: LiveInsights[LiveCampaigns], changed: Collection[str]) -> set[str]:
        """Compute the patterns of accounts, and publish and store those that differ; which could not be sent."""
        began, campaigns = time.monotonic(), insights.campaigns
        outgoing: list[Outgoing] = []
        for account in sorted(changed):
            payload = None
            if own := campaigns.of(account):
                found = account_patterns(own, self._normalizer, account, self._min_roas)
                self._payloads[account] = payload = patterns_codec.encode(found)
            else:
                self._payloads.pop(account, None)
            if payload != self._sent.get(account):
                topic = name(self._settings, names.PATTERNS)
                outgoing.append(Outgoing(topic, BY_KEY, account.encode("utf-8", "surrogatepass"), payload))
        sending = send_all(self._settings, outgoing, DERIVED_MAX_BYTES) if outgoing else None
        failure = "" if sending is None or not sending.failures else sending.failures[0]
        self._store(changed)
        no_snapshot = self._keep(insights)
        self._told(
            Round(
                computed=len(changed),
                published=0 if sending is None else sending.stored,
                accounts=len(campaigns.accounts()),
                campaigns=len(campaigns),
                seconds=time.monotonic() - began,
                failure=failure,
                no_snapshot=no_snapshot,
            )
        )
        if failure:
            return set(changed)
        self._sent = dict(self._payloads)
        return set()

    def _keep(self, insights: LiveInsights[LiveCampaigns]) -> str:
        """Take a snapshot if one is due; why there is none."""
        now = self._clock()
        if now < self._keep_at:
            return ""
        try:
            insights.keep()
        except OSError as error:
            return str(error)
        self._keep_at = now + KEEP_S
        return ""

    def _store(self, accounts: Collection[str]) -> None:
        """Let the cache have what was computed; what it does not take is tried again at the next look."""
        if not accounts or not self._settings.cache_enabled:
            return
        for account in accounts:
            self._stored[account] = -float("inf")
        for account in asyncio.run(self._put(accounts)):
            self._stored[account] = self._clock()
            if account not in self._payloads:
                del self._stored[account]

    async def _put(self, accounts: Collection[str]) -> list[str]:
        """Which of them the cache has taken."""
        caches, taken = Caches.of(self._settings), []
        try:
            for account in accounts:
                key, payload = cache_key(account, self._min_roas), self._payloads.get(account)
                if payload is None:
                    done = await caches.forget("patterns", key)
                else:
                    done = await caches.put("patterns", key, payload)
                if not done:
                    # One that does not answer now would be waited for once more for each account.
                    break
                taken.append(account)
        finally:
            await caches.close()
        return taken
