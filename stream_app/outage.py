"""Telling a broker that is away from one that says no."""

from aiokafka.errors import KafkaTimeoutError

from stream_app.errors import ServerAbsent


def passing(error: BaseException) -> bool:
    """Whether it may be over when the broker is back. aiokafka holds its own deadline for final."""
    return isinstance(error, ServerAbsent | KafkaTimeoutError) or bool(getattr(error, "retriable", False))
