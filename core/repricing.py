"""Exchange rates as a campaigns table keeps them, and which windows a changed one may change."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from core import stored
from core.campaign import Campaign, Owner
from core.rates import Rates, RateTable
from core.shelf import Shelf
from core.stored import Mark
from schemas.rollup import RateFact, Rollup

NOTHING: Final[dict[Owner, Rollup]] = {}

Places = dict[int, dict[str, int]]


class Repricing:
    """The rates that hold, those that have changed, and the campaigns that are yet to be looked at for it.

    All campaigns are looked at once for all rates that have changed until then, ``limit`` in each checkpoint, and none
    of them stays decoded for that. Rates that change meanwhile wait for the next time.
    """

    def __init__(self, table: RateTable, limit: int) -> None:
        self.rates = Rates(table)
        self._limit = limit
        self._unsaved: dict[bytes, bytes] = {}
        self._changed: list[tuple[RateFact, int]] = []
        self._places: Places = {}
        self._left: list[str] = []

    def __len__(self) -> int:
        return len(self._changed) + len(self._left)

    @property
    def places(self) -> set[int]:
        """The places in the log of the rates for which not all campaigns have been looked at; always the first one."""
        return {place for _, place in self._changed}.union(*(held.values() for held in self._places.values()))

    @property
    def unsaved(self) -> bool:
        """Whether the next checkpoint is to write a rate."""
        return bool(self._unsaved)

    def restore(self, keys: Iterable[bytes], table: Mapping[bytes, bytes], mark: Mark) -> int:
        """Take the rates that a table holds; the last place of those past the mark, which are met again in the log,
        −1 for none.
        """
        ahead = -1
        for key in keys:
            place, fact = stored.number(table[key]), stored.unpack_rate(table[key])
            self.rates.put(fact, place)
            if place > mark.position:
                ahead = max(ahead, place)
            elif place > mark.settled:
                self._tell(fact, place)
        return ahead

    def apply(self, place: int, fact: RateFact, payload: bytes, *, again: bool) -> None:
        """Take a rate from the log, perhaps ``again``."""
        if self.rates.put(fact, place):
            self._unsaved[stored.rate_key(fact.currency, fact.day)] = stored.pack_rollup(place, payload)
            self._tell(fact, place)
        elif again:
            self._tell(fact, place)

    def _tell(self, fact: RateFact, place: int) -> None:
        if self.rates.table.currency:
            self._changed.append((fact, place))

    def save(self) -> list[tuple[bytes, bytes]]:
        """What the table is to hold of the rates that changed since the last checkpoint."""
        saved, self._unsaved = list(self._unsaved.items()), {}
        return saved

    def expire(self, before_day: int) -> list[bytes]:
        """Forget the rates that no day from ``before_day`` on can take; the keys to delete."""
        return [stored.rate_key(currency, day) for currency, day in self.rates.expire(before_day)]

    def take(self, shelf: Shelf) -> Iterator[tuple[Campaign, Rollup, int]]:
        """The rollups of the next campaigns whose money a changed rate may convert, and the first such rate's place."""
        if not self._left:
            self._places = _by_day(self._changed, self.rates)
            self._changed = []
            self._left = shelf.ids() if self._places else []
        looked_at, self._left = self._left[: self._limit], self._left[self._limit :]
        for campaign_id in looked_at:
            campaign = shelf.peek(campaign_id)
            if campaign is not None:
                for rollup, place in _repriced(campaign, self._places):
                    yield campaign, rollup, place
        if not self._left:
            self._places = {}


def _by_day(changed: Iterable[tuple[RateFact, int]], rates: Rates) -> Places:
    places: Places = {}
    for fact, place in changed:
        for day in rates.days_of(fact):
            held = places.setdefault(day, {})
            held[fact.currency] = min(place, held.get(fact.currency, place))
    return places


def _repriced(campaign: Campaign, places: Places) -> Iterator[tuple[Rollup, int]]:
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
