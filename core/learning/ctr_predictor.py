"""``CTRPredictor``: trains across platforms and predicts a campaign's CTR on each of its platforms.

A platform's prior comes from the campaign's other platforms: from the trees where they were promoted, else from the
empirical-Bayes default (``core.learning.borrowing``), and its own counts are then added (beta-binomial). The
campaign's CTR is the mixture of its platforms' by their impressions. The trees see at prediction time what they
saw in training: the features of the other platforms.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from core.intervals import Floats, interval
from core.learning import boosting, ctr_artefact, ctr_training
from core.learning.aggregation import aggregate
from core.learning.borrowing import LEAST_VARIANCE, estimate
from core.learning.campaign_data import (
    CampaignData,
    CampaignLike,
    CreativeSignals,
    campaign_id_of,
    campaigns_of,
    platform_data_of,
    signals_of,
)
from core.learning.ctr_artefact import CtrArtefact
from core.learning.features import FEATURE_NAMES, Features, UnifiedFeatures, feature_matrix, unified_features
from core.learning.row_scores import RowScores
from core.learning.training_rows import (
    LABEL_PLATFORMS,
    count_table,
    evidence_of,
    features_without,
    has_data,
    training_rows,
)
from core.normalizer import PlatformNormalizer
from core.profile import DEFAULT_PROFILE, Profile
from core.ratios import PlatformMetrics
from schemas.insight import CrossPlatformInsight
from schemas.model import model_id
from schemas.platform import Platform

CACHED: Final = 4_096


class NotTrained(RuntimeError):
    """A prediction was asked of a predictor that was neither trained nor loaded."""


class PlatformCtr(msgspec.Struct, frozen=True, kw_only=True):
    """The true CTR of one platform, a fraction, with its 90 % interval.

    ``prior_rate`` is what other platforms and the creative tell; ``source`` is where it came from.
    """

    rate: float
    low: float
    high: float
    prior_rate: float
    source: str


class CrossPlatformPrediction(msgspec.Struct, frozen=True, kw_only=True):
    """``predicted_ctr`` is a probability, [``low``, ``high``] the 90 % interval of the campaign's true CTR.

    ``prediction_source``: ``model`` (promoted trees), ``empirical_bayes``, or ``prior`` where nothing is known of the
    campaign. ``confidence`` (0 to 1) and ``platform_consistency`` are the insight's.
    """

    campaign_id: str
    predicted_ctr: float
    low: float
    high: float
    platforms: dict[Platform, PlatformCtr]
    unified_features: UnifiedFeatures
    cross_platform_insight: CrossPlatformInsight
    platforms_used: list[Platform]
    confidence: float
    platform_consistency: float | None
    prediction_source: str
    model_id: str


class TrainingReport(msgspec.Struct, frozen=True, kw_only=True):
    """What training found. ``test_metrics``: each predictor on the same test rows, by name (see
    ``ctr_training.metrics_of_rows``). ``rows_per_campaign`` says how many samples a campaign gave.
    """

    split: str
    campaigns: int
    rows: int
    rows_per_campaign: float
    test_campaigns: int
    test_rows: int
    test_metrics: dict[str, RowScores]
    promoted: bool
    why: str
    model_id: str


class CTRPredictor:
    """Predicts CTR across platforms. Values in, values out: ``save`` and ``load`` deal in bytes.

    ``history``: campaigns whose creatives may inform predictions; training sets it to the training campaigns.
    """

    def __init__(self, profile: Profile = DEFAULT_PROFILE, history: Sequence[CampaignData] = ()) -> None:
        self.normalizer = PlatformNormalizer(profile)
        self.history = list(history)
        self.model_id = ""
        self._artefact: CtrArtefact | None = None
        self._booster: Any = None
        self._trees = b""
        self._cache: OrderedDict[bytes, CrossPlatformPrediction] = OrderedDict()

    @property
    def artefact(self) -> CtrArtefact:
        """What was trained or loaded. Raises ``NotTrained``."""
        if self._artefact is None:
            raise NotTrained("train the predictor or load a model first")
        return self._artefact

    def train_with_cross_platform_data(
        self, campaign_data: Iterable[CampaignLike], test_size: float = 0.2, random_state: int = 42
    ) -> TrainingReport:
        """Fit on a part of the campaigns and judge on the rest, split by campaign or, where all have an end, by time.

        The result depends on the campaigns, not on their order. Raises ``ValueError`` for fewer than ten campaigns,
        none on two platforms, or a platform without clicks.
        """
        campaigns = sorted(campaigns_of(campaign_data), key=lambda campaign: campaign.campaign_id)
        split = ctr_training.split_campaigns(campaigns, test_size, random_state)
        train, test = (ctr_training.chosen(campaigns, places) for places in (split.train, split.test))
        verdict = self._validated(train, random_state)
        fitted = ctr_training.fit_both(train, self.normalizer, random_state)
        rows, test_rows = training_rows(train, self.normalizer), training_rows(test, self.normalizer)
        if not test_rows.clicks.size:
            raise ValueError("no campaign of the test part ran on two platforms: there is nothing to judge by")
        ends = [campaign.ended_ms for campaign in train if campaign.ended_ms is not None]
        artefact = CtrArtefact(
            feature_names=FEATURE_NAMES,
            platforms=LABEL_PLATFORMS,
            benchmarks=self.normalizer.profile.version,
            borrowing=fitted.borrowing,
            residual=verdict.residual,
            promoted=verdict.promoted,
            why=verdict.why,
            campaigns=len(train),
            rows=int(rows.clicks.size),
            split=split.by,
            test_metrics=ctr_training.metrics_of_rows(fitted, test, test_rows, train, verdict.residual),
            trained_from_ms=min(ends) if ends else None,
            trained_until_ms=max(ends) if ends else None,
        )
        trees = boosting.to_bytes(fitted.booster) if verdict.promoted else b""
        self._take(artefact, fitted.booster if verdict.promoted else None, trees)
        self.history = train
        return TrainingReport(
            split=split.by,
            campaigns=len(train),
            rows=artefact.rows,
            rows_per_campaign=artefact.rows / len(train),
            test_campaigns=len(test),
            test_rows=int(test_rows.clicks.size),
            test_metrics=artefact.test_metrics,
            promoted=verdict.promoted,
            why=verdict.why,
            model_id=self.model_id,
        )

    def predict(self, features: Features, default_rate: ArrayLike) -> Floats:
        """What the trees make of n rows: float32 [n, 19] and the default's rates, [n], to rates, [n].

        The default's rates come back where no trees were promoted. Raises ``ValueError`` for other shapes or rates
        outside of (0, 1), ``NotTrained`` before training.
        """
        rate = np.asarray(default_rate, dtype=np.float64)
        matrix = np.asarray(features, dtype=np.float32)
        if matrix.shape != (rate.size, len(FEATURE_NAMES)) or rate.ndim != 1:
            raise ValueError(f"features must be [n, {len(FEATURE_NAMES)}] and rates [n], not {matrix.shape}")
        if not np.all((rate > 0) & (rate < 1)):
            raise ValueError("the default's rates lie between 0 and 1")
        if not self.artefact.promoted or not rate.size:
            return rate
        return boosting.margins(self._booster, matrix, rate)

    def predict_cross_platform(
        self,
        campaign_id: str,
        platform_data: Mapping[Any, Any] | Iterable[PlatformMetrics],
        creative_dna: CreativeSignals | Mapping[str, float | None] | None = None,
        use_cache: bool = True,
        *,
        creative_id: str = "",
    ) -> CrossPlatformPrediction:
        """The campaign's CTR from all that its platforms reported. Raises ``NotTrained``, ``ValueError``.

        ``use_cache`` returns the earlier answer to the same question of the same model.
        """
        campaign = CampaignData(
            campaign_id=campaign_id_of(campaign_id),
            platforms=platform_data_of(platform_data),
            creative_id=creative_id,
            creative_dna=signals_of(creative_dna),
        )
        if not use_cache:
            return self.predict_many([campaign])[0]
        key = sha256(msgspec.json.encode((self.model_id, campaign))).digest()
        if key not in self._cache:
            self._cache[key] = self.predict_many([campaign])[0]
            if len(self._cache) > CACHED:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return self._cache[key]

    def predict_many(self, campaigns: Sequence[CampaignData]) -> list[CrossPlatformPrediction]:
        """Predictions of a batch, in its order, with one pass through the trees."""
        if not campaigns:
            return []
        artefact = self.artefact
        table = count_table(campaigns, artefact.platforms)
        evidence = evidence_of(artefact.borrowing, campaigns, self.history, artefact.platforms)
        whole = estimate(artefact.borrowing, table.clicks, table.impressions, evidence)
        prior = estimate(artefact.borrowing, table.clicks, table.impressions, evidence, own_counts=False)
        rate, variance, start = whole.rate.copy(), whole.variance.copy(), prior.rate.copy()
        modelled = np.zeros(rate.shape, dtype=bool)
        if artefact.promoted:
            others = [
                [features_without(campaign, platform, self.normalizer) for platform in artefact.platforms]
                for campaign in campaigns
            ]
            modelled = np.array([[has_data(features) for features in row] for row in others])
            picked = [features for row in others for features in row if has_data(features)]
            start[modelled] = self.predict(feature_matrix(picked), prior.rate[modelled])
            strength = np.maximum((1 - start) / (start * artefact.residual) - 1, 1.0)
            updated = (table.clicks + strength * start) / (table.impressions + strength)
            rate = np.where(modelled, updated, rate)
            spread = updated * (1 - updated) / (table.impressions + strength + 1)
            variance = np.where(modelled, spread, variance)
        told = [evidence is not None and bool(evidence.expected[row] > 0) for row in range(len(campaigns))]
        return [
            self._prediction(campaign, table.impressions[row], rate[row], variance[row], start[row], known, told[row])
            for row, (campaign, known) in enumerate(zip(campaigns, modelled, strict=True))
        ]

    def save(self) -> bytes:
        """The model as bytes: header and trees (UBJSON) under one checksum. Raises ``NotTrained``."""
        return ctr_artefact.write(self.artefact, self._trees)

    def load(self, data: bytes | None) -> CtrArtefact:
        """Take a model. Raises ``ModelRefused`` with a reason, and keeps the model there was."""
        artefact, booster, trees = ctr_artefact.read(data or b"", self.normalizer.profile.version)
        self._take(artefact, booster, trees)
        return artefact

    def _take(self, artefact: CtrArtefact, booster: Any, trees: bytes) -> None:
        self._artefact, self._booster, self._trees = artefact, booster, trees
        self.model_id = model_id(ctr_artefact.write(artefact, trees))
        self._cache.clear()

    def _validated(self, train: Sequence[CampaignData], random_state: int) -> ctr_training.Verdict:
        """Judge the trees on a part of the training campaigns that they were not fitted on."""
        try:
            inner = ctr_training.split_campaigns(train, ctr_training.VALIDATION, random_state)
            fitted = ctr_training.fit_both(ctr_training.chosen(train, inner.train), self.normalizer, random_state)
        except ValueError as error:
            return ctr_training.Verdict(False, f"the trees could not be judged: {error}", ctr_training.UNJUDGED)
        held = ctr_training.chosen(train, inner.test)
        known = ctr_training.chosen(train, inner.train)
        return ctr_training.judge(fitted, held, training_rows(held, self.normalizer), known)

    def _prediction(
        self,
        campaign: CampaignData,
        impressions: Floats,
        rate: Floats,
        variance: Floats,
        prior: Floats,
        modelled: ArrayLike,
        creative_known: bool,
    ) -> CrossPlatformPrediction:
        artefact = self.artefact
        insight = aggregate(campaign.campaign_id, campaign.platforms, self.normalizer)
        features = unified_features(insight, campaign.creative_dna)
        by_model = np.asarray(modelled)
        spread = np.maximum(variance, LEAST_VARIANCE * rate**2)
        low, high = interval(rate, spread, np.zeros_like(rate), np.zeros_like(rate))
        used = [platform for platform, seen in zip(artefact.platforms, impressions, strict=True) if seen > 0]
        default = "empirical_bayes" if used or creative_known else "prior"
        runs = np.array([platform in campaign.platforms for platform in artefact.platforms], dtype=np.float64)
        share = impressions if impressions.any() else runs if runs.any() else np.ones_like(rate)
        share = share / share.sum()
        mean = np.array([(share * rate).sum()])
        # The platforms' errors lean the same way: taken as one, the campaign's interval is never too narrow.
        deviation = np.array([(share * np.sqrt(spread)).sum()])
        bounds = interval(mean, deviation**2, np.zeros(1), np.zeros(1))
        return CrossPlatformPrediction(
            campaign_id=campaign.campaign_id,
            predicted_ctr=float(mean[0]),
            low=float(bounds[0][0]),
            high=float(bounds[1][0]),
            platforms={
                platform: PlatformCtr(
                    rate=float(rate[at]),
                    low=float(low[at]),
                    high=float(high[at]),
                    prior_rate=float(prior[at]),
                    source="model" if by_model[at] else default,
                )
                for at, platform in enumerate(artefact.platforms)
            },
            unified_features=features,
            cross_platform_insight=insight,
            platforms_used=used,
            confidence=insight.confidence,
            platform_consistency=insight.consistency_score,
            prediction_source="model" if (by_model & (share > 0)).any() else default,
            model_id=self.model_id,
        )
