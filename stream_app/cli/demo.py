"""``demo``: the main job on servers of its own."""

from pathlib import Path
from typing import Final

import click


@click.command(short_help="Run everything on servers of its own, and check it.")
@click.option("--seed", type=int, default=7, show_default=True, help="The same seed gives the same insights.")
@click.option("--campaigns", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option("--days", type=click.IntRange(2, 90), default=14, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of the report.")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Publish these rows too. Repeatable.",
)
@click.option("--keep", is_flag=True, help="Stay up, with live traffic, until Ctrl-C.")
@click.pass_context
def demo(
    ctx: click.Context, seed: int, campaigns: int, days: int, as_json: bool, inputs: tuple[Path, ...], keep: bool
) -> None:
    """Run the whole pipeline on embedded servers and simulated ad accounts, and check its results."""
    from stream_app.demo import run

    ctx.exit(run(seed=seed, campaigns=campaigns, days=days, as_json=as_json, inputs=list(inputs), keep=keep))


COMMANDS: Final = (demo,)
