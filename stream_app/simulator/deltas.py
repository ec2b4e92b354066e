"""Canonical delta events of the in-house source: today's, not yet reported by any platform, and an endless stream."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from schemas.event import HOUR_MS
from schemas.topics import METRICS_TOPICS
from stream_app.simulator.clock import TODAY_FIRST_HOUR, TODAY_HOURS
from stream_app.simulator.performance import true_ctr
from stream_app.simulator.roster import PlatformCampaign, SimCampaign, roster
from stream_app.simulator.wire import SimRecord, chance, to_json

TODAY_EVENTS: Final = 20_000
LIVE_PER_SECOND: Final = 200
DUPLICATED: Final = 0.01
BLOCK: Final = 1_000


def todays_deltas(seed: int, campaigns: tuple[SimCampaign, ...], days: int) -> tuple[list[SimRecord], int]:
    """Today's events by arrival, which is out of order by event time, and how many of them repeat an event id."""
    rng = chance(seed, "today")
    source = _Source(seed, campaigns, days, rng)
    happened = np.sort(TODAY_FIRST_HOUR + rng.integers(0, TODAY_HOURS * HOUR_MS, TODAY_EVENTS))
    records = [source.event(f"evt-{seed}-{n:06d}", int(at)) for n, at in enumerate(happened)]
    repeats = [
        record._replace(timestamp_ms=record.timestamp_ms + int(rng.integers(1, HOUR_MS // 4)))
        for record in records
        if rng.random() < DUPLICATED
    ]
    return sorted(records + repeats, key=lambda record: record.timestamp_ms), len(repeats)


def live(seed: int, start_ms: int, campaigns: int = 20, days: int = 14) -> Iterator[SimRecord]:
    """Endless events of the same campaigns, arriving from ``start_ms`` on, ``LIVE_PER_SECOND`` of them to a second.

    The caller paces by ``timestamp_ms``. Event ids hold the start, so that a second run repeats none of the first.
    """
    rng = chance(seed, "live", start_ms)
    source = _Source(seed, roster(seed, campaigns), days, rng)
    number = 0
    while True:
        arrival = start_ms + number * 1000 // LIVE_PER_SECOND
        event = source.event(f"live-{seed}-{start_ms}-{number}", arrival - int(rng.integers(5, 2_000)))
        yield event._replace(timestamp_ms=arrival)
        number += 1


class _Source:
    """Draws events of all platform campaigns, the larger ones more often. Draws come in blocks, for speed."""

    def __init__(self, seed: int, campaigns: tuple[SimCampaign, ...], days: int, rng: np.random.Generator) -> None:
        self._runs = [run for campaign in campaigns for run in campaign.runs]
        weights = np.array([run.daily_impressions for run in self._runs])
        self._weights = weights / weights.sum()
        self._rates = np.array([true_ctr(run, seed, days) for run in self._runs])
        self._rng = rng
        self._block: list[tuple[int, ...]] = []

    def event(self, event_id: str, happened_ms: int) -> SimRecord:
        if not self._block:
            self._block = self._draw()
        which, impressions, clicks, spread, orders, worth, delay = self._block.pop()
        run = self._runs[which]
        return _record(run, event_id, happened_ms, impressions, clicks, spread, orders, worth, delay)

    def _draw(self) -> list[tuple[int, ...]]:
        rng = self._rng
        which = rng.choice(len(self._runs), BLOCK, p=self._weights)
        impressions = rng.integers(5, 80, BLOCK)
        clicks = rng.binomial(impressions, self._rates[which])
        orders = rng.binomial(clicks, np.array([run.conversion_rate for run in self._runs])[which])
        spread = rng.integers(900, 1_100, BLOCK)
        # Most events arrive within seconds, some of them half an hour later: all within the hour.
        delay = np.minimum(rng.lognormal(8.0, 1.6, BLOCK), 0.9 * HOUR_MS).astype(np.int64)
        columns = (which, impressions, clicks, spread, orders, rng.integers(700, 1_300, BLOCK), delay)
        return list(zip(*(column.tolist() for column in columns), strict=True))


def _record(
    run: PlatformCampaign, event_id: str, happened_ms: int, impressions: int, clicks: int,
    spread: int, orders: int, worth: int, delay_ms: int,
) -> SimRecord:  # fmt: skip
    body = {
        "version": 1,
        "kind": "delta",
        "event_id": event_id,
        "platform": run.platform,
        "account_id": run.account.in_house_id,
        "campaign_id": run.campaign_id,
        "period_start": happened_ms,
        "impressions": impressions,
        "clicks": clicks,
        "spend_micros": int(impressions * run.cpm * spread),
        "conversions_micros": orders * 1_000_000,
        "revenue_micros": int(orders * run.order_value * worth) * 1_000,
        "currency": run.account.currency,
    }
    return SimRecord(METRICS_TOPICS[run.platform], run.key.encode(), to_json(body), happened_ms + delay_ms, [])
