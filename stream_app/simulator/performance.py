"""What truly happened: each platform campaign's days in whole counts, and how the platforms restated them later.

Clicks are binomial draws of a planted rate: platform base times campaign quality, a slow trend, and mild day noise.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import numpy as np

from schemas.platform import Platform
from stream_app.simulator.roster import PlatformCampaign
from stream_app.simulator.wire import chance

CENT: Final = 10_000
NETWORK_SHARE: Final = {"SEARCH": 0.7, "CONTENT": 0.2, "YOUTUBE": 0.1}
WEEK: Final = (1.0, 1.02, 1.05, 1.03, 0.98, 0.9, 0.86)


@dataclass(frozen=True)
class Part:
    """One ad's or network's counts of one day. Money and conversions are in micros, spend in whole cents."""

    name: str
    impressions: int
    clicks: int
    link_clicks: int
    spend: int
    conversions: int
    revenue: int
    reactions: int
    comments: int
    shares: int
    video_views: int


def true_ctr(run: PlatformCampaign, seed: int, day: int) -> float:
    """The planted click rate of a day (0 is the first), the day's noise included."""
    noise = float(chance(seed, "noise", run.key, day).lognormal(0.0, 0.05))
    return min(0.3, run.ctr * (1 + run.trend) ** day * noise)


@lru_cache(maxsize=65536)
def pulls_of_day(run: PlatformCampaign, seed: int, day: int) -> tuple[tuple[Part, ...], ...]:
    """What each later pull says of a day: index 0 is the first pull, the next ones restate it or not.

    Conversions only grow, spend may shrink a little, and most days stay as they were.
    """
    rng = chance(seed, "day", run.key, day)
    total = run.daily_impressions * WEEK[day % 7] * float(rng.lognormal(0.0, 0.12))
    rate = true_ctr(run, seed, day)
    weights = [NETWORK_SHARE.get(name, 1.0) for name in run.parts]
    versions = [
        tuple(_part(run, rng, name, total * w / sum(weights), rate) for name, w in zip(run.parts, weights, strict=True))
    ]
    for _ in range(run.account.look_back - 1):
        versions.append(tuple(_restated(run, rng, part) for part in versions[-1]))
    return tuple(versions)


def _part(run: PlatformCampaign, rng: np.random.Generator, name: str, share: float, rate: float) -> Part:
    impressions = int(rng.poisson(share)) + 40
    clicks = int(rng.binomial(impressions, rate))
    orders = int(rng.binomial(clicks, run.conversion_rate))
    fraction = int(rng.integers(1_000_000)) if run.platform is Platform.GOOGLE_ADS and orders else 0
    conversions = orders * 1_000_000 + fraction
    return Part(
        name=name,
        impressions=impressions,
        clicks=clicks,
        link_clicks=int(rng.binomial(clicks, 0.82)),
        spend=int(impressions * run.cpm * float(rng.lognormal(0.0, 0.08)) / 1000 * 100) * CENT,
        conversions=conversions,
        revenue=_worth(run, rng, conversions),
        reactions=int(rng.binomial(impressions, 0.012)),
        comments=int(rng.binomial(impressions, 0.0012)),
        shares=int(rng.binomial(impressions, 0.0008)),
        video_views=int(rng.binomial(impressions, 0.55 if run.platform is Platform.TIKTOK else 0.2)),
    )


def _restated(run: PlatformCampaign, rng: np.random.Generator, part: Part) -> Part:
    lot = float(rng.random())
    if lot < 0.12:
        late = (1 + int(rng.poisson(0.7))) * 1_000_000
        return replace(part, conversions=part.conversions + late, revenue=part.revenue + _worth(run, rng, late))
    if lot < 0.16:
        return replace(part, spend=int(part.spend * float(rng.uniform(0.97, 0.998)) / CENT) * CENT)
    return part


def _worth(run: PlatformCampaign, rng: np.random.Generator, conversions: int) -> int:
    return int(conversions * run.order_value * float(rng.lognormal(0.0, 0.1)) / CENT) * CENT
