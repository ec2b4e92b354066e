"""A second computation of windows' totals, straight from the wire fields. It shares no code with the product.

Deliberately naive: dictionaries and loops over the whole history for every question.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from tests.histories import ACCOUNT_LEVEL, DAY, HOUR, LINKS, METRICS, TOPICS, Fact, Flat, History, Wire

MONEY = ("spend_micros", "revenue_micros")
Row = dict[str, Any]
WindowName = tuple[str, str, str]
"""Campaign, kind, start of the window as the insight writes it."""


def in_time(fact: Fact, wire: Wire) -> bool:
    """Whether a record's row may still change anything, by its arrival stamp."""
    start, behind = wire["period_start"], fact.arrival - wire["period_start"]
    if wire["kind"] == "delta":
        return bool(-300_000 <= behind <= DAY)
    observed = wire.get("observed_at", fact.arrival)
    return bool(-DAY <= behind <= 100 * DAY and observed <= fact.arrival + 300_000 and start)


def ends(history: History) -> tuple[int, int, int]:
    """How many records are used, are dead letters, are ignored. Each holds one row."""
    dead = ignored = 0
    for fact in history:
        if fact.wire is not None:
            dead += "kind" in fact.wire and not in_time(fact, fact.wire)
        elif fact.value is None or (fact.value == ACCOUNT_LEVEL and fact.topic == TOPICS["meta"]):
            ignored += 1
        else:
            dead += 1
    return len(history) - dead - ignored, dead, ignored


def _date(instant: int, zone: str) -> str:
    return datetime.fromtimestamp(instant / 1000, ZoneInfo(zone or "UTC")).date().isoformat()


def _hour(instant: int) -> str:
    return datetime.fromtimestamp(instant // HOUR * HOUR / 1000, ZoneInfo("UTC")).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _rows(history: Iterable[Fact]) -> list[Row]:
    """Winning snapshots and distinct deltas."""
    snapshots: dict[Any, tuple[Any, Row]] = {}
    deltas: dict[Any, Row] = {}
    for fact in history:
        wire = fact.wire
        if wire is None or "kind" not in wire or not in_time(fact, wire):
            continue
        zone = wire.get("time_zone", "")
        day = _date(wire["period_start"], zone)
        segments = tuple(sorted(wire.get("segments", {}).items()))
        level = (wire["ad_group_id"], wire["ad_id"])
        hourly = wire["kind"] == "delta" or wire["period_end"] - wire["period_start"] == HOUR
        row = {
            "owner": (wire["platform"], wire["campaign_id"]),
            "day": day,
            "hour": _hour(wire["period_start"]) if hourly else None,
            "order": (
                wire["kind"] != "snapshot",
                2 if wire["ad_id"] else 1 if wire["ad_group_id"] else 0,
                len(segments),
                tuple(name for name, _ in segments),
                hourly,
            ),
            "entity": (level, segments, wire["period_start"] if hourly else None),
            "observed": wire.get("observed_at", fact.arrival),
            "report": wire.get("report", ""),
            "account": wire["account_id"],
            "currency": wire["currency"],
            "values": {name: wire[name] for name in METRICS if wire.get(name) is not None},
        }
        if wire["kind"] == "delta":
            row["entity"] = (*row["entity"], wire["event_id"])
            deltas[row["owner"], wire["event_id"]] = row
            continue
        # The hour of an assumed zone and that of a known one are the same hour of the account's day.
        midnight = int(datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone or "UTC")).timestamp() * 1000)
        place = (wire["period_start"] - midnight) // HOUR if hourly else None
        row["entity"] = (level, segments, place)
        key = (row["owner"], day, place, level, segments, row["report"])
        values = tuple(wire.get(name, -1) for name in METRICS)
        rank = (row["observed"], values, wire["period_start"], wire["account_id"], wire["currency"], zone)
        if key not in snapshots or snapshots[key][0] < rank:
            snapshots[key] = (rank, row)
    return [row for _, row in snapshots.values()] + list(deltas.values())


def _totals(rows: list[Row], currency: str) -> Flat:
    """Each metric from the first view that carries it; rows of two streams for one entity are one."""
    flat: Flat = defaultdict(int)
    for metric in METRICS:
        carrying = [row for row in rows if metric in row["values"]]
        if not carrying:
            continue
        first = min(row["order"] for row in carrying)
        newest: dict[Any, Row] = {}
        for row in carrying:
            if row["order"] != first:
                continue
            held = newest.get(row["entity"])
            if held is None or (held["observed"], held["report"]) < (row["observed"], row["report"]):
                newest[row["entity"]] = row
        for row in newest.values():
            code = row["currency"] or currency
            name = metric if metric not in MONEY or not code else f"{metric}:{code}"
            flat[name] += row["values"][metric]
    return dict(flat)


def _links(history: Iterable[Fact]) -> dict[tuple[str, str], str]:
    newest: dict[tuple[str, str], tuple[int, str]] = {}
    for fact in history:
        if fact.topic != LINKS or fact.wire is None:
            continue
        owner = (fact.wire["platform"], fact.wire["platform_campaign_id"])
        rank = (fact.wire.get("updated_at", fact.arrival), fact.wire["campaign_id"] or "")
        newest[owner] = max(newest.get(owner, rank), rank)
    return {owner: campaign for owner, (_, campaign) in newest.items() if campaign}


def _next_days(day: str, count: int) -> list[str]:
    first = datetime.fromisoformat(day).toordinal()
    return [datetime.fromordinal(first + step).date().isoformat() for step in range(count)]


def window_totals(history: History) -> dict[WindowName, Flat]:
    """Totals of every window with content: ``1h``, ``24h`` and ``7d``."""
    canonical = _links(history)
    blocks: dict[tuple[Any, str], list[Row]] = defaultdict(list)
    for row in _rows(history):
        blocks[row["owner"], row["day"]].append(row)
    windows: dict[WindowName, list[Flat]] = defaultdict(list)
    days: dict[str, set[str]] = defaultdict(set)
    daily: list[tuple[str, str, Flat]] = []
    for (owner, day), rows in blocks.items():
        campaign = canonical.get(owner, f"{owner[0]}:{owner[1]}")
        currencies = {row["currency"] for row in rows} - {""}
        currency = currencies.pop() if len(currencies) == 1 else ""
        daily.append((campaign, day, _totals(rows, currency)))
        days[campaign].add(day)
        for hour in {row["hour"] for row in rows} - {None}:
            in_hour = [row for row in rows if row["hour"] == hour]
            windows[campaign, "1h", hour].append(_totals(in_hour, currency))
    for campaign, day, flat in daily:
        windows[campaign, "24h", day].append(flat)
        for end in set(_next_days(day, 7)) & days[campaign]:
            start = _next_days(end, 1)[0]
            first = datetime.fromordinal(datetime.fromisoformat(start).toordinal() - 6).date().isoformat()
            windows[campaign, "7d", first].append(flat)
    return {name: added(flats) for name, flats in windows.items()}


def window_accounts(history: History) -> dict[WindowName, dict[str, set[str]]]:
    """Of the windows of days, by platform, the accounts of its platform campaigns' days: each has the greatest that
    its snapshots name, or that its deltas name where those name none.
    """
    canonical = _links(history)
    named: dict[Any, list[tuple[bool, str]]] = defaultdict(list)
    days: dict[str, set[str]] = defaultdict(set)
    for row in _rows(history):
        campaign = canonical.get(row["owner"], ":".join(row["owner"]))
        days[campaign].add(row["day"])
        is_snapshot = not row["order"][0]
        named[campaign, row["owner"], row["day"]].append((is_snapshot and row["account"] != "", row["account"]))
    windows: dict[WindowName, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for (campaign, (platform, _), day), accounts in named.items():
        account = max(accounts)[1]
        for end in set(_next_days(day, 7)) & days[campaign]:
            first = datetime.fromordinal(datetime.fromisoformat(end).toordinal() - 6).date().isoformat()
            windows[campaign, "7d", first][platform] |= {account} - {""}
        windows[campaign, "24h", day][platform] |= {account} - {""}
    return {name: dict(platforms) for name, platforms in windows.items()}


def added(flats: Iterable[Flat]) -> Flat:
    """Sums by name."""
    total: Flat = defaultdict(int)
    for flat in flats:
        for name, value in flat.items():
            total[name] += value
    return dict(total)


def ad_totals(history: History) -> dict[tuple[str, str, str, str], Flat]:
    """By campaign, platform, ad and day, what the rows of the ad itself say that name no segment."""
    canonical = _links(history)
    days: dict[Any, list[Row]] = defaultdict(list)
    for row in _rows(history):
        (_, ad_id), segments = row["entity"][:2]
        if ad_id and not segments:
            days[row["owner"], ad_id, row["day"]].append(row)
    found: dict[tuple[str, str, str, str], list[Flat]] = defaultdict(list)
    for ((platform, campaign), ad_id, day), rows in days.items():
        currencies = {row["currency"] for row in rows} - {""}
        currency = currencies.pop() if len(currencies) == 1 else ""
        name = canonical.get((platform, campaign), f"{platform}:{campaign}")
        found[name, platform, ad_id, day].append(_totals(rows, currency))
    return {key: added(flats) for key, flats in found.items()}
