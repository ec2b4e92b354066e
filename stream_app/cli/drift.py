"""``drift``: where a campaign's platforms have changed against each other."""

import sys
from typing import TYPE_CHECKING, Final, Literal

import click

from stream_app.cli.patterns import UNKNOWN, fed, interval_text
from stream_app.cli.shell import printable, quiet, server_settings
from stream_app.errors import ParallaxError

if TYPE_CHECKING:
    from core.learning.campaign_drift import CampaignDrift, DatedChange

DAYS: Final = 60
LEAST_P: Final = 1e-15
"""Below this a normal tail is no number to trust."""


@click.command(short_help="Show where a campaign's platforms changed against each other.")
@click.argument("campaigns", nargs=-1, metavar="[CAMPAIGN]...")
@click.option(
    "--days",
    type=click.IntRange(6),
    default=DAYS,
    show_default=True,
    metavar="N",
    help="The newest that are looked at.",
)
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.pass_context
def drift(ctx: click.Context, campaigns: tuple[str, ...], days: int, style: Literal["table", "json"]) -> None:
    """Show where a campaign's platforms changed against each other, from its insights of single days (the window 24h).

    A change is a day from which a platform's CTR over the other platforms' is another: what moves all of them alike is
    none. The probability that any campaign without a change shows one is held at 5 %. Without CAMPAIGN all campaigns
    are looked at, and those with a change are listed.
    """
    import msgspec

    from core.learning.campaign_drift import LEVEL, DailyCounts
    from core.learning.drift import STATISTIC, TREND
    from stream_app.live_insights import need_window

    quiet()
    settings = server_settings(ctx)
    counts = DailyCounts(days, frozenset(campaigns))
    need_window(settings, counts.window)
    live = fed(settings, counts).campaigns()
    for name in campaigns:
        if name not in live:
            raise ParallaxError(f"campaign {name} has no day among the newest {days:,}")
    found = [told for name in live if (told := counts.drift(name, LEVEL / len(live))) is not None]
    shown = found if campaigns else [told for told in found if told.changes]
    if style == "json":
        for told in shown:
            click.echo(msgspec.json.encode(told, order="deterministic"))
    else:
        changed = sum(bool(told.changes) for told in found)
        click.echo(f"{changed:,} of {len(found):,} campaigns changed in the newest {days:,} days")
        if shown:
            click.echo(f"change: {STATISTIC} over the days, and 5 % for all platforms and campaigns together")
            click.echo(f"trend of the consistency: {TREND}\n")
            _print(shown)
    sys.stdout.flush()


def _print(shown: "list[CampaignDrift]") -> None:
    from stream_app.cli.show import show_table

    rows: list[list[str]] = []
    for told in shown:
        head = [told.campaign_id, "-" if told.consistency is None else f"{told.consistency:.3f}", _trend(told)]
        changes = [_change(one) for one in told.changes] or [["none", UNKNOWN, UNKNOWN, UNKNOWN]]
        rows += [[*head, *change] for change in changes]
    show_table(
        ("campaign", "consistency", "trend", "change from", "platform", "CTR over the others'", "p"),
        [[printable(cell) for cell in row] for row in rows],
        right=("consistency", "p"),
    )


def _change(one: "DatedChange") -> list[str]:
    change = one.change
    ratio = interval_text(change.ratio, change.low, change.high, "{:.2f}")
    return [
        one.date,
        str(change.platform),
        ratio,
        f"{change.p_value:.1e}" if change.p_value > LEAST_P else f"<{LEAST_P:g}",
    ]


def _trend(told: "CampaignDrift") -> str:
    return UNKNOWN if told.trend is None else f"{told.trend.value:+.2f} (p {told.trend.p_value:.2g})"


COMMANDS: Final = (drift,)
