"""Which windows a changed exchange rate may change."""

from collections.abc import Iterable, Iterator

from core.campaign import Campaign
from core.rates import Rates
from schemas.rollup import RateFact, Rollup


def currencies_of(rollup: Rollup) -> set[str]:
    """The currencies of a rollup's money."""
    totals = [totals for _, totals in rollup.hours]
    if rollup.day_totals is not None:
        totals.append(rollup.day_totals)
    return {money.currency for each in totals for money in each.money}


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
        for day in campaign.by_day.keys() & places.keys():
            on_day = places[day]
            for rollup in campaign.by_day[day].values():
                first = min((on_day[code] for code in currencies_of(rollup) if code in on_day), default=None)
                if first is not None:
                    yield rollup, first
