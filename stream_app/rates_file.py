"""Exchange rates from a file: JSON lines as on the topic, or CSV with the columns date, currency, per and rate."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from schemas.event import Rejection
from schemas.rate import decode_rate, rate_fact
from schemas.rollup import RateFact
from stream_app.errors import SetupError

COLUMNS: Final = ("date", "currency", "per", "rate")
LONGEST_LINE: Final = 65_536


def read_rates(path: Path) -> tuple[RateFact, ...]:
    """The rates of a file. Of two for one currency and date the later ``updated_at`` holds.

    Raises ``SetupError`` that names the line which is no rate.
    """
    if path.suffix.lower() not in (".csv", ".jsonl", ".ndjson"):
        raise SetupError(f"{path}: rates are read from .csv, .jsonl or .ndjson")
    try:
        return tuple(_from_csv(path) if path.suffix.lower() == ".csv" else _from_lines(path))
    except OSError as error:
        raise SetupError(f"{path}: {error.strerror or error}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise SetupError(f"{path}: {error}") from None


def _from_csv(path: Path) -> Iterator[RateFact]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        if missing := [column for column in COLUMNS if column not in (rows.fieldnames or ())]:
            raise SetupError(f"{path}: the first line must name the columns {', '.join(COLUMNS)}; {missing[0]} is not")
        for row in rows:
            date, currency, per, rate = ((row[column] or "").strip() for column in COLUMNS)
            try:
                yield rate_fact(date, currency, per, rate, 0)
            except ValueError as error:
                raise SetupError(f"{path} line {rows.line_num}: {error}") from None


def _from_lines(path: Path) -> Iterator[RateFact]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            outcome = decode_rate(None, line.strip(), arrival_ms=0, max_bytes=LONGEST_LINE)
            if isinstance(outcome, Rejection):
                raise SetupError(f"{path} line {number}: {outcome.sentence}")
            if isinstance(outcome, RateFact):
                yield outcome
