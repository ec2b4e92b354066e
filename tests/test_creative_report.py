"""Scores of live creatives: parts that add up, results that count once, and what is missing said in words."""

from collections import Counter

import msgspec
import pytest

from core import DEFAULT_PROFILE, CampaignData, Creative, CreativeDNA, Platform, PlatformMetrics
from core.learning import creative_report
from core.learning.creative_report import CreativeReport, report
from core.learning.creative_results import CreativeResults
from examples.simulated import Simulated, simulate
from schemas import creative_score
from schemas.creative import PlatformAd
from schemas.creative_score import (
    CreativeScored,
    Delivered,
    Estimated,
    LabelEffect,
    Learned,
    Part,
    Predicted,
)

GOLDEN = (
    b'{"version":1,"creative_id":"cr-1","account_id":"acme","score":0.5,"method":"results_and_dna","why":"",'
    b'"parts":[{"name":"results","value":0.5,"weight":1.0,"contribution":0.5}],'
    b'"effects":[{"attribute":"hook","label":"question","effect":0.2,"low":0.05,"high":0.35}],'
    b'"confidence":1.0,"campaigns":2,"elsewhere":9,"delivered":{"meta":{"impressions":1000,"clicks":20,'
    b'"conversions":1.5,"engagements":null,"spend":9.5,"revenue":null,"currency":"USD","composite":0.5,'
    b'"confidence":0.6}},"predicted":{"ctr":{"value":0.02,"low":0.01,"high":0.03},"engagement":null,"roas":null},'
    b'"predicted_by_platform":{"meta":{"ctr":{"value":0.02,"low":0.01,"high":0.03},"engagement":null,"roas":null}},'
    b'"unknown":{"roas":"no revenue"},"learned":{"creatives":3,"campaigns":9,"ads":12,"first_day":"2026-01-01",'
    b'"last_day":"2026-01-31","as_of":"2026-02-01T00:00:00.000Z","profile":"default-1"}}'
)
CTR = Predicted(ctr=Estimated(value=0.02, low=0.01, high=0.03))
SCORED = CreativeScored(
    creative_id="cr-1",
    account_id="acme",
    score=0.5,
    method="results_and_dna",
    why="",
    parts=[Part(name="results", value=0.5, weight=1.0, contribution=0.5)],
    effects=[LabelEffect(attribute="hook", label="question", effect=0.2, low=0.05, high=0.35)],
    confidence=1.0,
    campaigns=2,
    elsewhere=9,
    delivered={
        "meta": Delivered(
            impressions=1000,
            clicks=20,
            conversions=1.5,
            engagements=None,
            spend=9.5,
            revenue=None,
            currency="USD",
            composite=0.5,
            confidence=0.6,
        )
    },
    predicted=CTR,
    predicted_by_platform={"meta": CTR},
    unknown={"roas": "no revenue"},
    learned=Learned(
        creatives=3,
        campaigns=9,
        ads=12,
        first_day="2026-01-01",
        last_day="2026-01-31",
        as_of="2026-02-01T00:00:00.000Z",
        profile="default-1",
    ),
)


def test_golden_bytes() -> None:
    assert creative_score.encode(SCORED) == GOLDEN
    assert creative_score.decode(GOLDEN) == SCORED
    assert creative_score.key("cr-1") == b"cr-1"


@pytest.mark.parametrize("payload", [b"", b"{}", b"\xff", GOLDEN.replace(b'"version":1', b'"version":2'), b"[" * 9999])
def test_what_is_no_score_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError, match="not a creative's score"):
        creative_score.decode(payload)


def results(campaigns: list[CampaignData]) -> CreativeResults:
    """As ``creative_results`` gives them."""
    whole: dict[str, dict[Platform, PlatformMetrics]] = {}
    shown = sorted(campaigns, key=lambda one: (one.creative_id, one.campaign_id))
    for campaign in shown:
        held = whole.setdefault(campaign.creative_id, {})
        for platform, metrics in campaign.platforms.items():
            held[platform] = joined(held[platform], metrics) if platform in held else metrics
    return CreativeResults(shown=shown, whole=whole, first_day=20454, last_day=20456, as_of_ms=0, ads=1, unknown_ads=0)


def joined(one: PlatformMetrics, other: PlatformMetrics) -> PlatformMetrics:
    names = ("impressions", "clicks", "spend", "conversions", "revenue", "engagements")
    sums = {
        name: (getattr(one, name) or 0) + (getattr(other, name) or 0)
        for name in names
        if getattr(one, name) is not None or getattr(other, name) is not None
    }
    return msgspec.structs.replace(one, **sums)


@pytest.fixture(scope="module")
def world() -> Simulated:
    return simulate(80, seed=4, creatives=20, campaign_effect=0.25)


@pytest.fixture(scope="module")
def found(world: Simulated) -> CreativeReport:
    return report(world.creatives, results(world.campaigns), DEFAULT_PROFILE)


def by_id(found: CreativeReport) -> dict[str, CreativeScored]:
    return {score.creative_id: score for score in found.scores}


def test_every_creative_is_scored_and_the_parts_add_up(world: Simulated, found: CreativeReport) -> None:
    assert [score.creative_id for score in found.scores] == sorted(each.creative_id for each in world.creatives)
    shown = {campaign.creative_id for campaign in world.campaigns}
    for score in found.scores:
        assert score.score is not None
        assert score.score == pytest.approx(sum(part.contribution for part in score.parts), abs=1e-5)
        assert sum(part.weight for part in score.parts) == pytest.approx(1, abs=1e-5)
        for part in score.parts:
            assert part.contribution == pytest.approx(part.value * part.weight, abs=1e-5)
        assert score.method == ("results_and_dna" if score.creative_id in shown else "creative_dna")
        own = {campaign.campaign_id for campaign in world.campaigns if campaign.creative_id == score.creative_id}
        assert score.campaigns == len(own)
        for each in (score.predicted.ctr, score.predicted.engagement, score.predicted.roas):
            assert each is not None
            assert 0 < each.low < each.value < each.high
        assert (score.why, score.unknown) == ("", {})


def test_the_planted_hooks_are_found(found: CreativeReport) -> None:
    hooks = {one.label: one for one in found.patterns["ctr"] if one.attribute == "hook"}
    assert hooks["question"].low > 0
    assert hooks["question"].campaigns >= 3
    assert not any(one.sure for one in found.patterns["ctr"] if one.attribute in ("call_to_action", "format"))


def test_a_creatives_own_results_are_not_in_its_dna_part(world: Simulated, found: CreativeReport) -> None:
    """Raise what a creative's ads were clicked: its results rise, and so does what is predicted; its DNA does not."""
    chosen = world.campaigns[0].creative_id

    def clicked(campaign: CampaignData) -> CampaignData:
        platforms = {
            platform: msgspec.structs.replace(metrics, clicks=(metrics.impressions or 0) // 12)
            for platform, metrics in campaign.platforms.items()
        }
        return msgspec.structs.replace(campaign, platforms=platforms)

    campaigns = [clicked(each) if each.creative_id == chosen else each for each in world.campaigns]
    other = by_id(report(world.creatives, results(campaigns), DEFAULT_PROFILE))[chosen]
    before = by_id(found)[chosen]
    told = {part.name: part.value for part in before.parts}
    now = {part.name: part.value for part in other.parts}
    assert now["results"] > told["results"] + 0.05
    # The base rises with it, so that what others showed is less of it.
    assert told["creative_dna"] - 0.1 < now["creative_dna"] < told["creative_dna"] + 0.01
    assert other.predicted.ctr is not None
    assert before.predicted.ctr is not None
    assert other.predicted.ctr.value > before.predicted.ctr.value
    leaking = [CreativeDNA(world.creatives, each).signals(chosen) for each in (world.campaigns, campaigns)]
    assert (leaking[1].creative_dna_score or 0) > (leaking[0].creative_dna_score or 1) + 0.1


def test_without_its_own_is_without_its_campaign_where_it_had_but_one() -> None:
    world = simulate(30, seed=4, creatives=20)
    dna = CreativeDNA(world.creatives, world.campaigns)
    shown = Counter(campaign.creative_id for campaign in world.campaigns)
    single = [campaign for campaign in world.campaigns if shown[campaign.creative_id] == 1]
    assert single
    for campaign in single:
        own = dna.signals(campaign.creative_id, without_own=True)
        assert own == dna.signals(campaign.creative_id, campaign.campaign_id)
        assert own != dna.signals(campaign.creative_id)


def test_the_same_content_in_any_order_gives_the_same_bytes(world: Simulated, found: CreativeReport) -> None:
    again = report(world.creatives[::-1], results(world.campaigns[::-1]), DEFAULT_PROFILE)
    assert list(map(creative_score.encode, again.scores)) == list(map(creative_score.encode, found.scores))
    assert again.patterns == found.patterns


def test_one_alone_is_scored_as_among_all(world: Simulated, found: CreativeReport) -> None:
    told: list[tuple[int, int]] = []
    alone = report(
        world.creatives,
        results(world.campaigns),
        DEFAULT_PROFILE,
        "cr-007",
        lambda done, total: told.append((done, total)),
    )
    assert alone.scores == [by_id(found)["cr-007"]]
    assert told == [(1, 1)]


ADS = (PlatformAd(Platform.META, "1", ""),)


@pytest.mark.parametrize(
    ("creative", "why"),
    [
        (Creative(creative_id="new", hook="unseen"), "it names no ad; no other creative has shown one of its labels"),
        (Creative(creative_id="new", ads=ADS), "none of its 1 ads has reported; no other creative"),
        (
            Creative(creative_id="new", ads=(PlatformAd(Platform.META, "", "v"),)),
            "its ads are named by platform_creative_id alone",
        ),
    ],
)
def test_without_evidence_the_score_is_null_and_says_why(world: Simulated, creative: Creative, why: str) -> None:
    score = report([*world.creatives, creative], results(world.campaigns), DEFAULT_PROFILE, "new").scores[0]
    assert (score.score, score.method, score.parts, score.predicted) == (None, "none", [], Predicted())
    assert why in score.why
    assert set(score.unknown) == {"ctr", "engagement", "roas"}


def test_labels_alone_are_evidence_where_others_have_shown_them(world: Simulated) -> None:
    new = [Creative(creative_id=hook, hook=hook, ads=ADS) for hook in ("question", "story")]
    found = by_id(report([*world.creatives, *new], results(world.campaigns), DEFAULT_PROFILE))
    good, poor = found["question"].score, found["story"].score
    assert good is not None
    assert poor is not None
    assert good > poor
    assert found["question"].predicted_by_platform.keys() == {"meta"}, "it runs on no other platform"


def test_too_few_campaigns_are_no_evidence_and_results_still_count(world: Simulated) -> None:
    few = world.campaigns[:4]
    found = report(world.creatives, results(few), DEFAULT_PROFILE)
    assert "4 campaigns have shown a known creative, at least 5 are needed" in found.why
    assert found.patterns == {}
    scores = by_id(found)
    shown = scores[few[0].creative_id]
    assert (shown.method, shown.why, shown.predicted) == ("results", "", Predicted())
    assert found.why == shown.unknown["ctr"]
    absent = next(score for score in found.scores if not score.campaigns)
    assert absent.score is None
    assert found.why in absent.why


def test_nothing_at_all_is_no_error() -> None:
    found = report([], results([]), DEFAULT_PROFILE)
    assert (found.scores, found.patterns) == ([], {})


def test_a_measure_that_nobody_reported_is_said_to_be_unknown(world: Simulated) -> None:
    def bare(campaign: CampaignData) -> CampaignData:
        platforms = {
            platform: PlatformMetrics(platform=platform, impressions=one.impressions, clicks=one.clicks, spend=1.0)
            for platform, one in campaign.platforms.items()
        }
        return msgspec.structs.replace(campaign, platforms=platforms)

    found = report(world.creatives, results(list(map(bare, world.campaigns))), DEFAULT_PROFILE)
    for score in found.scores:
        assert score.predicted.ctr is not None
        assert score.unknown == {
            "engagement": "no creative has reported impressions and engagements where it runs",
            "roas": "no creative has reported spend and revenue in USD where it runs",
        }


def test_only_so_many_results_are_learned_from_the_most_delivered_ones(
    world: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creative_report, "MOST_ROWS", 60)
    found = report(world.creatives, results(world.campaigns), DEFAULT_PROFILE)
    assert (found.left_out, found.learned.campaigns) == (60, 20)
    assert all(score.score is not None for score in found.scores)
