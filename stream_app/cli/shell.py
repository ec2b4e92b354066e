"""What all commands share: how they end, where their settings come from, and how they show text."""

import contextlib
import os
import sys
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


def printable(text: str) -> str:
    """Text of others as a terminal may get it: control characters replaced."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
