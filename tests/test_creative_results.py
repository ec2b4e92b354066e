"""Results of creatives: equal to a plain count of each ad's own rows, whatever else reports the same delivery."""

import itertools
from collections import defaultdict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from core.collected import Collected
from core.creatives import Ad
from core.ingest import Ingest
from core.learning.creative_results import CreativeResults, ad_days, creative_results
from schemas.calendar import iso_date
from schemas.creative import Creative
from schemas.metrics import METRICS, REVENUE, SPEND
from schemas.platform import Platform
from tests.histories import DAY, HOUR, T0, Fact, Flat, History, arrange, delta, examples, histories, link, snapshot
from tests.oracle import ad_totals, added

AD: dict[str, Any] = {"ad_group_id": "g", "ad_id": "a"}
SHOWN: dict[Ad, str] = {
    (Platform.META, "a"): "x",
    (Platform.META, "b"): "y",
    (Platform.TIKTOK, "a"): "x",
    (Platform.GOOGLE_ADS, "b"): "x",
}
CREATIVES = [Creative(creative_id="x", account_id="acme"), Creative(creative_id="y")]


def collected(history: History) -> Collected:
    state = Collected(Ingest(partitions=1))
    for source, records in arrange(history).items():
        state.take(*source, records)
    return state


def results(history: History, **bounds: int) -> CreativeResults:
    return creative_results(ad_days(collected(history).aggregate, **bounds), SHOWN, CREATIVES)


def flat_of(totals: Any) -> Flat:
    flat = {
        name: value
        for at, (name, value) in enumerate(zip(METRICS, totals.values, strict=True))
        if value is not None and at not in (SPEND, REVENUE)
    }
    for money in totals.money:
        for name in ("spend_micros", "revenue_micros"):
            if (amount := getattr(money, name)) is not None:
                flat[f"{name}:{money.currency}" if money.currency else name] = amount
    return flat


@examples(150)
@given(histories())
def test_days_of_ads_are_what_a_plain_count_of_their_own_rows_gives(history: History) -> None:
    found: dict[tuple[str, str, str, str], list[Flat]] = defaultdict(list)
    for day in ad_days(collected(history).aggregate):
        found[day.campaign_id, day.platform, day.ad_id, iso_date(day.day)].append(flat_of(day.totals))
    assert {key: added(flats) for key, flats in found.items()} == ad_totals(history)


@examples(60)
@given(histories(), st.randoms(use_true_random=False))
def test_results_are_sums_over_the_creatives_ads_and_do_not_depend_on_order(history: History, mix: Any) -> None:
    found = results(history)
    expected: dict[tuple[str, str, str], list[Flat]] = defaultdict(list)
    unknown = set()
    for (campaign, platform, ad_id, _), flat in ad_totals(history).items():
        creative = SHOWN.get((Platform(platform), ad_id))
        if creative is None:
            unknown.add((platform, ad_id))
        else:
            expected[creative, campaign, platform].append(flat)
    sums = {key: added(flats) for key, flats in expected.items()}
    assert found.unknown_ads == len(unknown)
    seen = {
        (shown.creative_id, shown.campaign_id, str(platform)): metrics
        for shown in found.shown
        for platform, metrics in shown.platforms.items()
    }
    assert seen.keys() == sums.keys()
    for key, metrics in seen.items():
        flat = sums[key]
        assert (metrics.impressions, metrics.clicks, metrics.engagements) == tuple(
            flat.get(name) for name in ("impressions", "clicks", "engagements")
        )
        money = {name: value / 1_000_000 for name, value in flat.items() if name.startswith(("spend", "revenue"))}
        if len({name.partition(":")[2] for name in money}) > 1:
            assert (metrics.spend, metrics.revenue, metrics.currency) == (None, None, "")
        else:
            told = {"spend_micros": metrics.spend, "revenue_micros": metrics.revenue}
            assert {name.partition(":")[0]: value for name, value in money.items()} == {
                name: value for name, value in told.items() if value is not None
            }
    shuffled = ad_days(collected(history).aggregate)
    mix.shuffle(shuffled)
    assert creative_results(shuffled, SHOWN, CREATIVES) == found


def clicks(history: list[Fact], creative: str = "x") -> int | None:
    whole = results(history).whole.get(creative, {})
    return whole[Platform.META].clicks if Platform.META in whole else None


def test_rows_of_campaigns_groups_and_segments_beside_an_ads_own_are_not_added() -> None:
    own = snapshot(clicks=3, **AD)
    beside = [
        snapshot(clicks=30),
        snapshot(clicks=30, ad_group_id="g"),
        snapshot(clicks=2, segments={"device": "tv"}, **AD),
        snapshot(clicks=1, hour=3, **AD),
        snapshot(clicks=3, report="other", **AD),
        delta("e", HOUR, clicks=3, **AD),
    ]
    for order in ([own, *beside], [*reversed(beside), own]):
        assert clicks(order) == 3
    assert clicks(beside[:3]) is None, "neither a campaign's nor a segment's row is the ad's"


def test_an_ad_with_and_without_its_group_is_one_ad() -> None:
    bare = snapshot(clicks=9, pulled=2 * DAY, ad_group_id="", ad_id="a")
    one, two = snapshot(clicks=3, **AD), snapshot(clicks=4, ad_group_id="h", ad_id="a")
    for order in itertools.permutations([bare, one]):
        assert clicks(list(order)) == 9, "the newest pull holds"
    for order in itertools.permutations([bare, one, two]):
        assert clicks(list(order)) == 7, "what names no group is the sum of those that do"


def test_money_in_two_currencies_is_unknown_and_never_added() -> None:
    dollars = snapshot(spend_micros=2_000_000, clicks=1, currency="USD", **AD)
    euros = snapshot(day=1, spend_micros=3_000_000, clicks=1, currency="EUR", **AD)
    one = results([dollars]).whole["x"][Platform.META]
    both = results([dollars, euros]).whole["x"][Platform.META]
    assert (one.spend, one.currency) == (2.0, "USD")
    assert (both.spend, both.revenue, both.currency, both.clicks) == (None, None, "", 2)


def test_a_restated_row_replaces_and_a_repeated_one_changes_nothing() -> None:
    first, again = snapshot(clicks=3, **AD), snapshot(clicks=5, pulled=2 * DAY, **AD)
    assert clicks([first, first]) == 3
    assert clicks([again, first, again]) == 5


def test_links_give_ads_their_campaigns_and_days_are_bounded() -> None:
    day = T0 // DAY
    history = [snapshot(clicks=1, **AD), snapshot(clicks=2, day=1, **AD), snapshot(clicks=4, day=2, **AD)]
    assert {each.campaign_id for each in results([*history, link("spring")]).shown} == {"spring"}
    assert {each.account_id for each in results(history).shown} == {"acme"}
    found = results(history, first=day + 1, end=day + 2)
    assert found.whole["x"][Platform.META].clicks == 2
    assert (found.first_day, found.last_day, found.ads) == (day + 1, day + 1, 1)
    nothing = results([])
    assert (nothing.shown, nothing.first_day, nothing.as_of_ms) == ([], None, -1)
