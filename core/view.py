"""Views: the same delivery is reported at several levels, segment sets and grains; a metric is taken from exactly one.

For a platform campaign and a day (or an hour) the order is: reported snapshots before deltas; the coarsest level that
carries the metric (campaign, ad group, ad); the fewest segments, equal numbers by the segments' names; for a day, day
rows before hour rows. Rows of two report streams for the same entity are one row: each metric is taken from the
newest pull that carries it. The choice is a function of the set of cells, so it needs no order. A total stops at
``MAX_SUM`` like a pane's sum.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from core.block import Block
from core.panes import MAX_SUM, Panes
from schemas.calendar import end_of_day, start_of_day
from schemas.event import HOUR_MS
from schemas.metrics import QUALITY_IMPRESSIONS, QUALITY_POINTS, REVENUE, SPEND, WIDTH, Values
from schemas.rollup import Money, Totals

SNAPSHOT_BASIS = 0
DELTA_BASIS = 1
NOTHING: Values = (None,) * WIDTH


class ViewKey(NamedTuple):
    """Sorts views by precedence."""

    basis: int
    level: int
    segments: int
    names: tuple[str, ...]
    grain: int


class Fact(NamedTuple):
    """A cell or a pane as the views see it. ``entity`` is equal for rows that restate one another over streams.

    ``until_ms`` is up to when it has reported its day: its pull, but no later than its hour ended. A delta vouches for
    its whole hour: streams of events do not say when they have come to an end.
    """

    view: ViewKey
    entity: tuple[object, ...]
    observed_ms: int
    report: str
    values: Values
    account_id: str
    currency: str
    zone: str
    utc_hour: int
    until_ms: int


class DayView(NamedTuple):
    """A block's content for its campaign. ``basis`` names what the day's totals rest on: snapshot, delta, or both.
    ``account_id`` is the greatest that snapshots name, else that deltas name.
    """

    totals: Totals | None
    hours: tuple[tuple[int, Totals], ...]
    basis: str
    account_id: str
    zone: str
    start_ms: int
    as_of_ms: int
    covered_ms: int


def _level(ad_group_id: str, ad_id: str) -> int:
    return 2 if ad_id else 1 if ad_group_id else 0


def facts(block: Block, panes: Panes) -> list[Fact]:
    """All cells of a block, and its panes to which something was added."""
    found = []
    for key, cell in block.cells.items():
        names = tuple(name for name, _ in key.segments)
        view = ViewKey(SNAPSHOT_BASIS, _level(key.ad_group_id, key.ad_id), len(names), names, int(key.hour >= 0))
        entity = (key.hour, key.ad_group_id, key.ad_id, key.segments)
        hour, until = -1, cell.observed_ms
        if key.hour >= 0:
            hour, until = cell.start_ms // HOUR_MS, min(cell.observed_ms, cell.start_ms + HOUR_MS)
        origin = cell.account_id, cell.currency, cell.zone
        found.append(Fact(view, entity, cell.observed_ms, key.report, cell.values, *origin, hour, until))
    for row in block.pane_rows:
        pane = panes.key(row)
        names = tuple(name for name, _ in pane.segments)
        view = ViewKey(DELTA_BASIS, _level(pane.ad_group_id, pane.ad_id), len(names), names, 1)
        values, as_of = panes.values(row)
        if values != NOTHING:
            until = (pane.hour + 1) * HOUR_MS
            origin = pane.account_id, pane.currency, pane.zone
            found.append(Fact(view, (row,), as_of, "", values, *origin, pane.hour, until))
    return found


def _resolve(found: Iterable[Fact], currency: str) -> tuple[Totals | None, set[int]]:
    """Totals over one period's facts, each metric from its first view; and the bases used."""
    views: dict[ViewKey, dict[tuple[object, ...], list[Fact]]] = defaultdict(lambda: defaultdict(list))
    for fact in found:
        views[fact.view][fact.entity].append(fact)
    values: list[int | None] = [None] * WIDTH
    money: dict[str, list[int | None]] = {}
    bases: set[int] = set()
    for view in sorted(views):
        wanted = [m for m in range(WIDTH) if values[m] is None and m not in (SPEND, REVENUE)]
        wanted += [
            m for m, slot in ((SPEND, 0), (REVENUE, 1)) if all(amounts[slot] is None for amounts in money.values())
        ]
        if not wanted:
            break
        for rows in views[view].values():
            rows.sort(key=lambda fact: (fact.observed_ms, fact.report), reverse=True)
            for metric in wanted:
                carried = next(((f, v) for f in rows if (v := f.values[metric]) is not None), None)
                if carried is None:
                    continue
                carrier, amount = carried
                bases.add(view.basis)
                if metric in (SPEND, REVENUE):
                    amounts = money.setdefault(carrier.currency or currency, [None, None])
                    slot = 0 if metric == SPEND else 1
                    amounts[slot] = min((amounts[slot] or 0) + amount, MAX_SUM)
                else:
                    values[metric] = min((values[metric] or 0) + amount, MAX_SUM)
    if not bases:
        return None, bases
    if values[QUALITY_POINTS] is None or values[QUALITY_IMPRESSIONS] is None:
        values[QUALITY_POINTS] = values[QUALITY_IMPRESSIONS] = None
    kept = tuple(Money(code, spend, revenue) for code, (spend, revenue) in sorted(money.items()))
    return Totals(tuple(values), kept), bases


def day_view(block: Block, panes: Panes) -> DayView:
    """What a block says of its day and hours. A platform campaign's only known currency holds for rows without one."""
    found = facts(block, panes)
    currencies = {fact.currency for fact in found if fact.currency}
    currency = currencies.pop() if len(currencies) == 1 else ""
    totals, bases = _resolve(found, currency)
    by_hour: dict[int, list[Fact]] = defaultdict(list)
    for fact in found:
        if fact.utc_hour >= 0:
            by_hour[fact.utc_hour].append(fact)
    hours = []
    for hour in sorted(by_hour):
        in_hour, _ = _resolve(by_hour[hour], currency)
        if in_hour is not None:
            hours.append((hour, in_hour))
    accounts = [(-fact.view.basis, fact.account_id) for fact in found if fact.account_id]
    zone = max((fact.zone for fact in found), default="")
    start_ms = start_of_day(block.day, zone)
    as_of = max((fact.observed_ms for fact in found), default=0)
    reported = max((fact.until_ms for fact in found), default=0)
    covered = max(start_ms, min(reported, end_of_day(block.day, zone)))
    return DayView(
        totals=totals,
        hours=tuple(hours),
        basis="+".join(
            name for basis, name in ((SNAPSHOT_BASIS, "snapshot"), (DELTA_BASIS, "delta")) if basis in bases
        ),
        account_id=max(accounts, default=(0, ""))[1],
        zone=zone,
        start_ms=start_ms,
        as_of_ms=as_of,
        covered_ms=covered,
    )
