"""Rolling CTR predictions of a batch of campaigns: decayed counts from their rollups, shrunk by ``core.shrinkage``.

Features are whole calendar days (or what is reported of the newest) up to the end of the campaign's newest window;
the label's window begins where they end.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

import numpy as np

from core.campaign import Campaign
from core.profile import Profile
from core.shrinkage import CtrEstimates, CtrPrior, decay, predict
from core.volatility import relative_variance
from core.window import HOURS_A_DAY, Window, bounds
from schemas.calendar import iso_instant
from schemas.event import DAY_MS, HOUR_MS
from schemas.metrics import CLICKS, IMPRESSIONS
from schemas.prediction import CtrInputs, CtrPrediction, CtrRate
from schemas.rollup import Rollup, Totals

MODEL: Final = "empirical-bayes-1"
DAYS: Final = 28
"""Days of features. At a half-life of four days, older counts weigh less than 1 %."""


def forecast(campaigns: Sequence[Campaign], window: Window, profile: Profile, prior: CtrPrior) -> list[CtrPrediction]:
    """A prediction for each campaign that has a window of the kind, for the window after its newest."""
    rows = [(campaign, latest) for campaign in campaigns if (latest := campaign.latest(window)) is not None]
    if not rows:
        return []
    platforms = sorted(profile.platforms)
    column = {platform: position for position, platform in enumerate(platforms)}
    shape = (len(rows), len(platforms), DAYS)
    impressions, clicks = np.zeros(shape), np.zeros(shape)
    reported = np.zeros(shape, dtype=bool)
    for row, (campaign, latest) in enumerate(rows):
        last_day = latest if window.days else latest // HOURS_A_DAY
        label_start = campaign.end_ms(window, latest)
        for age in range(DAYS):
            for rollup in campaign.by_day.get(last_day - age, {}).values():
                position = column.get(rollup.platform)
                if position is None:
                    continue
                for totals in _before(label_start, rollup):
                    impressions[row, position, age] += totals.values[IMPRESSIONS] or 0
                    clicks[row, position, age] += totals.values[CLICKS] or 0
                    reported[row, position, age] = True
    weights = decay(np.arange(DAYS), prior.half_life_days)
    seen, clicked = impressions @ weights, clicks @ weights
    days = np.maximum(reported @ weights, 1e-9)
    expected = seen / days * (window.span_ms / DAY_MS)
    expected = np.column_stack((expected, expected.sum(axis=1)))
    base = np.array([profile.platforms[platform].ctr.ideal for platform in platforms], dtype=np.float64)
    active: list[list[bool]] = np.any(reported, axis=2).tolist()
    estimates = predict(
        clicked,
        seen,
        base,
        expected,
        prior,
        volatility=lambda rate: relative_variance(
            clicks, impressions, rate, weights, prior.volatility**2, prior.volatility_days
        ),
        active=active,
    )
    names = [str(platform) for platform in platforms]
    return [
        _prediction(
            campaign,
            window,
            latest,
            names,
            row,
            estimates,
            seen,
            clicked,
            expected,
            active[row],
            prior,
        )
        for row, (campaign, latest) in enumerate(rows)
    ]


def _before(label_start: int, rollup: Rollup) -> list[Totals]:
    """What a day had reported before an instant: all of it or, where it reaches further, its hours until then."""
    if rollup.day_totals is None:
        return []
    if rollup.covered_ms <= label_start:
        return [rollup.day_totals]
    return [totals for hour, totals in rollup.hours if (hour + 1) * HOUR_MS <= label_start]


def _prediction(
    campaign: Campaign,
    window: Window,
    latest: int,
    names: Sequence[str],
    row: int,
    estimates: CtrEstimates,
    seen: np.ndarray,
    clicked: np.ndarray,
    expected: np.ndarray,
    active: list[bool],
    prior: CtrPrior,
) -> CtrPrediction:
    def rate(position: int, impressions: float, clicks: float) -> CtrRate:
        return CtrRate(
            rate=float(estimates.rate[row, position]),
            low=float(estimates.low[row, position]),
            high=float(estimates.high[row, position]),
            source="empirical_bayes" if impressions > 0 else "prior",
            inputs=CtrInputs(
                impressions=impressions,
                clicks=clicks,
                prior_rate=float(estimates.prior_rate[row, position]),
                prior_strength=float(estimates.prior_strength[row, position]),
                expected_impressions=float(expected[row, position]),
            ),
        )

    platforms = {
        name: rate(position, float(seen[row, position]), float(clicked[row, position]))
        for position, name in enumerate(names)
        if active[position]
    }
    whole = rate(len(names), float(seen[row].sum()), float(clicked[row].sum()))
    label_start = campaign.end_ms(window, latest)
    identity = f"{campaign.campaign_id}\0{window.name}\0{latest}\0ctr"
    return CtrPrediction(
        prediction_id=blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest(),
        campaign_id=campaign.campaign_id,
        window=window.name,
        feature_end=iso_instant(label_start),
        label_start=iso_instant(label_start),
        label_end=iso_instant(label_start + window.span_ms),
        label_window_start=bounds(window, latest + max(window.days, 1))[0],
        revision=campaign.position + 1,
        model=MODEL,
        half_life_days=prior.half_life_days,
        rate=whole.rate,
        low=whole.low,
        high=whole.high,
        source=whole.source,
        inputs=whole.inputs,
        platforms=platforms,
        platforms_used=[name for name, own in platforms.items() if own.inputs.impressions > 0],
    )
