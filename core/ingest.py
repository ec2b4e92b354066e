"""Ingest: one fetched batch of a source partition becomes one envelope a target partition.

Exchange rates are no platform campaign's: they go to every partition of the rollups log, and are applied when they
have been sent there. Facts of accounts are for ingest itself: whoever runs it knows them as ``AccountHistory``.
Creatives are for whoever reads their topic: here they are judged and counted.

Stateless. Every row ends as a row of an envelope, as an ignored row with its reason, or as a dead letter. Rows are
routed by platform campaign, so that whatever is known of one lies in one ordered log.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from core.accounts import AccountHistory, read_account
from core.cell import Merge
from core.creatives import read_creative
from core.delta_columns import DeltaBatch
from core.lateness import Lateness
from core.source_record import SourceRecord, arrival_of
from schemas import dead_letter, envelope
from schemas.account import AccountFact
from schemas.calendar import Accounts
from schemas.creative import Creative
from schemas.dead_letter import DeadLetter, SourcePosition
from schemas.decode import Reader, decode_record
from schemas.envelope import Envelope, LinkRow, OutcomeRow, SnapshotRow
from schemas.event import Ignored, Kind, MetricEvent, Rejection
from schemas.link import Link, decode_link
from schemas.platform import Platform
from schemas.rate import decode_rate
from schemas.rollup import RateFact
from schemas.topics import ACCOUNTS, CAMPAIGN_LINKS, CREATIVES, METRICS_TOPICS, RATES

__all__ = ["Ingest", "Ingested", "RejectedRow", "SourceRecord", "chunks"]

ACCOUNT_HEADER: Final = "parallax-account"
MAX_ROWS: Final = 8_000
MAX_BYTES: Final = 1 << 20


class RejectedRow(msgspec.Struct, frozen=True):
    """A dead letter and the record that it came from."""

    letter: DeadLetter
    record: SourceRecord


class Ingested(msgspec.Struct, frozen=True):
    """What one batch became: envelopes as (target partition, bytes), dead letters, rows seen, the source's watermark,
    and exchange rates for every partition of the rollups log.
    """

    envelopes: list[tuple[int, bytes]]
    rejected: list[RejectedRow]
    rows: int
    watermark_ms: int
    rates: list[RateFact] = []


class Ingest(msgspec.Struct, frozen=True):
    """The configuration of ingest: known accounts, lateness, payload limit, number of target partitions."""

    partitions: int
    accounts: Accounts = Accounts()
    lateness: Lateness = Lateness()
    max_payload_bytes: int = 65_536

    def batch(
        self,
        topic: str,
        partition: int,
        records: Sequence[SourceRecord],
        watermark_ms: int = -1,
        lag: int = 0,
        history: AccountHistory | None = None,
    ) -> Ingested:
        """Decode, judge and route a batch. ``topic`` is the base name; ``watermark_ms`` is what the source had
        observed before, ``lag`` how many of its records are yet to be read. ``history`` must know of every fact of an
        account that arrived no later than the records; without one the configured accounts hold.
        """
        envelopes: list[tuple[int, bytes]] = []
        rejected: list[RejectedRow] = []
        rates: list[RateFact] = []
        rows = 0
        for chunk, accounts in self._chunks(records, history):
            routed = _Routed(self, accounts, topic, partition, watermark_ms, lag)
            for record in chunk:
                routed.add(record)
            watermark_ms = routed.watermark_ms
            rows += routed.rows
            envelopes += routed.envelopes()
            rejected += routed.rejected
            rates += routed.rates
        return Ingested(envelopes, rejected, rows, watermark_ms, rates)

    def _chunks(
        self, records: Sequence[SourceRecord], history: AccountHistory | None
    ) -> Iterable[tuple[Sequence[SourceRecord], Accounts]]:
        """Chunks, and the accounts as of their arrival."""
        for chunk in chunks(records):
            if history is None:
                yield chunk, self.accounts
            else:
                for run in history.runs([record.timestamp for record in chunk]):
                    yield chunk[run.start : run.stop], history.at(chunk[run.start].timestamp)

    def heartbeat(self, topic: str, partition: int, watermark_ms: int, *, idle: bool) -> list[tuple[int, bytes]]:
        """Envelopes without rows that carry a source partition's watermark to every target partition."""
        payload = envelope.encode(Envelope(topic=topic, partition=partition, watermark_ms=watermark_ms, idle=idle))
        return [(target, payload) for target in range(self.partitions)]


def chunks(records: Sequence[SourceRecord]) -> Iterable[Sequence[SourceRecord]]:
    """Runs of records whose envelopes stay within what a Kafka record may hold."""
    start = size = 0
    for position, record in enumerate(records):
        size += len(record.value or b"")
        if size >= MAX_BYTES or position - start + 1 >= MAX_ROWS:
            yield records[start : position + 1]
            start, size = position + 1, 0
    if start < len(records):
        yield records[start:]


PLATFORM_OF: Final = {topic: platform for platform, topic in METRICS_TOPICS.items()}


class _Routed:
    """The rows of one chunk, on their way to target partitions."""

    def __init__(
        self, config: Ingest, accounts: Accounts, topic: str, partition: int, watermark_ms: int, lag: int
    ) -> None:
        self.config = config
        self.topic = topic
        self.partition = partition
        self.watermark_ms = watermark_ms
        self.lag = lag
        self.rejected: list[RejectedRow] = []
        self.rates: list[RateFact] = []
        self.rows = 0
        self._targets: dict[str, int] = {}
        self._snapshots: dict[int, list[SnapshotRow]] = {}
        self._links: dict[int, list[LinkRow]] = {}
        self._outcomes: list[OutcomeRow] = []
        self._deltas = DeltaBatch(accounts, config.lateness, config.partitions)
        self._reader = Reader(
            platform=PLATFORM_OF.get(topic, Platform.UNKNOWN),
            accounts=accounts,
            max_bytes=config.max_payload_bytes,
        )

    def add(self, record: SourceRecord) -> None:
        if self.topic == CAMPAIGN_LINKS:
            self._add_link(record)
            return
        if self.topic == RATES:
            self._add_rate(record)
            return
        if self.topic == ACCOUNTS:
            self.rows += 1
            self._forward(record, read_account(record, self.config.lateness, self.config.max_payload_bytes))
            return
        if self.topic == CREATIVES:
            self.rows += 1
            self._forward(record, read_creative(record, self.config.lateness, self.config.max_payload_bytes))
            return
        payload = record.value
        if payload is not None and len(payload) <= self.config.max_payload_bytes and not record.headers:
            observed = self._deltas.add_payload(payload, record.offset, record.timestamp)
            if observed >= 0:
                self.rows += 1
                self.watermark_ms = max(self.watermark_ms, observed)
                return
        self._add_decoded(record)

    def _add_decoded(self, record: SourceRecord) -> None:
        account = next(
            (value.decode("utf-8", "replace") for name, value in record.headers if name == ACCOUNT_HEADER), ""
        )
        arrival_ms = arrival_of(record)
        outcomes = decode_record(record.value, self._reader, arrival_ms=arrival_ms, account_hint=account)
        for index, outcome in enumerate(outcomes):
            self.rows += 1
            if isinstance(outcome, MetricEvent):
                refusal = self.config.lateness.judge(outcome, arrival_ms)
                if refusal is None:
                    self._add_event(outcome, record.offset, index)
                else:
                    self._end(record, index, refusal)
            else:
                self._end(record, index, outcome)

    def _add_event(self, event: MetricEvent, offset: int, index: int) -> None:
        self.watermark_ms = max(self.watermark_ms, event.observed_ms)
        if event.kind is Kind.DELTA:
            self._deltas.add_event(event, offset, index)
        else:
            target = self._target(f"{event.platform}:{event.campaign_id}")
            self._snapshots.setdefault(target, []).append(SnapshotRow(offset, index, event))

    def _add_link(self, record: SourceRecord) -> None:
        self.rows += 1
        arrival_ms = arrival_of(record)
        outcome = decode_link(record.key, record.value, arrival_ms=arrival_ms, max_bytes=self.config.max_payload_bytes)
        if isinstance(outcome, Link):
            outcome = self.config.lateness.judge_fact("link", outcome.updated_ms, arrival_ms) or outcome
        if isinstance(outcome, Link):
            target = self._target(f"{outcome.platform}:{outcome.platform_campaign_id}")
            self._links.setdefault(target, []).append(LinkRow(record.offset, 0, outcome))
            self.watermark_ms = max(self.watermark_ms, arrival_ms)
        else:
            self._end(record, 0, outcome)

    def _add_rate(self, record: SourceRecord) -> None:
        self.rows += 1
        arrival_ms = arrival_of(record)
        outcome = decode_rate(record.key, record.value, arrival_ms=arrival_ms, max_bytes=self.config.max_payload_bytes)
        if isinstance(outcome, RateFact):
            outcome = self.config.lateness.judge_fact("rate", outcome.updated_ms, arrival_ms) or outcome
        if isinstance(outcome, RateFact):
            self.rates.append(outcome)
        self._forward(record, outcome)

    def _forward(self, record: SourceRecord, outcome: RateFact | AccountFact | Creative | Ignored | Rejection) -> None:
        """A fact of no platform campaign is applied when it has reached those who need it."""
        if isinstance(outcome, Ignored | Rejection):
            self._end(record, 0, outcome)
        else:
            self._outcomes.append(OutcomeRow(record.offset, 0, Merge.APPLIED))

    def _end(self, record: SourceRecord, index: int, outcome: Ignored | Rejection) -> None:
        code = outcome.code if isinstance(outcome, Rejection) else outcome.reason
        self._outcomes.append(OutcomeRow(record.offset, index, str(code)))
        if isinstance(outcome, Rejection):
            source = SourcePosition(self.topic, self.partition, record.offset, index, arrival_of(record))
            redrive = dead_letter.redrive_of(record.headers, record.timestamp)
            first = redrive.id if redrive else msgspec.UNSET
            letter = dead_letter.describe(source, outcome.code, outcome.sentence, first)
            self.rejected.append(RejectedRow(letter, record))

    def _target(self, platform_campaign: str) -> int:
        target = self._targets.get(platform_campaign)
        if target is None:
            target = self._targets[platform_campaign] = envelope.target_partition(
                platform_campaign, self.config.partitions
            )
        return target

    def envelopes(self) -> list[tuple[int, bytes]]:
        deltas = self._deltas.columns()
        home = self.partition % self.config.partitions
        targets = self._snapshots.keys() | self._links.keys() | deltas.keys()
        if self._outcomes:
            targets |= {home}
        return [
            (
                target,
                envelope.encode(
                    Envelope(
                        topic=self.topic,
                        partition=self.partition,
                        watermark_ms=self.watermark_ms,
                        lag=self.lag,
                        outcomes=self._outcomes if target == home else [],
                        snapshots=self._snapshots.get(target, []),
                        links=self._links.get(target, []),
                        deltas=deltas.get(target),
                    )
                ),
            )
            for target in sorted(targets)
        ]
