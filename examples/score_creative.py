"""Learn what creatives do and score one, every part shown: ``python -m examples.score_creative``."""

from core import CreativeDNA
from examples.simulated import simulate


def main() -> None:
    """Print the sure patterns, a creative's score with its parts, and what is predicted of it."""
    world = simulate(160, seed=3)
    new, known = world.campaigns[-1], world.campaigns[:-1]
    dna = CreativeDNA(world.creatives, known)
    for pattern in dna.patterns():
        if pattern.sure:
            print(
                f"{pattern.attribute} {pattern.label}: CTR {pattern.effect:+.0%} ({pattern.low:+.0%} to "
                f"{pattern.high:+.0%}), {pattern.campaigns} campaigns, {pattern.creatives} creatives"
            )
    score = dna.score_creative_cross_platform(new.creative_id, new.account_id, new.platforms)
    print(f"{score.creative_id} scores {score.overall_score:.3f} by {score.scoring_method}:")
    for part in score.parts:
        print(f"  {part.name} {part.value:.3f} x {part.weight:.3f} = {part.contribution:.3f}")
    predicted = score.predicted_performance
    for name in ("ctr", "engagement", "roas"):
        each = getattr(predicted, name)
        print(f"  predicted {name} {each.value:.3f} ({each.low:.3f} to {each.high:.3f})")


if __name__ == "__main__":
    main()
