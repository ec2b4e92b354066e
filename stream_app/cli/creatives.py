"""``creatives``: what hooks, visuals and lengths do to results, and what each creative is worth."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from stream_app.cli.backtest import day, progress_of
from stream_app.cli.shell import (
    PLATFORMS,
    as_source,
    interruptible,
    printable,
    quiet,
    record_progress,
    server_settings,
    settings_of,
)
from stream_app.errors import ParallaxError, SetupError

if TYPE_CHECKING:
    from core.collected import Collected
    from core.learning.creative_report import CreativeReport
    from schemas.creative import Creative
    from schemas.creative_score import CreativeScored, Estimated
    from stream_app.creative_scores import Published
    from stream_app.settings import Settings

UNKNOWN: Final = "-"


@click.command(short_help="Score creatives by their results and their labels.")
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--creatives", "stated", multiple=True, metavar="FILE", help="Creatives, as published. Repeatable.")
@click.option("--links", "linked", multiple=True, metavar="FILE", help="Campaign links. Repeatable.")
@click.option("--platform", type=click.Choice(PLATFORMS), help="Whose rows the files hold. Default: their content.")
@click.option("--account", metavar="ID", help="Learn from and score the creatives of this account alone.")
@click.option("--creative", metavar="ID", help="Score this creative alone.")
@click.option("--from", "since", metavar="DATE", help="The first day of results. Default: all that there are.")
@click.option("--to", "until", metavar="DATE", help="Exclusive.")
@click.option("--arrived-at", metavar="RFC3339", help="When the files' records arrived. Default: now.")
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--publish", is_flag=True, help="Send each score to creatives.scores.")
@click.pass_context
def creatives(
    ctx: click.Context,
    files: tuple[str, ...],
    stated: tuple[str, ...],
    linked: tuple[str, ...],
    platform: str | None,
    account: str | None,
    creative: str | None,
    since: str | None,
    until: str | None,
    arrived_at: str | None,
    style: Literal["table", "json"],
    publish: bool,
) -> None:
    """Learn what creatives' hooks, visuals, pacing, calls to action and lengths did to the results of their ads across
    platforms, and score every creative: each part of its score, and the CTR, engagement and ROAS that a further
    campaign with it will show, with 90 % intervals; or what evidence is missing.

    The input topics are read up to their end; nothing but scores is written, and no worker notices. With files of rows,
    as in `parallax insights`, and --creatives nothing but these is read. An ad's day is taken from its own rows, never
    from two views of one delivery. The same input gives the same bytes.
    """
    quiet()
    first, end = (None if text is None else day(text, option) for text, option in ((since, "--from"), (until, "--to")))
    if first is not None and end is not None and first >= end:
        raise SetupError(f"--to {until} is not after --from {since}")
    if bool(files) != bool(stated):
        raise SetupError("rows in files need --creatives FILE, and --creatives needs files of rows")
    if (linked or platform or arrived_at) and not files:
        raise SetupError("--links, --platform and --arrived-at are for rows in files")
    settings = server_settings(ctx) if publish or not files else settings_of(ctx)
    from core.learning.creative_report import report
    from core.learning.creative_results import ad_days, creative_results
    from stream_app import creative_scores
    from stream_app.domain import insight_config
    from stream_app.history import EPOCH

    profile = insight_config(settings).profile
    with interruptible("interrupted: no score was published"):
        if publish:
            creative_scores.refuse_absent(settings)
        if files:
            state, sources = (
                _of_files(settings, files, stated, linked, platform, arrived_at),
                (*files, *linked, *stated),
            )
        else:
            state, sources = _of_topics(settings, first)
        every = state.creatives.creatives()
        known = [each for each in every if account in (None, each.account_id)]
        _refuse_unknown(known, account, creative)
        days = ad_days(state.aggregate, *(None if each is None else each - EPOCH for each in (first, end)))
        ids = {each.creative_id for each in known}
        by_ad = {ad: creative_id for ad, creative_id in state.creatives.by_ad().items() if creative_id in ids}
        with progress_of("scoring") as progress:
            found = report(known, creative_results(days, by_ad, known), profile, creative, progress)
    sent = None
    if publish:
        with interruptible("interrupted while the scores went out: publish them again"):
            sent = creative_scores.publish(settings, found.scores, [each.creative_id for each in every])
    if style == "json":
        _print_json(found, sources, sent)
    else:
        _print(found, sent)
    sys.stdout.flush()


def _refuse_unknown(known: "Sequence[Creative]", account: str | None, creative: str | None) -> None:
    if creative is not None and creative not in {each.creative_id for each in known}:
        raise ParallaxError(
            f"creative {creative} is not known{'' if account is None else f' of account {account}'}: publish it with"
            " `parallax produce FILE --creatives`"
        )
    if account is not None and not known:
        raise ParallaxError(f"no creative names the account {account}: look for its account_id among the creatives")


def _of_topics(settings: "Settings", first: int | None) -> tuple["Collected", tuple[str, ...]]:
    from stream_app import topic_history

    with record_progress() as progress:
        found = topic_history.collect(settings, first, progress, creatives=True)
    for line in found.lost:
        click.echo(printable(f"parallax: {line}"), err=True)
    return found.state, found.sources


def _of_files(
    settings: "Settings",
    files: tuple[str, ...],
    stated: tuple[str, ...],
    linked: tuple[str, ...],
    platform: str | None,
    arrived_at: str | None,
) -> "Collected":
    from core.collected import Collected
    from schemas import topics as names
    from stream_app.cli.offline import arrival, batches, ingest_config
    from stream_app.files import check

    rows = [as_source(file) for file in files]
    facts = {
        names.CREATIVES: [as_source(file) for file in stated],
        names.CAMPAIGN_LINKS: [as_source(file) for file in linked],
    }
    check([*rows, *(source for each in facts.values() for source in each)])
    state = Collected(ingest_config(settings, None))
    for topic, partition, batch in batches(rows, facts, platform, "", arrival(arrived_at)):
        state.take(topic, partition, batch)
    if state.unusable:
        told = ", ".join(f"{code} {count:,}" for code, count in sorted(state.unusable.items()))
        click.echo(f"parallax: {sum(state.unusable.values()):,} rows of the files cannot be used ({told})", err=True)
    return state


def _print_json(found: "CreativeReport", sources: tuple[str, ...], sent: "Published | None") -> None:
    import msgspec

    report: dict[str, Any] = {
        "sources": sources,
        "learned": found.learned,
        "left_out": found.left_out,
        "why": found.why,
        "patterns": found.patterns,
        "creatives": found.scores,
        "published": None if sent is None else {"scores": sent.scores, "withdrawn": sent.withdrawn},
    }
    click.echo(msgspec.json.encode(report, order="deterministic"))


def _print(found: "CreativeReport", sent: "Published | None") -> None:
    from stream_app.cli.show import show_table

    learned = found.learned
    if not found.scores:
        click.echo("no creatives are known: publish them with `parallax produce FILE --creatives`")
    elif learned.ads:
        click.echo(
            f"{learned.creatives:,} creatives in {learned.campaigns:,} campaigns, {learned.ads:,} ads,"
            f" {learned.first_day} to {learned.last_day}"
        )
    if found.left_out:
        click.echo(f"{found.left_out:,} results of the fewest impressions were not learned from")
    if found.scores and found.why:
        click.echo(f"not enough evidence: {found.why}")
    if found.patterns.get("ctr"):
        click.echo()
        rows = (
            (
                one.attribute,
                one.label,
                f"{one.effect:+.1%}",
                f"{one.low:+.1%} to {one.high:+.1%}",
                f"{one.campaigns:,}",
                f"{one.creatives:,}",
                "yes" if one.sure else "",
            )
            for one in found.patterns["ctr"]
        )
        right = ("on CTR", "90% interval", "campaigns", "creatives")
        show_table(("attribute", "label", *right, "sure"), rows, right=right)
    if found.scores:
        click.echo()
        numbers = ("ctr", "engagement", "roas", "campaigns", "elsewhere")
        columns = ("creative", "score", "made of", *numbers, "evidence")
        show_table(columns, map(_row, found.scores), right=("score", *numbers))
    if sent is not None:
        click.echo(f"{sent.scores:,} scores published to creatives.scores, {sent.withdrawn:,} withdrawn")


def _row(score: "CreativeScored") -> tuple[str, ...]:
    predicted = score.predicted
    return (
        score.creative_id,
        UNKNOWN if score.score is None else f"{score.score:.3f}",
        " + ".join(f"{part.name} {part.value:.3f} x {part.weight:.2f}" for part in score.parts) or UNKNOWN,
        _interval(predicted.ctr, ".2%"),
        _interval(predicted.engagement, ".2%"),
        _interval(predicted.roas, ".2f"),
        f"{score.campaigns:,}",
        f"{score.elsewhere:,}",
        f"not enough: {score.why}" if score.why else _sure(score),
    )


def _interval(found: "Estimated | None", spelling: str) -> str:
    return UNKNOWN if found is None else f"{found.value:{spelling}} ({found.low:{spelling}} to {found.high:{spelling}})"


def _sure(score: "CreativeScored") -> str:
    """The effects whose direction is known."""
    sure = (effect for effect in score.effects if effect.low > 0 or effect.high < 0)
    return ", ".join(f"{effect.attribute} {effect.effect:+.0%}" for effect in sure)


COMMANDS: Final = (creatives,)
