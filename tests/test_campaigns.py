"""Campaigns: windows from rollups, when they are published, under which version, and what Redis is told."""

import json
from pathlib import Path

import msgspec
import pytest

from core import stored
from core.campaigns import Campaigns, InsightConfig
from core.forecast import forecast
from core.profile import DEFAULT_PROFILE
from core.stored import Mark
from schemas import prediction as prediction_codec
from schemas.platform import Platform
from schemas.prediction import CtrInputs, CtrPrediction, CtrRate
from tests.driven import FIRST, Driven, at, rollup, seen, withdrawn
from tests.histories import DAY, HOUR, T0, Fact, arrange, link, snapshot
from tests.pipeline import Pipeline, flat

NATIVE = Path(__file__).parents[2] / "shared" / "native"


def test_a_window_is_preliminary_then_final_once_then_corrected() -> None:
    driven = Driven("24h")
    driven.tell(rollup(1, 5))
    assert seen(driven.take().emissions) == [("spring", "preliminary", 5)]
    driven.tell(rollup(2, 7))
    assert seen(driven.take().emissions) == [("spring", "preliminary", 7)]
    driven.tell(at(T0 + DAY + HOUR - 1))
    assert driven.take().emissions == []
    driven.tell(at(T0 + DAY + HOUR))
    assert seen(driven.take().emissions) == [("spring", "final", 7)]
    driven.tell(at(T0 + 9 * DAY))
    assert driven.take().emissions == []
    driven.tell(rollup(3, 4))
    (corrected,) = driven.take().emissions
    assert corrected.insight.correction
    assert seen([corrected]) == [("spring", "corrected", 4)]
    assert corrected.insight.correction.reason == "restatement"
    assert corrected.insight.correction.difference == {"clicks": -3, "impressions": -300}


def test_a_window_that_is_first_seen_past_its_lateness_is_final_at_once() -> None:
    driven = Driven("24h")
    driven.tell(at(T0 + 9 * DAY), rollup(1, 5))
    assert seen(driven.take(preliminary=False).emissions) == [("spring", "final", 5)]


def test_news_that_changes_nothing_is_not_published() -> None:
    driven = Driven("24h")
    driven.tell(rollup(1, 5))
    driven.take()
    driven.tell(rollup(2, 5))
    assert driven.take().emissions == []


@pytest.mark.parametrize("revised", [4.5, 5])
def test_an_hour_of_which_more_is_reported_is_published_though_its_numbers_are_the_same(revised: float) -> None:
    driven = Driven("1h")
    driven.tell(rollup(1, 5, hours={3: 5, 4: 6}, covered_ms=T0 + 4 * HOUR + HOUR // 4))
    assert [each.insight.coverage for each in driven.take().emissions] == [{"meta": 1.0}, {"meta": 0.25}]
    driven.tell(rollup(2, 5, hours={3: 5, 4: 6}, covered_ms=T0 + int(revised * HOUR)))
    assert [each.insight.coverage for each in driven.take().emissions] == [{"meta": revised - 4}]
    driven.tell(rollup(3, 5, hours={3: 5, 4: 6}, covered_ms=T0 + 9 * HOUR))
    assert [each.insight.coverage for each in driven.take().emissions] == ([{"meta": 1.0}] if revised < 5 else [])


def test_preliminary_insights_wait_for_their_interval_and_for_leave() -> None:
    driven = Driven("24h")
    driven.tell(rollup(1, 5))
    assert driven.take(preliminary=False).emissions == []
    assert len(driven.take().emissions) == 1
    driven.tell(rollup(2, 6))
    assert driven.take(wait=1).emissions == []
    assert driven.state.waiting == 1
    assert seen(driven.take(wait=1).emissions) == [("spring", "preliminary", 6)]
    driven.tell(rollup(3, 7), at(T0 + 9 * DAY))
    assert seen(driven.take(wait=0, preliminary=False).emissions) == [("spring", "final", 7)]


def test_what_waits_is_published_after_a_crash() -> None:
    driven = Driven("24h")
    driven.tell(rollup(1, 5))
    driven.take(preliminary=False)
    driven.state = Campaigns.restore(driven.table, driven.config)
    assert seen(driven.take().emissions) == [("spring", "preliminary", 5)]


def test_a_window_ends_with_the_last_of_its_accounts_days() -> None:
    """Scenario: the same date ends in Kolkata, then in UTC, then in Los Angeles, and there after 23 hours."""
    driven = Driven("24h")
    day = FIRST + 1
    zones = {"1": "Asia/Kolkata", "2": "", "3": "America/Los_Angeles"}
    driven.tell(*(rollup(1, 5, day=day, platform_campaign_id=name, zone=zone) for name, zone in zones.items()))
    driven.take()
    end = T0 + 2 * DAY + 7 * HOUR
    driven.tell(at(end + HOUR - 1))
    assert driven.take().emissions == []
    driven.tell(at(end + HOUR))
    assert seen(driven.take().emissions) == [("spring", "final", 15)]


def test_lateness_is_that_of_the_slowest_platform_in_the_window() -> None:
    config = InsightConfig(final_after_ms={"meta": HOUR, "tiktok": 3 * DAY})
    assert config.lateness_ms([Platform.META]) == HOUR
    assert config.lateness_ms([Platform.META, Platform.TIKTOK]) == 3 * DAY
    assert config.lateness_ms([Platform.GOOGLE_ADS]) == DAY


def test_a_restatement_44_days_later_corrects_the_right_day_by_what_google_changed() -> None:
    """The real pair: ad-day 2024-01-01 pulled on 2024-01-15 and on 2024-02-14; 2023-12-31 stayed as it was."""
    rows = json.loads((NATIVE / "google_ads" / "restated_pairs.json").read_bytes())
    facts = []
    for row in rows:
        data = {name: value for name, value in row.items() if name not in ("pull", "emitted_at_ms")}
        message = {"stream": "ad_group_ad", "data": data, "emitted_at": row["emitted_at_ms"]}
        facts.append(Fact("ads.metrics.google", row["emitted_at_ms"], json.dumps(message).encode()))
    pipeline = Pipeline(arrange(facts))
    source = ("ads.metrics.google", 0)
    pipeline.read(source, 2)
    pipeline.drain_stages()
    pipeline.idle()
    pipeline.drain_stages()
    first = dict(pipeline.reader.latest)
    assert {each.phase for each in first.values()} == {"final"}
    pipeline.drain()
    corrected = {
        (each.window, each.window_start): each.correction.difference
        for each in pipeline.reader.latest.values()
        if each.correction
    }
    difference = {"conversions_micros": 2_000_000, "revenue_micros:USD": 55_000_000}
    assert corrected == {("24h", "2024-01-01"): difference, ("7d", "2023-12-26"): difference}


def test_a_moved_campaign_leaves_an_empty_correction_and_gives_the_new_one_everything() -> None:
    facts = [snapshot(clicks=5), snapshot(clicks=2, hour=3), link("spring", 40 * DAY)]
    pipeline = Pipeline(arrange(facts))
    pipeline.read(("ads.metrics.meta", 0), 2)
    pipeline.idle()
    pipeline.drain_stages()
    pipeline.drain()
    by_name = {(each.campaign_id, each.window): each for each in pipeline.reader.latest.values()}
    assert {name: flat(each) for name, each in by_name.items() if name[0] == "spring"} == {
        ("spring", "1h"): {"clicks": 2},
        ("spring", "24h"): {"clicks": 5},
        ("spring", "7d"): {"clicks": 5},
    }
    for kind, clicks in (("1h", 2), ("24h", 5), ("7d", 5)):
        old = by_name["meta:1", kind]
        assert old.correction
        assert (old.correction.reason, old.correction.difference) == ("campaign_link", {"clicks": -clicks})
        assert pipeline.hot["meta:1", kind][1] == old, "Redis must not keep what moved away"


@pytest.mark.parametrize("survive", range(4))
def test_an_hour_that_lost_its_content_is_corrected_in_spite_of_a_crash(survive: int) -> None:
    driven = Driven("1h")
    driven.tell(at(T0 + 9 * DAY), rollup(1, 5, hours={3: 5, 4: 6}))
    driven.take()
    driven.take()
    driven.tell(rollup(2, 5, hours={4: 6}))
    driven.die(survive)
    driven.again()
    emissions = driven.drain()
    changed = [each.insight for each in emissions if each.insight.phase == "corrected"]
    assert [(each.window_start, flat(each)) for each in changed] == [("2026-03-07T03:00:00.000Z", {})]


@pytest.mark.parametrize("survive", range(6))
def test_a_correction_that_a_crash_kept_back_is_published_byte_for_byte(survive: int) -> None:
    """Scenario: the worker dies in the checkpoint of a correction; a newer pull of the same values comes with it."""
    driven = Driven("24h")
    driven.tell(at(T0 + 9 * DAY), rollup(1, 5))
    driven.take()
    driven.tell(rollup(2, 6))
    published = driven.die(survive).emissions[-1]
    driven.tell(rollup(3, 6, as_of_ms=T0 + 20 * DAY))
    driven.again()
    emissions = [each for each in driven.drain() if each.insight.phase == "corrected"]
    (again,) = emissions
    if survive < 2:
        assert again.insight.as_of > published.insight.as_of, "nobody has seen the first, which was not written"
    else:
        assert again.payload == published.payload
    assert again.insight.correction == published.insight.correction


def test_a_final_that_a_crash_kept_back_is_published_before_its_correction() -> None:
    driven = Driven("24h")
    driven.tell(at(T0 + 9 * DAY), rollup(1, 5))
    driven.die(4)
    driven.tell(rollup(2, 6))
    emissions = driven.drain()
    assert seen(emissions) == [("spring", "final", 5), ("spring", "corrected", 6)]
    assert emissions[1].insight.correction
    assert emissions[1].insight.correction.difference == {"clicks": 1, "impressions": 100}


def test_what_was_published_is_published_again_once_and_not_for_ever() -> None:
    driven = Driven("24h")
    driven.tell(rollup(1, 5))
    first = driven.take().emissions
    driven.state = Campaigns.restore(driven.table, driven.config)
    assert [each.payload for each in driven.take().emissions] == [each.payload for each in first]
    driven.take()
    driven.state = Campaigns.restore(driven.table, driven.config)
    assert driven.take().emissions == []


def test_an_older_rollup_is_refused_and_makes_nothing_due() -> None:
    driven = Driven("24h")
    driven.tell(rollup(7, 5))
    driven.take()
    driven.tell(rollup(6, 9), rollup(7, 9))
    checkpoint = driven.take()
    assert checkpoint.emissions == []
    assert len(checkpoint.writes) == 1, "the mark alone"


def test_redis_is_told_the_newest_window_of_each_kind() -> None:
    driven = Driven("24h")
    driven.tell(rollup(1, 5), rollup(2, 6, day=FIRST + 1))
    assert seen(driven.take().hot) == [("spring", "preliminary", 6)]
    driven.tell(rollup(3, 4))
    assert driven.take().hot == []


def test_redis_falls_back_to_the_window_before_when_the_newest_lost_its_content() -> None:
    driven = Driven("24h")
    driven.tell(rollup(1, 5), rollup(2, 6, day=FIRST + 1))
    driven.take()
    driven.tell(withdrawn(3, day=FIRST + 1))
    assert seen(driven.take().hot) == [("spring", "preliminary", 5)]


def test_the_newest_hour_is_the_newest_in_any_zone() -> None:
    """Scenario: Auckland's date is a day ahead of Los Angeles', whose report is hours fresher."""
    driven = Driven("1h")
    ahead = rollup(1, 5, day=FIRST + 1, zone="Pacific/Auckland", hours={-12: 5})
    behind = rollup(2, 6, day=FIRST, zone="America/Los_Angeles", platform_campaign_id="2", hours={20: 6})
    driven.tell(ahead, behind)
    assert [each.insight.window_start for each in driven.take().hot] == ["2026-03-07T20:00:00.000Z"]


def test_a_rebuilt_redis_never_shows_news_under_an_old_version() -> None:
    """Scenario: Redis is made whole while an insight waits for its interval. It gets that insight when it is out."""
    driven = Driven("24h")
    driven.tell(rollup(1, 5))
    (published,) = driven.take().hot
    driven.tell(rollup(2, 6))
    driven.take(wait=1)
    assert [emissions for emissions, _ in driven.state.hot()] == [[]]
    driven.tell(rollup(3, 5))
    (again,) = driven.take(wait=1).hot
    assert (again.payload, again.position) == (published.payload, 2)


def test_a_rebuilt_redis_gets_what_was_published() -> None:
    driven = Driven("24h")
    driven.tell(at(T0 + 9 * DAY), rollup(1, 5))
    driven.take()
    driven.tell(rollup(2, 6), rollup(3, 9, campaign_id="autumn"))
    published = {each.insight.campaign_id: each.payload for each in driven.take().emissions}
    driven.state = Campaigns.restore(driven.table, driven.config)
    rebuilt = {each.insight.campaign_id: each.payload for emissions, _ in driven.state.hot() for each in emissions}
    assert rebuilt == published


def prediction(state: Campaigns, kind: str) -> CtrPrediction:
    (found,) = (each for each in state.predictions() if each.window == kind)
    return found


def test_features_end_before_the_label_begins() -> None:
    """Scenario: one platform's hours end at 11:00, another's day report reaches to 23:00. What that holds of the
    predicted hour must not predict it."""
    driven = Driven("1h")
    known = rollup(1, 5, hours={10: 5}, covered_ms=T0 + 11 * HOUR)
    driven.tell(known)
    expected = prediction(driven.state, "1h")
    assert expected.label_start == "2026-03-07T11:00:00.000Z"
    beyond = rollup(2, 900, platform=Platform.TIKTOK, covered_ms=T0 + 23 * HOUR)
    driven.tell(beyond)
    found = prediction(driven.state, "1h")
    assert (found.inputs.impressions, found.inputs.clicks) == (expected.inputs.impressions, expected.inputs.clicks)
    assert found.platforms["meta"] == expected.platforms["meta"]
    driven.tell(msgspec.structs.replace(beyond, revision=3, covered_ms=T0 + 11 * HOUR))
    assert prediction(driven.state, "1h").inputs.clicks == 905


def test_a_prediction_does_not_depend_on_the_batch_it_was_made_in() -> None:
    driven = Driven("24h")
    for name in range(9):
        days = [rollup(1, 3 + name * age, campaign_id=str(name), day=FIRST - age) for age in range(4)]
        driven.tell(*days, rollup(1, 7 * name, campaign_id=str(name), platform=Platform.TIKTOK))
    together = driven.state.predictions()
    campaigns = [campaign for each in together if (campaign := driven.state.campaign(each.campaign_id))]
    windows = driven.config.windows
    alone = [forecast([each], windows, DEFAULT_PROFILE, driven.state.ctr)[0] for each in campaigns]
    assert [prediction_codec.encode(each) for each in together] == [prediction_codec.encode(each) for each in alone]


RATE = CtrRate(
    rate=0.0125,
    low=0.01,
    high=0.02,
    source="empirical_bayes",
    inputs=CtrInputs(
        impressions=1000.5, clicks=12.0, prior_rate=0.015, prior_strength=20.0, expected_impressions=900.0
    ),
)
PREDICTION_BYTES = (
    b'{"schema_version":1,"prediction_id":"00ff","campaign_id":"spring","window":"24h","feature_end":"2026'
    b'-03-08T00:00:00.000Z","label_start":"2026-03-08T00:00:00.000Z","label_end":"2026-03-09T00:00:00.000Z'
    b'","label_window_start":"2026-03-08","revision":7,"model":"empirical-bayes-1","half_life_days":4.0,"r'
    b'ate":0.0125,"low":0.01,"high":0.02,"source":"empirical_bayes","inputs":{"impressions":1000.5,"clicks'
    b'":12.0,"prior_rate":0.015,"prior_strength":20.0,"expected_impressions":900.0},"platforms":{"meta":{"'
    b'rate":0.0125,"low":0.01,"high":0.02,"source":"empirical_bayes","inputs":{"impressions":1000.5,"click'
    b's":12.0,"prior_rate":0.015,"prior_strength":20.0,"expected_impressions":900.0}}},"platforms_used":["'
    b'meta"]}'
)
MARK_WITHOUT_FLOOR = "9529280706929200cf0000019cc59804009201ff"
CAMPAIGNS_MARK = "9629280706929200cf0000019cc59804009201ffcd5027"


def golden_prediction() -> CtrPrediction:
    return CtrPrediction(
        prediction_id="00ff",
        campaign_id="spring",
        window="24h",
        feature_end="2026-03-08T00:00:00.000Z",
        label_start="2026-03-08T00:00:00.000Z",
        label_end="2026-03-09T00:00:00.000Z",
        label_window_start="2026-03-08",
        revision=7,
        model="empirical-bayes-1",
        half_life_days=4.0,
        rate=RATE.rate,
        low=RATE.low,
        high=RATE.high,
        source=RATE.source,
        inputs=RATE.inputs,
        platforms={"meta": RATE},
        platforms_used=["meta"],
    )


def test_version_1_of_a_prediction_is_for_ever() -> None:
    assert prediction_codec.decode(PREDICTION_BYTES) == golden_prediction()
    news = {"confidence": 0.5, "consistency": 0.75, "learned_to": "2026-03-07T12:00:00.000Z"}
    later = msgspec.structs.replace(golden_prediction(), **news)
    added = b',"confidence":0.5,"consistency":0.75,"learned_to":"2026-03-07T12:00:00.000Z"}'
    assert prediction_codec.encode(later) == PREDICTION_BYTES[:-1] + added
    refused = prediction_codec.encode(msgspec.structs.replace(later, model_refused="checksum"))
    assert refused == PREDICTION_BYTES[:-1] + added[:-1] + b',"model_refused":"checksum"}'
    assert prediction_codec.decode(refused).model_refused == "checksum"


def test_version_1_of_a_mark_is_for_ever() -> None:
    mark = Mark(position=41, settled=40, sequence=7, published=6, watermarks=[(0, T0), (1, -1)], floor=20_519)
    assert stored.pack_mark(mark).hex() == CAMPAIGNS_MARK
    assert stored.unpack_mark(bytes.fromhex(CAMPAIGNS_MARK)) == mark
    assert stored.unpack_mark(bytes.fromhex(MARK_WITHOUT_FLOOR)) == msgspec.structs.replace(mark, floor=0)


def test_bytes_that_are_no_rollup_are_refused_and_change_nothing() -> None:
    driven = Driven("24h")
    with pytest.raises(ValueError, match="not a rollup"):
        driven.state.apply(0, b"{}")
    assert not driven.state.pending
