"""``recommend`` and ``benchmarks``: what the live campaigns say of a new one, and of what is usual."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click

from stream_app.cli.patterns import UNKNOWN, interval_text, of_account, read_live
from stream_app.cli.shell import printable, quiet, server_settings
from stream_app.errors import ParallaxError, SetupError

if TYPE_CHECKING:
    from core.learning.campaign_data import CampaignData
    from core.learning.recommendation import PlatformOption, PlatformRecommendation
    from schemas.patterns import PooledRatio

LABELS: Final = click.option(
    "--labels",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="CSV campaign_id,vertical,objective: what the stream does not know of campaigns.",
)


@click.command(short_help="Rank the platforms for a new campaign.")
@click.option("--objective", default="", metavar="O", help="Such as awareness, traffic or sales: decides the measure.")
@click.option("--vertical", default="", metavar="V", help="Narrows to campaigns that --labels gives this vertical.")
@click.option("--account", metavar="PLATFORM:ID", help="Narrows to this ad account's campaigns.")
@click.option("--budget", type=float, metavar="X", help="What it will spend, in the benchmarks' currency.")
@LABELS
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.pass_context
def recommend(
    ctx: click.Context,
    objective: str,
    vertical: str,
    account: str | None,
    budget: float | None,
    labels: Path | None,
    style: Literal["table", "json"],
) -> None:
    """Rank the platforms for a new campaign by what the live campaigns have shown: CTR, CPC and ROAS, each with its
    90 % interval and the campaigns behind it. A platform with too little behind it is not ranked.

    Each of vertical, objective and account narrows what the one before left, and pulls the ratios as far as it has
    campaigns. Exit code 1 when no platform has evidence enough.
    """
    import msgspec

    from core.learning.recommendation import recommend_platforms
    from schemas.patterns import ALL
    from stream_app.campaign_labels import labelled, read_labels
    from stream_app.domain import insight_config

    quiet()
    if budget is not None and not 0 < budget < float("inf"):
        raise SetupError(f"--budget is above 0, not {budget}")
    settings = server_settings(ctx)
    wanted, known = of_account(account), {} if labels is None else read_labels(labels)
    _refuse_unknown(objective, {label.objective for label in known.values()})
    live = read_live(settings)
    campaigns = labelled(live.of(), known)
    if wanted != ALL:
        own = {campaign.campaign_id for campaign in live.of(wanted)}
        campaigns = [
            msgspec.structs.replace(campaign, account_id=wanted if campaign.campaign_id in own else "")
            for campaign in campaigns
        ]
    asked = {"vertical": vertical, "objective": objective, "account_id": "" if wanted == ALL else wanted}
    currency = insight_config(settings).profile.currency
    found = recommend_platforms(
        campaigns,
        objective=objective,
        vertical=vertical,
        account_id=asked["account_id"],
        budget=budget,
        currency=currency,
    )
    notes = _notes(campaigns, asked, found, len(known), labels is not None)
    if style == "json":
        facts = {"campaigns": len(campaigns), "currency": currency, "notes": notes}
        click.echo(msgspec.json.encode(facts | msgspec.to_builtins(found), order="deterministic"))
    else:
        _print(found, notes, len(campaigns), currency)
    sys.stdout.flush()
    if found.best is None:
        ctx.exit(1)


def _refuse_unknown(objective: str, labelled: set[str]) -> None:
    """Raises ``SetupError`` for an objective that decides no measure and that no label names."""
    from core.learning.recommendation import OBJECTIVES

    if objective and objective not in OBJECTIVES | labelled:
        raise SetupError(
            f"--objective {printable(objective)}: known are {', '.join(sorted(OBJECTIVES))}, and what --labels names"
        )


def _notes(
    campaigns: "list[CampaignData]",
    asked: dict[str, str],
    found: "PlatformRecommendation",
    labels: int,
    with_labels: bool,
) -> list[str]:
    """What was asked for and does not narrow anything, in sentences."""
    told = []
    if with_labels:
        own = sum(bool(campaign.vertical or campaign.objective) for campaign in campaigns)
        told.append(f"labels: {own:,} of the {len(campaigns):,} live campaigns have one; the file names {labels:,}")
    for scope, label in asked.items():
        if not label:
            continue
        what = f"{scope.removesuffix('_id')} {label}"
        stays = "it narrows nothing" + (" and only decides the measure" if scope == "objective" else "")
        if scope != "account_id" and not with_labels:
            told.append(f"{what}: the stream does not know it of any campaign, {stays}; give --labels")
        elif not any(getattr(campaign, scope) == label for campaign in campaigns):
            told.append(f"{what}: no live campaign has it, {stays}")
        elif not any(option.evidence.get(scope) for option in found.ranked):
            told.append(f"{what}: no campaign of a ranked platform has it beside what was asked before, {stays}")
    return told


def _print(found: "PlatformRecommendation", notes: list[str], campaigns: int, currency: str) -> None:
    from stream_app.cli.show import show_table

    click.echo(f"from {campaigns:,} live campaigns, by {found.ranked_by}, money in {currency}: {found.answer}")
    for note in notes:
        click.echo(printable(f"note: {note}"))
    if found.ranked:
        click.echo()
        columns = ["", "platform", "CTR", "CPC", "ROAS", "campaigns", "impressions"]
        expected = any(one.expected_clicks or one.expected_revenue for one in found.ranked)
        if expected:
            columns += ["clicks for it", "revenue for it"]
        rows = [_row(place, one, expected) for place, one in enumerate(found.ranked, 1)]
        show_table(columns, rows, right=("impressions",))
    for platform, why in found.not_enough_evidence.items():
        click.echo(f"{platform}: not enough evidence: {why}")


def _row(place: int, one: "PlatformOption", expected: bool) -> list[str]:
    evidence = ", ".join(f"{scope.removesuffix('_id')} {count:,}" for scope, count in one.evidence.items())
    row = [
        str(place),
        str(one.platform),
        _ratio(one.ctr, "{:.4f}"),
        _ratio(one.cpc, "{:.3f}"),
        _ratio(one.roas, "{:.2f}"),
    ]
    row += [evidence, f"{one.impressions:,}"]
    for span in (one.expected_clicks, one.expected_revenue) if expected else ():
        row.append(UNKNOWN if span is None else interval_text(span[1], span[0], span[2], "{:,.0f}"))
    if one.beyond_experience:
        row[1] += " (no campaign spent nearly that much there)"
    return row


def _ratio(ratio: "PooledRatio | None", form: str) -> str:
    return UNKNOWN if ratio is None else interval_text(ratio.value, ratio.low, ratio.high, form)


@click.command(short_help="Learn a benchmark profile from the live campaigns.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Default: standard output."
)
@click.option("--vertical", default="", metavar="V", help="Of the campaigns that --labels gives this vertical.")
@LABELS
@click.option(
    "--min-support",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    metavar="N",
    help="Campaigns that a band takes.",
)
@click.pass_context
def benchmarks(ctx: click.Context, out: Path | None, vertical: str, labels: Path | None, min_support: int) -> None:
    """Learn a benchmark profile from the live campaigns: each ratio's 5 % and 95 % quantile and its median.

    A band that fewer than --min-support campaigns show stays as it is in the settings' profile; standard error tells
    which. Its version names its content. PARALLAX_PROFILE_FILE takes it; nothing changes until that is set.
    """
    import msgspec

    from core.learning.benchmarks import MIN_IMPRESSIONS, BenchmarkLearner
    from core.ratios import COMPONENTS
    from stream_app.campaign_labels import labelled, read_labels
    from stream_app.domain import insight_config

    quiet()
    settings = server_settings(ctx)
    if vertical and labels is None:
        raise SetupError(f"--vertical {vertical} needs --labels: the stream knows no verticals")
    known = {} if labels is None else read_labels(labels)
    base = insight_config(settings).profile
    learner = BenchmarkLearner(base.currency)
    for campaign in labelled(read_live(settings).of(), known):
        for metrics in campaign.platforms.values():
            learner.update(metrics, campaign.vertical)
    profile = learner.profile("", vertical, base, min_support)
    learnt = 0
    for platform, own in profile.platforms.items():
        told = []
        for component in COMPONENTS:
            seen = learner.samples(platform, component, vertical)
            whose = vertical if seen >= min_support else ""
            seen = learner.samples(platform, component, whose)
            changed = getattr(own, component) != getattr(base.platforms[platform], component)
            learnt += changed
            scope = " of all verticals" if vertical and not whose else ""
            told.append(f"{component} {'learned' if changed else 'kept'} ({seen:,}{scope})")
        click.echo(printable(f"{platform}: {', '.join(told)}"), err=True)
    if not learnt:
        raise ParallaxError(
            f"no ratio was shown by {min_support:,} campaigns of {MIN_IMPRESSIONS:,} impressions or more: nothing is"
            " learned; wait for more, or give a smaller --min-support"
        )
    text = msgspec.json.format(msgspec.json.encode(profile, order="deterministic"), indent=2)
    if out is None:
        click.echo(text)
        return
    try:
        out.write_bytes(text + b"\n")
    except OSError as error:
        raise SetupError(f"{out} cannot be written: {error.strerror}") from None
    click.echo(f"profile {profile.version} written to {out}: PARALLAX_PROFILE_FILE={out} uses it")


COMMANDS: Final = (recommend, benchmarks)
