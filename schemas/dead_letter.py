"""Dead letters: what could not be used, whole, with its position and one sentence that says why.

The Kafka record on ``ads.dead-letters`` keeps the original key, value and headers untouched; this description travels
in the header ``parallax-dead-letter`` as JSON. A record whose body holds many rows gives one dead letter a bad row,
told apart by ``index``.
"""

from typing import Final

import msgspec

HEADER: Final = "parallax-dead-letter"


class SourcePosition(msgspec.Struct, frozen=True):
    """Where the row stood: a record's position, and the row's index in the record's body.

    ``timestamp_ms`` is when the record arrived, −1 where that is not known any more.
    """

    topic: str
    partition: int
    offset: int
    index: int
    timestamp_ms: int


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """``id`` is the position as text: a row redelivered after a crash gives the same id again."""

    version: int = 1
    id: str
    code: str
    sentence: str
    source: SourcePosition


def describe(source: SourcePosition, code: str, sentence: str) -> DeadLetter:
    """The dead letter of a position."""
    identity = f"{source.topic}/{source.partition}/{source.offset}/{source.index}"
    return DeadLetter(id=identity, code=code, sentence=sentence, source=source)


def encode(letter: DeadLetter) -> bytes:
    """The header's bytes."""
    return msgspec.json.encode(letter)


decode: Final = msgspec.json.Decoder(DeadLetter).decode
