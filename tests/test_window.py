"""Windows: which days and hours belong to which, and how they are named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.window import Window, WindowKey, bounds, days_of, parse_window, touched
from tests.histories import examples

kinds = st.sampled_from(("1h", "24h", "2d", "7d", "28d")).map(parse_window)
days = st.integers(10_957, 40_000)


@pytest.mark.parametrize(("name", "span"), [("1h", 3_600_000), ("24h", 86_400_000), ("7d", 604_800_000)])
def test_a_name_tells_the_length(name: str, span: int) -> None:
    assert parse_window(name) == Window(name, span // 86_400_000)
    assert parse_window(name).span_ms == span


@pytest.mark.parametrize("name", ["", "1d", "0d", "7", "7D", "07d", "367d", "1000d", "2h", "-1d", "7d ", "\u0667d"])
def test_any_other_name_is_refused_with_what_is_known(name: str) -> None:
    with pytest.raises(ValueError, match="is not known: use 1h, 24h, or 2d to"):
        parse_window(name)


@examples(200)
@given(kinds, days, st.integers(-40, 40))
def test_a_rollup_touches_exactly_the_windows_that_its_day_lies_in(window: Window, day: int, step: int) -> None:
    """``touched`` says what a change makes due, ``days_of`` what a window is made of: one must mirror the other."""
    if window.days:
        key = WindowKey(window.name, day + step)
        assert (key in set(touched([window], day, []))) == (day in days_of(window, key.ordinal))
    else:
        hour = day * 24 + step
        assert list(touched([window], day, [hour])) == [WindowKey("1h", hour)]
        # An account's date begins 14 hours before UTC's at the earliest, and ends 12 hours after it at the latest.
        assert (-14 <= step < 36) <= (day in days_of(window, hour))


def test_windows_of_days_are_named_by_dates_and_hours_by_instants() -> None:
    assert bounds(parse_window("24h"), 20_519) == ("2026-03-07", "2026-03-08")
    assert bounds(parse_window("7d"), 20_519) == ("2026-03-01", "2026-03-08")
    assert bounds(parse_window("1h"), 20_519 * 24 + 23) == ("2026-03-07T23:00:00.000Z", "2026-03-08T00:00:00.000Z")
