"""A campaign's drift from its insights of single days, by the class and by ``parallax drift`` on a real topic."""

import json
import uuid
from datetime import date, timedelta
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from confluent_kafka import Producer
from hypothesis import given
from hypothesis import strategies as st

from core.learning.campaign_drift import DailyCounts
from core.learning.drift import change_points
from schemas import insight as insight_codec
from schemas.insight import CrossPlatformInsight, Version
from schemas.platform import Platform
from stream_app import topics
from stream_app.cli import cli
from stream_app.settings import Settings
from tests.test_insight import golden

DAYS, FIRST, CHANGED = 40, date(2026, 3, 1), 25
RATES = {"meta": 0.012, "tiktok": 0.02}


def insight(name: str, day: int, counts: dict[str, tuple[int, int]], revision: int = 1) -> CrossPlatformInsight:
    """A day of a campaign: clicks and impressions by platform."""
    one = golden()
    part = one.platform_breakdown["meta"]
    parts = {
        platform: msgspec.structs.replace(
            part, totals=msgspec.structs.replace(part.totals, clicks=clicks, impressions=seen)
        )
        for platform, (clicks, seen) in counts.items()
    }
    ctrs = [clicks / seen for clicks, seen in counts.values() if seen]
    return msgspec.structs.replace(
        one,
        insight_id=f"{name}-{day}",
        campaign_id=name,
        window="24h",
        window_start=(FIRST + timedelta(day)).isoformat(),
        window_end=(FIRST + timedelta(day + 1)).isoformat(),
        version=Version(revision, 0),
        consistency_score=None if len(ctrs) < 2 else round(1 - abs(ctrs[0] - ctrs[1]), 6),
        platform_breakdown=parts,
    )


def campaign(name: str, seed: int, factor: float = 1.0) -> list[CrossPlatformInsight]:
    """Its days; TikTok's CTR changes by a factor from a day on."""
    rng, found = np.random.default_rng(seed), []
    for day in range(DAYS):
        level, counts = float(np.exp(rng.normal(0, 0.2))), {}
        for platform, rate in RATES.items():
            own = rate * level * (factor if platform == "tiktok" and day >= CHANGED else 1.0)
            seen = int(rng.integers(4_000, 9_000))
            counts[platform] = int(rng.binomial(seen, own)), seen
        found.append(insight(name, day, counts))
    return found


def fed(*insights: CrossPlatformInsight, days: int = 60, only: frozenset[str] = frozenset()) -> DailyCounts:
    found = DailyCounts(days, only)
    for one in insights:
        found.take(one)
    return found


def test_a_planted_change_is_dated_and_measured() -> None:
    told = fed(*campaign("c", 3, 0.7)).drift("c")
    assert told is not None
    (change,) = [one for one in told.changes if one.change.platform == Platform.TIKTOK]
    assert abs((date.fromisoformat(change.date) - FIRST).days - CHANGED) <= 1
    assert change.change.low <= 0.7 <= change.change.high
    assert (told.first, told.last, told.days) == ("2026-03-01", "2026-04-09", DAYS)
    assert told.trend is not None
    assert told.trend.value > 0, "TikTok's CTR comes nearer to Meta's"


def test_it_is_that_of_the_counts() -> None:
    days = campaign("c", 5, 1.4)
    told = fed(*days).drift("c", 0.01)
    assert told is not None
    daily = {
        Platform(name): tuple(
            [getattr(day.platform_breakdown[name].totals, field) for day in days] for field in ("clicks", "impressions")
        )
        for name in RATES
    }
    expected = change_points(daily, 0.01)  # type: ignore[arg-type]
    assert sorted(((one.change.platform, one.change) for one in told.changes), key=str) == sorted(
        ((one.platform, one) for one in expected), key=str
    )


@given(st.data())
def test_any_order_and_repetition_gives_the_same(data: st.DataObject) -> None:
    counts = st.tuples(st.integers(0, 30), st.integers(30, 900))
    told = data.draw(
        st.lists(
            st.builds(
                insight,
                st.sampled_from("ab"),
                st.integers(0, 9),
                st.dictionaries(st.sampled_from(("meta", "tiktok")), counts),
                st.integers(1, 4),
            ),
            max_size=12,
        )
    )
    again = data.draw(st.permutations(told + told[::2]))
    one, other = fed(*told, days=6), fed(*again, days=6)
    assert one.campaigns() == other.campaigns()
    assert [one.drift(name) for name in "ab"] == [other.drift(name) for name in "ab"]


def test_what_a_correction_empties_does_not_count() -> None:
    found = fed(insight("c", 0, {"meta": (3, 90)}), insight("c", 1, {"meta": (3, 90)}))
    found.take(insight("c", 1, {}, revision=2))
    told = found.drift("c")
    assert told is not None
    assert (told.last, told.days) == ("2026-03-01", 1)
    found.take(insight("c", 0, {}, revision=2))
    assert found.drift("c") is None
    assert found.campaigns() == []


def test_days_before_the_newest_of_all_campaigns_are_left_out() -> None:
    found = fed(insight("old", 0, {"meta": (3, 90)}), insight("new", 30, {"meta": (3, 90)}), days=30)
    assert found.campaigns() == ["new"]


@pytest.fixture(scope="module")
def prefix(kafka: str) -> str:
    """A topic prefix under which four campaigns stand: one changed, and one a little."""
    found = f"{uuid.uuid4().hex[:8]}."
    topics.create(Settings(kafka_bootstrap=kafka, topic_prefix=found))
    producer = Producer({"bootstrap.servers": kafka})
    days = [*campaign("even", 1), *campaign("odd", 2, 0.6), *campaign("plain", 4), *campaign("slight", 119, 0.9)]
    for number, one in enumerate(days):
        producer.produce(f"{found}insights.latest", insight_codec.encode(one), one.insight_id, partition=number % 4)
    assert producer.flush(20) == 0
    return found


def ran(kafka: str, prefix: str, *arguments: str) -> Any:
    environment = {"PARALLAX_KAFKA_BOOTSTRAP": kafka, "PARALLAX_TOPIC_PREFIX": prefix}
    return CliRunner().invoke(cli, ["drift", *arguments], env=environment)


@pytest.mark.kafka
def test_the_command_lists_the_campaigns_that_changed(kafka: str, prefix: str) -> None:
    told = ran(kafka, prefix)
    assert told.exit_code == 0, told.output
    assert "1 of 4 campaigns changed in the newest 60 days" in told.output
    assert "odd" in told.output
    assert "plain" not in told.output
    (line,) = ran(kafka, prefix, "--format", "json").output.splitlines()
    found = json.loads(line)
    assert found["campaign_id"] == "odd"
    assert {one["change"]["platform"] for one in found["changes"]} <= {"meta", "tiktok"}


@pytest.mark.kafka
def test_the_command_tells_of_one_campaign_that_did_not_change(kafka: str, prefix: str) -> None:
    told = ran(kafka, prefix, "plain", "--days", "30")
    assert told.exit_code == 0, told.output
    assert "0 of 1 campaigns changed in the newest 30 days" in told.output
    assert "none" in told.output


@pytest.mark.kafka
def test_what_would_be_a_change_of_one_campaign_may_be_chance_among_several(kafka: str, prefix: str) -> None:
    assert "1 of 1 campaigns changed" in ran(kafka, prefix, "slight").output
    assert "slight" not in ran(kafka, prefix).output


@pytest.mark.kafka
def test_a_campaign_that_is_not_there_is_one_line(kafka: str, prefix: str) -> None:
    told = ran(kafka, prefix, "nobody")
    assert told.exit_code == 1
    assert told.output.strip() == "parallax: campaign nobody has no day among the newest 60"
