"""Aggregation and the 19 features: the stream's insight is the oracle, formulas are recomputed, missing is NaN."""

import doctest
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import core.learning.campaign_data
import core.learning.learner
from core import (
    FEATURE_NAMES,
    CampaignData,
    CreativeSignals,
    CrossPlatformLearner,
    Platform,
    PlatformMetrics,
    get_cross_platform_learner,
)
from core.insight import Part, build
from core.learning.campaign_data import campaigns_of, platform_data_of
from core.learning.ctr_predictor import CTRPredictor
from core.profile import DEFAULT_PROFILE
from core.window import Window
from schemas.insight import CrossPlatformInsight, Version
from schemas.metrics import METRICS, MICROS
from schemas.rollup import Money, Rollup, Totals

LEARNER = CrossPlatformLearner()
ORDER = [
    "normalized_ctr",
    "normalized_cpc",
    "normalized_cpm",
    "normalized_engagement",
    "normalized_quality",
    "composite_score",
    "platform_consistency",
    "best_platform_boost",
    "multi_platform_bonus",
    "log_impressions",
    "log_clicks",
    "log_conversions",
    "confidence",
    "has_meta_data",
    "has_tiktok_data",
    "has_google_data",
    "creative_dna_score",
    "hook_strength",
    "visual_appeal",
]

counts = st.none() | st.integers(0, 10**7)
amounts = st.none() | st.integers(0, 10**9).map(lambda cents: cents / 100)


@st.composite
def metrics(draw: st.DrawFn, platform: Platform) -> PlatformMetrics:
    impressions = draw(counts)
    return PlatformMetrics(
        platform=platform,
        impressions=impressions,
        clicks=draw(counts),
        spend=draw(amounts),
        revenue=draw(amounts),
        conversions=draw(amounts),
        engagements=draw(counts),
    )


campaigns = st.lists(
    st.sampled_from([Platform.META, Platform.TIKTOK, Platform.GOOGLE_ADS]), unique=True, min_size=0
).flatmap(lambda names: st.fixed_dictionaries({name: metrics(name) for name in names}))


def streamed(data: dict[Platform, PlatformMetrics]) -> CrossPlatformInsight:
    """The same numbers as the stream computes them, from rollups of one day."""
    parts = []
    for platform, own in data.items():
        conversions = None if own.conversions is None else round(own.conversions * MICROS)
        reported = dict.fromkeys(METRICS) | {
            "impressions": own.impressions,
            "clicks": own.clicks,
            "engagements": own.engagements,
            "conversions_micros": conversions,
        }
        spend, revenue = (None if each is None else round(each * MICROS) for each in (own.spend, own.revenue))
        money = () if spend is None and revenue is None else (Money("USD", spend, revenue),)
        totals = Totals(tuple(reported[name] for name in METRICS), money)
        day = Rollup(campaign_id="c", platform=platform, platform_campaign_id="p", day=20_454, revision=1)
        parts.append(Part(day, totals))
    return build("c", Window("24h", 1), 20_454, parts, DEFAULT_PROFILE, "", Version(0, 0))


def test_the_names_and_their_order_are_the_contract() -> None:
    assert list(FEATURE_NAMES) == ORDER
    assert LEARNER.get_unified_features("c", {}).to_array().dtype == np.float32
    assert LEARNER.get_unified_features("c", {}).to_array().shape == (19,)


@settings(max_examples=60)
@given(campaigns)
def test_the_insight_is_the_streams(data: dict[Platform, PlatformMetrics]) -> None:
    mine, theirs = LEARNER.aggregate_platform_data("c", data), streamed(data)
    for name in (
        *("totals", "ctr", "roas", "normalized_ctr", "normalized_cpc", "normalized_cpm", "normalized_engagement"),
        *("composite_score", "confidence", "consistency_score", "best_platform", "benchmarks"),
    ):
        assert same(getattr(mine, name), getattr(theirs, name)), name
    for platform, own in mine.platform_breakdown.items():
        other = theirs.platform_breakdown[platform]
        for name in ("ctr", "cpc", "cpm", "roas", "composite_score", "confidence", "components"):
            assert same(getattr(own, name), getattr(other, name)), name


def same(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-12)
    return bool(left == right)


@given(campaigns, st.randoms())
def test_the_order_of_platforms_does_not_matter(data: dict[Platform, PlatformMetrics], random: Any) -> None:
    shuffled = list(data.values())
    random.shuffle(shuffled)
    np.testing.assert_array_equal(
        LEARNER.get_unified_features("c", data).to_array(), LEARNER.get_unified_features("c", shuffled).to_array()
    )


@given(campaigns)
def test_features_are_in_their_ranges(data: dict[Platform, PlatformMetrics]) -> None:
    row = dict(zip(FEATURE_NAMES, LEARNER.get_unified_features("c", data).to_array().tolist(), strict=True))
    for name in ORDER[:7] + ORDER[12:13]:
        assert math.isnan(row[name]) or 0 <= row[name] <= 1, name
    assert math.isnan(row["best_platform_boost"]) or row["best_platform_boost"] >= -1e-6
    assert math.isnan(row["multi_platform_bonus"]) or row["multi_platform_bonus"] in (
        0.0,
        np.float32(0.1),
        np.float32(0.2),
    )


def test_the_formulas_by_hand() -> None:
    data = {
        "meta": {"impressions": 10_000, "clicks": 175, "spend": 100.0, "conversions": 3},
        "tiktok": {"impressions": 1_000, "clicks": 0, "spend": 0.0, "conversions": 0},
    }
    found = LEARNER.get_unified_features("c", data, CreativeSignals(creative_dna_score=0.7, hook_strength=0.0))
    meta, tiktok = 0.5, 0.0
    assert found.normalized_ctr == pytest.approx((meta * 0.9 + tiktok * 0.6) / 1.5)
    insight = LEARNER.aggregate_platform_data("c", data)
    composites = [own.composite_score or 0.0 for own in insight.platform_breakdown.values()]
    average = (composites[0] * 0.9 + composites[1] * 0.6) / 1.5
    assert found.composite_score == pytest.approx(average)
    assert found.best_platform_boost == pytest.approx(max(composites) - average)
    assert found.platform_consistency == pytest.approx(math.exp(-10 * np.var(composites)))
    assert found.multi_platform_bonus == pytest.approx(0.1)
    assert found.log_impressions == pytest.approx(math.log(11_001))
    assert found.log_conversions == pytest.approx(math.log(4))
    assert (found.has_meta_data, found.has_tiktok_data, found.has_google_data) == (1.0, 1.0, 0.0)
    assert (found.creative_dna_score, found.hook_strength) == (0.7, 0.0)
    assert math.isnan(found.visual_appeal)
    assert math.isnan(found.normalized_quality)


def test_a_real_zero_stays_zero_and_the_unknown_is_nan() -> None:
    zero = LEARNER.get_unified_features("c", {"meta": {"impressions": 1_000, "clicks": 0, "conversions": 0}})
    assert (zero.normalized_ctr, zero.log_clicks, zero.log_conversions) == (0.0, 0.0, 0.0)
    unknown = LEARNER.get_unified_features("c", {"meta": {"impressions": 1_000}})
    assert math.isnan(unknown.log_clicks)
    assert math.isnan(unknown.log_conversions)
    nothing = LEARNER.get_unified_features("c", {"meta": {"impressions": 0, "clicks": 0}})
    assert nothing.has_meta_data == 0.0
    assert math.isnan(nothing.composite_score)
    assert nothing.log_impressions == 0.0


def test_leaving_one_platform_out_keeps_the_label_from_its_features() -> None:
    base = {"meta": {"impressions": 10_000, "clicks": 150}, "tiktok": {"impressions": 5_000, "clicks": 100}}
    changed = {**base, "meta": {"impressions": 10_000, "clicks": 999}}
    (x, y), (x_changed, y_changed) = (
        LEARNER.get_training_data_for_ctr_model([("c", each)]) for each in (base, changed)
    )
    assert y.tolist() == [0.015, 0.02]
    assert y_changed.tolist() == [0.0999, 0.02]
    np.testing.assert_array_equal(x[0], x_changed[0])
    assert not np.array_equal(x[1], x_changed[1], equal_nan=True)


def test_three_platforms_give_three_samples_and_one_gives_none() -> None:
    own = {"impressions": 1_000, "clicks": 10}
    three = {"meta": own, "tiktok": own, "google_ads": own}
    rows = LEARNER.training_rows([("three", three), ("one", {"meta": own})])
    assert rows.features.shape == (3, 19)
    assert rows.campaign.tolist() == [0, 0, 0]
    assert sorted(rows.platform.tolist()) == [0, 1, 2]
    assert rows.clicks.tolist() == [10.0] * 3
    x, y = LEARNER.get_training_data_for_ctr_model([])
    assert (x.shape, y.shape) == ((0, 19), (0,))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"myspace": {}}, "myspace"),
        ({"meta": {"likes": 5}}, "likes"),
        ({"meta": PlatformMetrics(platform=Platform.TIKTOK)}, "tiktok stand under meta"),
        ([PlatformMetrics(platform=Platform.META)] * 2, "twice"),
        ({"meta": {"impressions": -1}}, "impressions"),
        ({"meta": {"impressions": "10"}}, "impressions must be a finite number of 0 or more, not '10'"),
        ({"meta": 5}, "meta: metrics are a PlatformMetrics or a mapping, not int"),
        (None, "platform data is a mapping by platform, or PlatformMetrics, not NoneType"),
        ("abc", "not str"),
    ],
)
def test_what_does_not_fit_is_refused_with_words(data: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        platform_data_of(data)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "campaigns are an iterable of them, not NoneType"),
        ([1], "a campaign is a CampaignData or a pair of id and platform data, not '1'"),
        ([("c",)], "a pair of id and platform data"),
        (["abc"], "a pair of id and platform data"),
        ([("c", None)], "not NoneType"),
        ([(5, {})], "a campaign id is text, not int"),
    ],
)
def test_what_is_no_campaign_is_refused_with_words(given: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        campaigns_of(given)


def test_ids_and_signals_of_the_wrong_kind_are_refused_with_words() -> None:
    wrong: Any
    for wrong in (None, 5):
        with pytest.raises(ValueError, match="a campaign id is text"):
            LEARNER.aggregate_platform_data(wrong, {})
        with pytest.raises(ValueError, match="a campaign id is text"):
            CTRPredictor().predict_cross_platform(wrong, {})
    wrong = 5
    with pytest.raises(ValueError, match="creative signals are a mapping"):
        LEARNER.get_unified_features("c", {}, wrong)
    wrong = {"hook_strength": "high"}
    with pytest.raises(ValueError, match="hook_strength lies between 0 and 1"):
        LEARNER.get_unified_features("c", {}, wrong)


def test_a_campaign_comes_once_and_signals_lie_in_their_range() -> None:
    with pytest.raises(ValueError, match="twice"):
        campaigns_of([("c", {}), CampaignData(campaign_id="c", platforms={})])
    with pytest.raises(ValueError, match="hook_strength"):
        CreativeSignals(hook_strength=1.5)
    with pytest.raises(ValueError, match="no field 'hook'"):
        LEARNER.get_unified_features("c", {}, {"hook": 0.5})
    assert LEARNER.get_unified_features("c", {}, {"hook_strength": 0.5}).hook_strength == 0.5
    assert get_cross_platform_learner() is get_cross_platform_learner()


@pytest.mark.parametrize("module", [core.learning.campaign_data, core.learning.learner])
def test_examples_in_the_docstrings_run(module: Any) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
