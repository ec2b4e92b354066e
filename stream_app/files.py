"""Records from files, as they are published: every one byte for byte as it stands in its file, and its Kafka key.

``.jsonl`` and ``.ndjson`` hold a record a line (a line without any byte is none), ``.json`` one record, or one for
each element of a top-level array; ``.gz`` of either; ``-`` is lines on standard input. Unsound records are records
too: the pipeline dead-letters them.
"""

import gzip
import sys
import zlib
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, Final, Literal

import msgspec
import orjson

from schemas.decode import Reader, decode_record
from schemas.event import MetricEvent, Rejection
from schemas.platform import Platform
from stream_app.errors import SetupError

ACCOUNT_HEADER: Final = "parallax-account"
Source = Path | Literal["-"]

# ``.`` goes into an object. Rows of Airbyte lie under ``data``, those of Singer under ``record``.
CAMPAIGN_PATHS: Final = (
    "campaign_id",  # canonical events, Meta, Singer
    "dimensions.campaign_id",  # TikTok, campaign level
    "metrics.campaign_id",  # TikTok, ad and ad group level
    "campaign.id",  # Google Ads, REST; the flat key of the same name is looked up first
)
ROWS_PATHS: Final = ("data", "data.list", "results")
ACCOUNT_MARKS: Final = frozenset({"version", "platform", "account_id"})
NO_ACCOUNT_MARKS: Final = frozenset({"kind", "campaign_id"})
CREATIVE_MARKS: Final = frozenset({"version", "creative_id"})
NO_CREATIVE_MARKS: Final = frozenset({"kind", "campaign_id", "platform"})
REPORTING: Final = (Platform.META, Platform.TIKTOK, Platform.GOOGLE_ADS)
NAME_MARKS: Final = {Platform.META: "meta", Platform.TIKTOK: "tiktok", Platform.GOOGLE_ADS: "google"}
PROBED: Final = 500
"""So many of a file's records are read to tell its platform."""
PROBED_BYTES: Final = 64 * 1024 * 1024
"""A record beyond the payload limit still tells."""

_LINES: Final = (".jsonl", ".ndjson")


class FileRecord(msgspec.Struct):
    """A record as ``core.ingest`` takes it. ``place`` is the file's name, ``number`` counts its records from 1."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    place: str
    number: int


def check(sources: Sequence[Source]) -> None:
    """Raises ``SetupError`` for a file that is absent or of no known kind, and for standard input named twice."""
    for source in sources:
        if source == "-":
            continue
        if _kind(source) is None:
            raise SetupError(f"{source}: rows are read from .jsonl, .ndjson, .json, .gz of these, or - for stdin")
        if not source.is_file():
            raise SetupError(f"{source}: there is no such file")
    if list(sources).count("-") > 1:
        raise SetupError("standard input (-) can be read only once")


def records(source: Source) -> Iterator[tuple[bytes, int]]:
    """Each record with the bytes of the file, as it lies on disk, that have been taken with it.

    Raises ``SetupError`` like ``check``, for a file that cannot be read, and where a gzip file is unsound.
    """
    check([source])
    if source == "-":
        yield from _lines(sys.stdin.buffer, None)
        return
    try:
        yield from _of_file(source)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise SetupError(f"{source}: not sound gzip, read up to there: {error}") from error
    except OSError as error:
        raise SetupError(f"{source}: {error.strerror or error}") from error


def key_of(record: bytes) -> bytes | None:
    """The Kafka key of a record: its campaign, where it is JSON that names exactly one at a known place.

    Facts, whose topics are compacted, get what they are of: ``platform:platform campaign id`` of a link,
    ``currency:date`` of an exchange rate, ``platform:account`` of an account, the creative's own id of a creative.
    """
    try:
        body = orjson.loads(record)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(body, dict):
        return None
    if (link := _id(body.get("platform_campaign_id"))) and isinstance(body.get("platform"), str):
        return f"{body['platform']}:{link}".encode()
    if "rate" in body and isinstance(body.get("currency"), str) and isinstance(body.get("date"), str):
        return f"{body['currency']}:{body['date']}".encode()
    if body.keys() >= ACCOUNT_MARKS and not NO_ACCOUNT_MARKS & body.keys():
        return f"{body['platform']}:{body['account_id']}".encode()
    if body.keys() >= CREATIVE_MARKS and not NO_CREATIVE_MARKS & body.keys():
        creative = body["creative_id"]
        return creative.encode("utf-8", "surrogatepass") if isinstance(creative, str) and creative else None
    campaigns = {_campaign(row) for row in _rows(body)}
    campaign = campaigns.pop() if len(campaigns) == 1 else None
    return campaign.encode() if campaign else None


def arrivals(source: Source, arrival_ms: int, account: str = "", first_offset: int = 0) -> Iterator[FileRecord]:
    """A file's records as if they had been published, and had all arrived at one moment (UTC milliseconds)."""
    headers = [(ACCOUNT_HEADER, account.encode())] if account else []
    place = "stdin" if source == "-" else str(source)
    for index, (record, _) in enumerate(records(source)):
        yield FileRecord(first_offset + index, arrival_ms, key_of(record), record, headers, place, index + 1)


def probe(source: Source, found: Iterator[FileRecord]) -> tuple[Platform, Iterator[FileRecord]]:
    """A file's platform, and its records from the first one on.

    It is the platform whose decoder gives the most events, then refuses the fewest rows, for the first ``PROBED``
    records. Where that leaves several, a name of the path that holds ``meta``, ``tiktok`` or ``google`` decides, the
    last one first. Canonical events fit each, and say their own. Raises ``SetupError`` when nothing tells.
    """
    head = list(islice(found, PROBED))
    fits = {platform: _fit(head, platform) for platform in REPORTING}
    best = max(fits.values())
    fitting = [platform for platform in REPORTING if fits[platform] == best]
    named = _named(source, fitting)
    if len(fitting) == 1:
        chosen = fitting[0]
    elif named is not None:
        chosen = named
    elif not head or _same_for_all(head, fitting):
        chosen = fitting[0]
    else:
        raise SetupError(f"{source}: nothing tells whose rows these are: say --platform meta, tiktok or google_ads")
    return chosen, chain(head, found)


def _outcomes(head: Sequence[FileRecord], platform: Platform) -> Iterator[object]:
    reader = Reader(platform=platform, max_bytes=PROBED_BYTES)
    for record in head:
        yield from decode_record(record.value, reader, arrival_ms=record.timestamp)


def _fit(head: Sequence[FileRecord], platform: Platform) -> tuple[int, int]:
    events = refused = 0
    for outcome in _outcomes(head, platform):
        events += isinstance(outcome, MetricEvent)
        refused += isinstance(outcome, Rejection)
    return events, -refused


def _same_for_all(head: Sequence[FileRecord], fitting: Sequence[Platform]) -> bool:
    """Whether every reader says the same of some usable rows."""
    said = [list(_outcomes(head, platform)) for platform in fitting]
    usable = any(not isinstance(outcome, Rejection) for outcome in said[0])
    return usable and all(other == said[0] for other in said[1:])


def _named(source: Source, fitting: Sequence[Platform]) -> Platform | None:
    if source == "-":
        return None
    for part in reversed(source.absolute().parts):
        named = [platform for platform in fitting if NAME_MARKS[platform] in part.lower()]
        if len(named) == 1:
            return named[0]
    return None


def _kind(path: Path) -> Literal["lines", "whole"] | None:
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(_LINES):
        return "lines"
    return "whole" if name.endswith(".json") else None


def _of_file(path: Path) -> Iterator[tuple[bytes, int]]:
    with path.open("rb") as raw:
        zipped = path.name.lower().endswith(".gz")
        body: IO[bytes] = gzip.GzipFile(fileobj=raw) if zipped else raw  # type: ignore[assignment]
        if _kind(path) == "lines":
            yield from _lines(body, raw if zipped else None)
        else:
            yield from _whole(body.read(), path.stat().st_size)


def _lines(body: IO[bytes], raw: IO[bytes] | None) -> Iterator[tuple[bytes, int]]:
    taken = 0
    for line in body:
        taken += len(line)
        record = line.removesuffix(b"\n").removesuffix(b"\r")
        if record:
            yield record, taken if raw is None else raw.tell()


def _whole(body: bytes, size: int) -> Iterator[tuple[bytes, int]]:
    try:
        elements = msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        yield body, size
        return
    for at, element in enumerate(elements, start=1):
        yield bytes(element), size * at // len(elements)


def _rows(body: dict[str, Any]) -> list[Any]:
    for path in ROWS_PATHS:
        rows = _at(body, path)
        if isinstance(rows, list):
            return rows
    for envelope in ("data", "record"):
        if isinstance(row := body.get(envelope), dict):
            return [row]
    return [body]


def _campaign(row: Any) -> str | None:
    if not isinstance(row, dict):
        return None
    for path in CAMPAIGN_PATHS:
        if found := _id(row.get(path)) or _id(_at(row, path)):
            return found
    return None


def _at(body: Any, path: str) -> Any:
    for name in path.split("."):
        body = body.get(name) if isinstance(body, dict) else None
    return body


def _id(value: Any) -> str | None:
    if isinstance(value, str):
        return value or None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None
