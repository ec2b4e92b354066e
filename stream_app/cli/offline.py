"""``insights``: the computation over files, without any server."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Final, Literal

import click

from stream_app.cli.shell import PLATFORMS, as_source, printable, settings_of
from stream_app.errors import SetupError

if TYPE_CHECKING:
    from core.campaigns import InsightConfig
    from core.ingest import Ingest, SourceRecord
    from core.offline import Computed
    from schemas.insight import CrossPlatformInsight, InsightTotals
    from schemas.prediction import CtrPrediction, CtrRate
    from stream_app.files import FileRecord, Source
    from stream_app.settings import Settings

BATCH: Final = 2_000
LETTERS_SHOWN: Final = 5
MICROS: Final = 1_000_000


@click.command(short_help="Compute insights from files, without any server.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--links", "link_files", multiple=True, metavar="FILE", help="Campaign links. Repeatable.")
@click.option("--rates", "rate_files", multiple=True, metavar="FILE", help="Exchange rates, as published. Repeatable.")
@click.option("--accounts", "account_files", multiple=True, metavar="FILE", help="Facts of accounts. Repeatable.")
@click.option("--platform", type=click.Choice(PLATFORMS), help="Whose rows these are. Default: each file's content.")
@click.option("--account", default="", metavar="ID", help="Account of rows that name none.")
@click.option("--window", "windows", multiple=True, help="1h, 24h, 7d ... Repeatable. Default: the settings' windows.")
@click.option("--campaign", metavar="ID", help="Show this campaign alone.")
@click.option("--predictions", is_flag=True, help="Show CTR predictions too.")
@click.option("--arrived-at", metavar="RFC3339", help="When the records arrived. Default: now.")
@click.option("--horizon", metavar="DURATION", help="Refuse rows as late as a worker with this horizon would.")
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.pass_context
def insights(
    ctx: click.Context,
    files: tuple[str, ...],
    link_files: tuple[str, ...],
    rate_files: tuple[str, ...],
    account_files: tuple[str, ...],
    platform: str | None,
    account: str,
    windows: tuple[str, ...],
    campaign: str | None,
    predictions: bool,
    arrived_at: str | None,
    horizon: str | None,
    style: Literal["table", "json"],
) -> None:
    """Compute insights from files, without any server, exactly as workers do.

    Files as in `parallax produce`. Standard error says what became of the rows. Files are history, so no row is too
    late, however old, unless --horizon is given: then snapshots may be that old, and deltas as old as the settings'
    delta_lateness. json prints one insight a line, as on the topic.
    """
    from core import offline
    from schemas import topics as names
    from stream_app.files import check

    settings = settings_of(ctx)
    arrival_ms = arrival(arrived_at)
    config = insight_config(settings, windows)
    sources = [as_source(file) for file in files]
    facts = {
        names.ACCOUNTS: [as_source(file) for file in account_files],
        names.CAMPAIGN_LINKS: [as_source(file) for file in link_files],
        names.RATES: [as_source(file) for file in rate_files],
    }
    if rate_files and not settings.reporting_currency:
        raise SetupError("--rates needs a currency to convert into: set PARALLAX_REPORTING_CURRENCY")
    check([*sources, *chain(*facts.values())])
    computed = offline.compute(
        batches(sources, facts, platform, account, arrival_ms),
        ingest_config(settings, horizon),
        config,
        predictions=predictions,
    )
    shown = [insight for insight in computed.insights if campaign in (None, insight.campaign_id)]
    rates = [rate for rate in computed.predictions if campaign in (None, rate.campaign_id)]
    if style == "json":
        _print_json(shown, rates)
    else:
        _print_tables(shown, rates if predictions else None)
    sys.stdout.flush()
    for line in _account(computed):
        click.echo(printable(line), err=True)


def ingest_config(settings: "Settings", horizon: str | None) -> "Ingest":
    """How files are judged: as by a worker with that horizon, and without one as if no row were too late."""
    import msgspec

    from schemas.dates import LATEST_MS
    from stream_app import domain
    from stream_app.duration import Duration

    ingest = domain.ingest_config(settings)
    snapshots_ms, deltas_ms = LATEST_MS, LATEST_MS
    if horizon is not None:
        try:
            snapshots_ms = Duration.parse(horizon).ms
        except ValueError as error:
            raise SetupError(f"--horizon {horizon}: {error}") from None
        deltas_ms = min(snapshots_ms, settings.delta_lateness.ms)
    lateness = msgspec.structs.replace(ingest.lateness, horizon_ms=snapshots_ms, delta_ms=deltas_ms)
    return msgspec.structs.replace(ingest, partitions=1, lateness=lateness)


def insight_config(settings: "Settings", windows: Sequence[str]) -> "InsightConfig":
    """The settings' windows and benchmarks, with other windows where some are named. Raises ``SetupError``."""
    from stream_app import domain

    named = tuple(dict.fromkeys(windows)) or settings.windows
    try:
        return domain.insight_config(settings.model_copy(update={"windows": named}))
    except ValueError as error:
        raise SetupError(f"{error} in {'--window' if windows else 'PARALLAX_WINDOWS'}") from None


def arrival(arrived_at: str | None) -> int:
    """The instant of --arrived-at, now without one, as UTC milliseconds. Raises ``SetupError``."""
    if arrived_at is None:
        return time.time_ns() // 1_000_000
    from schemas.dates import instant_of
    from schemas.refusal import Refused

    try:
        return instant_of(arrived_at, "--arrived-at")
    except Refused as refused:
        raise SetupError(str(refused)) from None


def batches(
    sources: "Sequence[Source]",
    facts: "Mapping[str, Sequence[Source]]",
    platform: str | None,
    account: str,
    arrival_ms: int,
) -> "Iterator[tuple[str, int, Sequence[SourceRecord]]]":
    """Batches as ``core.offline`` takes them: a topic's records are in one partition, numbered through its files.

    ``facts`` are files by topic.
    """
    from schemas import topics as names
    from schemas.platform import Platform
    from stream_app.files import arrivals, probe

    offset = 0
    for topic, found_in in facts.items():
        for source in found_in:
            for batch in _batched(arrivals(source, arrival_ms, first_offset=offset)):
                offset += len(batch)
                yield topic, 0, batch
    for source in sources:
        found = arrivals(source, arrival_ms, account, offset)
        if platform is None:
            whose, found = probe(source, found)
        else:
            whose = Platform(platform)
        for batch in _batched(found):
            offset += len(batch)
            yield names.METRICS_TOPICS[whose], 0, batch


def _batched(found: "Iterator[FileRecord]") -> "Iterator[Sequence[FileRecord]]":
    while batch := list(islice(found, BATCH)):
        yield batch


def _print_json(insights: "Sequence[CrossPlatformInsight]", predictions: "Sequence[CtrPrediction]") -> None:
    from schemas import insight, prediction

    out = click.get_binary_stream("stdout")
    out.writelines(insight.encode(one) + b"\n" for one in insights)
    out.writelines(prediction.encode(one) + b"\n" for one in predictions)
    out.flush()


def _print_tables(insights: "Sequence[CrossPlatformInsight]", predictions: "Sequence[CtrPrediction] | None") -> None:
    from stream_app.cli.show import show_table

    numbers = ("impressions", "clicks", "ctr", "spend", "roas", "composite", "consistency")
    columns = ("campaign", "window", "start", "platforms", *numbers[:6], "best", "consistency")
    if insights:
        show_table(columns, map(_insight_row, insights), right=numbers)
    else:
        click.echo("no insights")
    if predictions:
        click.echo()
        head = ("campaign", "window", "for", "platform", "ctr", "90% interval", "source")
        show_table(head, _prediction_rows(predictions), right=("ctr", "90% interval"))
    elif predictions is not None:
        click.echo("no predictions")


def _insight_row(insight: "CrossPlatformInsight") -> tuple[str, ...]:
    totals = insight.totals
    return (
        insight.campaign_id,
        insight.window,
        insight.window_start,
        " ".join(insight.platform_breakdown),
        _number(totals.impressions, ","),
        _number(totals.clicks, ","),
        _number(insight.ctr, ".3%"),
        _spend(totals),
        _number(insight.roas, ".2f"),
        _number(insight.composite_score, ".3f"),
        insight.best_platform or "-",
        _number(insight.consistency_score, ".2f"),
    )


def _prediction_rows(predictions: "Sequence[CtrPrediction]") -> Iterator[tuple[str, ...]]:
    for prediction in predictions:
        head = (prediction.campaign_id, prediction.window, prediction.label_start)
        rates: list[tuple[str, CtrPrediction | CtrRate]] = [("all", prediction), *prediction.platforms.items()]
        for platform, rate in rates:
            yield (*head, platform, f"{rate.rate:.3%}", f"{rate.low:.3%} - {rate.high:.3%}", rate.source)


def _number(value: float | None, spelling: str) -> str:
    return "-" if value is None else format(value, spelling)


def _spend(totals: "InsightTotals") -> str:
    """Money in an unknown currency is said to be so where it stands beside other money."""
    unknown = "of unknown currency" if len(totals.money) > 1 else ""
    amounts = ((amount.spend_micros, amount.currency or unknown) for amount in totals.money)
    return " + ".join(f"{micros / MICROS:,.2f} {code}".strip() for micros, code in amounts if micros is not None) or "-"


def _account(computed: "Computed") -> Iterator[str]:
    """The accounting in one line, then the first dead letters, one line each."""
    from stream_app.files import FileRecord

    books = computed.accounting
    yield (
        f"{books.records:,} records = {books.rows:,} rows: {books.applied:,} applied, {books.duplicate:,} duplicate,"
        f" {books.superseded:,} superseded, {_counted('dead letters', books.dead_letters)},"
        f" {_counted('ignored', books.ignored)}"
    )
    for row in computed.rejected[:LETTERS_SHOWN]:
        place = (
            f"{row.record.place} record {row.record.number}" if isinstance(row.record, FileRecord) else row.letter.id
        )
        yield f"  {place}, row {row.letter.source.index}: {row.letter.code}: {row.letter.sentence}"
    if len(computed.rejected) > LETTERS_SHOWN:
        yield f"  and {len(computed.rejected) - LETTERS_SHOWN:,} more dead letters"


def _counted(what: str, counts: Mapping[str, int]) -> str:
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in counts.items())
    return f"{sum(counts.values()):,} {what}" + (f" ({reasons})" if reasons else "")


COMMANDS: Final = (insights,)
