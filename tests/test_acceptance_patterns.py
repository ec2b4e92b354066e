"""Patterns that roll beside a worker: what is published, cached and printed is what the library makes of the offline
insights, and whoever starts again publishes nothing else.
"""

import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis import Redis

from core import CampaignData, CrossPlatformLearner, Platform, PlatformMetrics
from schemas import patterns as codec
from schemas import topics as names
from schemas.insight import CrossPlatformInsight
from schemas.patterns import CrossPlatformPatterns
from stream_app.feed import Feed
from stream_app.local_worker import LocalWorker
from stream_app.simulator import simulate
from tests.live import ROOT, Live, by_id, newest_windows, offline, wait_until, with_content

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(300)]


def campaign(insight: CrossPlatformInsight) -> CampaignData:
    """By hand, not by what reads the stream."""
    platforms = {}
    for name, part in insight.platform_breakdown.items():
        totals = part.totals
        platforms[Platform(name)] = PlatformMetrics(
            platform=Platform(name),
            impressions=totals.impressions,
            clicks=totals.clicks,
            spend=None if totals.spend_micros is None else totals.spend_micros / 1e6,
            conversions=None if totals.conversions_micros is None else totals.conversions_micros / 1e6,
            revenue=None if totals.revenue_micros is None else totals.revenue_micros / 1e6,
            engagements=totals.engagements,
            currency=totals.currency or "",
        )
    return CampaignData(campaign_id=insight.campaign_id, platforms=platforms)


def expected(app: Live, feed: Feed) -> dict[str, tuple[str, CrossPlatformPatterns]]:
    """By account, up to when and what: from what ``core`` computes of the records that the broker has stored."""
    newest = newest_windows(with_content(by_id(offline(feed, app.settings).insights)))
    members: dict[str, list[CrossPlatformInsight]] = defaultdict(list)
    for (_, window), insight in newest.items():
        if window != "7d":
            continue
        members["all"].append(insight)
        for account in {
            f"{name}:{account}" for name, part in insight.platform_breakdown.items() for account in part.accounts
        }:
            members[account].append(insight)
    return {
        account: (
            max(one.window_end for one in own),
            CrossPlatformLearner().extract_cross_platform_patterns([campaign(one) for one in own]),
        )
        for account, own in members.items()
    }


def published(app: Live) -> dict[str, tuple[str, CrossPlatformPatterns]]:
    found: dict[str, tuple[str, CrossPlatformPatterns]] = {}
    for message in app.read(names.PATTERNS):
        patterns = codec.decode(message.value())
        assert patterns.account == message.key().decode()
        found[patterns.account] = (patterns.as_of, patterns.patterns)
    return found


def by_place(app: Live) -> dict[tuple[int, int], tuple[bytes, bytes]]:
    """By place, for partitions are read in any order."""
    return {
        (message.partition(), message.offset()): (message.key(), message.value())
        for message in app.read(names.PATTERNS)
    }


def is_published(app: Live, wanted: dict[str, tuple[str, CrossPlatformPatterns]]) -> bool:
    return published(app) == wanted


def follower(worker: LocalWorker) -> dict[str, Any]:
    status = worker.status()
    found: dict[str, Any] = {} if status is None else status["patterns"]
    return found


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def printed(app: Live, *options: str) -> dict[str, Any]:
    done = app.command("patterns", "--format", "json", *options)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_patterns_roll_beside_a_worker_and_are_what_the_library_gives(
    kafka: str, redis_server: tuple[str, int], tmp_path: Path
) -> None:
    """Scenario: rows come day by day to a worker; it is killed; a follower runs alone; the cache is lost.

    Expectation: each account's patterns, and those of all, are the library's of the offline insights; the follower ends
    with its worker; the next one publishes nothing; the command gives the same from the cache and without it.
    """
    days = [step.records for step in simulate(11, 6, 10).steps]
    with Live(kafka, redis_server, tmp_path, redis_db=6, patterns_every="200ms") as app:
        worker, feed = app.start(), Feed(app.settings)
        app.ready(worker)
        for records in (days[:6], days[6:]):
            feed.publish(record for day in records for record in day)
            app.drain(feed.count)
            wanted = expected(app, feed)
            assert len(wanted) > 3
            wait_until("the patterns are published", partial(is_published, app, wanted))
        assert follower(worker)["state"] == "running"
        assert follower(worker)["outcome"].endswith(" s")
        pid = follower(worker)["pid"]
        os.kill(worker.process.process.pid, signal.SIGKILL)
        wait_until("the follower is gone with its worker", lambda: not alive(pid))
        before = by_place(app)

        alone = subprocess.Popen(
            [sys.executable, "-m", "stream_app", "patterns", "--follow"],
            cwd=ROOT,
            env=app.environment() | {"PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert alone.stdout is not None
            line = alone.stdout.readline()
            assert f"{len(wanted):,} patterns computed, 0 published" in line
        finally:
            alone.kill()
            alone.communicate()
        assert by_place(app) == before

        account = max(key for key in wanted if key != "all")
        for options, key in (((), "all"), (("--account", account), account)):
            found = printed(app, *options)
            assert found["source"] == "stored"
            assert (found["as_of"], found["patterns"]) == (wanted[key][0], _plain(wanted[key][1]))
        with Redis(**app.settings.redis_url_kwargs()) as client:
            client.flushdb()
        first, second = printed(app), printed(app)
        assert (first["source"], second["source"]) == ("computed", "stored")
        assert first["patterns"] == second["patterns"] == _plain(wanted["all"][1])
        table = app.command("patterns").stdout
        assert "from the cache," in table
        other = printed(app, "--min-roas", "3.5")
        assert (other["source"], other["patterns"]["min_roas"]) == ("computed", 3.5)
        counts = json.loads(app.command("caches", "--json").stdout)["patterns"]
        assert (counts["hits"], counts["misses"], counts["hit_rate"]) == (2, 2, 0.5)
        without = app.command("patterns", CACHE_ENABLED="false")
        assert f"computed now from {wanted['all'][1].total_campaigns} campaigns" in without.stdout


def _plain(patterns: CrossPlatformPatterns) -> Any:
    return json.loads(msgspec.json.encode(patterns))
