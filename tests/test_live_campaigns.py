"""Live campaigns are a function of the insights, however they come: order, repetition and windows that lose all."""

import json
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.learning.live_campaigns import KEPT, LiveCampaigns
from schemas import insight as insight_codec
from schemas.calendar import iso_date
from schemas.insight import CrossPlatformInsight, Version
from schemas.platform import Platform
from tests.histories import examples
from tests.test_insight import golden

DAY = 86_400_000
META, TIKTOK = Platform.META, Platform.TIKTOK
GOLDEN_DUMP = (
    "940194a35553440aa2376407cd4e2081a1639194cd4e200702c41e9199a46d657461cd03e807ce0016e3601fa3555344ce00bc614ec091a131"
)


def insight(
    campaign: str = "c", end: int = 20_000, revision: int = 1, phase: int = 0, window: str = "7d", **accounts: list[str]
) -> CrossPlatformInsight:
    """By platform its accounts; clicks tell the version. No platform: an insight that has lost all content."""
    one = golden()
    part = one.platform_breakdown["meta"]
    totals = msgspec.structs.replace(part.totals, clicks=revision)
    return msgspec.structs.replace(
        one,
        campaign_id=campaign,
        window=window,
        window_end=iso_date(end),
        version=Version(revision, phase),
        platform_breakdown={
            name: msgspec.structs.replace(part, totals=totals, accounts=own) for name, own in accounts.items()
        },
    )


def told(*insights: CrossPlatformInsight, keep_days: int = 100) -> LiveCampaigns:
    live = LiveCampaigns(keep_days=keep_days)
    for one in insights:
        live.take(one)
    return live


def whole(live: LiveCampaigns) -> dict[str, Any]:
    return {account: live.of(account) for account in ("all", *live.accounts())}


@st.composite
def histories(draw: st.DrawFn) -> list[CrossPlatformInsight]:
    found: dict[tuple[str, int, int], CrossPlatformInsight] = {}
    for _ in range(draw(st.integers(1, 20))):
        key = draw(st.tuples(st.sampled_from("abc"), st.integers(1, 16), st.integers(1, 4)))
        parts = draw(
            st.dictionaries(
                st.sampled_from(("meta", "tiktok")), st.lists(st.sampled_from("12"), max_size=2), max_size=2
            )
        )
        found[key] = insight(*key, **cast("Any", {name: sorted(set(own)) for name, own in parts.items()}))
    return list(found.values())


@examples(100)
@given(histories(), st.integers(1, 20), st.randoms(use_true_random=False))
def test_any_order_and_any_repetition_give_the_same_campaigns(
    history: list[CrossPlatformInsight], keep_days: int, random: Any
) -> None:
    once = told(*history, keep_days=keep_days)
    repeated = [*history, *(random.choice(history) for _ in history)]
    random.shuffle(repeated)
    other = LiveCampaigns(keep_days=keep_days)
    for one in repeated:
        other.take(one)
        if random.random() < 0.3:
            other.changed()
    assert whole(once) == whole(other)
    assert len(once) == len(other) == len(once.of())


@examples(100)
@given(histories(), st.integers(1, 20))
def test_a_campaign_is_what_its_newest_window_with_content_says(
    history: list[CrossPlatformInsight], keep_days: int
) -> None:
    newest: dict[tuple[str, str], CrossPlatformInsight] = {}
    for one in history:
        key = (one.campaign_id, one.window_end)
        if key not in newest or newest[key].version < one.version:
            newest[key] = one
    last = max(newest[key].window_end for key in newest)
    expected = {}
    for campaign in "abc":
        ends = sorted((end for name, end in newest if name == campaign), reverse=True)[:KEPT]
        ends = [end for end in ends if iso_days(end) > iso_days(last) - keep_days]
        standing = [newest[campaign, end] for end in ends if newest[campaign, end].platform_breakdown]
        if standing:
            expected[campaign] = standing[0]
    live = told(*history, keep_days=keep_days)
    found = {one.campaign_id: one for one in live.of()}
    assert found.keys() == expected.keys()
    for campaign, one in expected.items():
        assert found[campaign].ended_ms == iso_days(one.window_end) * DAY
        assert {str(name): part.clicks for name, part in found[campaign].platforms.items()} == {
            name: part.totals.clicks for name, part in one.platform_breakdown.items()
        }
    accounts = {
        f"{name}:{account}"
        for one in expected.values()
        for name, part in one.platform_breakdown.items()
        for account in part.accounts
    }
    assert live.accounts() == sorted(accounts)


@examples(100)
@given(histories(), st.integers(1, 20), st.data())
def test_what_was_dumped_goes_on_as_if_nothing_had_been(
    history: list[CrossPlatformInsight], keep_days: int, data: Any
) -> None:
    """Some insights come again after the dump, for a reader may go on from an older place than the dump's."""
    cut = data.draw(st.integers(0, len(history)))
    again = data.draw(st.integers(0, cut))
    before = told(*history[:cut], keep_days=keep_days)
    live = LiveCampaigns(keep_days=keep_days)
    live.restore(before.dump())
    assert whole(live) == whole(before)
    assert live.changed() == (["all", *live.accounts()] if len(live) else [])
    for one in history[again:]:
        live.take(one)
    expected = told(*history, keep_days=keep_days)
    assert whole(live) == whole(expected)


def test_a_dump_of_other_settings_or_of_nothing_known_is_refused() -> None:
    dump = told(insight(meta=["1"]), keep_days=10).dump()
    for other in (LiveCampaigns("EUR", 10), LiveCampaigns(keep_days=11), LiveCampaigns(keep_days=10, window="28d")):
        with pytest.raises(ValueError, match="is not known here"):
            other.restore(dump)
        assert len(other) == 0
    for unsound in (b"", dump[:-1], dump + b"\x00", b"\x90"):
        with pytest.raises(ValueError, match="not a dump"):
            LiveCampaigns(keep_days=10).restore(unsound)


def test_a_dump_has_these_bytes() -> None:
    dump = told(insight("c", 20_000, 7, 2, meta=["1"]), keep_days=10).dump()
    assert dump.hex() == GOLDEN_DUMP
    live = LiveCampaigns(keep_days=10)
    live.restore(bytes.fromhex(GOLDEN_DUMP))
    [one] = live.of("meta:1")
    assert (one.campaign_id, one.ended_ms, one.platforms[META].clicks) == ("c", 20_000 * DAY, 7)
    live.take(insight("old", 19_990, meta=["2"]))
    assert live.accounts() == ["meta:1"]


def iso_days(date: str) -> int:
    from datetime import date as calendar

    return calendar.fromisoformat(date).toordinal() - calendar(1970, 1, 1).toordinal()


def test_an_account_has_the_whole_campaigns_that_it_takes_part_in() -> None:
    live = told(insight("a", meta=["1", "2"], tiktok=["1"]), insight("b", meta=["2"]), insight("c", meta=[]))
    assert live.accounts() == ["meta:1", "meta:2", "tiktok:1"]
    assert [one.campaign_id for one in live.of("meta:2")] == ["a", "b"]
    assert set(live.of("tiktok:1")[0].platforms) == {META, TIKTOK}
    assert {one.account_id for one in live.of("meta:2")} == {"meta:2"}
    assert [one.account_id for one in live.of()] == ["", "meta:2", ""]
    assert live.of("meta:3") == []


def test_what_changed_is_told_once_with_the_accounts_before_and_after() -> None:
    live = told(insight("a", meta=["1"]), insight("b", meta=["2"]))
    assert live.changed() == ["all", "meta:1", "meta:2"]
    live.take(insight("a", meta=["1"]))
    live.take(insight("a", 20_000, 2, window="24h", meta=["1"]))
    live.take(insight("a", 19_990, 9, meta=["1"]))
    assert live.changed() == []
    live.take(insight("a", revision=2, meta=["3"]))
    assert live.changed() == ["all", "meta:1", "meta:3"]
    live.take(insight("a", revision=2, phase=1, meta=["3"]))
    assert live.changed() == []


def test_a_correction_that_empties_the_newest_window_shows_the_one_before() -> None:
    windows = [insight(end=20_000 + day, revision=day + 1, meta=["1"]) for day in range(3)]
    live = told(*windows)
    live.take(insight(end=20_002, revision=9))
    assert live.of()[0].ended_ms == 20_001 * DAY
    live.take(insight(end=20_000, revision=10))
    live.take(insight(end=20_001, revision=11))
    assert (live.of(), live.accounts(), len(live)) == ([], [], 0)


def test_a_campaign_that_ended_long_ago_goes_and_its_account_changes() -> None:
    live = told(insight("old", 20_000, meta=["1"]), keep_days=10)
    live.changed()
    live.take(insight("new", 20_009, meta=["2"]))
    assert live.changed() == ["all", "meta:2"]
    live.take(insight("new", 20_010, meta=["2"]))
    assert live.changed() == ["all", "meta:1", "meta:2"]
    assert live.accounts() == ["meta:2"]
    live.take(insight("old", 20_000, 5, meta=["1"]))
    assert [one.campaign_id for one in live.of()] == ["new"]


def test_money_is_in_the_benchmarks_currency_where_it_was_converted() -> None:
    one = insight(meta=["1"])
    part = one.platform_breakdown["meta"]
    reporting = {
        "currency": "EUR",
        "spend_micros": 5_500_000,
        "revenue_micros": 7,
        "roas": None,
        "rates": [],
        "missing": [],
    }
    wire = json.loads(insight_codec.encode(one))
    wire["platform_breakdown"]["meta"]["totals"]["reporting"] = reporting
    converted = insight_codec.decode(json.dumps(wire).encode())
    for currency, spend in (("EUR", 5.5), ("USD", (part.totals.spend_micros or 0) / 1e6)):
        live = LiveCampaigns(currency)
        live.take(converted)
        metrics = live.of()[0].platforms[META]
        assert (metrics.currency, metrics.spend) == (currency, spend)
        assert (metrics.impressions, metrics.conversions) == (1000, 1.5)


def test_an_insight_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="isoformat"):
        told(msgspec.structs.replace(insight(meta=["1"]), window_end="soon"))
    with pytest.raises(ValueError, match="myspace"):
        told(insight(myspace=["1"]))


def test_bytes_say_of_which_window_they_are() -> None:
    tricky = insight('"window":"24h"', meta=['"window":"1h"'])
    for window in ("1h", "24h", "7d"):
        assert insight_codec.is_of(insight_codec.encode(tricky), window) is (window == "7d")
