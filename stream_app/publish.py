"""Publish files of rows: idempotent producer, keyed by campaign, every record byte for byte as it stands in its file.

``.jsonl`` and ``.ndjson`` hold a record a line (a line without any byte is none), ``.json`` one record, or one for
each element of a top-level array; ``.gz`` of either; ``-`` is lines on standard input. Unsound records go out too:
the pipeline dead-letters them.
"""

import gzip
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, Literal

import msgspec
import orjson
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from stream_app.errors import ServerAbsent, SetupError

ACCOUNT_HEADER: Final = "parallax-account"
Source = Path | Literal["-"]
Progress = Callable[[int, int], None]
Headers = list[tuple[str, str | bytes | None]]

# ``.`` goes into an object. Rows of Airbyte lie under ``data``, those of Singer under ``record``.
CAMPAIGN_PATHS: Final = (
    "campaign_id",  # canonical events, Meta, Singer
    "dimensions.campaign_id",  # TikTok, campaign level
    "metrics.campaign_id",  # TikTok, ad and ad group level
    "campaign.id",  # Google Ads, REST; the flat key of the same name is looked up first
)
ROWS_PATHS: Final = ("data", "data.list", "results")

_LINES: Final = (".jsonl", ".ndjson")
_PROGRESS_EVERY: Final = 1000
_ABOUT_ONE_RECORD: Final = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD, KafkaError.INVALID_MSG})
_DEFAULTS: Final[dict[str, Any]] = {
    "linger.ms": 20,
    "message.timeout.ms": 30_000,
    "partitioner": "murmur2_random",
    "queue.buffering.max.messages": 100_000,
    "queue.buffering.max.kbytes": 262_144,
    "log_level": 0,
}
_REQUIRED: Final[dict[str, Any]] = {"enable.idempotence": True, "acks": "all"}


class PublishReport(msgspec.Struct, frozen=True):
    """Records acknowledged and not, and the bytes of the acknowledged values.

    ``reason`` is that of the first failure.
    """

    published: int
    failed: int
    bytes: int
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Whether every record arrived."""
        return not self.failed

    @property
    def sentence(self) -> str:
        """One line for a person."""
        if self.ok:
            return f"{self.published} records published"
        return f"{self.failed} records were not delivered, {self.published} were; the first failure: {self.reason}"


def publish(
    paths: Sequence[Source],
    *,
    config: Mapping[str, Any],
    topic: str,
    account: str = "",
    progress: Progress | None = None,
    timeout_seconds: float = 10.0,
) -> PublishReport:
    """Send every record of ``paths`` to ``topic`` and wait for the broker's word on each.

    ``config`` is librdkafka's and may override all but idempotence and acks. ``progress`` gets the records read and the
    bytes taken from the files, as they lie on disk. After a failure that is not one record's own (broker gone, not
    authorised) no more is read. Raises ``SetupError`` for a file that is absent, of no known kind or no sound gzip,
    and for an absent topic; ``ServerAbsent`` for an absent broker.
    """
    for path in paths:
        _check(path)
    producer = Producer({**_DEFAULTS, **config, **_REQUIRED})
    _find_topic(producer, topic, str(config.get("bootstrap.servers", "")), timeout_seconds)
    delivery = _Delivery()
    headers: Headers = [(ACCOUNT_HEADER, account.encode())] if account else []
    read = 0
    done_bytes = 0
    try:
        for path in paths:
            position = 0
            for record, position in _records(path):
                if delivery.broken:
                    break
                delivery.send(producer, topic, record, headers)
                read += 1
                if progress is not None and read % _PROGRESS_EVERY == 0:
                    progress(read, done_bytes + position)
            done_bytes += position
    finally:
        producer.flush()
    if progress is not None:
        progress(read, done_bytes)
    return PublishReport(delivery.published, delivery.failed, delivery.bytes, delivery.reason)


def key_of(record: bytes) -> bytes | None:
    """The Kafka key of a record: its campaign, where it is JSON that names exactly one at a known place.

    Campaign links, whose topic is compacted, get ``platform:platform campaign id``.
    """
    try:
        body = orjson.loads(record)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(body, dict):
        return None
    if (link := _id(body.get("platform_campaign_id"))) and isinstance(body.get("platform"), str):
        return f"{body['platform']}:{link}".encode()
    campaigns = {_campaign(row) for row in _rows(body)}
    campaign = campaigns.pop() if len(campaigns) == 1 else None
    return campaign.encode() if campaign else None


class _Delivery:
    """Counts what the broker says of each record."""

    def __init__(self) -> None:
        self.published = 0
        self.failed = 0
        self.bytes = 0
        self.reason = ""
        self.broken = False

    def send(self, producer: Producer, topic: str, record: bytes, headers: Headers) -> None:
        key = key_of(record)
        while not self.broken:
            try:
                producer.produce(topic, record, key, headers=headers, on_delivery=self._delivered)
            except BufferError:
                producer.poll(0.2)
            except KafkaException as error:
                self._fail(error.args[0])
                return
            else:
                producer.poll(0)
                return
        self.failed += 1

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._fail(error)
        else:
            self.published += 1
            self.bytes += len(message)

    def _fail(self, error: KafkaError) -> None:
        self.failed += 1
        self.reason = self.reason or " ".join(error.str().split())
        self.broken = self.broken or error.code() not in _ABOUT_ONE_RECORD


def _check(path: Source) -> None:
    if path == "-":
        return
    if _kind(path) is None:
        raise SetupError(f"{path}: rows are read from .jsonl, .ndjson, .json, .gz of these, or - for standard input")
    if not path.is_file():
        raise SetupError(f"{path}: there is no such file")


def _kind(path: Path) -> Literal["lines", "whole"] | None:
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(_LINES):
        return "lines"
    return "whole" if name.endswith(".json") else None


def _find_topic(producer: Producer, topic: str, servers: str, timeout_seconds: float) -> None:
    try:
        # Without a topic's name: asking for one by name would create it on brokers that do so.
        topics = producer.list_topics(timeout=timeout_seconds).topics
    except KafkaException as error:
        raise ServerAbsent(
            f"Kafka at {servers or 'no address'} does not answer ({error.args[0].str()}): start it or set"
            " PARALLAX_KAFKA_BOOTSTRAP"
        ) from None
    if topic not in topics:
        raise SetupError(f"topic {topic} does not exist: run `parallax topics create`")


def _records(path: Source) -> Iterator[tuple[bytes, int]]:
    """Each record with the bytes of the file, as it lies on disk, that have been taken with it."""
    if path == "-":
        yield from _lines(sys.stdin.buffer, None)
        return
    with path.open("rb") as raw:
        zipped = path.name.lower().endswith(".gz")
        body: IO[bytes] = gzip.GzipFile(fileobj=raw) if zipped else raw  # type: ignore[assignment]
        try:
            if _kind(path) == "lines":
                yield from _lines(body, raw if zipped else None)
            else:
                yield from _whole(body.read(), path.stat().st_size)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise SetupError(f"{path}: not sound gzip, read up to there: {error}") from error


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
