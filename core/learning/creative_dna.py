"""``CreativeDNA``: what hooks, visuals, pacing, calls to action and lengths did to results, learned from creatives.

Three ratios are learned: CTR (clicks of impressions), engagement (engagements of impressions), ROAS (revenue of
spend, in the benchmarks' currency). Each is a platform's base times the effects of the creative's attributes, the
creative itself, its account and its campaign (``core.learning.relative_effects``).
"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import Any, Final

import numpy as np
from scipy.special import gammaincinv

from core.intervals import LOWER_TAIL, UPPER_TAIL, Floats, interval
from core.learning import creative_formula, creative_score
from core.learning.campaign_data import CampaignData, CampaignLike, CreativeSignals, platform_data_of
from core.learning.creative_formula import AttributePattern, CreativeFormula
from core.learning.creative_score import CreativeScore, Estimate
from core.learning.relative_effects import Effect, Labels, Observations, RelativeEffects
from core.normalizer import PlatformNormalizer
from core.profile import DEFAULT_PROFILE, Profile
from core.ratios import PlatformMetrics
from schemas.creative import Creative
from schemas.platform import Platform

ATTRIBUTES: Final = ("hook", "visual", "pacing", "call_to_action", "format", "length")
FACTORS: Final = (*ATTRIBUTES, "creative", "account", "campaign")
MEASURES: Final = ("ctr", "engagement", "roas")
PLATFORMS: Final = (Platform.GOOGLE_ADS, Platform.META, Platform.TIKTOK)
LENGTHS: Final = ((0.0, "still"), (10.0, "up_to_10s"), (20.0, "up_to_20s"), (40.0, "up_to_40s"))
LONGER: Final = "over_40s"
NINETY: Final = 1.6449
THIS_CAMPAIGN: Final = "\0this"


class CreativeDNA:
    """Learns from creatives and the campaigns that showed them (``CampaignData.creative_id``).

    Campaigns of unknown creatives inform bases and accounts. Raises ``ValueError`` for a creative that comes twice.
    """

    def __init__(
        self,
        creatives: Iterable[Creative],
        campaigns: Sequence[CampaignData],
        profile: Profile = DEFAULT_PROFILE,
    ) -> None:
        self.normalizer = PlatformNormalizer(profile)
        self.creatives: dict[str, Creative] = {}
        for creative in creatives:
            if creative.creative_id in self.creatives:
                raise ValueError(f"creative {creative.creative_id!r} comes twice")
            self.creatives[creative.creative_id] = creative
        self.campaigns = sorted(campaigns, key=lambda campaign: campaign.campaign_id)
        self._effects = {measure: self._learn(measure) for measure in MEASURES}

    def patterns(self, measure: str = "ctr", min_support: int = 3) -> list[AttributePattern]:
        """The labels that ``min_support`` campaigns or more showed, the greatest effect first."""
        effects = self._effects[measure]
        shown: dict[tuple[str, str], tuple[set[str], set[str]]] = {}
        for campaign in self.campaigns:
            creative = self.creatives.get(campaign.creative_id)
            if creative is None:
                continue
            for attribute, label in zip(ATTRIBUTES, attributes_of(creative), strict=True):
                if label:
                    support = shown.setdefault((attribute, label), (set(), set()))
                    support[0].add(campaign.campaign_id)
                    support[1].add(creative.creative_id)
        found = []
        for (attribute, label), (of_campaigns, of_creatives) in shown.items():
            if len(of_campaigns) >= min_support:
                effect = effects.effect(attribute, label)
                found.append(
                    AttributePattern(
                        attribute=attribute,
                        label=label,
                        effect=effect.mean,
                        low=effect.mean - NINETY * effect.deviation,
                        high=effect.mean + NINETY * effect.deviation,
                        campaigns=len(of_campaigns),
                        creatives=len(of_creatives),
                    )
                )
        return sorted(found, key=lambda pattern: (-pattern.effect, pattern.attribute, pattern.label))

    def signals(self, creative_id: str, without_campaign: str = "", *, without_own: bool = False) -> CreativeSignals:
        """The creative's place among all, 0 to 1, by CTR: 0.5 is average, or nothing known that tells it apart.

        ``creative_dna_score`` is of attributes and creative together, ``hook_strength`` and ``visual_appeal`` of those
        labels alone; ``None`` where there is no such creative or label. ``without_campaign`` is left out of what was
        learned: features of a campaign must not hold its own results. ``without_own`` leaves out all results of the
        creative itself, and so says what its attributes did elsewhere.
        """
        creative = self.creatives.get(creative_id)
        if creative is None or creative.withdrawn:
            return CreativeSignals()
        effects = self._effects["ctr"]
        known = dict(zip(FACTORS, self._labels(creative_id), strict=True))
        own = {factor: label for factor, label in known.items() if factor in (*ATTRIBUTES, "creative")}
        means = effects.means(own, without_campaign, ("creative", creative_id) if without_own else None)
        spread = sum(effects.variances[factor] for factor in means)
        return CreativeSignals(
            creative_dna_score=_place(sum(means.values()), spread),
            hook_strength=_place(means["hook"], effects.variances["hook"]) if known["hook"] else None,
            visual_appeal=_place(means["visual"], effects.variances["visual"]) if known["visual"] else None,
        )

    def predict(
        self,
        creative_id: str,
        account_id: str = "",
        platform_data: Mapping[Platform, PlatformMetrics] | None = None,
        without_campaign: str = "",
    ) -> dict[Platform, dict[str, Estimate]]:
        """CTR, engagement rate and ROAS that a campaign with the creative will show, by platform and measure.

        ``platform_data``: what that campaign has shown so far. A measure without any history on a platform is absent.
        """
        labels = self._labels(creative_id, account_id, THIS_CAMPAIGN if platform_data else "")
        found: dict[Platform, dict[str, Estimate]] = {}
        for column, platform in enumerate(PLATFORMS):
            own = {}
            for measure, effects in self._effects.items():
                base = float(effects.base[column])
                if not base > 1e-12:
                    continue
                seen = [
                    (PLATFORMS.index(name), *row)
                    for name, metrics in (platform_data or {}).items()
                    if name in PLATFORMS and (row := self._row(measure, metrics)) is not None
                ]
                effect = effects.predict(labels, column, seen, without_campaign)
                own[measure] = _estimate(measure, base * (1 + effect.mean), base * effect.deviation)
            found[platform] = own
        return found

    def build_cross_platform_formula(
        self,
        account_id: str,
        platform_campaigns: Mapping[Any, Any] | Iterable[CampaignLike],
        min_roas: float = 3.0,
        min_samples: int = creative_formula.MIN_SAMPLES,
    ) -> CreativeFormula:
        """What the account's winners have in common, see ``core.learning.creative_formula``."""
        return creative_formula.build(
            account_id, platform_campaigns, self.normalizer, self.patterns(), min_roas, min_samples
        )

    def score_creative_cross_platform(
        self, creative_id: str, account_id: str, platform_data: Mapping[Any, Any] | Iterable[PlatformMetrics] = ()
    ) -> CreativeScore:
        """A creative's score with its parts and what is predicted of it, see ``core.learning.creative_score``.

        ``platform_data``: results that the DNA was not learned from.
        """
        data = platform_data_of(platform_data)
        return creative_score.score(
            creative_id,
            data,
            self.normalizer,
            self.signals(creative_id),
            self.predict(creative_id, account_id, data),
            self.effects(creative_id),
        )

    def effects(self, creative_id: str) -> dict[str, Effect]:
        """What each of the creative's labels adds to CTR, relative, and under ``creative`` what it adds itself."""
        labels = dict(zip(FACTORS, self._labels(creative_id), strict=True))
        effects = self._effects["ctr"]
        return {factor: effects.effect(factor, label) for factor, label in labels.items() if label}

    def base(self, measure: str) -> Floats:
        """What a measure is on each of ``PLATFORMS`` before any effect, [P]; 0 where there is no history."""
        return self._effects[measure].base

    def calibration(self, measure: str) -> tuple[float, float]:
        """Actual over predicted on campaigns left out, and the factor on the variance; both are already applied."""
        return self._effects[measure].ratio, self._effects[measure].inflation

    def _labels(self, creative_id: str, account_id: str = "", campaign_id: str = "") -> Labels:
        creative = self.creatives.get(creative_id)
        attributes = ("",) * len(ATTRIBUTES) if creative is None else attributes_of(creative)
        return (*attributes, creative_id, account_id, campaign_id)

    def _learn(self, measure: str) -> RelativeEffects:
        rows, platforms, labels = [], [], []
        for campaign in self.campaigns:
            own = self._labels(campaign.creative_id, campaign.account_id, campaign.campaign_id)
            for column, platform in enumerate(PLATFORMS):
                metrics = campaign.platforms.get(platform)
                row = None if metrics is None else self._row(measure, metrics)
                if row is not None:
                    rows.append(row)
                    platforms.append(column)
                    labels.append(own)
        table = np.array(rows, dtype=np.float64).reshape(len(rows), 3)
        data = Observations(
            amount=table[:, 0],
            units=table[:, 1],
            platform=np.array(platforms, dtype=np.int64),
            labels=labels,
            volume=table[:, 2],
            held=[own[-1] for own in labels],
        )
        return RelativeEffects(FACTORS, len(PLATFORMS), data, binomial=measure != "roas")

    def _row(self, measure: str, metrics: PlatformMetrics) -> tuple[float, float, float] | None:
        """Amount, units, and the volume that the noise falls with; ``None`` where the ratio is undefined."""
        if measure == "roas":
            if metrics.currency != self.normalizer.profile.currency or metrics.revenue is None or not metrics.spend:
                return None
            return metrics.revenue, metrics.spend, float(metrics.clicks or 1)
        count = metrics.clicks if measure == "ctr" else metrics.engagements
        if count is None or not metrics.impressions:
            return None
        return float(min(count, metrics.impressions)), float(metrics.impressions), float(metrics.impressions)


def attributes_of(creative: Creative) -> Labels:
    """The labels in the order of ``ATTRIBUTES``; the length as a bucket.

    >>> attributes_of(Creative(creative_id="c", hook="question", length_seconds=12.0))
    ('question', '', '', '', '', 'up_to_20s')
    """
    length = ""
    if creative.length_seconds is not None:
        length = next((name for most, name in LENGTHS if creative.length_seconds <= most), LONGER)
    return creative.hook, creative.visual, creative.pacing, creative.call_to_action, creative.format, length


def _place(mean: float, variance: float) -> float:
    return NormalDist().cdf(mean / variance**0.5) if variance > 0 else 0.5


def _estimate(measure: str, mean: float, deviation: float) -> Estimate:
    """A rate's interval is a beta's, a ROAS's a gamma's, both of the mean and variance."""
    if measure == "roas":
        shape = (mean / deviation) ** 2
        low, high = (float(gammaincinv(shape, tail)) / shape * mean for tail in (LOWER_TAIL, UPPER_TAIL))
        return Estimate(mean, min(low, mean), max(high, mean))
    rate = np.array([min(mean, 0.999)])
    lows, highs = interval(rate, np.array([deviation**2]), np.zeros(1), np.zeros(1))
    return Estimate(float(rate[0]), float(lows[0]), float(highs[0]))
