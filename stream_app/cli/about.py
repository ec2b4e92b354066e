"""``settings`` and ``schema``: what can be set, and what the wire holds."""

import json
from typing import Final

import click

from stream_app.cli.shell import settings_of


@click.command(short_help="List the settings and their sources.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: value and source by name.")
@click.pass_context
def settings(ctx: click.Context, as_json: bool) -> None:
    """List every setting with its value and where that comes from. Secrets are masked."""
    from stream_app.settings import describe

    described = describe(settings_of(ctx))
    if as_json:
        found = {name: {"value": value, "source": source} for name, value, source in described}
        click.echo(json.dumps(found, indent=2))
        return
    from stream_app.cli.show import show_table

    show_table(("setting", "value", "source"), described)


@click.command(short_help="Print the JSON Schema of the wire contracts.")
@click.argument("name", required=False)
def schema(name: str | None) -> None:
    """Print the JSON Schema of a wire contract, or of all.

    NAME is metric-event, campaign-link, exchange-rate, account, creative, insight, prediction, creative-score,
    model-header or dead-letter.
    """
    from stream_app import contracts

    found = contracts.schemas() if name is None else contracts.schema(name)
    click.echo(json.dumps(found, indent=2, ensure_ascii=False))


COMMANDS: Final = (settings, schema)
