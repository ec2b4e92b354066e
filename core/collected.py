"""The state of all input topics in one: batches of their records in any number, facts of accounts first."""

from collections import Counter
from collections.abc import Sequence

import msgspec

from core.accounts import AccountHistory
from core.aggregate import Aggregate
from core.creatives import CreativeStatements
from core.ingest import Ingest
from core.source_record import SourceRecord
from schemas.topics import ACCOUNTS, CREATIVES


class Collected:
    """``aggregate`` holds what the rows and links became, without a table; ``creatives`` what was stated of creatives.

    ``records`` counts what was taken, ``unusable`` the rows that became dead letters, by code.
    """

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = msgspec.structs.replace(ingest, partitions=1)
        self._accounts = AccountHistory(ingest.accounts)
        self._watermarks: dict[tuple[str, int], int] = {}
        self._offset = 0
        self.aggregate = Aggregate()
        self.creatives = CreativeStatements()
        self.records = 0
        self.unusable: Counter[str] = Counter()

    def take(self, topic: str, partition: int, batch: Sequence[SourceRecord]) -> None:
        """Take a batch of a partition of a topic, which goes by its base name."""
        source = (topic, partition)
        if topic == ACCOUNTS:
            self._accounts.take(batch, self._ingest.lateness, self._ingest.max_payload_bytes)
        if topic == CREATIVES:
            self.creatives.take(batch, self._ingest.lateness, self._ingest.max_payload_bytes)
        ingested = self._ingest.batch(topic, partition, batch, self._watermarks.get(source, -1), history=self._accounts)
        self._watermarks[source] = ingested.watermark_ms
        for _, payload in ingested.envelopes:
            self.aggregate.apply(self._offset, payload)
            self._offset += 1
        self.records += len(batch)
        self.unusable.update(row.letter.code for row in ingested.rejected)
