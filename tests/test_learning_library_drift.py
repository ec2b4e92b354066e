"""Drift: a planted change is dated and measured, what moves all platforms is none, false alarms keep to their level."""

import doctest
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import core.learning.drift
from core import Platform, change_points, consistency_trend
from core.learning.drift import STATISTIC, PageCusum

BASE = {Platform.META: 0.012, Platform.TIKTOK: 0.02, Platform.GOOGLE_ADS: 0.03}
DAYS = 60


def daily(seed: int, changes: dict[Platform, list[tuple[int, float]]], restless: float = 0.0) -> dict[Platform, Any]:
    """Counts whose level swings for all platforms alike; a change multiplies a platform's CTR from a day on."""
    rng = np.random.default_rng(seed)
    common = np.exp(rng.normal(0, 0.2, DAYS))
    found = {}
    for platform, base in BASE.items():
        rate = base * common * np.exp(rng.normal(0, restless, DAYS) if restless else np.zeros(DAYS))
        for day, factor in changes.get(platform, []):
            rate[day:] *= factor
        shown = rng.integers(4_000, 9_000, DAYS)
        found[platform] = (rng.binomial(shown, rate), shown)
    return found


def test_a_planted_change_is_found_dated_and_measured() -> None:
    days, held = [], []
    for seed in range(20):
        data = daily(seed, {Platform.TIKTOK: [(35, 0.7)]})
        two = {platform: data[platform] for platform in (Platform.META, Platform.TIKTOK)}
        found = [change for change in change_points(two) if change.platform == Platform.TIKTOK]
        assert found, seed
        days.append(found[0].day)
        held.append(found[0].low <= 0.7 <= found[0].high)
        assert found[0].statistic == STATISTIC
        assert found[0].p_value < 0.025
    assert abs(np.median(days) - 35) <= 1
    assert np.mean(held) >= 0.8


def test_two_changes_are_two() -> None:
    data = daily(3, {Platform.META: [(20, 1.5), (40, 1 / 1.5)]})
    found = [change for change in change_points(data) if change.platform == Platform.META]
    assert [change.ratio for change in found] == pytest.approx([1.5, 1 / 1.5], rel=0.15)
    assert [abs(change.day - day) <= 2 for change, day in zip(found, (20, 40), strict=True)] == [True, True]


@pytest.mark.parametrize("restless", [0.0, 0.15])
def test_what_moves_all_platforms_alike_is_no_change(restless: float) -> None:
    alarms = [bool(change_points(daily(seed, {}, restless))) for seed in range(150)]
    assert np.mean(alarms) <= 0.05


def test_one_platform_alone_and_too_few_days_tell_nothing() -> None:
    data = daily(1, {Platform.META: [(20, 2.0)]})
    assert change_points({Platform.META: data[Platform.META]}) == []
    assert change_points({}) == []
    assert change_points({platform: (clicks[:5], shown[:5]) for platform, (clicks, shown) in data.items()}) == []


def test_days_without_delivery_are_passed_over() -> None:
    data = daily(5, {Platform.TIKTOK: [(35, 0.6)]})
    clicks, shown = (series.copy() for series in data[Platform.META])
    clicks[::4], shown[::4] = 0, 0
    data[Platform.META] = (clicks, shown)
    data[Platform.GOOGLE_ADS] = (np.zeros(DAYS), np.zeros(DAYS))
    found = [change for change in change_points(data) if change.platform == Platform.TIKTOK]
    assert abs(found[0].day - 35) <= 2


@example([(0, 1, 1, 1)] * 3 + [(1, 1, 0, 1)] * 3)
@given(st.lists(st.tuples(*[st.integers(0, 10**6)] * 4), max_size=40))
def test_any_counts_give_an_answer(rows: list[tuple[int, int, int, int]]) -> None:
    table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    data = {Platform.META: (table[:, 0], table[:, 1]), Platform.TIKTOK: (table[:, 2], table[:, 3])}
    for change in change_points(data):
        assert 0 < change.low <= change.ratio <= change.high
        assert 0 <= change.p_value < 0.05
        assert 0 < change.day < len(rows)


def test_what_does_not_match_is_refused() -> None:
    with pytest.raises(ValueError, match="same days"):
        change_points({Platform.META: ([1], [2]), Platform.TIKTOK: ([1, 2], [3, 4])})
    with pytest.raises(ValueError, match="as many"):
        change_points({Platform.META: ([1], [2, 3]), Platform.TIKTOK: ([1], [3])})


def test_a_trend_of_consistency_is_named_and_tested() -> None:
    rng = np.random.default_rng(0)
    falling = consistency_trend((np.linspace(0.95, 0.6, 40) + rng.normal(0, 0.03, 40)).tolist())
    assert falling is not None
    assert (falling.statistic, falling.days) == ("Mann-Kendall tau", 40)
    assert falling.value < -0.5
    assert falling.p_value < 1e-6
    none = [consistency_trend(rng.normal(0.8, 0.05, 30).tolist()) for _ in range(200)]
    assert np.mean([trend is not None and trend.p_value < 0.05 for trend in none]) < 0.09
    assert consistency_trend([0.5, None, None]) is None
    assert consistency_trend([0.5, 0.5, 0.5, 0.5]) is None


def test_pages_cusum_alarms_on_a_shift_and_seldom_without() -> None:
    rng = np.random.default_rng(2)

    def steps(shift: float) -> int:
        state = PageCusum()
        for at in range(5_000):
            state, alarmed = state.after(float(rng.normal(shift, 1)))
            if alarmed:
                return at + 1
        return 5_000

    assert 7 < np.mean([steps(1.0) for _ in range(200)]) < 14
    assert 7 < np.mean([steps(-1.0) for _ in range(200)]) < 14
    assert 300 < np.mean([steps(0.0) for _ in range(100)]) < 700


def test_examples_in_the_docstrings_run() -> None:
    result = doctest.testmod(core.learning.drift)
    assert result.attempted > 0
    assert result.failed == 0
