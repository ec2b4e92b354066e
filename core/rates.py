"""Exchange rates by date, and money in the reporting currency.

A rate is an integer of billionths. Money is added by platform, currency and day before it is converted, and each such
sum is rounded once, half to even: so neither the order of rows nor how they were batched can matter.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from schemas.calendar import iso_date
from schemas.insight import RateUsed, ReportingTotals
from schemas.rate import NANOS
from schemas.rollup import Money, RateFact

MAX_AGE_DAYS: Final = 7
"""Banks fix no rates on weekends and holidays: the newest earlier one holds for so many days."""
MAX_INT64: Final = (1 << 63) - 1


class Found(NamedTuple):
    """A rate in billionths, and the day that it was stated for."""

    nanos: int
    day: int


class RateTable(msgspec.Struct, frozen=True):
    """What is configured: the reporting currency (empty: nothing is converted), and rates that stand until the topic
    says another for their day.
    """

    currency: str = ""
    rates: tuple[RateFact, ...] = ()
    max_age_days: int = MAX_AGE_DAYS


class Rates:
    """The rate that holds of each currency and day: the highest (time of update, content), whatever came first."""

    def __init__(self, table: RateTable | None = None) -> None:
        self.table = table or RateTable()
        self._places: dict[int, dict[str, int]] = defaultdict(dict)
        self._base: dict[str, dict[int, RateFact]] = defaultdict(dict)
        self._told: dict[str, dict[int, RateFact]] = defaultdict(dict)
        for fact in self.table.rates:
            _keep(self._base, fact)

    def put(self, fact: RateFact, position: int = -1) -> bool:
        """Take a rate from the topic, at its offset in the rollups log; whether it changed what holds."""
        changed = _keep(self._told, fact)
        if changed:
            self._places[fact.day][fact.currency] = position
        return changed

    def expire(self, before_day: int) -> list[tuple[str, int]]:
        """Forget the rates of the topic that no day from ``before_day`` on can take; their currencies and days."""
        oldest = before_day - self.table.max_age_days
        gone = [(currency, day) for day, held in self._places.items() if day < oldest for currency in held]
        for currency, day in gone:
            del self._told[currency][day]
            self._places.pop(day, None)
        return gone

    def revision(self, days: Iterable[int]) -> int:
        """The sum of the places, from 1 on, of all rates that some days may take. It rises with every change of one."""
        taken = {at for day in days for at in range(day - self.table.max_age_days, day + 1)}
        return sum(place + 1 for day in taken if day in self._places for place in self._places[day].values())

    def lookup(self, currency: str, day: int) -> Found | None:
        """The rate into the reporting currency on a day: its own, else the newest earlier one of the last
        ``max_age_days``. None says that there is none; none is derived by way of a third currency.
        """
        if currency == self.table.currency:
            return Found(NANOS, day)
        told, base = self._told.get(currency, {}), self._base.get(currency, {})
        for at in range(day, day - self.table.max_age_days - 1, -1):
            fact = told.get(at) or base.get(at)
            if fact is not None and fact.nanos and fact.per == self.table.currency:
                return Found(fact.nanos, at)
        return None

    def days_of(self, fact: RateFact) -> range:
        """The days on which a rate may be looked up."""
        return range(fact.day, fact.day + self.table.max_age_days + 1)


def _keep(held: dict[str, dict[int, RateFact]], fact: RateFact) -> bool:
    before = held[fact.currency].get(fact.day)
    if before is not None and _order(before) >= _order(fact):
        return False
    held[fact.currency][fact.day] = fact
    return True


def _order(fact: RateFact) -> tuple[int, str, int]:
    return fact.updated_ms, fact.per, fact.nanos


def convert(nanos: int, amount: int) -> int:
    """An amount at a rate in billionths, rounded half to even.

    >>> convert(500_000_000, 3), convert(500_000_000, 5)
    (2, 2)
    """
    whole, rest = divmod(amount * nanos, NANOS)
    return whole + (2 * rest > NANOS or (2 * rest == NANOS and whole & 1))


class Conversion:
    """One platform's money of a window on its way into the reporting currency."""

    def __init__(self, rates: Rates) -> None:
        self._rates = rates
        self._sums: dict[tuple[str, int], list[int | None]] = {}

    def add(self, day: int, money: Iterable[Money]) -> None:
        """Add what was reported for an account's day."""
        for amount in money:
            sums = self._sums.setdefault((amount.currency, day), [None, None])
            for slot, micros in enumerate((amount.spend_micros, amount.revenue_micros)):
                if micros is not None:
                    sums[slot] = (sums[slot] or 0) + micros

    def totals(self) -> ReportingTotals:
        """The money in the reporting currency. Nothing in any currency is nothing, and needs no rate."""
        totals: list[int | None] = [None, None]
        used: set[tuple[str, int, int]] = set()
        missing: list[str] = []
        for (currency, day), sums in sorted(self._sums.items()):
            found = self._rates.lookup(currency, day)
            if found is None and any(sums):
                missing.append(f"{currency or 'unknown'}:{iso_date(day)}")
                continue
            if found is not None and currency != self._rates.table.currency:
                used.add((currency, found.day, found.nanos))
            for slot, micros in enumerate(sums):
                if micros is not None:
                    totals[slot] = (totals[slot] or 0) + (convert(found.nanos, micros) if found else 0)
        rates = [RateUsed(currency, iso_date(day), _decimal(nanos)) for currency, day, nanos in sorted(used)]
        return _reporting(self._rates.table.currency, totals, rates, missing)


def add(parts: Iterable[ReportingTotals], currency: str) -> ReportingTotals:
    """The sum over platforms: unknown where one of them is."""
    totals: list[int | None] = [None, None]
    rates: dict[tuple[str, str], RateUsed] = {}
    missing: set[str] = set()
    for part in parts:
        missing.update(part.missing)
        rates.update({(rate.currency, rate.date): rate for rate in part.rates})
        for slot, micros in enumerate((part.spend_micros, part.revenue_micros)):
            if micros is not None:
                totals[slot] = (totals[slot] or 0) + micros
    return _reporting(currency, totals, [rates[name] for name in sorted(rates)], sorted(missing))


def _reporting(currency: str, totals: list[int | None], rates: list[RateUsed], missing: list[str]) -> ReportingTotals:
    if not missing and any(micros is not None and micros > MAX_INT64 for micros in totals):
        missing = [f"the amount in {currency} is beyond 64 bits"]
    spend, revenue = (None, None) if missing else totals
    return ReportingTotals(
        currency=currency,
        spend_micros=spend,
        revenue_micros=revenue,
        roas=revenue / spend if spend and revenue is not None else None,
        rates=rates,
        missing=missing,
    )


def _decimal(nanos: int) -> str:
    whole, rest = divmod(nanos, NANOS)
    return f"{whole}.{rest:09d}".rstrip("0").rstrip(".")
