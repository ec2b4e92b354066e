"""The accounting: every row of every record ends in exactly one way."""

from collections import Counter
from collections.abc import Iterable
from typing import Final

import msgspec

from schemas.event import IgnoreReason, RejectCode

RECORDS: Final = "records"
"""Under this name a tally counts records; its other names are the ends of rows."""


class Accounting(msgspec.Struct, frozen=True, kw_only=True):
    """What became of every row: ``rows`` is the sum of all that follows it. A record holds one row or many."""

    records: int
    rows: int
    applied: int
    duplicate: int
    superseded: int
    dead_letters: dict[str, int]
    ignored: dict[str, int]

    @property
    def accounted(self) -> int:
        """The rows whose end is known."""
        ended = self.applied + self.duplicate + self.superseded
        return ended + sum(self.dead_letters.values()) + sum(self.ignored.values())

    @property
    def adds_up(self) -> bool:
        """Whether every row has exactly one end, and no record is without a row."""
        return self.rows == self.accounted and self.records <= self.rows


def account(tallies: Iterable[Counter[str]], rows: int | None = None) -> Accounting:
    """The accounting of aggregate tallies. ``rows`` is an independent count of the rows, where there is one."""
    total: Counter[str] = Counter()
    for tally in tallies:
        total.update(tally)
    records = total.pop(RECORDS, 0)
    return Accounting(
        records=records,
        rows=sum(total.values()) if rows is None else rows,
        applied=total["applied"],
        duplicate=total["duplicate"],
        superseded=total["superseded"],
        dead_letters={code: total[code] for code in sorted(set(map(str, RejectCode)) & set(total)) if total[code]},
        ignored={reason: total[reason] for reason in sorted(set(map(str, IgnoreReason)) & set(total)) if total[reason]},
    )
