"""Training across platforms: split, fit, judge beside the baselines, and decide whether the trees may speak.

XGBoost with logistic loss on counts starts from the default's logit (base margin), so that it can only add to
it. A row weighs what its impressions tell under the variance that rates have: ``n / (1 + n / strength)``. The
trees are promoted where they beat the default on log-loss on a part of the training campaigns that they had not
seen, surely and calibrated by the rule of promotion (``core.learning.promotion``); the test rows have no say in it.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.intervals import Floats, interval
from core.learning import boosting
from core.learning.boosting import Boosting, margins
from core.learning.borrowing import LEAST_VARIANCE, CtrBorrowing, fit
from core.learning.campaign_data import CampaignData
from core.learning.features import FEATURE_NAMES
from core.learning.promotion import DEFAULT_RULE, surely
from core.learning.row_scores import RowScores, log_loss, score_rows
from core.learning.training_rows import TrainingRows, borrowed_rates, count_table, training_rows
from core.normalizer import PlatformNormalizer

LEAST_CAMPAIGNS: Final = 10
VALIDATION: Final = 0.25
TREES: Final = 60
PRIOR_ROWS: Final = 20.0
UNJUDGED: Final = 0.1
"""The residual relative variance of trees that nothing has judged."""
BOOSTING: Final = Boosting(rounds=TREES, depth=3, eta=0.08, least_child_weight=5.0, ridge=5.0, bins=256, seed=0)
"""Few rows with bounded weights, so leaves may be small; no feature's effect is known to have one direction."""


class Fitted(msgspec.Struct, frozen=True, eq=False):
    """A default and the trees on top of it."""

    borrowing: CtrBorrowing
    booster: Any


class Split(msgspec.Struct, frozen=True, eq=False):
    """Places of campaigns. ``by`` is ``time`` where every campaign has an end, else ``campaign``."""

    train: list[int]
    test: list[int]
    by: str


def split_campaigns(campaigns: Sequence[CampaignData], test_size: float, random_state: int) -> Split:
    """The last ``test_size`` of the campaigns by their ends or, without time, a seeded draw; never rows of one apart.

    Raises ``ValueError`` for a share outside of (0, 1) or too few campaigns.
    """
    if not 0 < test_size < 1:
        raise ValueError(f"test_size is a share between 0 and 1, not {test_size}")
    if len(campaigns) < LEAST_CAMPAIGNS:
        raise ValueError(f"training takes at least {LEAST_CAMPAIGNS} campaigns, not {len(campaigns)}")
    count = min(len(campaigns) - 2, max(1, round(test_size * len(campaigns))))
    ends = [campaign.ended_ms for campaign in campaigns]
    known = [end for end in ends if end is not None]
    if len(known) == len(campaigns):
        order = sorted(range(len(campaigns)), key=lambda at: (known[at], campaigns[at].campaign_id))
        # What ended together with the first test campaign is not before it.
        first = known[order[len(campaigns) - count]]
        train = [at for at in order if known[at] < first]
        if train:
            return Split(train, [at for at in order if known[at] >= first], "time")
    drawn = np.random.default_rng(random_state).permutation(len(campaigns)).tolist()
    return Split(sorted(drawn[count:]), sorted(drawn[:count]), "campaign")


def fit_default(campaigns: Sequence[CampaignData]) -> CtrBorrowing:
    """The empirical-Bayes default of the campaigns. Raises ``ValueError`` where a platform has no clicks."""
    table = count_table(campaigns)
    return fit(table.clicks, table.impressions, [campaign.creative_id for campaign in campaigns])


def fit_trees(rows: TrainingRows, start: Floats, borrowing: CtrBorrowing, random_state: int, trees: int = TREES) -> Any:
    """Trees on top of the rates that they start from, [n]."""
    # A campaign's rate strays beyond binomial noise, so that the weight of one row is bounded.
    strength = (1 - start) / start / max(borrowing.shared + borrowing.own, LEAST_VARIANCE)
    weights = rows.impressions / (1 + rows.impressions / strength)
    how = msgspec.structs.replace(BOOSTING, rounds=trees, seed=random_state)
    return boosting.fit(rows.features, rows.clicks, rows.impressions, start, weights, FEATURE_NAMES, how)


def residual_variance(rows: TrainingRows, rate: Floats, prior: float) -> float:
    """The relative variance of the labels' true rates around predicted ones, by moments: squares less the noise.

    ``prior``: the default's own, which counts for ``PRIOR_ROWS`` well-measured rows.
    """
    noise = (1 - rate) / (rate * rows.impressions)
    trust = (prior / (noise + prior)) ** 2
    strayed = (rows.ctr / rate - 1) ** 2 - noise
    return max(1e-4, float(((trust * strayed).sum() + PRIOR_ROWS * prior) / (trust.sum() + PRIOR_ROWS)))


def label_interval(rate: Floats, residual: float, impressions: Floats) -> tuple[Floats, Floats]:
    """The 90 % interval of the CTR that the impressions will show, around rates that stray by a relative variance."""
    variance = np.maximum(residual, LEAST_VARIANCE) * rate**2
    return interval(rate, variance, np.maximum(rate * (1 - rate) - variance, 0.0), impressions)


def fit_both(campaigns: Sequence[CampaignData], normalizer: PlatformNormalizer, random_state: int) -> Fitted:
    """Default and trees on the same campaigns."""
    borrowing = fit_default(campaigns)
    rows = training_rows(campaigns, normalizer)
    if not rows.clicks.size:
        raise ValueError("no campaign ran on two platforms: there is nothing to learn across platforms")
    start = borrowed_rates(borrowing, campaigns, rows, campaigns).rate
    return Fitted(borrowing, fit_trees(rows, start, borrowing, random_state))


class Verdict(msgspec.Struct, frozen=True):
    """Whether the trees may speak, why in a sentence, and how far rates strayed from them: a relative variance."""

    promoted: bool
    why: str
    residual: float


def judge(
    fitted: Fitted, campaigns: Sequence[CampaignData], rows: TrainingRows, history: Sequence[CampaignData]
) -> Verdict:
    """A verdict from rows of campaigns that the trees have not seen: on their own rows they would look too sure."""
    if not rows.clicks.sum():
        return Verdict(False, "there were no clicks to judge the trees on", UNJUDGED)
    borrowed = borrowed_rates(fitted.borrowing, campaigns, rows, history)
    start = borrowed.rate
    rate = margins(fitted.booster, rows.features, start)
    own, default = (log_loss(rows.clicks, rows.impressions, each) for each in (rate, start))
    ratio = float((rate * rows.impressions).sum() / rows.clicks.sum())
    residual = residual_variance(rows, rate, float((borrowed.variance / start**2).mean()))
    told = f"log-loss {own:.5f} against the default's {default:.5f}, predicted/actual {ratio:.3f}"
    if own >= default:
        return Verdict(False, f"the trees do not beat the default: {told}", residual)
    if not surely(_gains(rows, start, rate), DEFAULT_RULE.level):
        return Verdict(False, f"the trees do not beat the default surely: {told}", residual)
    if abs(ratio - 1) > DEFAULT_RULE.calibration:
        return Verdict(False, f"the trees are not calibrated: {told}", residual)
    return Verdict(True, f"the trees beat the default: {told}", residual)


def _gains(rows: TrainingRows, default: Floats, rate: Floats) -> list[float]:
    """The log-likelihood that each campaign gains, which are taken as independent."""
    gain = rows.clicks * np.log(rate / default) + (rows.impressions - rows.clicks) * np.log((1 - rate) / (1 - default))
    found: list[float] = np.bincount(rows.campaign, weights=gain)[np.unique(rows.campaign)].tolist()
    return found


def metrics_of_rows(
    fitted: Fitted,
    campaigns: Sequence[CampaignData],
    rows: TrainingRows,
    history: Sequence[CampaignData],
    residual: float,
) -> dict[str, RowScores]:
    """Trees, default and baselines on the same rows.

    ``platform_mean``: the platform's base rate. ``other_platforms_mean``: the relative CTR of the others, as it is.
    ``empirical_bayes``: the default. ``model``: the trees.
    """
    base = np.array(fitted.borrowing.base_rate)
    mean = base[rows.platform]
    table = count_table(campaigns, rows.platforms)
    expected = (table.impressions * base).sum(axis=1)[rows.campaign] - rows.impressions * mean
    clicks = table.clicks.sum(axis=1)[rows.campaign] - rows.clicks
    others = np.clip(mean * np.divide(clicks, expected, out=np.ones_like(mean), where=expected > 0), 1e-6, 0.999)
    start, low, high, _ = borrowed_rates(fitted.borrowing, campaigns, rows, history)
    rate = margins(fitted.booster, rows.features, start)

    def scored(predicted: Floats, bounds: tuple[Floats, Floats] | None = None) -> RowScores:
        return score_rows(rows.clicks, rows.impressions, predicted, mean, bounds)

    return {
        "platform_mean": scored(mean),
        "other_platforms_mean": scored(others),
        "empirical_bayes": scored(start, (low, high)),
        "model": scored(rate, label_interval(rate, residual, rows.impressions)),
    }


def chosen(campaigns: Sequence[CampaignData], places: Sequence[int] | NDArray[np.int64]) -> list[CampaignData]:
    """Campaigns by their places."""
    return [campaigns[at] for at in places]
