"""Scorecards of CTR predictions as partitions publish them: read from their topic, merged, and in a few numbers."""

import time
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from core.learning.baselines import PLATFORM_MEAN
from core.learning.measures import Measures, measures
from core.learning.scorecard import Scorecard
from core.learning.walk import DEFAULT, MODEL, SERVED
from schemas import scorecard as scorecard_codec
from schemas import topics as names
from schemas.calendar import iso_date
from schemas.scorecard import LearnedScorecard
from stream_app.errors import ServerAbsent, SetupError
from stream_app.settings import Settings
from stream_app.topics import name

ANSWER_S: Final = 10.0
LEADERLESS: Final = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)
LOG_LOSSES: Final = (DEFAULT, MODEL, PLATFORM_MEAN)


def newest(settings: Settings) -> dict[int, LearnedScorecard]:
    """Each partition's newest scorecard. Raises ``ServerAbsent`` and, for a topic that is not there, ``SetupError``."""
    topic = name(settings, names.SCORECARDS)
    consumer = Consumer(
        settings.confluent_config()
        | {"group.id": "scorecards", "enable.auto.commit": False, "log_level": 0, "error_cb": lambda _: None}
    )
    try:
        told = consumer.list_topics(topic, timeout=ANSWER_S).topics[topic].partitions
        if not told:
            raise SetupError(f"there is no topic {topic}: run `parallax topics create`")
        found = {partition: _last(consumer, TopicPartition(topic, partition)) for partition in sorted(told)}
    except KafkaException as failure:
        raise ServerAbsent(f"Kafka at {settings.kafka_bootstrap} does not answer: {failure.args[0].str()}") from None
    finally:
        consumer.close()
    return {partition: card for partition, card in found.items() if card is not None}


def _last(consumer: Any, place: TopicPartition) -> LearnedScorecard | None:
    """The last record of a partition. There are but a few: the topic is compacted under one key a partition."""
    low, high = _extent(consumer, place)
    if high <= low:
        return None
    place.offset = low
    consumer.assign([place])
    payload = None
    while consumer.position([TopicPartition(place.topic, place.partition)])[0].offset < high:
        message = consumer.poll(ANSWER_S)
        if message is None:
            break
        if message.error() is not None:
            raise KafkaException(message.error())
        payload = message.value() or payload
    return None if payload is None else scorecard_codec.decode(payload)


def _extent(consumer: Any, place: TopicPartition) -> tuple[int, int]:
    """A partition's first and next offset, when it has a leader, as a new topic's has after a moment."""
    until = time.monotonic() + ANSWER_S
    while True:
        try:
            low, high = consumer.get_watermark_offsets(place, timeout=ANSWER_S)
        except KafkaException as failure:
            if failure.args[0].code() not in LEADERLESS or time.monotonic() > until:
                raise
            time.sleep(0.1)
        else:
            return low, high


def merged(cards: Iterable[LearnedScorecard]) -> Scorecard | None:
    """One scorecard of disjoint partitions; None of none."""
    found = [Scorecard.from_bytes(card.card) for card in cards]
    return reduce(Scorecard.merged, found) if found else None


def summary(cards: Sequence[LearnedScorecard]) -> dict[str, Any]:
    """A few numbers of all partitions: of the predictions that serve, and log losses (nats per impression)."""
    card = merged(cards)
    if card is None:
        return {"rows": 0}
    whole = Scorecard(card.predictors)
    whole.segments = {key: sums for key, sums in card.segments.items() if key == ("all", "all")}
    by_name: dict[str, Measures] = {one.predictor: one for one in measures(whole)}
    served = by_name[SERVED]
    return {
        "rows": served.rows,
        "impressions": int(served.impressions),
        "days": len(card.windows),
        "last_day": iso_date(max(one.last_day for one in cards)),
        "log_loss": {one: round(by_name[one].log_loss, 6) for one in LOG_LOSSES},
        "predicted_over_actual": None if served.calibration is None else round(served.calibration, 4),
        "interval_coverage": None if served.coverage is None else round(served.coverage, 4),
        "promoted": sorted({platform for one in cards for platform, (serves, _) in one.standings.items() if serves}),
    }
