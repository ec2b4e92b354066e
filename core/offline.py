"""The whole computation over given records, in one partition and without any server: the oracle of the live stream.

It runs the same ingest, aggregate and campaigns as the workers do, over records in any order.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from core.aggregate import Aggregate, rollup_record
from core.campaigns import Campaigns, InsightConfig
from core.ingest import Ingest, RejectedRow, SourceRecord
from schemas.event import IgnoreReason, RejectCode
from schemas.insight import CrossPlatformInsight
from schemas.prediction import CtrPrediction

RECORDS = "records"


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
    def adds_up(self) -> bool:
        """Whether every row has exactly one end."""
        ends = self.applied + self.duplicate + self.superseded
        return self.rows == ends + sum(self.dead_letters.values()) + sum(self.ignored.values())


class Computed(msgspec.Struct, frozen=True):
    """The insights and predictions of a set of records, and what became of its rows."""

    insights: list[CrossPlatformInsight]
    predictions: list[CtrPrediction]
    accounting: Accounting
    rejected: list[RejectedRow]
    unlinked: list[str]


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


def compute(
    batches: Iterable[tuple[str, int, Sequence[SourceRecord]]], ingest: Ingest, config: InsightConfig
) -> Computed:
    """Insights and predictions from batches of (base topic, partition, records)."""
    aggregate, campaigns = Aggregate(), Campaigns(config)
    single = msgspec.structs.replace(ingest, partitions=1)
    offset = rows = 0
    rejected: list[RejectedRow] = []
    watermarks: dict[tuple[str, int], int] = {}
    for topic, partition, records in batches:
        source = (topic, partition)
        ingested = single.batch(topic, partition, records, watermarks.get(source, -1))
        watermarks[source] = ingested.watermark_ms
        rejected += ingested.rejected
        rows += ingested.rows
        for _, payload in ingested.envelopes:
            aggregate.apply(offset, payload)
            offset += 1
    _, messages = aggregate.take_writes(publish=True)
    for position, message in enumerate(messages):
        _, payload = rollup_record(message)
        campaigns.apply(position, payload)
    return Computed(
        insights=list(campaigns.insights()),
        predictions=campaigns.predictions(),
        accounting=account(aggregate.tallies.values(), rows),
        rejected=rejected,
        unlinked=aggregate.unlinked(),
    )
