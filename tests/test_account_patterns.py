"""An account's patterns on the wire: version 1 for ever, the same bytes for the same campaigns."""

import json
import random

import pytest

from core import CampaignData, CrossPlatformLearner, Platform, PlatformMetrics
from core.learning.account_patterns import account_patterns
from core.normalizer import PlatformNormalizer
from schemas import patterns as codec
from schemas.patterns import AccountPatterns, CrossPlatformPatterns, PlatformCombo, PlatformStats, PooledRatio
from tests.test_learning_library_patterns import honest

DAY = 86_400_000
GOLDEN = AccountPatterns(
    account="meta:7",
    as_of="2026-03-08",
    window="7d",
    benchmarks="2026-01",
    patterns=CrossPlatformPatterns(
        total_winners=1,
        total_campaigns=3,
        judged_campaigns=2,
        win_rate=0.5,
        win_rate_low=0.125,
        win_rate_high=0.875,
        avg_winner_ctr=0.25,
        avg_winner_engagement=None,
        avg_winner_composite=0.75,
        avg_consistency=1.0,
        platform_stats={
            Platform.META: PlatformStats(
                campaigns=3,
                winners=1,
                win_rate=0.5,
                win_rate_low=0.125,
                win_rate_high=0.875,
                avg_normalized_ctr=0.25,
                avg_normalized_engagement=None,
                avg_composite=0.75,
                roas=PooledRatio(value=2.5, low=1.5, high=3.5, observed=4.0, campaigns=2, trust=0.5),
            )
        },
        multi_platform_winners=1,
        best_platform_combo=None,
        combos=[
            PlatformCombo(
                combo=(Platform.META, Platform.TIKTOK), avg_roas=2.5, count=2, low=1.5, high=3.5, observed_roas=4.0
            )
        ],
        min_roas=2.0,
        min_support=5,
    ),
)
GOLDEN_BYTES = (
    b'{"schema_version":1,"account":"meta:7","as_of":"2026-03-08","window":"7d","benchmarks":"2026-01","patterns":{"'
    b'total_winners":1,"total_campaigns":3,"judged_campaigns":2,"win_rate":0.5,"win_rate_low":0.125,"win_rate_high":'
    b'0.875,"avg_winner_ctr":0.25,"avg_winner_engagement":null,"avg_winner_composite":0.75,"avg_consistency":1.0,"pl'
    b'atform_stats":{"meta":{"campaigns":3,"winners":1,"win_rate":0.5,"win_rate_low":0.125,"win_rate_high":0.875,"av'
    b'g_normalized_ctr":0.25,"avg_normalized_engagement":null,"avg_composite":0.75,"roas":{"value":2.5,"low":1.5,"hi'
    b'gh":3.5,"observed":4.0,"campaigns":2,"trust":0.5}}},"multi_platform_winners":1,"best_platform_combo":null,"com'
    b'bos":[{"combo":["meta","tiktok"],"avg_roas":2.5,"count":2,"low":1.5,"high":3.5,"observed_roas":4.0}],"min_roas'
    b'":2.0,"min_support":5}}'
)


def test_version_1_is_for_ever() -> None:
    assert codec.encode(GOLDEN) == GOLDEN_BYTES
    assert codec.decode(GOLDEN_BYTES) == GOLDEN


@pytest.mark.parametrize("payload", [b"", b"{}", b"\xff", GOLDEN_BYTES.replace(b'_version":1', b'_version":2')])
def test_what_is_no_patterns_of_this_version_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError, match="patterns"):
        codec.decode(payload)


def test_the_same_campaigns_give_the_same_bytes_in_any_order() -> None:
    campaigns = honest(3)
    first = codec.encode(account_patterns(campaigns, PlatformNormalizer()))
    for seed in range(5):
        random.Random(seed).shuffle(campaigns)
        assert codec.encode(account_patterns(campaigns, PlatformNormalizer())) == first
    assert codec.decode(first).patterns == CrossPlatformLearner().extract_cross_platform_patterns(campaigns)


def test_they_say_up_to_when_and_for_whom() -> None:
    metrics = {Platform.META: PlatformMetrics(platform=Platform.META, impressions=10, clicks=1)}
    campaigns = [
        CampaignData(campaign_id=name, platforms=metrics, ended_ms=end * DAY) for name, end in (("a", 20_520), ("b", 9))
    ]
    found = account_patterns(campaigns, PlatformNormalizer(), "meta:7", 3.5)
    assert (found.account, found.as_of, found.patterns.min_roas) == ("meta:7", "2026-03-08", 3.5)
    told = json.loads(codec.encode(found))
    assert (told["window"], told["benchmarks"], told["patterns"]["total_campaigns"]) == ("7d", "2026-01", 2)
