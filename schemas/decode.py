"""Total decoding: any bytes of an input record give metric events, stated reasons to ignore, or rejections."""

import json
from math import isfinite
from typing import Final, NoReturn

import msgspec
import orjson

from schemas import canonical, native_google, native_meta, native_tiktok
from schemas.calendar import Accounts
from schemas.event import Ignored, IgnoreReason, Outcome, RejectCode, Rejection
from schemas.native import Pull, Row
from schemas.platform import Platform
from schemas.refusal import Refused, show
from schemas.row_platform import is_report_row, platform_of
from schemas.shapes import Found, open_document

NATIVE: Final = {
    Platform.META: native_meta.to_event,
    Platform.TIKTOK: native_tiktok.to_event,
    Platform.GOOGLE_ADS: native_google.to_event,
}
NAMES: Final = {
    Platform.META: "Meta",
    Platform.TIKTOK: "TikTok",
    Platform.GOOGLE_ADS: "Google Ads",
}
CANONICAL_MARKS: Final = (b'"kind"', b'"version"')


class Reader(msgspec.Struct, frozen=True):
    """What decoding needs beside the payload. ``platform`` is the topic's; ``UNKNOWN`` trusts the rows' own columns."""

    platform: Platform
    accounts: Accounts = Accounts()
    max_bytes: int = 65_536
    max_rows: int = 10_000


def decode_record(payload: bytes | None, reader: Reader, *, arrival_ms: int, account_hint: str = "") -> list[Outcome]:
    """The outcomes of a record's rows, in order; at least one, and it never raises.

    ``arrival_ms`` is the record's own timestamp: when a row was observed, unless its envelope says so. ``account_hint``
    is the account of rows that name none.
    """
    if payload is None:
        return [Ignored(IgnoreReason.TOMBSTONE)]
    if len(payload) > reader.max_bytes:
        return [
            Rejection(
                RejectCode.OVERSIZE, f"the payload has {len(payload)} bytes; at most {reader.max_bytes} are taken"
            )
        ]
    if not payload or payload.isspace():
        return [Rejection(RejectCode.EMPTY, "the payload is empty; to say that there is nothing, send no value")]
    breach: msgspec.ValidationError | None = None
    if all(mark in payload for mark in CANONICAL_MARKS):
        try:
            wire = canonical.decoder.decode(payload)
        except msgspec.ValidationError as error:
            breach = error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # orjson, below, says why
        else:
            return [canonical.to_event(wire, reader.accounts, arrival_ms, account_hint)]
    try:
        document: object = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        return [_unparsable(payload, error)]
    if breach is not None and type(document) is dict and canonical.is_canonical(document):
        return [canonical.explain(breach, document)]
    outcomes: list[Outcome] = []
    for opened in open_document(document, Pull("", arrival_ms, reader.accounts, account_hint)):
        if len(outcomes) == reader.max_rows:
            return [
                Rejection(RejectCode.OVERSIZE, f"the record has more than {reader.max_rows} rows; send smaller pages")
            ]
        outcomes.append(_decode_row(opened, reader) if isinstance(opened, Found) else opened)
    return outcomes


def _decode_row(found: Found, reader: Reader) -> Outcome:
    row, pull = found.row, found.pull
    try:
        if canonical.is_canonical(row):
            return _decode_canonical(row, pull)
        return NATIVE[_platform(found, reader.platform)](row, pull)
    except Refused as refused:
        return refused.rejection


def _decode_canonical(row: Row, pull: Pull) -> Outcome:
    try:
        wire = msgspec.convert(row, canonical.CanonicalEvent)
    except msgspec.ValidationError as error:
        return canonical.explain(error, row)
    return canonical.to_event(wire, pull.accounts, pull.observed_ms, pull.account_hint)


def _platform(found: Found, expected: Platform) -> Platform:
    marked = platform_of(found.row)
    if marked is None:
        if expected is Platform.UNKNOWN:
            raise Refused(RejectCode.UNKNOWN_PLATFORM, "neither the topic nor the row's columns tell the platform")
        if not found.enveloped and not is_report_row(found.row):
            raise Refused(RejectCode.UNKNOWN_SHAPE, "neither a canonical event nor a report row of any platform")
        return expected
    if expected not in (marked, Platform.UNKNOWN):
        raise Refused(
            RejectCode.UNKNOWN_SHAPE,
            f"the row has the columns of {NAMES[marked]}, but the topic is of {NAMES[expected]}",
        )
    return marked


class _BadNumber(ValueError):
    """A number that JSON does not have, or that no double holds."""

    def __init__(self, code: RejectCode, text: str) -> None:
        super().__init__(f"the JSON holds {show(text)}, which is not a finite number")
        self.code = code


def _constant(text: str) -> NoReturn:
    raise _BadNumber(RejectCode.NOT_A_NUMBER, text)


def _number(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise _BadNumber(RejectCode.OUT_OF_RANGE, text)
    return number


def _unparsable(payload: bytes, error: orjson.JSONDecodeError) -> Rejection:
    """Why orjson refused. Only what it refused takes this slower way."""
    if "depth" in error.msg or "recursion" in error.msg.lower():
        return Rejection(RejectCode.TOO_DEEP, "the JSON is nested more than 1024 levels deep")
    try:
        text = payload.decode()
    except UnicodeDecodeError as bad:
        return Rejection(RejectCode.NOT_UTF8, f"the payload is not UTF-8 at byte {bad.start}")
    try:
        json.loads(text, parse_constant=_constant, parse_float=_number, parse_int=_number)
    except _BadNumber as bad_number:
        return Rejection(bad_number.code, str(bad_number))
    except (ValueError, RecursionError):
        pass
    return Rejection(RejectCode.MALFORMED_JSON, f"not JSON: {error.msg}")
