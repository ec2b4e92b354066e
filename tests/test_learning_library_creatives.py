"""``CreativeDNA``: planted effects are found, nothing is found where there is none, predictions are calibrated."""

import doctest
from typing import Any

import msgspec
import numpy as np
import pytest

import core.learning.creative_dna
from core import CampaignData, Creative, CreativeDNA, Platform, PlatformMetrics
from core.learning.creative_dna import ATTRIBUTES, PLATFORMS, attributes_of
from core.learning.creative_formula import CreativeFormula
from core.learning.relative_effects import MOST_OBSERVATIONS, Observations, RelativeEffects
from examples.simulated import PLANTED, Simulated, simulate

KNOWN = 160


@pytest.fixture(scope="module")
def world() -> Simulated:
    return simulate(KNOWN + 80, seed=12, creatives=60, campaign_effect=0.25)


@pytest.fixture(scope="module")
def dna(world: Simulated) -> CreativeDNA:
    return CreativeDNA(world.creatives, world.campaigns[:KNOWN])


@pytest.fixture(scope="module")
def learned() -> list[tuple[Simulated, CreativeDNA]]:
    worlds = [simulate(160, seed=seed, creatives=60, campaign_effect=0.25) for seed in range(3, 11)]
    return [(world, CreativeDNA(world.creatives, world.campaigns[:110])) for world in worlds]


def test_planted_hooks_are_found_with_their_sign(dna: CreativeDNA) -> None:
    found = {(pattern.attribute, pattern.label): pattern for pattern in dna.patterns()}
    assert found["hook", "question"].low > 0
    assert found["hook", "statement"].high < 0
    assert dna.patterns()[0].label == "question"
    for pattern in found.values():
        assert pattern.low < pattern.effect < pattern.high
        assert pattern.campaigns >= 3


def test_planted_hooks_are_found_in_almost_every_world(learned: list[tuple[Simulated, CreativeDNA]]) -> None:
    found = [pattern.low > 0 for _, dna in learned for pattern in dna.patterns() if pattern.label == "question"]
    assert np.mean(found) >= 0.8


def test_the_intervals_of_patterns_hold_the_planted_effects(learned: list[tuple[Simulated, CreativeDNA]]) -> None:
    held, sure_of_nothing, nothing = [], 0, 0
    for world, dna in learned:
        for pattern in dna.patterns():
            if pattern.attribute in ("hook", "visual", "pacing", "call_to_action"):
                labels = {getattr(each, pattern.attribute) for each in world.creatives}
                # Only differences between labels can be seen: the planted ones' mean goes into the base.
                effects = {label: np.exp(PLANTED.get((pattern.attribute, label), 0.0)) for label in labels}
                shown = [effects[getattr(each, pattern.attribute)] for each in world.creatives]
                held.append(pattern.low <= effects[pattern.label] / np.mean(shown) - 1 <= pattern.high)
                if pattern.attribute in ("pacing", "call_to_action"):
                    nothing += 1
                    sure_of_nothing += pattern.sure
    assert 0.85 <= np.mean(held) <= 0.99
    assert sure_of_nothing / nothing < 0.10


def test_one_creative_that_was_lucky_once_does_not_make_a_hook(world: Simulated) -> None:
    lucky = Creative(creative_id="lucky", hook="miracle")
    campaign = CampaignData(
        campaign_id="lucky",
        creative_id="lucky",
        platforms={Platform.META: PlatformMetrics(platform=Platform.META, impressions=200, clicks=40)},
    )
    dna = CreativeDNA([*world.creatives, lucky], [*world.campaigns[:KNOWN], campaign])
    assert "miracle" not in {pattern.label for pattern in dna.patterns()}
    miracle = next(pattern for pattern in dna.patterns(min_support=1) if pattern.label == "miracle")
    assert not miracle.sure
    assert miracle.effect < dna.patterns()[0].effect


@pytest.mark.parametrize("measure", ["ctr", "engagement", "roas"])
def test_predictions_of_new_campaigns_cover_the_truth_and_are_calibrated(
    measure: str, learned: list[tuple[Simulated, CreativeDNA]]
) -> None:
    held, ratios = [], []
    for world, dna in learned:
        predicted = actual = 0.0
        for campaign in world.campaigns[110:]:
            found = dna.predict(campaign.creative_id, campaign.account_id)
            for at, platform in enumerate(PLATFORMS):
                truth = world.truth[campaign.campaign_id, platform]
                true = truth.engagement_rate if measure == "engagement" else getattr(truth, measure)
                estimate = found[platform][measure]
                assert 0 <= estimate.low <= estimate.value <= estimate.high
                held.append(estimate.low <= true <= estimate.high)
                base = dna.base(measure)[at]
                predicted, actual = predicted + estimate.value / base, actual + true / base
        ratios.append(predicted / actual)
    assert 0.86 <= np.mean(held) <= 0.97
    # Worlds differ by what 50 campaigns are worth: the mean over them may stray by three of its standard errors.
    assert np.mean(ratios) == pytest.approx(1, abs=max(0.02, min(0.08, 3 * np.std(ratios) / len(ratios) ** 0.5)))


def test_what_the_campaign_has_shown_sharpens_what_is_predicted_of_it(dna: CreativeDNA, world: Simulated) -> None:
    before, after = [], []
    for campaign in world.campaigns[KNOWN:]:
        shown = {Platform.META: campaign.platforms[Platform.META]}
        true = world.truth[campaign.campaign_id, Platform.TIKTOK].ctr
        blind, seeing = (
            dna.predict(campaign.creative_id, campaign.account_id, data)[Platform.TIKTOK]["ctr"] for data in ({}, shown)
        )
        before.append(blind.value - true)
        after.append(seeing.value - true)
        assert seeing.high - seeing.low < (blind.high - blind.low) * 1.5
    assert np.std(after) < 0.9 * np.std(before)


def test_signals_of_a_campaign_do_not_hold_its_own_results(world: Simulated) -> None:
    """The leak test: change a campaign's results, and the signals made without it stay."""
    campaigns = world.campaigns[:60]
    target = campaigns[7]
    changed = {name: msgspec.structs.replace(own, clicks=own.impressions) for name, own in target.platforms.items()}
    poisoned = [*campaigns[:7], msgspec.structs.replace(target, platforms=changed), *campaigns[8:]]
    left = CreativeDNA(world.creatives, campaigns)
    without = left.signals(target.creative_id, without_campaign=target.campaign_id)
    with_own = left.signals(target.creative_id)
    assert without != with_own
    # The same variances, so that only what the effects rest on differs.
    right = CreativeDNA(world.creatives, poisoned)
    for effects, own in zip(right._effects.values(), left._effects.values(), strict=True):
        effects.variances, effects.own, effects.base = own.variances, own.own, own.base
        effects._solve()
    again = right.signals(target.creative_id, without_campaign=target.campaign_id)
    for name in ("creative_dna_score", "hook_strength", "visual_appeal"):
        assert getattr(again, name) == pytest.approx(getattr(without, name), abs=1e-9)


def test_leaving_a_campaign_out_equals_never_having_seen_it(world: Simulated) -> None:
    campaigns = world.campaigns[:50]
    whole, part = CreativeDNA([*world.creatives], campaigns), CreativeDNA(world.creatives, campaigns[1:])
    for effects, own in zip(part._effects.values(), whole._effects.values(), strict=True):
        effects.variances, effects.own, effects.base, effects._scale = own.variances, own.own, own.base, own._scale
        effects._solve()
    for label in ("question", "statement", "story"):
        left = whole._effects["ctr"].effect("hook", label, campaigns[0].campaign_id)
        right = part._effects["ctr"].effect("hook", label)
        assert left.mean == pytest.approx(right.mean, abs=1e-9)


def test_the_parts_add_up_to_the_score(dna: CreativeDNA, world: Simulated) -> None:
    campaign = world.campaigns[-1]
    found = dna.score_creative_cross_platform(campaign.creative_id, campaign.account_id, campaign.platforms)
    assert found.scoring_method == "results_and_dna"
    assert found.overall_score == pytest.approx(sum(part.contribution for part in found.parts))
    assert sum(part.weight for part in found.parts) == pytest.approx(1)
    for part in found.parts:
        assert part.contribution == pytest.approx(part.value * part.weight)
    assert found.parts[0].value == found.cross_platform_insight.composite_score
    assert found.parts[0].weight == found.cross_platform_insight.confidence
    assert found.unified_features.creative_dna_score == found.parts[1].value
    assert set(found.dna) == {*ATTRIBUTES, "creative"}
    assert found.cross_platform_insight.platforms == sorted(campaign.platforms)
    assert list(found.platform_breakdown) == sorted(campaign.platforms)


def test_what_is_predicted_is_no_rescaled_score(dna: CreativeDNA, world: Simulated) -> None:
    """Two creatives of equal score by their results, one of which delivered on another platform: not one CTR."""
    creative = world.creatives[0].creative_id
    meta = PlatformMetrics(platform=Platform.META, impressions=50_000, clicks=875)
    tiktok = PlatformMetrics(platform=Platform.TIKTOK, impressions=50_000, clicks=1_750)
    one, other = (dna.score_creative_cross_platform(creative, "act-1", [own]) for own in (meta, tiktok))
    assert one.cross_platform_insight.composite_score == pytest.approx(other.cross_platform_insight.composite_score)
    assert one.predicted_performance.ctr is not None
    assert other.predicted_performance.ctr is not None
    assert one.predicted_performance.ctr.value == pytest.approx(0.0175, rel=0.05)
    assert other.predicted_performance.ctr.value == pytest.approx(0.035, rel=0.05)


def test_without_results_the_dna_scores_and_without_both_nothing_does(dna: CreativeDNA, world: Simulated) -> None:
    found = dna.score_creative_cross_platform(world.creatives[0].creative_id, "act-1")
    assert found.scoring_method == "creative_dna"
    assert found.overall_score == found.parts[0].value
    unknown = dna.score_creative_cross_platform("never seen", "act-1")
    assert (unknown.overall_score, unknown.scoring_method, unknown.parts) == (None, "none", [])
    assert unknown.predicted_performance.ctr is not None
    results = dna.score_creative_cross_platform("never seen", "", world.campaigns[0].platforms)
    assert results.scoring_method == "results"


def test_from_no_history_nothing_is_predicted() -> None:
    dna = CreativeDNA([Creative(creative_id="c", hook="question")], [])
    found = dna.score_creative_cross_platform("c", "")
    assert found.predicted_performance.ctr is None
    assert found.predicted_performance.roas is None
    assert dna.patterns() == []
    assert dna.signals("c").hook_strength == pytest.approx(0.5)
    assert dna.signals("other").creative_dna_score is None
    assert dna.signals("c").visual_appeal is None


def test_the_formula_has_the_patterns_that_are_sure(dna: CreativeDNA, world: Simulated) -> None:
    found = dna.build_cross_platform_formula("act-1", world.campaigns[:KNOWN], min_roas=2.0)
    assert found.formula_type == "cross_platform"
    assert {pattern.label for pattern in found.patterns} >= {"question", "statement"}
    assert any(told.startswith("use hook question: CTR +") for told in found.recommendations)
    assert msgspec.json.decode(msgspec.json.encode(found), type=CreativeFormula) == found
    assert any(told.startswith("avoid hook statement: CTR -") for told in found.recommendations)


def test_it_does_not_depend_on_the_order_of_campaigns(world: Simulated) -> None:
    left, right = (CreativeDNA(world.creatives, each) for each in (world.campaigns[:40], world.campaigns[:40][::-1]))
    assert left.patterns() == right.patterns()


def test_a_creative_that_comes_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        CreativeDNA([Creative(creative_id="c")] * 2, [])


def test_too_many_observations_are_refused() -> None:
    many = MOST_OBSERVATIONS + 1
    data = Observations(np.ones(many), np.ones(many), np.zeros(many, dtype=np.int64), [], np.ones(many), [])
    with pytest.raises(ValueError, match="at most"):
        RelativeEffects((), 1, data, binomial=True)


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [
        (None, ""),
        (0, "still"),
        (6, "up_to_10s"),
        (10, "up_to_10s"),
        (15, "up_to_20s"),
        (30, "up_to_40s"),
        (90, "over_40s"),
    ],
)
def test_lengths_fall_into_buckets(seconds: Any, bucket: str) -> None:
    assert attributes_of(Creative(creative_id="c", length_seconds=seconds))[-1] == bucket


def test_examples_in_the_docstrings_run() -> None:
    result = doctest.testmod(core.learning.creative_dna)
    assert result.attempted > 0
    assert result.failed == 0
