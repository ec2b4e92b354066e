"""``produce`` and ``tail``: records into Kafka from files, and out of it to the terminal."""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, Literal

import click

from stream_app.cli.shell import PLATFORMS, as_source, quiet, server_settings

if TYPE_CHECKING:
    from stream_app.files import Source

ANSWER_S: Final = 5.0
TAILED: Final = ("insights", "predictions", "dead-letters")


@click.command(short_help="Publish rows from files or stdin.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--platform", type=click.Choice(PLATFORMS), help="Whose rows these are: says the topic.")
@click.option("--links", is_flag=True, help="The files hold campaign links.")
@click.option("--rates", is_flag=True, help="The files hold exchange rates.")
@click.option("--accounts", is_flag=True, help="The files hold facts of accounts.")
@click.option("--creatives", is_flag=True, help="The files hold creatives.")
@click.option("--account", default="", metavar="ID", help="Account of rows that name none.")
@click.pass_context
def produce(
    ctx: click.Context,
    files: tuple[str, ...],
    platform: str | None,
    links: bool,
    rates: bool,
    accounts: bool,
    creatives: bool,
    account: str,
) -> None:
    """Publish rows from files: .jsonl, .ndjson (a record a line), .json, .gz of these, - for lines on stdin.

    Every record goes out byte for byte, keyed by its campaign, by an idempotent producer. Exit code 1 when some were
    not delivered.
    """
    if (platform is not None) + links + rates + accounts + creatives != 1:
        raise click.UsageError("say one of --platform, --links, --rates, --accounts and --creatives")
    from schemas import topics as names
    from schemas.platform import Platform
    from stream_app.publish import publish
    from stream_app.topics import name

    settings = server_settings(ctx)
    facts = ((rates, names.RATES), (accounts, names.ACCOUNTS), (creatives, names.CREATIVES))
    base = next((base for said, base in facts if said), names.CAMPAIGN_LINKS)
    if platform is not None:
        base = names.METRICS_TOPICS[Platform(platform)]
    sources = [as_source(file) for file in files]
    with _progress(sources) as progress:
        report = publish(
            sources,
            config=settings.confluent_config(),
            topic=name(settings, base),
            account=account,
            progress=progress,
            timeout_seconds=ANSWER_S,
        )
    if report.ok:
        click.echo(f"{report.sentence} to {name(settings, base)} ({report.bytes:,} bytes)")
    else:
        click.echo(f"parallax: {report.sentence}", err=True)
        ctx.exit(1)


@contextlib.contextmanager
def _progress(sources: "Sequence[Source]") -> "Iterator[Callable[[int, int], None] | None]":
    """A bar on standard error where that is a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    sizes = [source.stat().st_size for source in sources if source != "-" and source.is_file()]
    total = sum(sizes) if len(sizes) == len(sources) else None
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda _read, taken: bar.update(task, completed=taken)


@click.command()
@click.argument("what", type=click.Choice(TAILED))
@click.option("--from-beginning", is_flag=True, help="Start with the oldest record, not with the next one.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="End after N records.")
@click.option("--format", "style", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.pass_context
def tail(
    ctx: click.Context, what: str, from_beginning: bool, limit: int | None, style: Literal["text", "json"]
) -> None:
    """Print a topic live, one line a record, until Ctrl-C."""
    from schemas import topics as names
    from stream_app import tail as reading
    from stream_app.topics import name

    quiet()
    settings = server_settings(ctx)
    base = {"insights": names.INSIGHTS, "predictions": names.PREDICTIONS, "dead-letters": names.DEAD_LETTERS}[what]
    config = {"bootstrap_servers": settings.kafka_bootstrap, **settings.aiokafka_security()}
    asyncio.run(
        reading.tail(
            name(settings, base),
            config=config,
            from_beginning=from_beginning,
            limit=limit,
            out=sys.stdout,
            style=style,
        )
    )


COMMANDS: Final = (produce, tail)
