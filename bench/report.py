"""What a benchmark says: each run, the medians, and the ratio of the two rates."""

import statistics
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table

from bench.trial import Measured

WANTED: Final = 20
"""The ratio to the plain agent that Parallax promises."""
SIDES: Final = {
    "parallax": "Parallax worker, all of it",
    "plain": "plain Faust agent, no outputs",
    "plain_sending": "plain Faust agent, one send an event",
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
    for heading in ("events", "events/s", "min–max", "per CPU second", "MiB", "load", "Parallax / this", "min–max"):
        table.add_column(heading, justify="right")
    for name, title in SIDES.items():
        measured, rate = report.side(name), report.rate(name)
        per_cpu = statistics.median([one.events / one.cpu_seconds for one in measured])
        row = [
            title,
            f"{measured[0].events:,}",
            f"{rate.median:,.0f}",
            f"{rate.least:,.0f}–{rate.most:,.0f}",
            f"{per_cpu:,.0f}",
            f"{max(one.peak_rss_bytes for one in measured) >> 20:,}",
            f"{min(one.load for one in measured):.1f}–{max(one.load for one in measured):.1f}",
        ]
        if name != "parallax":
            ratio = report.ratio(name)
            row += [f"{ratio.median:.1f}", f"{ratio.least:.1f}–{ratio.most:.1f}"]
        table.add_row(*row)
    console.print(table)
    console.print(LESS_WORK)
    median = report.ratio("plain").median
    console.print(
        f"Ratio {median:.1f}; {WANTED} or more are promised." + ("" if median >= WANTED else " It is missed.")
    )
    for sentence in report.wrong:
        console.print(f"wrong: {sentence}", style="red")
