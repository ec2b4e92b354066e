"""Snapshot cells: the last report of one entity, period and set of segments.

Connectors pull the same report again and again, and values may go down. The newest pull wins; an equal pull time is
settled by the content, so the winner is a function of the set of snapshots and not of their order.
"""

from enum import StrEnum
from typing import Any

import msgspec

from schemas.calendar import start_of_day
from schemas.event import HOUR_MS, Grain, MetricEvent
from schemas.metrics import Values


class CellKey(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A cell within its block. ``hour`` counts hours from the start of the account's day, −1 for the whole day.

    The account is not part of it: the same row comes with and without one, depending on the connector's stream.
    """

    hour: int
    ad_group_id: str
    ad_id: str
    segments: tuple[tuple[str, str], ...]
    report: str


class Cell(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the newest pull said."""

    observed_ms: int
    values: Values
    start_ms: int
    account_id: str
    currency: str
    zone: str


class Merge(StrEnum):
    """What became of a snapshot or a link on its arrival."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    SUPERSEDED = "superseded"


def cell_of(event: MetricEvent) -> tuple[CellKey, Cell]:
    """A snapshot's cell."""
    hour = -1
    if event.grain is Grain.HOUR:
        hour = (event.start_ms - start_of_day(event.day, event.zone)) // HOUR_MS
    return (
        CellKey(hour, event.ad_group_id, event.ad_id, event.segments, event.report),
        Cell(event.observed_ms, event.values, event.start_ms, event.account_id, event.currency, event.zone),
    )


def _content(cell: Cell) -> tuple[Any, ...]:
    values = tuple(-1 if value is None else value for value in cell.values)
    return values, cell.start_ms, cell.account_id, cell.currency, cell.zone


def merge(held: Cell | None, new: Cell) -> tuple[Cell, Merge]:
    """The cell that holds, and what became of the new one.

    The same values pulled later are a duplicate, and still raise the pull time: an older restatement that comes after
    them must lose.
    """
    if held is None:
        return new, Merge.APPLIED
    held_content, new_content = _content(held), _content(new)
    newer = (new.observed_ms, new_content) > (held.observed_ms, held_content)
    if held_content == new_content:
        return (new if newer else held), Merge.DUPLICATE
    return (new, Merge.APPLIED) if newer else (held, Merge.SUPERSEDED)
