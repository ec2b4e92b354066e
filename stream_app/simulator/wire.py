"""What the simulator publishes: one Kafka record, its JSON, and the seeded sources of chance."""

from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import orjson

Row = dict[str, Any]
"""One report row, as its connector would write it."""


class SimRecord(NamedTuple):
    """A record to publish. ``timestamp_ms`` is its simulated arrival, in UTC milliseconds (CreateTime)."""

    topic: str
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: list[tuple[str, bytes]]


def chance(seed: int, *purpose: str | int) -> np.random.Generator:
    """A source of chance of its own for each purpose, so that no part of the simulation shifts another."""
    return np.random.default_rng([seed, *(crc32(str(word).encode()) for word in purpose)])


def to_json(value: object) -> bytes:
    """Compact JSON, in the order of the keys."""
    return orjson.dumps(value)


def ratio(numerator: float, denominator: float, digits: int = 6) -> float:
    """A rounded quotient; 0 where it is undefined."""
    return round(numerator / denominator, digits) if denominator else 0.0
