"""``patterns``: what winning campaigns have in common, on call or kept rolling."""

import asyncio
import sys
from typing import TYPE_CHECKING, Final, Literal

import click

from stream_app.cli.shell import interruptible, printable, quiet, record_progress, server_settings
from stream_app.errors import ParallaxError, SetupError

if TYPE_CHECKING:
    from core.learning.live_campaigns import LiveCampaigns
    from schemas.patterns import AccountPatterns
    from stream_app.caches import Cached
    from stream_app.live_insights import Fed
    from stream_app.settings import Settings

COMPUTING_S: Final = 120.0
"""How long others leave a computation to the one that began it."""
UNKNOWN: Final = "-"


@click.command(short_help="Show what winning campaigns have in common across platforms.")
@click.option("--account", metavar="PLATFORM:ID", help="Of this ad account's campaigns alone.")
@click.option(
    "--min-roas", type=click.FloatRange(0), default=2.0, show_default=True, metavar="X", help="ROAS that wins."
)
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--follow", is_flag=True, help="Keep the patterns of all accounts rolling, until ended.")
@click.option("--tethered", is_flag=True, hidden=True, help="End with standard input.")
@click.pass_context
def patterns(
    ctx: click.Context,
    account: str | None,
    min_roas: float,
    style: Literal["table", "json"],
    follow: bool,
    tethered: bool,
) -> None:
    """Show what winning campaigns have in common, from each campaign's newest week (the window 7d).

    The answer comes from the cache in Redis where it is there, else it is computed from insights.latest.

    With --follow, patterns of every account that has campaigns, and of all together, are kept in the topic
    patterns.cross-platform and in the cache: those that changed are computed anew, at most once every
    PARALLAX_PATTERNS_EVERY (5m where that is not set). Workers run this themselves where that is set.
    """
    quiet()
    settings = server_settings(ctx)
    if follow:
        if account is not None:
            raise SetupError("--follow keeps the patterns of all accounts: leave out --account")
        if tethered:
            _end_with_standard_input()
        with interruptible("ended"):
            _follow(settings, min_roas)
        return
    wanted = of_account(account)
    found, cached = asyncio.run(answer(settings, wanted, min_roas))
    if style == "json":
        import msgspec

        facts = {"source": cached.source, "age_seconds": round(cached.age_seconds, 3)}
        click.echo(msgspec.json.encode(facts | msgspec.to_builtins(found), order="deterministic"))
    else:
        _print(found, cached)
    sys.stdout.flush()


def _end_with_standard_input() -> None:
    import os
    import threading

    def wait() -> None:
        while sys.stdin.buffer.read(4096):
            pass
        # What is under way is published by the next one: it compares with what the topic holds.
        os._exit(0)

    threading.Thread(target=wait, name="tether", daemon=True).start()


def _follow(settings: "Settings", min_roas: float) -> None:
    from stream_app.patterns_follower import PatternsFollower

    PatternsFollower(settings, min_roas, lambda done: click.echo(printable(str(done)))).run()


def of_account(account: str | None) -> str:
    """The account asked for, or ``all``. Raises ``SetupError`` for what is none."""
    from schemas.patterns import ALL
    from stream_app.settings import REPORTING_PLATFORMS

    if account is None:
        return ALL
    platform, _, own = account.partition(":")
    if platform not in map(str, REPORTING_PLATFORMS) or not own:
        raise SetupError(f"--account {account} is not PLATFORM:ID with a platform of meta, tiktok or google_ads")
    return account


def read_live(settings: "Settings") -> "LiveCampaigns":
    """The campaigns that are live, with a bar on a terminal. Raises ``ParallaxError`` where there are none."""
    from stream_app.live_insights import live_campaigns

    return fed(settings, live_campaigns(settings))


def fed(settings: "Settings", campaigns: "Fed") -> "Fed":
    """Campaigns with all that ``insights.latest`` says of them. Raises ``ParallaxError`` where that is nothing."""
    from stream_app.live_insights import LiveInsights

    with LiveInsights(settings, campaigns) as insights, record_progress() as progress:
        insights.catch_up(progress)
    if not len(campaigns):
        raise ParallaxError(f"no campaign has an insight of window {campaigns.window} yet: is a worker running?")
    return campaigns


async def answer(settings: "Settings", account: str, min_roas: float) -> "tuple[AccountPatterns, Cached]":
    """An account's patterns, from the cache where it has them as they would be computed now."""
    from schemas.patterns import WINDOW, decode
    from stream_app.caches import Caches
    from stream_app.domain import insight_config
    from stream_app.live_insights import live_campaigns
    from stream_app.patterns_follower import cache_key

    live_campaigns(settings)
    profile, key = insight_config(settings).profile, cache_key(account, min_roas)
    caches = Caches.of(settings, lock_seconds=COMPUTING_S)

    async def compute() -> bytes:
        return await asyncio.to_thread(_computed, settings, account, min_roas)

    try:
        for again in (True, False):
            cached = await caches.get("patterns", key, compute)
            try:
                found = decode(cached.value)
            except ValueError:
                found = None
            if found is not None and (found.benchmarks, found.window) == (profile.version, WINDOW):
                return found, cached
            if again:
                # Written by another version, or with other benchmarks.
                await caches.forget("patterns", key)
    finally:
        await caches.close()
    raise ParallaxError("the patterns in the cache are of other benchmarks, and come back: mend PARALLAX_PROFILE_FILE")


def _computed(settings: "Settings", account: str, min_roas: float) -> bytes:
    from core.learning.account_patterns import account_patterns
    from core.normalizer import PlatformNormalizer
    from schemas.patterns import encode
    from stream_app.domain import insight_config

    live = read_live(settings)
    campaigns = live.of(account)
    if not campaigns:
        known = ", ".join(live.accounts()[:5]) or "none, for no row named one"
        raise ParallaxError(f"no campaign of account {account} is live; accounts with campaigns: {known}")
    normalizer = PlatformNormalizer(insight_config(settings).profile)
    return encode(account_patterns(campaigns, normalizer, account, min_roas))


def _print(found: "AccountPatterns", cached: "Cached") -> None:
    from stream_app.cli.show import show_table

    own = found.patterns
    told = {
        "computed": f"computed now from {own.total_campaigns:,} campaigns",
        "shared": f"computed just now by another command from {own.total_campaigns:,} campaigns",
        "stored": f"from the cache, {cached.age_seconds:,.0f} s old",
        "stale": f"STALE, from the cache, {cached.age_seconds:,.0f} s old: not computed now, or just being computed",
    }[cached.source]
    click.echo(printable(f"patterns of {found.account} up to {found.as_of}, window {found.window}: {told}"))
    rate = interval_text(own.win_rate, own.win_rate_low, own.win_rate_high, "{:.0%}")
    click.echo(
        f"{own.total_winners:,} of {own.judged_campaigns:,} campaigns with a ROAS won with {own.min_roas:g} or more:"
        f" {rate}; {own.multi_platform_winners:,} of them on several platforms"
    )
    best = own.best_platform_combo
    click.echo(
        f"best platforms: {'+'.join(best.combo)}"
        if best
        else f"best platforms: not enough evidence, no combination has {own.min_support} campaigns with a ROAS"
    )
    click.echo()
    combos = [
        ("+".join(one.combo), f"{one.count:,}", f"{one.avg_roas:.2f}", f"{one.low:.2f} to {one.high:.2f}",
         f"{one.observed_roas:.2f}")
        for one in own.combos
    ]  # fmt: skip
    show_table(
        ("platforms", "campaigns", "ROAS", "90% interval", "observed"), combos, right=("campaigns", "ROAS", "observed")
    )
    click.echo()
    stats = [
        (
            str(platform),
            f"{one.campaigns:,}",
            f"{one.winners:,}",
            interval_text(one.win_rate, one.win_rate_low, one.win_rate_high, "{:.0%}"),
            UNKNOWN if one.roas is None else interval_text(one.roas.value, one.roas.low, one.roas.high, "{:.2f}"),
            *(_value(value) for value in (one.avg_normalized_ctr, one.avg_normalized_engagement, one.avg_composite)),
        )
        for platform, one in own.platform_stats.items()
    ]
    columns = ("platform", "campaigns", "winners", "win rate", "ROAS", "norm. CTR", "norm. engagement", "composite")
    show_table(columns, stats, right=columns[1:3] + columns[5:])


def _value(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.3f}"


def interval_text(value: float | None, low: float | None, high: float | None, form: str) -> str:
    """A value with its 90 % interval, as each is formatted."""
    if value is None or low is None or high is None:
        return UNKNOWN
    return f"{form.format(value)} ({form.format(low)} to {form.format(high)})"


COMMANDS: Final = (patterns,)
