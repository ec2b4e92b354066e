"""Compares every sink with two oracles: ``core`` offline over what the topics hold, and the chapters' closed form."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from core.offline import Computed, compute
from schemas import insight as insight_codec
from schemas.insight import CrossPlatformInsight, Version
from stream_app.domain import ingest_config, insight_config
from stream_app.settings import Settings
from tests.chaos.chapters import POISON_KEY, Expected, Totals, is_poison, is_restated
from tests.chaos.sinks import Letter, Sinks
from tests.chaos.stream import Acknowledged, checksum
from tests.live import Insights, by_id, differences, newest_windows, with_content

SHOWN = 5
DAY = "24h"
LARGEST = 2 * 1024 * 1024
"""What the topic of dead letters takes, in bytes."""


@dataclass
class Findings:
    """What is wrong, in numbers and sentences. ``repeats``: dead letters that were written again, which is no fault."""

    lost: int = 0
    twice: int = 0
    stale: int = 0
    repeats: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.problems or self.lost or self.twice or self.stale)


def check(sinks: Sinks, acknowledged: Sequence[Acknowledged], expected: Expected, settings: Settings) -> Findings:
    """``acknowledged``: sends whose records must be on the topics. ``expected``: the closed form of all chapters."""
    findings = Findings()
    batches = [(topic, partition, records) for (topic, partition), records in sorted(sinks.inputs.items())]
    computed = compute(batches, ingest_config(settings), insight_config(settings))
    offline = with_content(by_id(computed.insights))
    _inputs(findings, sinks, acknowledged)
    highest = _stream(findings, sinks.insights)
    published = with_content(highest)
    _compare(findings, "insights topic", published, offline)
    _compacted(findings, sinks, highest, offline)
    _hot(findings, sinks, highest, offline)
    _letters(findings, sinks, computed)
    _accounting(findings, sinks, computed)
    _closed_form(findings, published, expected)
    return findings


def _inputs(findings: Findings, sinks: Sinks, acknowledged: Sequence[Acknowledged]) -> None:
    held = {
        (topic, partition, record.offset): checksum(record.value)
        for (topic, partition), records in sinks.inputs.items()
        for record in records
    }
    missing = [told for told in acknowledged if held.get(told[:3]) != told.checksum]
    if missing:
        findings.problems.append(f"{len(missing)} acknowledged records are not on their topics, such as {missing[0]}")


def _stream(findings: Findings, insights: Sequence[CrossPlatformInsight]) -> Insights:
    """The highest version of each id."""
    highest: Insights = {}
    last: dict[str, Version] = {}
    falls = 0
    known: dict[tuple[str, Version], CrossPlatformInsight] = {}
    torn = 0
    for insight in insights:
        name, version = insight.insight_id, insight.version
        falls += name in last and version < last[name]
        last[name] = version
        if name not in highest or highest[name].version < version:
            highest[name] = insight
        held = known.setdefault((name, version), insight)
        torn += held is not insight and insight_codec.content(held) != insight_codec.content(insight)
    if falls:
        findings.problems.append(f"insights topic: a version fell {falls} times")
    if torn:
        findings.problems.append(f"insights topic: {torn} times one version had two contents")
    return highest


def _compare(findings: Findings, sink: str, found: Insights, expected: Insights) -> None:
    told = differences(found, expected)
    if told:
        findings.problems.append(f"{sink}: {len(told)} insights differ from core offline: {'; '.join(told[:SHOWN])}")


def _compacted(findings: Findings, sinks: Sinks, highest: Insights, offline: Insights) -> None:
    last: Insights = {}
    for key, insight in sinks.latest:
        if key != insight.insight_id:
            findings.problems.append(f"compacted topic: the key {key} is not the insight's id {insight.insight_id}")
        findings.stale += key in last and insight.version < last[key].version
        last[key] = insight
    behind = [key for key, insight in last.items() if key in highest and insight.version < highest[key].version]
    if behind:
        findings.problems.append(f"compacted topic: {len(behind)} ids end with an older version, such as {behind[0]}")
    _compare(findings, "compacted topic", with_content(last), offline)


def _hot(findings: Findings, sinks: Sinks, highest: Insights, offline: Insights) -> None:
    held = {key: insight for key, insight in sinks.hot.items() if insight.platform_breakdown}
    newest = newest_windows(offline)
    _compare(
        findings,
        "redis",
        {insight.insight_id: insight for insight in held.values()},
        {insight.insight_id: insight for insight in newest.values()},
    )
    behind = 0
    for insight in held.values():
        top = highest.get(insight.insight_id)
        older = top is not None and insight.version < top.version
        behind += older and insight_codec.content(insight) != insight_codec.content(top or insight)
    findings.stale += behind + sinks.hot_falls
    if sinks.hot_falls:
        findings.problems.append(f"redis: a version was seen to fall {sinks.hot_falls} times")


def _letters(findings: Findings, sinks: Sinks, computed: Computed) -> None:
    """Each poison record of the topics has one dead letter: its position, its code, and all of the record."""
    expected: dict[str, tuple[str, bytes | None, bytes | None]] = {}
    for (topic, partition), records in sinks.inputs.items():
        for record in records:
            if is_poison(record.key):
                code = (record.key or b"").split(b"|")[1].decode()
                expected[f"{topic}/{partition}/{record.offset}/0"] = (code, record.key, record.value)
    found: dict[str, tuple[str, bytes | None, bytes | None]] = {}
    seen: Counter[str] = Counter()
    for letter in sinks.letters:
        described, source = letter.described, letter.described.source
        content = (described.code, letter.key, _whole(letter, expected.get(described.id)))
        where = f"{source.topic}/{source.partition}/{source.offset}/{source.index}"
        if where != described.id or not described.sentence.strip():
            findings.problems.append(f"dead letters: {described} does not say where it comes from, or why")
        if found.setdefault(described.id, content) != content:
            findings.problems.append(f"dead letters: {described.id} has two contents")
        seen[described.id] += 1
    findings.repeats = seen.total() - len(seen)
    for told, ids in (
        ("are missing", expected.keys() - found.keys()),
        ("are unexplained", found.keys() - expected.keys()),
        ("are not what was sent", {key for key in found.keys() & expected.keys() if found[key] != expected[key]}),
    ):
        if ids:
            named = [f"{name} {found.get(name, expected.get(name, ('',)))[0]}" for name in sorted(ids)[:SHOWN]]
            findings.problems.append(f"dead letters: {len(ids)} of {POISON_KEY} {told}: {named}")
    if {row.letter.id for row in computed.rejected} != expected.keys():
        findings.problems.append("dead letters: core offline rejects others than the workload meant")


def _whole(letter: Letter, meant: tuple[str, bytes | None, bytes | None] | None) -> bytes | None:
    """The dead letter's value. What is larger than its topic takes may be cut."""
    value = None if meant is None else meant[2]
    cut = value is not None and len(value) > LARGEST and letter.value is not None and value.startswith(letter.value)
    return value if cut else letter.value


def _accounting(findings: Findings, sinks: Sinks, computed: Computed) -> None:
    """Every record ends in exactly one way. Which of equal rows is the duplicate depends on the order."""
    told, offline = sinks.accounting, computed.accounting
    records = sum(map(len, sinks.inputs.values()))
    ended = told["applied"] + told["duplicate"] + told["superseded"]
    rows = ended + sum(told["dead_letters"].values()) + sum(told["ignored"].values())
    for what, found, expected in (
        ("records", told["records"], records),
        ("rows", rows, offline.rows),
        ("applied, duplicate and superseded", ended, offline.applied + offline.duplicate + offline.superseded),
        ("dead letters", told["dead_letters"], offline.dead_letters),
        ("ignored", told["ignored"], offline.ignored),
    ):
        if found != expected:
            findings.problems.append(f"accounting: {found} {what} where {expected} are expected")


def _closed_form(findings: Findings, published: Insights, expected: Expected) -> None:
    found: dict[tuple[str, str], Totals] = {}
    for insight in published.values():
        if insight.window == DAY:
            found[insight.campaign_id, insight.window_start[:10]] = _totals(insight)
    wrong = []
    for cell, totals in expected.items():
        held = found.get(cell, dict.fromkeys(totals, 0))
        if held == totals:
            continue
        wrong.append(f"{cell[0]} on {cell[1]}: {held} where {totals} are expected")
        _count(findings, cell[0], held, totals)
    if wrong:
        findings.problems.append(f"closed form: {len(wrong)} campaigns' days are wrong: {'; '.join(wrong[:SHOWN])}")


def _count(findings: Findings, campaign: str, held: Mapping[str, int], totals: Mapping[str, int]) -> None:
    """Clicks are events. Equal numbers of them with other sums: one is missing and another one counted twice."""
    missing = totals["clicks"] - held["clicks"]
    if is_restated(campaign):
        findings.lost += 1
    elif missing:
        findings.lost += max(0, missing)
        findings.twice += max(0, -missing)
    else:
        findings.lost += 1
        findings.twice += 1


def _totals(insight: CrossPlatformInsight) -> Totals:
    totals = insight.totals
    return {
        "clicks": totals.clicks or 0,
        "impressions": totals.impressions or 0,
        "spend_micros": totals.spend_micros or 0,
        "conversions_micros": totals.conversions_micros or 0,
    }
