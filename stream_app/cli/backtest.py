"""``backtest``: how well the CTR predictions would have done."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from stream_app.cli.shell import PLATFORMS, plot_option, printable, settings_of
from stream_app.errors import ParallaxError, SetupError

if TYPE_CHECKING:
    from core.learning.backtest import Backtest, History
    from core.learning.measures import CurvePoint, Measures
    from stream_app.history import DailyRows

SEGMENTED: Final = ("default", "model", "platform_mean")
"""The predictors whose segments the table shows; json has all."""
HEADS: Final = ("log loss", "entropy", "MAE 50+", "pred/actual", "deviance", "90% interval", "exact")


@click.command(short_help="Judge the CTR predictions on history, one step ahead.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@click.option(
    "--split", required=True, metavar="DATE", help="The first date that is judged; what lies before is learned."
)
@click.option("--horizon", default="1d", show_default=True, metavar="DURATION", help="Whole days that are predicted.")
@click.option("--series", default="", metavar="COLUMNS", help="What makes a series, such as campaign_id,ad_id.")
@click.option("--platform", type=click.Choice(PLATFORMS), help="Whose rows these are that name no platform.")
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True)
@plot_option
@click.pass_context
def backtest(
    ctx: click.Context,
    files: tuple[Path, ...],
    split: str,
    horizon: str,
    series: str,
    platform: str | None,
    style: Literal["table", "json"],
    plot: Path | None,
) -> None:
    """Walk over history one horizon at a time, fitting, training and promoting as in the stream, and score every
    prediction against what happened, beside the baselines on the same rows.

    Files are CSV with the columns date, impressions, clicks, a campaign or series id and a platform, JSON lines of the
    same or of rows as in `parallax produce`, and gzip of these. A row's impressions are taken as known, its clicks are
    predicted from the days before.
    """
    from core.learning import backtest as walking
    from schemas.platform import Platform
    from stream_app import history
    from stream_app.cli.offline import ingest_config
    from stream_app.domain import insight_config

    settings = settings_of(ctx)
    first, days = day(split, "--split"), whole_days(horizon)
    if plot is not None:
        from stream_app.plots import checked_target

        checked_target(plot)
    columns = [column for column in series.split(",") if column.strip()]
    rows = history.read(files, ingest_config(settings, None), columns, Platform(platform) if platform else None)
    past = history.in_windows(rows, insight_config(settings).profile, first, days)
    with progress_of("walking") as progress:
        try:
            done = walking.run(past, 0, on_window=progress)
        except ValueError as error:
            raise SetupError(f"--split {split}: {error}, the last of {date.fromordinal(max(rows.day))}") from None
    if not done.scorecard.windows:
        raise ParallaxError(f"no row with impressions lies at or after {split}: there is nothing to judge by")
    report = _report(done, past, rows, split, horizon)
    if style == "json":
        import msgspec

        click.echo(msgspec.json.encode(report))
    else:
        _print(report, done)
    if plot is not None:
        from stream_app import plots

        of = f"CTR predictions on history, {'one day' if days == 1 else f'{days} days'} ahead"
        name = "day" if days == 1 else "window"
        plots.write(
            plot,
            plots.Plot(done.scorecard, of, report["verdict"], lambda at: date.fromordinal(first + at * days), name),
        )
    sys.stdout.flush()


def day(text: str, option: str) -> int:
    """The day of an option, as ``date.toordinal`` counts. Raises ``SetupError``."""
    try:
        return date.fromisoformat(text).toordinal()
    except ValueError:
        raise SetupError(f"{option} must be a date like 2026-01-31, not {printable(text)}") from None


def whole_days(text: str) -> int:
    """The days of --horizon. Raises ``SetupError``."""
    from stream_app.duration import MILLISECONDS, Duration

    try:
        days, rest = divmod(Duration.parse(text).ms, MILLISECONDS["d"])
    except ValueError as error:
        raise SetupError(f"--horizon {printable(text)}: {error}") from None
    if rest:
        raise SetupError(f"--horizon {printable(text)}: history is daily, so name whole days, such as 1d or 7d")
    return days


def _report(done: "Backtest", past: "History", rows: "DailyRows", split: str, horizon: str) -> dict[str, Any]:
    from core.learning import walk as walking
    from core.learning.baselines import BASELINES
    from core.learning.measures import TEST, curve, measures, verdict

    comparisons, lines = verdict(done.scorecard, walking.DEFAULT, walking.MODEL, BASELINES)
    judged = measures(done.scorecard)
    first, last, days = day(split, "--split"), max(rows.day), whole_days(horizon)
    notes = rows.oddities()
    begun = first + max(0, (min(rows.day) - first) // days) * days
    if min(rows.day) >= first:
        notes.append(f"no row lies before {split}: nothing was known when the first one was judged")
    if min(rows.day) > begun >= first:
        notes.append(f"the first window begins {min(rows.day) - begun} of {days} days before the data")
    if (last + 1 - first) % days:
        notes.append(f"the last window ends with the data, after {(last + 1 - first) % days} of {days} days")
    return {
        "split": split,
        "horizon": horizon,
        "rows": len(rows.day),
        "rows_with_more_clicks_than_impressions": rows.beyond,
        "rows_of_one_date_and_series": rows.repeated,
        "series": int(past.platform.size),
        "series_by": rows.told_by,
        "windows": done.windows,
        "first_window": date.fromordinal(begun).isoformat(),
        "notes": notes,
        "summary": {one.predictor: one for one in judged if one.axis == "all"},
        "segments": [one for one in judged if one.axis != "all"],
        "calibration_curve": {name: curve(done.scorecard, name) for name in done.scorecard.predictors},
        "model": {
            platform: {"standing": standing, "promoted_share": done.promoted_share[platform]}
            for platform, standing in done.standings.items()
        },
        "models_trained": done.trained,
        "fitted": done.fitted,
        "test": TEST,
        "comparisons": comparisons,
        "verdict": lines,
    }


def _print(report: dict[str, Any], done: "Backtest") -> None:
    judged: Sequence[Measures] = list(report["summary"].values())
    by = f" by {'/'.join(report['series_by'])}" if report["series_by"] else ""
    click.echo(
        f"{judged[0].rows:,} rows, {judged[0].impressions:,.0f} impressions, {report['windows']} windows of"
        f" {report['horizon']} from {report['first_window']}; {report['series']:,} series{printable(by)}"
    )
    for note in report["notes"]:
        click.echo(f"note: {note}")
    click.echo()
    show_measures(judged, report["segments"], report["calibration_curve"]["served"])
    click.echo()
    for platform, standing in done.standings.items():
        state = "promoted" if standing.promoted else "not promoted"
        served = round(done.promoted_share[platform] * done.windows)
        click.echo(
            f"model on {printable(platform)}: {state} for what comes after the last window ({standing.reason}); it"
            f" served in {served:,} of the {done.windows:,} judged windows"
        )
        fitted = ", ".join(f"{name} {value:.3g}" for name, value in done.fitted[platform].items())
        click.echo(f"default on {printable(platform)}: {fitted}")
    for line in report["verdict"]:
        click.echo(f"verdict: {line}")


def show_measures(
    judged: "Sequence[Measures]", segmented: "Sequence[Measures]", points: "Sequence[CurvePoint]"
) -> None:
    """Tables of the predictors, of some of them by segment, and of the calibration curve of what serves."""
    from stream_app.cli.show import show_table

    show_table(("predictor", *HEADS), ((one.predictor, *cells(one)) for one in judged), right=HEADS)
    click.echo()
    segments = [one for one in segmented if one.predictor in SEGMENTED]
    show_table(
        ("by", "of", "rows", "predictor", *HEADS),
        ((one.axis, one.segment, f"{one.rows:,}", one.predictor, *cells(one)) for one in segments),
        right=("rows", *HEADS),
    )
    click.echo()
    rows = ((f"{one.predicted:.3%}", f"{one.observed:.3%}", f"{one.impressions:,.0f}") for one in points)
    show_table(("served: predicted", "observed", "impressions"), rows, right=("observed", "impressions"))


def cells(one: "Measures") -> tuple[str, ...]:
    """A predictor's measures under ``HEADS``."""
    return (
        f"{one.log_loss:.6f}",
        _number(one.normalized_entropy, ".4f"),
        _number(one.mae, ".5f"),
        _number(one.calibration, ".3f"),
        _number(one.deviance_explained, ".3f"),
        _number(one.coverage, ".1%"),
        _number(one.coverage_exact, ".1%"),
    )


def _number(value: float | None, spelling: str) -> str:
    return "-" if value is None else format(value, spelling)


@contextlib.contextmanager
def progress_of(doing: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error where that is a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


COMMANDS: Final = (backtest,)
