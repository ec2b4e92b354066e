"""What all commands share: how they end, where their settings come from, and how they show text."""

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from stream_app.errors import ParallaxError, SetupError

if TYPE_CHECKING:
    from stream_app.files import Source
    from stream_app.settings import Settings

INTERRUPTED: Final = 130
NOBODY_READS: Final = 141
"""What shells give for a command that SIGPIPE ended."""
PLATFORMS: Final = ("meta", "tiktok", "google_ads")
plot_option: Final = click.option(
    "--plot",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Draw the scorecard too, as FILE.png, FILE.svg or FILE.html.",
)
horizon_option: Final = click.option(
    "--horizon",
    type=click.Choice(["1h", "1d", "7d"]),
    default="1d",
    show_default=True,
    help="How far ahead the forecasts that are scored reach.",
)
DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


class OneLine(click.Group):
    """A group that turns every ``ParallaxError`` into one line on standard error and its exit code.

    Ctrl-C and a reader that went away end a command without a word.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()
        except ParallaxError as error:
            click.echo(f"parallax: {printable(str(error))}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            with contextlib.suppress(OSError, ValueError):
                # Python flushes standard output once more at its end, and would complain.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(NOBODY_READS)


def settings_of(ctx: click.Context) -> "Settings":
    """The settings of a command. Raises ``SetupError``."""
    from stream_app.settings import load

    return load(ctx.find_root().obj)


def server_settings(ctx: click.Context) -> "Settings":
    """The settings of a command that speaks to servers, whose certificate files are read once to see that they can be.

    Raises ``SetupError``.
    """
    import ssl

    settings = settings_of(ctx)
    for path, variable in ((settings.ssl_cafile, "PARALLAX_SSL_CAFILE"), (settings.redis_cafile, "REDIS_CAFILE")):
        if path is not None:
            try:
                ssl.create_default_context(cafile=path)
            except OSError as error:
                raise SetupError(f"{path} holds no certificates ({error.strerror or error}): mend {variable}") from None
    return settings


def quiet() -> None:
    """Keep what libraries log off the terminal: what matters of it comes as an error."""
    import logging

    logging.basicConfig(handlers=[logging.NullHandler()])


def as_source(text: str) -> "Source":
    """A FILE argument; ``-`` is standard input."""
    return "-" if text == "-" else Path(text)


def instant(text: str | None, option: str) -> int | None:
    """An option's instant as UTC milliseconds; a date is its midnight in UTC. Raises ``SetupError``."""
    if text is None:
        return None
    from schemas.dates import instant_of
    from schemas.refusal import Refused

    try:
        return instant_of(f"{text}T00:00:00Z" if DATE.fullmatch(text) else text, option)
    except Refused as refused:
        raise SetupError(str(refused)) from None


def span(since: str | None, until: str | None) -> tuple[int | None, int | None]:
    """The instants of --from and --to. Raises ``SetupError`` where one is none, or they hold nothing."""
    from_ms, to_ms = instant(since, "--from"), instant(until, "--to")
    if from_ms is not None and to_ms is not None and from_ms >= to_ms:
        raise SetupError(f"--to {until} is not after --from {since}")
    return from_ms, to_ms


@contextlib.contextmanager
def interruptible(said: str) -> "Iterator[None]":
    """Ends a command with one line and exit code 130 when Ctrl-C comes."""
    try:
        yield
    except KeyboardInterrupt:
        # A terminal has shown ^C.
        click.echo(f"\nparallax: {said}" if sys.stderr.isatty() else f"parallax: {said}", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None


def confirmed(question: str) -> bool:
    """Whether somebody says yes, asked on standard error; no answer is none."""
    # click.confirm writes a blank to standard output, where JSON may be.
    click.echo(f"{question} [y/N] ", nl=False, err=True)
    answer = ""
    try:
        answer = sys.stdin.readline()
    finally:
        if not (answer and sys.stdin.isatty()):
            click.echo(err=True)
    return answer.strip().lower() in ("y", "yes")


@contextlib.contextmanager
def record_progress() -> "Iterator[Callable[[int, int], None] | None]":
    """A bar on standard error where that is a terminal, else nothing: records of how many, rate, time left."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TimeRemainingColumn
    from rich.progress import Task as Shown
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Shown) -> Text:
            return Text(f"{task.speed:,.0f} records/s" if task.speed else "")

    columns = (BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def printable(text: str) -> str:
    """Text of others as a terminal may get it: control characters replaced."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
