"""The shapes in which rows travel: connectors' envelopes and platforms' answers, opened to single rows.

| shape | marks |
|---|---|
| Airbyte record | ``{stream, data, emitted_at}``, ``{type: RECORD, record: {…}}``, or Kafka's ``{_airbyte_data, …}`` |
| Singer record | ``{type: RECORD, stream, record, time_extracted}`` |
| control message | ``{type: STATE \\| SCHEMA \\| LOG \\| …}`` of either protocol |
| Graph API answer | ``{data: [row, …]}`` |
| TikTok answer | ``{code, message, data: {list: [row, …]}}`` |
| Google search answer | ``{results: [row, …]}``, and the list of such that searchStream sends |
| error answer | ``{error: {…}}``, or TikTok's ``code`` other than 0 |
| bare row, list of any of these | |
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from schemas.dates import instant_of
from schemas.event import Ignored, IgnoreReason, RejectCode, Rejection
from schemas.native import Pull, Row
from schemas.refusal import Refused, show

CONTROL: Final = frozenset(
    {
        "STATE",
        "SCHEMA",
        "LOG",
        "TRACE",
        "SPEC",
        "CONNECTION_STATUS",
        "CATALOG",
        "CONTROL",
        "ACTIVATE_VERSION",
        "DESTINATION_CATALOG",
    }
)
ERROR_NAMES: Final = ("code", "status", "type", "error_subcode")
GOOGLE_PAGE_MARKS: Final = frozenset({"fieldMask", "requestId", "nextPageToken", "totalResultsCount", "summaryRow"})
EMPTY: Final = Ignored(IgnoreReason.EMPTY_REPORT)


class Found(msgspec.Struct, frozen=True):
    """A row, and what its envelope said of it. ``enveloped`` says that a connector vouches for it being a row."""

    row: Row
    pull: Pull
    enveloped: bool = False


Opened = Found | Ignored | Rejection


def open_document(document: object, pull: Pull) -> Iterator[Opened]:
    """The rows of a parsed record, in order; at least one thing for any document. Lazy: a caller may stop."""
    if type(document) is not list:
        yield from _open_one(document, pull)
        return
    empty = True
    for part in document:
        for opened in _open_one(part, pull):
            # searchStream may end with a page that has no rows.
            if opened is not EMPTY:
                empty = False
                yield opened
    if empty:
        yield EMPTY


def _open_one(document: object, pull: Pull) -> Iterator[Opened]:
    if type(document) is not dict:
        yield Rejection(
            RejectCode.NOT_AN_OBJECT, f"a record must hold an object or a list of objects, not {show(document)}"
        )
        return
    try:
        yield from _open_object(document, pull)
    except Refused as refused:
        yield refused.rejection


def _open_object(document: Row, pull: Pull) -> Iterator[Opened]:
    message = document.get("type")
    if message == "RECORD":
        yield _open_message(document, pull)
    elif type(message) is str and message in CONTROL:
        yield Ignored(IgnoreReason.CONTROL_MESSAGE)
    elif "stream" in document and "data" in document:
        yield _enveloped(document["data"], document["stream"], document.get("emitted_at"), "emitted_at", pull)
    elif "_airbyte_data" in document:
        emitted = document.get("_airbyte_emitted_at")
        yield _enveloped(
            document["_airbyte_data"], document.get("_airbyte_stream"), emitted, "_airbyte_emitted_at", pull
        )
    elif document.get("error") is not None and "data" not in document:
        yield _platform_error(document["error"])
    elif "code" in document and ("data" in document or "message" in document):
        yield from _open_tiktok(document, pull)
    elif type(rows := document.get("data")) is list or type(rows := document.get("results")) is list:
        yield from _rows(rows, pull)
    elif type(page := document.get("data")) is dict and "list" in page:
        yield from _open_tiktok(document, pull)
    elif document and GOOGLE_PAGE_MARKS.issuperset(document):
        yield EMPTY
    else:
        yield Found(document, pull)


def _open_message(document: Row, pull: Pull) -> Found:
    """A ``RECORD`` of Airbyte's protocol (stream and data within ``record``) or of Singer's (stream beside it)."""
    record = document.get("record")
    if type(record) is dict and "stream" not in document and "data" in record:
        return _enveloped(record["data"], record.get("stream"), record.get("emitted_at"), "emitted_at", pull)
    return _enveloped(record, document.get("stream"), document.get("time_extracted"), "time_extracted", pull)


def _enveloped(row: object, stream: object, pulled: object, field: str, pull: Pull) -> Found:
    if type(row) is not dict:
        raise Refused(RejectCode.WRONG_TYPE, f"the envelope's row must be an object, not {show(row)}")
    if stream is not None and type(stream) is not str:
        raise Refused(RejectCode.WRONG_TYPE, f"the envelope's stream must be a text, not {show(stream)}")
    observed = pull.observed_ms if pulled is None else instant_of(pulled, field)
    return Found(row, Pull(stream or "", observed, pull.accounts, pull.account_hint), enveloped=True)


def _open_tiktok(document: Row, pull: Pull) -> Iterator[Opened]:
    code = document.get("code", 0)
    if code not in (0, "0") or type(code) is bool:
        yield Rejection(
            RejectCode.PLATFORM_ERROR, f"the platform answered with error code {show(code)} instead of a report"
        )
        return
    page = document.get("data")
    rows = page.get("list") if type(page) is dict else None
    if page is not None and type(page) is not dict:
        yield Rejection(RejectCode.WRONG_TYPE, f"the answer's data must be an object, not {show(page)}")
    elif rows is None:
        yield EMPTY
    elif type(rows) is not list:
        yield Rejection(RejectCode.WRONG_TYPE, f"the answer's data.list must be a list, not {show(rows)}")
    else:
        yield from _rows(rows, pull)


def _rows(rows: list[object], pull: Pull) -> Iterator[Opened]:
    if not rows:
        yield EMPTY
    for row in rows:
        if type(row) is dict:
            yield Found(row, pull)
        else:
            yield Rejection(RejectCode.NOT_AN_OBJECT, f"a report's row must be an object, not {show(row)}")


def _platform_error(error: object) -> Rejection:
    # The message is left out: platforms write tokens and addresses into it.
    named = (
        ", ".join(f"{name} {show(error[name])}" for name in ERROR_NAMES if name in error) if type(error) is dict else ""
    )
    return Rejection(
        RejectCode.PLATFORM_ERROR, f"the platform answered with an error ({named or 'no code'}) instead of a report"
    )
