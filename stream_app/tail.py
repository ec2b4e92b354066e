"""Print a topic live: one line a record, as JSON or for a person.

Every partition is read, without a consumer group. Records are taken as they are: one that is no JSON, or lacks a
field, still gives its line, and no control character of theirs reaches the terminal.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, Protocol, TextIO

import orjson
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from schemas import dead_letter
from stream_app.errors import ServerAbsent, SetupError

Format = Literal["text", "json"]
MICROS: Final = 1_000_000
_LONGEST_EXCERPT: Final = 80
_READY_S: Final = 10.0


class Record(Protocol):
    """What is read of a consumer's record."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


async def tail(
    topic: str,
    *,
    config: Mapping[str, Any],
    from_beginning: bool,
    limit: int | None,
    out: TextIO,
    style: Format = "text",
) -> int:
    """Print records until ``limit``, until cancelled, or until nobody reads ``out``; return how many.

    ``config`` is that of aiokafka's consumer. Raises ``ServerAbsent`` where Kafka does not answer and ``SetupError``
    where the topic does not exist.
    """
    servers = config.get("bootstrap_servers", "no address")
    start = "earliest" if from_beginning else "latest"
    consumer = AIOKafkaConsumer(**{**config, "enable_auto_commit": False, "group_id": None, "auto_offset_reset": start})
    try:
        try:
            await consumer.start()
            # Of all topics: asking for one by name would create it on brokers that do so.
            existing = await consumer.topics()
        except (KafkaError, OSError) as error:
            raise ServerAbsent(
                f"Kafka at {servers} does not answer ({error}): start it or set PARALLAX_KAFKA_BOOTSTRAP"
            ) from None
        if topic not in existing:
            raise SetupError(f"topic {topic} does not exist: run `parallax topics create`")
        consumer.subscribe([topic])
        try:
            async with asyncio.timeout(_READY_S):
                await _positioned(consumer)
        except TimeoutError:
            raise ServerAbsent(f"Kafka at {servers} gives no position in topic {topic}: is a broker down?") from None
        try:
            return await _print(consumer, limit, out, style)
        except KafkaError as error:
            raise ServerAbsent(f"Kafka at {servers} refuses topic {topic}: {error}") from None
    finally:
        await consumer.stop()


async def _positioned(consumer: AIOKafkaConsumer) -> None:
    """Waits until the start of every partition is known, so that what comes after is printed."""
    while not consumer.assignment():  # noqa: ASYNC110 aiokafka announces this in no other way
        await asyncio.sleep(0.02)
    await asyncio.gather(*map(consumer.position, consumer.assignment()))


async def _print(consumer: AIOKafkaConsumer, limit: int | None, out: TextIO, style: Format) -> int:
    render = as_json if style == "json" else as_text
    printed = 0
    try:
        while limit is None or printed < limit:
            batches = await consumer.getmany(timeout_ms=1000, max_records=None if limit is None else limit - printed)
            for records in batches.values():
                for record in records:
                    print(render(record), file=out)
                    printed += 1
            out.flush()
    except BrokenPipeError:
        return printed
    return printed


def as_json(record: Record) -> str:
    """One line of JSON: the value, a dead letter's description with its ``key`` and ``payload``, or ``{"raw"}``,
    ``{"tombstone"}``.
    """
    letter = _letter(record)
    if letter is not None:
        return _line({**letter, "key": _text(record.key), "payload": _text(record.value)})
    if record.value is None:
        return _line({"tombstone": _text(record.key)})
    try:
        return _line(orjson.loads(record.value))
    except orjson.JSONDecodeError:
        return _line({"raw": _text(record.value)})


def as_text(record: Record) -> str:
    """One compact line for a person."""
    letter = _letter(record)
    if letter is not None:
        line = _dead_letter(letter, record)
    elif record.value is None:
        line = f"withdrawn   {_text(record.key)}"
    else:
        line = _known(record.value)
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)


def _known(value: bytes) -> str:
    try:
        body = orjson.loads(value)
    except orjson.JSONDecodeError:
        body = None
    if isinstance(body, dict):
        for mark, render in _RENDERERS.items():
            if mark in body:
                return render(body)
    return _excerpt(value, 2 * _LONGEST_EXCERPT)


def _insight(body: dict[str, Any]) -> str:
    totals = _object(body.get("totals"))
    version = _object(body.get("version"))
    return "  ".join(
        (
            f"{_short(body.get('phase')):<11} {_short(body.get('campaign_id')):<24} {_short(body.get('window')):>4}",
            f"{_short(body.get('window_start'))}  r{_short(version.get('revision'))}",
            f"impressions {_count(totals.get('impressions'))}  clicks {_count(totals.get('clicks'))}",
            f"spend {_money(totals)}  ROAS {_number(body.get('roas'), '.2f')}",
            f"best {_short(body.get('best_platform'))}  consistency {_number(body.get('consistency_score'), '.2f')}",
        )
    )


def _prediction(body: dict[str, Any]) -> str:
    scope = [_rate(_short(body.get("platform")) if body.get("platform") else "all", body)]
    scope += [_rate(name, _object(rate)) for name, rate in _object(body.get("platforms")).items()]
    return "  ".join(
        (
            f"{_short(body.get('campaign_id')):<24} {_short(body.get('window')):>4}",
            f"from {_short(body.get('label_start'))}",
            f"CTR  {'  '.join(scope)}  by {_short(body.get('source'))}",
            *([f"model refused: {_short(refused)}"] if (refused := body.get("model_refused")) else []),
        )
    )


def _dead_letter(letter: dict[str, Any], record: Record) -> str:
    source = _object(letter.get("source"))
    place = "/".join(_short(source.get(part)) for part in ("topic", "partition", "offset", "index"))
    payload = "" if record.value is None else f"  | {_excerpt(record.value, _LONGEST_EXCERPT)}"
    return f"{_short(letter.get('code')):<18} {place}  {_short(letter.get('sentence'))}{payload}"


_RENDERERS: Final[dict[str, Callable[[dict[str, Any]], str]]] = {
    "insight_id": _insight,
    "prediction_id": _prediction,
    "rate": _prediction,
}


def _letter(record: Record) -> dict[str, Any] | None:
    """A dead letter's description: in its header, or in the value of a record that is one."""
    described = next((value for name, value in record.headers if name == dead_letter.HEADER), None)
    if described is None:
        return None
    try:
        return _object(orjson.loads(described))
    except orjson.JSONDecodeError:
        return {}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _short(value: Any) -> str:
    return "-" if value is None else str(value)


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "-"


def _number(value: Any, spelling: str) -> str:
    return format(value, spelling) if isinstance(value, int | float) else "-"


def _rate(name: str, rate: dict[str, Any]) -> str:
    point, low, high = (_number(rate.get(part), ".3%") for part in ("rate", "low", "high"))
    return f"{name} {point} [{low}, {high}]"


def _money(totals: dict[str, Any]) -> str:
    several = totals.get("money")
    entries = [_object(one) for one in several] if isinstance(several, list) and several else [totals]
    spent = (
        f"{entry['spend_micros'] / MICROS:,.2f} {entry.get('currency') or ''}".strip()
        for entry in entries
        if isinstance(entry.get("spend_micros"), int)
    )
    return " + ".join(spent) or "-"


def _excerpt(value: bytes, length: int) -> str:
    text = _text(value[: 4 * length]) or ""
    return text if len(text) <= length else text[: length - 1] + "…"


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")


def _line(value: Any) -> str:
    return orjson.dumps(value).decode()
