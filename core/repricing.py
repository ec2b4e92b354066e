"""Which windows a changed exchange rate may change."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from core.campaign import Campaign, Owner
from core.rates import Rates
from schemas.rollup import RateFact, Rollup

NOTHING: Final[Mapping[Owner, Rollup]] = {}


def repriced(
    campaigns: Iterable[Campaign], changed: Iterable[tuple[RateFact, int]], rates: Rates
) -> Iterator[tuple[Rollup, int]]:
    """The rollups whose money one of the changed rates (with their places in the log) may convert, and the first such
    place. One pass over the campaigns, however many rates there are.
    """
    places: dict[int, dict[str, int]] = {}
    for fact, place in changed:
        for day in rates.days_of(fact):
            held = places.setdefault(day, {})
            held[fact.currency] = min(place, held.get(fact.currency, place))
    for campaign in campaigns:
        for day, on_day in places.items():
            for rollup in campaign.by_day.get(day, NOTHING).values():
                first = _first(rollup, on_day)
                if first is not None:
                    yield rollup, first


def _first(rollup: Rollup, places: Mapping[str, int]) -> int | None:
    """The first place of a rate for one of the currencies of a rollup's money."""
    first: int | None = None
    for totals in (rollup.day_totals, *[totals for _, totals in rollup.hours]):
        for money in totals.money if totals is not None else ():
            place = places.get(money.currency)
            if place is not None and (first is None or place < first):
                first = place
    return first
