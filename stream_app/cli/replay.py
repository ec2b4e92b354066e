"""``replay``: the published insights proven from the input topics, and mended."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from stream_app.cli.shell import (
    PLATFORMS,
    confirmed,
    interruptible,
    printable,
    quiet,
    record_progress,
    server_settings,
    span,
)

if TYPE_CHECKING:
    from core.replay import Difference
    from stream_app.replay import Outcome, Promotion

DIFFERENT: Final = 1
UNPROVEN: Final = 4
SHOWN: Final = 50


@click.command(short_help="Prove the published insights from the input topics; mend them.")
@click.option(
    "--from", "since", metavar="TIME", help="RFC 3339 with an offset, or a date (UTC). Default: the beginning."
)
@click.option("--to", "until", metavar="TIME", help="Exclusive. Default: the end.")
@click.option("--campaign", "campaigns", multiple=True, metavar="ID", help="Compare this campaign alone. Repeatable.")
@click.option("--platform", type=click.Choice(PLATFORMS), help="Compare this platform's part of the insights alone.")
@click.option("--window", "windows", multiple=True, help="1h, 24h, 7d ... Repeatable. Default: the settings' windows.")
@click.option("--by", type=click.Choice(["event", "arrival"]), default="event", show_default=True)
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--promote", is_flag=True, help="Publish what mends the differences.")
@click.option("--yes", is_flag=True, help="Promote without a question.")
@click.pass_context
def replay(
    ctx: click.Context,
    since: str | None,
    until: str | None,
    campaigns: tuple[str, ...],
    platform: str | None,
    windows: tuple[str, ...],
    by: Literal["event", "arrival"],
    style: Literal["table", "json"],
    promote: bool,
    yes: bool,
) -> None:
    """Recompute insights from the input topics, alone and in memory, and compare them with what is published.

    The same code as a worker's reads the topics up to their present end. Nothing is written and no worker notices.
    Compared are insights.latest and Redis, by content: how an insight came about (version, phase, as_of, correction)
    may differ. Settings are to be those of the workers. While records arrive, their windows differ: use --to.

    \b
    --by event    proves the windows that end in the hours or days (UTC) from --from to --to, from all
                  records that may bear on them, whenever these arrived.
    --by arrival  shows what the records that arrived between --from and --to give alone, with all
                  links up to then, for the windows that they touch. It proves those to which nothing
                  older or newer belongs, such as those of one backfill; others differ.

    --promote publishes each difference to insights.cross-platform, insights.latest and Redis, wherever it is wrong,
    as phase "replayed" with a correction of reason "replay". The next change of the campaign supersedes it.

    Exit code 0: equal, or mended. 1: different. 4: cannot be proven, for records that are needed are gone.
    """
    if promote and by == "arrival" and (since or until):
        raise click.UsageError("--promote needs all that bears on a window: use --by event")
    quiet()
    from_ms, to_ms = span(since, until)
    settings = server_settings(ctx)
    from stream_app import replay as replaying

    request = replaying.Request(
        from_ms=from_ms,
        to_ms=to_ms,
        by=by,
        campaigns=frozenset(campaigns),
        platform=platform or "",
        windows=tuple(dict.fromkeys(windows)),
    )
    with interruptible("interrupted: nothing was published"):
        with record_progress() as progress:
            outcome = replaying.replay(settings, request, progress)
        _show(outcome, style)
        if outcome.lost:
            _say("cannot be proven: " + "; ".join(outcome.lost))
            ctx.exit(UNPROVEN)
        if not promote or not outcome.findings:
            ctx.exit(DIFFERENT if outcome.findings else 0)
        if not yes and not confirmed(f"Publish {_corrections(len(outcome.findings))}?"):
            _say("nothing was published: nobody said yes (--yes does)")
            ctx.exit(DIFFERENT)
    with interruptible("interrupted while corrections went out: promote again"):
        promotion = replaying.promote(settings, request, outcome)
    _say(_promoted(promotion))
    ctx.exit(DIFFERENT if promotion.moved_on else 0)


def _say(line: str) -> None:
    click.echo(f"parallax: {printable(line)}", err=True)


def _show(outcome: "Outcome", style: Literal["table", "json"]) -> None:
    rows = [row for finding in outcome.findings for row in finding.differences]
    if style == "json":
        import msgspec

        out = click.get_binary_stream("stdout")
        out.writelines(msgspec.json.encode(row) + b"\n" for row in rows)
        out.flush()
    elif rows:
        _table(rows)
    sys.stdout.flush()
    for line in _summary(outcome, len(rows)):
        click.echo(printable(line), err=True)


def _table(rows: "Sequence[Difference]") -> None:
    from stream_app.cli.show import show_table

    columns = ("campaign", "window", "start", "metric", "live", "recomputed", "where")
    shown = [
        (row.campaign, row.window, row.start, row.metric, _value(row.live), _value(row.recomputed), row.where)
        for row in rows[:SHOWN]
    ]
    show_table(columns, shown, right=("live", "recomputed"))
    if len(rows) > SHOWN:
        click.echo(f"and {len(rows) - SHOWN:,} more")


def _value(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if type(value) is int else str(value)


def _summary(outcome: "Outcome", differences: int) -> list[str]:
    places = "insights.latest and Redis" if outcome.hot else "insights.latest"
    compared = f"{outcome.compared:,} insights from {outcome.records:,} records beside {places}"
    if not outcome.findings:
        return [f"{compared}: {'equal' if outcome.compared else 'there is nothing to compare'}"]
    lines = [f"{compared}: {len(outcome.findings):,} differ, in {differences:,} values"]
    if outcome.behind:
        lines.append(f"the workers have not taken in {outcome.behind:,} input records yet: what these say differs")
    if outcome.live_as_of != outcome.recomputed_as_of:
        lines.append(
            f"the live side covers up to {outcome.live_as_of or '-'}, the records read up to"
            f" {outcome.recomputed_as_of or '-'}"
        )
    return lines


def _corrections(count: int) -> str:
    return f"{count:,} correction" if count == 1 else f"{count:,} corrections"


def _promoted(promotion: "Promotion") -> str:
    line = f"{_corrections(promotion.published)} published, {promotion.hot:,} put into Redis"
    return f"{line}, {promotion.moved_on:,} left out, for they had moved on" if promotion.moved_on else line


COMMANDS: Final = (replay,)
