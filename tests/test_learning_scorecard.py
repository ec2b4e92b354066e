from math import inf

import numpy as np
import pytest
from scipy.stats import binom

from core.learning.measures import compare, curve, measures, verdict
from core.learning.scorecard import AGES, VOLUMES, Scorecard, Scored

NAMES = ("default", "platform_mean")


class Rows:
    """Random rows of one window."""

    def __init__(self, window: int, n: int = 60) -> None:
        random = np.random.default_rng(window)
        self.window = window
        self.impressions = random.integers(0, 400, n).astype(np.float64)
        self.truth = random.uniform(0.005, 0.2, n)
        self.clicks = random.binomial(self.impressions.astype(np.int64), self.truth).astype(np.float64)
        self.platforms = [("meta", "tiktok")[at % 2] for at in range(n)]
        self.ages = random.integers(0, 60, n).astype(np.float64)
        self.covered = random.integers(0, 2, n).astype(np.float64)

    def add_to(self, card: Scorecard) -> Scorecard:
        flat = np.full(self.truth.size, 0.08)
        scored = {"default": Scored(self.truth, self.covered, self.covered / 2), "platform_mean": Scored(flat)}
        card.add(self.window, self.impressions, self.clicks, scored, self.platforms, self.ages)
        return card


def card_of(*windows: int) -> Scorecard:
    card = Scorecard(NAMES)
    for window in windows:
        Rows(window).add_to(card)
    return card


def close(left: Scorecard, right: Scorecard) -> bool:
    return (
        left.segments.keys() == right.segments.keys()
        and left.windows.keys() == right.windows.keys()
        and all(np.allclose(left.segments[key], right.segments[key], rtol=1e-12) for key in left.segments)
        and all(np.allclose(left.windows[key], right.windows[key], rtol=1e-12) for key in left.windows)
        and np.allclose(left.curve, right.curve, rtol=1e-12)
    )


def test_merging_is_adding_the_rows() -> None:
    assert close(card_of(1, 2).merged(card_of(3)), card_of(1, 2, 3))
    assert close(card_of(1).merged(card_of(1)), card_of(1, 1)), "the same window on two workers"


def test_merging_commutes_associates_and_has_an_identity() -> None:
    a, b, c = card_of(1), card_of(2), card_of(3, 4)
    assert a.merged(b) == b.merged(a)
    assert close(a.merged(b).merged(c), a.merged(b.merged(c)))
    assert a.merged(Scorecard(NAMES)) == a
    assert a != b


def test_cards_of_other_predictors_do_not_merge() -> None:
    with pytest.raises(ValueError, match="cannot merge"):
        card_of(1).merged(Scorecard(("default",)))


def test_measures_equal_their_definitions_row_by_row() -> None:
    rows = Rows(5)
    found = {(one.predictor, one.axis, one.segment): one for one in measures(card_of(5))}
    loss = deviance = null = saturated = error = 0.0
    n = k = expected = big = inside = shown = 0.0
    for impressions, clicks, rate, covered in zip(rows.impressions, rows.clicks, rows.truth, rows.covered, strict=True):
        if impressions == 0:
            continue
        own = clicks / impressions
        loss -= clicks * np.log(rate) + (impressions - clicks) * np.log(1 - rate)
        null -= clicks * np.log(0.08) + (impressions - clicks) * np.log(0.92)
        if clicks:
            saturated -= clicks * np.log(own)
        if clicks < impressions:
            saturated -= (impressions - clicks) * np.log(1 - own)
        n, k, expected, shown = n + impressions, k + clicks, expected + impressions * rate, shown + 1
        inside += covered
        if impressions >= 50:
            error, big = error + abs(own - rate), big + 1
    deviance = 1 - (loss - saturated) / (null - saturated)
    entropy = -(k / n * np.log(k / n) + (1 - k / n) * np.log(1 - k / n))
    whole = found["default", "all", "all"]
    assert whole.rows == shown
    assert whole.log_loss == pytest.approx(loss / n)
    assert whole.normalized_entropy == pytest.approx(loss / n / entropy)
    assert whole.calibration == pytest.approx(expected / k)
    assert whole.mae == pytest.approx(error / big)
    assert whole.deviance_explained == pytest.approx(deviance)
    assert whole.coverage == pytest.approx(inside / shown)
    assert whole.coverage_exact == pytest.approx(inside / shown / 2)
    assert found["platform_mean", "all", "all"].coverage is None
    assert found["platform_mean", "all", "all"].deviance_explained == pytest.approx(0)


@pytest.mark.parametrize("axis", ["platform", "volume", "age"])
def test_segments_partition_the_rows(axis: str) -> None:
    found = measures(card_of(1, 2, 3))
    whole = next(one for one in found if one.axis == "all" and one.predictor == "default")
    parts = [one for one in found if one.axis == axis and one.predictor == "default"]
    assert len(parts) > 1
    assert sum(one.rows for one in parts) == whole.rows
    assert sum(one.impressions for one in parts) == whole.impressions


def test_the_curve_of_a_true_predictor_lies_on_the_diagonal() -> None:
    points = curve(card_of(*range(80)), "default")
    assert len(points) > 5
    assert sum(point.impressions for point in points) == sum(Rows(window).impressions.sum() for window in range(80))
    for point in points:
        chance = (point.predicted * (1 - point.predicted) / point.impressions) ** 0.5
        assert abs(point.observed - point.predicted) < 4 * chance


def test_skill_is_significant_and_luck_is_not() -> None:
    skilled, _ = compare(card_of(*range(40)), [("default", "platform_mean"), ("platform_mean", "default")])
    assert skilled.beats
    assert skilled.low < skilled.gain < skilled.high
    same, _ = compare(card_of(*range(40)), [("default", "default"), ("default", "default")])
    assert not same.beats


def test_a_lead_in_one_window_alone_is_not_significant() -> None:
    card = Scorecard(NAMES)
    for window in range(30):
        card.windows[window] = np.array([1000.0, 100.0 - (30 if window == 4 else -0.5), 100.0])
    found = compare(card, [("default", "platform_mean")])[0]
    assert found.gain > 0
    assert not found.beats


@pytest.mark.parametrize("windows", [14, 28, 92])
def test_what_is_no_better_seldom_seems_so_and_the_interval_holds_the_truth(windows: int) -> None:
    """Errors of successive windows hang together (correlation .5); of 400 cards no more than luck explains."""
    random, runs, level = np.random.default_rng(windows), 400, 0.07
    beats = missed = 0
    for _ in range(runs):
        noise = np.zeros(windows)
        for at, new in enumerate(random.standard_normal(windows)):
            noise[at] = 0.5 * noise[at - 1] + new
        card = Scorecard(NAMES)
        for window, one in enumerate(noise.tolist()):
            card.windows[window] = np.array([1000.0, 500.0 + one, 500.0])
        (found,) = compare(card, [("default", "platform_mean")])
        beats += found.beats
        missed += not found.low <= 0 <= found.high
    # A block of 7 windows does not hold all of what hangs together: 7 of 100 instead of 5.
    assert beats <= binom.ppf(0.999, runs, level)
    assert missed <= binom.ppf(0.999, runs, level)


def test_too_few_windows_say_nothing() -> None:
    card = Scorecard(("default", "model", "platform_mean"))
    for window in range(13):
        card.windows[window] = np.array([1000.0, 50.0 + window % 2, 60.0, 100.0])
    found, lines = verdict(card, "default", "model", ("platform_mean",))
    assert lines == ["too few windows to tell what is better: 13, of at least 14"]
    assert not any(one.beats for one in found)
    assert {(one.low, one.high, one.p) for one in found} == {(-inf, inf, 1.0)}
    card.windows[13] = np.array([1000.0, 50.0, 60.0, 100.0])
    assert verdict(card, "default", "model", ("platform_mean",))[0][0].beats


def test_segments_stand_in_order_of_their_size() -> None:
    found = [one.segment for one in measures(card_of(*range(40))) if one.predictor == "default"]
    for names in (VOLUMES, AGES):
        assert [one for one in found if one in names] == [one for one in names if one in found]


def test_the_verdict_names_the_test_and_says_when_nothing_wins() -> None:
    card = Scorecard(("default", "model", "platform_mean"))
    random = np.random.default_rng(0)
    for window in range(60):
        card.windows[window] = np.concatenate(([1000.0], 100 + random.standard_normal(3) + [0.2, 0.2, 0.0]))
    _, lines = verdict(card, "default", "model", ("platform_mean",))
    assert lines[0].startswith("nothing beats the platform mean")
    assert "t-test" in lines[0]
    assert verdict(Scorecard(("default", "model")), "default", "model", ())[1] == ["no window was scored"]
