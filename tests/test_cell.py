"""A snapshot cell holds its newest pull, whatever order the pulls arrive in."""

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from core.cell import Cell, Merge, merge
from schemas.metrics import WIDTH


def pull(observed_ms: int, impressions: int) -> Cell:
    return Cell(observed_ms, (impressions, *(None,) * (WIDTH - 1)), 0, "a", "USD", "")


def held_after(pulls: tuple[Cell, ...]) -> Cell:
    held: Cell | None = None
    for each in pulls:
        held, _ = merge(held, each)
    assert held is not None
    return held


def test_a_value_pulled_again_beats_a_restatement_pulled_in_between() -> None:
    """Scenario: 10, then 12, then 10 again. Expectation: 10 holds, in every order of arrival."""
    pulls = (pull(1, 10), pull(2, 12), pull(3, 10))
    assert {held_after(order) for order in permutations(pulls)} == {pull(3, 10)}


def test_what_became_of_a_pull_is_told() -> None:
    assert merge(pull(2, 10), pull(3, 10))[1] is Merge.DUPLICATE
    assert merge(pull(2, 10), pull(3, 9))[1] is Merge.APPLIED
    assert merge(pull(2, 10), pull(1, 9))[1] is Merge.SUPERSEDED


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=5))
def test_any_order_ends_with_the_same_cell(pulls: list[tuple[int, int]]) -> None:
    cells = tuple(pull(*each) for each in pulls)
    assert len({held_after(order) for order in permutations(cells)}) == 1
