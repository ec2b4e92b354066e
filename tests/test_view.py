"""Views: the same delivery is reported in many ways, and a metric is taken from exactly one of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.ingest import Ingest
from core.offline import compute
from schemas.calendar import Account, Accounts
from schemas.insight import CrossPlatformInsight, MoneyTotals
from tests.histories import DAY, HOUR, METRICS, Fact, Flat, Wire, arrange, delta, examples, native, snapshot
from tests.pipeline import CONFIG, flat


def insights(*facts: Fact, accounts: Accounts = Accounts()) -> list[CrossPlatformInsight]:  # noqa: B008
    batches = [(*source, records) for source, records in arrange(facts).items()]
    return compute(batches, Ingest(partitions=1, accounts=accounts), CONFIG).insights


def windows(*facts: Fact, kind: str = "24h") -> dict[str, Flat]:
    """Totals by the start of the window."""
    return {each.window_start: flat(each) for each in insights(*facts) if each.window == kind}


def total(*facts: Fact) -> Flat:
    (found,) = windows(*facts).values()
    return found


TIKTOK_DAY = {"stat_time_day": "2026-03-07 00:00:00"}


def test_tiktok_conversions_come_from_ads_where_the_campaign_rows_have_none() -> None:
    """TikTok's campaign streams carry no conversions, its ad streams do: delivery from one, conversions from the
    other."""
    campaign = {"dimensions": {"campaign_id": 7, **TIKTOK_DAY}, "metrics": {"impressions": "900", "spend": "12.5"}}
    ads = [
        {
            "dimensions": {"ad_id": ad, **TIKTOK_DAY},
            "metrics": {
                "campaign_id": 7,
                "adgroup_id": 70,
                "impressions": "400",
                "spend": "5.00",
                "conversion": conversions,
            },
        }
        for ad, conversions in ((701, "2"), (702, "3"))
    ]
    rows = [native("tiktok", campaign, "campaigns_reports_daily")]
    rows += [native("tiktok", ad, "ads_reports_daily") for ad in ads]
    assert total(*rows) == {"impressions": 900, "spend_micros": 12_500_000, "conversions_micros": 5_000_000}


def google(network: str | None, **metrics: int) -> Fact:
    row: Wire = {"customer.id": 1, "campaign.id": 5, "segments.date": "2026-03-07"}
    if network:
        row["segments.ad_network_type"] = network
    return native("google_ads", row | {f"metrics.{name}": value for name, value in metrics.items()}, "campaign")


def test_google_rows_of_networks_are_parts_of_one_whole() -> None:
    assert total(google("SEARCH", clicks=3), google("CONTENT", clicks=4)) == {"clicks": 7}


def test_an_unsegmented_row_is_the_whole_and_its_parts_are_not_added() -> None:
    rows = (google(None, clicks=8), google("SEARCH", clicks=3, impressions=50), google("CONTENT", clicks=4))
    assert total(*rows) == {"clicks": 8, "impressions": 50}


def test_the_fewest_segments_are_taken_and_equal_numbers_by_name() -> None:
    by_device = [snapshot(segments={"device": name}, clicks=2) for name in ("mobile", "desktop")]
    by_network = [snapshot(segments={"network": name}, clicks=5) for name in ("search", "display")]
    by_both = snapshot(segments={"device": "mobile", "network": "search"}, clicks=100)
    assert total(*by_network, by_both, *by_device) == {"clicks": 4}
    assert total(*by_network, by_both) == {"clicks": 10}
    assert total(by_both) == {"clicks": 100}


def test_meta_breakdowns_never_add_to_the_ads_own_rows() -> None:
    row = {"campaign_id": "3", "ad_id": "31", "date_start": "2026-03-07", "date_stop": "2026-03-07"}
    whole = native("meta", {**row, "clicks": 10}, "ads_insights")
    parts = [
        native("meta", {**row, "age": age, "clicks": 6}, "ads_insights_age_and_gender") for age in ("18-24", "25-34")
    ]
    assert total(whole, *parts) == {"clicks": 10}
    assert total(*parts) == {"clicks": 12}


@pytest.mark.parametrize("coarse", [{}, {"ad_group_id": "g"}])
def test_the_coarsest_level_that_carries_a_metric_holds(coarse: Wire) -> None:
    ads = [snapshot(ad_group_id="g", ad_id=ad, clicks=4, engagements=1) for ad in ("a", "b")]
    assert total(snapshot(clicks=9, **coarse), *ads) == {"clicks": 9, "engagements": 2}


def test_a_day_row_holds_for_the_day_and_hour_rows_for_its_hours() -> None:
    hours = [snapshot(hour=hour, clicks=4, impressions=10) for hour in (3, 4)]
    day = snapshot(clicks=9)
    assert total(day, *hours) == {"clicks": 9, "impressions": 20}
    assert windows(day, *hours, kind="1h") == {
        "2026-03-07T03:00:00.000Z": {"clicks": 4, "impressions": 10},
        "2026-03-07T04:00:00.000Z": {"clicks": 4, "impressions": 10},
    }


def test_a_coarser_hour_row_comes_before_a_finer_day_row() -> None:
    assert total(snapshot(hour=3, clicks=4), snapshot(ad_id="a", clicks=9)) == {"clicks": 4}


def test_two_streams_of_one_ad_are_one_row_each_metric_from_the_newest_that_carries_it() -> None:
    first = snapshot(ad_id="a", report="ads", pulled=DAY, clicks=4, impressions=100)
    second = snapshot(ad_id="a", report="ads_legacy", pulled=2 * DAY, clicks=5, engagements=3)
    assert total(first, second) == {"clicks": 5, "impressions": 100, "engagements": 3}
    assert total(second, first) == total(first, second)


def test_reports_come_before_deltas_metric_by_metric() -> None:
    increments = [delta("a", HOUR, clicks=1, engagements=2), delta("b", 2 * HOUR, clicks=1, engagements=2)]
    assert total(*increments) == {"clicks": 2, "engagements": 4}
    assert total(snapshot(clicks=7), *increments) == {"clicks": 7, "engagements": 4}
    (day,) = (each for each in insights(snapshot(clicks=7), *increments) if each.window == "24h")
    assert day.platform_breakdown["meta"].basis == ["snapshot+delta"]


def test_a_restatement_replaces_and_may_go_down() -> None:
    assert total(snapshot(pulled=DAY, clicks=9), snapshot(pulled=2 * DAY, clicks=7)) == {"clicks": 7}
    assert total(snapshot(pulled=2 * DAY, clicks=7), snapshot(pulled=DAY, clicks=9)) == {"clicks": 7}


def test_a_metric_that_a_newer_pull_no_longer_carries_is_gone() -> None:
    assert total(snapshot(pulled=DAY, clicks=9, engagements=1), snapshot(pulled=2 * DAY, clicks=9)) == {"clicks": 9}


def test_currencies_are_never_added() -> None:
    rows = [
        snapshot(ad_id="a", currency="USD", spend_micros=5, revenue_micros=7),
        snapshot(ad_id="b", currency="EUR", spend_micros=6),
        snapshot(ad_id="c", spend_micros=1),
    ]
    (day,) = (each for each in insights(*rows) if each.window == "24h")
    assert day.totals.money == [
        MoneyTotals("", 1, None),
        MoneyTotals("EUR", 6, None),
        MoneyTotals("USD", 5, 7),
    ]
    assert (day.totals.currency, day.totals.spend_micros, day.roas) == (None, None, None)
    assert day.roas_reason == "money is in several currencies without a rate between them: unknown, EUR, USD"


def test_a_row_without_currency_has_the_only_one_known_of_its_campaign_and_day() -> None:
    rows = [snapshot(ad_id="a", currency="EUR", spend_micros=5), snapshot(ad_id="b", spend_micros=6)]
    assert total(*rows) == {"spend_micros:EUR": 11}


def test_a_day_is_the_accounts_own_date() -> None:
    """Scenario: a delta of 2026-03-08 06:30 UTC. In Los Angeles it is still the 7th, whose reports call it so."""
    row = delta("a", DAY + 6 * HOUR + HOUR // 2, account_id="77", clicks=1)
    accounts = Accounts({"meta:77": Account("America/Los_Angeles")})
    starts = {each.window: each.window_start for each in insights(row, accounts=accounts)}
    assert starts == {"1h": "2026-03-08T06:00:00.000Z", "24h": "2026-03-07", "7d": "2026-03-01"}


@pytest.mark.parametrize(
    ("rows", "account", "clicks"),
    [
        ([delta("a", clicks=1)], [], 1),
        ([delta("a", clicks=1), delta("b", account_id="77", clicks=2), delta("c", clicks=4)], ["77"], 7),
        ([delta("a", account_id="77", clicks=1), delta("b", account_id="88", clicks=2)], ["88"], 3),
        # The same event once more counts for nothing, whatever it names.
        ([delta("a", account_id="77", clicks=1), delta("a", account_id="88", clicks=1)], ["77"], 1),
        ([delta("a", account_id="88", clicks=1), snapshot(account_id="77", clicks=5)], ["77"], 5),
        ([delta("a", account_id="88", clicks=1), snapshot(clicks=5)], ["88"], 5),
    ],
)
def test_deltas_name_the_account_where_snapshots_do_not(rows: list[Fact], account: list[str], clicks: int) -> None:
    (day,) = (each for each in insights(*rows) if each.window == "24h")
    part = day.platform_breakdown["meta"]
    assert (part.accounts, part.totals.clicks) == (account, clicks)


def test_quality_is_a_mean_weighted_by_the_impressions_that_carry_it() -> None:
    rows = [
        snapshot(ad_id="a", impressions=100, quality=4.0),
        snapshot(ad_id="b", impressions=300, quality=8.0),
        snapshot(ad_id="c", impressions=600),
    ]
    (day,) = (each for each in insights(*rows) if each.window == "24h")
    assert day.platform_breakdown["meta"].normalized_quality == pytest.approx((7.0 - 1) / 9)


@examples(60)
@given(
    st.lists(
        st.builds(
            lambda level, segment, values: snapshot(ad_id=level, segments=segment, **values),
            st.sampled_from(("", "a")),
            st.sampled_from(({}, {"device": "mobile"})),
            st.dictionaries(st.sampled_from(METRICS), st.integers(0, 3), min_size=1),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_a_total_is_never_more_than_one_view_says(rows: list[Fact]) -> None:
    """Each metric's total is the newest row's of some single view, since each view here has one row."""
    for name, value in total(*rows).items():
        said = {row.wire.get(name) for row in rows if row.wire}
        assert value in said


def test_a_total_of_absurd_rows_stops_at_a_limit_instead_of_the_worker() -> None:
    """Beyond it the sum of 2000 rows, each of which may be right, would fit no wire format."""
    rows = [snapshot(ad_group_id="g", ad_id=str(ad), spend_micros=10**16, clicks=10**12) for ad in range(2_000)]
    assert total(*rows) == {"spend_micros": 10**18, "clicks": 2_000 * 10**12}
