"""A broker that is away is told from one that says no, whatever aiokafka calls it."""

import pytest
from aiokafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError, NodeNotReadyError, ProducerFenced

from stream_app.errors import ServerAbsent, SetupError
from stream_app.outage import passing


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        NodeNotReadyError("node 1"),
        KafkaTimeoutError("within 40000 ms"),
        ServerAbsent("no Kafka"),
        # A sender whose coordinator hung up: ``Sender._find_coordinator`` wraps it, ``_sender_routine`` once more.
        caused(
            KafkaError("Unexpected error during batch delivery"), caused(KafkaError("x"), KafkaConnectionError("y"))
        ),
    ],
)
def test_away(error: Exception) -> None:
    assert passing(error)


@pytest.mark.parametrize("error", [ProducerFenced("x"), KafkaError("x"), SetupError("x"), ValueError("x")])
def test_no(error: Exception) -> None:
    assert not passing(error)
