"""Reading topics without a group: nothing is committed, so no worker notices, and where a topic ends is told."""

from collections.abc import Mapping
from typing import Any

from confluent_kafka import Consumer

from stream_app.settings import Settings


def groupless(settings: Settings, purpose: str, more: Mapping[str, Any]) -> Consumer:
    """A consumer that is yet to be assigned partitions. ``purpose`` names it to the broker; ``more`` is librdkafka's
    configuration beside what all readers share.
    """
    shared: dict[str, Any] = {
        "group.id": f"{settings.topic_prefix}{settings.app_id}-{purpose}",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        # Behind a topic's last record there may be transaction markers.
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
        "log_level": 0,
        "error_cb": lambda _error: None,
    }
    return Consumer({**settings.confluent_config(), **shared, **more})
