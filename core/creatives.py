"""Creatives as they were stated: which statement of each holds, and which creative an ad shows.

What holds is a function of the set of records. A statement stands by its ``updated_at``, equal ones by the greater
bytes of their encoding; so does what two creatives say of the same ad. A withdrawn creative shows in no ad.
"""

from collections.abc import Iterable

from core.lateness import Lateness
from core.source_record import SourceRecord, arrival_of
from schemas import dead_letter
from schemas.creative import Creative, decode_creative, encode
from schemas.event import Ignored, Rejection
from schemas.platform import Platform

Ad = tuple[Platform, str]


def redriven_key(first_id: str, key: bytes | None) -> bytes:
    """The key of a redriven creative's record: not its own, by which compaction would drop what has been said since."""
    return b"redrive:%b:%b" % (first_id.encode(), key or b"")


def read_creative(record: SourceRecord, lateness: Lateness, max_bytes: int) -> Creative | Rejection | Ignored:
    """The statement of a creative's record, or why it is none."""
    arrival_ms, key = arrival_of(record), record.key
    redrive = dead_letter.redrive_of(record.headers, record.timestamp) if record.headers else None
    if redrive is not None and key is not None and record.value is not None:
        key = key.removeprefix(redriven_key(redrive.id, None)) or None
    outcome = decode_creative(key, record.value, arrival_ms=arrival_ms, max_bytes=max_bytes)
    if isinstance(outcome, Creative):
        return lateness.judge_fact("creative", outcome.updated_ms, arrival_ms) or outcome
    return outcome


def _precedence(creative: Creative) -> tuple[int, bytes]:
    return creative.updated_ms, encode(creative) or b""


class CreativeStatements:
    """The statement that holds of each creative."""

    def __init__(self) -> None:
        self._held: dict[str, Creative] = {}

    def put(self, creative: Creative) -> None:
        """Take a statement; one that is older than the one that holds changes nothing."""
        held = self._held.get(creative.creative_id)
        if held is None or _precedence(creative) > _precedence(held):
            self._held[creative.creative_id] = creative

    def take(self, records: Iterable[SourceRecord], lateness: Lateness, max_bytes: int) -> None:
        """Take the statements of fetched records; what is none is for ingest to say."""
        for record in records:
            outcome = read_creative(record, lateness, max_bytes)
            if isinstance(outcome, Creative):
                self.put(outcome)

    def creatives(self) -> list[Creative]:
        """The creatives that are not withdrawn, by id."""
        return sorted(
            (creative for creative in self._held.values() if not creative.withdrawn),
            key=lambda creative: creative.creative_id,
        )

    def by_ad(self) -> dict[Ad, str]:
        """The creative that each ad shows, by platform and ad id. Ads that are named by no ``ad_id`` are not among
        them: reports know none of the platforms' creative ids.
        """
        found: dict[Ad, str] = {}
        for creative in sorted(self.creatives(), key=_precedence):
            found |= {(ad.platform, ad.ad_id): creative.creative_id for ad in creative.ads if ad.ad_id}
        return found
