"""Replay: what the input topics say, beside what the live side holds, and the insights that mend the latter.

Only content is compared (``schemas.insight.content``): how an insight came about depends on the way that the records
took, what it says does not. An insight whose window has lost all content is the same as none.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from core.insight import build
from core.insight_config import InsightConfig
from core.published import difference, flat_reporting
from core.rates import Rates
from core.window import Window
from schemas import insight as insight_codec
from schemas.calendar import instant_ms, iso_instant
from schemas.dates import day_of
from schemas.event import DAY_MS, HOUR_MS
from schemas.insight import Correction, CrossPlatformInsight, InsightTotals, Phase, Version
from schemas.refusal import Refused

Place = Literal["topic", "redis"]
Where = Literal["topic", "redis", "both", "missing"]
Slot = tuple[str, str]
"""Campaign and kind of window: Redis holds the newest window of each."""

REASON: Final = "replay"
WHOLE: Final = "insight"
"""The metric of a difference that is the insight's being there at all."""
PRESENT: Final = "present"
ABSENT: Final = "absent"
UNREADABLE: Final = "unreadable"


class Held(msgspec.Struct, frozen=True):
    """What a place of the live side holds: an insight, or None for what cannot be read as one.

    ``revision`` is the highest one known there: the insight's own on the topic, Redis's own in Redis. ``stamp_ms`` is
    when the topic's record was written.
    """

    insight: CrossPlatformInsight | None
    revision: int
    stamp_ms: int = -1


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """Which windows are compared: those that end in the hours or days of [``from_ms``, ``to_ms``), of some campaigns.

    Dates are taken in UTC. With a platform only its part of an insight is compared. ``whole`` says that everything
    that bears on these windows has been read; without it only windows that have been computed are compared.
    """

    windows: tuple[Window, ...]
    from_ms: int | None = None
    to_ms: int | None = None
    campaigns: frozenset[str] = frozenset()
    platform: str = ""
    whole: bool = True

    @property
    def reach_ms(self) -> int:
        """How long before ``from_ms`` the periods begin of rows that bear on a window: the longest window before its
        last day, and that an account's day begins up to 14 hours before UTC's and an hour may lie at the end of one.
        """
        return max(max(window.days, 1) - 1 for window in self.windows) * DAY_MS + 2 * DAY_MS

    def window(self, name: str) -> Window | None:
        """The window of a name, if it is compared."""
        return next((window for window in self.windows if window.name == name), None)

    def holds(self, insight: CrossPlatformInsight) -> bool:
        """Whether an insight is compared."""
        window = self.window(insight.window)
        if window is None or (self.campaigns and insight.campaign_id not in self.campaigns):
            return False
        index = ordinal(window, insight)
        if index is None:
            return False
        unit = DAY_MS if window.days else HOUR_MS
        start = index * unit
        return (self.from_ms is None or start >= self.from_ms) and (self.to_ms is None or start + unit <= self.to_ms)


class Difference(msgspec.Struct, frozen=True):
    """One value that differs. ``metric`` is its path in the insight's content, or ``insight`` where one side has none.

    ``where`` is the place that is wrong; ``missing`` says that no place of the live side has the insight.
    """

    campaign: str
    window: str
    start: str
    metric: str
    live: Any
    recomputed: Any
    where: Where


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One insight that is wrong in some places, by the differences. ``recomputed`` of None says that its window has
    no content.

    ``id`` is the insight's, ``ordinal`` its window's. ``topic`` and ``redis`` are what is held under its id or in its
    slot.
    """

    campaign: str
    window: str
    start: str
    id: str
    ordinal: int
    recomputed: CrossPlatformInsight | None
    topic: Held | None
    redis: Held | None
    wrong: frozenset[Place]
    differences: list[Difference]


def ordinal(window: Window, insight: CrossPlatformInsight) -> int | None:
    """The index of an insight's window; None where its start is none of such a window."""
    try:
        if window.days:
            first = day_of(insight.window_start, "window_start")
            return None if first is None else first + window.days - 1
        return instant_ms(insight.window_start) // HOUR_MS
    except (Refused, ValueError, TypeError):
        return None


def leaves(insight: CrossPlatformInsight) -> dict[str, Any]:
    """The values of an insight's content by their path, such as ``platform_breakdown.meta.totals.clicks``."""
    return dict(_leaves("", msgspec.json.decode(insight_codec.content(insight))))


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(f"{path}.{key}" if path else key, inner)
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for index, inner in enumerate(value):
            yield from _leaves(f"{path}.{index}", inner)
    else:
        yield path, value


def changes(live: CrossPlatformInsight, recomputed: CrossPlatformInsight, platform: str = "") -> dict[str, Any]:
    """What differs between two contents: (live, recomputed) by path, None where one lacks it.

    Empty if and only if the contents are equal, or those of a platform where one is named.
    """
    if not platform and insight_codec.content(live) == insight_codec.content(recomputed):
        return {}
    one, other = leaves(live), leaves(recomputed)
    paths = [path for path in {**other, **one} if not platform or _of_platform(path, platform)]
    found = {
        path: (one.get(path), other.get(path))
        for path in paths
        if (path in one) != (path in other) or _bytes(one[path]) != _bytes(other[path])
    }
    # Two paths may be spelt alike in an insight that is not ours.
    return found if found or platform else {"content": (UNREADABLE, PRESENT)}


def _of_platform(path: str, platform: str) -> bool:
    return f"{path}.".startswith((f"platform_breakdown.{platform}.", f"coverage.{platform}."))


def _bytes(value: Any) -> bytes:
    return msgspec.json.encode(value)


def compare(
    recomputed: Iterable[CrossPlatformInsight],
    topic: Mapping[str, Held],
    redis: Mapping[Slot, Held] | None,
    scope: Scope,
    *,
    fresh_from_ms: int,
) -> list[Finding]:
    """Every insight in scope that is wrong on the live side, by campaign, window and start.

    ``topic`` is by insight id, ``redis`` by slot, None where it is not used. Redis lets values expire, so an absent
    one is wrong only where the topic's record is not older than ``fresh_from_ms``.
    """
    computed = [insight for insight in recomputed if insight.platform_breakdown]
    comparison = _Comparison(scope, {insight.insight_id: insight for insight in computed if scope.holds(insight)})
    comparison.take_topic(topic)
    if redis is not None:
        newest: dict[Slot, CrossPlatformInsight] = {}
        for insight in computed:
            slot = (insight.campaign_id, insight.window)
            if slot not in newest or newest[slot].window_start < insight.window_start:
                newest[slot] = insight
        for slot in sorted({*newest, *redis}):
            comparison.take_slot(newest.get(slot), redis.get(slot), topic, fresh_from_ms)
    found = [finding for finding in map(comparison.finding, comparison.ids()) if finding.differences]
    return sorted(found, key=lambda finding: (finding.campaign, finding.window, finding.start, finding.id))


class _Comparison:
    """Differences by insight id as they are found, apart for the two places."""

    def __init__(self, scope: Scope, expected: Mapping[str, CrossPlatformInsight]) -> None:
        self._scope = scope
        self._expected = expected
        self._topic: Mapping[str, Held] = {}
        self._slots: dict[str, Held | None] = {}
        self._named: dict[str, CrossPlatformInsight] = dict(expected)
        self._found: dict[Place, dict[str, dict[str, Any]]] = {"topic": {}, "redis": {}}

    def ids(self) -> Iterable[str]:
        return {**self._found["topic"], **self._found["redis"]}

    def take_topic(self, topic: Mapping[str, Held]) -> None:
        self._topic = topic
        for key, insight in self._expected.items():
            self._note("topic", key, topic.get(key), insight)
        if self._scope.whole:
            for key, held in topic.items():
                if key not in self._expected and held.insight is not None and self._scope.holds(held.insight):
                    self._named[key] = held.insight
                    self._note("topic", key, held, None)

    def take_slot(
        self, newest: CrossPlatformInsight | None, held: Held | None, topic: Mapping[str, Held], fresh_from_ms: int
    ) -> None:
        shown = held.insight if held is not None else None
        if newest is None or newest.insight_id not in self._expected:
            # The newest window is not compared, so neither is what has its place, but for one that should not be.
            if newest is None and self._scope.whole and shown is not None and self._scope.holds(shown):
                self._named.setdefault(shown.insight_id, shown)
                self._slots[shown.insight_id] = held
                self._note("redis", shown.insight_id, held, None)
            return
        key = newest.insight_id
        other = shown is not None and shown.insight_id != key
        if other and shown is not None and (not self._scope.whole or self._later(shown, newest)):
            return
        self._slots[key] = held
        if held is None:
            on_topic = topic.get(key)
            if not self._scope.whole or on_topic is None or on_topic.stamp_ms < fresh_from_ms:
                return
        if other and shown is not None and self._part(shown) is not None:
            self._found["redis"][key] = {"window_start": (shown.window_start, newest.window_start)}
            return
        self._note("redis", key, held, newest)

    def _later(self, shown: CrossPlatformInsight, newest: CrossPlatformInsight) -> bool:
        """Whether Redis has moved on, beyond what is compared."""
        return shown.window_start > newest.window_start and not self._scope.holds(shown)

    def _ordinal(self, insight: CrossPlatformInsight) -> int:
        window = self._scope.window(insight.window)
        index = ordinal(window, insight) if window is not None else None
        if index is None:
            raise ValueError(f"insight {insight.insight_id} is out of scope")
        return index

    def _part(self, insight: CrossPlatformInsight | None) -> CrossPlatformInsight | None:
        """The insight where it has content, of the platform where one is named."""
        if insight is None or not insight.platform_breakdown:
            return None
        return insight if not self._scope.platform or self._scope.platform in insight.platform_breakdown else None

    def _note(self, place: Place, key: str, held: Held | None, recomputed: CrossPlatformInsight | None) -> None:
        live, right = self._part(held.insight if held is not None else None), self._part(recomputed)
        if live is not None and right is not None:
            found = changes(live, right, self._scope.platform)
        elif held is not None and held.insight is None:
            found = {WHOLE: (UNREADABLE, PRESENT if right is not None else ABSENT)}
        elif live is not None or right is not None:
            found = {WHOLE: (ABSENT, PRESENT) if live is None else (PRESENT, ABSENT)}
        else:
            found = {}
        if found:
            self._found[place][key] = found

    def finding(self, key: str) -> Finding:
        insight = self._named[key]
        on_topic, in_redis = self._found["topic"].get(key, {}), self._found["redis"].get(key, {})
        in_slot = self._slots.get(key)
        rows = []
        for metric in {**on_topic, **in_redis}:
            if _same(on_topic.get(metric), in_redis.get(metric)):
                pairs: list[tuple[Where, Any]] = [("both", on_topic[metric])]
            else:
                told: list[tuple[Where, dict[str, Any]]] = [("topic", on_topic), ("redis", in_redis)]
                pairs = [(where, found[metric]) for where, found in told if metric in found]
            for where, (live, right) in pairs:
                lacking = metric == WHOLE and live == ABSENT and where != "redis" and in_slot is None
                rows.append(
                    Difference(
                        insight.campaign_id,
                        insight.window,
                        insight.window_start,
                        metric,
                        live,
                        right,
                        "missing" if lacking else where,
                    )
                )
        wrong: list[Place] = [place for place in self._found if key in self._found[place]]
        return Finding(
            campaign=insight.campaign_id,
            window=insight.window,
            start=insight.window_start,
            id=key,
            ordinal=self._ordinal(insight),
            recomputed=self._expected.get(key),
            topic=self._topic.get(key),
            redis=in_slot,
            wrong=frozenset(wrong),
            differences=rows,
        )


def _same(one: Any, other: Any) -> bool:
    return one is not None and other is not None and _bytes(one) == _bytes(other)


def flat(totals: InsightTotals) -> dict[str, int]:
    """Totals as a correction names them: metrics by name, money by metric and currency, and as it is converted."""
    counts = ("impressions", "clicks", "link_clicks", "conversions_micros", "engagements", "video_views")
    found = {name: value for name in counts if (value := getattr(totals, name)) is not None}
    for amount in totals.money:
        for name, micros in (("spend_micros", amount.spend_micros), ("revenue_micros", amount.revenue_micros)):
            if micros is not None:
                found[f"{name}:{amount.currency}" if amount.currency else name] = micros
    return found | flat_reporting(totals.reporting)


def promoted(finding: Finding, windows: Sequence[Window], config: InsightConfig) -> CrossPlatformInsight:
    """What mends a finding: the recomputed insight, or one without content, under the version (live revision, 3).

    It supersedes what is there, and the next change of state supersedes it. Where the live side has no revision of the
    insight, it is 0: any that the state has published is higher.
    """
    shown = finding.redis.insight if finding.redis is not None else None
    if shown is not None and shown.insight_id != finding.id:
        shown = None
    before = shown
    revision = shown.version.revision if shown is not None else 0
    if finding.topic is not None:
        revision = finding.topic.revision
        before = finding.topic.insight if "topic" in finding.wrong else shown
    version = Version(revision, int(Phase.REPLAYED))
    insight = finding.recomputed
    if insight is None:
        window = next(window for window in windows if window.name == finding.window)
        rates = Rates(config.rates)
        empty = build(finding.campaign, window, finding.ordinal, [], config.profile, iso_instant(0), version, rates)
        insight = msgspec.structs.replace(empty, insight_id=finding.id)
    return msgspec.structs.replace(
        insight,
        version=version,
        phase=Phase.REPLAYED.name.lower(),
        correction=Correction(
            reason=REASON, difference=difference(flat(before.totals) if before else {}, flat(insight.totals))
        ),
    )
