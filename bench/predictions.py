"""``python -m bench.predictions``: what predicting a batch of dirty campaigns costs, at the stream's hypotheses."""

import time
from collections.abc import Callable
from statistics import median

import click
import numpy as np

from bench.checkpoints import DirtyCheckpoints
from core.learning.online import CtrPredictor, Key
from schemas.scorecard import HORIZONS

PLATFORMS = ("google_ads", "meta", "tiktok")
BASE = np.array([0.04, 0.015, 0.03])
DAILY = 300.0


@click.command()
@click.option(
    "--campaigns", type=click.IntRange(1), default=1_000, show_default=True, help="Dirty ones, on 3 platforms."
)
@click.option("--days", type=click.IntRange(1), default=10, show_default=True, help="Closed before.")
@click.option("--runs", type=click.IntRange(1), default=9, show_default=True)
@click.option("--weeks", type=click.IntRange(1), default=4, show_default=True, help="Of rollups before a checkpoint.")
def main(campaigns: int, days: int, runs: int, weeks: int) -> None:
    """Print CPU milliseconds, the median of the runs, for a batch of predictions, a closed day and the state's bytes;
    and what predictions add to a checkpoint of as many dirty campaigns.
    """
    random = np.random.default_rng(0)
    keys: list[Key] = [(f"c{at}", platform) for at in range(campaigns) for platform in PLATFORMS]
    predictor = CtrPredictor(PLATFORMS, BASE)
    shown = random.poisson(DAILY, (days + runs, len(keys))).astype(np.float64)
    clicks = random.binomial(shown.astype(np.int64), 0.03).astype(np.float64)
    for day in range(days):
        predictor.close(day, keys, shown[day], clicks[day])
    expected = np.tile([DAILY / 24, DAILY, DAILY * 7], (len(keys), 1))
    open_day = (shown[0] / 2, np.minimum(clicks[0], shown[0] / 2))
    click.echo(f"{campaigns:,} campaigns, {len(keys):,} series, horizons {', '.join(HORIZONS)}")
    click.echo(f"forecast  {_median(runs, lambda _: predictor.forecast(keys, *open_day, expected)):8.1f} ms")
    close = _median(runs, lambda run: predictor.close(days + run, keys, shown[days + run], clicks[days + run]))
    click.echo(f"close     {close:8.1f} ms")
    click.echo(f"to_bytes  {_median(runs, lambda _: predictor.to_bytes()):8.1f} ms")
    click.echo(f"state     {len(predictor.to_bytes()) / len(keys):8.0f} bytes a series")
    for tier in (False, True):
        cost = DirtyCheckpoints(campaigns, 7 * weeks, tier=tier).cost(runs)
        low, high = cost.spread
        click.echo(f"checkpoint, {'XGBoost' if tier else 'default'} tier", nl=False)
        click.echo(f": {cost.insights:,} insights, {cost.predictions:,} predictions, {cost.modelled:,} from a model")
        click.echo(f"  without {median(cost.without):8.1f} ms, with {median(cost.with_predictions):8.1f} ms")
        click.echo(f"  predictions add {cost.ratio:.1%} (quartiles {low:.1%} to {high:.1%}, {runs} pairs)")


def _median(runs: int, work: Callable[[int], object]) -> float:
    taken = []
    for run in range(runs):
        begun = time.process_time()
        work(run)
        taken.append(time.process_time() - begun)
    return 1_000 * median(taken)


if __name__ == "__main__":
    main()
