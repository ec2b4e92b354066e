"""The insight's formulas, as the domain states them, computed here a second time and by hand."""

import math
from statistics import pvariance
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.insight import Part, build, insight_id
from core.normalizer import confidence, normalize_counts
from core.profile import DEFAULT_PROFILE
from core.window import parse_window
from schemas import insight as insight_codec
from schemas.insight import (
    Correction,
    CrossPlatformInsight,
    InsightTotals,
    MoneyTotals,
    PlatformBreakdown,
    RateUsed,
    ReportingTotals,
    Version,
)
from schemas.metrics import METRICS, REVENUE, SPEND, WIDTH
from schemas.platform import Platform
from schemas.rollup import Money, Rollup, Totals
from tests.histories import DAY, HOUR, T0, Fact, arrange, delta, examples, link, midnight, snapshot
from tests.pipeline import Pipeline

FIRST = T0 // DAY
KNOWN = (Platform.META, Platform.TIKTOK, Platform.GOOGLE_ADS)


def part(platform: Platform, name: str = "1", day: int = FIRST, currency: str = "USD", **metrics: int) -> Part:
    """What a platform campaign adds; money is named like the other metrics."""
    values = tuple(
        metrics.get(metric) if position not in (SPEND, REVENUE) else None for position, metric in enumerate(METRICS)
    )
    spend, revenue = metrics.get("spend_micros"), metrics.get("revenue_micros")
    money = () if spend is None and revenue is None else (Money(currency, spend, revenue),)
    totals = Totals(values, money)
    rollup = Rollup(
        campaign_id="spring",
        platform=platform,
        platform_campaign_id=name,
        day=day,
        revision=1,
        day_totals=totals,
        start_ms=day * DAY,
        covered_ms=(day + 1) * DAY,
        zone="UTC",
        basis="snapshot",
    )
    return Part(rollup, totals)


def built(*parts: Part, kind: str = "24h") -> CrossPlatformInsight:
    return build("spring", parse_window(kind), FIRST, parts, DEFAULT_PROFILE, "", Version(1, 0))


counts = st.integers(0, 10**6)
parts_of = st.lists(
    st.builds(
        lambda platform, name, metrics: part(platform, name, **metrics),
        st.sampled_from(KNOWN),
        st.sampled_from("12"),
        st.dictionaries(st.sampled_from(METRICS[:8]), counts),
    ),
    max_size=6,
)


@examples(150)
@given(parts_of, st.randoms(use_true_random=False))
def test_totals_are_sums_and_do_not_depend_on_the_order(parts: list[Part], random: Any) -> None:
    insight = built(*parts)
    for metric, name in enumerate(METRICS[:8]):
        if metric in (SPEND, REVENUE):
            said = [getattr(money, name) for each in parts for money in each.totals.money]
            found = [getattr(money, name) for money in insight.totals.money]
        else:
            said, found = [each.totals.values[metric] for each in parts], [getattr(insight.totals, name)]
        known = [value for value in said if value is not None]
        assert [value for value in found if value is not None] == ([sum(known)] if known else [])
    distinct = {(each.rollup.platform, each.rollup.platform_campaign_id): each for each in parts}
    shuffled = list(distinct.values())
    random.shuffle(shuffled)
    assert insight_codec.content(built(*shuffled)) == insight_codec.content(built(*distinct.values()))


@examples(100)
@given(st.lists(st.tuples(st.sampled_from(KNOWN), st.sampled_from("123"), st.sampled_from(("", "b", "a"))), max_size=6))
def test_each_platform_names_the_accounts_of_its_rows(given_rows: list[tuple[Platform, str, str]]) -> None:
    rows = {(platform, name): account for platform, name, account in given_rows}
    parts = []
    for (platform, name), account in rows.items():
        one = part(platform, name, clicks=1)
        parts.append(Part(msgspec.structs.replace(one.rollup, account_id=account), one.totals))
    found = {name: breakdown.accounts for name, breakdown in built(*parts).platform_breakdown.items()}
    assert found == {
        str(platform): sorted({account for (other, _), account in rows.items() if other == platform and account})
        for platform, _ in rows
    }


@examples(150)
@given(parts_of)
def test_averages_are_weighted_by_confidence_and_ratios_are_pooled(parts: list[Part]) -> None:
    insight = built(*parts)
    by_platform: dict[Platform, list[int | None]] = {}
    for each in parts:
        row = by_platform.setdefault(each.rollup.platform, [None] * WIDTH)
        for metric in range(8):
            value = each.totals.values[metric]
            for money in each.totals.money:
                value = {SPEND: money.spend_micros, REVENUE: money.revenue_micros}.get(metric, value)
            if value is not None:
                row[metric] = (row[metric] or 0) + value
    scored = {platform: normalize_counts(platform, row, "USD") for platform, row in by_platform.items()}
    for name in ("normalized_ctr", "normalized_cpc", "normalized_cpm", "normalized_engagement", "composite_score"):
        known = [(each.confidence, getattr(each, name)) for each in scored.values() if getattr(each, name) is not None]
        weight = sum(sure for sure, _ in known)
        mean = sum(sure * value for sure, value in known) / weight if weight else None
        assert getattr(insight, name) == (None if mean is None else pytest.approx(mean, abs=1e-12))
    composites = [each.composite_score for each in scored.values() if each.composite_score is not None]
    consistency = math.exp(-10 * pvariance(composites)) if len(composites) > 1 else None
    assert insight.consistency_score == (None if consistency is None else pytest.approx(consistency, abs=1e-12))
    spend, revenue = insight.totals.spend_micros, insight.totals.revenue_micros
    assert insight.roas == (revenue / spend if spend and revenue is not None else None)
    assert (insight.roas is None) == (insight.roas_reason is not None)
    shown, clicked = insight.totals.impressions, insight.totals.clicks
    assert insight.ctr == (clicked / shown if shown and clicked is not None else None)
    assert insight.confidence == confidence(shown or 0)
    best = max(composites, default=None)
    if best is None:
        assert insight.best_platform is None
    else:
        assert insight.best_platform is not None
        assert scored[Platform(insight.best_platform)].composite_score == best


def test_the_domains_example_is_reproduced() -> None:
    """Meta ctr .025, cpc 1.5, engagement .05, quality 8.5: counts can tell the cpm only as ctr times cpc."""
    row = part(
        Platform.META,
        impressions=10_000,
        clicks=250,
        spend_micros=375_000_000,
        engagements=500,
        quality_points=8_500_000,
        quality_impressions=10_000,
    )
    meta = built(row).platform_breakdown["meta"]
    assert (meta.ctr, meta.cpc, meta.cpm, meta.engagement_rate) == (0.025, 1.5, 37.5, 0.05)
    assert meta.normalized_ctr == pytest.approx(0.8)
    assert meta.normalized_cpc == pytest.approx(0.53571, abs=5e-6)
    assert meta.normalized_cpm == 0.0
    assert meta.normalized_engagement == pytest.approx(0.44444, abs=5e-6)
    assert meta.normalized_quality == pytest.approx(0.83333, abs=5e-6)
    assert meta.composite_score == pytest.approx(
        0.3 * 0.8 + 0.25 * 0.535714 + 0.15 * 0.444444 + 0.15 * 0.833333, abs=1e-6
    )
    assert meta.confidence == 0.9


def test_roas_is_revenue_over_spend_and_no_mean_of_ratios() -> None:
    """Scenario: a tiny campaign at 10, a large one at 1. The mean would say 5.5."""
    small = part(Platform.META, spend_micros=10, revenue_micros=100)
    large = part(Platform.TIKTOK, spend_micros=990, revenue_micros=900)
    assert built(small, large).roas == 1.0


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([part(Platform.META, clicks=1)], "no platform reported money"),
        ([part(Platform.META, spend_micros=0, revenue_micros=1)], "no spend"),
        ([part(Platform.META, spend_micros=1)], "revenue is not reported"),
        ([part(Platform.META, revenue_micros=1)], "spend is not reported"),
        (
            [part(Platform.META, spend_micros=1, currency="EUR"), part(Platform.TIKTOK, revenue_micros=1)],
            "money is in several currencies without a rate between them: EUR, USD",
        ),
    ],
)
def test_an_absent_roas_says_why(parts: list[Part], reason: str) -> None:
    insight = built(*parts)
    assert (insight.roas, insight.roas_reason) == (None, reason)


def test_costs_in_several_currencies_are_absent_for_that_reason() -> None:
    rows = [
        part(Platform.META, name, impressions=100, clicks=10, spend_micros=5, currency=code)
        for name, code in (("1", "USD"), ("2", "EUR"))
    ]
    meta = built(*rows).platform_breakdown["meta"]
    assert meta.normalized_ctr is not None
    several = "money is in several currencies without a rate between them: EUR, USD"
    assert (meta.absent["cpc"], meta.absent["cpm"]) == (several, several)
    assert meta.absent["engagement"] == "engagements are not reported"


def test_a_platform_without_delivery_does_not_score_as_a_cheap_one() -> None:
    idle, busy = part(Platform.META, impressions=0, spend_micros=0), part(Platform.TIKTOK, impressions=900, clicks=20)
    insight = built(idle, busy)
    assert insight.platform_breakdown["meta"].composite_score is None
    assert insight.best_platform == "tiktok"
    assert insight.consistency_score is None
    assert insight.composite_score == pytest.approx(insight.platform_breakdown["tiktok"].composite_score)


def windows_of(*facts: Fact, kind: str = "24h") -> list[CrossPlatformInsight]:
    return [each for each in Pipeline(arrange(facts)).drain().insights() if each.window == kind]


def test_coverage_is_how_much_of_the_window_each_platform_has_reported() -> None:
    owners = ("meta", "tiktok", "google_ads")
    (day,) = windows_of(
        snapshot(pulled=6 * HOUR, clicks=1),
        snapshot(platform="tiktok", pulled=3 * DAY, clicks=1),
        delta("a", 11 * HOUR, platform="google_ads", clicks=1),
        *(link("spring", platform=owner) for owner in owners),
    )
    assert day.coverage == {"google_ads": 0.5, "meta": 0.25, "tiktok": 1.0}
    (week,) = windows_of(snapshot(pulled=6 * HOUR, clicks=1), kind="7d")
    assert week.coverage == {"meta": pytest.approx(0.25 / 7)}


def test_coverage_of_a_platform_is_that_of_its_least_advanced_campaign() -> None:
    rows = [snapshot(clicks=1), snapshot(pulled=12 * HOUR, clicks=1, campaign="2")]
    (day,) = windows_of(*rows, link("spring"), link("spring", campaign="2"))
    assert day.coverage == {"meta": 0.5}


@pytest.mark.parametrize(("zone", "day", "length"), [("America/Los_Angeles", 1, 23), ("Asia/Kolkata", 1, 24)])
def test_a_days_last_hour_completes_it_however_long_it_is(zone: str, day: int, length: int) -> None:
    """2026-03-08 has 23 hours in Los Angeles."""
    (whole,) = windows_of(snapshot(day=day, zone=zone, hour=length - 1, clicks=1))
    (half,) = windows_of(snapshot(day=day, zone=zone, pulled=length * HOUR // 2, clicks=1))
    assert (whole.coverage, half.coverage) == ({"meta": 1.0}, {"meta": 0.5})
    assert midnight(day + 1, zone) - midnight(day, zone) == length * HOUR


@pytest.mark.parametrize(
    ("zone", "day", "length"),
    [("Australia/Lord_Howe", 29, 24.5), ("America/New_York", 239, 25), ("Asia/Kathmandu", 0, 24)],
)
def test_a_day_is_as_covered_as_it_is_long(zone: str, day: int, length: float) -> None:
    """Clocks go back by half an hour on Lord Howe on 2026-04-05, and by one in New York on 2026-11-01."""
    assert midnight(day + 1, zone) - midnight(day, zone) == length * HOUR
    for hours in (0, 7, 23.5, 24):
        (found,) = windows_of(snapshot(day=day, zone=zone, pulled=int(hours * HOUR), clicks=1))
        assert found.coverage == {"meta": pytest.approx(min(1.0, hours / length))}
    week = windows_of(
        snapshot(day=day, zone=zone, pulled=7 * HOUR, clicks=1),
        snapshot(day=day - 1, zone=zone, pulled=2 * DAY, clicks=1),
        kind="7d",
    )
    assert week[-1].coverage == {"meta": pytest.approx((1 + 7 / length) / 7)}


def test_an_hour_is_covered_up_to_its_pull_and_by_a_delta_whole() -> None:
    def covered(*facts: Fact) -> list[float]:
        return [hour.coverage["meta"] for hour in windows_of(*facts, kind="1h")]

    assert covered(snapshot(hour=3, pulled=HOUR // 4, clicks=1)) == [0.25]
    assert covered(snapshot(hour=3, pulled=HOUR, clicks=1)) == [1.0]
    assert covered(snapshot(hour=3, pulled=HOUR, clicks=1), snapshot(hour=4, pulled=HOUR // 2, clicks=1)) == [1.0, 0.5]
    assert covered(delta("a", 5 * HOUR + 1, clicks=1)) == [1.0]
    (day,) = windows_of(snapshot(hour=3, pulled=HOUR // 2, clicks=1))
    assert day.coverage == {"meta": pytest.approx(3.5 / 24)}


def test_an_hour_in_which_a_day_ends_is_covered_by_what_lies_in_the_day() -> None:
    """In Kolkata a date ends at 18:30 UTC: the hour of UTC has half an hour of each of two dates."""
    zone = "Asia/Kolkata"
    last = delta("a", 18 * HOUR + 60_000, clicks=1, time_zone=zone)
    first = delta("b", 18 * HOUR + 40 * 60_000, clicks=1, time_zone=zone)
    for facts in ((last,), (first,), (last, first)):
        (hour,) = windows_of(*facts, kind="1h")
        assert hour.coverage == {"meta": 1.0}


def test_rows_of_an_assumed_zone_beside_those_of_the_known_one_are_covered() -> None:
    """Midnight of UTC is not yet that date in Los Angeles."""
    rows = (snapshot(hour=0, pulled=HOUR, clicks=1), snapshot(zone="America/Los_Angeles", pulled=HOUR, clicks=1))
    (hour,) = windows_of(*rows, kind="1h")
    assert hour.coverage == {"meta": 1.0}


def test_an_assumed_zone_is_said() -> None:
    (assumed,) = windows_of(snapshot(clicks=1))
    (known,) = windows_of(snapshot(clicks=1, zone="Asia/Kolkata"))
    told = [
        (each.platform_breakdown["meta"].zone_assumed, each.platform_breakdown["meta"].zones)
        for each in (assumed, known)
    ]
    assert told == [(True, []), (False, ["Asia/Kolkata"])]


def test_an_id_is_stable_and_each_window_has_its_own() -> None:
    assert insight_id("spring", "24h", FIRST) == "5f1f9e3b5642e3390304d37b54ce0f4d"
    ids = {insight_id(name, kind, index) for name in ("a", "b") for kind in ("1h", "24h") for index in (1, 2)}
    assert len(ids) == 8


def test_the_order_of_versions_is_revision_then_phase() -> None:
    assert Version(1, 2) < Version(2, 0) < Version(2, 1) < Version(2, 2)


def test_how_an_insight_came_about_is_not_its_content() -> None:
    one = golden()
    fields = {name: getattr(one, name) for name in one.__struct_fields__}
    other = CrossPlatformInsight(
        **fields | {"version": Version(9, 0), "phase": "preliminary", "as_of": "", "correction": None}
    )
    changed = CrossPlatformInsight(**fields | {"benchmarks": "house"})
    assert insight_codec.content(one) == insight_codec.content(other)
    assert insight_codec.content(one) != insight_codec.content(changed)


INSIGHT_BYTES = (
    b'{"schema_version":1,"insight_id":"00ff","campaign_id":"spring","window":"24h","window_start":"2026-0'
    b'3-07","window_end":"2026-03-08","version":{"revision":7,"phase":2},"phase":"corrected","as_of":"2026'
    b'-03-09T01:02:03.004Z","correction":{"reason":"restatement","difference":{"clicks":-3}},"totals":{"im'
    b'pressions":1000,"clicks":20,"link_clicks":null,"conversions_micros":1500000,"engagements":31,"video_'
    b'views":0,"currency":"USD","spend_micros":12345678,"revenue_micros":null,"money":[{"currency":"USD","'
    b'spend_micros":12345678,"revenue_micros":null}]},"ctr":0.02,"roas":null,"roas_reason":"revenue is not'
    b' reported","normalized_ctr":0.6,"normalized_cpc":0.85,"normalized_cpm":0.45,"normalized_engagement":'
    b'0.23,"normalized_quality":null,"composite_score":0.58,"confidence":0.6,"consistency_score":null,"bes'
    b't_platform":"meta","coverage":{"meta":1.0},"platform_breakdown":{"meta":{"totals":{"impressions":100'
    b'0,"clicks":20,"link_clicks":null,"conversions_micros":1500000,"engagements":31,"video_views":0,"curr'
    b'ency":"USD","spend_micros":12345678,"revenue_micros":null,"money":[{"currency":"USD","spend_micros":'
    b'12345678,"revenue_micros":null}]},"ctr":0.02,"cpc":0.6172839,"cpm":12.345678,"engagement_rate":0.031'
    b',"roas":null,"normalized_ctr":0.6,"normalized_cpc":0.85,"normalized_cpm":0.45,"normalized_engagement'
    b'":0.23,"normalized_quality":null,"composite_score":0.58,"confidence":0.6,"components":["ctr","cpc","'
    b'cpm","engagement"],"absent":{"quality":"no quality signal"},"coverage":1.0,"zones":["Europe/Berlin"]'
    b',"zone_assumed":false,"basis":["snapshot"],"platform_campaigns":["12021"]}},"benchmarks":"2026-01"}'
)


def golden() -> CrossPlatformInsight:
    totals = InsightTotals(
        impressions=1000,
        clicks=20,
        link_clicks=None,
        conversions_micros=1_500_000,
        engagements=31,
        video_views=0,
        currency="USD",
        spend_micros=12_345_678,
        revenue_micros=None,
        money=[MoneyTotals("USD", 12_345_678, None)],
    )
    platform = PlatformBreakdown(
        totals=totals,
        ctr=0.02,
        cpc=0.6172839,
        cpm=12.345678,
        engagement_rate=0.031,
        roas=None,
        normalized_ctr=0.6,
        normalized_cpc=0.85,
        normalized_cpm=0.45,
        normalized_engagement=0.23,
        normalized_quality=None,
        composite_score=0.58,
        confidence=0.6,
        components=["ctr", "cpc", "cpm", "engagement"],
        absent={"quality": "no quality signal"},
        coverage=1.0,
        zones=["Europe/Berlin"],
        zone_assumed=False,
        basis=["snapshot"],
        platform_campaigns=["12021"],
    )
    return CrossPlatformInsight(
        insight_id="00ff",
        campaign_id="spring",
        window="24h",
        window_start="2026-03-07",
        window_end="2026-03-08",
        version=Version(7, 2),
        phase="corrected",
        as_of="2026-03-09T01:02:03.004Z",
        correction=Correction(reason="restatement", difference={"clicks": -3}),
        totals=totals,
        ctr=0.02,
        roas=None,
        roas_reason="revenue is not reported",
        normalized_ctr=0.6,
        normalized_cpc=0.85,
        normalized_cpm=0.45,
        normalized_engagement=0.23,
        normalized_quality=None,
        composite_score=0.58,
        confidence=0.6,
        consistency_score=None,
        best_platform="meta",
        coverage={"meta": 1.0},
        platform_breakdown={"meta": platform},
        benchmarks="2026-01",
    )


ADDED_BYTES = (
    (
        b'"revenue_micros":null}]}',
        b'"revenue_micros":null}],"reporting":{"currency":"EUR","spend_micros":11234567,"revenue_micros":null,"roas":nul'
        b'l,"rates":[{"currency":"USD","date":"2026-03-06","rate":"0.91"}],"missing":[]}}',
    ),
    (b'"platform_campaigns":["12021"]}', b'"platform_campaigns":["12021"],"maturity":0.88,"accounts":["act_7"]}'),
    (b'"benchmarks":"2026-01"}', b'"benchmarks":"2026-01","maturity":{"meta":0.88}}'),
)
"""What fields at the end of their objects were added since, each in its place."""


def extended() -> CrossPlatformInsight:
    one = golden()
    reporting = ReportingTotals(
        currency="EUR",
        spend_micros=11_234_567,
        revenue_micros=None,
        roas=None,
        rates=[RateUsed("USD", "2026-03-06", "0.91")],
        missing=[],
    )
    totals = msgspec.structs.replace(one.totals, reporting=reporting)
    meta = msgspec.structs.replace(one.platform_breakdown["meta"], totals=totals, accounts=["act_7"])
    one = msgspec.structs.replace(one, totals=totals, platform_breakdown={"meta": meta})
    return insight_codec.matured(one, {"meta": 0.88})


def test_version_1_of_an_insight_is_for_ever() -> None:
    written = INSIGHT_BYTES
    for place, added in ADDED_BYTES:
        assert place in written
        written = written.replace(place, added)
    assert insight_codec.encode(extended()) == written
    assert insight_codec.decode(written) == extended()


def test_an_insight_of_before_the_added_fields_is_still_read() -> None:
    assert insight_codec.decode(INSIGHT_BYTES) == golden()
