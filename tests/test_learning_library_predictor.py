"""``CTRPredictor``: no leak, honest baselines, promotion only when earned, models refused with a reason."""

import csv
import hashlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from core import CampaignData, CTRPredictor, ModelRefused, Platform, PlatformMetrics, Profile, compare_training_sets
from core.learning import boosting, ctr_training
from core.learning.ctr_predictor import NotTrained
from core.learning.row_scores import log_loss, score_rows
from core.learning.training_rows import features_without, training_rows
from core.profile import DEFAULT_PROFILE
from examples.simulated import Simulated, simulate

SYNTHETIC = Path(__file__).parents[2] / "shared" / "datasets" / "global_ads_synthetic.csv"
NAMES = {"Google Ads": Platform.GOOGLE_ADS, "Meta Ads": Platform.META, "TikTok Ads": Platform.TIKTOK}
SMALL: dict[str, Any] = {"impressions": 100, "spread": 0.3, "campaign_effect": 0.7}
"""Small deliveries, whose engagements tell more of a campaign than its clicks: there the trees win."""


@pytest.fixture(scope="module")
def world() -> Simulated:
    return simulate(300, seed=7)


@pytest.fixture(scope="module")
def default(world: Simulated) -> CTRPredictor:
    predictor = CTRPredictor()
    predictor.train_with_cross_platform_data(world.campaigns)
    return predictor


@pytest.fixture(scope="module")
def trees() -> CTRPredictor:
    predictor = CTRPredictor()
    assert predictor.train_with_cross_platform_data(simulate(300, seed=7, **SMALL).campaigns).promoted
    return predictor


def shuffled(campaigns: list[CampaignData]) -> list[CampaignData]:
    """Each platform's metrics dealt out anew among the campaigns: bases stay, nothing is shared any more."""
    rng = np.random.default_rng(3)
    decks = {platform: rng.permutation(len(campaigns)) for platform in campaigns[0].platforms}
    return [
        msgspec.structs.replace(
            campaign,
            platforms={platform: campaigns[deck[at]].platforms[platform] for platform, deck in decks.items()},
            creative_id="",
        )
        for at, campaign in enumerate(campaigns)
    ]


def test_the_report_has_all_predictors_on_the_same_rows(world: Simulated) -> None:
    report = CTRPredictor().train_with_cross_platform_data(world.campaigns)
    assert list(report.test_metrics) == ["platform_mean", "other_platforms_mean", "empirical_bayes", "model"]
    assert {scores.rows for scores in report.test_metrics.values()} == {report.test_rows} == {180}
    assert (report.campaigns, report.rows, report.rows_per_campaign, report.split) == (240, 720, 3.0, "campaign")
    losses = {name: scores.log_loss for name, scores in report.test_metrics.items()}
    assert losses["empirical_bayes"] < losses["other_platforms_mean"] < losses["platform_mean"]
    for name in ("empirical_bayes", "model"):
        assert 0.85 <= (report.test_metrics[name].coverage or 0) <= 0.95, name


def test_the_trees_are_promoted_where_they_win_and_win_on_the_test_rows_too() -> None:
    report = CTRPredictor().train_with_cross_platform_data(simulate(300, seed=7, **SMALL).campaigns)
    assert report.promoted, report.why
    assert report.test_metrics["model"].log_loss < report.test_metrics["empirical_bayes"].log_loss
    assert "beat the default" in report.why


@pytest.mark.parametrize("seed", range(4))
def test_with_labels_shuffled_there_is_nothing_to_learn(seed: int) -> None:
    campaigns = shuffled(simulate(240, seed=seed).campaigns)
    report = CTRPredictor().train_with_cross_platform_data(campaigns)
    assert not report.promoted
    losses = {name: scores.log_loss for name, scores in report.test_metrics.items()}
    assert losses["empirical_bayes"] == pytest.approx(losses["platform_mean"], rel=2e-3)
    assert losses["other_platforms_mean"] > losses["platform_mean"]


def synthetic() -> list[CampaignData]:
    """The rows of one campaign type, industry and country as a campaign: a CTR drawn around a platform constant."""
    sums: dict[tuple[str, ...], dict[Platform, list[float]]] = defaultdict(lambda: defaultdict(lambda: [0.0] * 4))
    with SYNTHETIC.open() as file:
        for row in csv.DictReader(file):
            own = sums[row["campaign_type"], row["industry"], row["country"]][NAMES[row["platform"]]]
            for at, name in enumerate(("impressions", "clicks", "ad_spend", "revenue")):
                own[at] += float(row[name])
    return [
        CampaignData(
            campaign_id="/".join(key),
            platforms={
                platform: PlatformMetrics(
                    platform=platform, impressions=int(own[0]), clicks=int(own[1]), spend=own[2], revenue=own[3]
                )
                for platform, own in platforms.items()
            },
        )
        for key, platforms in sums.items()
    ]


@pytest.mark.skipif(not SYNTHETIC.exists(), reason="the shared data sets are not here")
@pytest.mark.parametrize("random_state", [1, 2, 42])
def test_on_the_negative_control_nothing_beats_the_platform_mean(random_state: int) -> None:
    gain = compare_training_sets(synthetic(), random_state=random_state)
    mean = gain.log_loss["platform_mean"]
    assert all(loss >= mean - 1e-5 for loss in gain.log_loss.values()), gain.log_loss
    report = CTRPredictor().train_with_cross_platform_data(synthetic(), random_state=random_state)
    assert not report.promoted


def test_three_platforms_give_three_times_the_samples_and_what_they_give_is_measured() -> None:
    gains = [compare_training_sets(simulate(400, seed=seed).campaigns) for seed in (1, 2, 3)]
    for gain in gains:
        assert gain.times_samples == 3.0
        assert gain.samples_all == 3 * gain.samples[Platform.META] == 840
        assert 0.6 < gain.gain("one_platform") < gain.gain("all_platforms") < 0.9
        assert gain.floor < min(gain.log_loss.values())
    nothing: dict[str, Any] = {"campaign_effect": 0.0, "creative_effect": 0.0, "planted": 0.0}
    for seed in (1, 2, 3):
        gain = compare_training_sets(simulate(400, seed=seed, **nothing).campaigns)
        assert gain.times_samples == 3.0
        assert gain.gain("all_platforms") < 0.05
        assert abs(gain.gain("empirical_bayes")) < 0.05


def test_features_at_prediction_time_are_those_of_training(trees: CTRPredictor) -> None:
    """Whatever the trees were asked in training, prediction asks the same, though it knows the label's platform too."""
    campaigns = simulate(20, seed=9, **SMALL).campaigns
    rows = training_rows(campaigns, trees.normalizer)
    seen: list[Any] = []
    asked = CTRPredictor.predict

    class Spy(CTRPredictor):
        def predict(self, features: Any, default_rate: Any) -> Any:
            seen.append(np.array(features))
            return asked(self, features, default_rate)

    spy = Spy(history=trees.history)
    spy.load(trees.save())
    spy.predict_many(campaigns)
    np.testing.assert_array_equal(seen[0], rows.features)
    alone = features_without(campaigns[0], rows.platforms[0], trees.normalizer).to_array()
    np.testing.assert_array_equal(seen[0][0], alone)


def test_a_prediction_has_what_the_domain_names(default: CTRPredictor, world: Simulated) -> None:
    campaign = world.campaigns[0]
    found = default.predict_cross_platform(campaign.campaign_id, campaign.platforms)
    assert 0 < found.low < found.predicted_ctr < found.high < 1
    assert found.prediction_source == "empirical_bayes"
    assert found.platforms_used == sorted(campaign.platforms)
    assert found.confidence == found.cross_platform_insight.confidence
    assert found.platform_consistency == found.cross_platform_insight.consistency_score
    assert found.unified_features.has_meta_data == 1.0
    assert default.predict_cross_platform("new", {}).prediction_source == "prior"
    assert default.predict_cross_platform("new", {}).platforms_used == []
    shown = default.predict_cross_platform("new", {}, creative_id=campaign.creative_id)
    assert shown.prediction_source == "empirical_bayes"


def test_trees_that_were_promoted_speak_and_say_so(trees: CTRPredictor) -> None:
    campaign = simulate(1, seed=1, **SMALL).campaigns[0]
    found = trees.predict_many([campaign])[0]
    assert found.prediction_source == "model"
    alone = trees.predict_cross_platform("new", {"meta": campaign.platforms[Platform.META]})
    assert alone.platforms[Platform.META].source == "empirical_bayes"
    assert alone.platforms[Platform.TIKTOK].source == "model"


@pytest.mark.parametrize("kind", ["default", "trees"])
def test_predictions_of_a_batch_are_those_of_one(kind: str, request: pytest.FixtureRequest) -> None:
    predictor: CTRPredictor = request.getfixturevalue(kind)
    campaigns = simulate(30, seed=4, **SMALL).campaigns
    batch = predictor.predict_many(campaigns)
    for campaign, found in zip(campaigns, batch, strict=True):
        (alone,) = predictor.predict_many([campaign])
        assert alone.predicted_ctr == pytest.approx(found.predicted_ctr, rel=1e-6)
    assert predictor.predict_many([]) == []


@pytest.mark.parametrize("kind", ["default", "trees"])
def test_predictions_cover_the_truth(kind: str, request: pytest.FixtureRequest) -> None:
    predictor: CTRPredictor = request.getfixturevalue(kind)
    options = SMALL if kind == "trees" else {}
    # The training world's creatives, that is its seed, with other campaigns.
    fresh = simulate(700, seed=7, **options)
    held = []
    for campaign, found in zip(fresh.campaigns[300:], predictor.predict_many(fresh.campaigns[300:]), strict=True):
        for platform, own in found.platforms.items():
            held.append(own.low <= fresh.truth[campaign.campaign_id, platform].ctr <= own.high)
    assert 0.86 <= np.mean(held) <= 0.95


def test_the_cache_answers_the_same_question_of_the_same_model(world: Simulated) -> None:
    predictor = CTRPredictor()
    predictor.train_with_cross_platform_data(world.campaigns)
    data = world.campaigns[0].platforms
    first = predictor.predict_cross_platform("c", data)
    assert predictor.predict_cross_platform("c", data) is first
    assert predictor.predict_cross_platform("c", data, use_cache=False) is not first
    assert predictor.predict_cross_platform("d", data) is not first
    predictor.train_with_cross_platform_data(world.campaigns[:200])
    assert predictor.predict_cross_platform("c", data) is not first


def test_training_does_not_depend_on_the_order_of_campaigns(world: Simulated, default: CTRPredictor) -> None:
    other = CTRPredictor()
    other.train_with_cross_platform_data(world.campaigns[::-1])
    assert other.save() == default.save()


def test_with_ends_the_split_is_by_time_and_the_future_is_hidden(world: Simulated) -> None:
    dated = [msgspec.structs.replace(each, ended_ms=at // 10) for at, each in enumerate(world.campaigns)]
    split = ctr_training.split_campaigns(dated, 0.2, 42)
    assert split.by == "time"
    latest = max(dated[at].ended_ms or 0 for at in split.train)
    assert all((dated[at].ended_ms or 0) > latest for at in split.test)
    predictor = CTRPredictor()
    assert predictor.train_with_cross_platform_data(dated).split == "time"
    assert predictor.artefact.trained_until_ms == latest
    future = [
        each
        if (each.ended_ms or 0) <= latest
        else msgspec.structs.replace(
            each,
            platforms={
                name: msgspec.structs.replace(own, clicks=own.impressions) for name, own in each.platforms.items()
            },
        )
        for each in dated
    ]
    blind = CTRPredictor()
    blind.train_with_cross_platform_data(future)
    assert blind.artefact.borrowing == predictor.artefact.borrowing
    assert blind.artefact.residual == predictor.artefact.residual


@pytest.mark.parametrize(
    ("campaigns", "options", "words"),
    [
        ([], {}, "at least 10 campaigns"),
        (None, {"test_size": 0.0}, "test_size"),
        ([(str(at), {"meta": {"impressions": 100, "clicks": 3}}) for at in range(20)], {}, "no base rate"),
    ],
)
def test_what_cannot_be_trained_is_refused(campaigns: Any, options: Any, words: str, world: Simulated) -> None:
    predictor = CTRPredictor()
    with pytest.raises(ValueError, match=words):
        predictor.train_with_cross_platform_data(world.campaigns if campaigns is None else campaigns, **options)
    with pytest.raises(NotTrained):
        predictor.predict_cross_platform("c", {})


def resealed(data: bytes, change: Any) -> bytes:
    """A model changed and sealed again, as a faulty trainer would."""
    _, header, trees = data.split(b"\n", 2)
    fields = msgspec.json.decode(header)
    trees = change(fields, trees) or trees
    content = msgspec.json.encode(fields) + b"\n" + trees
    checksum = hashlib.sha256(content).hexdigest()
    return f"parallax-model 1 {len(content)} {checksum}\n".encode() + content


def renamed(fields: dict[str, Any], _: bytes) -> None:
    fields["feature_names"] = fields["feature_names"][::-1]


def without_rates(fields: dict[str, Any], _: bytes) -> None:
    fields["details"]["borrowing"]["base_rate"] = [0.0, 0.1, 0.2]


def not_positive(fields: dict[str, Any], _: bytes) -> None:
    fields["details"]["residual"] = -1.0


def garbage(_: dict[str, Any], trees: bytes) -> bytes:
    return b"{not a model}"


def unpromoted(fields: dict[str, Any], _: bytes) -> None:
    fields["promoted"] = False


def poisoned(_: dict[str, Any], trees: bytes) -> bytes:
    """Trees whose leaves are NaN."""
    import xgboost

    booster = xgboost.Booster()
    booster.load_model(bytearray(trees))
    document = msgspec.json.decode(bytes(booster.save_raw("json")))
    for tree in document["learner"]["gradient_booster"]["model"]["trees"]:
        tree["base_weights"] = [float("nan")] * len(tree["base_weights"])
        tree["split_conditions"] = [float("nan")] * len(tree["split_conditions"])
    import json

    booster.load_model(bytearray(json.dumps(document).encode()))
    return bytes(booster.save_raw("ubj"))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: b"", "empty"),
        (lambda data: b"not a model", "not a Parallax model"),
        (lambda data: data.replace(b"parallax-model 1", b"parallax-model 2"), "of version 2"),
        (lambda data: data[:-1], "truncated"),
        (lambda data: data[: len(data) // 2], "truncated"),
        (lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], "checksum"),
        (lambda data: resealed(data, renamed), "other features"),
        (lambda data: resealed(data, without_rates), "base rates"),
        (lambda data: resealed(data, not_positive), "header"),
        (lambda data: resealed(data, garbage), "cannot read"),
        (lambda data: resealed(data, unpromoted), "has trees"),
        (lambda data: resealed(data, poisoned), "not a probability"),
    ],
)
def test_a_bad_model_is_refused_and_the_last_good_one_stays(damage: Any, words: str, trees: CTRPredictor) -> None:
    good = trees.save()
    predictor = CTRPredictor(history=trees.history)
    predictor.load(good)
    before = predictor.model_id
    with pytest.raises(ModelRefused, match=words) as refused:
        predictor.load(damage(good))
    assert refused.value.reason == str(refused.value)
    assert predictor.model_id == before
    assert predictor.predict_cross_platform("c", {}).model_id == before


def test_every_single_lost_byte_of_the_head_is_noticed(default: CTRPredictor) -> None:
    good = default.save()
    for at in range(0, len(good), 7):
        with pytest.raises(ModelRefused):
            CTRPredictor().load(good[:at] + good[at + 1 :])


def test_a_missing_model_is_refused_and_so_is_one_of_another_profile(default: CTRPredictor) -> None:
    with pytest.raises(ModelRefused, match="empty"):
        CTRPredictor().load(None)
    other = Profile("other", DEFAULT_PROFILE.platforms)
    with pytest.raises(ModelRefused, match="profile"):
        CTRPredictor(other).load(default.save())


@pytest.mark.parametrize("kind", ["default", "trees"])
def test_a_model_that_was_saved_predicts_the_same(kind: str, request: pytest.FixtureRequest) -> None:
    predictor: CTRPredictor = request.getfixturevalue(kind)
    again = CTRPredictor(history=predictor.history)
    artefact = again.load(predictor.save())
    campaigns = simulate(20, seed=8).campaigns
    assert again.save() == predictor.save()
    assert again.model_id == predictor.model_id
    assert artefact.test_metrics["empirical_bayes"].rows > 0
    first, second = predictor.predict_many(campaigns), again.predict_many(campaigns)
    assert [each.predicted_ctr for each in first] == [each.predicted_ctr for each in second]


def test_numpy_in_numpy_out(trees: CTRPredictor) -> None:
    rows = training_rows(simulate(20, seed=8, **SMALL).campaigns, trees.normalizer)
    rates = trees.predict(rows.features, np.full(60, 0.02))
    assert rates.shape == (60,)
    assert rates.dtype == np.float64
    assert ((rates > 0) & (rates < 1)).all()
    assert trees.predict(np.zeros((0, 19), dtype=np.float32), []).shape == (0,)
    with pytest.raises(ValueError, match="n, 19"):
        trees.predict(rows.features[:, :5], np.full(60, 0.02))
    with pytest.raises(ValueError, match="between 0 and 1"):
        trees.predict(rows.features, np.zeros(60))


def test_the_scores_are_those_of_their_definitions() -> None:
    clicks, seen, rate = np.array([1.0, 30.0]), np.array([10.0, 1_000.0]), np.array([0.2, 0.025])
    found = score_rows(clicks, seen, rate, np.array([0.05, 0.05]), (rate / 2, rate * 1.1))
    by_hand = -(np.log(0.2) + 9 * np.log(0.8) + 30 * np.log(0.025) + 970 * np.log(0.975)) / 1_010
    assert found.log_loss == pytest.approx(by_hand)
    assert found.mae_50 == pytest.approx(0.005)
    assert found.predicted_over_actual == pytest.approx(27 / 31)
    assert found.coverage == 0.5
    assert score_rows(clicks, seen, clicks / seen, rate).deviance_explained == pytest.approx(1.0)
    assert score_rows(clicks, seen, rate, rate).deviance_explained == 0.0
    assert score_rows(clicks, seen, np.full(2, 31 / 1_010), rate).normalized_entropy == pytest.approx(1.0)
    # Never and always are said to be one in a million, as on the scorecard.
    sure = log_loss(clicks, seen, np.array([0.0, 1.0]))
    assert sure == pytest.approx((1 + 970) * 6 * np.log(10) / 1_010, rel=1e-6)
    with pytest.raises(ValueError, match="no rows"):
        score_rows(*np.zeros((4, 0)))


def test_a_probe_refuses_what_is_no_probability() -> None:
    class Broken:
        def inplace_predict(self, rows: Any, **_: Any) -> Any:
            return np.full(len(rows), np.nan)

    with pytest.raises(ModelRefused, match="probability"):
        boosting.probe(Broken(), 3)
