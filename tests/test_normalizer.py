import doctest
import itertools
import math
from collections.abc import Mapping
from random import Random
from types import ModuleType

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import core.normalizer
import core.profile
import core.ratios
from core.normalizer import (
    COMPONENTS,
    CONFIDENCE_POINTS,
    WEIGHTS,
    NormalizedMetrics,
    PlatformMetrics,
    PlatformNormalizer,
    confidence,
    consistency_score,
    normalize_counts,
)
from core.profile import DEFAULT_PROFILE, Band, Benchmarks, Profile, load_profile
from schemas.metrics import CLICKS, IMPRESSIONS, METRICS, QUALITY_POINTS, SPEND
from schemas.platform import Platform

KNOWN = [Platform.META, Platform.TIKTOK, Platform.GOOGLE_ADS]
NORMALIZER = PlatformNormalizer()
EXAMPLE = PlatformMetrics(platform=Platform.META, ctr=0.025, cpc=1.5, cpm=12, engagement_rate=0.05, quality_score=8.5)

counts = st.integers(0, 10**7)
maybe_count = st.none() | counts
maybe_rate = st.none() | st.floats(0, 1)
maybe_money = st.none() | st.floats(0, 1e6)
metrics = st.builds(
    PlatformMetrics,
    platform=st.sampled_from(list(Platform)),
    impressions=maybe_count,
    clicks=maybe_count,
    spend=maybe_money,
    engagements=maybe_count,
    quality_score=st.none() | st.floats(0, 12),
    ctr=maybe_rate,
    cpc=maybe_money,
    cpm=maybe_money,
    engagement_rate=maybe_rate,
    currency=st.sampled_from(["USD", "EUR", ""]),
)


def of_counts(platform: Platform = Platform.META, currency: str = "USD", /, **values: int) -> NormalizedMetrics:
    return normalize_counts(platform, tuple(values.get(name) for name in METRICS), currency)


def of_fields(platform: Platform, values: Mapping[str, float]) -> PlatformMetrics:
    """Metrics whose fields are named at run time."""
    return msgspec.convert({"platform": platform, **values}, PlatformMetrics)


def weighted(scored: NormalizedMetrics) -> float:
    """The formula of the composite, from the scores alone and in fractions."""
    fractions = dict(zip(COMPONENTS, (0.30, 0.25, 0.15, 0.15, 0.15), strict=True))
    pairs = [(fractions[name], scored.scores[COMPONENTS.index(name)]) for name in scored.components]
    return sum(w * (s or 0.0) for w, s in pairs) / sum(w for w, _ in pairs)


def test_the_domains_example_is_reproduced() -> None:
    scored = NORMALIZER.normalize(EXAMPLE)
    assert scored.scores == pytest.approx((0.80, 0.53571, 0.47059, 0.44444, 0.83333), abs=5e-6)
    assert scored.composite_score == pytest.approx(0.636184, abs=1e-6)
    assert scored.composite_score == pytest.approx(
        0.30 * 0.8 + 0.25 * 1.5 / 2.8 + 0.15 * 8 / 17 + 0.15 * 4 / 9 + 0.15 * 7.5 / 9, abs=1e-15
    )
    assert scored.components == COMPONENTS
    assert scored.absent == {}


def test_counts_and_a_library_users_metrics_score_alike() -> None:
    row = of_counts(
        impressions=20_000,
        clicks=300,
        spend_micros=210_500_000,
        engagements=900,
        quality_points=700 * 20_000,
        quality_impressions=20_000,
    )
    user = NORMALIZER.normalize(
        PlatformMetrics(
            platform=Platform.META, impressions=20_000, clicks=300, spend=210.5, engagements=900, quality_score=7.0
        )
    )
    assert row.scores == pytest.approx(user.scores, abs=1e-12)
    assert row.scores == pytest.approx((0.4, (3 - 210.5 / 300) / 2.8, (20 - 10.525) / 17, 0.035 / 0.09, 6 / 9))
    assert row.composite_score == pytest.approx(user.composite_score, abs=1e-12)
    assert row.confidence == user.confidence == pytest.approx(0.925)


def test_quality_is_weighted_by_the_impressions_that_carry_it_and_not_by_all() -> None:
    row = of_counts(impressions=5_000, quality_points=100 * 400 + 1000 * 100, quality_impressions=500)
    assert row.normalized_quality == pytest.approx((2.8 - 1) / 9)


def test_a_ratio_is_used_only_where_its_counts_are_absent() -> None:
    given_both = PlatformMetrics(
        platform=Platform.META, impressions=1000, clicks=10, spend=15.0, engagements=40, ctr=0.03, cpc=0.2, cpm=3,
        engagement_rate=0.1,
    )  # fmt: skip
    counts_only = msgspec.structs.replace(given_both, ctr=None, cpc=None, cpm=None, engagement_rate=None)
    assert NORMALIZER.normalize(given_both) == NORMALIZER.normalize(counts_only)
    without_clicks = msgspec.structs.replace(given_both, clicks=None)
    assert NORMALIZER.normalize(without_clicks).normalized_ctr == 1.0
    assert NORMALIZER.normalize(without_clicks).normalized_cpc == 1.0
    assert NORMALIZER.normalize(without_clicks).normalized_cpm == pytest.approx(5 / 17)


@pytest.mark.parametrize("ratio", [{}, {"ctr": 0.03, "cpc": 0.2, "cpm": 3.0, "engagement_rate": 0.1}])
def test_an_ad_with_no_delivery_has_no_score(ratio: dict[str, float]) -> None:
    idle = of_fields(
        Platform.META, {"impressions": 0, "clicks": 0, "spend": 0.0, "engagements": 0, "quality_score": 10.0, **ratio}
    )
    scored = NORMALIZER.normalize(idle)
    assert scored.composite_score is None
    assert scored.confidence == 0
    assert scored.components == ()
    assert scored.absent == dict.fromkeys(COMPONENTS, "no impressions")
    assert of_counts(impressions=0, clicks=0, spend_micros=0, quality_points=1000, quality_impressions=1) == scored
    delivering = PlatformMetrics(platform=Platform.META, impressions=90, clicks=1, spend=50.0)
    assert [each.confidence > 0 for each in NORMALIZER.compare_platforms([idle, delivering])] == [True, False]


def test_absent_components_say_why_and_the_others_are_renormalized() -> None:
    scored = of_counts(Platform.TIKTOK, impressions=1000, clicks=0, spend_micros=5_000_000, engagements=50)
    assert scored.absent == {"cpc": "no clicks", "quality": "no quality signal"}
    assert scored.components == ("ctr", "cpm", "engagement")
    assert scored.composite_score == pytest.approx((0.15 * 10 / 13 + 0.15 * 0.03 / 0.13) / 0.60)


def test_costs_in_another_currency_are_absent() -> None:
    values = {"impressions": 1000, "clicks": 20, "spend_micros": 9_000_000}
    euros = of_counts(Platform.META, "EUR", **values)
    assert euros.absent["cpc"] == euros.absent["cpm"] == "spend is in EUR and the benchmarks are in USD"
    assert euros.normalized_ctr is not None
    unknown = of_counts(Platform.META, "", **values)
    assert unknown.absent["cpm"] == "the currency of the spend is unknown and the benchmarks are in USD"
    given_cost = msgspec.structs.replace(EXAMPLE, currency="EUR")
    assert NORMALIZER.normalize(given_cost).absent["cpc"] == "spend is in EUR and the benchmarks are in USD"
    profile = msgspec.structs.replace(DEFAULT_PROFILE, currency="EUR")
    assert PlatformNormalizer(profile).normalize(given_cost).scores == NORMALIZER.normalize(EXAMPLE).scores


def test_what_is_not_reported_is_told_from_zero() -> None:
    scored = of_counts(impressions=1000)
    assert scored.absent == {
        "ctr": "clicks are not reported",
        "cpc": "clicks are not reported",
        "cpm": "spend is not reported",
        "engagement": "engagements are not reported",
        "quality": "no quality signal",
    }
    assert of_counts(clicks=5, spend_micros=5_000_000).absent["ctr"] == "impressions are not reported"
    assert of_counts(clicks=5, spend_micros=5_000_000).components == ("cpc",)
    assert of_counts(impressions=1000, clicks=5).absent["cpc"] == "spend is not reported"


def test_an_unknown_platform_has_no_score_and_says_so() -> None:
    scored = NORMALIZER.normalize(msgspec.structs.replace(EXAMPLE, platform=Platform.UNKNOWN, impressions=1000))
    assert scored.composite_score is None
    assert scored.absent == dict.fromkeys(COMPONENTS, "the platform is unknown")
    assert scored.confidence == pytest.approx(0.6)
    only_meta = Profile(version="1", platforms={Platform.META: DEFAULT_PROFILE.platforms[Platform.META]})
    tiktok = PlatformNormalizer(only_meta).normalize(PlatformMetrics(platform=Platform.TIKTOK, ctr=0.03))
    assert tiktok.absent["ctr"] == "the profile has no benchmarks for tiktok"


@given(metrics)
def test_scores_are_bounded_and_every_component_is_used_or_explained(given_metrics: PlatformMetrics) -> None:
    scored = NORMALIZER.normalize(given_metrics)
    for name, score in zip(COMPONENTS, scored.scores, strict=True):
        assert (score is None) == (name in scored.absent) == (name not in scored.components)
        assert score is None or 0 <= score <= 1
    assert 0 <= scored.confidence <= 1
    if scored.composite_score is None:
        assert scored.components == ()
    else:
        assert scored.composite_score == pytest.approx(weighted(scored), abs=1e-12)
        present = [score for score in scored.scores if score is not None]
        assert min(present) - 1e-12 <= scored.composite_score <= max(present) + 1e-12


@given(st.sets(st.sampled_from(COMPONENTS), min_size=1), st.floats(0, 1))
def test_equal_scores_have_that_composite_whichever_are_present(names: set[str], place: float) -> None:
    """Renormalized weights add up to one for every set of components."""
    bands = DEFAULT_PROFILE.platforms[Platform.META]
    values = {
        "ctr": bands.ctr.low + place * (bands.ctr.high - bands.ctr.low),
        "cpc": bands.cpc.high - place * (bands.cpc.high - bands.cpc.low),
        "cpm": bands.cpm.high - place * (bands.cpm.high - bands.cpm.low),
        "engagement_rate": bands.engagement.low + place * (bands.engagement.high - bands.engagement.low),
        "quality_score": 1 + place * 9,
    }
    kept = {field: values[field] for name, field in zip(COMPONENTS, values, strict=True) if name in names}
    scored = NORMALIZER.normalize(of_fields(Platform.META, kept))
    assert set(scored.components) == names
    assert scored.composite_score == pytest.approx(place, abs=1e-12)


def test_weights_are_whole_percents_of_one() -> None:
    assert sum(WEIGHTS.values()) == 100
    assert tuple(WEIGHTS) == COMPONENTS


@given(st.sampled_from(KNOWN), st.lists(st.floats(0, 60, allow_subnormal=False), min_size=10, max_size=10), st.data())
def test_better_input_never_scores_worse(platform: Platform, values: list[float], data: st.DataObject) -> None:
    low = {"ctr": values[0] / 60, "engagement_rate": values[1] / 60, "quality_score": values[2] / 6}
    costs = {"cpc": values[3], "cpm": values[4]}
    name = data.draw(st.sampled_from([*low, *costs]))
    step = data.draw(st.floats(0, 10))
    base = NORMALIZER.normalize(of_fields(platform, {**low, **costs})).composite_score
    changed = {**low, **costs}
    changed[name] += step
    after = NORMALIZER.normalize(of_fields(platform, changed)).composite_score
    assert base is not None
    assert after is not None
    assert after <= base if name in costs else after >= base


@given(
    st.sampled_from(KNOWN),
    st.tuples(*[st.integers(1, 10**6)] * len(METRICS)),
    st.integers(1, 1000),
)
def test_only_confidence_depends_on_volume(platform: Platform, row: tuple[int, ...], factor: int) -> None:
    once = normalize_counts(platform, row, "USD")
    more = normalize_counts(platform, tuple(value * factor for value in row), "USD")
    assert more.scores == pytest.approx(once.scores, abs=1e-12)
    assert more.composite_score == pytest.approx(once.composite_score, abs=1e-12)
    assert more.confidence >= once.confidence


@given(st.lists(metrics, max_size=5), st.randoms())
def test_comparison_does_not_depend_on_the_order_of_the_input(platforms: list[PlatformMetrics], random: Random) -> None:
    ranked = NORMALIZER.compare_platforms(platforms)
    shuffled = list(platforms)
    random.shuffle(shuffled)
    assert NORMALIZER.compare_platforms(shuffled) == ranked
    assert len(ranked) == len(platforms)
    composites = [-1.0 if each.composite_score is None else each.composite_score for each in ranked]
    assert composites == sorted(composites, reverse=True)


def test_a_tie_goes_to_the_surer_one_and_then_to_the_platforms_name() -> None:
    tied = [PlatformMetrics(platform=platform, ctr=0.9) for platform in KNOWN]
    sure = PlatformMetrics(platform=Platform.TIKTOK, impressions=1000, ctr=0.9)
    for order in itertools.permutations([*tied, sure]):
        ranked = NORMALIZER.compare_platforms(order)
        assert [(each.platform, each.confidence) for each in ranked] == [
            (Platform.TIKTOK, 0.6),
            (Platform.GOOGLE_ADS, 0.0),
            (Platform.META, 0.0),
            (Platform.TIKTOK, 0.0),
        ]


def test_the_best_platform_is_one_that_can_be_trusted() -> None:
    lucky = PlatformMetrics(platform=Platform.TIKTOK, impressions=50, clicks=3)
    solid = PlatformMetrics(platform=Platform.META, impressions=1000, clicks=12)
    assert NORMALIZER.get_best_platform([lucky, solid]) == Platform.META
    assert NORMALIZER.get_best_platform([lucky, solid], min_confidence=0.1) == Platform.TIKTOK
    assert NORMALIZER.get_best_platform([lucky]) is None
    assert NORMALIZER.get_best_platform([]) is None
    unknown = PlatformMetrics(platform=Platform.UNKNOWN, impressions=10**6, clicks=10**5)
    assert NORMALIZER.get_best_platform([unknown]) is None


@given(metrics)
def test_the_meta_equivalent_scores_the_same(given_metrics: PlatformMetrics) -> None:
    scored = NORMALIZER.normalize(given_metrics)
    equivalent = NORMALIZER.convert_to_meta_equivalent(given_metrics)
    again = NORMALIZER.normalize(equivalent)
    assert equivalent.platform == again.platform == Platform.META
    assert again.components == scored.components
    assert again.scores == pytest.approx(scored.scores, abs=1e-9)
    assert again.composite_score == pytest.approx(scored.composite_score, abs=1e-9)
    assert again.confidence == scored.confidence


def test_the_meta_equivalent_of_tiktoks_ideal_lies_in_metas_band() -> None:
    ideal = PlatformMetrics(platform=Platform.TIKTOK, ctr=0.03, cpc=0.5, cpm=6, engagement_rate=0.085)
    equivalent = NORMALIZER.convert_to_meta_equivalent(ideal)
    assert equivalent.ctr == pytest.approx(0.015)
    assert equivalent.cpc == pytest.approx(3 - 2.8 * 1.0 / 1.4)
    assert equivalent.cpm == pytest.approx(20 - 17 * 9 / 13)
    assert equivalent.engagement_rate == pytest.approx(0.055)
    assert equivalent.quality_score is None
    without_meta = Profile(version="7", platforms={Platform.TIKTOK: DEFAULT_PROFILE.platforms[Platform.TIKTOK]})
    with pytest.raises(ValueError, match="profile 7 has no benchmarks for meta"):
        PlatformNormalizer(without_meta).convert_to_meta_equivalent(ideal)


@given(st.lists(st.integers(0, 200_000), min_size=2, max_size=30))
def test_confidence_is_linear_between_its_points(impressions: list[int]) -> None:
    xs, ys = zip(*CONFIDENCE_POINTS, strict=True)
    ordered = sorted(impressions)
    values = [confidence(count) for count in ordered]
    np.testing.assert_allclose(values, np.interp(ordered, xs, ys), atol=1e-10)
    assert values == sorted(values)


def test_confidence_passes_through_the_domains_points() -> None:
    points = {0: 0.0, 100: 0.3, 1_000: 0.6, 10_000: 0.9, 50_000: 1.0, 10**9: 1.0, -5: 0.0}
    assert {count: confidence(count) for count in points} == points


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20), st.randoms())
def test_consistency_is_the_exponential_of_the_population_variance(composites: list[float], random: Random) -> None:
    score = consistency_score(composites)
    assert score is not None
    np.testing.assert_allclose(score, np.exp(-10 * np.var(composites)), rtol=1e-10)
    shuffled = [*composites, None]
    random.shuffle(shuffled)
    assert consistency_score(shuffled) == score


def test_consistency_is_unknown_under_two_platforms() -> None:
    assert consistency_score([]) is None
    assert consistency_score([0.7]) is None
    assert consistency_score([0.7, None]) is None
    assert consistency_score([0.0, 1.0]) == pytest.approx(math.exp(-2.5))


@pytest.mark.parametrize(
    ("field", "value"), [("impressions", -1), ("spend", math.nan), ("cpc", math.inf), ("ctr", -0.1)]
)
def test_impossible_metrics_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field} must be a finite number of 0 or more, not"):
        msgspec.structs.replace(EXAMPLE, **{field: value})


def test_the_default_profile_is_the_domains_table() -> None:
    table = {
        platform: [
            (band.low, band.high, band.ideal)
            for band in (bands.ctr, bands.cpc, bands.cpm, bands.engagement, bands.quality)
            if band is not None
        ]
        for platform, bands in DEFAULT_PROFILE.platforms.items()
    }
    assert DEFAULT_PROFILE.currency == "USD"
    assert table == {
        "meta": [(0.005, 0.03, 0.015), (0.2, 3, 1), (3, 20, 10), (0.01, 0.1, None), (1, 10, None)],
        "tiktok": [(0.01, 0.06, 0.03), (0.1, 1.5, 0.5), (2, 15, 6), (0.02, 0.15, None)],
        "google_ads": [(0.015, 0.1, 0.04), (0.5, 6, 2), (5, 40, 15), (0.01, 0.08, None), (1, 10, None)],
    }


def test_a_deployment_replaces_the_profile_by_json() -> None:
    assert load_profile(msgspec.json.encode(DEFAULT_PROFILE)) == DEFAULT_PROFILE
    band = {"low": 0, "high": 1, "ideal": 0.5}
    data = {
        "version": "house-2",
        "currency": "EUR",
        "platforms": {"tiktok": {"ctr": band, "cpc": band, "cpm": band, "engagement": band}},
    }
    profile = load_profile(msgspec.json.encode(data))
    scored = PlatformNormalizer(profile).normalize(
        PlatformMetrics(platform=Platform.TIKTOK, impressions=100, clicks=25, currency="EUR")
    )
    assert scored.normalized_ctr == 0.25


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ('{"version": "1"', "Input data was truncated"),
        ('{"version": "1", "platforms": {"myspace": {}}}', "myspace"),
        ('{"version": "1", "platforms": {}}', "at least one platform"),
        ('{"version": " ", "platforms": {"meta": @}}', "needs a version"),
        ('{"version": "1", "platforms": {"unknown": @}}', "'unknown' cannot have benchmarks"),
        ('{"version": "1", "currency": "dollars", "platforms": {"meta": @}}', "ISO 4217"),
        ('{"version": "1", "curency": "EUR", "platforms": {"meta": @}}', "curency"),
    ],
)
def test_an_unusable_profile_is_refused_with_its_reason(change: str, sentence: str) -> None:
    meta = msgspec.json.encode(DEFAULT_PROFILE.platforms[Platform.META]).decode()
    with pytest.raises(ValueError, match=r"^benchmark profile: ") as refused:
        load_profile(change.replace("@", meta))
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("low", "high", "ideal"),
    [(1, 1, None), (2, 1, None), (-1, 1, None), (0, math.inf, None), (math.nan, 1, None), (0, 1, 2), (0, 1, math.nan)],
)
def test_an_impossible_band_is_refused(low: float, high: float, ideal: float | None) -> None:
    with pytest.raises(ValueError, match="band"):
        Band(low, high, ideal)
    with pytest.raises(ValueError, match="ctr"):
        Benchmarks(ctr=Band(0, 1), cpc=Band(0, 1), cpm=Band(0, 1), engagement=Band(0, 1))
    with pytest.raises(ValueError, match="fraction of at most 1"):
        Benchmarks(ctr=Band(0.5, 3.0, 1.5), cpc=Band(0, 1), cpm=Band(0, 1), engagement=Band(0, 1))


def test_quality_points_without_their_impressions_are_no_signal() -> None:
    row: list[int | None] = [None] * len(METRICS)
    row[IMPRESSIONS], row[CLICKS], row[SPEND] = 1000, 10, 10_000_000
    assert normalize_counts(Platform.META, row, "USD").components == ("ctr", "cpc", "cpm")
    row[QUALITY_POINTS] = 5
    assert normalize_counts(Platform.META, row, "USD").absent["quality"] == "no quality signal"


@pytest.mark.parametrize("module", [core.normalizer, core.profile, core.ratios])
def test_examples_in_the_docstrings_run(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
