"""What winning campaigns have in common, one lucky one included: ``python -m examples.extract_patterns``."""

from core import CampaignData, Platform, PlatformMetrics, get_cross_platform_learner, recommend_platforms
from examples.simulated import simulate

LUCKY = CampaignData(
    campaign_id="lucky",
    platforms={
        Platform.TIKTOK: PlatformMetrics(
            platform=Platform.TIKTOK, impressions=9_000, clicks=200, spend=100.0, revenue=20_000.0
        )
    },
)


def main() -> None:
    """Print the winners' patterns, what became of the lucky campaign, and a recommendation."""
    campaigns = simulate(80, seed=11).campaigns
    patterns = get_cross_platform_learner().extract_cross_platform_patterns([*campaigns, LUCKY], min_roas=2.0)
    print(
        f"{patterns.total_winners} of {patterns.total_campaigns} won ({patterns.win_rate_low:.0%} to "
        f"{patterns.win_rate_high:.0%}), {patterns.multi_platform_winners} of them on several platforms"
    )
    for combo in patterns.combos:
        print(
            f"{'+'.join(combo.combo)}: roas {combo.avg_roas:.2f} ({combo.low:.2f} to {combo.high:.2f}), "
            f"observed {combo.observed_roas:.2f} in {combo.count}"
        )
    best = patterns.best_platform_combo
    print("best:", "+".join(best.combo) if best else None)
    print("new campaign:", recommend_platforms(campaigns, objective="sales", vertical="retail", budget=2_000.0).answer)
    print("with three campaigns:", recommend_platforms(campaigns[:3], objective="sales").answer)


if __name__ == "__main__":
    main()
