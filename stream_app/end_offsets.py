"""The ends of the partitions that a worker reads, asked of the broker and not learnt by fetching.

A worker that stands still fetches nothing, so what its consumer knows of the ends stands still with it.
"""

import logging
import time
from collections.abc import Iterable
from concurrent.futures import wait
from typing import Final

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from faust.types import TP

from stream_app.settings import Settings

log = logging.getLogger(__name__)

ANSWER_S: Final = 5.0


class EndOffsets:
    """The last ends that were told; asked for at most every ``every_seconds``, by one thread."""

    def __init__(self, settings: Settings, every_seconds: float) -> None:
        self._config = settings.confluent_config() | {"log_level": 0, "error_cb": lambda _error: None}
        self._every = every_seconds
        self._asked_at = -float("inf")
        self._client: AdminClient | None = None
        self._ends: dict[TP, int] = {}

    def of(self, tp: TP) -> int:
        """A partition's end as it was last told, open transactions included; 0 where it never was."""
        return self._ends.get(tp, 0)

    def refresh(self, partitions: Iterable[TP]) -> None:
        """Ask, unless that was done a moment ago. What the broker does not tell stays as it was."""
        now, wanted = time.monotonic(), set(partitions)
        if not wanted or now - self._asked_at < self._every:
            return
        self._asked_at = now
        if self._client is None:
            self._client = AdminClient(self._config)
        spec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        latest = {TopicPartition(tp.topic, tp.partition): spec for tp in wanted}
        try:
            answers = self._client.list_offsets(
                latest, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=ANSWER_S
            )
        except KafkaException as error:
            log.debug("no end offsets: %s", error)
            return
        wait(answers.values(), ANSWER_S)
        told = dict(self._ends)
        for partition, answer in answers.items():
            if answer.done() and answer.exception() is None:
                told[TP(partition.topic, partition.partition)] = int(answer.result().offset)
        self._ends = told
