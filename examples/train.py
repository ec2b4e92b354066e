"""Train across platforms, and what three platforms give over one: ``python -m examples.train``."""

from core import CTRPredictor, Platform, compare_training_sets
from examples.simulated import simulate


def main() -> None:
    """Print the test metrics, a prediction, and the gain where campaigns share quality and where they do not."""
    campaigns = simulate(400, seed=7).campaigns
    predictor = CTRPredictor()
    report = predictor.train_with_cross_platform_data(campaigns)
    print(f"{report.rows} rows of {report.campaigns} campaigns, judged on {report.test_rows} rows of others:")
    for name, scores in report.test_metrics.items():
        print(
            f"  {name:<20} log-loss {scores.log_loss:.4f}  MAE {scores.mae_50:.4f}  "
            f"predicted/actual {scores.predicted_over_actual:.2f}"
        )
    print("model promoted:", report.promoted)
    new = predictor.predict_cross_platform("new", {"meta": {"impressions": 20_000, "clicks": 480, "spend": 500.0}})
    tiktok = new.platforms[Platform.TIKTOK]
    print(f"never on tiktok, ctr there {tiktok.rate:.3f} ({tiktok.low:.3f} to {tiktok.high:.3f}), {tiktok.source}")
    for title, effect in (("quality shared", 0.4), ("nothing shared", 0.0)):
        data = simulate(
            400, seed=1, campaign_effect=effect, creative_effect=0.15 * bool(effect), planted=float(effect > 0)
        )
        gain = compare_training_sets(data.campaigns)
        print(
            f"{title}: {gain.times_samples:.0f}x samples; of the avoidable log-loss, one platform's rows take "
            f"{gain.gain('one_platform'):.0%}, all platforms' {gain.gain('all_platforms'):.0%}"
        )


if __name__ == "__main__":
    main()
