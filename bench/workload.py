"""The records of a benchmark, and an account of their sums that shares no code with the product.

Canonical delta events of some 230 bytes: 1,000 campaigns on three platforms each, event time over the last two hours,
a few seconds out of order. A platform campaign's id is the same on all three platforms, so that the plain agent can
group by it and is spared the links.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np

from schemas.event import HOUR_MS
from schemas.topics import CAMPAIGN_LINKS, METRICS_TOPICS
from stream_app.simulator.wire import SimRecord

CAMPAIGNS: Final = 1_000
PLATFORMS: Final = tuple(str(platform) for platform in METRICS_TOPICS)
METRICS: Final = ("impressions", "clicks", "spend_micros", "conversions_micros", "revenue_micros")
SPAN_MS: Final = 2 * HOUR_MS
JITTER_MS: Final = 5_000
SEED: Final = 7
SLICE: Final = 10_000

Sums = dict[tuple[str, str], tuple[int, ...]]
"""Sums in the order of ``METRICS``, by platform campaign id and platform."""


class Workload:
    """``events`` canonical events, the last of which happened just before ``now_ms`` (UTC milliseconds)."""

    def __init__(self, events: int, now_ms: int) -> None:
        rng = np.random.default_rng(SEED)
        self.events = events
        steady = now_ms - SPAN_MS + np.arange(events, dtype=np.int64) * SPAN_MS // events
        self._happened = steady - rng.integers(0, JITTER_MS, events)
        self._campaign = rng.integers(0, CAMPAIGNS, events)
        self._platform = rng.integers(0, len(PLATFORMS), events)
        orders = rng.binomial(1, 0.2, events)
        columns = (
            rng.integers(1, 100, events),
            rng.integers(0, 6, events),
            rng.integers(1_000, 2_000_000, events),
            orders * 1_000_000,
            orders * rng.integers(1_000_000, 90_000_000, events),
        )
        self._metrics = np.column_stack(columns)

    def links(self) -> Iterator[SimRecord]:
        """A link from each platform campaign to its campaign."""
        first = int(self._happened[0])
        for campaign in range(CAMPAIGNS):
            own, canonical = _platform_campaign(campaign), _canonical(campaign)
            for platform in PLATFORMS:
                payload = (
                    f'{{"version":1,"platform":"{platform}","platform_campaign_id":"{own}",'
                    f'"campaign_id":"{canonical}","updated_at":{first}}}'
                )
                yield SimRecord(CAMPAIGN_LINKS, f"{platform}:{own}".encode(), payload.encode(), first, [])

    def stream(self) -> Iterator[SimRecord]:
        """The events as connectors send them: on their platform's topic, keyed by platform campaign."""
        topics = list(METRICS_TOPICS.values())
        for platform, campaign, happened, payload in self._payloads(self.events):
            key = f"{PLATFORMS[platform]}:{_platform_campaign(campaign)}"
            yield SimRecord(topics[platform], key.encode(), payload, happened, [])

    def plain(self, topic: str, events: int) -> Iterator[SimRecord]:
        """The first events on one topic, keyed by campaign."""
        for _, campaign, happened, payload in self._payloads(events):
            yield SimRecord(topic, _platform_campaign(campaign).encode(), payload, happened, [])

    def _payloads(self, events: int) -> Iterator[tuple[int, int, int, bytes]]:
        for start in range(0, events, SLICE):
            part = slice(start, min(start + SLICE, events))
            columns = (self._platform, self._campaign, self._happened, *self._metrics.T)
            rows = zip(*(column[part].tolist() for column in columns), strict=True)
            for number, (platform, campaign, happened, *metrics) in enumerate(rows, start=start):
                impressions, clicks, spend, conversions, revenue = metrics
                payload = (
                    f'{{"version":1,"kind":"delta","event_id":"{number}","platform":"{PLATFORMS[platform]}",'
                    f'"campaign_id":"{_platform_campaign(campaign)}","period_start":{happened},'
                    f'"impressions":{impressions},"clicks":{clicks},"spend_micros":{spend},'
                    f'"conversions_micros":{conversions},"revenue_micros":{revenue},"currency":"USD"}}'
                )
                yield platform, campaign, happened, payload.encode()

    def mean_bytes(self) -> float:
        """Mean size of an event's payload, over the first ones."""
        sizes = [len(payload) for *_, payload in self._payloads(min(self.events, SLICE))]
        return sum(sizes) / len(sizes)

    def sums(self, events: int) -> Sums:
        """What the first events add up to."""
        group = self._campaign[:events] * len(PLATFORMS) + self._platform[:events]
        totals = np.zeros((CAMPAIGNS * len(PLATFORMS), len(METRICS)), dtype=np.int64)
        np.add.at(totals, group, self._metrics[:events])
        sums = totals.tolist()
        found: Sums = {}
        for which in np.unique(group).tolist():
            campaign, platform = divmod(which, len(PLATFORMS))
            found[_platform_campaign(campaign), PLATFORMS[platform]] = tuple(sums[which])
        return found


def _platform_campaign(campaign: int) -> str:
    return str(1_000 + campaign)


def _canonical(campaign: int) -> str:
    return f"cmp-{campaign:04d}"
