"""``train``: a model for the CTR predictions, judged before it goes anywhere."""

import contextlib
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from stream_app.cli.backtest import HEADS, cells, day, progress_of, whole_days
from stream_app.cli.shell import PLATFORMS, interruptible, printable, quiet, record_progress, server_settings
from stream_app.errors import ParallaxError, SetupError

if TYPE_CHECKING:
    from stream_app.history import DailyRows
    from stream_app.settings import Settings
    from stream_app.training import Progress, Trained

NOT_PUBLISHED: Final = 1


@click.command(short_help="Train a CTR model, judge it, and publish it to the workers.")
@click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path(path_type=Path))
@click.option("--from", "since", metavar="DATE", help="The first day. Default: all that there is.")
@click.option("--to", "until", metavar="DATE", help="Exclusive. Default: all of the files; of the topics, today (UTC).")
@click.option("--split", metavar="DATE", help="The first day that is judged and not learned. Default: 28 windows back.")
@click.option("--horizon", default="1d", show_default=True, metavar="DURATION", help="Whole days that are predicted.")
@click.option("--series", default="", metavar="COLUMNS", help="What makes a series, such as campaign_id,ad_id.")
@click.option("--platform", type=click.Choice(PLATFORMS), help="Whose rows these are that name no platform.")
@click.option("--out", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Write the model here.")
@click.option("--publish", is_flag=True, help="Send the model to models.ctr, which workers follow.")
@click.option("--force", is_flag=True, help="Publish a model that does not beat the default.")
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.pass_context
def train(
    ctx: click.Context,
    files: tuple[Path, ...],
    since: str | None,
    until: str | None,
    split: str | None,
    horizon: str,
    series: str,
    platform: str | None,
    out: Path | None,
    publish: bool,
    force: bool,
    style: Literal["table", "json"],
) -> None:
    """Train the model tier on the days before the split, and judge it on those after it, one step ahead, beside the
    default and every baseline on the same rows; and once more on shuffled labels, where it must find nothing.

    Files are as in `parallax backtest`. Without files the input topics are read up to their end, a series being a
    campaign on a platform; nothing but the model is written, and no worker notices. The model that was judged is the
    one that is written and published. The same rows give the same bytes.

    Exit code 1: the model was to be published and does not beat the default by the rule of promotion.
    """
    quiet()
    settings = server_settings(ctx)
    days = whole_days(horizon)
    first, end = (None if text is None else day(text, option) for text, option in ((since, "--from"), (until, "--to")))
    begin = None if split is None else day(split, "--split")
    if first is not None and end is not None and first >= end:
        raise SetupError(f"--to {until} is not after --from {since}")
    from stream_app import training
    from stream_app.domain import insight_config

    if out is not None and not out.parent.is_dir():
        raise SetupError(f"{out}: there is no directory {out.parent}")
    with interruptible("interrupted: no model was published"):
        if publish:
            training.refuse_absent(settings)
        if files:
            rows, sources = _of_files(settings, files, series, platform, first, end)
        else:
            rows, sources = _of_topics(settings, first, end)
        with _progress() as progress:
            profile = insight_config(settings).profile
            done = training.train(rows, sources, profile, begin, days, progress=progress)
        if out is not None:
            _write(out, done.model.to_bytes())
    sent = publish and (force or not done.refusal)
    if sent:
        with interruptible("interrupted while the model went out: publish it again"):
            training.publish(settings, done.model)
    _show(done, sent, out, style)
    if publish and not sent:
        click.echo(printable(f"parallax: not published: the model {done.refusal} (--force publishes it)"), err=True)
        ctx.exit(NOT_PUBLISHED)


def _of_files(
    settings: "Settings", files: tuple[Path, ...], series: str, platform: str | None, first: int | None, end: int | None
) -> tuple["DailyRows", tuple[str, ...]]:
    from schemas.platform import Platform
    from stream_app import history
    from stream_app.cli.offline import ingest_config

    columns = [column for column in series.split(",") if column.strip()]
    rows = history.read(files, ingest_config(settings, None), columns, Platform(platform) if platform else None)
    kept = history.between(rows, first, end)
    for line in kept.oddities():
        click.echo(printable(f"parallax: {line}"), err=True)
    return kept, tuple(path.name for path in files)


def _of_topics(settings: "Settings", first: int | None, end: int | None) -> tuple["DailyRows", tuple[str, ...]]:
    from stream_app import topic_history

    with record_progress() as progress:
        # Today is not over: its rows would be judged by a part of themselves.
        found = topic_history.read(settings, first, end or datetime.now(UTC).date().toordinal(), progress)
    for line in found.lost:
        click.echo(printable(f"parallax: {line}"), err=True)
    return found.rows, found.sources


def _write(out: Path, payload: bytes) -> None:
    try:
        out.write_bytes(payload)
    except OSError as error:
        raise ParallaxError(f"{out}: {error.strerror or error}") from None


def _show(done: "Trained", sent: bool, out: Path | None, style: Literal["table", "json"]) -> None:
    if style == "json":
        import msgspec

        comparisons, lines = done.fitted.verdict
        report: dict[str, Any] = {
            "model_id": done.model.model_id,
            "bytes": len(done.model.to_bytes()),
            "header": done.model.header,
            "comparisons": comparisons,
            "verdict": lines,
            "control_fails": done.control.fails,
            "published": sent,
            "written": None if out is None else str(out),
        }
        click.echo(msgspec.json.encode(report))
    else:
        _print(done, sent, out)
    sys.stdout.flush()


def _print(done: "Trained", sent: bool, out: Path | None) -> None:
    from stream_app.cli.show import show_table

    header, judged = done.model.header, done.fitted.summary
    click.echo(
        f"learned {header.data.rows:,} rows of {header.first_day} to {header.last_day}, {header.data.series:,} series;"
        f" judged on {judged[0].rows:,} rows of {done.fitted.windows} windows of {header.horizon} after that"
    )
    click.echo()
    show_table(("predictor", *HEADS), ((one.predictor, *cells(one)) for one in judged), right=HEADS)
    click.echo()
    for platform, standing in done.fitted.standings.items():
        state = "beats the default" if standing.promoted else "does not beat the default"
        click.echo(
            f"model on {printable(platform)}: {state} ({standing.reason}): {standing.gain:+.3%} of its log loss saved,"
            f" predicted/actual {standing.calibration:.3f}"
        )
    for line in done.fitted.verdict[1]:
        click.echo(f"verdict: {line}")
    control, against = done.control, done.control.against_default
    click.echo(
        "negative control, labels shuffled within each window and platform:"
        f" {'THE MODEL LEAKS, it tells' if control.fails else 'as it must be, nothing tells'} them apart"
        f" (z = {control.z:+.2f}, p = {control.p:.4f}); beside the default {against.gain:+.3%} of its log loss saved"
    )
    where = [*(["published to models.ctr"] if sent else []), *([f"written to {out}"] if out is not None else [])]
    click.echo(
        printable(
            f"model {done.model.model_id}, {len(done.model.to_bytes()):,} bytes: {header.why};"
            f" {' and '.join(where) or 'written nowhere (--out, --publish)'}"
        )
    )


@contextlib.contextmanager
def _progress() -> Iterator["Progress"]:
    """A bar on standard error where that is a terminal, else nothing: one for the labels as they are, then one for the
    shuffled ones.
    """
    with contextlib.ExitStack() as stack:
        stage = ""
        advance = None

        def show(doing: str, done: int, total: int) -> None:
            nonlocal stage, advance
            if doing != stage or advance is None:
                stack.close()
                stage, advance = doing, stack.enter_context(progress_of(doing))
            advance(done, total)

        yield show


COMMANDS: Final = (train,)
