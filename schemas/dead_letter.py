"""Dead letters: what could not be used, whole, with its position and one sentence that says why.

The Kafka record on ``ads.dead-letters`` keeps the original key, value and headers untouched; this description travels
in the header ``parallax-dead-letter`` as JSON. A record whose body holds many rows gives one dead letter a bad row,
told apart by ``index``.

A record that is sent again to its source topic says so in the header ``parallax-redrive``, as JSON too: it is the same
record once more, and arrived when that one did.
"""

from collections.abc import Iterable
from typing import Annotated, Final

import msgspec

HEADER: Final = "parallax-dead-letter"
REDRIVE_HEADER: Final = "parallax-redrive"


class SourcePosition(msgspec.Struct, frozen=True):
    """Where the row stood: a record's position, and the row's index in the record's body.

    ``timestamp_ms`` is the arrival that it was judged by: of a redriven record the first one, −1 where that is not
    known any more.
    """

    topic: str
    partition: int
    offset: int
    index: int
    timestamp_ms: int


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """``id`` is the position as text: a row redelivered after a crash gives the same id again. ``redriven_from`` is
    the id of the first dead letter of a record that was redriven and failed again. ``cut_bytes`` is how much of a
    record is left out that was too large to be kept.
    """

    version: int = 1
    id: str
    code: str
    sentence: str
    source: SourcePosition
    redriven_from: str | msgspec.UnsetType = msgspec.UNSET
    cut_bytes: int | msgspec.UnsetType = msgspec.UNSET

    @property
    def first_id(self) -> str:
        """The id of the record's first dead letter."""
        return self.redriven_from if isinstance(self.redriven_from, str) else self.id


class Redrive(msgspec.Struct, frozen=True, kw_only=True):
    """That a record is an earlier one once more: ``id`` of its first dead letter, and when it arrived first, UTC
    milliseconds.
    """

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=400)]
    arrival_ms: Annotated[int, msgspec.Meta(ge=0)]


_redrive: Final = msgspec.json.Decoder(Redrive).decode


def describe(
    source: SourcePosition, code: str, sentence: str, redriven_from: str | msgspec.UnsetType = msgspec.UNSET
) -> DeadLetter:
    """The dead letter of a position."""
    identity = f"{source.topic}/{source.partition}/{source.offset}/{source.index}"
    return DeadLetter(id=identity, code=code, sentence=sentence, source=source, redriven_from=redriven_from)


def redrive_of(headers: Iterable[tuple[str, bytes | None]], arrival_ms: int) -> Redrive | None:
    """What a record that arrived at ``arrival_ms`` says of an earlier arrival of its own; the last header counts.

    None for a record without the header, and where it is not well-formed or claims an arrival after the real one.
    """
    told = None
    for name, value in headers:
        if name == REDRIVE_HEADER:
            told = value
    if told is None:
        return None
    try:
        redrive = _redrive(told)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return redrive if redrive.arrival_ms <= arrival_ms else None


def encode(letter: DeadLetter) -> bytes:
    """The header's bytes."""
    return msgspec.json.encode(letter)


def encode_redrive(redrive: Redrive) -> bytes:
    """The bytes of the header ``parallax-redrive``."""
    return msgspec.json.encode(redrive)


decode: Final = msgspec.json.Decoder(DeadLetter).decode
