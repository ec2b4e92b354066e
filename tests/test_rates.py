"""Exchange rates: what is a rate, which one holds, how money is converted, and what a changed one makes due."""

import json
from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.campaigns import Campaigns, Emission
from core.ingest import Ingest
from core.insight import build
from core.offline import Computed, compute
from core.profile import DEFAULT_PROFILE
from core.rates import Rates, RateTable, convert
from core.window import parse_window
from schemas import dead_letter
from schemas import insight as insight_codec
from schemas.calendar import iso_date
from schemas.event import Ignored, RejectCode, Rejection
from schemas.insight import CrossPlatformInsight, RateUsed, ReportingTotals, Version
from schemas.platform import Platform
from schemas.rate import decode_rate, rate_fact
from schemas.rollup import RateFact
from schemas.topics import RATES
from stream_app.domain import insight_config
from stream_app.errors import SetupError
from stream_app.rates_file import read_rates
from stream_app.settings import Settings
from tests.driven import Driven, at, rollup
from tests.histories import DAY, T0, Fact, arrange, delta, examples, histories, link, snapshot
from tests.pipeline import CONFIG, Pipeline, schedules
from tests.test_insight import FIRST, part

WIRE = {"version": 1, "date": "2026-03-07", "currency": "EUR", "per": "USD", "rate": "1.1", "updated_at": 5}
USD = RateTable("USD")


def decoded(arrival: int = 1_800_000_000_000, **changed: Any) -> RateFact | Rejection | Ignored:
    return decode_rate(None, json.dumps(WIRE | changed).encode(), arrival_ms=arrival, max_bytes=500)


def rate(
    text: str | float | None, currency: str = "EUR", day: int = FIRST, per: str = "USD", updated: int = 0
) -> RateFact:
    return rate_fact(iso_date(day), currency, per, text, updated)


def rates(*facts: RateFact, table: RateTable = USD) -> Rates:
    found = Rates(table)
    for fact in facts:
        found.put(fact)
    return found


# What is a rate


def test_version_1_of_a_rate_is_for_ever() -> None:
    wire = b'{"version":1,"date":"2026-01-03","currency":"EUR","per":"USD","rate":"1.0831","updated_at":1767225600000}'
    fact = RateFact(currency="EUR", day=20_456, per="USD", nanos=1_083_100_000, updated_ms=1_767_225_600_000)
    assert decode_rate(b"EUR:2026-01-03", wire, arrival_ms=0, max_bytes=500) == fact


@pytest.mark.parametrize(
    ("text", "nanos"),
    [
        ("1.0831", 1_083_100_000),
        (1.0831, 1_083_100_000),
        (2, 2_000_000_000),
        ("0.0000000005", None),
        ("0.0000000015", 2),
        ("1e-3", 1_000_000),
        ("1000000", 10**15),
        ("1000000.1", None),
        (0, None),
        ("-1", None),
        ("", None),
        ("1,08", None),
        ("nan", None),
        ("1" * 65, None),
        (True, None),
        ({}, None),
    ],
)
def test_a_rate_is_a_positive_number_to_nine_places(text: Any, nanos: int | None) -> None:
    found = decoded(rate=text)
    if nanos is None:
        assert isinstance(found, Rejection)
        assert found.code is RejectCode.BAD_RATE
    else:
        assert isinstance(found, RateFact)
        assert found.nanos == nanos


@pytest.mark.parametrize(
    "changed",
    [
        {"currency": "EURO"},
        {"currency": "EUX"},
        {"per": "usd"},
        {"per": "EUR"},
        {"date": "2026-02-30"},
        {"date": "03/01/2026"},
        {"date": None},
        {"version": 2},
        {"updated_at": "now"},
    ],
)
def test_what_is_no_rate_is_refused_with_a_sentence(changed: dict[str, Any]) -> None:
    found = decoded(**changed)
    assert isinstance(found, Rejection)
    assert (found.code, found.sentence.partition(":")[0]) == (RejectCode.BAD_RATE, "not an exchange rate")


@given(st.binary(max_size=200) | st.none(), st.binary(max_size=30) | st.none())
def test_any_bytes_have_an_outcome(payload: bytes | None, key: bytes | None) -> None:
    assert isinstance(decode_rate(key, payload, arrival_ms=1, max_bytes=100), RateFact | Rejection | Ignored)


def test_null_and_a_record_without_value_withdraw() -> None:
    null = decoded(rate=None)
    gone = decode_rate(b"EUR:2026-03-07", None, arrival_ms=9, max_bytes=500)
    assert isinstance(null, RateFact)
    assert isinstance(gone, RateFact)
    assert (null.nanos, null.updated_ms, gone.nanos, gone.day, gone.updated_ms) == (0, 5, 0, FIRST, 9)
    assert isinstance(decode_rate(b"EUR", None, arrival_ms=9, max_bytes=500), Ignored)


# Which one holds

facts = st.builds(
    rate,
    st.sampled_from(("1.1", "1.2", None)),
    st.sampled_from(("EUR", "GBP")),
    st.integers(FIRST - 9, FIRST + 1),
    st.sampled_from(("USD", "USD", "JPY")),
    st.integers(0, 2),
)


@examples(200)
@given(st.lists(facts, max_size=12), st.lists(facts, max_size=4), st.randoms(use_true_random=False))
def test_the_newest_word_on_a_day_holds_whatever_came_first(
    told: list[RateFact], base: list[RateFact], mix: Any
) -> None:
    table = RateTable("USD", tuple(base))
    one = rates(*told, table=table)
    mix.shuffle(told)
    two = rates(*told, *told, table=table)
    for currency in ("EUR", "GBP"):
        expected = None
        for day in range(FIRST, FIRST - 8, -1):
            said = [fact for fact in told if (fact.currency, fact.day) == (currency, day)]
            said = said or [fact for fact in base if (fact.currency, fact.day) == (currency, day)]
            holds = max(said, key=lambda fact: (fact.updated_ms, fact.per, fact.nanos), default=None)
            if holds is not None and holds.per == "USD" and holds.nanos:
                expected = (holds.nanos, day)
                break
        assert one.lookup(currency, FIRST) == two.lookup(currency, FIRST) == expected


def test_a_weekend_takes_fridays_rate_and_nothing_takes_one_of_eight_days_ago_or_of_tomorrow() -> None:
    held = rates(rate("1.1", day=FIRST))
    assert held.lookup("EUR", FIRST + 7) == (1_100_000_000, FIRST)
    assert held.lookup("EUR", FIRST + 8) is None
    assert held.lookup("EUR", FIRST - 1) is None
    assert held.lookup("USD", FIRST + 99) == (1_000_000_000, FIRST + 99)
    assert held.lookup("", FIRST) is None


def test_rates_that_no_day_can_take_are_forgotten() -> None:
    held = Rates(USD)
    for position, day in enumerate((FIRST - 20, FIRST - 9, FIRST - 7, FIRST)):
        held.put(rate("1.1", day=day), position)
    held.put(rate("1.1", "GBP", FIRST - 30), 9)
    before = held.revision([FIRST - 1, FIRST])
    assert held.expire(FIRST - 1) == [("EUR", FIRST - 20), ("EUR", FIRST - 9), ("GBP", FIRST - 30)]
    assert held.lookup("EUR", FIRST - 1) == (1_100_000_000, FIRST - 7)
    assert held.revision([FIRST - 1, FIRST]) == before == 3 + 4
    assert held.expire(FIRST - 1) == []


def test_a_withdrawal_on_the_topic_hides_the_files_rate() -> None:
    table = RateTable("USD", (rate("1.1"), rate("1.0", day=FIRST - 1)))
    assert rates(table=table).lookup("EUR", FIRST) == (1_100_000_000, FIRST)
    assert rates(rate(None), table=table).lookup("EUR", FIRST) == (1_000_000_000, FIRST - 1)


# How money is converted


@examples(300)
@given(st.integers(1, 10**15), st.integers(0, 10**18))
def test_conversion_is_exact_and_half_goes_to_even(nanos: int, amount: int) -> None:
    exact = Fraction(amount) * Fraction(nanos, 10**9)
    assert convert(nanos, amount) == round(exact)
    decimal = (Decimal(amount) * Decimal(nanos)).scaleb(-9)
    if amount < 10**9 and nanos < 10**9:
        assert convert(nanos, amount) == int(decimal.quantize(Decimal(1), rounding=ROUND_HALF_EVEN))


@pytest.mark.parametrize(("amount", "converted"), [(1, 0), (2, 1), (3, 2), (5, 2), (7, 4), (9, 4)])
def test_a_half_goes_to_the_even_neighbour(amount: int, converted: int) -> None:
    assert convert(500_000_000, amount) == converted


def reported(*parts: Any, held: Rates, kind: str = "24h") -> CrossPlatformInsight:
    return build("spring", parse_window(kind), FIRST, parts, DEFAULT_PROFILE, "", Version(1, 0), held)


def test_originals_stay_and_the_reporting_money_stands_beside_them() -> None:
    held = rates(rate("1.1"), rate("0.0067", "JPY", FIRST - 2))
    insight = reported(
        part(Platform.META, currency="EUR", spend_micros=2_000_000, revenue_micros=6_000_001),
        part(Platform.TIKTOK, currency="JPY", spend_micros=1_000_000_000, revenue_micros=0),
        part(Platform.GOOGLE_ADS, spend_micros=1),
        held=held,
    )
    assert insight.roas is None
    assert insight.roas_reason == "money is in several currencies without a rate between them: EUR, JPY, USD"
    assert [money.currency for money in insight.totals.money] == ["EUR", "JPY", "USD"]
    assert insight.totals.reporting == ReportingTotals(
        currency="USD",
        spend_micros=2_200_000 + 6_700_000 + 1,
        revenue_micros=6_600_001,
        roas=6_600_001 / 8_900_001,
        rates=[RateUsed("EUR", "2026-03-07", "1.1"), RateUsed("JPY", "2026-03-05", "0.0067")],
        missing=[],
    )
    meta = insight.platform_breakdown["meta"].totals
    assert (meta.currency, meta.spend_micros) == ("EUR", 2_000_000)
    assert meta.reporting is not None
    assert meta.reporting.spend_micros == 2_200_000


def test_a_missing_rate_is_said_and_nothing_is_guessed() -> None:
    insight = reported(
        part(Platform.META, currency="EUR", spend_micros=2),
        part(Platform.META, name="2", currency="", spend_micros=3),
        part(Platform.TIKTOK, spend_micros=1),
        held=rates(rate("1.1", per="GBP"), rate("1.3", "GBP")),
    )
    told = insight.totals.reporting
    assert told is not None
    assert (told.spend_micros, told.revenue_micros, told.roas) == (None, None, None)
    assert told.missing == ["EUR:2026-03-07", "unknown:2026-03-07"]
    tiktok = insight.platform_breakdown["tiktok"].totals.reporting
    assert tiktok is not None
    assert (tiktok.spend_micros, tiktok.missing) == (1, [])


def test_nothing_needs_no_rate_and_what_is_not_reported_stays_so() -> None:
    told = reported(part(Platform.META, currency="EUR", spend_micros=0), held=rates()).totals.reporting
    assert told is not None
    assert (told.spend_micros, told.revenue_micros, told.missing) == (0, None, [])
    assert reported(part(Platform.META, clicks=1), held=rates()).totals.reporting is not None
    assert reported(part(Platform.META, spend_micros=1), held=Rates()).totals.reporting is None


def test_an_amount_beyond_64_bits_is_said_and_can_be_written() -> None:
    held = rates(rate("1000000", "KWD", per="IRR"), table=RateTable("IRR"))
    insight = reported(part(Platform.META, currency="KWD", spend_micros=10**16), held=held)
    assert b"beyond 64 bits" in insight_codec.encode(insight)


amounts = st.lists(
    st.tuples(
        st.sampled_from((Platform.META, Platform.TIKTOK)),
        st.sampled_from("123"),
        st.integers(FIRST - 6, FIRST),
        st.sampled_from(("EUR", "GBP", "USD")),
        st.integers(1, 10**6),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda row: row[:3],
)


@examples(150)
@given(amounts, st.randoms(use_true_random=False))
def test_platforms_add_up_and_each_sum_is_rounded_once(rows: list[Any], mix: Any) -> None:
    held = rates(
        *(rate("1.0831", "EUR", day) for day in range(FIRST - 6, FIRST + 1)), rate("1.25001", "GBP", FIRST - 6)
    )
    parts = [part(platform, name, day, currency, spend_micros=spend) for platform, name, day, currency, spend in rows]
    one = reported(*parts, held=held, kind="7d")
    mix.shuffle(parts)
    assert insight_codec.content(reported(*parts, held=held, kind="7d")) == insight_codec.content(one)
    factor = {"EUR": Fraction("1.0831"), "GBP": Fraction("1.25001"), "USD": Fraction(1)}
    sums: dict[Any, int] = {}
    for platform, _, day, currency, spend in rows:
        sums[platform, day, currency] = sums.get((platform, day, currency), 0) + spend
    expected = sum(round(spend * factor[currency]) for (_, _, currency), spend in sums.items())
    assert one.totals.reporting is not None
    assert one.totals.reporting.spend_micros == expected
    each = [breakdown.totals.reporting for breakdown in one.platform_breakdown.values()]
    assert sum(totals.spend_micros or 0 for totals in each if totals) == expected


# What a changed rate makes due


def driven(*kinds: str) -> Driven:
    return Driven(*kinds or ("24h", "7d"), rates=USD)


def euro(revision: int, spend: int, **fields: Any) -> Any:
    totals = part(Platform.META, currency=fields.pop("currency", "EUR"), clicks=1, spend_micros=spend).totals
    return rollup(revision, 1, day_totals=totals, **fields)


def told(emissions: Sequence[Emission]) -> list[tuple[str, str, int | None]]:
    """Campaign, window and spend in the reporting currency of what was published."""
    return [(each.insight.campaign_id, each.insight.window, spend_of(each.insight)) for each in emissions]


def spend_of(insight: CrossPlatformInsight) -> int | None:
    assert insight.totals.reporting is not None
    return insight.totals.reporting.spend_micros


def test_a_rate_makes_due_what_has_money_in_that_currency_on_its_days() -> None:
    run = driven("24h")
    run.tell(
        euro(1, 1_000),
        euro(1, 1_000, campaign_id="later", day=FIRST + 7),
        euro(1, 1_000, campaign_id="too late", day=FIRST + 8),
        euro(1, 1_000, campaign_id="before", day=FIRST - 1),
        euro(1, 1_000, campaign_id="pounds", currency="GBP"),
    )
    assert {amount for _, _, amount in told(run.take().emissions)} == {None}
    run.tell(rate("1.1"))
    assert sorted(told(run.drain())) == [("later", "24h", 1_100), ("spring", "24h", 1_100)]
    run.tell(rate("1.1"))
    assert told(run.drain()) == []


def test_a_changed_rate_corrects_a_final_insight_under_a_higher_version() -> None:
    run = driven("24h")
    run.tell(rate("1.1"), euro(1, 1_000), at(T0 + 9 * DAY))
    (final,) = run.take().emissions
    run.tell(rate("1.2", updated=1))
    taken = run.take()
    (corrected,) = taken.emissions
    assert corrected.insight.version > final.insight.version
    assert corrected.insight.phase == "corrected"
    assert corrected.insight.correction is not None
    assert corrected.insight.correction.reason == "exchange_rate"
    assert corrected.insight.correction.difference == {"reporting_spend_micros:USD": 100}
    assert corrected.position > final.position
    assert taken.hot == [corrected]


def test_an_older_word_on_a_rate_changes_nothing() -> None:
    run = driven("24h")
    run.tell(rate("1.1", updated=5), euro(1, 1_000))
    run.take()
    run.tell(rate("9.9", updated=4))
    assert run.drain() == []


@pytest.mark.parametrize("survive", range(5))
def test_a_crash_amid_the_checkpoint_of_a_rate_loses_nothing(survive: int) -> None:
    run = driven("24h", "7d")
    run.tell(euro(1, 1_000))
    published = {each.insight.insight_id: each.insight.version for each in run.take().emissions}
    run.tell(rate("1.1"))
    run.die(survive)
    run.again()
    for spend in (1_100, 1_200):
        # What may not have been published goes out again as it was.
        news = [each for each in run.drain() if each.insight.version > published[each.insight.insight_id]]
        assert sorted(told(news)) == [("spring", "24h", spend), ("spring", "7d", spend)]
        published = {each.insight.insight_id: each.insight.version for each in news}
        run.state = Campaigns.restore(run.table, run.config)
        assert {spend_of(each) for each in run.state.insights()} == {spend}
        run.tell(rate("1.2", updated=1))


def test_without_a_reporting_currency_rates_are_kept_and_change_nothing() -> None:
    run = Driven("24h")
    run.tell(euro(1, 1_000))
    run.take()
    run.tell(rate("1.1"))
    assert run.drain() == []
    on = msgspec.structs.replace(run.config, rates=USD)
    (insight,) = Campaigns.restore(run.table, on).insights()
    assert insight.totals.reporting is not None
    assert insight.totals.reporting.spend_micros == 1_100


# Through the whole system


def record(wire: dict[str, Any] | None, arrival: int = T0 + DAY, key: bytes | None = None) -> Fact:
    return Fact(RATES, arrival, None if wire is None else json.dumps(wire).encode(), key)


rate_records = st.builds(
    lambda text, currency, day, updated, arrival: record(
        {**WIRE, "rate": text, "currency": currency, "date": iso_date(FIRST + day), "updated_at": T0 + updated},
        T0 + DAY + arrival,
    ),
    st.sampled_from(("1.1", "1.2", "0.9", None, "x")),
    st.sampled_from(("EUR", "EUR", "GBP")),
    st.integers(-2, 2),
    st.integers(0, 2),
    st.integers(0, 3),
)
REPORTING = msgspec.structs.replace(CONFIG, rates=RateTable("USD", (rate("1.05", day=FIRST - 3),)))


def offline(history: Sequence[Fact]) -> Computed:
    return compute([(*name, held) for name, held in arrange(history).items()], Ingest(partitions=1), REPORTING)


@examples(100)
@given(histories(), st.lists(rate_records, min_size=1, max_size=6), schedules(), st.data())
def test_any_course_of_events_gives_the_insights_of_the_offline_computation(
    history: list[Fact], changes: list[Fact], schedule: list[Any], data: st.DataObject
) -> None:
    mixed = data.draw(st.permutations([*history, *changes]))
    computed = offline([*history, *changes])
    pipeline = Pipeline(arrange(mixed, [0, 1]), 2, 2, REPORTING).run(schedule).drain()
    expected = [insight_codec.content(each) for each in computed.insights]
    assert pipeline.contents() == expected
    for insight in pipeline.insights():
        held = pipeline.reader.latest[insight.insight_id]
        assert insight_codec.content(held) == insight_codec.content(insight)
    counted = pipeline.accounting()
    assert counted.adds_up
    assert counted.rows == len(mixed)
    assert (counted.dead_letters, counted.ignored) == (computed.accounting.dead_letters, computed.accounting.ignored)


def test_rejected_rates_are_dead_letters_and_all_rows_are_accounted_for() -> None:
    history = [
        snapshot(currency="EUR", spend_micros=1_000_000),
        link("spring"),
        delta("e", currency="EUR", spend_micros=500_000),
        record(WIRE),
        record(WIRE | {"rate": "-1"}),
        record(WIRE | {"updated_at": T0 + 9 * DAY}),
        record(None, key=b"EUR:2026-03-01"),
        record(None, key=b"nothing"),
    ]
    computed = offline(history)
    letters = [(row.letter.code, row.letter.source.topic) for row in computed.rejected]
    assert letters == [("bad_rate", RATES), ("in_the_future", RATES)]
    assert dead_letter.encode(computed.rejected[0].letter)
    assert computed.accounting.adds_up
    assert (computed.accounting.rows, computed.accounting.ignored) == (8, {"tombstone": 1})
    day = next(each for each in computed.insights if each.window == "24h")
    assert day.totals.reporting is not None
    assert day.totals.reporting.spend_micros == 1_100_000


# From a file


def test_a_file_of_rates_is_csv_or_lines(tmp_path: Path) -> None:
    table = tmp_path / "rates.csv"
    table.write_text("currency,date,per,rate,source\nEUR,2026-03-07,USD,1.1,ecb\nJPY,2026-03-07,USD,0.0067,ecb\n")
    lines = tmp_path / "rates.jsonl"
    lines.write_text(json.dumps(WIRE) + "\n\n")
    assert read_rates(table) == (rate("1.1"), rate("0.0067", "JPY"))
    assert read_rates(lines) == (rate("1.1", updated=5),)
    config = insight_config(Settings(reporting_currency="USD", rates_file=table))
    assert config.rates == RateTable("USD", read_rates(table))


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.csv", "date,currency,rate\n", "per is not"),
        ("a.csv", "date,currency,per,rate\n2026-03-07,EUR,USD,x\n", "line 2: rate must be a decimal number"),
        ("a.csv", "date,currency,per,rate\n2026-03-07,EUR\n", "line 2: "),
        ("a.jsonl", "{}\n", "line 1: not an exchange rate"),
        ("a.txt", "", "read from .csv, .jsonl or .ndjson"),
        ("absent/a.csv", None, "No such file"),
    ],
)
def test_a_wrong_file_is_one_line_that_says_where(tmp_path: Path, name: str, text: str | None, problem: str) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(SetupError, match=problem):
        read_rates(path)
