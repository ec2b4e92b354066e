"""Daily history from files, for judging and training: who showed how much on which day, and how much was clicked.

Tables are CSV, or JSON lines with flat objects: columns for the date, impressions, clicks and, where there are any,
the platform and the series. Other JSON is read as rows for the pipeline and computed exactly as workers do. Either
may be gzip.
"""

import csv
import gzip
import io
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from math import exp, log
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import orjson

from core.aggregate import Aggregate
from core.ingest import Ingest
from core.learning.backtest import History, history
from core.profile import Profile
from schemas import topics
from schemas.metrics import CLICKS, IMPRESSIONS, MAX_COUNT
from schemas.platform import Platform
from schemas.rollup import Rollup
from stream_app import files
from stream_app.errors import SetupError

DATES: Final = ("date", "day", "date_start", "segments.date", "stat_time_day")
SERIES: Final = ("series_id", "series")
CAMPAIGNS: Final = ("campaign_id", "campaign.id", "campaign")
PARTS: Final = (
    *("ad_group_id", "adgroup_id", "ad_group.id", "ad_group", "adset_id", "ad_set_id", "adset"),
    *("ad_id", "ad", "keyword_id", "keyword", "criterion_id", "creative_id", "asset_id"),
)
"""What a campaign's rows are of, where they are of less than a campaign."""
NOT_SERIES: Final = ("event_id", "account_id", "customer_id", "advertiser_id")
NAMES: Final = {
    Platform.GOOGLE_ADS: ("google", "adwords"),
    Platform.META: ("meta", "facebook", "instagram"),
    Platform.TIKTOK: ("tiktok",),
}
EPOCH: Final = date(1970, 1, 1).toordinal()
ARRIVAL_MS: Final = 4_000_000_000_000
"""After every row: history is never too early or too late."""


class DailyRows(msgspec.Struct):
    """Columns of equal length. ``day`` counts dates as ``date.toordinal`` does. ``told_by``: the columns of tables that
    make a series.
    """

    day: list[int] = []
    platform: list[str] = []
    series: list[str] = []
    impressions: list[int] = []
    clicks: list[int] = []
    told_by: tuple[str, ...] | None = None

    @property
    def repeated(self) -> int:
        """How many rows are of a date, platform and series of which there was one before."""
        return len(self.day) - len(set(zip(self.day, self.platform, self.series, strict=True)))

    @property
    def beyond(self) -> int:
        """How many rows have more clicks than impressions."""
        return sum(clicks > shown for clicks, shown in zip(self.clicks, self.impressions, strict=True))

    def oddities(self) -> list[str]:
        """What is made of rows that are repeated or odd, in sentences."""
        told = []
        if self.repeated:
            other = "; --series names other columns" if self.told_by else ""
            told.append(f"{self.repeated:,} rows were added to another one of their date, platform and series{other}")
        if self.beyond:
            told.append(f"{self.beyond:,} rows with more clicks than impressions were taken to have as many")
        return told


class Columns(msgspec.Struct, frozen=True):
    """Which columns of a table hold what. Without ``platform`` the file's rows are all ``of``."""

    date: str
    series: tuple[str, ...]
    platform: str | None
    of: Platform


def read(
    paths: Sequence[Path], ingest: Ingest, series: Sequence[str] = (), platform: Platform | None = None
) -> DailyRows:
    """The rows of all files. ``series`` names the columns that make a series, ``platform`` whose rows are that name
    none: by default the one platform that the files' names speak of.

    Raises ``SetupError`` for a file that is absent, of no known kind or unsound, and for a row that cannot be used.
    """
    rows = DailyRows()
    named = {platform_named(path.name) for path in paths} - {Platform.UNKNOWN}
    of = named.pop() if platform is None and len(named) == 1 else platform
    for path in paths:
        kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
        if kind not in ("csv", "jsonl", "ndjson", "json"):
            raise SetupError(f"{path}: history is read from .csv, .jsonl, .ndjson, .json, or .gz of these")
        if not path.is_file():
            raise SetupError(f"{path}: there is no such file")
        before = len(rows.day)
        if kind == "csv":
            _table(path, _csv(path), rows, series, of)
        elif _is_flat(path):
            _table(path, _flat(path), rows, series, of)
        else:
            _pipeline(path, ingest, rows, platform)
        if len(rows.day) == before:
            raise SetupError(f"{path}: holds no row with a date, impressions and clicks")
    return rows


def in_windows(rows: DailyRows, profile: Profile, first: int, days: int) -> History:
    """The rows in windows of so many days, the one that begins with the day ``first`` being 0."""
    ideals = {str(platform): float(bands.ctr.ideal or 0) for platform, bands in profile.platforms.items()}
    middle = exp(sum(map(log, ideals.values())) / len(ideals))
    windows = np.floor_divide(np.array(rows.day, dtype=np.int64) - first, days)
    keys = list(zip(rows.platform, rows.series, strict=True))
    shown, clicked = (np.array(counts, dtype=np.float64) for counts in (rows.impressions, rows.clicks))
    return history(windows, keys, shown, clicked, {name: ideals.get(name, middle) for name in set(rows.platform)})


def between(rows: DailyRows, first: int | None, end: int | None) -> DailyRows:
    """The rows of the days from ``first`` up to ``end``, which is not among them."""
    kept = [at for at, day in enumerate(rows.day) if (first is None or day >= first) and (end is None or day < end)]
    return DailyRows(
        [rows.day[at] for at in kept],
        [rows.platform[at] for at in kept],
        [rows.series[at] for at in kept],
        [rows.impressions[at] for at in kept],
        [rows.clicks[at] for at in kept],
        rows.told_by,
    )


def _csv(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    try:
        with path.open("rb") as raw, io.TextIOWrapper(_opened(path, raw), "utf-8-sig", newline="") as text:
            lines = csv.reader(text)
            head = [_column(name) for name in next(lines, [])]
            if len(set(head)) != len(head):
                raise SetupError(f"{path}: a column stands twice in its first line")
            for values in lines:
                if values:
                    if len(values) != len(head):
                        raise SetupError(
                            f"{path}, line {lines.line_num}: {len(values)} values under {len(head)} columns"
                        )
                    yield lines.line_num, dict(zip(head, values, strict=True))
    except UnicodeDecodeError:
        raise SetupError(f"{path}: is not UTF-8 text") from None
    except csv.Error as error:
        raise SetupError(f"{path}, line {lines.line_num}: {error}") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise SetupError(f"{path}: not sound gzip: {error}") from None
    except OSError as error:
        raise SetupError(f"{path}: {error.strerror or error}") from None


def _opened(path: Path, raw: io.BufferedReader) -> io.BufferedReader:
    return io.BufferedReader(gzip.GzipFile(fileobj=raw)) if path.name.lower().endswith(".gz") else raw


def _flat(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    for number, (record, _) in enumerate(files.records(path), start=1):
        try:
            row = orjson.loads(record)
        except orjson.JSONDecodeError as error:
            raise SetupError(f"{path}, record {number}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise SetupError(f"{path}, record {number}: not an object")
        yield number, {_column(name): value for name, value in row.items()}


def _column(name: str) -> str:
    return name.strip().lower().replace(" ", "_")


def _is_flat(path: Path) -> bool:
    """Whether the first record is a row of a table: a canonical event and every platform's own row say more."""
    for record, _ in files.records(path):
        try:
            row = orjson.loads(record)
        except orjson.JSONDecodeError as error:
            raise SetupError(f"{path}, record 1: not JSON: {error}") from None
        if not isinstance(row, dict):
            return False
        names = set(map(_column, row))
        return {"date", "impressions", "clicks"} <= names and "version" not in names
    raise SetupError(f"{path}: holds no record")


def _table(
    path: Path,
    found: Iterator[tuple[int, Mapping[str, object]]],
    rows: DailyRows,
    series: Sequence[str],
    platform: Platform | None,
) -> None:
    columns: Columns | None = None
    days: dict[str, int] = {}
    for line, row in found:
        if columns is None:
            columns = _columns(path, row, series, platform)
            if rows.told_by not in (None, columns.series):
                both = " and ".join("/".join(one) or "platform" for one in (rows.told_by or (), columns.series))
                raise SetupError(f"{path}: the files tell their series by {both}: name the columns with --series")
            rows.told_by = columns.series
        try:
            text = str(row[columns.date])
            day = days.get(text) or days.setdefault(text, _day(text))
            impressions, clicks = _count(row, "impressions"), _count(row, "clicks")
            name = "/".join(_part(row, column) for column in columns.series)
            of = columns.of if columns.platform is None else platform_named(str(row[columns.platform]))
        except KeyError as error:
            raise SetupError(f"{path}, line {line}: has no {error.args[0]}") from None
        except ValueError as error:
            raise SetupError(f"{path}, line {line}: {error}") from None
        _add(rows, day, str(of), name, impressions, clicks)


def _part(row: Mapping[str, object], column: str) -> str:
    value = row[column]
    part = "" if value is None else str(value).strip()
    if not part:
        raise ValueError(f"{column} is empty")
    return part


def _columns(path: Path, row: Mapping[str, object], series: Sequence[str], platform: Platform | None) -> Columns:
    dated = next((name for name in DATES if name in row), None)
    if dated is None or "impressions" not in row or "clicks" not in row:
        raise SetupError(f"{path}: needs the columns date, impressions and clicks; it has {', '.join(row) or 'none'}")
    named = tuple(map(_column, series))
    if absent := [name for name in named if name not in row]:
        raise SetupError(f"{path}: has no column {absent[0]}; it has {', '.join(row)}")
    own = "platform" if "platform" in row else None
    if not named:
        ids = [name for name in row if name.endswith("_id") and name not in NOT_SERIES]
        known = [name for name in SERIES if name in row][:1]
        campaigns = [name for name in CAMPAIGNS if name in row][:1]
        parts = [name for name in PARTS if name in row]
        texts = [name for name, value in row.items() if name not in (dated, own) and not _is_number(value)]
        named = tuple(known or campaigns + parts or ids or texts or [name for name in ("id",) if name in row])
    if not named and own is None:
        raise SetupError(f"{path}: nothing tells its series apart: name their columns with --series")
    return Columns(dated, named, own, platform or platform_named(path.name))


def platform_named(text: str) -> Platform:
    """The platform that a name such as ``Google Ads`` or ``adwords_daily.csv`` speaks of, or ``UNKNOWN``."""
    lower = text.lower()
    return next((of for of, marks in NAMES.items() if any(mark in lower for mark in marks)), Platform.UNKNOWN)


def _day(text: str) -> int:
    try:
        return date.fromisoformat(text.strip()[:10]).toordinal()
    except ValueError:
        raise ValueError(f"the date must be like 2026-01-31, not {text[:40]!r}") from None


def _count(row: Mapping[str, object], name: str) -> int:
    value = row[name]
    try:
        number = -1.0 if isinstance(value, bool) else float(str(value))
    except ValueError:
        number = -1.0
    if not (0 <= number <= MAX_COUNT and number.is_integer()):
        raise ValueError(f"{name} must be a whole number of at least 0, not {str(value)[:40]!r}")
    return int(number)


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True


def _pipeline(path: Path, ingest: Ingest, rows: DailyRows, platform: Platform | None) -> None:
    """Rows for the pipeline, through ingest and aggregate: a row for each platform campaign and day."""
    whose, found = platform, files.arrivals(path, ARRIVAL_MS)
    if whose is None:
        whose, found = files.probe(path, found)
    aggregate = Aggregate()
    ingested = ingest.batch(topics.METRICS_TOPICS[whose], 0, list(found), -1)
    for offset, (_, payload) in enumerate(ingested.envelopes):
        aggregate.apply(offset, payload)
    if not ingested.envelopes and ingested.rejected:
        raise SetupError(f"{path}: no row can be used: {ingested.rejected[0].letter.sentence}")
    for message in _rollups(aggregate.take_writes(publish=True)[1]):
        _add_rollup(rows, message, message.platform_campaign_id)


def linked(aggregate: Aggregate) -> DailyRows:
    """What an aggregate holds: a row for each platform campaign and day, its series the campaign that it belongs to."""
    rows = DailyRows()
    for message in _rollups(aggregate.take_writes(publish=True)[1]):
        _add_rollup(rows, message, message.campaign_id)
    return rows


def _rollups(messages: Iterable[object]) -> Iterator[Rollup]:
    for message in messages:
        if isinstance(message, Rollup):
            yield message


def _add_rollup(rows: DailyRows, message: Rollup, series: str) -> None:
    values = () if message.day_totals is None else message.day_totals.values
    if values and values[IMPRESSIONS]:
        shown, clicks = values[IMPRESSIONS] or 0, values[CLICKS] or 0
        _add(rows, EPOCH + message.day, str(message.platform), series, shown, clicks)


def _add(rows: DailyRows, day: int, platform: str, series: str, impressions: int, clicks: int) -> None:
    rows.day.append(day)
    rows.platform.append(platform)
    rows.series.append(series)
    rows.impressions.append(impressions)
    rows.clicks.append(clicks)
