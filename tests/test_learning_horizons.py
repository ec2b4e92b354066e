"""Forecasts of a week and of an hour are judged when their windows have closed, by what the stream would have said."""

from zlib import crc32

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.ctr_stream import hour_of
from core.learning.horizons import MIDDLE, Hours
from core.learning.measures import measures
from core.learning.online import CtrPredictor, Key, _Saved
from core.learning.scorecard import LEAST_RATE, Scorecard
from core.learning.walk import DEFAULT, PREDICTORS
from schemas.platform import Platform
from schemas.rollup import Rollup
from schemas.scorecard import HORIZONS
from tests.driven import FIRST, Driven, at, rollup, totals
from tests.histories import DAY, HOUR, T0
from tests.planted import Floats
from tests.test_learning_online import BASE, PLATFORMS, trained

NAMES: list[Key] = [("a", "meta"), ("a", "google_ads"), ("b", "meta"), ("c", "google_ads")]
Reports = list[dict[Key, tuple[int, int]]]


def wait(campaign: str) -> int:
    return crc32(campaign.encode()) % 7


def closed(reports: Reports, predictor: CtrPredictor, first: int = 0) -> CtrPredictor:
    for day, told in enumerate(reports, first):
        if told:
            counts = np.array(list(told.values()), dtype=np.float64)
            predictor.close(day, list(told), counts[:, 0], counts[:, 1])
    return predictor


def naive(reports: Reports) -> tuple[float, float, float, int]:
    """Impressions, clicks, the default's loss and rows of the weeks, each forecast made anew by a predictor that has
    seen no more than the days before it.
    """
    sums, rows, free = np.zeros(3), 0, dict.fromkeys(NAMES, -1)
    ended = max((day for day, told in enumerate(reports) if told), default=-1)
    for key in NAMES:
        first = next((day for day, told in enumerate(reports) if key in told), None)
        if first is None:
            continue
        free[key] = first + wait(key[0])
        for day in range(first, len(reports)):
            # It begins behind a day with a row, once the wait and the week before are over.
            if key not in reports[day] or day < free[key]:
                continue
            free[key] = day + 7
            if day + 7 > ended:
                continue
            week = [reports[one].get(key, (0, 0)) for one in range(day + 1, day + 8)]
            seen, clicks = sum(n for n, _ in week), sum(k for _, k in week)
            if not seen:
                continue
            known = closed(reports[: day + 1], CtrPredictor(PLATFORMS, BASE))
            none = np.zeros(1)
            rate = known.forecast([key], none, none, np.full((1, 1), float(seen)), [MIDDLE]).rate[0, 0]
            rate = min(max(float(np.float32(rate)), LEAST_RATE), 1 - LEAST_RATE)
            sums += (seen, clicks, -(clicks * np.log(rate) + (seen - clicks) * np.log1p(-rate)))
            rows += 1
    return float(sums[0]), float(sums[1]), float(sums[2]), rows


reported = st.integers(0, 400).flatmap(lambda seen: st.tuples(st.just(seen), st.integers(0, seen)))
histories = st.lists(st.dictionaries(st.sampled_from(NAMES), reported, max_size=4), min_size=1, max_size=30)


@settings(max_examples=40, deadline=None)
@given(histories)
def test_weeks_are_those_of_a_naive_walk(reports: Reports) -> None:
    card = closed(reports, CtrPredictor(PLATFORMS, BASE)).cards["7d"]
    table = card.segments.get(("all", "all"))
    found = (0.0, 0.0, 0.0, 0)
    if table is not None:
        rows, impressions, clicks, _, loss = table[PREDICTORS.index(DEFAULT), :5].tolist()
        found = impressions, clicks, loss, int(rows)
    assert found == pytest.approx(naive(reports), rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(histories, st.integers(0, 29))
def test_a_restart_on_any_day_changes_nothing(reports: Reports, day: int) -> None:
    whole = closed(reports, CtrPredictor(PLATFORMS, BASE))
    half = closed(reports[:day], CtrPredictor(PLATFORMS, BASE))
    again = CtrPredictor.from_bytes(half.to_bytes(), PLATFORMS, BASE)
    assert closed(reports[day:], again, min(day, len(reports))).to_bytes() == whole.to_bytes()


def test_a_state_from_before_there_were_weeks_goes_on() -> None:
    told: Reports = [{NAMES[0]: (100, 3), NAMES[2]: (50, 1)} for _ in range(20)]
    saved = msgspec.msgpack.decode(closed(told[:5], CtrPredictor(PLATFORMS, BASE)).to_bytes(), type=_Saved)
    old = msgspec.msgpack.encode(msgspec.to_builtins(saved, builtin_types=(bytes,))[:9])
    again = closed(told[5:], CtrPredictor.from_bytes(old, PLATFORMS, BASE), 5)
    assert again.cards["7d"].windows
    assert again.cards["1d"] == closed(told, CtrPredictor(PLATFORMS, BASE)).cards["1d"]


def test_forgotten_series_leave_the_weeks_of_others_alone() -> None:
    told: Reports = [{NAMES[0]: (100, 3), NAMES[2]: (50, 1)} for _ in range(25)]
    alone: Reports = [{NAMES[2]: (50, 1)} for _ in range(25)]
    predictor = closed(told[:10], CtrPredictor(PLATFORMS, BASE))
    predictor.forget({NAMES[0]})
    card = closed(alone[10:], predictor, 10).cards["7d"]
    weeks = [day for day in card.windows if day >= 17]
    assert weeks == [day for day in range(17, 25) if (day - wait("b")) % 7 == 0]


def test_a_week_is_judged_by_the_intervals_of_the_day_on_which_it_began() -> None:
    key = NAMES[0]
    told: Reports = [{key: (400, 4 + 5 * (day % 4))} for day in range(40)]
    ends = wait(key[0]) + 7
    cards = []
    for narrowed in (False, True):
        predictor = closed(told[:ends], CtrPredictor(PLATFORMS, BASE))
        if narrowed:
            # As if its days had taught that nothing but the median is to be inside.
            predictor._walk.intervals.histogram = np.zeros_like(predictor._walk.intervals.histogram)
            predictor._walk.intervals.histogram[:, -1] = 1e9
        cards.append(closed(told[ends : ends + 1], predictor, ends).cards["7d"])
    assert list(cards[0].windows) == [ends]
    assert cards[0] == cards[1]


def test_a_model_is_judged_on_weeks_too() -> None:
    told: Reports = [{key: (300, 9 + at) for at, key in enumerate(NAMES)} for _ in range(30)]
    predictor = closed(told[:10], CtrPredictor(PLATFORMS, BASE))
    predictor.adopt(trained())
    card = closed(told[10:], predictor, 10).cards["7d"]
    losses = {one.predictor: one.log_loss for one in measures(card) if one.axis == "all"}
    assert losses["model"] != losses["default"]
    assert losses["served"] == losses["default"], "it has not earned it"


def simulated(seed: int, campaigns: int = 60, days: int = 70) -> dict[str, Scorecard]:
    """Cards of campaigns whose rates wander from day to day; every hour has its own counts."""
    random = np.random.default_rng(seed)
    keys: list[Key] = [(f"c{at}", platform) for at in range(campaigns) for platform in PLATFORMS]
    base = np.tile(BASE, campaigns) * random.gamma(6.0, 1 / 6.0, campaigns).repeat(len(PLATFORMS))
    volume = np.exp(random.normal(3.0, 1.0, len(keys)))
    strayed = np.zeros(len(keys))
    predictor = CtrPredictor(PLATFORMS, BASE)
    for day in range(days):
        strayed = 0.9 * strayed + random.normal(0, 0.1, len(keys))
        shown = random.poisson(np.tile(volume, (24, 1))).astype(np.float64)
        clicks = random.binomial(shown.astype(np.int64), np.minimum(base * np.exp(strayed), 0.5)).astype(np.float64)
        turn = np.array([(crc32(name.encode()) + day) % 24 for name, _ in keys])
        rows, hour = np.arange(len(keys)), np.arange(24)[:, None]
        before, clicked = (np.where(hour < turn, values, 0.0).sum(axis=0) for values in (shown, clicks))
        hours = Hours(rows, before, clicked, shown[turn, rows], clicks[turn, rows])
        predictor.close(day, keys, shown.sum(axis=0), clicks.sum(axis=0), hours)
    return predictor.cards


def test_on_rates_that_wander_every_horizon_is_calibrated_and_better_than_trivial_forecasts() -> None:
    cards = simulated(1)
    assert cards.keys() == set(HORIZONS)
    for horizon, card in cards.items():
        whole = {one.predictor: one for one in measures(card) if one.axis == "all"}
        default = whole[DEFAULT]
        assert default.rows > 700, horizon
        assert default.coverage_exact == pytest.approx(0.90, abs=0.03), horizon
        assert default.calibration == pytest.approx(1.0, abs=0.03), horizon
        for other in ("platform_mean", "last_value", "cumulative_mean"):
            assert default.log_loss < whole[other].log_loss, (horizon, other)


def hour_report(day: int, start: int, hours: dict[int, tuple[int, int]], **fields: object) -> Rollup:
    told = rollup(1, 1, day=day, start_ms=start, **fields)
    return msgspec.structs.replace(
        told, hours=tuple((hour, totals(clicks, seen)) for hour, (seen, clicks) in sorted(hours.items()))
    )


def test_the_hour_that_is_judged_takes_turns_and_what_was_shown_before_it_is_known() -> None:
    start = T0 // HOUR
    hours = {start + at: (10 + at, at % 3) for at in range(24)}
    met = set()
    for day in range(24):
        one = hour_report(FIRST + day, T0, hours)
        ((platform, (before, before_clicks, seen, clicks)),) = hour_of("c", FIRST + day, [one])
        turn = seen - 10
        met.add(turn)
        assert platform == str(one.platform)
        assert (before, before_clicks) == (sum(10 + at for at in range(turn)), sum(at % 3 for at in range(turn)))
        assert clicks == turn % 3
    assert met == set(range(24))


def test_a_platform_of_which_a_campaign_tells_the_day_alone_has_no_hour() -> None:
    told = hour_report(FIRST, T0, {T0 // HOUR: (5, 1)})
    silent = hour_report(FIRST, T0, {}, platform_campaign_id="other")
    assert list(hour_of("c", FIRST, [told, silent])) == []
    other = hour_report(FIRST, T0, {}, platform=Platform.TIKTOK)
    assert [platform for platform, _ in hour_of("c", FIRST, [told, other])] == [str(told.platform)]


def test_the_stream_scores_hours_and_weeks_and_a_restart_keeps_them() -> None:
    driven = Driven("1h", "24h", "7d")
    for day in range(20):
        start = T0 + day * DAY
        hours = {start // HOUR + at: (40, 1 + at % 2) for at in range(24)}
        driven.tell(hour_report(FIRST + day, start, hours), at(start + DAY))
        driven.take()
    driven.tell(at(T0 + 22 * DAY))
    driven.take()
    card = driven.state.ctr.scorecard()
    assert card is not None
    assert card.others.keys() == {"1h", "7d"}
    hourly = Scorecard.from_bytes(card.others["1h"]).segments["all", "all"][PREDICTORS.index(DEFAULT)]
    assert hourly[0] == 20
    assert hourly[1] == 20 * 40


def test_hours_are_forecast_from_what_the_day_had_shown() -> None:
    """Ten clicks of ten impressions before the hour raise its forecast; none of a thousand lower it."""
    said: list[Floats] = []
    for before in ((10.0, 10.0), (1_000.0, 0.0)):
        predictor = closed([{NAMES[0]: (100, 3)} for _ in range(5)], CtrPredictor(PLATFORMS, BASE))
        one = Hours(np.array([0]), np.array([before[0]]), np.array([before[1]]), np.array([50.0]), np.array([1.0]))
        predictor.close(5, [NAMES[0]], np.array([1_100.0]), np.array([20.0]), one)
        said.append(predictor.cards["1h"].segments["all", "all"][PREDICTORS.index(DEFAULT)][3] / 50)
    assert said[0] > 0.03 > said[1]
