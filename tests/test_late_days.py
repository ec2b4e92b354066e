"""What comes late for days that were learned: an account that is onboarded with its history, and an outage."""

import functools
from collections.abc import Sequence
from random import Random

import msgspec
import numpy as np
import pytest

from core import stored
from core.learning.online import CtrPredictor, Forecast, Key, Rows
from core.learning.scorecard import bernoulli_losses
from schemas.rollup import Rollup
from tests.driven import FIRST, Driven, Table, at, rollup, totals, withdrawn
from tests.histories import DAY
from tests.planted import Floats, Planted
from tests.test_ctr_stream import closes, history, learned

DAYS, LIVE_FROM, NEXT = 60, 30, 14
TRUTH = Planted(seed=11, windows=DAYS + NEXT, series=24, volume=900.0, spread=0.6, wander=0.03, base={"meta": 0.02})
NEW = list(range(0, 24, 3))
LIVE = [number for number in range(24) if number not in NEW]


def key(number: int) -> Key:
    return f"c{number}", "meta"


def row(day: int, number: int) -> Rollup:
    """What a campaign's only platform campaign reports of a day."""
    told = rollup(1, 1, campaign_id=key(number)[0], platform_campaign_id=f"p{number}", day=FIRST + day)
    counts = totals(int(TRUTH.clicks[day, number]), int(TRUTH.impressions[day, number]))
    return msgspec.structs.replace(told, day_totals=counts)


def tell_day(driven: Driven, day: int, numbers: Sequence[int]) -> None:
    driven.tell(*(row(day, number) for number in numbers), at(closes(day)))
    driven.take()


@functools.cache
def of_live() -> tuple[Table, list[bytes]]:
    """A partition that has learned the live campaigns, after its last checkpoint, and its log."""
    driven = Driven("24h")
    for day in range(LIVE_FROM, DAYS):
        tell_day(driven, day, LIVE)
    learned(driven)
    return driven.table, driven.log


def live() -> Driven:
    driven = Driven("24h")
    table, log = of_live()
    driven.table, driven.log = dict(table), list(log)
    driven.restart()
    return driven


@functools.cache
def on_time() -> Driven:
    driven = Driven("24h")
    for day in range(DAYS):
        tell_day(driven, day, NEW if day < LIVE_FROM else [*LIVE, *NEW])
    return driven


def said(predictor: CtrPredictor, numbers: Sequence[int] = NEW) -> Forecast:
    none = np.zeros(len(numbers))
    return predictor.forecast([key(number) for number in numbers], none, none, np.zeros((none.size, 3)))


def distance(one: Floats, other: Floats) -> float:
    return float(np.abs(np.log(one / other)).mean())


def loss_to_come(driven: Driven) -> float:
    """The log loss per impression of the new campaigns' next days, each predicted from those before it."""
    losses = 0.0
    for day in range(DAYS, DAYS + NEXT):
        rate = said(driven.state.ctr.predictor).rate[:, 1]
        losses += float(bernoulli_losses(rate, TRUTH.impressions[day, NEW], TRUTH.clicks[day, NEW]).sum())
        tell_day(driven, day, [*LIVE, *NEW])
    return losses / float(TRUTH.impressions[DAYS:, NEW].sum())


def test_an_account_that_is_onboarded_with_its_history_is_predicted_by_it() -> None:
    """Scenario: a partition has learned others' days for a month; a new account's 60 days come in a few minutes.

    Expectation: within the hour it is predicted as if its days had been there on time, and so are the days after.
    """
    expected, before, late = said(on_time().state.ctr.predictor), live(), live()
    late.tell(*(row(day, number) for number in NEW for day in range(DAYS)), at(closes(DAYS - 1) + 1))
    late.take()
    found, unlearned = (said(driven.state.ctr.predictor) for driven in (late, before))
    assert set(unlearned.source) == {"prior"}
    assert set(found.source) == {"empirical_bayes"}
    assert distance(found.rate, expected.rate) < 0.02 * distance(unlearned.rate, expected.rate)
    np.testing.assert_allclose(found.high - found.low, expected.high - expected.low, rtol=0.15)
    losses = [loss_to_come(driven) for driven in (late, before)]
    rate = TRUTH.rate[DAYS:, NEW]
    weight = TRUTH.impressions[DAYS:, NEW]
    least = float(bernoulli_losses(rate.ravel(), weight.ravel(), TRUTH.clicks[DAYS:, NEW].ravel()).sum() / weight.sum())
    assert losses[0] - least < 0.5 * (losses[1] - least), (losses, least)


@pytest.mark.parametrize("order", ["random", "oldest_first", "newest_first", "by_campaign"])
@pytest.mark.parametrize("restarts", [False, True])
def test_in_whatever_order_and_parts_it_comes(order: str, restarts: bool) -> None:
    expected, late = said(on_time().state.ctr.predictor), live()
    rows = [row(day, number) for number in NEW for day in range(DAYS)]
    random = Random(5)
    if order == "random":
        random.shuffle(rows)
    elif order != "by_campaign":
        rows.sort(key=lambda told: told.day, reverse=order == "newest_first")
    cuts = {46, *random.sample(range(len(rows)), 5)}
    for place, told in enumerate(rows):
        late.tell(told)
        if place in cuts:
            late.take()
            late.tell(at(closes(DAYS - 1) + 1 + place))
            if restarts:
                late.restart()
                late.again()
    late.tell(at(closes(DAYS - 1) + len(rows) + 1))
    late.take()
    found = said(late.state.ctr.predictor)
    assert set(found.source) == {"empirical_bayes"}
    assert np.all((expected.low <= found.rate) & (found.rate <= expected.high))
    prior = said(live().state.ctr.predictor)
    assert distance(found.rate, expected.rate) < 0.02 * distance(prior.rate, expected.rate)


def test_days_of_an_outage_are_learned_when_they_come() -> None:
    """Scenario: one campaign's rate rises, and its next days come late, while others report on time."""

    def played(late: bool, at_all: bool = True) -> Driven:
        driven = live()
        for day in (DAYS, DAYS + 1, DAYS + 2):
            silent = (at_all and not late) or day == DAYS + 2
            driven.tell(*(row(day, number) for number in LIVE[1:]))
            driven.tell(*([risen(day)] if silent else []), at(closes(day)))
            driven.take()
        if late:
            driven.tell(risen(DAYS), risen(DAYS + 1), at(closes(DAYS + 2) + 1))
            driven.take()
        return driven

    def risen(day: int) -> Rollup:
        return msgspec.structs.replace(row(day, LIVE[0]), day_totals=totals(300, 3_000))

    expected, late, never = (
        said(driven.state.ctr.predictor, LIVE).rate
        for driven in (played(late=False), played(late=True), played(late=False, at_all=False))
    )
    assert distance(late[:1], expected[:1]) < 0.3 * distance(never[:1], expected[:1])
    assert distance(late[1:], expected[1:]) < 0.02


def test_only_counts_of_the_series_that_came_late_change() -> None:
    """The platform was not taught, nothing was scored, and no other series knows of it."""
    before, late = live(), live()
    late.tell(row(DAYS - 3, NEW[0]), at(closes(DAYS - 1) + 1))
    late.take()
    old, new = (driven.state.ctr.predictor for driven in (before, late))
    assert new.last_day == old.last_day
    assert new.fitted() == old.fitted()
    assert new.scorecard.to_bytes() == old.scorecard.to_bytes()
    one, other = said(old, LIVE), said(new, LIVE)
    np.testing.assert_array_equal(one.rate, other.rate)
    np.testing.assert_array_equal(one.low, other.low)
    np.testing.assert_array_equal(said(new, NEW[1:2]).rate, said(old, NEW[1:2]).rate)


def test_a_day_that_was_learned_is_not_learned_again() -> None:
    """Restatements, refused revisions, what is withdrawn before it is learned, and unknown platforms change nothing."""
    driven = live()
    before = driven.state.ctr.predictor.to_bytes()
    stale = row(DAYS - 1, LIVE[0])
    gone = {"campaign_id": "gone", "day": FIRST + DAYS - 2}
    driven.tell(stale, msgspec.structs.replace(stale, revision=2, day_totals=totals(50, 90)))
    driven.tell(rollup(1, 5, **gone), withdrawn(2, **gone), at(closes(DAYS - 1) + 1))
    assert learned(driven)[1] == before


def test_late_counts_of_another_platform_campaign_are_added_alone() -> None:
    driven, whole = Driven("24h"), Driven("24h")
    for each in (driven, whole):
        each.tell(rollup(1, 5), rollup(1, 4, campaign_id="autumn"), at(closes(0)))
        each.take()
    driven.tell(rollup(1, 7, platform_campaign_id="2"), at(closes(0) + 1))
    learned(driven)
    expected = whole.state.ctr.predictor
    day, keys = np.array([FIRST]), [("spring", "meta")]
    late = Rows(day, keys, np.array([700.0]), np.array([7.0]))
    expected.absorb(late, Rows(day, keys, np.array([1_200.0]), np.array([12.0])))
    assert driven.state.ctr.predictor.to_bytes() == expected.to_bytes()


def test_what_is_late_for_a_partition_that_has_learned_nothing_is_learned_as_on_time() -> None:
    """Scenario: the first rollups of a partition come when its watermark is at the present."""
    late, prompt = Driven("24h"), Driven("24h")
    days = [rollup(1, 3 + day % 4, day=FIRST + day) for day in range(9)]
    late.tell(at(closes(20)), *reversed(days), at(closes(20) + 1))
    for day, told in enumerate(days):
        prompt.tell(told, at(closes(day)))
    assert learned(late)[1] == learned(prompt)[1]
    assert late.state.ctr.captured == FIRST + 20


@pytest.mark.parametrize("every", [1, 2, 7])
def test_what_has_left_the_table_is_not_filtered_along(every: int) -> None:
    """Scenario: rollups leave the state after some days, at a checkpoint, and a series is filtered along the rest."""
    whole, cut = (Driven("24h", horizon_ms=2 * DAY) for _ in range(2))
    told = [*history(14), rollup(5, 8, campaign_id="1", platform_campaign_id="y", day=FIRST + 11), at(closes(13))]
    whole.tell(*told)
    for place, message in enumerate(told):
        cut.tell(message)
        if place % every == 0:
            cut.take()
    assert learned(cut) == learned(whole)


def test_a_table_from_before_late_days_were_kept_restores() -> None:
    driven = live()
    before = driven.state.ctr.predictor.to_bytes()
    for held in [held for held in driven.table if stored.parse_key(held)[:2] == (stored.CTR, "late")]:
        del driven.table[held]
    generation, payload = stored.from_slots(driven.table, "state") or (0, b"")
    state = msgspec.msgpack.decode(payload)
    assert len(state) == 4
    driven.table |= dict(stored.in_slots("state", generation + 1, msgspec.msgpack.encode(state[:3])))
    driven.restart()
    assert driven.state.ctr.predictor.to_bytes() == before
    driven.tell(row(DAYS - 1, NEW[0]), at(closes(DAYS - 1) + 1))
    driven.take()
    driven.restart()
    assert said(driven.state.ctr.predictor, NEW[:1]).source == ["empirical_bayes"]


def test_a_day_that_is_not_closed_is_not_late() -> None:
    driven = live()
    predictor = driven.state.ctr.predictor
    rows = Rows(np.array([FIRST + DAYS]), [key(0)], np.ones(1), np.zeros(1))
    with pytest.raises(ValueError, match="not closed"):
        predictor.absorb(rows, rows)
