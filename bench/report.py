"""What a benchmark says: each run, the medians, and the ratio of the two rates."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table

from bench.trial import Measured

WANTED: Final = 20
"""The ratio to the plain agent that Parallax promises."""
SIDES: Final = {
    "parallax": "Parallax",
    "plain": "plain Faust",
    "plain_sending": "plain, one send an event",
}
LESS_WORK: Final = (
    "Parallax does more for each event: it validates it, counts its id once, keeps hours and days apart, and publishes"
    " insights and predictions, to Redis too. The plain agent does none of this; it keeps one sum."
)


class Spread(msgspec.Struct, frozen=True):
    """Of several runs."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One of the alternating runs."""

    parallax: Measured
    plain: Measured
    plain_sending: Measured


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All runs of a benchmark."""

    runs: list[Run]
    mean_event_bytes: float
    partitions: int
    cores: int

    def side(self, name: str) -> list[Measured]:
        """One side's measurements, by run."""
        return [getattr(run, name) for run in self.runs]

    def rate(self, name: str) -> Spread:
        """A side's events per second."""
        return Spread.of([measured.rate for measured in self.side(name)])

    def ratio(self, name: str) -> Spread:
        """How many times a side's rate that of Parallax is, both taken from the same run."""
        return Spread.of([run.parallax.rate / getattr(run, name).rate for run in self.runs])

    @property
    def wrong(self) -> list[str]:
        """What is not right in any of the results."""
        return [sentence for name in SIDES for measured in self.side(name) for sentence in measured.wrong]


def as_json(report: Report) -> bytes:
    """One object; rates in events per second."""
    body: dict[str, Any] = {
        "ok": not report.wrong,
        "wrong": report.wrong,
        "cores": report.cores,
        "partitions": report.partitions,
        "mean_event_bytes": round(report.mean_event_bytes, 1),
        "rate": {name: report.rate(name) for name in SIDES},
        "ratio": {name: report.ratio(name) for name in SIDES if name != "parallax"},
        "wanted_ratio": WANTED,
        "runs": report.runs,
        "note": LESS_WORK,
    }
    return msgspec.json.encode(body)


def show(report: Report, console: Console) -> None:
    """The table."""
    table = Table(
        title=f"Catch-up: events of {report.mean_event_bytes:.0f} bytes, {report.partitions} partitions,"
        f" {report.cores} cores, {len(report.runs)} runs"
    )
    table.add_column("")
    for title in SIDES.values():
        table.add_column(title, justify="right")
    sides = {name: report.side(name) for name in SIDES}
    rates = {name: report.rate(name) for name in SIDES}
    ratios = {name: report.ratio(name) for name in SIDES}
    rows: dict[str, Callable[[str], str]] = {
        "events": lambda name: f"{sides[name][0].events:,}",
        "events/s, median": lambda name: f"{rates[name].median:,.0f}",
        "min–max": lambda name: f"{rates[name].least:,.0f}–{rates[name].most:,.0f}",
        "events per CPU second": lambda name: (
            f"{statistics.median([one.events / one.cpu_seconds for one in sides[name]]):,.0f}"
        ),
        "peak MiB": lambda name: f"{max(one.peak_rss_bytes for one in sides[name]) >> 20:,}",
        "load average": lambda name: f"{max(one.load for one in sides[name]):.1f}",
        "Parallax / this, median": lambda name: f"{ratios[name].median:.1f}",
        "min–max of that": lambda name: f"{ratios[name].least:.1f}–{ratios[name].most:.1f}",
    }
    for measure, cell in rows.items():
        table.add_row(measure, *(cell(name) for name in SIDES))
    console.print(table)
    console.print(LESS_WORK)
    median = report.ratio("plain").median
    console.print(
        f"Ratio {median:.1f}; {WANTED} or more are promised." + ("" if median >= WANTED else " It is missed.")
    )
    for sentence in report.wrong:
        console.print(f"wrong: {sentence}", style="red")
