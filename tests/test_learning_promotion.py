import doctest
from collections.abc import Callable, Sequence
from functools import cache

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, ttest_1samp

import core.learning.promotion
from core.learning.promotion import (
    BETS,
    DEFAULT_RULE,
    NOT_YET,
    PromotionRule,
    ScoredWindow,
    Standing,
    judged_once,
    staked,
    standing,
    succeeding,
    surely,
)

LOSS = 10_000.0
"""The default's in each window, beside which what the model saves is small."""
SURE = 0.001
"""The probability at which a test that draws may fail by luck."""


def window(saved: float, ratio: float = 1.0, impressions: float = 20_000.0, clicks: float = 1_000.0) -> ScoredWindow:
    return ScoredWindow(impressions, clicks, LOSS, model_loss=LOSS - saved, model_clicks=clicks * ratio)


def walk(windows: Sequence[ScoredWindow], rule: PromotionRule = DEFAULT_RULE, among: int = 1) -> list[Standing]:
    """The standing after each window."""
    found = [NOT_YET]
    for at in range(len(windows)):
        found.append(standing(windows[max(0, at + 1 - rule.windows) : at + 1], found[-1], rule, among))
    return found[1:]


def promoted_at(standings: Sequence[Standing]) -> float:
    """How many windows it took; infinity where they did not do."""
    return next((at for at, one in enumerate(standings, 1) if one.promoted), float("inf"))


SHAPES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda random, count: random.standard_normal(count),
    "heavy tails": lambda random, count: random.standard_t(3, count) / 3**0.5,
    "rare losses": lambda random, count: 1 - random.exponential(size=count),
}
"""How windows stray from their mean: by 1 in the mean square."""


def drawn(seed: int, lead: float, count: int, shape: str = "normal") -> list[ScoredWindow]:
    """Windows in which the model saves ``lead`` deviations in the mean; volumes differ, and losses with them."""
    random = np.random.default_rng(seed)
    volume = np.exp(0.4 * random.standard_normal(count))
    saved = volume**0.75 * (lead + SHAPES[shape](random, count))
    ratio = 1 + 0.02 * random.standard_normal(count)
    return [window(*row) for row in zip(saved.tolist(), ratio.tolist(), (20_000 * volume).tolist(), strict=True)]


# What chance does


@pytest.mark.parametrize("shape", SHAPES)
def test_a_model_that_is_no_better_is_promoted_as_rarely_as_the_level_says(shape: str) -> None:
    """Daily looks for four months: of 150 runs no more than a share of 5 % explains."""
    runs = 150
    lucky = sum(promoted_at(walk(drawn(seed, 0.0, 120, shape))) <= 120 for seed in range(runs))
    assert lucky <= binom.ppf(1 - SURE, runs, DEFAULT_RULE.level)


def test_a_lead_by_standard_errors_would_come_by_luck() -> None:
    """What the bets are for: a test for a single look, looked at daily, finds what is not there."""
    runs = 60
    lucky = 0
    for seed in range(runs):
        windows = drawn(seed, 0.0, 150)
        lucky += any(judged_once(windows[:end]).promoted for end in range(28, 150))
    assert lucky > binom.ppf(1 - SURE, runs, DEFAULT_RULE.level)


@given(
    capital=st.tuples(*(st.floats(1e-6, 10) for _ in BETS)),
    past=st.lists(st.tuples(st.integers(-50, 50), st.floats(1, 1e6)), min_size=2, max_size=28),
    impressions=st.floats(1, 1e6),
    gain=st.floats(0.01, 40),
    odds=st.floats(0.05, 0.95),
)
def test_where_nothing_is_saved_in_the_mean_no_gain_of_capital_is_expected(
    capital: tuple[float, ...], past: list[tuple[int, float]], impressions: float, gain: float, odds: float
) -> None:
    """A gain with some probability and otherwise the loss that outweighs it, within what a window may lose."""
    before = [window(saved, impressions=shown) for saved, shown in past]
    loss = gain * odds / (1 - odds)

    def after(saved: float) -> float:
        return sum(staked(capital, before, window(saved, impressions=impressions), goal=20.0))

    # A bet that is ruined loses no more than it was worth, whatever the window lost.
    deviation = core.learning.promotion._scale(before, impressions)
    if loss * max(BETS) > deviation:
        loss, gain = deviation / max(BETS), deviation / max(BETS) * (1 - odds) / odds
    assert odds * after(gain) + (1 - odds) * after(-loss) <= sum(capital) * (1 + 1e-9) + 1e-9


@given(
    saved=st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=60),
    better=st.floats(0, 1e3),
)
def test_capital_stays_within_its_goal_and_more_saved_is_never_worth_less(saved: list[float], better: float) -> None:
    windows = [window(one) for one in saved]
    capital: tuple[float, ...] = ()
    for at in range(1, len(windows)):
        capital = staked(capital, windows[max(0, at - 28) : at], windows[at], goal=20.0)
        assert 0 < sum(capital) <= 20.0 * (1 + 1e-12)
    more = staked(capital, windows[-28:], window(saved[-1] + better), goal=20.0)
    assert sum(more) >= sum(staked(capital, windows[-28:], windows[-1], goal=20.0)) * (1 - 1e-9)


# What a better model does


@pytest.mark.parametrize(("lead", "within"), [(0.7, 75), (1.0, 50), (2.0, 30)])
def test_a_planted_lead_is_found_within_weeks(lead: float, within: int) -> None:
    """Four of five runs, as one platform among three; and it then serves."""
    runs = 40
    found = [walk(drawn(seed, lead, 140), among=3) for seed in range(runs)]
    assert sum(promoted_at(one) <= within for one in found) >= 0.8 * runs
    after = [one.promoted for each in found for one in each[within:]]
    assert np.mean(after) > 0.9


def test_a_model_that_turned_good_is_not_held_back_for_long() -> None:
    windows = drawn(1, -1.0, 150) + drawn(2, 1.0, 90)
    found = walk(windows)
    assert not any(one.promoted for one in found[:150])
    assert promoted_at(found[150:]) <= 75


def test_a_lead_among_more_platforms_takes_more() -> None:
    windows = drawn(3, 0.7, 140)
    assert promoted_at(walk(windows)) < promoted_at(walk(windows, among=10))


# Models one after another


def succession(windows: Sequence[ScoredWindow], every: int, among: int = 1) -> list[Standing]:
    """The standing after each window, where every so many another model takes over."""
    found, first = [NOT_YET], 0
    for at in range(len(windows)):
        before = found[-1]
        if at and at % every == 0:
            first, before = at, succeeding(before, DEFAULT_RULE, among)
        found.append(standing(windows[max(first, at + 1 - DEFAULT_RULE.windows) : at + 1], before, among=among))
    return found[1:]


@given(capital=st.tuples(*(st.floats(1e-3, 20) for _ in BETS)), among=st.integers(1, 4))
def test_a_successor_takes_over_at_most_half_of_what_promotion_takes(capital: tuple[float, ...], among: int) -> None:
    proven = Standing(promoted=True, reason="it leads", capital=capital)
    found = succeeding(proven, DEFAULT_RULE, among)
    goal = among / DEFAULT_RULE.level
    assert not found.promoted
    assert sum(found.capital) == pytest.approx(min(sum(capital), goal / 2))
    assert [one / sum(found.capital) for one in found.capital] == pytest.approx([one / sum(capital) for one in capital])
    assert succeeding(NOT_YET, DEFAULT_RULE, among) == NOT_YET


def test_of_models_that_are_no_better_none_is_promoted_more_often_than_the_level_says() -> None:
    runs = 120
    lucky = sum(promoted_at(succession(drawn(seed, 0.0, 180), 30)) <= 180 for seed in range(runs))
    assert lucky <= binom.ppf(1 - SURE, runs, DEFAULT_RULE.level)


def test_models_that_are_trained_anew_every_month_serve_sooner_than_the_first_one() -> None:
    """Where each keeps the lead of the one before; and none serves on the day that it comes."""
    served = []
    for seed in range(20):
        found = succession(drawn(seed, 1.0, 180), 30, among=3)
        assert not any(found[at].promoted for at in range(0, 180, 30))
        served.append([sum(one.promoted for one in found[at : at + 30]) for at in range(0, 180, 30)])
    first, *later = np.mean(served, axis=0)
    assert first < 5
    assert min(later[1:]) > 10


# What serves no longer


@cache
def serving(seed: int) -> tuple[list[ScoredWindow], Standing]:
    windows = drawn(seed, 1.0, 100)
    *_, last = walk(windows, among=3)
    assert last.promoted
    return windows, last


@pytest.mark.parametrize(("lead", "within"), [(-0.5, 28), (-1.0, 18), (-3.0, 6), (-10.0, 1)])
def test_a_model_that_went_bad_is_demoted_within_days(lead: float, within: int) -> None:
    late = 0
    for seed in range(20):
        windows, _ = serving(seed)
        found = walk(windows + drawn(seed + 1000, lead, within), among=3)[100:]
        late += all(one.promoted for one in found)
    assert late <= 2


def test_a_model_out_of_calibration_is_demoted_within_days_though_it_saves() -> None:
    for seed in range(10):
        windows, before = serving(seed)
        over = [msgspec.structs.replace(one, model_clicks=one.model_clicks * 1.15) for one in drawn(seed, 1.0, 5)]
        for at in range(5):
            before = standing((windows + over[: at + 1])[-28:], before, among=3)
        assert not before.promoted
        assert before.reason == "the model's predicted over actual is out of bounds"
        assert before.gain > 0


@pytest.mark.parametrize(("ratio", "serves"), [(1.04, True), (1.06, False), (0.96, True), (0.94, False)])
def test_a_model_out_of_calibration_never_serves(ratio: float, serves: bool) -> None:
    windows = [msgspec.structs.replace(one, model_clicks=one.clicks * ratio) for one in drawn(4, 1.0, 100)]
    assert any(one.promoted for one in walk(windows)) is serves


def test_a_demoted_model_must_be_sure_again() -> None:
    windows, _ = serving(5)
    bad = walk(windows + drawn(6, -3.0, 8))
    assert not bad[-1].promoted
    good = walk(windows + drawn(6, -3.0, 8) + drawn(7, 1.0, 60))[108:]
    assert 7 < promoted_at(good) < 60


def test_a_model_that_is_behind_lately_does_not_serve_whatever_it_has_made() -> None:
    rich = Standing(True, "", capital=(1.0, 10.0, 9.0))
    found = standing([window(-0.2 + 0.1 * (at % 2)) for at in range(28)], rich)
    assert (found.promoted, found.reason) == (False, "the default has the lower log loss")


# What is kept


def test_a_standing_goes_on_from_its_bytes() -> None:
    windows = drawn(8, 0.7, 120)
    whole = walk(windows)
    found = NOT_YET
    for at in range(len(windows)):
        found = msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=Standing)
        found = standing(windows[max(0, at - 27) : at + 1], found)
        assert found == whole[at]


def test_a_standing_without_capital_starts_anew() -> None:
    """As it was saved before there were bets: whoever served has to earn it."""
    old = msgspec.msgpack.decode(
        msgspec.msgpack.encode({"promoted": True, "reason": "r", "gain": 0.1, "calibration": 1.0}), type=Standing
    )
    windows = drawn(9, 1.0, 28)
    found = standing(windows, old)
    assert not found.promoted
    assert sum(found.capital) == pytest.approx(1, abs=0.7)


def test_too_little_says_nothing() -> None:
    assert walk([window(1.0)] * 7)[-1] == NOT_YET
    few = [window(1.0 + at % 2, clicks=2.0) for at in range(60)]
    assert {one.reason for one in walk(few)} == {NOT_YET.reason}
    assert not any(one.promoted for one in walk(few))


def test_windows_in_which_both_say_the_same_change_nothing() -> None:
    assert sum(standing([window(0.0)] * 28).capital) == pytest.approx(1)


# A single look


def test_a_single_look_is_students_test() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        saved = random.standard_normal(random.integers(2, 40)) + 0.5
        p = float(ttest_1samp(saved, 0, alternative="greater").pvalue)
        assert surely(saved.tolist(), 0.05) is (p <= 0.05)
    assert not surely([5.0], 0.05)
    assert not surely([0.0, 0.0], 0.05)


def test_judged_once_takes_all_windows_a_sure_lead_and_calibration() -> None:
    good = [window(1.0 + at % 3) for at in range(28)]
    assert judged_once(good).promoted
    assert judged_once(good).gain == pytest.approx(np.mean([1.0 + at % 3 for at in range(28)]) / LOSS)
    assert judged_once(good[1:]) == NOT_YET
    unsure = [window(10.0 if at % 2 else -9.0) for at in range(28)]
    assert judged_once(unsure).reason == "the model's lead is within its error"
    assert not judged_once([window(1.0 + at % 3, 1.06) for at in range(28)]).promoted
    close = [window(3.0 if at % 5 < 3 else -3.0) for at in range(28)]
    assert judged_once(close, PromotionRule(level=0.2)).promoted
    assert not judged_once(close, PromotionRule(level=0.2), among=4).promoted


def test_examples() -> None:
    assert doctest.testmod(core.learning.promotion).failed == 0
