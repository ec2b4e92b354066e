"""How much borrowing helps a campaign that is new on one platform: ``python -m examples.cold_start``."""

from collections.abc import Sequence

import msgspec
import numpy as np

from core.learning.borrowing import BorrowedCtr, CtrBorrowing, estimate, fit
from core.learning.training_rows import count_table, evidence_of
from examples.simulated import Simulated, simulate

SHOWN = (0, 100, 1_000, 10_000)
WAYS = ("alone", "creative", "platforms", "both")


class ColdStart(msgspec.Struct, frozen=True):
    """Relative RMSE of the estimated CTR and the share of true ones in the 90 % interval, by way of estimating."""

    error: dict[str, float]
    coverage: dict[str, float]

    def cut(self, way: str) -> float:
        """The share of the error that borrowing takes away."""
        return 1 - self.error[way] / self.error["alone"]


def measure(shown: int, world: Simulated, known: int, seed: int = 0) -> ColdStart:
    """Campaigns past the first ``known`` get so many impressions on one platform and keep the others' results."""
    history, new = world.campaigns[:known], world.campaigns[known:]
    table = count_table(history)
    fitted = fit(table.clicks, table.impressions, [campaign.creative_id for campaign in history])
    alone = msgspec.structs.replace(fitted, shared=0.0, creative=0.0, own=fitted.shared + fitted.own)
    truth = np.array([[world.truth[each.campaign_id, name].ctr for name in table.platforms] for each in new])
    base, counts = np.array(fitted.base_rate), count_table(new)
    evidence = evidence_of(fitted, new, history, table.platforms)
    errors: dict[str, list[float]] = {way: [] for way in WAYS}
    covered: dict[str, list[bool]] = {way: [] for way in WAYS}
    for column in range(len(base)):
        clicks, seen = counts.clicks.copy(), counts.impressions.copy()
        seen[:, column] = shown
        clicks[:, column] = np.random.default_rng((seed, column, shown)).binomial(shown, truth[:, column])
        own = np.arange(len(base)) == column
        found = {
            "alone": estimate(alone, clicks, seen),
            "creative": estimate(fitted, clicks * own, seen * own, evidence),
            "platforms": estimate(fitted, clicks, seen),
            "both": estimate(fitted, clicks, seen, evidence),
        }
        for way, rates in found.items():
            errors[way] += ((rates.rate[:, column] - truth[:, column]) / base[column]).tolist()
            covered[way] += _held(rates, truth, column)
    return ColdStart(
        {way: float(np.sqrt(np.mean(np.square(values)))) for way, values in errors.items()},
        {way: float(np.mean(values)) for way, values in covered.items()},
    )


def _held(rates: BorrowedCtr, truth: np.ndarray, column: int) -> Sequence[bool]:
    held: list[bool] = (
        (rates.low[:, column] <= truth[:, column]) & (truth[:, column] <= rates.high[:, column])
    ).tolist()
    return held


def fitted_to(world: Simulated) -> CtrBorrowing:
    """The default's parameters on all of a world's campaigns."""
    table = count_table(world.campaigns)
    return fit(table.clicks, table.impressions, [campaign.creative_id for campaign in world.campaigns])


def main() -> None:
    """Print error and coverage by impressions shown, means over five worlds."""
    worlds = [simulate(600, seed=seed) for seed in range(1, 6)]
    for shown in SHOWN:
        found = [measure(shown, world, 400) for world in worlds]
        error = np.mean([each.error["alone"] for each in found])
        cuts = ", ".join(f"{way} {np.mean([each.cut(way) for each in found]):.0%}" for way in WAYS[1:])
        coverage = np.mean([each.coverage["both"] for each in found])
        print(f"{shown:>6} impressions: RMSE alone {error:.2f}, cut by {cuts}; coverage {coverage:.3f}")


if __name__ == "__main__":
    main()
