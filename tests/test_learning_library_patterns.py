"""Patterns, the formula and recommendations: support, shrinkage and intervals, so that luck does not win."""

import doctest
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import core.learning.patterns
import core.learning.pooled_ratio
from core import CampaignData, CrossPlatformLearner, Platform, PlatformMetrics, recommend_platforms
from core.learning.creative_formula import build, campaigns_by_id
from core.learning.pooled_ratio import common_ratio, pooled_ratios
from core.normalizer import PlatformNormalizer
from examples.simulated import BASKET, CONVERSION, CPC, simulate
from schemas.patterns import CrossPlatformPatterns

LEARNER = CrossPlatformLearner()
COMBOS = ((Platform.META, Platform.TIKTOK), (Platform.GOOGLE_ADS,), (Platform.META,))


def campaign(name: str, roas: dict[Platform, float], spend: float = 1_000.0, **other: Any) -> CampaignData:
    return CampaignData(
        campaign_id=name,
        platforms={
            platform: PlatformMetrics(
                platform=platform, impressions=10_000, clicks=200, spend=spend, revenue=ratio * spend
            )
            for platform, ratio in roas.items()
        },
        **other,
    )


def honest(seed: int = 0, each: int = 12) -> list[CampaignData]:
    """Combinations with a true ROAS of 3, 2 and 1.5, campaigns straying around it."""
    rng = np.random.default_rng(seed)
    return [
        campaign(f"{at}-{number}", dict.fromkeys(combo, true * float(rng.lognormal(-0.03, 0.25))))
        for at, (combo, true) in enumerate(zip(COMBOS, (3.0, 2.0, 1.5), strict=True))
        for number in range(each)
    ]


@pytest.mark.parametrize("revenue", [50.0, 5_000.0, 10**7])
@pytest.mark.parametrize("spend", [10.0, 1_000.0, 20_000.0])
@pytest.mark.parametrize("min_support", [1, 5])
def test_one_lucky_campaign_cannot_win(revenue: float, spend: float, min_support: int) -> None:
    lucky = campaign("lucky", {Platform.TIKTOK: revenue}, spend)
    patterns = LEARNER.extract_cross_platform_patterns([*honest(), lucky], min_support=min_support)
    assert patterns.best_platform_combo is not None
    assert patterns.best_platform_combo.combo == COMBOS[0]
    alone = next(combo for combo in patterns.combos if combo.combo == (Platform.TIKTOK,))
    assert alone.observed_roas == pytest.approx(revenue)
    assert alone.avg_roas < 4


@pytest.mark.parametrize("others", [1, 4, 9])
def test_nor_can_it_lift_a_combination_that_has_support(others: int) -> None:
    poor = [campaign(f"poor-{at}", {Platform.TIKTOK: 1.0}) for at in range(others)]
    lucky = campaign("lucky", {Platform.TIKTOK: 200.0})
    patterns = LEARNER.extract_cross_platform_patterns([*honest(), *poor, lucky], min_support=2)
    assert patterns.best_platform_combo is not None
    assert patterns.best_platform_combo.combo == COMBOS[0]


def test_the_better_combination_is_found_where_there_is_one() -> None:
    for seed in range(20):
        best = LEARNER.extract_cross_platform_patterns(honest(seed)).best_platform_combo
        assert best is not None
        assert (best.combo, best.count) == (COMBOS[0], 12)
        assert best.low < 3.0 < best.high or abs(best.avg_roas - 3.0) < 0.5


def test_below_the_support_there_is_no_best() -> None:
    patterns = LEARNER.extract_cross_platform_patterns(honest(each=4))
    assert patterns.best_platform_combo is None
    assert len(patterns.combos) == 3


def test_the_counts_by_hand() -> None:
    campaigns = [
        campaign("a", {Platform.META: 4.0, Platform.TIKTOK: 2.0}),
        campaign("b", {Platform.META: 1.0}),
        campaign("c", {Platform.GOOGLE_ADS: 2.0}),
        CampaignData(campaign_id="d", platforms={Platform.META: PlatformMetrics(platform=Platform.META, clicks=1)}),
        campaign("e", {Platform.META: 9.0}),
    ]
    foreign = {name: msgspec.structs.replace(own, currency="EUR") for name, own in campaigns[4].platforms.items()}
    campaigns[4] = msgspec.structs.replace(campaigns[4], platforms=foreign)
    found = LEARNER.extract_cross_platform_patterns(campaigns, min_roas=2.0)
    assert (found.total_winners, found.total_campaigns, found.judged_campaigns) == (2, 5, 3)
    assert found.win_rate == pytest.approx(2 / 3)
    assert found.win_rate_low is not None
    assert found.win_rate_high is not None
    assert 0 < found.win_rate_low < 2 / 3 < found.win_rate_high < 1
    assert found.multi_platform_winners == 1
    winners = [
        LEARNER.aggregate_platform_data(each.campaign_id, each.platforms) for each in (campaigns[0], campaigns[2])
    ]
    assert found.avg_winner_ctr == pytest.approx(
        np.mean([each.normalized_ctr for each in winners if each.normalized_ctr is not None])
    )
    assert found.avg_winner_composite == pytest.approx(np.mean([each.composite_score or 0 for each in winners]))
    assert found.avg_consistency == pytest.approx(winners[0].consistency_score)
    assert found.avg_winner_engagement is None
    stats = found.platform_stats
    assert {platform: (own.campaigns, own.winners) for platform, own in stats.items()} == {
        Platform.GOOGLE_ADS: (1, 1),
        Platform.META: (3, 1),
        Platform.TIKTOK: (1, 1),
    }
    assert stats[Platform.META].win_rate == 0.5


def test_patterns_survive_json() -> None:
    found = LEARNER.extract_cross_platform_patterns(honest())
    assert msgspec.json.decode(msgspec.json.encode(found), type=CrossPlatformPatterns) == found


def test_of_nothing_there_are_no_patterns() -> None:
    found = LEARNER.extract_cross_platform_patterns([])
    assert (found.total_campaigns, found.win_rate, found.best_platform_combo, found.platform_stats) == (
        0,
        None,
        None,
        {},
    )
    with pytest.raises(ValueError, match="min_support"):
        LEARNER.extract_cross_platform_patterns([], min_support=0)


@given(st.randoms())
def test_patterns_do_not_depend_on_the_order(random: Any) -> None:
    campaigns = honest(each=3)
    shuffled = list(campaigns)
    random.shuffle(shuffled)
    left, right = (LEARNER.extract_cross_platform_patterns(each) for each in (campaigns, shuffled))
    assert left == right


ratios = st.lists(st.tuples(st.floats(0, 1e6), st.floats(1e-3, 1e6), st.sampled_from("abc")), min_size=1, max_size=20)


@given(ratios)
def test_a_pooled_ratio_lies_between_its_own_and_the_common_one(rows: list[tuple[float, float, str]]) -> None:
    tops, bottoms, groups = zip(*rows, strict=True)
    centre = common_ratio(tops, bottoms)
    for name, found in pooled_ratios(tops, bottoms, groups).items():
        low, high = sorted((centre, found.observed))
        assert low * (1 - 1e-9) - 1e-9 <= found.value <= high * (1 + 1e-9) + 1e-9
        assert 0 <= found.low <= found.value <= found.high
        assert 0 <= found.trust <= 1
        assert found.campaigns == groups.count(name)


def test_with_more_campaigns_the_ratio_comes_to_its_own() -> None:
    rng = np.random.default_rng(1)
    trusts, widths = [], []
    for count in (1, 5, 50, 500):
        tops = np.concatenate((2 * rng.lognormal(0, 0.2, 50), 5 * rng.lognormal(0, 0.2, count)))
        found = pooled_ratios(tops, np.ones(50 + count), ["a"] * 50 + ["b"] * count)["b"]
        trusts.append(found.trust)
        widths.append(found.high - found.low)
    assert trusts == sorted(trusts)
    assert trusts[-1] > 0.95
    assert widths[-1] < widths[1]


def test_intervals_of_pooled_ratios_cover() -> None:
    held = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        truth = 2.0 * rng.lognormal(0, 0.3, 6)
        sizes = rng.integers(2, 25, 6)
        groups = [str(at) for at, size in enumerate(sizes) for _ in range(size)]
        bottoms = rng.lognormal(0, 0.8, len(groups))
        tops = bottoms * truth[[int(group) for group in groups]] * rng.lognormal(-0.08, 0.4, len(groups))
        for name, found in pooled_ratios(tops, bottoms, groups).items():
            held.append(found.low <= truth[int(name)] <= found.high)
    assert 0.87 <= np.mean(held) <= 0.97


@pytest.mark.parametrize(
    ("tops", "bottoms", "groups"),
    [
        ([1.0], [0.0], ["a"]),
        ([-1.0], [1.0], ["a"]),
        ([1.0], [1.0, 2.0], ["a"]),
        ([1.0], [1.0], []),
        ([np.nan], [1], "a"),
    ],
)
def test_what_is_no_ratio_is_refused(tops: Any, bottoms: Any, groups: Any) -> None:
    with pytest.raises(ValueError, match="must be"):
        pooled_ratios(tops, bottoms, groups)


def test_the_formula_of_an_account() -> None:
    campaigns = [msgspec.structs.replace(each, account_id="act-1") for each in honest()]
    stranger = campaign("s", {Platform.TIKTOK: 50.0}, account_id="act-2")
    found = build("act-1", [*campaigns, stranger], PlatformNormalizer(), (), 2.5, 5)
    winners = [each for each in campaigns if LEARNER.aggregate_platform_data("", each.platforms).roas >= 2.5]  # type: ignore[operator]
    assert found.sample_size == len(winners)
    assert found.formula_type == "cross_platform"
    assert Platform.META in found.platforms
    assert found.best_platform_combo is not None
    assert found.best_platform_combo.combo == COMBOS[0]
    assert any("meta and tiktok" in told for told in found.recommendations)


def test_a_formula_with_too_few_winners_says_so() -> None:
    found = build("", honest(each=2), PlatformNormalizer(), (), 3.0, 5)
    assert found.formula_type == "insufficient_data"
    assert found.recommendations == [
        f"not enough evidence: {found.sample_size} winning campaigns of the 5 that a formula takes"
    ]
    alone = [campaign(str(at), {Platform.META: 5.0}) for at in range(6)]
    assert build("", alone, PlatformNormalizer(), (), 3.0, 5).formula_type == "single_platform"


def test_one_campaign_seen_on_several_platforms_is_one() -> None:
    own = {"impressions": 1_000, "clicks": 20, "spend": 10.0, "revenue": 50.0}
    found = build("", {"meta": [("c", own)], "tiktok": [("c", own)]}, PlatformNormalizer(), (), 3.0, 1)
    assert found.sample_size == 1
    assert found.platforms == [Platform.META, Platform.TIKTOK]
    with pytest.raises(ValueError, match="twice on meta"):
        campaigns_by_id({"meta": [("c", own), ("c", own)]})


def test_the_better_platform_is_recommended_with_its_evidence() -> None:
    campaigns = simulate(120, seed=4).campaigns
    found = recommend_platforms(campaigns, objective="sales", vertical="retail", account_id="act-1", budget=500.0)
    assert found.ranked_by == "roas"
    assert [option.platform for option in found.ranked][-1] == Platform.TIKTOK
    for option in found.ranked:
        assert option.evidence == {"all": 120, "vertical": 60, "objective": 60, "account_id": 30}
        assert option.roas is not None
        assert option.cpc is not None
        assert option.expected_clicks is not None
        assert option.expected_clicks[1] == pytest.approx(500 / option.cpc.value)
        assert option.expected_clicks[0] < option.expected_clicks[1] < option.expected_clicks[2]
        assert option.cpc.low < CPC[option.platform] < option.cpc.high
    assert recommend_platforms(campaigns, objective="traffic").best == Platform.TIKTOK
    assert recommend_platforms(campaigns, objective="awareness").best == Platform.GOOGLE_ADS
    assert recommend_platforms(campaigns, budget=1e9).ranked[0].beyond_experience


def test_expected_roas_covers_the_truth() -> None:
    held = []
    for seed in range(40):
        found = recommend_platforms(simulate(40, seed=seed).campaigns, objective="sales", vertical="travel")
        for option in found.ranked:
            truth = CONVERSION[option.platform] * BASKET / CPC[option.platform]
            assert option.roas is not None
            held.append(option.roas.low <= truth <= option.roas.high)
    assert 0.84 <= np.mean(held) <= 0.98


def test_not_enough_evidence_is_an_answer() -> None:
    few = simulate(3, seed=4).campaigns
    found = recommend_platforms(few, objective="sales")
    assert found.best is None
    assert "not enough evidence" in found.answer
    assert set(found.not_enough_evidence) == set(Platform) - {Platform.UNKNOWN}
    equal = recommend_platforms(
        [campaign(str(at), dict.fromkeys(COMBOS[0], 2.0)) for at in range(9)], objective="sales"
    )
    assert equal.probability_best == pytest.approx(0.5)
    assert "not enough evidence that it beats" in equal.answer
    assert recommend_platforms([], objective="sales").best is None
    with pytest.raises(ValueError, match="budget"):
        recommend_platforms(few, budget=0.0)


def test_one_lucky_campaign_does_not_make_a_platform() -> None:
    campaigns = [*honest(), campaign("lucky", {Platform.GOOGLE_ADS: 500.0}, 5_000.0)]
    found = recommend_platforms(campaigns, objective="sales")
    google = next(option for option in found.ranked if option.platform == Platform.GOOGLE_ADS)
    assert google.roas is not None
    assert google.roas.value < 3
    assert google.roas.observed > 100


@pytest.mark.parametrize("module", [core.learning.patterns, core.learning.pooled_ratio])
def test_examples_in_the_docstrings_run(module: Any) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
