"""Changed rates and the campaigns of a table: looked at a few at a time, whatever a crash does; rates that expire."""

from collections import defaultdict
from typing import Any

import pytest

from core import stored
from core.campaigns import Campaigns, Emission
from core.rates import RateTable
from schemas.platform import Platform
from schemas.rate import rate_fact
from schemas.rollup import Message, RateFact, Rollup
from tests.driven import FIRST, Driven, at, rollup, without_learning
from tests.histories import DAY, T0
from tests.pipeline import flat, put
from tests.test_insight import part

HORIZON = 10 * DAY
NAMES = ("a", "b", "c", "d", "e")


def rate(text: str, currency: str = "EUR", day: int = FIRST, updated: int = 0) -> RateFact:
    return RateFact(
        currency=currency,
        day=day,
        per="USD",
        nanos=rate_fact("2026-01-01", "EUR", "USD", text, 0).nanos,
        updated_ms=updated,
    )


def money(revision: int, spend: int, currency: str = "EUR", **fields: Any) -> Rollup:
    totals = part(Platform.META, currency=currency, clicks=1, spend_micros=spend).totals
    return rollup(revision, 1, day_totals=totals, **fields)


def driven(*kinds: str, **config: Any) -> Driven:
    return Driven(*(kinds or ("24h",)), rates=RateTable("USD"), **config)


def spend(emission: Emission) -> int:
    return flat(emission.insight).get("reporting_spend_micros:USD", -1)


def told(emissions: list[Emission]) -> list[tuple[str, int]]:
    """Campaign and spend in the reporting currency of what was published."""
    return [(each.insight.campaign_id, spend(each)) for each in emissions]


def converted(run: Driven) -> dict[str, int]:
    """Spend in the reporting currency by campaign, as a reader of all insights has it."""
    return {each.campaign_id: flat(each).get("reporting_spend_micros:USD", -1) for each in run.reader.latest.values()}


def campaigns(run: Driven) -> Driven:
    """Money in each of some campaigns, all of it published and known to be."""
    run.tell(*(money(1, 1_000, campaign_id=name) for name in NAMES))
    for _ in range(3):
        run.tell(at(T0 + 3 * DAY))
        run.drain()
    return run


def test_a_checkpoint_looks_at_a_few_campaigns_and_keeps_none_decoded() -> None:
    run = campaigns(driven(repriced=2, decoded=10))
    run.restart()
    run.tell(rate("2", "GBP"))
    for left in (3, 1, 0):
        assert run.state.pending
        assert run.take().emissions == []
        assert (run.state.waiting, run.state.sizes()["decoded"]) == (left, 0)
    assert not run.state.pending
    run.tell(rate("1.1"))
    assert [told(run.take().emissions) for _ in range(3)] == [
        [("a", 1_100), ("b", 1_100)],
        [("c", 1_100), ("d", 1_100)],
        [("e", 1_100)],
    ]
    assert not run.state.pending


def test_a_rate_that_changes_meanwhile_is_looked_at_next() -> None:
    run = campaigns(driven(repriced=2))
    run.tell(rate("1.1"))
    run.take()
    run.tell(rate("1.2", updated=1))
    run.drain()
    assert converted(run) == dict.fromkeys(NAMES, 1_200)


@pytest.mark.parametrize("checkpoints", range(4))
def test_a_restart_amid_it_looks_at_all_again(checkpoints: int) -> None:
    run = campaigns(driven(repriced=2))
    run.tell(rate("1.1"))
    for _ in range(checkpoints):
        run.take()
    run.restart()
    run.again()
    run.drain()
    assert converted(run) == dict.fromkeys(NAMES, 1_100)


def test_redis_is_told_again_of_what_was_on_its_way_and_is_as_it_was() -> None:
    run = campaigns(driven(repriced=1))
    run.tell(rate("1.1", "JPY"), rate("1.1"))
    run.drain()
    run.tell(rate("1.2", updated=1))
    newest = {each.insight.campaign_id: spend(each) for part, _ in run.state.hot() for each in part}
    assert newest == {}, "all have moved on"
    run.tell(rate("1.1", updated=2))
    hot = []
    while run.state.pending:
        hot += run.take().hot
    assert {each.insight.campaign_id: spend(each) for each in hot} == dict.fromkeys(NAMES, 1_100)


def keys(run: Driven) -> list[tuple[str, int]]:
    """Currencies and days of the rates in the table."""
    parsed = [stored.parse_key(key) for key in run.table]
    return sorted((currency, day) for kind, currency, _, day in parsed if kind == stored.RATE)


def frozen_at(day: int) -> int:
    return (day + 2) * DAY + HORIZON + DAY


def test_rates_that_no_window_can_take_leave_and_are_not_taken_again() -> None:
    run = driven("24h", "7d", horizon_ms=HORIZON)
    run.tell(at(T0), *(rate("1.1", day=day) for day in (FIRST - 14, FIRST - 13, FIRST)), money(1, 1_000))
    run.drain()
    assert keys(run) == [("EUR", FIRST - 14), ("EUR", FIRST - 13), ("EUR", FIRST)]
    run.tell(at(frozen_at(FIRST - 1)))
    run.drain()
    run.tell(at(frozen_at(FIRST - 1)))
    taken = run.take()
    deletes = [write.key for write in taken.writes if write.value is None]
    assert stored.rate_key("EUR", FIRST - 14) in deletes
    assert taken.writes[-len(deletes) - 1].key == stored.MARK_KEY
    assert keys(run) == [("EUR", FIRST - 13), ("EUR", FIRST)]
    run.tell(rate("9", day=FIRST - 14, updated=1))
    assert stored.rate_key("EUR", FIRST - 14) not in {write.key for write in run.take().writes}
    assert keys(run) == [("EUR", FIRST - 13), ("EUR", FIRST)]
    run.restart()
    run.tell(money(2, 2_000))
    assert {spend(each) for each in run.drain()} == {2_200}


def test_a_delete_that_a_crash_prevented_is_made_up_for() -> None:
    run = driven(horizon_ms=HORIZON)
    run.tell(at(T0), rate("1.1"), money(1, 1_000))
    run.drain()
    run.tell(at(frozen_at(FIRST + 7)))
    run.drain()
    run.now += 10
    run.tell(at(frozen_at(FIRST + 7)))
    taken = run.state.take(run.now, preliminary=True)
    put(run.table, [write for write in taken.writes if write.value is not None])
    assert keys(run) == [("EUR", FIRST)]
    run.restart()
    run.tell(at(frozen_at(FIRST + 7)))
    run.drain()
    assert (keys(run), len(without_learning(run.table))) == ([], 1)


# The pounds of "a" are on another platform: without their rate, its insight differs by those alone.
STORY: tuple[tuple[Message, ...], ...] = (
    (
        rate("1.1"),
        money(1, 1_000, campaign_id="a"),
        money(1, 1_000, "GBP", campaign_id="a", platform=Platform.TIKTOK),
        money(1, 1_000, "GBP", campaign_id="b"),
        money(1, 1_000, campaign_id="c"),
    ),
    # The order of the writes is not that of the log: the euro is written first, as of its last change.
    (rate("1.2", updated=1), rate("2", "GBP"), rate("1.3", updated=2)),
    (money(2, 3_000, campaign_id="a"), at(T0 + 3 * DAY)),
    (rate("1.4", updated=3), money(2, 2_000, "GBP", campaign_id="b"), rate("3", "GBP", updated=3)),
    (rate("1.3", updated=4), rate("1.4", updated=5), at(T0 + 3 * DAY + 1)),
)
END = {"a": 7_200, "b": 6_000, "c": 1_400}


def carry_out(death: int, survive: int, second: int | None = None, *, slow: bool = False) -> int:
    """The story with a crash after some writes and sends of a checkpoint, and perhaps of the one after it; how many
    there were. What was read before is read again at once, or ``slow``: record by record, and published each time.

    The reader finds two contents under one version, a version that falls, a second final, and one that it missed.
    """
    run = driven("24h", "7d")
    size = 0
    for number, messages in enumerate(STORY):
        run.tell(*messages)
        dies = survive if number == death else second if number == death + 1 else None
        if dies is None:
            run.take()
            continue
        taken = run.die(dies)
        size = size or len(taken.writes) + len(taken.emissions)
        for offset, payload in enumerate(run.log):
            run.state.apply(offset, payload)
            if slow and run.state.pending:
                run.take()
    run.drain()
    daily = defaultdict(set)
    for insight in run.reader.latest.values():
        daily[insight.campaign_id].add(flat(insight)["reporting_spend_micros:USD"])
    assert daily == {name: {amount} for name, amount in END.items()}
    restored = Campaigns.restore(run.table, run.config)
    assert {each.campaign_id: flat(each)["reporting_spend_micros:USD"] for each in restored.insights()} == END
    return size


def test_a_crash_after_any_write_or_send_loses_no_rate_and_gives_no_version_two_contents() -> None:
    for death in range(len(STORY)):
        size = carry_out(death, 0)
        for survive in range(size + 1):
            carry_out(death, survive, slow=True)
            for second in range(12):
                carry_out(death, survive, second)
