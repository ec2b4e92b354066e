"""Scores of live creatives: ``CreativeDNA`` learned from their results, and each one judged by its own and the others'.

A creative's results count once. In its score they stand as its results, and its DNA is what its labels did for other
creatives. Predictions are of a further campaign with the creative, from all that was learned.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from core.learning import creative_score
from core.learning.campaign_data import CampaignData, CreativeSignals
from core.learning.creative_dna import ATTRIBUTES, MEASURES, CreativeDNA, attributes_of
from core.learning.creative_formula import AttributePattern
from core.learning.creative_results import CreativeResults
from core.learning.creative_score import CreativeScore, Estimate, PredictedPerformance
from core.normalizer import PlatformNormalizer
from core.profile import Profile
from core.ratios import PlatformMetrics
from schemas.calendar import iso_date, iso_instant
from schemas.creative import Creative
from schemas.creative_score import CreativeScored, Delivered, Estimated, LabelEffect, Learned, Part, Predicted
from schemas.platform import Platform

LEAST_CAMPAIGNS: Final = 5
"""With fewer campaigns nothing is learned: intervals could not be calibrated."""
MOST_ROWS: Final = 2_000
"""Results that are learned from, a creative in a campaign on a platform each: time grows with their cube."""
DIGITS: Final = 6

Progress = Callable[[int, int], None]


class CreativeReport(msgspec.Struct, frozen=True):
    """``patterns`` are by measure, the greatest effect first. ``scores`` are by creative id. ``left_out`` results,
    those of the fewest impressions, were not learned from. ``why`` is empty, or why nothing was learned.
    """

    patterns: dict[str, list[AttributePattern]]
    scores: list[CreativeScored]
    learned: Learned
    left_out: int
    why: str


def report(
    creatives: Sequence[Creative],
    results: CreativeResults,
    profile: Profile,
    only: str | None = None,
    progress: Progress | None = None,
) -> CreativeReport:
    """Learn from the results and score every creative, or the one of an id. ``progress`` gets the creatives scored and
    how many there are. Creatives must be distinct by id; the same content gives the same report.
    """
    taken, left_out = _greatest(results.shown)
    campaigns = {campaign.campaign_id for campaign in taken}
    learned = Learned(
        creatives=len({campaign.creative_id for campaign in taken}),
        campaigns=len(campaigns),
        ads=results.ads,
        first_day="" if results.first_day is None else iso_date(results.first_day),
        last_day="" if results.last_day is None else iso_date(results.last_day),
        as_of="" if results.as_of_ms < 0 else iso_instant(results.as_of_ms),
        profile=profile.version,
    )
    why = ""
    dna = None
    if len(campaigns) < LEAST_CAMPAIGNS:
        why = f"{len(campaigns)} campaigns have shown a known creative, at least {LEAST_CAMPAIGNS} are needed to learn"
    else:
        dna = CreativeDNA(creatives, taken, profile)
    scoring = _Scoring(creatives, results, taken, profile, dna, learned, why)
    wanted = sorted(
        (each for each in creatives if only in (None, each.creative_id)), key=lambda creative: creative.creative_id
    )
    scores = []
    for done, creative in enumerate(wanted, start=1):
        scores.append(scoring.of(creative))
        if progress is not None:
            progress(done, len(wanted))
    patterns = {measure: _patterns(dna, measure) for measure in MEASURES} if dna else {}
    return CreativeReport(patterns, scores, learned, left_out, why)


def _patterns(dna: CreativeDNA, measure: str) -> list[AttributePattern]:
    return [
        msgspec.structs.replace(
            pattern, effect=_rounded(pattern.effect), low=_rounded(pattern.low), high=_rounded(pattern.high)
        )
        for pattern in dna.patterns(measure)
    ]


def _greatest(shown: Sequence[CampaignData]) -> tuple[list[CampaignData], int]:
    """The most delivered results, as many as can be learned from, in their order; and how many are left out."""

    def volume(at: int) -> int:
        return sum(metrics.impressions or 0 for metrics in shown[at].platforms.values())

    rows, kept = 0, []
    for at in sorted(range(len(shown)), key=lambda at: (-volume(at), at)):
        rows += len(shown[at].platforms)
        if rows > MOST_ROWS:
            break
        kept.append(at)
    return [shown[at] for at in sorted(kept)], len(shown) - len(kept)


class _Scoring:
    """What is known when one creative is scored."""

    def __init__(
        self,
        creatives: Iterable[Creative],
        results: CreativeResults,
        taken: Sequence[CampaignData],
        profile: Profile,
        dna: CreativeDNA | None,
        learned: Learned,
        why: str,
    ) -> None:
        self._results, self._dna, self._learned, self._why = results, dna, learned, why
        self._profile = profile
        self._normalizer = PlatformNormalizer(profile)
        self._campaigns: dict[str, set[str]] = defaultdict(set)
        for campaign in results.shown:
            self._campaigns[campaign.creative_id].add(campaign.campaign_id)
        by_id = {creative.creative_id: creative for creative in creatives}
        self._showing: dict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
        for campaign in taken:
            for label in _labels(by_id[campaign.creative_id]):
                self._showing[label].add((campaign.creative_id, campaign.campaign_id))

    def of(self, creative: Creative) -> CreativeScored:
        data = self._results.whole.get(creative.creative_id, {})
        others = {
            campaign_id
            for label in _labels(creative)
            for shown_by, campaign_id in self._showing[label]
            if shown_by != creative.creative_id
        }
        found = self._score(creative, data, learnable=bool(others))
        why = ""
        if found.overall_score is None:
            why = self._missing(creative, data)
        return self._record(creative, found, data, why, len(others))

    def _score(self, creative: Creative, data: Mapping[Platform, PlatformMetrics], *, learnable: bool) -> CreativeScore:
        signals, predicted, effects = CreativeSignals(), {}, {}
        if self._dna is not None:
            if learnable:
                signals = self._dna.signals(creative.creative_id, without_own=True)
            if learnable or data:
                runs = data.keys() | {ad.platform for ad in creative.ads}
                predicted = {
                    platform: own
                    for platform, own in self._dna.predict(creative.creative_id, creative.account_id).items()
                    if platform in runs or not runs
                }
                effects = self._dna.effects(creative.creative_id)
        return creative_score.score(creative.creative_id, data, self._normalizer, signals, predicted, effects)

    def _missing(self, creative: Creative, data: Mapping[Platform, PlatformMetrics]) -> str:
        if not creative.ads:
            own = "it names no ad"
        elif not any(ad.ad_id for ad in creative.ads):
            own = "its ads are named by platform_creative_id alone, and reports know ads by ad_id"
        elif data:
            own = "what its ads reported defines no ratio that is scored"
        else:
            own = f"none of its {len({(ad.platform, ad.ad_id) for ad in creative.ads if ad.ad_id})} ads has reported"
        return f"{own}; {self._why or 'no other creative has shown one of its labels'}"

    def _unknown(self, found: PredictedPerformance, why: str) -> dict[str, str]:
        reasons = {}
        for measure in MEASURES:
            if getattr(found, measure) is None:
                if why or self._why:
                    reasons[measure] = why or self._why
                elif measure == "roas":
                    reasons[measure] = (
                        f"no creative has reported spend and revenue in {self._profile.currency} where it runs"
                    )
                else:
                    what = "clicks" if measure == "ctr" else "engagements"
                    reasons[measure] = f"no creative has reported impressions and {what} where it runs"
        return reasons

    def _record(
        self,
        creative: Creative,
        found: CreativeScore,
        data: Mapping[Platform, PlatformMetrics],
        why: str,
        elsewhere: int,
    ) -> CreativeScored:
        labels = dict(_labels(creative)) | {"creative": creative.creative_id}
        return CreativeScored(
            creative_id=creative.creative_id,
            account_id=creative.account_id,
            score=None if found.overall_score is None else _rounded(found.overall_score),
            method=found.scoring_method,  # type: ignore[arg-type] # one of the literals
            why=why,
            parts=[
                Part(
                    name=part.name,  # type: ignore[arg-type] # one of the literals
                    value=_rounded(part.value),
                    weight=_rounded(part.weight),
                    contribution=_rounded(part.contribution),
                )
                for part in found.parts
            ],
            effects=[
                LabelEffect(
                    attribute=attribute,
                    label=labels[attribute],
                    effect=_rounded(each.value),
                    low=_rounded(each.low),
                    high=_rounded(each.high),
                )
                for attribute, each in found.dna.items()
            ],
            confidence=_rounded(found.cross_platform_insight.confidence),
            campaigns=len(self._campaigns[creative.creative_id]),
            elsewhere=elsewhere,
            delivered={
                str(platform): Delivered(
                    impressions=metrics.impressions,
                    clicks=metrics.clicks,
                    conversions=metrics.conversions,
                    engagements=metrics.engagements,
                    spend=metrics.spend,
                    revenue=metrics.revenue,
                    currency=metrics.currency,
                    composite=_known(found.platform_breakdown[str(platform)].composite_score),
                    confidence=_rounded(found.platform_breakdown[str(platform)].confidence),
                )
                for platform, metrics in data.items()
            },
            predicted=_predicted(found.predicted_performance),
            predicted_by_platform={
                str(platform): _predicted(own) for platform, own in sorted(found.predicted_by_platform.items())
            },
            unknown=self._unknown(found.predicted_performance, why),
            learned=self._learned,
        )


def _labels(creative: Creative) -> list[tuple[str, str]]:
    return [pair for pair in zip(ATTRIBUTES, attributes_of(creative), strict=True) if pair[1]]


def _predicted(found: PredictedPerformance) -> Predicted:
    return Predicted(ctr=_estimated(found.ctr), engagement=_estimated(found.engagement), roas=_estimated(found.roas))


def _estimated(found: Estimate | None) -> Estimated | None:
    if found is None:
        return None
    return Estimated(value=_rounded(found.value), low=_rounded(found.low), high=_rounded(found.high))


def _known(value: float | None) -> float | None:
    return None if value is None else _rounded(value)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
