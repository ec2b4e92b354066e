"""Telling a broker that is away from one that says no."""

from aiokafka.errors import KafkaTimeoutError

from stream_app.errors import ServerAbsent


def passing(error: BaseException | None) -> bool:
    """Whether it may be over when the broker is back. aiokafka holds its own deadline for final, and says of a lost
    connection to a coordinator that it was unexpected: what it came from tells.
    """
    while error is not None:
        if isinstance(error, ServerAbsent | KafkaTimeoutError) or getattr(error, "retriable", False):
            return True
        error = error.__cause__
    return False
