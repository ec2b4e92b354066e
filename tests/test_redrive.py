"""Redriven records: the same record once more, judged and stamped by its first arrival, however often it comes."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.accounting import Accounting, account
from core.accounts import read_account
from core.aggregate import Aggregate, rollup_record
from core.campaigns import Campaigns
from core.ingest import Ingest, RejectedRow
from core.lateness import Lateness
from schemas import dead_letter, envelope
from schemas import insight as insight_codec
from schemas.account import AccountFact
from schemas.dead_letter import REDRIVE_HEADER, Redrive
from schemas.insight import CrossPlatformInsight
from schemas.topics import RATES
from tests.histories import (
    DAY,
    HOUR,
    LINKS,
    T0,
    TOPICS,
    Fact,
    History,
    Record,
    Sources,
    arrange,
    delta,
    examples,
    histories,
    link,
    snapshot,
)
from tests.pipeline import CONFIG

META = TOPICS["meta"]
INGEST = Ingest(partitions=1)
PATIENT = Lateness(horizon_ms=10_000 * DAY, delta_ms=10_000 * DAY, future_ms=10_000 * DAY, clock_ms=10_000 * DAY)
Batch = tuple[Ingest, Sources]


def header(arrival_ms: Any, letter: Any = "ads.metrics.meta/0/1/0") -> tuple[str, bytes]:
    return REDRIVE_HEADER, json.dumps({"id": letter, "arrival_ms": arrival_ms}).encode()


def play(*batches: Batch) -> tuple[list[CrossPlatformInsight], Accounting, list[RejectedRow]]:
    """Batch after batch, each judged in its own way, into one state."""
    aggregate, campaigns = Aggregate(), Campaigns(CONFIG)
    rejected: list[RejectedRow] = []
    offset = rows = 0
    for ingest, sources in batches:
        for source, records in sources.items():
            ingested = ingest.batch(*source, records)
            rejected += ingested.rejected
            rows += ingested.rows
            for _, payload in ingested.envelopes:
                aggregate.apply(offset, payload)
                offset += 1
    _, messages = aggregate.take_writes(publish=True)
    for position, message in enumerate(messages):
        campaigns.apply(position, rollup_record(message)[1])
    return list(campaigns.insights()), account(aggregate.tallies.values(), rows), rejected


def redriven(rejected: Sequence[RejectedRow], after: Sources, now: int) -> Sources:
    """The rejected records once more, at the ends of their partitions."""
    ends = {source: len(records) for source, records in after.items()}
    again: Sources = {}
    seen = set()
    for row in rejected:
        at, record = row.letter.source, row.record
        source = (at.topic, at.partition)
        if (source, at.offset) in seen:
            continue
        seen.add((source, at.offset))
        told = dead_letter.encode_redrive(Redrive(id=row.letter.first_id, arrival_ms=at.timestamp_ms))
        offset = ends[source] = ends[source] + 1
        headers = [*record.headers, (REDRIVE_HEADER, told)]
        again.setdefault(source, []).append(Record(offset, now, record.key, record.value, headers))
    return again


def contents(insights: Sequence[CrossPlatformInsight]) -> list[bytes]:
    return [insight_codec.content(insight) for insight in insights]


@given(histories(), st.integers(0, 2))
@examples(60)
def test_redriving_under_a_longer_horizon_gives_what_that_horizon_would_have_given(
    history: History, again: int
) -> None:
    strict, patient = Ingest(partitions=1), Ingest(partitions=1, lateness=PATIENT)
    sources = arrange(history)
    _, before, rejected = play((strict, sources))
    redrives = [redriven(rejected, sources, T0 + 3_000 * DAY) for _ in range(again + 1)]
    for number, batch in enumerate(redrives):
        for records in batch.values():
            for record in records:
                record.offset += 1_000 * number
    found, books, _ = play((strict, sources), *((patient, batch) for batch in redrives))
    expected, whole, _ = play((patient, sources))
    assert contents(found) == contents(expected)
    once = {(row.letter.source.topic, row.letter.source.offset) for row in rejected}
    assert books.records == before.records + len(redrives) * len(once)
    assert books.adds_up
    late = before.dead_letters.get("too_late", 0) + before.dead_letters.get("in_the_future", 0)
    assert books.applied - before.applied <= late, "what was redriven twice is applied once"
    assert (whole.applied > 0) == (books.applied > 0)


@given(histories(), st.integers(1, 2_000))
@examples(40)
def test_redriving_everything_changes_nothing(history: History, days: int) -> None:
    """Every record, whether it was used or not, may come again at any later time: the insights stay."""
    ingest, sources = Ingest(partitions=1), arrange(history)
    before, books, _ = play((ingest, sources))
    again: Sources = {
        (topic, partition): [
            replace(record, offset=record.offset + 100, timestamp=record.timestamp + days * DAY, headers=[told])
            for record in records
            for told in [header(record.timestamp)]
        ]
        for (topic, partition), records in sources.items()
    }
    after, twice, _ = play((ingest, sources), (ingest, again))
    assert contents(after) == contents(before)
    assert twice.applied == books.applied
    assert twice.records == 2 * books.records
    assert twice.dead_letters == {code: 2 * count for code, count in books.dead_letters.items()}


def one(record: Record, topic: str = META, ingest: Ingest | None = None) -> Any:
    [(_, payload)] = (ingest or Ingest(partitions=1)).batch(topic, 0, [record]).envelopes
    return envelope.decode(payload)


UNDATED = {"version": 1, "kind": "snapshot", "platform": "meta", "campaign_id": "1", "impressions": 5}
DATED: dict[str, Any] = UNDATED | {"period_start": T0, "period_end": T0 + DAY}


def test_a_row_without_a_pull_time_was_pulled_at_its_first_arrival() -> None:
    first = Record(5, T0 + 9 * DAY, None, json.dumps(DATED).encode(), [header(T0 + DAY)])
    assert one(first).snapshots[0].event.observed_ms == T0 + DAY
    assert one(first).watermark_ms == T0 + DAY
    newer = Record(3, T0 + 2 * DAY, None, json.dumps(DATED | {"impressions": 9}).encode())
    old = Record(0, T0 + 9 * DAY, None, json.dumps(DATED).encode(), [header(T0 + DAY)])
    ingest = Ingest(partitions=1)
    [daily] = [
        insight
        for insight in play((ingest, {(META, 0): [newer]}), (ingest, {(META, 0): [replace(old, offset=4)]}))[0]
        if insight.window == "24h"
    ]
    assert daily.totals.impressions == 9, "the redriven row is older than the restatement"


def test_a_link_holds_from_its_first_arrival() -> None:
    fact = link("spring")
    assert one(Record(1, T0 + 9 * DAY, fact.key, fact.value, [header(T0)]), LINKS).links[0].link.updated_ms == T0
    withdrawn = Record(1, T0 + 9 * DAY, b"meta:1", None, [header(T0 + 5)])
    assert one(withdrawn, LINKS).links[0].link.updated_ms == T0 + 5


def test_a_rate_and_a_fact_of_an_account_hold_from_their_first_arrival() -> None:
    rate = {"version": 1, "date": "2026-03-07", "currency": "EUR", "per": "USD", "rate": "1.1"}
    account = {"version": 1, "platform": "meta", "account_id": "7", "currency": "EUR"}
    again = [header(T0)]
    told = Record(1, T0 + 9 * DAY, None, json.dumps(rate).encode(), again)
    (fact,) = INGEST.batch(RATES, 0, [told]).rates
    assert fact.updated_ms == T0
    early = Record(1, T0 + 9 * DAY, None, json.dumps(rate | {"updated_at": T0 + DAY}).encode(), again)
    assert [row.letter.code for row in INGEST.batch(RATES, 0, [early]).rejected] == ["in_the_future"]
    said = read_account(Record(1, T0 + 9 * DAY, None, json.dumps(account).encode(), again), INGEST.lateness, 500)
    assert isinstance(said, AccountFact)
    assert said.updated_ms == T0


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"5",
        b'{"id":"a"}',
        b'{"arrival_ms":5}',
        b'{"id":"","arrival_ms":5}',
        b'{"id":"a","arrival_ms":-1}',
        b'{"id":"a","arrival_ms":"5"}',
        b'{"id":"a","arrival_ms":5.5}',
        b'{"id":"a","arrival_ms":99999999999999999999999}',
        b'{"id":' + b"[" * 2_000,
        header(T0 + 9 * DAY + 1)[1],
        json.dumps({"id": "a" * 401, "arrival_ms": T0}).encode(),
    ],
)
def test_a_header_that_is_unsound_or_claims_the_future_is_ignored(told: bytes) -> None:
    record = Record(5, T0 + 9 * DAY, None, json.dumps(DATED).encode(), [(REDRIVE_HEADER, told)])
    assert one(record).snapshots[0].event.observed_ms == T0 + 9 * DAY
    refused = replace(record, value=b"{")
    [row] = Ingest(partitions=1).batch(META, 0, [refused]).rejected
    assert row.letter.source.timestamp_ms == T0 + 9 * DAY
    assert row.letter.redriven_from is msgspec.UNSET


def test_the_last_header_counts_and_others_stay_in_force() -> None:
    headers = [header(T0 + HOUR), ("parallax-account", b"77"), header(T0 + DAY)]
    event = one(Record(5, T0 + 9 * DAY, None, json.dumps(DATED).encode(), headers)).snapshots[0].event
    assert (event.observed_ms, event.account_id) == (T0 + DAY, "77")


def test_what_fails_again_names_its_first_dead_letter_and_keeps_its_first_arrival() -> None:
    strict = Ingest(partitions=1)
    late = snapshot(pulled=101 * DAY, impressions=1)
    sources: Sources = {(META, 0): [Record(0, late.arrival, None, late.value)]}
    _, _, [first] = play((strict, sources))
    again = redriven([first], sources, late.arrival + DAY)
    _, _, [second] = play((strict, again))
    assert (second.letter.code, second.letter.redriven_from) == ("too_late", "ads.metrics.meta/0/0/0")
    assert (second.letter.source.offset, second.letter.source.timestamp_ms) == (2, late.arrival)
    assert second.letter.sentence == first.letter.sentence
    [third] = play((strict, redriven([second], {(META, 0): [*sources[META, 0]] * 3}, late.arrival + 2 * DAY)))[2]
    assert (third.letter.redriven_from, third.letter.source.timestamp_ms) == (first.letter.id, late.arrival)


def test_a_redriven_delta_is_as_late_as_it_was() -> None:
    fact: Fact = delta("e-1", impressions=3)
    told = header(fact.arrival)
    record = Record(4, fact.arrival + 40 * DAY, None, fact.value, [told])
    assert one(record).deltas is not None
    assert not Ingest(partitions=1).batch(META, 0, [record]).rejected
    [row] = Ingest(partitions=1).batch(META, 0, [replace(record, headers=[])]).rejected
    assert row.letter.code == "too_late"


def test_the_wire_of_a_redrive_is_for_ever() -> None:
    golden = b'{"id":"ads.metrics.meta/3/41/2","arrival_ms":1772841600000}'
    redrive = Redrive(id="ads.metrics.meta/3/41/2", arrival_ms=T0)
    assert dead_letter.encode_redrive(redrive) == golden
    assert dead_letter.redrive_of([("other", b"1"), (REDRIVE_HEADER, golden)], T0) == redrive
    source = dead_letter.SourcePosition(META, 3, 50, 2, T0)
    letter = dead_letter.describe(source, "negative", "no", "ads.metrics.meta/3/41/2")
    assert dead_letter.encode(letter) == (
        b'{"version":1,"id":"ads.metrics.meta/3/50/2","code":"negative","sentence":"no","source":{"topic":'
        b'"ads.metrics.meta","partition":3,"offset":50,"index":2,"timestamp_ms":1772841600000},'
        b'"redriven_from":"ads.metrics.meta/3/41/2"}'
    )
    assert dead_letter.decode(dead_letter.encode(letter)) == letter
