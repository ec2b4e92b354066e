"""The benchmark of predictions measures a checkpoint that has them beside one that has not."""

import pytest

from bench.checkpoints import DirtyCheckpoints


@pytest.mark.parametrize("tier", [False, True])
def test_a_checkpoint_with_predictions_stands_beside_one_without(*, tier: bool) -> None:
    checkpoints = DirtyCheckpoints(4, 12, tier=tier)
    cost = checkpoints.cost(2)
    assert (len(cost.with_predictions), len(cost.without)) == (2, 2)
    assert (cost.insights, cost.predictions, cost.modelled) == (12, 12, 12 if tier else 0)
    assert cost.spread[0] <= cost.ratio <= cost.spread[1]


@pytest.mark.alone
def test_predictions_add_less_than_a_fifth_to_a_checkpoint() -> None:
    """The least CPU time of each kind in one process, for what else goes on only adds."""
    cost = DirtyCheckpoints(1_000, 8, tier=True).cost(5)
    assert cost.modelled == cost.predictions == 3_000
    assert 0 < min(cost.with_predictions) / min(cost.without) - 1 < 0.20
