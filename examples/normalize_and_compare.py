"""Normalize what three platforms reported and compare them: ``python -m examples.normalize_and_compare``."""

from core import Platform, PlatformMetrics, PlatformNormalizer

REPORTED = [
    PlatformMetrics(platform=Platform.META, impressions=50_000, clicks=1_250, spend=1_875.0, engagements=2_500),
    PlatformMetrics(platform=Platform.TIKTOK, impressions=80_000, clicks=2_400, spend=960.0, engagements=6_400),
    PlatformMetrics(platform=Platform.GOOGLE_ADS, impressions=900, clicks=63, spend=100.0),
]


def main() -> None:
    """Print each platform's scores, the best first, and TikTok's numbers as Meta would show them."""
    normalizer = PlatformNormalizer()
    for scored in normalizer.compare_platforms(REPORTED):
        print(
            f"{scored.platform:<10} composite {scored.composite_score:.3f}  confidence {scored.confidence:.2f}  "
            f"from {', '.join(scored.components)}"
        )
    print("best with confidence:", normalizer.get_best_platform(REPORTED))
    equivalent = normalizer.convert_to_meta_equivalent(REPORTED[1])
    print(f"tiktok as meta: ctr {equivalent.ctr:.4f}  cpc {equivalent.cpc:.2f} USD")


if __name__ == "__main__":
    main()
