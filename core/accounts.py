"""What was known of the ad accounts at any time: a row is read by the facts that had arrived when it did.

So what a row means is a function of the records, and not of when they were processed: a replay reads it as the live
stream did, and a fact that comes late changes later rows alone.
"""

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import msgspec

from core.lateness import Lateness
from core.source_record import SourceRecord, arrival_of
from schemas.account import AccountFact, decode_account
from schemas.calendar import Account, Accounts
from schemas.event import Ignored, Rejection
from schemas.platform import Platform

KEPT = 8
"""Tables that are kept: batches lie close together in time."""


def read_account(record: SourceRecord, lateness: Lateness, max_bytes: int) -> AccountFact | Rejection | Ignored:
    """The fact of an account record, or why it is none."""
    arrival_ms = arrival_of(record)
    outcome = decode_account(record.key, record.value, arrival_ms=arrival_ms, max_bytes=max_bytes)
    if isinstance(outcome, AccountFact):
        return lateness.judge_fact("account", outcome.updated_ms, arrival_ms) or outcome
    return outcome


class AccountHistory:
    """Facts by arrival stamp, over ``base``: the accounts as the settings know them."""

    def __init__(self, base: Accounts) -> None:
        self._base = base
        self._stamps: list[int] = []
        self._facts: dict[tuple[Platform, str], list[tuple[int, AccountFact]]] = defaultdict(list)
        self._tables: dict[int, Accounts] = {}

    def put(self, fact: AccountFact, stamp: int) -> None:
        """Take a fact that arrived at ``stamp``, UTC milliseconds. The same one again changes nothing."""
        held = self._facts[fact.platform, fact.account_id.removeprefix("act_")]
        if (stamp, fact) in held:
            return
        held.append((stamp, fact))
        position = bisect_right(self._stamps, stamp)
        if not position or self._stamps[position - 1] != stamp:
            insort(self._stamps, stamp)
        self._tables.clear()

    def take(self, records: Iterable[SourceRecord], lateness: Lateness, max_bytes: int) -> None:
        """Take the facts of fetched records; what is none is for ingest to say."""
        for record in records:
            outcome = read_account(record, lateness, max_bytes)
            if isinstance(outcome, AccountFact):
                self.put(outcome, record.timestamp)

    def at(self, stamp: int) -> Accounts:
        """The accounts as of an arrival stamp."""
        period = self._period(stamp)
        found = self._tables.get(period)
        if found is None:
            if len(self._tables) >= KEPT:
                self._tables.clear()
            found = self._tables[period] = self._table(stamp)
        return found

    def runs(self, stamps: Sequence[int]) -> Iterator[range]:
        """The runs of arrival stamps between which nothing became known."""
        if not stamps:
            return
        if self._period(min(stamps)) == self._period(max(stamps)):
            yield range(len(stamps))
            return
        for _, run in groupby(range(len(stamps)), key=lambda position: self._period(stamps[position])):
            places = list(run)
            yield range(places[0], places[-1] + 1)

    def _period(self, stamp: int) -> int:
        return bisect_right(self._stamps, stamp)

    def _table(self, stamp: int) -> Accounts:
        known: dict[str, Account] = {}
        for (platform, bare), facts in self._facts.items():
            arrived = [fact for at, fact in facts if at <= stamp]
            if not arrived:
                continue
            fact = max(arrived, key=lambda fact: (fact.updated_ms, fact.time_zone, fact.currency))
            account = self._base.of(platform, bare)
            if fact.time_zone:
                account = msgspec.structs.replace(account, time_zone=fact.time_zone)
            if fact.currency:
                account = msgspec.structs.replace(account, currency=fact.currency)
            # The same account with and without its prefix: the settings may name either.
            known[f"{platform}:{bare}"] = known[f"{platform}:act_{bare}"] = account
        return Accounts(self._base.known | known) if known else self._base
