"""Maturity: the curve that is set, what an insight says by it, and the curve that restatements show."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from core.ingest import Ingest
from core.maturity import Observation, development_factors, share
from core.offline import compute
from core.profile import DEFAULT_PROFILE, Curve, load_profile
from schemas import insight as insight_codec
from schemas.platform import Platform
from stream_app.cli import cli
from tests.driven import Driven, at, rollup
from tests.histories import DAY, FIRST_DAY, HOUR, T0, arrange, examples, histories, midnight, snapshot
from tests.pipeline import CONFIG, Pipeline
from tests.test_acceptance_native import restated, written

ages = st.floats(0, 200)


# The curve


@pytest.mark.parametrize("platform", list(DEFAULT_PROFILE.platforms))
@given(ages, ages)
def test_a_curve_rises_to_one(platform: Platform, one: float, two: float) -> None:
    curve = DEFAULT_PROFILE.platforms[platform].maturity
    assert curve is not None
    younger, older = sorted((one, two))
    assert 0 < share(curve, younger) <= share(curve, older) <= 1
    assert share(curve, 91) == 1


def test_between_its_points_a_curve_is_a_line() -> None:
    curve: Curve = ((1.0, 0.5), (3.0, 0.9), (10.0, 1.0))
    found = [share(curve, age) for age in (0, 1, 2, 3, 6.5, 10, 99)]
    assert found == pytest.approx([0.5, 0.5, 0.7, 0.9, 0.95, 1, 1])


@pytest.mark.parametrize(
    "curve",
    [[], [[0, 0.5]], [[0, 0.5], [0, 1]], [[-1, 0.5], [1, 1]], [[0, 0.9], [1, 0.8], [2, 1]], [[0, -0.1], [1, 1]]],
)
def test_a_curve_that_cannot_be_is_refused_by_the_profile(curve: list[list[float]]) -> None:
    given_profile = json.loads(msgspec.json.encode(DEFAULT_PROFILE))
    given_profile["platforms"]["meta"]["maturity"] = curve
    with pytest.raises(ValueError, match=r"maturity curve"):
        load_profile(json.dumps(given_profile))


# What an insight says


def told(*facts: Any, window: str = "24h", **config: Any) -> Any:
    history = compute(
        [(*name, held) for name, held in arrange(facts).items()],
        Ingest(partitions=1),
        msgspec.structs.replace(CONFIG, **config),
    )
    return [each for each in history.insights if each.window == window]


@pytest.mark.parametrize(
    ("zone", "day", "length"),
    [("", 0, 24), ("America/Los_Angeles", 1, 23), ("Asia/Kolkata", 0, 24)],
)
def test_age_is_counted_from_the_end_of_the_accounts_day(zone: str, day: int, length: int) -> None:
    assert midnight(day + 1, zone) - midnight(day, zone) == length * HOUR
    for after, expected in ((-HOUR, 0.75), (0, 0.75), (DAY, 0.88), (2 * DAY, 0.915), (8 * DAY, 1.0), (40 * DAY, 1.0)):
        (one,) = told(snapshot(day=day, zone=zone, pulled=length * HOUR + after, conversions_micros=5))
        assert one.maturity == {"meta": pytest.approx(expected)}
        assert one.platform_breakdown["meta"].maturity == pytest.approx(expected)


def test_each_platform_is_as_old_as_its_own_newest_report_and_a_week_as_its_last_day() -> None:
    facts = (
        snapshot("meta", day=0, pulled=30 * DAY, clicks=1),
        snapshot("tiktok", day=0, pulled=2 * DAY, clicks=1),
        snapshot("meta", day=1, pulled=DAY, clicks=1),
    )
    found = {(each.campaign_id, each.window_end): each.maturity for each in told(*facts, window="7d")}
    assert found["meta:1", "2026-03-09"] == {"meta": 1.0}
    assert found["tiktok:1", "2026-03-08"] == {"tiktok": pytest.approx(0.88)}


def test_an_hour_is_as_old_as_its_report() -> None:
    (hour,) = told(snapshot(hour=3, pulled=HOUR + DAY, clicks=1), window="1h")
    assert hour.maturity == {"meta": pytest.approx(0.88)}


def test_a_platform_without_a_curve_says_nothing() -> None:
    bare = msgspec.structs.replace(DEFAULT_PROFILE.platforms[Platform.META], maturity=None)
    profile = msgspec.structs.replace(DEFAULT_PROFILE, platforms={Platform.META: bare})
    (one,) = told(snapshot(clicks=1), profile=profile)
    assert one.maturity == {"meta": None}
    (other,) = told(snapshot("tiktok", clicks=1), profile=profile)
    assert other.maturity == {"tiktok": None}


@examples(40)
@given(histories(), st.randoms(use_true_random=False))
def test_maturity_is_a_function_of_the_set_of_records(history: list[Any], mix: Any) -> None:
    expected = [(each.insight_id, each.as_of, each.maturity) for each in told(*history)]
    mix.shuffle(history)
    assert [(each.insight_id, each.as_of, each.maturity) for each in told(*history)] == expected
    pipeline = Pipeline(arrange(history), 2, 2).drain()
    found = [(each.insight_id, each.as_of, each.maturity) for each in pipeline.insights() if each.window == "24h"]
    assert sorted(found) == sorted(expected)


def test_a_report_that_only_grew_older_is_no_news_and_what_is_shown_again_is_as_it_was() -> None:
    """Connectors pull every day of their look-back again: that alone must not correct a month of insights."""
    driven = Driven("24h")
    driven.tell(rollup(1, 5), at(T0 + 9 * DAY))
    (first,) = driven.take().emissions
    assert first.insight.maturity == {"meta": 0.75}
    driven.tell(rollup(2, 5, as_of_ms=T0 + 30 * DAY))
    assert driven.take().emissions == []
    (shown,), _ = next(driven.state.hot())
    assert shown.payload == first.payload
    driven.tell(rollup(3, 6, as_of_ms=T0 + 30 * DAY))
    (corrected,) = driven.take().emissions
    assert corrected.insight.maturity == {"meta": 1.0}


def test_maturity_is_no_content() -> None:
    (one,) = told(snapshot(clicks=1))
    (two,) = told(snapshot(pulled=20 * DAY, clicks=1))
    assert one.maturity != two.maturity
    assert insight_codec.content(one) == insight_codec.content(two)


# What restatements show

TRUTH = {0: 0.5, 1: 0.7, 2: 0.8, 4: 0.9, 7: 1.0}


def truth(age: int) -> float:
    return share(tuple((float(day), part) for day, part in TRUTH.items()), age)


def pulls(rows: int, seen: Any) -> list[Observation]:
    return [
        Observation(Platform.META, f"c{row}", row, age, 1_000_000 * (row + 1) * truth(age))
        for row in range(rows)
        for age in seen(row)
    ]


@pytest.mark.parametrize(
    "seen",
    [
        lambda row: range(12),
        # Days that are still young show only the beginning, as in every real table.
        lambda row: range(2 + row % 12),
        # A connector that missed a day, where the truth is a line.
        lambda row: (0, 1, 2, 4, 5, 7, 9),
    ],
)
def test_restatements_show_the_curve_that_made_them(seen: Any) -> None:
    found = development_factors(pulls(60, seen), min_support=5)[Platform.META]
    for age in range(9):
        assert share(found.curve, age) == pytest.approx(truth(age), abs=2e-4)
    profile = msgspec.structs.replace(
        DEFAULT_PROFILE,
        platforms={
            Platform.META: msgspec.structs.replace(DEFAULT_PROFILE.platforms[Platform.META], maturity=found.curve)
        },
    )
    assert load_profile(msgspec.json.encode(profile)) == profile


def test_factors_are_weighted_by_volume() -> None:
    """By hand: 10 becomes 20 and 90 becomes 90, so 100 becomes 110 and not, as the mean would have it, 150."""
    rows = [("a", 0, 10), ("a", 1, 20), ("b", 0, 90), ("b", 1, 90)]
    found = development_factors([Observation(Platform.META, name, 0, age, value) for name, age, value in rows], 2)
    assert found[Platform.META].factors[0].factor == pytest.approx(1.1)
    assert found[Platform.META].curve == ((0.0, round(1 / 1.1, 4)), (1.0, 1.0))


def test_too_little_support_ends_the_curve_or_gives_none() -> None:
    seen = [*pulls(9, lambda row: range(3)), *pulls(3, lambda row: range(8))]
    assert development_factors(seen, min_support=10) == {}
    (found,) = development_factors(seen, min_support=5).values()
    assert [(factor.age, factor.support) for factor in found.factors] == [(0, 9), (1, 9)]
    assert found.curve[-1] == (2.0, 1.0)


@examples(100)
@given(
    st.lists(
        st.builds(
            Observation,
            st.sampled_from((Platform.META, Platform.TIKTOK)),
            st.sampled_from("ab"),
            st.integers(0, 2),
            st.integers(-1, 130),
            st.integers(0, 5).map(float),
        ),
        max_size=20,
    )
)
def test_whatever_was_seen_gives_a_curve_that_a_profile_takes(seen: list[Observation]) -> None:
    for platform, found in development_factors(seen, min_support=1).items():
        given_profile = json.loads(msgspec.json.encode(DEFAULT_PROFILE))
        given_profile["platforms"][str(platform)]["maturity"] = found.curve
        assert load_profile(json.dumps(given_profile)).platforms[platform].maturity == found.curve


# The command


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["maturity", *arguments])


def test_the_command_prints_a_profile_with_what_the_files_show(tmp_path: Path) -> None:
    lines = []
    for row in range(12):
        for age in range(9):
            day = FIRST_DAY.timestamp() * 1000
            lines.append(
                {
                    "stream": "ads_insights",
                    "emitted_at": int(day) + (age + 1) * DAY + HOUR,
                    "data": {
                        "account_id": "1",
                        "campaign_id": f"c{row}",
                        "date_start": "2026-03-07",
                        "date_stop": "2026-03-07",
                        "impressions": "100",
                        "actions": [{"action_type": "purchase", "value": str(1000 * truth(age))}],
                    },
                }
            )
    lines.reverse()
    done = run(str(written(tmp_path / "pulls.jsonl", lines)))
    assert done.exit_code == 0, done.output
    profile = load_profile(done.stdout)
    assert profile.version == f"{DEFAULT_PROFILE.version}+maturity"
    curve = profile.platforms[Platform.META].maturity
    assert curve is not None
    assert [share(curve, age) for age in range(8)] == pytest.approx([truth(age) for age in range(8)], abs=2e-4)
    assert profile.platforms[Platform.TIKTOK] == DEFAULT_PROFILE.platforms[Platform.TIKTOK]
    assert done.stderr == "meta: days 0 to 8 after a day's end, at least 12 rows each\n"


def test_a_real_restatement_gives_a_curve(tmp_path: Path) -> None:
    file = written(tmp_path / "pairs.jsonl", restated())
    done = run(str(file), "--min-support", "1")
    assert done.exit_code == 0, done.output
    curve = load_profile(done.stdout).platforms[Platform.GOOGLE_ADS].maturity
    assert curve is not None
    assert 0.5 < curve[0][1] < 1


def test_files_without_restatements_say_so_in_one_line(tmp_path: Path) -> None:
    done = run(str(written(tmp_path / "one.jsonl", restated()[:1])))
    assert done.exit_code == 1
    assert done.stderr.startswith("parallax: 1 rows of whole days with conversions, but no 10 that were pulled")
