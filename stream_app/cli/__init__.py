"""The ``parallax`` command. Commands import what they need when they run, so that help and settings come at once."""

from pathlib import Path

import click

from stream_app.cli import (
    about,
    backtest,
    creatives,
    dead_letters,
    demo,
    drift,
    maturity,
    offline,
    patterns,
    recommend,
    records,
    replay,
    scorecard,
    servers,
    train,
)
from stream_app.cli.shell import OneLine


def _show_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import PackageNotFoundError, version

        try:
            click.echo(f"parallax {version('parallax')}")
        except PackageNotFoundError:
            click.echo("parallax, not installed: run from its source tree")
        ctx.exit()


@click.group(cls=OneLine, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Settings file (TOML); the environment overrides it. Default: what PARALLAX_CONFIG names.",
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Version.")
@click.pass_context
def cli(ctx: click.Context, config: Path | None) -> None:
    """Cross-platform advertising data: Kafka in, insights and CTR predictions out.

    \b
    Try it:        parallax demo
    From files:    parallax insights rows.jsonl --links links.jsonl --window 24h
    Real servers:  parallax topics create; parallax worker; parallax tail insights
    """
    ctx.obj = config


MODULES = (
    about,
    servers,
    records,
    replay,
    dead_letters,
    offline,
    maturity,
    backtest,
    train,
    scorecard,
    drift,
    patterns,
    recommend,
    creatives,
    demo,
)
for module in MODULES:
    for command in module.COMMANDS:
        cli.add_command(command)


def main() -> None:
    """Run the command of this process's arguments; ends the process."""
    cli(prog_name="parallax")
