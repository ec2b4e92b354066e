"""One campaign on two platforms as one insight and as 19 features: ``python -m examples.aggregate_campaign``."""

from core import FEATURE_NAMES, get_cross_platform_learner

CAMPAIGN = {
    "meta": {"impressions": 50_000, "clicks": 1_250, "spend": 1_875.0, "revenue": 5_600.0, "engagements": 2_500},
    "tiktok": {"impressions": 80_000, "clicks": 2_400, "spend": 960.0, "revenue": 2_400.0, "engagements": 6_400},
}


def main() -> None:
    """Print the insight's head and the features that are known."""
    learner = get_cross_platform_learner()
    insight = learner.aggregate_platform_data("cmp-001", CAMPAIGN)
    print(f"ctr {insight.ctr:.4f}  roas {insight.roas:.2f}  composite {insight.composite_score:.3f}")
    print(f"best platform {insight.best_platform}  consistency {insight.consistency_score:.3f}")
    features = learner.get_unified_features("cmp-001", CAMPAIGN).to_array()
    known = [f"{name} {value:.3f}" for name, value in zip(FEATURE_NAMES, features, strict=True) if value == value]
    print(f"{len(known)} of {len(FEATURE_NAMES)} features known:", ", ".join(known[:4]), "…")


if __name__ == "__main__":
    main()
