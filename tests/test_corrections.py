"""Corrections: what changed of a settled window, by how much and why, under versions that only rise."""

from collections import defaultdict
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.ingest import Ingest
from core.offline import compute
from core.published import Reason
from schemas import insight as insight_codec
from schemas.calendar import iso_date
from schemas.insight import CrossPlatformInsight, Phase, Version
from schemas.rollup import Rollup
from tests.driven import FIRST, Driven, at, rollup, withdrawn
from tests.histories import DAY, T0, Fact, History, arrange, examples, histories, link, snapshot
from tests.pipeline import CONFIG, Pipeline, Step, flat, schedules


def latest(pipeline: Pipeline) -> dict[tuple[str, str, str], CrossPlatformInsight]:
    """By campaign, kind and start; without the campaign that only moves the watermark."""
    found = pipeline.reader.latest.values()
    return {
        (each.campaign_id, each.window, each.window_start): each for each in found if each.campaign_id != "meta:far"
    }


def settle(facts: list[Fact], then: list[Fact]) -> tuple[Pipeline, dict[tuple[str, str, str], CrossPlatformInsight]]:
    """All windows of some facts are final; then more facts come."""
    pipeline = Pipeline(arrange([*facts, *then]))
    for source in pipeline.sources:
        pipeline.read(source, sum(fact.topic == source[0] for fact in facts))
    pipeline.idle()
    pipeline.drain_stages()
    first = latest(pipeline)
    assert {each.phase for each in first.values()} == {"final"}
    pipeline.drain()
    return pipeline, first


FAR = snapshot(campaign="far", day=90, clicks=1)
"""Moves the watermark past everything else."""


def test_a_link_change_is_told_by_both_campaigns() -> None:
    facts = [snapshot(clicks=5), snapshot(platform="tiktok", clicks=3), link("spring", 0, "tiktok"), FAR]
    pipeline, first = settle(facts, [link("spring", 91 * DAY)])
    start = "2026-03-07"
    assert flat(first["spring", "24h", start]) == {"clicks": 3}
    for kind, begin in (("24h", start), ("7d", "2026-03-01")):
        won, lost = (latest(pipeline)[name, kind, begin].correction for name in ("spring", "meta:1"))
        assert won
        assert lost
        assert (won.reason, won.difference) == ("campaign_link", {"clicks": 5})
        assert (lost.reason, lost.difference) == ("campaign_link", {"clicks": -5})


def test_a_first_report_of_a_platform_campaign_that_was_linked_long_ago_is_late_data() -> None:
    facts = [snapshot(platform="tiktok", clicks=3), link("spring", 0, "tiktok"), link("spring"), FAR]
    pipeline, _ = settle(facts, [snapshot(pulled=91 * DAY, clicks=5)])
    correction = latest(pipeline)["spring", "24h", "2026-03-07"].correction
    assert correction
    assert (correction.reason, correction.difference) == ("late_data", {"clicks": 5})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ([rollup(2, 6, hours={3: 6})], Reason.RESTATEMENT),
        ([rollup(2, 6)], Reason.RESTATEMENT),
        ([rollup(2, 6, platform_campaign_id="2", hours={3: 1})], Reason.LATE_DATA),
        ([rollup(9, 6, platform_campaign_id="2", hours={3: 1}, link_revision=8)], Reason.LATE_DATA),
        ([rollup(8, 6, platform_campaign_id="2", hours={3: 1}, link_revision=8)], Reason.CAMPAIGN_LINK),
        ([withdrawn(2)], Reason.CAMPAIGN_LINK),
        ([withdrawn(2), rollup(1, 6, platform_campaign_id="2", hours={3: 1})], Reason.CAMPAIGN_LINK),
    ],
)
def test_a_correction_says_why(change: list[Rollup], reason: Reason) -> None:
    """The second takes an hour's content away without taking its platform campaign: no link did that."""
    driven = Driven("1h")
    driven.tell(at(T0 + 9 * DAY), rollup(1, 5, hours={3: 5}))
    driven.drain()
    driven.tell(*change)
    (emission,) = driven.drain()
    assert emission.insight.correction
    assert emission.insight.correction.reason == reason
    assert b'"reason":"%s"' % reason.encode() in emission.payload


def test_a_restatement_44_days_later_corrects_every_window_that_its_day_is_in_and_no_other() -> None:
    days = [snapshot(day=day, clicks=100 + day, impressions=9_000, spend_micros=2_000_000) for day in range(20)]
    far = snapshot(campaign="far", day=60, clicks=1)
    restated = snapshot(day=9, pulled=44 * DAY, clicks=90, impressions=9_000, spend_micros=1_500_001)
    pipeline, first = settle([*days, far], [restated])
    found = latest(pipeline)
    corrected = {name for name, each in found.items() if each.correction}
    expected = {("meta:1", "7d", iso_date(FIRST + start)) for start in range(3, 10)}
    assert corrected == {("meta:1", "24h", iso_date(FIRST + 9)), *expected}
    for name in corrected:
        correction = found[name].correction
        assert correction
        assert correction.reason == "restatement"
        assert correction.difference == {"clicks": -19, "spend_micros": -499_999}
        assert flat(found[name])["clicks"] == flat(first[name])["clicks"] - 19
        assert found[name].insight_id == first[name].insight_id
        assert found[name].version > first[name].version
    assert {name: found[name] for name in found if name not in corrected} == {
        name: first[name] for name in first if name not in corrected
    }


@examples(100)
@given(histories(), st.lists(st.integers(0, 1), min_size=1, max_size=4), schedules(), st.randoms())
def test_versions_rise_and_whoever_keeps_the_highest_has_what_the_offline_computation_has(
    history: History, placement: list[int], schedule: list[Step], random: Random
) -> None:
    """From preliminary to final to corrected under one id; and a reader may meet the versions in any order."""
    sources = arrange(history, placement)
    pipeline = Pipeline(sources).run(schedule).drain()
    told: dict[str, list[Version]] = defaultdict(list)
    for identity, revision, phase in pipeline.reader.payloads:
        told[identity].append(Version(revision, phase))
    for versions in told.values():
        assert versions == sorted(versions)
        phases = [version.phase for version in versions]
        assert phases == sorted(phases)
        assert phases.count(Phase.FINAL) <= 1
    shuffled = list(pipeline.reader.payloads.values())
    random.shuffle(shuffled)
    kept: dict[str, CrossPlatformInsight] = {}
    for insight in map(insight_codec.decode, shuffled):
        if insight.insight_id not in kept or kept[insight.insight_id].version < insight.version:
            kept[insight.insight_id] = insight
    offline = compute([(*source, records) for source, records in sources.items()], Ingest(partitions=1), CONFIG)
    expected = {each.insight_id: insight_codec.content(each) for each in offline.insights}
    found = {identity: insight_codec.content(each) for identity, each in kept.items() if each.platform_breakdown}
    assert found == expected
