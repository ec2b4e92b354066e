"""Facts of accounts: what is one, as of when it holds, and that a row's meaning depends on the records alone."""

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError, KafkaTimeoutError, NodeNotReadyError
from hypothesis import given
from hypothesis import strategies as st

from core.accounts import AccountHistory
from core.ingest import Ingest
from core.offline import Computed, compute
from schemas import insight as insight_codec
from schemas.account import AccountFact, decode_account
from schemas.calendar import Account, Accounts, end_of_day, iso_date, start_of_day
from schemas.event import Ignored, RejectCode, Rejection
from schemas.insight import CrossPlatformInsight
from schemas.platform import Platform
from schemas.topics import ACCOUNTS, METRICS_TOPICS, RATES
from stream_app.account_follower import AccountFollower
from stream_app.domain import ingest_config
from stream_app.feed import Feed
from stream_app.simulator import SimRecord
from tests.histories import DAY, HOUR, T0, Fact, Record, arrange, delta, examples, native
from tests.live import Live, by_id, offline
from tests.pipeline import CONFIG

WIRE = {"version": 1, "platform": "meta", "account_id": "77", "time_zone": "America/Los_Angeles", "currency": "EUR"}
LA, KOLKATA = "America/Los_Angeles", "Asia/Kolkata"
FIRST = T0 // DAY


def decoded(key: bytes | None = None, **changed: Any) -> AccountFact | Rejection | Ignored:
    return decode_account(key, json.dumps(WIRE | changed).encode(), arrival_ms=9, max_bytes=500)


def fact(zone: str = "", currency: str = "", account: str = "77", updated: int = 0) -> AccountFact:
    return AccountFact(Platform.META, account, zone, currency, updated)


# What is a fact


def test_version_1_of_an_account_is_for_ever() -> None:
    wire = (
        b'{"version":1,"platform":"meta","account_id":"act_77","time_zone":"America/Los_Angeles","currency":"EUR",'
        b'"updated_at":1767225600000}'
    )
    expected = AccountFact(Platform.META, "act_77", LA, "EUR", 1_767_225_600_000)
    assert decode_account(b"meta:act_77", wire, arrival_ms=0, max_bytes=500) == expected
    assert decoded(currency=None) == AccountFact(Platform.META, "77", LA, "", 9)
    gone = decode_account(b"meta:77", None, arrival_ms=9, max_bytes=500)
    assert gone == AccountFact(Platform.META, "77", "", "", 9)
    assert isinstance(decode_account(b"77", None, arrival_ms=9, max_bytes=500), Ignored)


@pytest.mark.parametrize(
    "changed",
    [
        {"time_zone": "Middle/Earth"},
        {"time_zone": "../etc/passwd"},
        {"time_zone": "\0"},
        {"currency": "euro"},
        {"currency": "EUX"},
        {"platform": "unknown"},
        {"account_id": ""},
        {"version": 2},
        {"updated_at": -1},
    ],
)
def test_what_is_no_fact_is_refused_with_a_sentence(changed: dict[str, Any]) -> None:
    found = decoded(**changed)
    assert isinstance(found, Rejection)
    assert found.code is RejectCode.BAD_ACCOUNT
    assert found.sentence


@given(st.binary(max_size=200) | st.none(), st.binary(max_size=30) | st.none())
def test_any_bytes_have_an_outcome(payload: bytes | None, key: bytes | None) -> None:
    assert isinstance(decode_account(key, payload, arrival_ms=1, max_bytes=100), AccountFact | Rejection | Ignored)


# As of when it holds

BASE = Accounts({"meta:77": Account(KOLKATA, "INR"), "meta:": Account("", "USD")})


def test_a_fact_holds_from_its_arrival_on_and_the_settings_before() -> None:
    history = AccountHistory(BASE)
    history.put(fact(LA, "EUR"), 100)
    history.put(fact(currency="GBP", updated=5), 200)
    history.put(fact(updated=9), 300)
    found = [history.at(stamp).of(Platform.META, "77") for stamp in (99, 100, 199, 200, 300)]
    assert found == [
        Account(KOLKATA, "INR"),
        Account(LA, "EUR"),
        Account(LA, "EUR"),
        # What a record leaves out is as the settings say.
        Account(KOLKATA, "GBP"),
        Account(KOLKATA, "INR"),
    ]
    assert history.at(100).of(Platform.META, "act_77") == Account(LA, "EUR")
    assert history.at(100).of(Platform.META, "78") == Account("", "USD")


def test_an_older_fact_that_arrives_later_changes_nothing() -> None:
    history = AccountHistory(Accounts())
    history.put(fact(LA, updated=5), 100)
    history.put(fact(KOLKATA, updated=4), 200)
    assert history.at(200).of(Platform.META, "77").time_zone == LA


told = st.tuples(
    st.builds(
        fact,
        st.sampled_from(("", LA, KOLKATA)),
        st.sampled_from(("", "EUR", "GBP")),
        st.sampled_from(("77", "act_77", "78")),
        st.integers(0, 3),
    ),
    st.integers(0, 9),
)


@examples(200)
@given(st.lists(told, max_size=8), st.randoms(use_true_random=False))
def test_the_history_is_a_function_of_the_set_of_facts(facts: list[tuple[AccountFact, int]], mix: Any) -> None:
    one, two = AccountHistory(BASE), AccountHistory(BASE)
    for each, stamp in facts:
        one.put(each, stamp)
        assert one.at(stamp)
    mix.shuffle(facts)
    for each, stamp in [*facts, *facts]:
        two.put(each, stamp)
    for stamp in range(-1, 11):
        for account in ("77", "78", "79"):
            held = [
                (each.updated_ms, each.time_zone, each.currency)
                for each, at in facts
                if at <= stamp and each.account_id.removeprefix("act_") == account
            ]
            base = BASE.of(Platform.META, account)
            _, zone, currency = max(held, default=(0, "", ""))
            expected = Account(zone or base.time_zone, currency or base.currency)
            assert one.at(stamp).of(Platform.META, account) == expected
            assert two.at(stamp).of(Platform.META, account) == expected
    stamps = [5, 5, 3, 9, 9, 0, 2]
    runs = list(one.runs(stamps))
    assert [place for run in runs for place in run] == list(range(len(stamps)))
    for run in runs:
        assert len({one.at(stamps[place]) is one.at(stamps[run.start]) for place in run}) == 1


# What rows mean by it


def account(arrival: int, platform: str = "meta", account_id: str = "77", **said: Any) -> Fact:
    wire = {"version": 1, "platform": platform, "account_id": account_id, **said}
    return Fact(ACCOUNTS, arrival, json.dumps(wire).encode(), f"{platform}:{account_id}".encode())


def row(date: str, pulled: int, clicks: int = 1, spend: str = "1.00", campaign: str = "1") -> Fact:
    fields = {"account_id": "77", "campaign_id": campaign, "date_start": date, "date_stop": date}
    return native("meta", {**fields, "clicks": str(clicks), "spend": spend}, pulled=pulled)


def computed(*facts: Fact, accounts: Accounts | None = None) -> Computed:
    ingest = Ingest(partitions=1, accounts=accounts or Accounts())
    return compute([(*name, held) for name, held in arrange(facts).items()], ingest, CONFIG)


def days(found: Computed) -> list[CrossPlatformInsight]:
    return [each for each in found.insights if each.window == "24h"]


@pytest.mark.parametrize("way", ["topic", "settings"])
@pytest.mark.parametrize(("date", "length"), [("2026-03-08", 23), ("2026-03-07", 24), ("2026-11-01", 25)])
def test_days_of_23_and_25_hours_by_topic_and_by_settings(way: str, date: str, length: int) -> None:
    """A day's report pulled half way through it covers half of it; at its end, all."""
    known = Accounts({"meta:77": Account(LA, "USD")})
    day = next(day for day in range(FIRST - 1, FIRST + 400) if iso_date(day) == date)
    start, end = start_of_day(day, LA), end_of_day(day, LA)
    assert end - start == length * HOUR
    first = account(T0, time_zone=LA, currency="USD")
    for pulled, coverage in ((start + (end - start) // 2, 0.5), (end - HOUR, 1 - 1 / length), (end, 1.0)):
        facts = (row(date, pulled - T0), *([first] if way == "topic" else []))
        (found,) = days(computed(*facts, accounts=known if way == "settings" else None))
        meta = found.platform_breakdown["meta"]
        assert (meta.zones, meta.zone_assumed) == ([LA], False)
        assert meta.coverage == pytest.approx(coverage)
        assert [money.currency for money in meta.totals.money] == ["USD"]


def test_a_late_fact_changes_later_rows_alone() -> None:
    before, after = row("2026-03-07", DAY, campaign="1"), row("2026-03-07", 3 * DAY, campaign="2")
    found = days(computed(before, account(T0 + 2 * DAY, time_zone=KOLKATA, currency="INR"), after))
    told = [(each.platform_breakdown["meta"].zone_assumed, each.totals.currency) for each in found]
    assert told == [(True, ""), (False, "INR")]
    restated = row("2026-03-07", 3 * DAY, campaign="1")
    (again,) = days(computed(before, account(T0 + 2 * DAY, time_zone=KOLKATA, currency="INR"), restated))
    assert not again.platform_breakdown["meta"].zone_assumed


def test_deltas_fall_on_the_accounts_own_date() -> None:
    early = delta("e", at=HOUR, account_id="77", clicks=1)
    assert [each.window_start for each in days(computed(early))] == ["2026-03-07"]
    assert [each.window_start for each in days(computed(account(T0, time_zone=LA), early))] == ["2026-03-06"]


def test_facts_are_accounted_for_and_rejected_ones_are_dead_letters() -> None:
    wrong = account(T0, time_zone="Middle/Earth")
    future = account(T0, time_zone=LA, updated_at=T0 + DAY)
    gone = Fact(ACCOUNTS, T0, None, b"nothing")
    found = computed(account(T0, time_zone=LA), wrong, future, gone, row("2026-03-07", DAY))
    assert [(each.letter.code, each.letter.source.topic) for each in found.rejected] == [
        ("bad_account", ACCOUNTS),
        ("in_the_future", ACCOUNTS),
    ]
    books = found.accounting
    assert books.adds_up
    assert (books.rows, books.applied, books.ignored) == (5, 2, {"tombstone": 1})


def test_an_iterator_gives_facts_first() -> None:
    one = (METRICS_TOPICS[Platform.META], 0, [Record(0, T0, None, b"{}")])
    two = (ACCOUNTS, 0, [Record(0, T0, None, b"{}")])
    with pytest.raises(ValueError, match=r"ads\.accounts must come before"):
        compute(iter([one, two]), Ingest(partitions=1), CONFIG)
    assert compute([one, two], Ingest(partitions=1), CONFIG).accounting.rows == 2


events = st.one_of(
    st.builds(
        lambda at, zone, currency, updated: account(
            T0 + at * HOUR, time_zone=zone, currency=currency, updated_at=T0 + updated
        ),
        st.integers(0, 60),
        st.sampled_from((LA, KOLKATA, None, "x")),
        st.sampled_from(("EUR", "USD", None)),
        st.integers(0, 2),
    ),
    st.builds(
        lambda at, clicks, campaign: row("2026-03-07", at * HOUR, clicks, campaign=campaign),
        st.integers(1, 60),
        st.integers(0, 3),
        st.sampled_from("12"),
    ),
    st.builds(lambda at, name: delta(name, at * HOUR, account_id="act_77", clicks=1), st.integers(0, 50), st.text()),
)


@examples(100)
@given(st.lists(events, max_size=12, unique_by=repr), st.data())
def test_any_batches_and_redelivery_give_the_same(history: Sequence[Fact], data: st.DataObject) -> None:
    """Once as one batch of each topic, and once torn in any way, each part read twice, with facts as they come."""
    expected = [insight_codec.content(each) for each in computed(*history).insights]
    by_arrival = sorted(history, key=lambda fact: (fact.arrival, fact.topic != ACCOUNTS))
    ingest = Ingest(partitions=1)
    batches: list[tuple[str, int, list[Record]]] = []
    for (topic, partition), records in arrange(by_arrival).items():
        while records:
            size = data.draw(st.integers(1, len(records)))
            batches += [(topic, partition, records[:size])] * 2
            records = records[size:]
    found = compute(batches, ingest, CONFIG)
    assert [insight_codec.content(each) for each in found.insights] == expected


# On real servers


@pytest.fixture
def app(kafka: str, redis_server: tuple[str, int], tmp_path: Path) -> Iterator[Live]:
    with Live(kafka, redis_server, tmp_path, partitions=2, reporting_currency="USD") as app:
        yield app


def sim(fact: Fact) -> SimRecord:
    return SimRecord(fact.topic, fact.key, fact.value, fact.arrival, [])


@pytest.mark.kafka
def test_the_follower_knows_whatever_was_there_when_it_was_asked(app: Live) -> None:
    settings, feed = app.settings, Feed(app.settings)
    feed.publish([sim(account(T0, account_id=str(number), time_zone=LA)) for number in range(50)])

    async def follow() -> None:
        follower = AccountFollower(settings, ingest_config(settings))
        await follower.start()
        try:
            assert zone(follower, "49") == LA
            for number in range(5):
                feed.publish([sim(account(T0, account_id="7", time_zone=(LA, KOLKATA)[number % 2]))])
                await follower.catch_up()
                assert zone(follower, "7") == (LA, KOLKATA)[number % 2]
            began, asked = time.monotonic(), follower.asked
            for _ in range(20):
                await follower.catch_up()
            # A question that waited for a fetch to time out would take half a second.
            assert (follower.asked - asked, time.monotonic() - began < 5) == (20, True)
            asked = follower.asked
            await asyncio.gather(*(follower.catch_up() for _ in range(20)))
            assert 1 <= follower.asked - asked <= 2
        finally:
            await follower.stop()

    asyncio.run(follow())


@pytest.mark.kafka
@pytest.mark.redis
@pytest.mark.parametrize("error", [KafkaTimeoutError("within 40000 ms"), NodeNotReadyError("node 1")])
def test_the_follower_waits_for_a_broker_beyond_its_clients_deadlines(
    app: Live, monkeypatch: pytest.MonkeyPatch, error: KafkaError
) -> None:
    settings, feed = app.settings, Feed(app.settings)
    asks = AIOKafkaConsumer.end_offsets
    refused: list[KafkaError] = []

    async def away(consumer: AIOKafkaConsumer, partitions: Any) -> Any:
        if len(refused) < 3:
            refused.append(error)
            raise error
        return await asks(consumer, partitions)

    async def follow() -> None:
        follower = AccountFollower(settings, ingest_config(settings))
        await follower.start()
        try:
            feed.publish([sim(account(T0, account_id="7", time_zone=LA))])
            monkeypatch.setattr(AIOKafkaConsumer, "end_offsets", away)
            await follower.catch_up()
            assert (len(refused), zone(follower, "7")) == (3, LA)
        finally:
            await follower.stop()

    asyncio.run(follow())


def zone(follower: AccountFollower, account_id: str) -> str:
    return follower.history.at(1 << 60).of(Platform.META, account_id).time_zone


@pytest.mark.kafka
@pytest.mark.redis
def test_facts_of_accounts_and_rates_through_the_worker(app: Live) -> None:
    """Scenario: rows, then facts of their account and a rate, more rows, wrong facts, a worker that is killed, another
    rate.

    Expectation: what the topics and Redis hold is what is computed from the records; every row has its end.
    """
    worker, feed = app.start(), Feed(app.settings)
    app.ready(worker)
    feed.publish([sim(row("2026-03-07", DAY, campaign=f"c{number}")) for number in range(20)])
    app.drain(feed.count)
    rate = {"version": 1, "date": "2026-03-07", "currency": "EUR", "per": "USD", "rate": "1.1"}
    feed.publish(
        [
            sim(account(T0, time_zone=LA, currency="EUR")),
            sim(account(T0, time_zone="Middle/Earth")),
            SimRecord(RATES, b"EUR:2026-03-07", json.dumps(rate).encode(), T0, []),
            SimRecord(RATES, b"EUR:2026-03-08", b"{}", T0, []),
        ]
    )
    feed.publish([sim(row("2026-03-07", 2 * DAY, 2, campaign=f"c{number}")) for number in range(10)])
    app.drain(feed.count)
    worker.process.kill()
    worker = app.start()
    app.ready(worker)
    feed.publish([SimRecord(RATES, b"EUR:2026-03-07", json.dumps(rate | {"rate": 1.2}).encode(), T0, [])])
    feed.publish([sim(row("2026-03-08", 3 * DAY, campaign="c1"))])
    accounting = app.drain(feed.count)
    found = offline(feed, app.settings)
    expected = by_id(found.insights)
    app.check(expected)
    assert accounting["dead_letters"] == {"bad_account": 1, "bad_rate": 1} == found.accounting.dead_letters
    assert accounting["records"] == found.accounting.records == feed.count
    spends = {
        (each.campaign_id, each.totals.reporting.spend_micros if each.totals.reporting else -1)
        for each in expected.values()
        if each.window == "24h" and each.window_start == "2026-03-07"
    }
    assert ("meta:c0", 1_200_000) in spends
    assert ("meta:c19", None) in spends
    told = app.command("replay")
    assert (told.returncode, told.stdout) == (0, ""), told.stderr
    assert (
        f"{len(expected):,} insights from {feed.count:,} records beside insights.latest and Redis: equal" in told.stderr
    )
