"""Windows: which days and hours belong to which, and how they are named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.insight import Part, build
from core.profile import DEFAULT_PROFILE
from core.window import Window, WindowKey, bounds, days_of, parse_window, touched
from schemas.calendar import end_of_day, iso_instant, start_of_day
from schemas.insight import Version
from tests.driven import Driven, at, rollup, seen
from tests.histories import HOUR, examples

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


DST = [
    ("America/Los_Angeles", 20_520, 23, "2026-03-08T08:00:00.000Z"),
    ("America/Los_Angeles", 20_758, 25, "2026-11-01T07:00:00.000Z"),
    ("Europe/Berlin", 20_541, 23, "2026-03-28T23:00:00.000Z"),
    ("Europe/Berlin", 20_751, 25, "2026-10-24T22:00:00.000Z"),
    ("Asia/Kolkata", 20_520, 24, "2026-03-07T18:30:00.000Z"),
]


@pytest.mark.parametrize(("zone", "day", "hours", "start"), DST)
def test_a_day_that_a_clock_change_makes_shorter_or_longer_ends_when_it_ends(
    zone: str, day: int, hours: int, start: str
) -> None:
    """Its window is final one lateness (an hour) after that, not after 24 hours."""
    begin = start_of_day(day, zone)
    assert iso_instant(begin) == start
    assert end_of_day(day, zone) == begin + hours * HOUR
    driven = Driven("24h")
    driven.tell(rollup(1, 5, day=day, zone=zone, start_ms=begin, covered_ms=begin + hours * HOUR))
    driven.drain()
    driven.tell(at(begin + hours * HOUR + HOUR - 1))
    assert driven.drain() == []
    driven.tell(at(begin + hours * HOUR + HOUR))
    assert seen(driven.drain()) == [("spring", "final", 5)]


@pytest.mark.parametrize(("zone", "day", "hours", "start"), DST)
def test_coverage_is_of_the_hours_that_the_day_has(zone: str, day: int, hours: int, start: str) -> None:
    begin = start_of_day(day, zone)
    for reported in (0, 6, hours - 1, hours, hours + 1):
        told = rollup(1, 5, day=day, zone=zone, start_ms=begin, covered_ms=begin + reported * HOUR)
        assert told.day_totals
        window = parse_window("24h")
        insight = build("c", window, day, [Part(told, told.day_totals)], DEFAULT_PROFILE, start, Version(1, 0))
        assert insight.coverage["meta"] == pytest.approx(min(reported, hours) / hours)
