"""Replay, its pure part: what differs is told, what is told differs, and what mends it takes its place in the order."""

import json
from collections.abc import Iterable
from itertools import combinations
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.campaigns import InsightConfig
from core.ingest import Ingest
from core.insight import insight_id
from core.offline import compute
from core.replay import ABSENT, PRESENT, UNREADABLE, WHOLE, Finding, Held, Scope, Slot, changes, compare, promoted
from core.window import parse_window
from schemas import insight as insight_codec
from schemas.calendar import instant_ms
from schemas.event import DAY_MS
from schemas.insight import CrossPlatformInsight, Phase, Version
from tests.histories import DAY, HOUR, T0, Fact, History, arrange, delta, examples, histories, link, snapshot
from tests.pipeline import CONFIG, Pipeline, flat
from tests.pipeline import changes as change_of

Topic = dict[str, Held]
Redis = dict[Slot, Held]
EVERYTHING = Scope(windows=CONFIG.windows)


def computed(history: History) -> list[CrossPlatformInsight]:
    return Pipeline(arrange(history)).drain().insights()


def facts() -> list[Fact]:
    days = [
        fact
        for day in range(3)
        for fact in (
            snapshot(day=day, impressions=1_000 + day, clicks=7, spend_micros=5, currency="USD"),
            snapshot("tiktok", day=day, impressions=10, spend_micros=5, currency="EUR"),
        )
    ]
    return [*days, delta("e-1", at=5 * HOUR, platform="google_ads", campaign="7", clicks=1), link("spring")]


@pytest.fixture(scope="module")
def sample() -> list[CrossPlatformInsight]:
    return computed([*facts(), link("spring", platform="tiktok")])


def live_of(insights: Iterable[CrossPlatformInsight], stamp_ms: int = 5) -> tuple[Topic, Redis]:
    """The live side when all is well: every insight on the topic, the newest of each slot in Redis."""
    topic: Topic = {}
    redis: Redis = {}
    for insight in sorted(insights, key=lambda insight: insight.window_start):
        topic[insight.insight_id] = Held(insight, insight.version.revision, stamp_ms)
        redis[insight.campaign_id, insight.window] = Held(insight, 77)
    return topic, redis


def find(
    insights: list[CrossPlatformInsight], topic: Topic, redis: Redis | None, scope: Scope = EVERYTHING, fresh: int = 0
) -> list[Finding]:
    return compare(insights, topic, redis, scope, fresh_from_ms=fresh)


def rows(findings: list[Finding]) -> list[tuple[Any, ...]]:
    return [
        (row.campaign, row.window, row.start, row.metric, row.live, row.recomputed, row.where)
        for finding in findings
        for row in finding.differences
    ]


def with_clicks(insight: CrossPlatformInsight, clicks: int) -> CrossPlatformInsight:
    return msgspec.structs.replace(insight, totals=msgspec.structs.replace(insight.totals, clicks=clicks))


def pick(
    insights: list[CrossPlatformInsight], window: str, start: str, campaign: str = "spring"
) -> CrossPlatformInsight:
    [found] = [i for i in insights if (i.campaign_id, i.window, i.window_start) == (campaign, window, start)]
    return found


@given(histories(), histories())
@examples(60)
def test_nothing_differs_exactly_if_the_contents_are_equal(one: History, other: History) -> None:
    left, right = computed(one), computed(other)
    for insights in (left, right):
        topic, redis = live_of(insights)
        assert find(insights, topic, redis) == []
    for a, b in combinations([*left, *right][:12], 2):
        same = insight_codec.content(a) == insight_codec.content(b)
        assert (changes(a, b) == {}) == same
        assert changes(a, b).keys() == changes(b, a).keys()
    topic, redis = live_of(right)
    found = find(left, topic, redis)
    contents = {insight.insight_id: insight_codec.content(insight) for insight in left}
    held = {key: insight_codec.content(kept.insight) for key, kept in topic.items() if kept.insight}
    assert {f.id for f in found if "topic" in f.wrong} == {
        key for key in {*contents, *held} if contents.get(key) != held.get(key)
    }


@given(histories(), histories())
@examples(60)
def test_what_is_promoted_mends_and_promoting_again_changes_nothing(one: History, other: History) -> None:
    """Whatever the live side holds, after the promotion it holds what was recomputed; versions only rise."""
    left, (topic, redis) = computed(one), live_of(computed(other))
    for finding in find(left, topic, redis):
        insight = promoted(finding, CONFIG.windows, CONFIG)
        assert insight_codec.decode(insight_codec.encode(insight)) == insight
        held = topic.get(finding.id)
        if held is not None and held.insight is not None:
            assert held.insight.version < insight.version
            assert insight.correction is not None
            if "topic" in finding.wrong:
                assert insight.correction.difference == change_of(flat(held.insight), flat(insight))
        if "topic" in finding.wrong:
            topic[finding.id] = Held(insight, insight.version.revision)
        if "redis" in finding.wrong:
            redis[insight.campaign_id, insight.window] = Held(insight, 77)
    assert find(left, topic, redis) == []


@given(st.integers(0, 2**40), st.sampled_from([Phase.PRELIMINARY, Phase.FINAL, Phase.CORRECTED]), st.integers(1, 9))
def test_a_replayed_version_stands_between_what_is_there_and_the_next_change(
    revision: int, phase: Phase, later: int
) -> None:
    live, mended = Version(revision, phase), Version(revision, Phase.REPLAYED)
    assert live < mended < Version(revision + later, Phase.PRELIMINARY)


def test_a_wrong_number_is_one_row_that_says_where(sample: list[CrossPlatformInsight]) -> None:
    topic, redis = live_of(sample)
    right = pick(sample, "24h", "2026-03-09")
    wrong = with_clicks(right, 8)
    place = ("spring", "24h", "2026-03-09", "totals.clicks", 8, 7)
    topic[right.insight_id] = Held(wrong, 9)
    assert rows(find(sample, topic, redis)) == [(*place, "topic")]
    redis["spring", "24h"] = Held(wrong, 9)
    assert rows(find(sample, topic, redis)) == [(*place, "both")]
    assert rows(find(sample, topic, None)) == [(*place, "topic")]
    topic[right.insight_id] = Held(right, 9)
    assert rows(find(sample, topic, redis)) == [(*place, "redis")]
    topic[right.insight_id] = Held(with_clicks(right, 6), 9)
    assert {row[4:] for row in rows(find(sample, topic, redis))} == {(6, 7, "topic"), (8, 7, "redis")}


def test_paths_name_the_platform_and_the_amount(sample: list[CrossPlatformInsight]) -> None:
    right = pick(sample, "24h", "2026-03-08")
    body = json.loads(insight_codec.encode(right))
    body["platform_breakdown"]["meta"]["totals"]["spend_micros"] = 4
    body["totals"]["money"][1]["spend_micros"] = 6
    body["coverage"]["meta"] = 0.25
    wrong = insight_codec.decode(json.dumps(body).encode())
    assert changes(wrong, right) == {
        "platform_breakdown.meta.totals.spend_micros": (4, 5),
        "totals.money.1.spend_micros": (6, 5),
        "coverage.meta": (0.25, right.coverage["meta"]),
    }
    assert changes(wrong, right, "tiktok") == {}
    assert len(changes(wrong, right, "meta")) == 2


def test_how_an_insight_came_about_is_no_difference(sample: list[CrossPlatformInsight]) -> None:
    topic, redis = live_of(
        msgspec.structs.replace(insight, version=Version(99, 2), phase="corrected", as_of="x") for insight in sample
    )
    assert find(sample, topic, redis) == []


def test_what_is_missing_and_what_should_not_be_there_are_told(sample: list[CrossPlatformInsight]) -> None:
    topic, redis = live_of(sample)
    first, newest = pick(sample, "24h", "2026-03-07"), pick(sample, "24h", "2026-03-09")
    missing = (WHOLE, ABSENT, PRESENT)
    del topic[first.insight_id]
    assert rows(find(sample, topic, redis)) == [("spring", "24h", "2026-03-07", *missing, "missing")]
    topic, redis = live_of(sample)
    del topic[newest.insight_id]
    assert [row[3:] for row in rows(find(sample, topic, redis))] == [(*missing, "topic")]
    del redis["spring", "24h"]
    assert [row[3:] for row in rows(find(sample, topic, redis))] == [(*missing, "missing")]
    topic, redis = live_of(sample)
    without = [insight for insight in sample if insight is not first]
    assert [row[3:] for row in rows(find(without, topic, redis))] == [(WHOLE, PRESENT, ABSENT, "topic")]
    nothing = [insight for insight in sample if insight.campaign_id != "spring"]
    told = [row for row in rows(find(nothing, topic, redis)) if row[2:4] == ("2026-03-09", WHOLE)]
    assert [row[4:] for row in told] == [(PRESENT, ABSENT, "both")]
    topic[first.insight_id] = Held(None, 4)
    assert [row[3:] for row in rows(find(sample, topic, redis))] == [(WHOLE, UNREADABLE, PRESENT, "topic")]


def test_an_insight_without_content_is_as_none(sample: list[CrossPlatformInsight]) -> None:
    topic, redis = live_of(sample)
    first = pick(sample, "24h", "2026-03-07")
    without = [insight for insight in sample if insight is not first]
    [finding] = find(without, topic, redis)
    empty = promoted(finding, CONFIG.windows, CONFIG)
    assert (empty.insight_id, empty.window_start, empty.window_end) == (
        first.insight_id,
        first.window_start,
        first.window_end,
    )
    assert empty.platform_breakdown == {}
    assert empty.totals.impressions is None
    assert empty.correction is not None
    assert empty.correction.difference == change_of(flat(first), {})
    assert empty.correction.reason == "replay"
    assert (empty.version, empty.phase) == (Version(first.version.revision, 3), "replayed")
    topic[first.insight_id] = Held(empty, 9)
    assert find(without, topic, redis) == []
    assert [row[3:] for row in rows(find(sample, topic, redis))] == [(WHOLE, ABSENT, PRESENT, "missing")]


def test_what_redis_let_expire_is_not_missed(sample: list[CrossPlatformInsight]) -> None:
    topic, redis = live_of(sample, stamp_ms=1_000)
    del redis["spring", "7d"]
    assert find(sample, topic, redis, fresh=1_001) == []
    [finding] = find(sample, topic, redis, fresh=1_000)
    assert finding.wrong == {"redis"}
    assert (finding.redis, finding.window) == (None, "7d")
    assert [row.where for row in finding.differences] == ["redis"]


def test_an_older_window_in_redis_is_told_and_a_newer_one_beyond_the_scope_is_not(
    sample: list[CrossPlatformInsight],
) -> None:
    topic, redis = live_of(sample)
    redis["spring", "24h"] = Held(pick(sample, "24h", "2026-03-08"), 50)
    assert [row[2:] for row in rows(find(sample, topic, redis))] == [
        ("2026-03-09", "window_start", "2026-03-08", "2026-03-09", "redis")
    ]
    until = instant_ms("2026-03-09T00:00:00.000Z")
    _, redis = live_of(sample)
    before = [insight for insight in sample if insight.window_end <= "2026-03-09"]
    assert find(before, topic, redis, Scope(windows=CONFIG.windows, to_ms=until)) == []
    assert find(before, topic, redis) != []


def test_the_scope_is_windows_that_end_in_it_and_what_bears_on_them_reaches_back(
    sample: list[CrossPlatformInsight],
) -> None:
    start, end = instant_ms("2026-03-08T00:00:00.000Z"), instant_ms("2026-03-09T00:00:00.000Z")
    scope = Scope(windows=CONFIG.windows, from_ms=start, to_ms=end)
    found = {(i.window, i.window_start) for i in sample if scope.holds(i)}
    assert {start for window, start in found if window == "24h"} == {"2026-03-08"}
    assert {start for window, start in found if window == "7d"} == {"2026-03-02"}
    assert Scope(windows=CONFIG.windows).reach_ms == 8 * DAY_MS
    assert Scope(windows=CONFIG.windows[:1]).reach_ms == 2 * DAY_MS
    hour = pick(sample, "1h", "2026-03-07T05:00:00.000Z", "google_ads:7")
    for begin, until, held in ((5, 6, True), (4, 6, True), (6, 9, False), (4, 5, False)):
        assert Scope(windows=CONFIG.windows, from_ms=T0 + begin * HOUR, to_ms=T0 + until * HOUR).holds(hour) is held
    assert not Scope(windows=CONFIG.windows[1:]).holds(hour)
    assert not Scope(windows=CONFIG.windows, campaigns=frozenset({"spring"})).holds(hour)
    assert not EVERYTHING.holds(msgspec.structs.replace(hour, window_start="soon"))


@pytest.mark.parametrize(("window", "days"), [("24h", 0), ("7d", 6)])
def test_what_arrived_before_the_reach_bears_on_no_window_in_scope(window: str, days: int) -> None:
    """An account's date begins up to 14 hours before UTC's, and the first day of a window before its last."""
    facts = [
        delta(f"{hour}", at=30 * DAY + hour * HOUR, time_zone="Pacific/Kiritimati", impressions=1)
        for hour in range(-240, 5)
    ]
    config = InsightConfig(windows=(parse_window(window),))
    scope = Scope(windows=config.windows, from_ms=T0 + 30 * DAY)
    begin = T0 + 30 * DAY - scope.reach_ms

    def judged(facts: list[Fact]) -> list[CrossPlatformInsight]:
        batches = [(topic, partition, records) for (topic, partition), records in arrange(facts).items()]
        found = compute(batches, Ingest(partitions=1), config).insights
        return [insight for insight in found if scope.holds(insight)]

    whole = judged(facts)
    assert [insight.totals.impressions for insight in whole] == [(days * 24) + 14 + 5]
    assert rows(find(judged([fact for fact in facts if fact.arrival >= begin]), *live_of(whole), scope)) == []
    assert rows(find(judged([fact for fact in facts if fact.arrival >= begin + 3 * DAY]), *live_of(whole), scope))


def test_records_of_a_time_alone_speak_of_the_windows_that_they_touch(sample: list[CrossPlatformInsight]) -> None:
    topic, redis = live_of(sample)
    touched = [pick(sample, "24h", "2026-03-08")]
    scope = Scope(windows=CONFIG.windows, whole=False)
    assert find(touched, topic, redis, scope) == []
    assert [row[3] for row in rows(find([with_clicks(touched[0], 1)], topic, redis, scope))] == ["totals.clicks"]
    assert [row[2] for row in rows(find(sample, {}, None, scope))].count("2026-03-08") == 1


def test_a_platform_alone_is_compared_by_its_part(sample: list[CrossPlatformInsight]) -> None:
    topic, redis = live_of(sample)
    right = pick(sample, "24h", "2026-03-08")
    without = msgspec.structs.replace(
        right, platform_breakdown={"tiktok": right.platform_breakdown["tiktok"]}, coverage={"tiktok": 1.0}
    )
    topic[right.insight_id] = Held(without, 3)
    assert find(sample, topic, redis, Scope(windows=CONFIG.windows, platform="tiktok")) == []
    meta = find(sample, topic, redis, Scope(windows=CONFIG.windows, platform="meta"))
    assert [row[3:] for row in rows(meta)] == [(WHOLE, ABSENT, PRESENT, "missing")]


def test_the_revision_is_the_one_that_is_held(sample: list[CrossPlatformInsight]) -> None:
    topic, redis = live_of(sample)
    newest = pick(sample, "24h", "2026-03-09")
    versioned = msgspec.structs.replace(with_clicks(newest, 1), version=Version(41, 2))

    def promote() -> CrossPlatformInsight:
        [finding] = find(sample, topic, redis)
        return promoted(finding, CONFIG.windows, CONFIG)

    topic[newest.insight_id] = Held(versioned, 41)
    assert promote().version == Version(41, 3)
    topic[newest.insight_id] = Held(None, 43)
    assert promote().version == Version(43, 3)
    del topic[newest.insight_id]
    assert promote().version == Version(newest.version.revision, 3), "that of the insight in Redis"
    del redis["spring", "24h"]
    assert promote().version == Version(0, 3)
    assert promote().correction is not None
    topic, redis = live_of(sample)
    redis["spring", "24h"] = Held(versioned, 500)
    mended = promote()
    assert mended.version == Version(newest.version.revision, 3)
    assert mended.correction is not None
    assert mended.correction.difference == {"clicks": 6}


def test_the_ids_of_the_sample_are_those_of_the_core(sample: list[CrossPlatformInsight]) -> None:
    assert pick(sample, "24h", "2026-03-08").insight_id == insight_id("spring", "24h", (T0 + DAY) // DAY_MS)
