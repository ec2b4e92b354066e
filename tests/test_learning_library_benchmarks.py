"""Learned benchmarks: quantiles as numpy has them, mergeable, and a profile that ``load_profile`` takes."""

from typing import Any

import msgspec
import numpy as np
import pytest

from core import DEFAULT_PROFILE, BenchmarkLearner, Platform, PlatformMetrics, PlatformNormalizer, load_profile
from core.ratios import COMPONENTS, ratios_of_metrics
from examples.simulated import simulate

ROWS = [own for campaign in simulate(900, seed=6).campaigns for own in campaign.platforms.values()]


def learned(rows: list[PlatformMetrics], vertical: str = "") -> BenchmarkLearner:
    learner = BenchmarkLearner()
    for row in rows:
        learner.update(row, vertical)
    return learner


def values(platform: Platform, component: str) -> Any:
    at = COMPONENTS.index(component)
    return np.array(
        [
            ratio
            for row in ROWS
            if row.platform == platform and (row.impressions or 0) >= 1_000
            if not isinstance(ratio := ratios_of_metrics(row, "USD")[at], str)
        ]
    )


@pytest.mark.parametrize("platform", [Platform.META, Platform.TIKTOK, Platform.GOOGLE_ADS])
@pytest.mark.parametrize("component", ["ctr", "cpc", "cpm", "engagement"])
def test_quantiles_are_numpys(platform: Platform, component: str) -> None:
    learner, whole = learned(ROWS), values(platform, component)
    assert learner.samples(platform, component) == whole.size
    for rank in (0.05, 0.25, 0.5, 0.75, 0.95):
        found = learner.quantile(platform, component, rank)
        assert found is not None
        assert abs((whole <= found).mean() - rank) < 0.01


def test_parts_merge_to_the_whole() -> None:
    parts = [learned(ROWS[at::3]) for at in range(3)]
    for part in parts[1:]:
        parts[0].merge(part)
    whole = learned(ROWS)
    for platform in (Platform.META, Platform.TIKTOK):
        assert parts[0].samples(platform, "ctr") == whole.samples(platform, "ctr")
        left, right = (learner.quantile(platform, "ctr", 0.5) for learner in (parts[0], whole))
        assert left == pytest.approx(right, rel=0.01)
    with pytest.raises(ValueError, match="one currency"):
        parts[0].merge(BenchmarkLearner("EUR"))


def test_a_learned_profile_is_one_and_normalizes() -> None:
    profile = learned(ROWS).profile()
    assert load_profile(msgspec.json.encode(profile)) == profile
    assert profile.version.startswith(f"{DEFAULT_PROFILE.version}+learned.")
    ctr = profile.platforms[Platform.META].ctr
    whole = values(Platform.META, "ctr")
    assert (ctr.low, ctr.ideal, ctr.high) == pytest.approx(np.quantile(whole, [0.05, 0.5, 0.95]), rel=0.03)
    typical = PlatformMetrics(platform=Platform.META, impressions=100_000, clicks=round(100_000 * ctr.high))
    assert PlatformNormalizer(profile).normalize(typical).normalized_ctr == pytest.approx(1.0, abs=0.01)
    assert profile.platforms[Platform.META].quality == DEFAULT_PROFILE.platforms[Platform.META].quality
    assert profile.platforms[Platform.TIKTOK].quality is None
    assert learned(ROWS).profile("mine").version == "mine"


def test_the_version_tells_what_was_learned() -> None:
    assert learned(ROWS).profile().version == learned(ROWS).profile().version
    assert learned(ROWS).profile().version != learned(ROWS[:1500]).profile().version


def test_with_little_seen_the_default_stays() -> None:
    assert learned([]).profile().platforms == DEFAULT_PROFILE.platforms
    assert learned(ROWS[:90]).profile().platforms == DEFAULT_PROFILE.platforms
    same = [PlatformMetrics(platform=Platform.META, impressions=10_000, clicks=100)] * 500
    assert learned(same).profile().platforms[Platform.META] == DEFAULT_PROFILE.platforms[Platform.META]


def test_a_vertical_falls_back_on_its_platform() -> None:
    learner = learned(ROWS[: len(ROWS) // 2], "retail")
    rich = [PlatformMetrics(platform=Platform.META, impressions=10_000, clicks=300 + at % 200) for at in range(200)]
    for row in rich:
        learner.update(row, "gaming")
    assert learner.profile(vertical="gaming").platforms[Platform.META].ctr.low > 0.029
    assert learner.profile(vertical="gaming").platforms[Platform.TIKTOK] == learner.profile().platforms[Platform.TIKTOK]
    assert learner.profile(vertical="unheard of").platforms == learner.profile().platforms
    assert learner.profile().platforms[Platform.META] != learner.profile(vertical="retail").platforms[Platform.META]


def test_what_tells_nothing_is_not_taken() -> None:
    learner = BenchmarkLearner()
    assert not learner.update(PlatformMetrics(platform=Platform.META, impressions=999, clicks=9))
    assert not learner.update(PlatformMetrics(platform=Platform.UNKNOWN, impressions=10_000, clicks=9))
    assert not learner.update(PlatformMetrics(platform=Platform.META, ctr=0.02))
    foreign = PlatformMetrics(platform=Platform.META, impressions=10_000, clicks=9, spend=5.0, currency="EUR")
    assert learner.update(foreign)
    assert learner.samples(Platform.META, "ctr") == 1
    assert learner.samples(Platform.META, "cpc") == 0
    assert learner.quantile(Platform.META, "cpc", 0.5) is None
    with pytest.raises(ValueError, match="in EUR"):
        BenchmarkLearner("EUR").profile()


def test_what_was_saved_is_read_and_damage_is_refused() -> None:
    learner = learned(ROWS, "retail")
    data = learner.to_bytes()
    again = BenchmarkLearner.from_bytes(data)
    assert again.to_bytes() == data
    assert again.profile(vertical="retail") == learner.profile(vertical="retail")
    for damaged in (
        b"",
        b"nothing",
        data[:-1],
        data[:100],
        data[: len(data) // 2] + b"\0" + data[len(data) // 2 + 1 :],
    ):
        with pytest.raises(ValueError, match="learned benchmarks"):
            BenchmarkLearner.from_bytes(damaged)
