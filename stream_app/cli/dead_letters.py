"""``dead-letters``: what could not be used, listed and sent again."""

import sys
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from stream_app.cli.shell import confirmed, interruptible, printable, quiet, server_settings, span
from stream_app.errors import SetupError

if TYPE_CHECKING:
    from stream_app.dead_letters import Dead, Filter
    from stream_app.settings import Settings

SHOWN: Final = 50
EXCERPT: Final = 60
LONGEST_SENTENCE: Final = 100


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    """The options that both commands share."""
    for option in reversed(
        (
            click.option("--code", "codes", multiple=True, help="Of this code alone. Repeatable."),
            click.option("--topic", default="", help="Of this input topic alone, such as ads.metrics.meta."),
            click.option("--from", "since", metavar="TIME", help="Arrived then or later: RFC 3339, or a date (UTC)."),
            click.option("--to", "until", metavar="TIME", help="Arrived before."),
            click.option("--limit", type=click.IntRange(min=1), metavar="N", help="The newest N."),
        )
    ):
        command = option(command)
    return command


@click.group("dead-letters")
def dead_letters() -> None:
    """List what could not be used; send it again."""


@dead_letters.command("list", short_help="List dead letters, the oldest first.")
@_filters
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.pass_context
def list_(ctx: click.Context, /, style: Literal["table", "json"], **filters: Any) -> None:
    """List dead letters by the arrival of their records, the oldest first.

    A table shows the newest 50 unless --limit says otherwise. json prints one description a line, with key and
    payload.
    """
    quiet()
    from stream_app import dead_letters as dead

    settings = server_settings(ctx)
    if style == "table" and filters["limit"] is None:
        filters["limit"] = SHOWN
    wanted = _wanted(settings, **filters)
    with interruptible("interrupted"):
        found = dead.find(settings, wanted)
    if style == "json":
        out = click.get_binary_stream("stdout")
        out.writelines(_json(each) + b"\n" for each in found.dead)
        out.flush()
        return
    if found.dead:
        _table(found.dead)
    else:
        click.echo("no dead letters")
    if found.older:
        click.echo(f"and {found.older:,} older ones")
    sys.stdout.flush()
    if found.unreadable:
        click.echo(f"{found.unreadable:,} records of the topic describe no dead letter", err=True)


@dead_letters.command(short_help="Send the records of dead letters again.")
@_filters
@click.option("--id", "ids", multiple=True, help="This dead letter. Repeatable.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and send nothing.")
@click.option("--yes", is_flag=True, help="Send without a question.")
@click.pass_context
def redrive(ctx: click.Context, /, ids: tuple[str, ...], dry_run: bool, yes: bool, **filters: Any) -> None:
    """Send the records of dead letters again, as they were, to the topics that they came from.

    A header says when a record arrived first, and by that it is judged and stamped: it is the same record once more,
    never newer than what was said since, and counts once however often it is sent. So it helps where the reader has
    changed: a longer PARALLAX_HORIZON for too_late, a larger PARALLAX_MAX_PAYLOAD_BYTES for oversize, a newer
    version. What fails again becomes a dead letter again, which names the first one. Exit code 1 when some were not
    delivered.
    """
    quiet()
    from stream_app import dead_letters as dead

    settings = server_settings(ctx)
    wanted = _wanted(settings, ids=ids, **filters)
    with interruptible("interrupted: nothing was sent"):
        found = dead.find(settings, wanted)
        absent = sorted(set(ids) - {each.letter.id for each in found.dead})
        if absent and not found.older:
            raise SetupError(f"there is no dead letter {absent[0]}: `parallax dead-letters list` shows them")
        chosen = dead.redrivable(found.dead)
        for line in _plan(found.dead, chosen):
            click.echo(printable(line), err=True)
        if dry_run or not chosen:
            return
        if not yes and not confirmed(f"Send {_records(len(chosen))} again?"):
            click.echo("parallax: nothing was sent: nobody said yes (--yes does)", err=True)
            ctx.exit(1)
    with interruptible("interrupted while records went out: redriving again does no harm"):
        redriven = dead.redrive(settings, chosen)
    click.echo(f"{_records(redriven.sent)} sent again")
    if redriven.failed:
        click.echo(
            f"parallax: {_records(redriven.failed)} not delivered; the first failure: {redriven.reason}", err=True
        )
        ctx.exit(1)


def _records(count: int) -> str:
    return f"{count:,} record" if count == 1 else f"{count:,} records"


def _wanted(
    settings: "Settings",
    codes: tuple[str, ...],
    topic: str,
    since: str | None,
    until: str | None,
    limit: int | None,
    ids: tuple[str, ...] = (),
) -> "Filter":
    from schemas import topics as names
    from schemas.event import RejectCode
    from stream_app.dead_letters import Filter

    unknown = sorted(set(codes) - set(map(str, RejectCode)))
    if unknown:
        raise SetupError(f"{unknown[0]} is no code of a dead letter: README lists them")
    base = topic.removeprefix(settings.topic_prefix)
    if topic and base not in names.INGEST_TOPICS:
        raise SetupError(f"{topic} is no input topic: choose from {', '.join(names.INGEST_TOPICS)}")
    from_ms, to_ms = span(since, until)
    return Filter(codes=frozenset(codes), topic=base, from_ms=from_ms, to_ms=to_ms, ids=frozenset(ids), limit=limit)


def _plan(found: "list[Dead]", chosen: "list[Dead]") -> list[str]:
    """What would be sent, by topic and code, and what cannot be."""
    by_topic = Counter(each.letter.source.topic for each in chosen)
    codes = Counter(each.letter.code for each in chosen)
    lines = [f"{_records(len(chosen))} of {len(found):,} dead letters can be sent again"]
    lines += [f"  to {topic}: {count:,}" for topic, count in sorted(by_topic.items())]
    if codes:
        lines.append("  as " + ", ".join(f"{code} {count:,}" for code, count in sorted(codes.items())))
    without = sum(not each.can_be_redriven for each in found)
    if without:
        lines.append(f"  {without:,} cannot: their original bytes are not kept")
    return lines


def _table(found: "list[Dead]") -> None:
    from schemas.calendar import iso_instant
    from stream_app.cli.show import show_table

    rows = [
        (
            each.letter.id,
            iso_instant(each.letter.source.timestamp_ms),
            each.letter.code,
            _cut(each.letter.sentence, LONGEST_SENTENCE),
            _cut((each.value or b"")[: 4 * EXCERPT].decode("utf-8", "replace"), EXCERPT),
        )
        for each in found
    ]
    show_table(("id", "arrived", "code", "what is wrong", "payload"), rows)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _json(dead: "Dead") -> bytes:
    import msgspec

    def text(value: bytes | None) -> str | None:
        return None if value is None else value.decode("utf-8", "replace")

    described = msgspec.to_builtins(dead.letter)
    return msgspec.json.encode(
        {**described, "redrivable": dead.can_be_redriven, "key": text(dead.key), "payload": text(dead.value)}
    )


COMMANDS: Final = (dead_letters,)
