"""The demo's report: what it measured, as one object for machines and as a page for people."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, Literal

import msgspec
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from core.accounting import Accounting

INSIGHTS_SHOWN: Final = 22
PREDICTIONS_SHOWN: Final = 8
MISSES_SHOWN: Final = 3
PROBLEMS_SHOWN: Final = 8
STRIP_LEAST: Final = 13
STRIP_MOST: Final = 25
NAMES: Final = {"meta": "Meta", "tiktok": "TikTok", "google_ads": "Google"}
COLOURS: Final = {"meta": "blue", "tiktok": "magenta", "google_ads": "green"}


class PlatformLine(msgspec.Struct, frozen=True, kw_only=True):
    """One platform in an insight. ``ctr`` is a fraction, ``composite`` is 0 to 1, ``daily_ctr`` is oldest first."""

    platform: str
    impressions: int
    clicks: int
    ctr: float | None
    spend_micros: int | None = None
    currency: str | None = None
    composite: float | None = None
    daily_ctr: list[float | None] = []


class InsightLine(msgspec.Struct, frozen=True, kw_only=True):
    """One campaign's insight; ``roas_reason`` says why there is no ``roas``."""

    campaign: str
    window: str
    phase: str
    platforms: list[PlatformLine]
    best_platform: str | None = None
    consistency: float | None = None
    roas: float | None = None
    roas_reason: str | None = None
    window_end: str | None = None
    name: str = ""


class PredictionLine(msgspec.Struct, frozen=True, kw_only=True):
    """A predicted click rate with its 90% interval beside what then happened; rates are fractions."""

    campaign: str
    platform: str
    rate: float
    low: float
    high: float
    actual: float | None = None
    actual_impressions: int = 0
    inside: bool | None = None


class HotSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What Redis holds: keys by kind, their shortest and longest time to live in seconds, memory in bytes."""

    keys: dict[str, int]
    ttl_min_s: float | None = None
    ttl_max_s: float | None = None
    used_memory_bytes: int | None = None


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """How many events went through the whole pipeline in how long."""

    events: int
    seconds: float
    events_per_second: float


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds between a record's publication and the insight that counts it."""

    p50_ms: float
    p99_ms: float
    samples: int


class DemoReport(msgspec.Struct, frozen=True, kw_only=True):
    """All that a demo run shows. ``problems`` says, one sentence each, why it is not ``ok``."""

    ok: bool
    problems: list[str]
    seconds: float
    accounting: Accounting
    insights: list[InsightLine]
    predictions: list[PredictionLine]
    hot: HotSummary | None = None
    rate: Rate | None = None
    latency: Latency | None = None


def to_json(report: DemoReport) -> bytes:
    """The report as one JSON object on one line."""
    return msgspec.json.encode(report, order="deterministic")


def render(report: DemoReport, console: Console) -> None:
    """Print the report to the width and the character set of the console. Colour only repeats what is said."""
    page = _Page(console)
    page.verdict(report)
    page.accounting(report.accounting)
    page.insights(report.insights)
    page.predictions(report.predictions)
    page.machine(report)


def sparkline(series: Sequence[float | None], width: int, levels: str) -> str:
    """The last ``width`` values as blocks, None as a gap, on a scale of at least the mean and 30 % around it."""
    values = list(series[-width:])
    known = [value for value in values if value is not None]
    if not known:
        return " " * width
    mean = math.fsum(known) / len(known)
    low, high = min(*known, mean * 0.7), max(*known, mean * 1.3)
    top = len(levels) - 1
    cells = (" " if v is None else levels[round((v - low) / (high - low) * top) if high > low else 0] for v in values)
    return "".join(cells).rjust(width)


class _Page:
    """One rendering. Below 98 columns tables lose detail, below 74 they keep the essentials."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._wide = console.width >= 98
        self._narrow = console.width < 74
        self._plain = plain = console.options.ascii_only
        self._levels = "_.-=+*#@" if plain else "▁▂▃▄▅▆▇█"
        self._bar = "=" if plain else "█"
        self._dash = "-" if plain else "–"
        self._dot = " | " if plain else " · "
        self._marks = ("OK", "!!") if plain else ("✓", "✗")
        self._overflow: Literal["crop", "ellipsis"] = "crop" if plain else "ellipsis"
        self._strip = "[]-+o." if plain else "├┤─┼●·"

    def verdict(self, report: DemoReport) -> None:
        mark, style = (self._marks[0], "bold green") if report.ok else (self._marks[1], "bold red")
        verdict = "all checks passed" if report.ok else "FAILED"
        self._print(f"[{style}]{mark} Parallax demo: {verdict}[/]{self._dot}{report.seconds:.1f} s")
        for problem in report.problems[:PROBLEMS_SHOWN]:
            self._print(f"  [red]{self._marks[1]}[/] {self._text(problem)}")
        if len(report.problems) > PROBLEMS_SHOWN:
            self._print(f"  and {len(report.problems) - PROBLEMS_SHOWN} more")

    def accounting(self, books: Accounting) -> None:
        adds_up = books.adds_up
        dead, ignored = sum(books.dead_letters.values()), sum(books.ignored.values())
        state = "every row accounted for" if adds_up else f"{books.rows - books.accounted:+,} rows unaccounted for"
        mark = f"[green]{self._marks[0]}[/]" if adds_up else f"[bold red]{self._marks[1]}[/]"
        self._heading(f"Accounting  {books.records:,} records = {books.rows:,} rows  {mark} {state}")
        entries = [
            ("applied", books.applied, "green", ""),
            ("duplicate", books.duplicate, "cyan", ""),
            ("superseded", books.superseded, "cyan", ""),
            ("ignored", ignored, "yellow", _listed(books.ignored)),
            ("dead letters", dead, "red", _listed(books.dead_letters)),
        ]
        table = Table(box=None, show_header=False, padding=(0, 1), pad_edge=True)
        table.add_column(no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(no_wrap=False)
        room = max(8, self._console.width // 4)
        for label, count, colour, detail in entries:
            length = round(room * count / books.rows) if books.rows else 0
            shape = self._bar * (length or (1 if count and not detail else 0))
            table.add_row(label, f"{count:,}", f"[{colour}]{shape}[/]{detail}")
        self._console.print(table)

    def insights(self, lines: list[InsightLine]) -> None:
        if not lines:
            self._heading("Insights  none")
            return
        window = lines[0].window
        shown = [line for line in lines if line.window == window]
        phases = ", ".join(f"{count} {phase}" for phase, count in Counter(line.phase for line in shown).items())
        end = f" to {lines[0].window_end}" if lines[0].window_end else ""
        self._heading(f"Insights  {window} window{end}: {phases}")
        platforms = list(dict.fromkeys([*NAMES, *(part.platform for line in shown for part in line.platforms)]))
        table = self._table()
        table.add_column("campaign", no_wrap=True, overflow=self._overflow, max_width=max(10, self._console.width - 80))
        legend = "CTR"
        if not self._narrow:
            legend += f", the last {7 if self._wide else 5} days"
        if self._wide:
            legend += ", composite score (100 is best)"
        for platform in platforms:
            table.add_column(_name(platform), no_wrap=True, style=COLOURS.get(platform, ""))
        table.add_column("best", no_wrap=True)
        table.add_column("cons.", justify="right", no_wrap=True)
        table.add_column("ROAS", justify="right", no_wrap=True)
        for line in shown[:INSIGHTS_SHOWN]:
            cells = {part.platform: self._platform(part, line.best_platform) for part in line.platforms}
            title = f"{line.campaign} {line.name}" if self._wide and line.name else line.campaign
            table.add_row(
                self._text(title),
                *(cells.get(platform, "") for platform in platforms),
                _name(line.best_platform) if line.best_platform else self._dash,
                f"{line.consistency:.2f}" if line.consistency is not None else self._dash,
                f"{line.roas:.2f}" if line.roas is not None else self._dash,
            )
        self._console.print(table)
        for note in self._insight_notes(lines, shown, legend):
            self._print(f"[dim]  {self._text(note)}[/]")

    def _insight_notes(self, lines: list[InsightLine], shown: list[InsightLine], legend: str) -> Iterator[str]:
        yield f"Per platform: {legend}{self._dot}cons.: consistency"
        notes = []
        if len(shown) > INSIGHTS_SHOWN:
            notes.append(f"{len(shown) - INSIGHTS_SHOWN:,} more campaigns")
        others = Counter(line.window for line in lines if line.window != shown[0].window)
        notes += [f"{window}: {count:,} more" for window, count in others.items()]
        if notes:
            yield self._dot.join(notes)
        reasons: dict[str, list[str]] = {}
        for line in shown:
            if line.roas is None and line.roas_reason:
                reasons.setdefault(line.roas_reason, []).append(line.campaign)
        for reason, campaigns in reasons.items():
            few = ", ".join(campaigns[:3]) + (f" and {len(campaigns) - 3} more" if len(campaigns) > 3 else "")
            yield f"No ROAS for {few}: {reason}"

    def _platform(self, part: PlatformLine, best: str | None) -> str:
        ctr = f"{100 * part.ctr:.2f}%" if part.ctr is not None else self._dash
        words = [ctr.rjust(6)]
        if not self._narrow:
            words.append(sparkline(part.daily_ctr, 7 if self._wide else 5, self._levels))
        if self._wide:
            words.append(f"{100 * part.composite:2.0f}" if part.composite is not None else f" {self._dash}")
        text = " ".join(words)
        return f"[bold]{text}[/]" if part.platform == best else text

    def predictions(self, lines: list[PredictionLine]) -> None:
        judged = [line for line in lines if line.inside is not None]
        hits = sum(1 for line in judged if line.inside)
        said = (
            f"{hits} of {len(judged)} actuals ({hits / len(judged):.0%}) fell inside their 90% interval"
            if judged
            else ""
        )
        self._heading(f"CTR predictions  {said or 'no actuals yet'}")
        if not lines:
            return
        table = self._table()
        taken = 73 if self._wide else 61
        strip = min(STRIP_MOST, self._console.width - taken)
        table.add_column("campaign", no_wrap=True, overflow=self._overflow, max_width=10)
        table.add_column("platform", no_wrap=True)
        table.add_column("rate", justify="right", no_wrap=True)
        table.add_column("90% interval", justify="right", no_wrap=True)
        if strip >= STRIP_LEAST:
            table.add_column("", no_wrap=True)
        table.add_column("actual", justify="right", no_wrap=True)
        if self._wide:
            table.add_column("impressions", justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        shown = _worth_showing(lines)
        for line in shown:
            verdict = {True: "[green]in[/]", False: "[red]out[/]", None: "open"}[line.inside]
            row = [
                self._text(line.campaign),
                _name(line.platform),
                f"{100 * line.rate:.2f}%",
                f"{100 * line.low:.2f}{self._dash}{100 * line.high:.2f}%",
            ]
            if strip >= STRIP_LEAST:
                row.append(self._interval(line, strip))
            row.append(f"{100 * line.actual:.2f}%" if line.actual is not None else self._dash)
            if self._wide:
                row.append(f"{line.actual_impressions:,}")
            table.add_row(*row, verdict)
        self._console.print(table)
        if len(lines) > len(shown):
            few = "the farthest outside, then the largest"
            self._print(f"[dim]  {len(shown)} of {len(lines)} shown: {few}[/]")

    def _interval(self, line: PredictionLine, width: int) -> str:
        """The interval over the strip's middle half, with the predicted rate and, where known, the actual one."""
        left, right, rule, centre, actual, ground = list(self._strip)
        span = max(line.high - line.low, 1e-12)

        def place(value: float) -> int:
            at = 0.25 + 0.5 * (value - line.low) / span
            return max(0, min(width - 1, round(at * (width - 1))))

        cells = [ground] * width
        first, last = place(line.low), place(line.high)
        cells[first : last + 1] = [left, *([rule] * (last - first - 1)), right]
        cells[place(line.rate)] = centre
        if line.actual is None:
            return escape("".join(cells))
        at = place(line.actual)
        colour = "red" if line.inside is False else "green"
        before, after = escape("".join(cells[:at])), escape("".join(cells[at + 1 :]))
        return f"{before}[bold {colour}]{actual}[/]{after}"

    def machine(self, report: DemoReport) -> None:
        self._heading("Machine")
        hot, rate, latency = report.hot, report.rate, report.latency
        if hot is not None:
            held = ", ".join(f"{count:,} {kind}" for kind, count in hot.keys.items()) or "nothing"
            facts = [f"holds {held}"]
            if hot.ttl_min_s is not None and hot.ttl_max_s is not None:
                facts.append(f"TTL {hot.ttl_min_s:,.0f}{self._dash}{hot.ttl_max_s:,.0f} s")
            if hot.used_memory_bytes is not None:
                facts.append(f"{hot.used_memory_bytes / 2**20:.1f} MiB")
            self._print(f"  Redis    {self._dot.join(facts)}")
        if rate is not None:
            self._print(
                f"  Rate     {rate.events:,} events in {rate.seconds:.1f} s = {rate.events_per_second:,.0f} events/s"
            )
        if latency is not None:
            typical, worst = f"p50 {latency.p50_ms:,.0f} ms", f"p99 {latency.p99_ms:,.0f} ms"
            self._print(
                f"  Latency  {typical}{self._dot}{worst}{self._dot}{latency.samples:,} samples, publish to insight"
            )

    def _text(self, text: str) -> str:
        """What others wrote, as the console can show it and without being taken for markup."""
        return escape(text.encode("ascii", "replace").decode() if self._plain else text)

    def _heading(self, text: str) -> None:
        self._console.print()
        title, _, rest = text.partition("  ")
        self._print(f"[bold]{title}[/]  {rest}" if rest else f"[bold]{title}[/]")

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=False)

    def _table(self) -> Table:
        return Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="dim")


def _name(platform: str) -> str:
    return NAMES.get(platform, platform)


def _listed(counts: dict[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} ({count:,})" if count > 1 else name for name, count in ordered)


def _worth_showing(lines: list[PredictionLine]) -> list[PredictionLine]:
    """The clearest misses, then the lines with the most impressions to judge by, in the order of the report."""

    def miss(line: PredictionLine) -> float:
        actual = line.rate if line.actual is None else line.actual
        return max(line.low - actual, actual - line.high) / max(line.high - line.low, 1e-12)

    misses = sorted((line for line in lines if line.inside is False), key=miss, reverse=True)[:MISSES_SHOWN]
    rest = sorted((line for line in lines if line not in misses), key=lambda line: -line.actual_impressions)
    chosen = [*misses, *rest[: PREDICTIONS_SHOWN - len(misses)]]
    return [line for line in lines if line in chosen]
