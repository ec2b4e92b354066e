"""Scores of creatives on their topic: sent, and taken back of creatives that are no more."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from schemas import topics as names
from schemas.creative_score import CreativeScored, encode, key
from stream_app.errors import ServerAbsent
from stream_app.extent import ExtentReader
from stream_app.producer import Outgoing
from stream_app.sending import BY_KEY, send_all
from stream_app.settings import Settings
from stream_app.topics import DERIVED_MAX_BYTES, name


class Published(NamedTuple):
    """How many scores were sent, and how many taken back."""

    scores: int
    withdrawn: int


def refuse_absent(settings: Settings) -> None:
    """Raises ``SetupError`` where the topic of the scores is missing, ``ServerAbsent`` without a broker."""
    with ExtentReader(settings) as reader:
        reader.partitions(name(settings, names.CREATIVE_SCORES))


def publish(settings: Settings, scores: Sequence[CreativeScored], creatives: Iterable[str]) -> Published:
    """Send the scores, and a record without a value for every score on the topic that is of none of ``creatives``, all
    that there are by id; wait until they are durable. Raises ``ServerAbsent`` and ``SetupError``.
    """
    topic, gone = name(settings, names.CREATIVE_SCORES), sorted(_scored(settings) - {key(each) for each in creatives})
    records = [Outgoing(topic, BY_KEY, key(score.creative_id), encode(score)) for score in scores]
    records += [Outgoing(topic, BY_KEY, of, None) for of in gone]
    if failures := send_all(settings, records, DERIVED_MAX_BYTES).failures:
        raise ServerAbsent(
            f"Kafka at {settings.kafka_bootstrap} did not take {len(failures)} of {len(records)} scores"
            f" ({failures[0]}): publish them again"
        )
    return Published(len(scores), len(gone))


def _scored(settings: Settings) -> set[bytes]:
    """The keys under which the topic holds a score."""
    held: set[bytes] = set()
    with ExtentReader(settings) as reader:
        for extent in reader.whole(name(settings, names.CREATIVE_SCORES)):
            for batch in reader.read(extent):
                for record in batch:
                    if record.key is not None and record.value is not None:
                        held.add(record.key)
                    elif record.key is not None:
                        held.discard(record.key)
    return held
