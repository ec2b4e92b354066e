"""What a state holds is a function of the set of records: not of their order, batches or repeats."""

import json
from collections import defaultdict
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from core.aggregate import Aggregate
from core.cell import Cell, merge
from core.ingest import Ingest
from core.links import Linked, own_name
from core.panes import AT_ONCE, MAX_SUM, Panes
from schemas import rollup as rollup_codec
from schemas.envelope import PaneKey, encode_pane_key
from schemas.link import Link
from schemas.metrics import MAX_MICROS, METRICS, WIDTH
from schemas.platform import Platform
from schemas.rollup import Rollup
from tests.histories import T0, Fact, History, arrange, deltas, examples, histories, links, native, snapshots
from tests.pipeline import put

PAIRS = Path(__file__).parents[2] / "shared" / "native" / "google_ads" / "restated_pairs.json"
HEAD = 9
"""Bytes of a block before its content: version and revision."""

# Cells


def cells() -> st.SearchStrategy[Cell]:
    """Reports of one row, pulled at one of four times, with small values, or none, and other texts."""
    value = st.sampled_from((None, 0, 1, 2))
    return st.builds(
        lambda at, clicks, spend, account, currency, zone: Cell(
            at, (None, clicks, None, spend, *(None,) * (WIDTH - 4)), 0, account, currency, zone
        ),
        st.integers(0, 3),
        value,
        value,
        st.sampled_from(("", "77")),
        st.sampled_from(("", "USD")),
        st.sampled_from(("", "UTC")),
    )


def joined(*pulls: Cell) -> Cell:
    held, *rest = pulls
    for each in rest:
        held, _ = merge(held, each)
    return held


@examples(400)
@given(cells(), cells(), cells())
def test_cells_merge_commutatively_associatively_and_idempotently(a: Cell, b: Cell, c: Cell) -> None:
    assert joined(a, b) == joined(b, a)
    assert joined(joined(a, b), c) == joined(a, joined(b, c))
    assert joined(a, a) == joined(a)
    assert joined(a, b, a, b) == joined(a, b)
    assert {joined(*order) for order in permutations((a, b, c))} == {joined(a, b, c)}


# Links


def link_facts() -> st.SearchStrategy[Link]:
    """A link of one platform campaign to one of two campaigns, or to none."""
    target = st.sampled_from(("", "spring", "summer"))
    return st.builds(lambda campaign, at: Link(Platform.META, "1", campaign, at), target, st.integers(0, 3))


def linked(facts: Sequence[Link]) -> tuple[Linked, set[str]]:
    """What holds after some links, and every campaign that the platform campaign stood under on the way."""
    state = Linked(Platform.META, "1")
    stood = {state.canonical}
    for revision, fact in enumerate(facts, start=1):
        state.merge(fact, revision)
        stood.add(state.canonical)
    return state, stood


@examples(400)
@given(st.lists(link_facts(), max_size=5), st.data())
def test_links_in_any_order_and_repeated_end_with_the_same_campaign(facts: list[Link], data: st.DataObject) -> None:
    """Withdrawals are links like others. Whatever campaign it stood under on the way is known as a former one."""
    other = data.draw(st.permutations(facts + facts[:2]))
    for order in (facts, other):
        note(f"{[(fact.campaign_id, fact.updated_ms) for fact in order]}")
    (one, _), (two, stood) = linked(facts), linked(other)
    assert (one.canonical, one.updated_ms) == (two.canonical, two.updated_ms)
    assert set(two.former) == stood - {two.canonical}
    newest = max(((fact.updated_ms, fact.campaign_id) for fact in facts), default=(-1, ""))
    assert one.canonical == (newest[1] or own_name(Platform.META, "1"))


# Panes

KEY = encode_pane_key(PaneKey(Platform.META, "1", 20_000, 480_000, "", "", (), "USD", ""))
additions = st.lists(
    st.tuples(st.sampled_from((0, 1, 7, MAX_MICROS)), st.sampled_from((1, 2, 50, 2 * AT_ONCE))), max_size=5
)


def pane_sum(batches: Sequence[tuple[int, int]]) -> int | None:
    """The clicks of a pane to which batches of so many rows of a value are added."""
    panes = Panes()
    row = panes.row(KEY)
    for value, count in batches:
        values = np.full((count, WIDTH), -1, dtype=np.int64)
        values[:, 1] = value
        panes.add(np.full(count, row), values, np.zeros(count, dtype=np.int64))
    return panes.values(row)[0][1]


@examples(100)
@given(additions, st.data())
def test_a_pane_is_the_sum_of_its_rows_up_to_a_limit_in_any_order(
    batches: list[tuple[int, int]], data: st.DataObject
) -> None:
    """No sum leaves int64, in whatever order the greatest rows that ingest lets in are added."""
    total = sum(value * count for value, count in batches)
    expected = min(total, MAX_SUM) if batches else None
    assert pane_sum(batches) == expected
    assert pane_sum(data.draw(st.permutations(batches))) == expected


# States


def held(batches: Sequence[Sequence[Fact]]) -> dict[str, Any]:
    """What a state holds after some batches, each an ingest of its own: revisions and the course of events aside."""
    ingest, state, table, offset = Ingest(partitions=1), Aggregate(), dict[bytes, bytes](), 0
    messages = []
    for batch in batches:
        for (topic, _), records in arrange(batch).items():
            for _, payload in ingest.batch(topic, 0, records).envelopes:
                state.apply(offset, payload)
                offset += 1
        writes, sent = state.take_writes(publish=True)
        put(table, writes)
        messages += [message for message in sent if isinstance(message, Rollup)]
    found: dict[str, Any] = {"block": {}, "link": {}, "ids": defaultdict(set), "rollup": {}, "campaign": {}}
    for key, value in table.items():
        kind, *name = msgspec.msgpack.decode(key)
        if kind == "block":
            found["block"][tuple(name)] = value[HEAD:]
        elif kind == "link":
            known = msgspec.msgpack.decode(value, type=Linked)
            found["link"][tuple(name)] = (known.campaign_id, known.updated_ms)
        elif kind == "ids":
            found["ids"][name[0]] |= {value[at : at + 16] for at in range(0, len(value), 16)}
    for message in sorted(messages, key=lambda message: message.revision):
        place = (message.campaign_id, message.platform, message.platform_campaign_id, message.day)
        if message.withdrawn:
            found["rollup"].pop(place, None)
        else:
            found["rollup"][place] = rollup_codec.encode(msgspec.structs.replace(message, revision=0, link_revision=0))
    return found


def told(name: str, batches: Sequence[Sequence[Fact]]) -> None:
    for number, batch in enumerate(batches):
        for fact in batch:
            note(f"{name}, batch {number}: {fact}")


@examples(200)
@given(histories(), st.data())
def test_a_state_is_the_same_over_any_order_and_batches(history: History, data: st.DataObject) -> None:
    """Restatements up and down, repeated ids in other dress, levels, segments, grains, links late and withdrawn."""
    other = data.draw(st.permutations(history + history[:2]))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(other)), max_size=3)))
    batches = [other[start:end] for start, end in zip([0, *cuts], [*cuts, len(other)], strict=True)]
    told("one", [history])
    told("other", batches)
    assert held(batches) == held([history])


@examples(150)
@given(
    st.lists(st.one_of(snapshots(), deltas(), links()), max_size=4),
    st.lists(st.one_of(snapshots(), deltas(), links()), max_size=4),
)
def test_two_sets_of_records_merge_either_way_round(left: History, right: History) -> None:
    told("left, right", [left, right])
    both = held([left, right])
    assert held([right, left]) == both
    assert held([left, right, left]) == both, "what is there already adds nothing"


@pytest.mark.parametrize("order", list(permutations(range(4))), ids=str)
def test_the_real_restated_pairs_end_with_the_later_pull(order: tuple[int, ...]) -> None:
    """Two days, pulled on 2024-01-15 and again on 2024-02-14, of which Google changed the second."""
    rows = json.loads(PAIRS.read_bytes())
    facts = [
        native(
            "google_ads",
            {name: value for name, value in row.items() if name not in ("pull", "emitted_at_ms")},
            "ad_group_ad",
            row["emitted_at_ms"] - T0,
        )
        for row in rows
    ]
    found = held([[facts[index]] for index in order])
    rollups = [rollup_codec.decode(payload) for payload in found["rollup"].values()]
    totals = [
        message.day_totals
        for message in sorted(rollups, key=lambda m: getattr(m, "day", 0))
        if isinstance(message, Rollup)
    ]
    later = [row for row in rows if row["pull"] == "VoodooTeam"]
    assert [each and each.money[0].revenue_micros for each in totals] == [
        round(row["metrics.conversions_value"] * 1_000_000) for row in later
    ]
    conversions = METRICS.index("conversions_micros")
    assert [each and each.values[conversions] for each in totals] == [6_623_899, 15_295_535]
