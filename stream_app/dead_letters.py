"""Dead letters, listed and sent again to where they came from."""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from core.creatives import redriven_key
from schemas import dead_letter
from schemas import topics as names
from schemas.dead_letter import DeadLetter, Redrive
from stream_app.extent import ExtentReader
from stream_app.feed import StoredRecord
from stream_app.producer import Outgoing
from stream_app.sending import send_all
from stream_app.settings import Settings
from stream_app.topics import INPUT_MAX_BYTES, name

LINK_KEY: Final = "redrive:"


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which dead letters: of some codes, of an input topic, whose record arrived in [``from_ms``, ``to_ms``), or by id.

    What is empty or None excludes nothing. ``limit`` keeps the newest ones.
    """

    codes: frozenset[str] = frozenset()
    topic: str = ""
    from_ms: int | None = None
    to_ms: int | None = None
    ids: frozenset[str] = frozenset()
    limit: int | None = None

    def takes(self, letter: DeadLetter) -> bool:
        """Whether a letter is one of them."""
        arrived = letter.source.timestamp_ms
        return (
            (not self.codes or letter.code in self.codes)
            and self.topic in ("", letter.source.topic)
            and (self.from_ms is None or arrived >= self.from_ms)
            and (self.to_ms is None or arrived < self.to_ms)
            and (not self.ids or letter.id in self.ids)
        )


class Dead(msgspec.Struct, frozen=True):
    """A dead letter and the record as it was: key, value and headers without what describes the letter."""

    letter: DeadLetter
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]

    @property
    def first_record(self) -> str:
        """The place at which the record arrived first. All rows of a record, and all its redrives, share it."""
        return self.letter.first_id.rpartition("/")[0]

    @property
    def can_be_redriven(self) -> bool:
        """Whether the original bytes are there, and belong into an input topic."""
        whole = self.value is not None and self.letter.cut_bytes is msgspec.UNSET
        return whole and self.letter.source.topic in names.INGEST_TOPICS


class Found(msgspec.Struct, frozen=True):
    """Dead letters by arrival, the oldest first. ``older`` counts those that the limit left out, ``unreadable``
    records without a description.
    """

    dead: list[Dead]
    older: int
    unreadable: int


class Redriven(msgspec.Struct, frozen=True):
    """What was sent, by base topic, and what was not delivered, with the first reason."""

    sent: int
    failed: int
    reason: str = ""


def find(settings: Settings, wanted: Filter) -> Found:
    """The dead letters that the topic holds now, each id once.

    Raises ``SetupError`` for an absent topic, ``ServerAbsent`` for an absent broker.
    """
    found: dict[str, Dead] = {}
    unreadable = 0
    with ExtentReader(settings) as reader:
        for extent in reader.whole(name(settings, names.DEAD_LETTERS)):
            for batch in reader.read(extent):
                for record in batch:
                    dead = _opened(record)
                    if dead is None:
                        unreadable += 1
                    elif wanted.takes(dead.letter):
                        found[dead.letter.id] = dead
    ordered = sorted(found.values(), key=lambda dead: (dead.letter.source.timestamp_ms, dead.letter.id))
    older = 0 if wanted.limit is None else max(0, len(ordered) - wanted.limit)
    return Found(ordered[older:], older, unreadable)


def _opened(record: StoredRecord) -> Dead | None:
    """A dead letter's record; the description is its last header of that name."""
    places = [at for at, (header, _) in enumerate(record.headers) if header == dead_letter.HEADER]
    if not places:
        return None
    try:
        letter = dead_letter.decode(record.headers[places[-1]][1] or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    headers = [header for at, header in enumerate(record.headers) if at != places[-1]]
    return Dead(letter, record.key, record.value, headers)


def redrivable(dead: Iterable[Dead]) -> list[Dead]:
    """One dead letter of each record that can be sent again: a record goes with all of its rows."""
    return list({each.first_record: each for each in dead if each.can_be_redriven}.values())


def redrive(settings: Settings, dead: Sequence[Dead]) -> Redriven:
    """Send records again to the partitions that they came from, and wait for each one's end."""
    largest = max(INPUT_MAX_BYTES, 2 * settings.max_payload_bytes)
    sending = send_all(settings, (_again(settings, each) for each in dead), largest)
    return Redriven(sending.stored, len(sending.failures), next(iter(sending.failures), ""))


def _again(settings: Settings, dead: Dead) -> Outgoing:
    """The record as it goes out once more."""
    source = dead.letter.source
    told = Redrive(id=dead.letter.first_id, arrival_ms=source.timestamp_ms)
    headers = [header for header in dead.headers if header[0] != dead_letter.REDRIVE_HEADER]
    headers.append((dead_letter.REDRIVE_HEADER, dead_letter.encode_redrive(told)))
    return Outgoing(name(settings, source.topic), source.partition, _key(dead), dead.value, headers)


def _key(dead: Dead) -> bytes | None:
    """The record's key. Facts are compacted by theirs: an old one must not delete the one that holds now."""
    if dead.letter.source.topic == names.CREATIVES:
        return redriven_key(dead.letter.first_id, dead.key)
    if dead.letter.source.topic != names.CAMPAIGN_LINKS:
        return dead.key
    return f"{LINK_KEY}{dead.letter.first_id}".encode()
