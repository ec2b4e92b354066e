"""The whole simulation: step by step, what the connectors pull, what goes wrong on the way, and the counts of it."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Final

import msgspec
import numpy as np

from schemas.event import IgnoreReason
from schemas.platform import Platform
from schemas.topics import METRICS_TOPICS
from stream_app.simulator.clock import calendar_day, day_label, pull_ms
from stream_app.simulator.connectors import EMISSION_GAP_MS, Report, account_total, airbyte, reports, wrap
from stream_app.simulator.deltas import todays_deltas
from stream_app.simulator.draft import Draft
from stream_app.simulator.links import LinkPlan, plan_links
from stream_app.simulator.performance import true_ctr
from stream_app.simulator.poison import ignorable, poison
from stream_app.simulator.roster import ACCOUNTS, TIKTOK_DAILY, PlatformCampaign, SimAccount, SimCampaign, roster
from stream_app.simulator.wire import SimRecord, chance, to_json

DUPLICATED: Final = 0.02
LATE_DAYS: Final = 5
LATE_BY: Final = 3
STALE: Final = 6
# The pull's emission times end long before its records arrive, whatever the number of rows.
ARRIVAL_LAG_MS: Final = 600_000
ARRIVAL_GAP_MS: Final = 7


class Planted(msgspec.Struct, kw_only=True):
    """What was put into the feed on purpose. Counts are of rows unless they say records.

    ``restatements`` and ``unchanged`` are re-pulled rows with other and with the same values; ``stale`` are rows of an
    older pull that arrive after a newer one with other values; ``late_rows`` are a day's first rows, days late.
    ``duplicates`` are the rows of ``duplicate_records``, which repeat a record verbatim.
    """

    records: int = 0
    rows: int = 0
    first_rows: int = 0
    restatements: int = 0
    unchanged: int = 0
    stale: int = 0
    late_rows: int = 0
    duplicates: int = 0
    duplicate_records: int = 0
    dead_letters: dict[str, int] = {}
    ignored: dict[str, int] = {}
    links: int = 0
    late_links: int = 0
    moved_links: int = 0
    withdrawn_links: int = 0
    deltas: int = 0
    delta_duplicates: int = 0


@dataclass(frozen=True)
class Step:
    """One simulated day: the records that arrive after it, in their order of publication."""

    day_label: str
    records: list[SimRecord]


@dataclass(frozen=True)
class Simulation:
    """``truth`` holds, by canonical campaign and platform, the planted click rate of each day, and at last of today.

    ``names`` are the canonical campaigns' names, ``accounts`` the zones and currencies that settings would hold.
    """

    steps: list[Step]
    truth: dict[str, dict[Platform, tuple[float, ...]]]
    names: dict[str, str]
    accounts: dict[str, dict[str, str]]
    expected: Planted


def simulate(seed: int, campaigns: int = 20, days: int = 14) -> Simulation:
    """The feed of a number of campaigns over a number of days; the same arguments give the same bytes.

    Raises ``ValueError`` unless the seed is not negative and there is at least one campaign and one day.
    """
    if seed < 0 or campaigns < 1 or days < 1:
        raise ValueError(
            f"seed {seed}, {campaigns} campaigns, {days} days: the seed must be 0 or more, the others 1 or more"
        )
    company = roster(seed, campaigns)
    links = plan_links(seed, company, days)
    planted = Planted(late_links=links.late, moved_links=links.moved, withdrawn_links=len(links.withdrawn))
    feed = _Feed(seed, company, links, days, planted)
    steps = [Step(day_label(step, days), feed.step(step)) for step in range(days)]
    deltas, planted.delta_duplicates = todays_deltas(seed, company, days)
    planted.deltas = len(deltas) - planted.delta_duplicates
    planted.records += len(deltas)
    planted.rows += len(deltas)
    steps[-1].records.extend(deltas)
    truth = {campaign.campaign_id: _truth(seed, campaign, links.withdrawn, days) for campaign in company}
    names = {campaign.campaign_id: campaign.name for campaign in company}
    return Simulation(steps, truth, names, _settings(), planted)


class _Feed:
    """Draws the steps in turn: what a step holds depends on what the ones before have reported."""

    def __init__(
        self, seed: int, company: tuple[SimCampaign, ...], links: LinkPlan, days: int, planted: Planted
    ) -> None:
        self._seed, self._links, self._days, self._planted = seed, links, days, planted
        runs = [run for campaign in company for run in campaign.runs]
        self._runs = {account: [run for run in runs if run.account is account] for account in ACCOUNTS}
        self._late = _late_days(seed, runs, days)
        self._last: dict[str, bytes] = {}
        self._held: dict[int, list[Draft]] = {}
        self._odd = self._schedule_odd()

    def step(self, step: int) -> list[SimRecord]:
        rng = chance(self._seed, "step", step)
        drafts = [*self._links.at(step, self._days)]
        self._planted.links += len(drafts)
        for account in ACCOUNTS:
            drafts += self._pull(account, step, rng)
        drafts += self._held.pop(step, [])
        drafts += self._odd.get(step, [])
        order = [drafts[int(index)] for index in rng.permutation(len(drafts))]
        for original in [draft for draft in order if draft.sound and rng.random() < DUPLICATED]:
            order.insert(int(rng.integers(order.index(original) + 1, len(order) + 1)), original)
            self._planted.duplicate_records += 1
            self._planted.duplicates += original.rows
        self._count(order)
        arrival = pull_ms(step, self._days) + ARRIVAL_LAG_MS
        return [
            SimRecord(draft.topic, draft.key, draft.value, arrival + place * ARRIVAL_GAP_MS, list(draft.headers))
            for place, draft in enumerate(order)
        ]

    def _pull(self, account: SimAccount, step: int, rng: np.random.Generator) -> list[Draft]:
        emitted = pull_ms(step, self._days) + 1_000
        batch: list[Report] = []
        for run in self._runs[account]:
            for day in self._days_of(run, step):
                for report in reports(run, self._seed, day, calendar_day(day, self._days), step - day):
                    if not self._hold_back(report, run, day, step, emitted, rng):
                        self._note(report, late=(run.key, day) in self._late)
                        batch.append(report)
        drafts = list(wrap(account.platform, batch, emitted))
        total = account_total(account, self._runs[account], self._seed, step, calendar_day(step, self._days))
        if total is not None:
            draft = airbyte(METRICS_TOPICS[account.platform], total, emitted)
            drafts.append(replace(draft, reason=IgnoreReason.ACCOUNT_LEVEL))
        return drafts

    def _days_of(self, run: PlatformCampaign, step: int) -> list[int]:
        """The days that a pull holds: the look-back, without those not yet due, and with the late ones that now are."""
        due = {day: day + LATE_BY for key, day in self._late if key == run.key}
        first = max(0, step - run.account.look_back + 1)
        on_time = {day for day in range(first, step + 1) if step >= due.get(day, day)}
        return sorted(on_time | {day for day, when in due.items() if when == step})

    def _hold_back(
        self, report: Report, run: PlatformCampaign, day: int, step: int, emitted_ms: int, rng: np.random.Generator
    ) -> bool:
        """Whether this row gets stuck, to arrive two pulls later, after the next pull has restated it."""
        age = step - day + 1
        if report.connector != "airbyte" or age >= run.account.look_back or step + 2 >= self._days:
            return False
        if self._planted.stale >= STALE or rng.random() > 0.05 or (run.key, day) in self._late:
            return False
        newer = reports(run, self._seed, day, calendar_day(day, self._days), age)
        if any(other.identity == report.identity and other.row == report.row for other in newer):
            return False
        draft = airbyte(METRICS_TOPICS[run.platform], report, emitted_ms + EMISSION_GAP_MS)
        self._held.setdefault(step + 2, []).append(draft)
        self._planted.stale += 1
        return True

    def _note(self, report: Report, *, late: bool) -> None:
        content = to_json(report.row)
        identity = f"{report.stream}/{report.identity}"
        before = self._last.get(identity)
        self._last[identity] = content
        if before is None:
            self._planted.first_rows += 1
            self._planted.late_rows += late
        elif before == content:
            self._planted.unchanged += 1
        else:
            self._planted.restatements += 1

    def _count(self, order: list[Draft]) -> None:
        planted = self._planted
        planted.records += len(order)
        planted.rows += sum(draft.rows for draft in order)
        codes = Counter(draft.code.value for draft in order if draft.code)
        reasons = Counter(draft.reason.value for draft in order if draft.reason)
        planted.dead_letters = dict(Counter(planted.dead_letters) + codes)
        planted.ignored = dict(Counter(planted.ignored) + reasons)

    def _schedule_odd(self) -> dict[int, list[Draft]]:
        """The unusable and the ignorable records, each at a step of its own choice."""
        rng = chance(self._seed, "odd")
        odd: dict[int, list[Draft]] = {}
        for kind in (poison, ignorable):
            for place in range(len(kind(0, 0))):
                step = int(rng.integers(self._days))
                draft = kind(calendar_day(step, self._days), pull_ms(step, self._days))[place]
                odd.setdefault(step, []).append(draft)
        return odd


def _late_days(seed: int, runs: list[PlatformCampaign], days: int) -> frozenset[tuple[str, int]]:
    """The platform campaigns' days that are first reported ``LATE_BY`` days late."""
    if days <= LATE_BY:
        return frozenset()
    rng = chance(seed, "late")
    draws = [(int(rng.integers(len(runs))), int(rng.integers(days - LATE_BY))) for _ in range(LATE_DAYS)]
    return frozenset((runs[which].key, day) for which, day in draws)


def _truth(seed: int, campaign: SimCampaign, withdrawn: frozenset[str], days: int) -> dict[Platform, tuple[float, ...]]:
    paths: dict[Platform, tuple[float, ...]] = {}
    runs = [run for run in campaign.runs if run.key not in withdrawn]
    for platform in dict.fromkeys(run.platform for run in runs):
        mine = [run for run in runs if run.platform is platform]
        weight = sum(run.daily_impressions for run in mine)
        paths[platform] = tuple(
            sum(run.daily_impressions * true_ctr(run, seed, day) for run in mine) / weight for day in range(days + 1)
        )
    return paths


def _settings() -> dict[str, dict[str, str]]:
    """By ``platform:account``, Meta's with and without ``act_``; ``tiktok:`` alone is for rows that name no account."""
    known: dict[str, dict[str, str]] = {}
    for account in ACCOUNTS:
        entry = {"time_zone": account.time_zone, "currency": account.currency}
        known |= {f"{account.platform}:{spelling}": entry for spelling in (account.account_id, account.in_house_id)}
    return {**known, "tiktok:": {"time_zone": TIKTOK_DAILY.time_zone, "currency": TIKTOK_DAILY.currency}}
