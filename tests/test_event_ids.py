"""Event ids: each counts once on its day, however the rows come in runs."""

import msgspec
import numpy as np
from hypothesis import given, note
from hypothesis import strategies as st

from core.event_ids import IDS_PER_CHUNK, EventIds
from tests.histories import examples

Run = list[tuple[str, int]]
runs = st.lists(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 2)), max_size=8), max_size=6)


def digest(name: str) -> bytes:
    """Some end and begin in zeros, which no array may strip."""
    return (b"\0" + name.encode() * 2).ljust(16, b"\0")


def fresh(ids: EventIds, run: Run, *, whole_keys: bool = True) -> list[bool]:
    """A run's answer. The days come by key; without ``whole_keys`` only those that occur are given."""
    days = [0, 1, 2] if whole_keys else sorted({day for _, day in run})
    index = np.array([days.index(day) for _, day in run], dtype=np.uint32)
    answer: list[bool] = ids.fresh([digest(name) for name, _ in run], index, days).tolist()
    return answer


@examples(300)
@given(runs)
def test_a_run_at_once_is_the_same_as_row_by_row(history: list[Run]) -> None:
    """Runs of one day and of several, with repeats within and between them."""
    at_once, one_by_one, seen = EventIds(), EventIds(), set[tuple[str, int]]()
    for position, run in enumerate(history):
        note(f"run {position}: {run}")
        expected = []
        for row in run:
            expected.append(row not in seen)
            seen.add(row)
        assert fresh(at_once, run, whole_keys=False) == expected
        assert [fresh(one_by_one, [row])[0] for row in run] == expected
        assert at_once.take_writes(position) == one_by_one.take_writes(position)
    assert len(at_once) == len(one_by_one) == len(seen)


@examples(100)
@given(runs, st.integers(0, 6), st.integers(-1, 4))
def test_what_the_table_holds_is_known_after_a_restart_but_for_days_gone(
    history: list[Run], cut: int, floor: int
) -> None:
    """Chunks past the mark do not count, and are deleted with their day all the same."""
    ids, table, restored = EventIds(), [], EventIds()
    for position, run in enumerate(history):
        fresh(ids, run)
        table += [(position, write) for write in ids.take_writes(position)]
    days = {write.key: int(msgspec.msgpack.decode(write.key)[1]) for _, write in table}
    for position, write in table:
        restored.restore(days[write.key], write.key, write.value if position < cut else None)
    deletes = restored.expire(floor)
    assert {write.key for write in deletes} == {key for key, day in days.items() if day < floor}
    known = {row for run in history[:cut] for row in run if row[1] >= floor}
    assert len(restored) == len(known)
    for row in sorted({row for run in history for row in run}):
        if row[1] >= floor:
            assert fresh(restored, [row]) == [row not in known]


def test_a_day_of_many_ids_lies_in_several_chunks() -> None:
    ids = EventIds()
    names = [digest(str(number)) for number in range(IDS_PER_CHUNK + 1)]
    assert ids.fresh(names, np.zeros(len(names), dtype=np.uint32), [7]).all()
    writes = ids.take_writes(0)
    assert [len(write.value or b"") for write in writes] == [16 * IDS_PER_CHUNK, 16]
    assert len({write.key for write in writes}) == 2
