"""``maturity``: learn from restated reports how conversions mature."""

import time
from typing import Final

import click

from stream_app.cli.shell import PLATFORMS, as_source, settings_of
from stream_app.errors import ParallaxError


@click.command(short_help="Learn from restated reports how conversions mature.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--platform", type=click.Choice(PLATFORMS), help="Whose rows these are. Default: each file's content.")
@click.option("--account", default="", metavar="ID", help="Account of rows that name none.")
@click.option(
    "--min-support",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    metavar="N",
    help="Rows that must show an age.",
)
@click.pass_context
def maturity(ctx: click.Context, files: tuple[str, ...], platform: str | None, account: str, min_support: int) -> None:
    """Learn from reports that were pulled several times what share of a day's conversions is there after how long.

    Prints the settings' benchmark profile with the curves that the files show, as JSON for PARALLAX_PROFILE_FILE.
    Rows must say when they were pulled, as those in the envelopes of connectors do. Standard error tells what was seen.
    """
    import msgspec

    from core.maturity import development_factors
    from schemas.platform import Platform
    from stream_app.domain import insight_config
    from stream_app.files import check
    from stream_app.restatements import observations

    settings = settings_of(ctx)
    profile = insight_config(settings).profile
    sources = [as_source(file) for file in files]
    check(sources)
    whose = None if platform is None else Platform(platform)
    seen = observations(sources, whose, account, settings.known_accounts(), time.time_ns() // 1_000_000)
    found = development_factors(seen, min_support)
    known = {platform: benchmarks for platform, benchmarks in profile.platforms.items() if platform in found}
    if not known:
        raise ParallaxError(
            f"{len(seen):,} rows of whole days with conversions, but no {min_support} that were pulled on two days:"
            " give files of more pulls, or a smaller --min-support"
        )
    learnt = {
        platform: msgspec.structs.replace(benchmarks, maturity=found[platform].curve)
        for platform, benchmarks in known.items()
    }
    version = f"{profile.version.removesuffix(LEARNT)}{LEARNT}"
    changed = msgspec.structs.replace(profile, version=version, platforms=profile.platforms | learnt)
    click.echo(msgspec.json.format(msgspec.json.encode(changed), indent=2))
    for name in learnt:
        factors = found[name].factors
        least = min(factor.support for factor in factors)
        click.echo(
            f"{name}: days {factors[0].age} to {factors[-1].age + 1} after a day's end, at least {least:,} rows each",
            err=True,
        )


LEARNT: Final = "+maturity"
COMMANDS: Final = (maturity,)
