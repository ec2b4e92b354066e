"""What three platforms give over one: how many more samples, and what these do to log-loss.

All predictors are judged on the same campaigns, new to them, and only by what the other platforms tell. Trained on one
platform's rows, trees know that platform alone; trained on all, each campaign gives as many rows as it has platforms.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import numpy as np

from core.intervals import Floats
from core.learning.boosting import margins
from core.learning.campaign_data import CampaignData, CampaignLike, campaigns_of
from core.learning.ctr_training import chosen, fit_default, fit_trees, split_campaigns
from core.learning.row_scores import log_loss
from core.learning.scorecard import saturated_losses
from core.learning.training_rows import TrainingRows, borrowed_rates, training_rows
from core.normalizer import PlatformNormalizer
from core.profile import DEFAULT_PROFILE, Profile
from schemas.platform import Platform

PREDICTORS: Final = ("platform_mean", "one_platform", "all_platforms", "empirical_bayes")


class SampleGain(msgspec.Struct, frozen=True, kw_only=True):
    """Log-loss per impression (natural log) of each predictor on the test rows, pooled and by platform.

    ``platform_mean``: the platform's base rate. ``one_platform``: trees trained on the rows of the label's platform.
    ``all_platforms``: trees trained on the rows of all. ``empirical_bayes``: the default, borrowing without trees.
    ``samples``: training rows by platform and ``samples_all`` together; ``times_samples`` is the mean ratio.
    """

    campaigns: int
    test_rows: int
    samples: dict[Platform, int]
    samples_all: int
    times_samples: float
    log_loss: dict[str, float]
    log_loss_by_platform: dict[Platform, dict[str, float]]
    floor: float

    def gain(self, predictor: str) -> float:
        """How much of the log-loss that the platform mean leaves above the truth's own (``floor``) is taken away."""
        left = self.log_loss["platform_mean"] - self.floor
        return (self.log_loss["platform_mean"] - self.log_loss[predictor]) / left if left > 0 else 0.0


def compare_training_sets(
    campaigns: Iterable[CampaignLike],
    profile: Profile = DEFAULT_PROFILE,
    test_size: float = 0.3,
    random_state: int = 42,
) -> SampleGain:
    """Train on one platform and on all, and judge both. Raises ``ValueError`` as training does.

    ``floor`` is the log-loss of the observed CTRs themselves, which no prediction can reach.
    """
    normalizer = PlatformNormalizer(profile)
    listed = sorted(campaigns_of(campaigns), key=lambda campaign: campaign.campaign_id)
    split = split_campaigns(listed, test_size, random_state)
    train, test = chosen(listed, split.train), chosen(listed, split.test)
    rows, judged = training_rows(train, normalizer), training_rows(test, normalizer)
    if not rows.clicks.size or not judged.clicks.size:
        raise ValueError("no campaign ran on two platforms: there is nothing to compare")
    rates, counts = _rates(train, test, rows, judged, random_state)
    everything = np.ones(judged.clicks.size, dtype=bool)
    platforms = [(at, platform) for at, platform in enumerate(rows.platforms) if np.any(judged.platform == at)]
    return SampleGain(
        campaigns=len(train),
        test_rows=int(judged.clicks.size),
        samples={platform: counts[at] for at, platform in platforms},
        samples_all=int(rows.clicks.size),
        times_samples=float(np.mean([rows.clicks.size / counts[at] for at, _ in platforms if counts[at]])),
        log_loss=_losses(judged, rates, everything),
        log_loss_by_platform={platform: _losses(judged, rates, judged.platform == at) for at, platform in platforms},
        floor=float(saturated_losses(judged.impressions, judged.clicks).sum() / judged.impressions.sum()),
    )


def _rates(
    train: Sequence[CampaignData],
    test: Sequence[CampaignData],
    rows: TrainingRows,
    judged: TrainingRows,
    random_state: int,
) -> tuple[dict[str, Floats], dict[int, int]]:
    """Each predictor's rates of the test rows, and the training rows of each platform's column."""
    fitted = fit_default(train)
    base = np.array(fitted.base_rate)
    start, mean = base[rows.platform], base[judged.platform]
    everything = fit_trees(rows, start, fitted, random_state)
    one, counts = mean.copy(), {}
    for column in range(len(rows.platforms)):
        own, asked = rows.platform == column, judged.platform == column
        counts[column] = int(own.sum())
        if own.any() and asked.any():
            single = fit_trees(rows.of(own), start[own], fitted, random_state)
            one[asked] = margins(single, judged.features[asked], mean[asked])
    rates = (
        mean,
        one,
        margins(everything, judged.features, mean),
        borrowed_rates(fitted, test, judged, train).rate,
    )
    return dict(zip(PREDICTORS, rates, strict=True)), counts


def _losses(rows: TrainingRows, rates: dict[str, Floats], of: np.ndarray) -> dict[str, float]:
    return {name: log_loss(rows.clicks[of], rows.impressions[of], rate[of]) for name, rate in rates.items()}
