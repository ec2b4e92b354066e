"""Ingest: every row of a batch ends once, and it does not matter which of the two decoders saw it."""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy import frombuffer

from core.delta_columns import DeltaBatch
from core.ingest import MAX_BYTES, MAX_ROWS, Ingest, Ingested, chunks
from core.lateness import Lateness
from schemas import dead_letter, envelope
from schemas.calendar import Account, Accounts
from schemas.dead_letter import DeadLetter, SourcePosition
from schemas.decode import Reader, decode_record
from schemas.envelope import DeltaColumns, Envelope, LinkRow, OutcomeRow, SnapshotRow
from schemas.event import MetricEvent
from schemas.platform import Platform
from tests.histories import (
    DAY,
    HOUR,
    LINKS,
    T0,
    TOPICS,
    Fact,
    History,
    Record,
    Wire,
    arrange,
    delta,
    deltas,
    examples,
    histories,
    link,
    snapshot,
)

META = TOPICS["meta"]
ACCOUNTS = Accounts(
    {
        "meta:77": Account("America/Los_Angeles", "EUR"),
        "tiktok:": Account("Asia/Kolkata", ""),
        "google_ads:": Account("Middle/Earth", "USD"),
    }
)


def records(*facts: Fact) -> list[Record]:
    return [Record(offset, fact.arrival, fact.key, fact.value) for offset, fact in enumerate(facts)]


def opened(ingested: Ingested) -> dict[int, list[Envelope]]:
    found = defaultdict(list)
    for target, payload in ingested.envelopes:
        found[target].append(envelope.decode(payload))
    return found


odd: st.SearchStrategy[Wire] = st.dictionaries(
    st.sampled_from(
        [
            "report",
            "segments",
            "time_zone",
            "quality",
            "period_end",
            "observed_at",
            "currency",
            "clicks",
            "account_id",
            "event_id",
            "type",
            "stream",
            "error",
            "data",
        ]
    ),
    st.sampled_from([None, "", "77", "x" * 129, 5, 5.0, -1, 1.5, {}, {"a": "b"}, [], "\n", "EUR", "UTC", "é"]),
    max_size=3,
)


@examples(300)
@given(deltas(), odd, st.booleans())
def test_both_decoders_give_the_same_columns(fact: Fact, extra: Wire, escape: bool) -> None:
    """A payload that the fast path takes means the same to the general decoder, null and wrong types included."""
    payload = json.dumps({**json.loads(fact.value or b""), **extra}, ensure_ascii=escape).encode()
    fast, general = (DeltaBatch(ACCOUNTS, Lateness(), 3) for _ in range(2))
    seen = fast.add_payload(payload, 5, fact.arrival)
    if seen < 0:
        assert fast.columns() == {}
        return
    reader = Reader(platform=Platform.UNKNOWN, accounts=ACCOUNTS)
    (event,) = decode_record(payload, reader, arrival_ms=fact.arrival)
    assert isinstance(event, MetricEvent)
    assert Lateness().judge(event, fact.arrival) is None
    general.add_event(event, 5, 0)
    assert event.observed_ms == seen
    assert fast.columns() == general.columns()


def test_the_usual_delta_takes_the_fast_path() -> None:
    batch = DeltaBatch(Accounts(), Lateness(), 1)
    fact = delta("a", clicks=1, currency="EUR", ad_id="9", report="r")
    assert fact.value
    assert batch.add_payload(fact.value, 0, fact.arrival) == T0


@pytest.mark.parametrize("before", [b'{"spend":"1"}', delta("z", clicks=1).value])
@pytest.mark.parametrize(
    "extra", [{"segments": None}, {"time_zone": None}, {"report": 5}, {"report": "x" * 129}, {"currency": "\n"}]
)
def test_what_breaks_the_contract_is_refused_whatever_came_before_it(before: bytes, extra: Wire) -> None:
    fact = delta("a")
    assert fact.wire
    # Not the usual order of fields, so that what came before decides which decoder is tried.
    broken = replace(fact, value=json.dumps({"clicks": 1, **fact.wire, **extra}).encode())
    ingested = Ingest(partitions=1).batch(META, 0, records(replace(fact, value=before), broken))
    assert f"{META}/0/1/0" in {row.letter.id for row in ingested.rejected}


@examples(60)
@given(histories(), st.data())
def test_batches_of_any_size_carry_the_same_rows(history: History, data: st.DataObject) -> None:
    for source, batch in arrange(history).items():
        config = Ingest(partitions=3)
        whole = rows_of([config.batch(*source, batch)])
        parts, rest, watermark = [], batch, -1
        while rest:
            size = data.draw(st.integers(1, len(rest)))
            parts.append(config.batch(*source, rest[:size], watermark))
            watermark, rest = parts[-1].watermark_ms, rest[size:]
        assert rows_of(parts) == whole
        assert watermark == config.batch(*source, batch).watermark_ms


def rows_of(parts: Iterable[Ingested]) -> Any:
    """Rows by target and position, however they were enveloped; and the dead letters."""
    rows: dict[Any, Any] = {}
    letters = []
    for part in parts:
        letters += [row.letter for row in part.rejected]
        for target, messages in opened(part).items():
            for message in messages:
                listed: list[OutcomeRow | SnapshotRow | LinkRow] = [
                    *message.outcomes,
                    *message.snapshots,
                    *message.links,
                ]
                rows |= {(target, row.offset, row.index): row for row in listed}
                if message.deltas is not None:
                    rows.update(delta_rows(target, message.deltas))
    return rows, letters


def delta_rows(target: int, columns: DeltaColumns) -> dict[Any, Any]:
    index, offsets = frombuffer(columns.key_index, "<u4"), frombuffer(columns.offsets, "<i8")
    matrix = envelope.column_matrix(columns)
    return {
        (target, int(offset), 0): (
            columns.keys[int(index[row])],
            columns.ids[16 * row : 16 * row + 16],
            columns.observed[8 * row : 8 * row + 8],
            matrix[row].tolist(),
        )
        for row, offset in enumerate(offsets)
    }


def test_all_that_is_known_of_a_platform_campaign_goes_to_one_partition() -> None:
    config = Ingest(partitions=16)
    facts = {
        META: [snapshot(campaign="42", clicks=1), delta("a", campaign="42", clicks=1)],
        LINKS: [link("spring", campaign="42")],
    }
    targets = {
        target for topic, published in facts.items() for target in opened(config.batch(topic, 0, records(*published)))
    }
    assert targets == {envelope.target_partition("meta:42", 16)}


def test_what_ends_at_ingest_is_listed_once_at_the_sources_home() -> None:
    config = Ingest(partitions=4)
    poison = Fact(META, T0, b"{")
    envelopes = opened(config.batch(META, 6, records(poison, snapshot(clicks=1), poison)))
    listed = [(target, row.offset) for target, messages in envelopes.items() for m in messages for row in m.outcomes]
    assert listed == [(2, 0), (2, 2)]


def test_neighbours_of_poison_are_unaffected() -> None:
    sound = [snapshot(clicks=3), delta("a", clicks=1), delta("b", clicks=2)]
    poison = [Fact(META, T0, value) for value in (b"\xff", b"[" * 2000, b"{}", None, b"", b'{"clicks":NaN}')]
    mixed = [fact for pair in zip(poison, (sound * 2), strict=True) for fact in pair]
    ingested = Ingest(partitions=1).batch(META, 0, records(*mixed))
    (messages,) = opened(ingested).values()
    (message,) = messages
    assert message.deltas is not None
    assert len(message.snapshots) == 2
    assert len(message.deltas.ids) == 4 * envelope.ID_BYTES
    assert len(message.outcomes) == len(poison)
    assert [row.record.offset for row in ingested.rejected] == [0, 2, 4, 8, 10]
    assert ingested.rows == len(mixed)


def test_a_record_with_many_rows_ends_each_of_them() -> None:
    body = [
        {"campaign_id": "1", "date_start": "2026-03-07", "date_stop": "2026-03-07", "clicks": "4"},
        {"campaign_id": "1", "date_start": "2026-03-07", "date_stop": "2026-03-07", "clicks": "-4"},
        {"account_id": "9", "date_start": "2026-03-07", "date_stop": "2026-03-07", "clicks": "4"},
    ]
    record = Record(7, T0 + DAY, None, json.dumps({"data": body}).encode())
    ingested = Ingest(partitions=1).batch(META, 0, [record])
    ((message,),) = opened(ingested).values()
    assert [(row.offset, row.index) for row in message.snapshots] == [(7, 0)]
    assert [(row.offset, row.index, row.code) for row in message.outcomes] == [
        (7, 1, "negative"),
        (7, 2, "account_level"),
    ]
    assert [row.letter.id for row in ingested.rejected] == [f"{META}/0/7/1"]


@pytest.mark.parametrize("name", ["Middle/Earth", "../etc/passwd"])
def test_an_unknown_zone_in_the_settings_is_an_assumed_one(name: str) -> None:
    config = Ingest(partitions=1, accounts=Accounts({"meta:": Account(name, "EUR")}))
    ((message,),) = opened(config.batch(META, 0, records(delta("a", clicks=1)))).values()
    assert message.deltas is not None
    key = envelope.decode_pane_key(message.deltas.keys[0])
    assert (key.zone, key.currency) == ("", "EUR")


def test_an_account_in_a_header_counts_for_rows_that_name_none() -> None:
    record = records(delta("a", clicks=1))[0]
    record.headers = [("parallax-account", b"77")]
    ((message,),) = opened(Ingest(partitions=1, accounts=ACCOUNTS).batch(META, 0, [record])).values()
    assert message.deltas is not None
    assert envelope.decode_pane_key(message.deltas.keys[0]).zone == "America/Los_Angeles"


@pytest.mark.parametrize(
    ("fact", "delay", "code"),
    [
        (delta("a", clicks=1), DAY, None),
        (delta("a", clicks=1), DAY + 1, "too_late"),
        (delta("a", clicks=1), -5 * 60_000, None),
        (delta("a", clicks=1), -5 * 60_000 - 1, "in_the_future"),
        (snapshot(clicks=1, pulled=0), 100 * DAY, None),
        (snapshot(clicks=1, pulled=0), 100 * DAY + 1, "too_late"),
        (snapshot(clicks=1, pulled=-DAY), -DAY, None),
        (snapshot(clicks=1, pulled=-DAY), -DAY - 1, "in_the_future"),
        (snapshot(clicks=1, pulled=HOUR), HOUR - 5 * 60_000, None),
        (snapshot(clicks=1, pulled=HOUR), HOUR - 5 * 60_000 - 1, "in_the_future"),
    ],
)
def test_a_row_is_judged_by_its_own_arrival(fact: Fact, delay: int, code: str | None) -> None:
    """Both decoders judge alike: the second record's header sends it through the general one."""
    plain = Record(0, T0 + delay, None, fact.value)
    other = Record(1, T0 + delay, None, fact.value, [("x", b"")])
    rejected = Ingest(partitions=1).batch(META, 0, [plain, other]).rejected
    assert [row.letter.code for row in rejected] == [code] * 2 * (code is not None)


def test_batches_are_cut_to_what_a_kafka_record_may_hold() -> None:
    small = [Record(offset, T0, None, b"{}") for offset in range(MAX_ROWS + 1)]
    assert [len(chunk) for chunk in chunks(small)] == [MAX_ROWS, 1]
    large = [Record(offset, T0, None, b"x" * (MAX_BYTES // 4)) for offset in range(9)]
    assert [len(chunk) for chunk in chunks(large)] == [4, 4, 1]
    assert list(chunks([])) == []


def test_version_1_of_a_dead_letters_description_is_for_ever() -> None:
    golden = (
        b'{"version":1,"id":"ads.metrics.meta/3/41/2","code":"negative","sentence":"clicks must not be negative",'
        b'"source":{"topic":"ads.metrics.meta","partition":3,"offset":41,"index":2,"timestamp_ms":1772841600000}}'
    )
    letter = dead_letter.describe(SourcePosition(META, 3, 41, 2, T0), "negative", "clicks must not be negative")
    assert isinstance(letter, DeadLetter)
    assert dead_letter.encode(letter) == golden
    assert dead_letter.decode(golden) == letter
