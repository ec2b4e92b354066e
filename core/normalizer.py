"""Scores of platforms on one scale: each ratio's place in its platform's benchmark band, and their weighted mean.

A rate scores ``clip((x - low) / (high - low), 0, 1)``, a cost one minus that. The composite is the mean of the
components that are defined, under ``WEIGHTS`` renormalized over them; for a complete input it is
``.30 ctr + .25 cpc + .15 cpm + .15 engagement + .15 quality``.
"""

from collections.abc import Iterable, Sequence
from math import exp, fsum
from typing import Final

import msgspec
import numpy as np

from core.intervals import Floats
from core.profile import DEFAULT_PROFILE, Band, Profile
from core.ratios import COMPONENTS, NO_QUALITY, PlatformMetrics, Ratios, ratios_of_counts, ratios_of_metrics
from schemas.metrics import IMPRESSIONS
from schemas.platform import Platform

__all__ = [
    "COMPONENTS",
    "CONFIDENCE_POINTS",
    "WEIGHTS",
    "NormalizedMetrics",
    "PlatformMetrics",
    "PlatformNormalizer",
    "confidence",
    "consistency_score",
    "normalize_counts",
]

# Whole percents add up exactly, so a composite can never leave [0, 1] by a rounding error.
WEIGHTS: Final = {"ctr": 30, "cpc": 25, "cpm": 15, "engagement": 15, "quality": 15}
CONFIDENCE_POINTS: Final = ((0, 0.0), (100, 0.3), (1_000, 0.6), (10_000, 0.9), (50_000, 1.0))

LEAST_COMPARED: Final = 2
"""Platforms from which consistency says something."""
STEEPNESS: Final = 10

_WEIGHTS: Final = tuple(WEIGHTS[name] for name in COMPONENTS)
_UNKNOWN_PLATFORM: Final = "the platform is unknown"


class NormalizedMetrics(msgspec.Struct, frozen=True, gc=False):
    """The scores of one platform, each from 0 (worst) to 1 (best), or ``None`` where ``absent`` says why.

    ``components`` names the scores that the composite was made of, in the order of ``COMPONENTS``.
    """

    platform: Platform
    normalized_ctr: float | None
    normalized_cpc: float | None
    normalized_cpm: float | None
    normalized_engagement: float | None
    normalized_quality: float | None
    composite_score: float | None
    confidence: float
    components: tuple[str, ...]
    absent: dict[str, str]

    @property
    def scores(self) -> tuple[float | None, float | None, float | None, float | None, float | None]:
        """The normalized values in the order of ``COMPONENTS``."""
        return (
            self.normalized_ctr,
            self.normalized_cpc,
            self.normalized_cpm,
            self.normalized_engagement,
            self.normalized_quality,
        )


class PlatformNormalizer:
    """Scores metrics against a benchmark profile.

    >>> example = PlatformMetrics(
    ...     platform=Platform.META, ctr=0.025, cpc=1.5, cpm=12, engagement_rate=0.05, quality_score=8.5
    ... )
    >>> round(PlatformNormalizer().normalize(example).composite_score, 5)
    0.63618
    """

    def __init__(self, profile: Profile = DEFAULT_PROFILE) -> None:
        self.profile = profile

    def normalize(self, metrics: PlatformMetrics) -> NormalizedMetrics:
        """The scores of one platform's metrics. Missing or undefined input makes a component absent, never an error."""
        ratios = ratios_of_metrics(metrics, self.profile.currency)
        return _score(metrics.platform, ratios, metrics.impressions, self.profile)

    def compare_platforms(self, metrics: Iterable[PlatformMetrics]) -> list[NormalizedMetrics]:
        """Everybody's scores, best composite first, then the surer one, then by the platform's name.

        Those without a composite come last. The order does not depend on that of the input.
        """
        return sorted(map(self.normalize, metrics), key=_rank)

    def get_best_platform(self, metrics: Iterable[PlatformMetrics], min_confidence: float = 0.6) -> Platform | None:
        """The platform of the best composite among those that are sure enough; ``None`` when there is none."""
        for scored in self.compare_platforms(metrics):
            if scored.composite_score is not None and scored.confidence >= min_confidence:
                return scored.platform
        return None

    def convert_to_meta_equivalent(self, metrics: PlatformMetrics) -> PlatformMetrics:
        """The Meta metrics that would score the same, as ratios, with costs in the profile's currency.

        Impressions are kept, so that the confidence is the same. The other counts are not: no Meta counts could
        yield all of the ratios. A ratio beyond its band returns as the band's edge, an absent one stays absent, and
        quality is left out where the profile has no quality band for Meta.

        Raises ``ValueError`` when the profile has no benchmarks for Meta.

        >>> tiktok = PlatformMetrics(platform=Platform.TIKTOK, impressions=10_000, clicks=350)
        >>> round(PlatformNormalizer().convert_to_meta_equivalent(tiktok).ctr, 6)
        0.0175
        """
        meta = self.profile.platforms.get(Platform.META)
        if meta is None:
            raise ValueError(f"benchmark profile {self.profile.version} has no benchmarks for meta")
        scored = self.normalize(metrics)
        return PlatformMetrics(
            platform=Platform.META,
            impressions=metrics.impressions,
            ctr=_at(meta.ctr, scored.normalized_ctr),
            cpc=_at_cost(meta.cpc, scored.normalized_cpc),
            cpm=_at_cost(meta.cpm, scored.normalized_cpm),
            engagement_rate=_at(meta.engagement, scored.normalized_engagement),
            quality_score=_at(meta.quality, scored.normalized_quality),
            currency=self.profile.currency,
        )


def normalize_counts(
    platform: Platform, values: Sequence[int | None], currency: str, profile: Profile = DEFAULT_PROFILE
) -> NormalizedMetrics:
    """The scores of counts in the order of ``METRICS``, money in micros of ``currency`` (empty says unknown).

    >>> normalize_counts(Platform.META, (1000, 20, 18, 30_000_000, 0, 0, 50, 0, 850_000, 1000), "USD").components
    ('ctr', 'cpc', 'cpm', 'engagement', 'quality')
    """
    return _score(platform, ratios_of_counts(values, currency, profile.currency), values[IMPRESSIONS], profile)


def confidence(impressions: float) -> float:
    """How far a number of impressions can be trusted, 0 to 1: linear between the ``CONFIDENCE_POINTS``.

    >>> confidence(50), confidence(1_000), confidence(1_000_000)
    (0.15, 0.6, 1.0)
    """
    x0, y0 = CONFIDENCE_POINTS[0]
    for x1, y1 in CONFIDENCE_POINTS[1:]:
        if impressions < x1:
            return y0 + (y1 - y0) * (max(impressions, x0) - x0) / (x1 - x0)
        x0, y0 = x1, y1
    return y0


def confidences(impressions: Floats) -> Floats:
    """``confidence`` of a batch, [n]."""
    points, trust = (np.array(column) for column in zip(*CONFIDENCE_POINTS, strict=True))
    at = np.clip(np.searchsorted(points, impressions, side="right"), 1, len(points) - 1)
    x0, x1, y0, y1 = points[at - 1], points[at], trust[at - 1], trust[at]
    found: Floats = y0 + (y1 - y0) * (np.clip(impressions, x0, x1) - x0) / (x1 - x0)
    return found


def consistency_score(composites: Iterable[float | None]) -> float | None:
    """``exp(-10 * population variance)`` of the known composites; ``None`` when fewer than two are known.

    >>> consistency_score([0.5, 0.5]), consistency_score([0.5, None])
    (1.0, None)
    """
    known = [composite for composite in composites if composite is not None]
    if len(known) < LEAST_COMPARED:
        return None
    mean = fsum(known) / len(known)
    return exp(-STEEPNESS * fsum((composite - mean) ** 2 for composite in known) / len(known))


def consistency_of(variance: Floats) -> Floats:
    """The consistency of composites of a population variance, [n]; it says something of ``LEAST_COMPARED`` or more."""
    return np.exp(-STEEPNESS * variance)


def _score(platform: Platform, ratios: Ratios, impressions: int | None, profile: Profile) -> NormalizedMetrics:
    sure = 0.0 if impressions is None else confidence(impressions)
    benchmarks = profile.platforms.get(platform)
    if benchmarks is None:
        reason = _UNKNOWN_PLATFORM if platform == Platform.UNKNOWN else f"the profile has no benchmarks for {platform}"
        absent = dict.fromkeys(COMPONENTS, reason)
        return NormalizedMetrics(platform, None, None, None, None, None, None, sure, (), absent)
    ctr, cpc, cpm, engagement, quality = ratios
    band = benchmarks.quality
    if band is None and not isinstance(quality, str):
        quality = NO_QUALITY
    scores = (
        None if isinstance(ctr, str) else _place(benchmarks.ctr, ctr),
        None if isinstance(cpc, str) else 1.0 - _place(benchmarks.cpc, cpc),
        None if isinstance(cpm, str) else 1.0 - _place(benchmarks.cpm, cpm),
        None if isinstance(engagement, str) else _place(benchmarks.engagement, engagement),
        None if band is None or isinstance(quality, str) else _place(band, quality),
    )
    total, weight, absent = 0.0, 0, {}
    for name, percent, score, ratio in zip(COMPONENTS, _WEIGHTS, scores, (*ratios[:4], quality), strict=True):
        if score is None:
            absent[name] = str(ratio)
        else:
            total += percent * score
            weight += percent
    used = tuple(name for name in COMPONENTS if name not in absent) if absent else COMPONENTS
    return NormalizedMetrics(platform, *scores, total / weight if weight else None, sure, used, absent)


def _place(band: Band, value: float) -> float:
    """Where a value lies in a band: 0 at its low end and below, 1 at its high end and above."""
    low, high = band.low, band.high
    if value <= low:
        return 0.0
    return 1.0 if value >= high else (value - low) / (high - low)


def _at(band: Band | None, place: float | None) -> float | None:
    """The value at a place in a band, exact at both ends."""
    return None if band is None or place is None else band.low * (1 - place) + band.high * place


def _at_cost(band: Band, score: float | None) -> float | None:
    return None if score is None else _at(band, 1 - score)


def _rank(scored: NormalizedMetrics) -> tuple[object, ...]:
    composite = scored.composite_score
    return (
        composite is None,
        0.0 if composite is None else -composite,
        -scored.confidence,
        scored.platform,
        tuple((score is None, score or 0.0) for score in scored.scores),
        tuple(scored.absent.items()),
    )
