import doctest

import pytest

import core.learning.promotion
from core.learning.promotion import NOT_YET, PromotionRule, ScoredWindow, Standing, standing

RULE = PromotionRule(windows=10, margin=1.0, calibration=0.05, least_clicks=100.0)
SERVING = Standing(True, "")


def window(saved: float, ratio: float = 1.0, clicks: float = 50.0) -> ScoredWindow:
    return ScoredWindow(1000.0, clicks, default_loss=200.0, model_loss=200.0 - saved, model_clicks=clicks * ratio)


def test_a_clear_lead_is_promoted() -> None:
    found = standing([window(1.0 + at % 2) for at in range(10)], NOT_YET, RULE)
    assert found.promoted
    assert found.gain == pytest.approx(1.5 / 200)


def test_a_lead_within_its_error_keeps_who_serves() -> None:
    windows = [window(10.0 if at % 2 else -9.0) for at in range(10)]
    assert not standing(windows, NOT_YET, RULE).promoted
    assert standing(windows, SERVING, RULE).promoted


def test_a_model_that_falls_behind_is_demoted() -> None:
    assert not standing([window(-0.1)] * 10, SERVING, RULE).promoted


@pytest.mark.parametrize(("ratio", "serves"), [(1.04, True), (1.06, False), (0.96, True), (0.94, False)])
def test_a_model_out_of_calibration_never_serves(ratio: float, serves: bool) -> None:
    assert standing([window(1.0, ratio)] * 10, SERVING, RULE).promoted is serves


def test_only_the_latest_windows_count() -> None:
    assert standing([window(-50.0)] * 10 + [window(1.0)] * 10, NOT_YET, RULE).promoted
    assert not standing([window(50.0)] * 10 + [window(-1.0)] * 10, SERVING, RULE).promoted


def test_too_little_says_nothing() -> None:
    assert standing([window(1.0)] * 9, SERVING, RULE) == NOT_YET
    assert standing([window(1.0, clicks=9.0)] * 10, SERVING, RULE) == NOT_YET


def test_examples() -> None:
    assert doctest.testmod(core.learning.promotion).failed == 0
