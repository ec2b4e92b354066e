"""``scorecard``: how well the live CTR predictions have done, from what the workers publish."""

import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from stream_app.cli.shell import horizon_option, plot_option, printable, quiet, server_settings

if TYPE_CHECKING:
    from core.learning.measures import Measures
    from schemas.scorecard import LearnedScorecard

NAMES: Final = {"1h": "hour", "1d": "day", "7d": "week"}


@click.command(short_help="Print how well the live CTR predictions have done.")
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True)
@horizon_option
@plot_option
@click.pass_context
def scorecard(ctx: click.Context, style: Literal["table", "json"], horizon: str, plot: Path | None) -> None:
    """Print the scorecard of all partitions: every prediction of a day, judged once when the day had closed, beside
    the baselines on the same rows.

    With --horizon 7d each campaign's week after week on each platform; with 1h one hour a day of those that report
    hours.
    """
    from stream_app import scorecards

    quiet()
    if plot is not None:
        from stream_app.plots import checked_target

        checked_target(plot)
    cards = scorecards.newest(server_settings(ctx))
    report = _report(cards, horizon)
    if style == "json":
        import msgspec

        click.echo(msgspec.json.encode(report))
    elif not report["rows"]:
        click.echo(f"no {NAMES[horizon]} has been scored")
    else:
        _print(report)
    if plot is not None:
        _plot(plot, cards, horizon, report["verdict"])
    sys.stdout.flush()


def _plot(path: Path, cards: "dict[int, LearnedScorecard]", horizon: str, verdict: list[str]) -> None:
    from stream_app import plots
    from stream_app.errors import ParallaxError
    from stream_app.scorecards import merged

    card = merged(cards.values(), horizon)
    if card is None:
        raise ParallaxError(f"no {NAMES[horizon]} has been scored, so {path} was not written")
    title = f"CTR predictions of the stream, one {NAMES[horizon]} ahead"
    plots.write(path, plots.Plot(card, title, verdict, _date, "day"))


def _date(day: int) -> date:
    from schemas.calendar import iso_date

    return date.fromisoformat(iso_date(day))


def _report(cards: "dict[int, LearnedScorecard]", horizon: str) -> dict[str, Any]:
    from core.learning import walk
    from core.learning.baselines import BASELINES
    from core.learning.measures import TEST, curve, measures, verdict
    from schemas.calendar import iso_date
    from stream_app.scorecards import merged, summary

    card = merged(cards.values(), horizon)
    if card is None:
        return {"horizon": horizon, "partitions": {}, "rows": 0, "verdict": ["no window was scored"]}
    comparisons, lines = verdict(card, walk.DEFAULT, walk.MODEL, BASELINES)
    judged = measures(card)
    return {
        # By platform they are among the segments, with all measures.
        **{key: value for key, value in summary(list(cards.values()), horizon).items() if key != "by_platform"},
        "horizon": horizon,
        "partitions": {
            str(partition): {
                "first_day": iso_date(one.first_day),
                "last_day": iso_date(one.last_day),
                "model": one.model,
                "standings": {
                    platform: {"promoted": serves, "reason": reason}
                    for platform, (serves, reason) in one.standings.items()
                },
            }
            for partition, one in cards.items()
        },
        "summary": {one.predictor: one for one in judged if one.axis == "all"},
        "segments": [one for one in judged if one.axis != "all"],
        "calibration_curve": {predictor: curve(card, predictor) for predictor in card.predictors},
        "test": TEST,
        "comparisons": comparisons,
        "verdict": lines,
    }


def _print(report: dict[str, Any]) -> None:
    from stream_app.cli.backtest import show_measures

    judged: list[Measures] = list(report["summary"].values())
    click.echo(
        f"{report['rows']:,} predictions of one {NAMES[report['horizon']]}, {report['impressions']:,} impressions,"
        f" {report['days']} days up to {report['last_day']}; {len(report['partitions'])} partitions"
    )
    click.echo()
    show_measures(judged, report["segments"], report["calibration_curve"]["served"])
    click.echo()
    for partition, one in report["partitions"].items():
        for platform, standing in one["standings"].items():
            if one["model"]:
                state = "promoted" if standing["promoted"] else "not promoted"
                click.echo(
                    printable(f"partition {partition}, {one['model']} on {platform}: {state} ({standing['reason']})")
                )
    for line in report["verdict"]:
        click.echo(f"verdict: {line}")


COMMANDS: Final = (scorecard,)
