"""The whole computation over given records, in one partition and without any server: the oracle of the live stream.

It runs the same ingest, aggregate and campaigns as the workers do, over records in any order.
"""

from collections.abc import Iterable, Sequence

import msgspec

from core.accounting import Accounting, account
from core.accounts import AccountHistory
from core.aggregate import Aggregate, rollup_record
from core.campaigns import Campaigns, InsightConfig
from core.ingest import Ingest, RejectedRow, SourceRecord
from schemas.insight import CrossPlatformInsight
from schemas.prediction import CtrPrediction
from schemas.rollup import RateFact
from schemas.topics import ACCOUNTS


class Computed(msgspec.Struct, frozen=True):
    """The insights and predictions of a set of records, and what became of its rows."""

    insights: list[CrossPlatformInsight]
    predictions: list[CtrPrediction]
    accounting: Accounting
    rejected: list[RejectedRow]
    unlinked: list[str]


def compute(
    batches: Iterable[tuple[str, int, Sequence[SourceRecord]]],
    ingest: Ingest,
    config: InsightConfig,
    *,
    predictions: bool = False,
) -> Computed:
    """Insights and, with ``predictions``, these from batches of (base topic, partition, records).

    Facts of accounts must be known before rows are read: an iterator gives its batches of ``ads.accounts`` first, in
    a sequence they may lie anywhere. Raises ``ValueError`` for an iterator that gives them later.
    """
    history, read = AccountHistory(ingest.accounts), False
    if isinstance(batches, Sequence):
        batches = sorted(batches, key=lambda batch: batch[0] != ACCOUNTS)
    aggregate, campaigns = Aggregate(), Campaigns(msgspec.structs.replace(config, horizon_ms=None))
    single = msgspec.structs.replace(ingest, partitions=1)
    offset = rows = 0
    rejected: list[RejectedRow] = []
    rates: list[RateFact] = []
    watermarks: dict[tuple[str, int], int] = {}
    for topic, partition, records in batches:
        source = (topic, partition)
        if topic == ACCOUNTS:
            if read:
                raise ValueError(f"batches of {ACCOUNTS} must come before those of rows")
            history.take(records, ingest.lateness, ingest.max_payload_bytes)
        read = read or topic != ACCOUNTS
        ingested = single.batch(topic, partition, records, watermarks.get(source, -1), history=history)
        watermarks[source] = ingested.watermark_ms
        rejected += ingested.rejected
        rows += ingested.rows
        rates += ingested.rates
        for _, payload in ingested.envelopes:
            aggregate.apply(offset, payload)
            offset += 1
    for (topic, partition), watermark_ms in watermarks.items():
        for _, payload in single.heartbeat(topic, partition, watermark_ms, idle=True):
            aggregate.apply(offset, payload)
            offset += 1
    _, messages = aggregate.take_writes(publish=True)
    for position, message in enumerate([*rates, *messages]):
        _, payload = rollup_record(message)
        campaigns.apply(position, payload)
    return Computed(
        insights=list(campaigns.insights()),
        predictions=campaigns.predictions() if predictions else [],
        accounting=account(aggregate.tallies.values(), rows),
        rejected=rejected,
        unlinked=aggregate.unlinked(),
    )
