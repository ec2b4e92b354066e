"""Learning across platforms: features, patterns, CTR models, creatives, benchmarks and drift. Values in, values out."""

from core.learning.benchmarks import BenchmarkLearner
from core.learning.borrowing import CtrBorrowing
from core.learning.campaign_data import CampaignData, CreativeSignals
from core.learning.creative_dna import CreativeDNA
from core.learning.creative_formula import AttributePattern, CreativeFormula
from core.learning.creative_score import CreativeScore, Estimate
from core.learning.ctr_artefact import ModelRefused
from core.learning.ctr_predictor import CrossPlatformPrediction, CTRPredictor, NotTrained, TrainingReport
from core.learning.drift import ChangePoint, PageCusum, Trend, change_points, consistency_trend
from core.learning.features import FEATURE_NAMES, UnifiedFeatures, feature_matrix
from core.learning.learner import CrossPlatformLearner, get_cross_platform_learner
from core.learning.recommendation import PlatformOption, PlatformRecommendation, recommend_platforms
from core.learning.row_scores import RowScores
from core.learning.sample_gain import SampleGain, compare_training_sets
from core.learning.training_rows import TrainingRows
from schemas.patterns import CrossPlatformPatterns, PlatformCombo, PlatformStats, PooledRatio

__all__ = [
    "FEATURE_NAMES",
    "AttributePattern",
    "BenchmarkLearner",
    "CTRPredictor",
    "CampaignData",
    "ChangePoint",
    "CreativeDNA",
    "CreativeFormula",
    "CreativeScore",
    "CreativeSignals",
    "CrossPlatformLearner",
    "CrossPlatformPatterns",
    "CrossPlatformPrediction",
    "CtrBorrowing",
    "Estimate",
    "ModelRefused",
    "NotTrained",
    "PageCusum",
    "PlatformCombo",
    "PlatformOption",
    "PlatformRecommendation",
    "PlatformStats",
    "PooledRatio",
    "RowScores",
    "SampleGain",
    "TrainingReport",
    "TrainingRows",
    "Trend",
    "UnifiedFeatures",
    "change_points",
    "compare_training_sets",
    "consistency_trend",
    "feature_matrix",
    "get_cross_platform_learner",
    "recommend_platforms",
]
