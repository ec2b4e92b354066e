"""Dead letters as INGEST sends them: whole, or cut to what their topic takes, and then not to be redriven."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from core.ingest import RejectedRow
from schemas import dead_letter
from schemas import topics as names
from schemas.dead_letter import SourcePosition
from stream_app.dead_letters import Dead
from stream_app.domain import ingest_config
from stream_app.ingest_stage import IngestStage
from stream_app.records import Record
from stream_app.settings import Settings
from stream_app.topics import largest_letter, plan

SETTINGS = Settings(cache_enabled=False)
LARGEST = largest_letter(SETTINGS)
META = names.INGEST_TOPICS[0]
SIZES = st.sampled_from([0, 1, 100, LARGEST // 2, LARGEST - 1, LARGEST, LARGEST + 1, 20 * LARGEST])


def sent(key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]) -> Any:
    unused: Any = None
    letter = dead_letter.describe(SourcePosition(META, 0, 7, 0, 1), "oversize", "too much")
    record = Record(META, 0, 7, 1, 1, key, value, headers)
    return IngestStage(SETTINGS, ingest_config(SETTINGS), unused, unused)._letter(RejectedRow(letter, record))


@given(SIZES, SIZES, SIZES)
def test_a_dead_letter_always_fits_and_says_what_was_cut(key: int, value: int, header: int) -> None:
    outgoing = sent(bytes(key), bytes(value), [("h", bytes(header))])
    letter = dead_letter.decode(outgoing.headers[-1][1])
    kept = len(outgoing.key or b"") + len(outgoing.value or b"")
    kept += sum(len(name) + len(held) for name, held in outgoing.headers[:-1])
    whole = key + value + header + len("h")
    planned = next(topic for topic in plan(SETTINGS) if topic.name == names.DEAD_LETTERS)
    assert kept + len(outgoing.headers[-1][1]) + 1_000 <= planned.max_message_bytes
    dead = Dead(letter, outgoing.key, outgoing.value, list(outgoing.headers[:-1]))
    if whole <= LARGEST:
        assert kept == whole
        assert dead.can_be_redriven
    else:
        assert letter.cut_bytes == whole - kept > 0
        assert not dead.can_be_redriven


def test_an_empty_record_stays_one() -> None:
    assert (sent(None, None, []).key, sent(None, None, []).value) == (None, None)
