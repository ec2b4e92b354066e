"""``topics``, ``worker``, ``health``, ``hot`` and ``caches``: the servers, and what runs on them."""

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from stream_app.cli.shell import horizon_option, printable, quiet, server_settings, settings_of
from stream_app.errors import ParallaxError, ServerAbsent, SetupError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from stream_app.caches import CacheCounts, Kind
    from stream_app.hot_scorecards import Held
    from stream_app.hot_store import HotStore, HotValue
    from stream_app.settings import Settings

ANSWER_S: Final = 4.0
LARGEST_PAGE: Final = 1 << 20


@click.group()
def topics() -> None:
    """Make, show and check the Kafka topics."""


@topics.command()
@click.pass_context
def create(ctx: click.Context) -> None:
    """Make the topics that are missing. Refuses when one that exists is not as planned."""
    from stream_app import topics as kafka

    report = kafka.create(server_settings(ctx))
    for name in report.created:
        click.echo(f"created {name}")
    click.echo(f"{len(report.created)} topics created, {len(report.existing)} were there")


@topics.command(short_help="Show the topics that the settings ask for.")
@click.option("--json", "as_json", is_flag=True, help="A list of objects: name, partitions, config.")
@click.pass_context
def plan(ctx: click.Context, as_json: bool) -> None:
    """Show the topics that the settings ask for, without speaking to Kafka."""
    from stream_app import topics as kafka

    settings = settings_of(ctx)
    planned = [(topic, topic.config(settings.replication_factor)) for topic in kafka.plan(settings)]
    if as_json:
        found = [{"name": topic.name, "partitions": topic.partitions, "config": config} for topic, config in planned]
        click.echo(json.dumps(found, indent=2))
        return
    from stream_app.cli.show import show_table

    rows = [
        (
            topic.name,
            str(topic.partitions),
            config["cleanup.policy"],
            _retention(topic.retention_ms),
            config["message.timestamp.type"],
            f"{topic.max_message_bytes:,}",
        )
        for topic, config in planned
    ]
    columns = ("topic", "partitions", "cleanup", "retention", "timestamps", "largest message")
    show_table(columns, rows, right=("partitions", "retention", "largest message"))


def _retention(retention_ms: int) -> str:
    from stream_app.duration import Duration

    return "for good" if retention_ms < 0 else str(Duration(retention_ms))


@topics.command()
@click.pass_context
def verify(ctx: click.Context) -> None:
    """Check that every topic is there and as planned."""
    from stream_app import topics as kafka

    settings = server_settings(ctx)
    kafka.verify(settings)
    click.echo(f"{len(kafka.plan(settings))} topics are as planned")


@click.command(short_help="Run a worker; any number share the work.")
@click.pass_context
def worker(ctx: click.Context) -> None:
    """Run a worker until it is told to stop. Any number of them share the work."""
    settings = server_settings(ctx)
    from core.window import parse_window

    try:
        for window in settings.windows:
            parse_window(window)
    except ValueError as error:
        raise SetupError(f"{error}: mend PARALLAX_WINDOWS") from None
    _refuse_taken(settings.health_port)
    from stream_app.worker import run

    run(settings)


def _refuse_taken(health_port: int) -> None:
    """Raises ``SetupError`` where another process, such as another worker, listens on the port."""
    import socket

    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", health_port))
        except OSError as error:
            raise SetupError(
                f"port {health_port} for the health page cannot be had ({error.strerror}): set PARALLAX_HEALTH_PORT to"
                " another one, or to 0 for no page"
            ) from None


@click.command(short_help="Ask the worker on this machine how it is.")
@click.pass_context
def health(ctx: click.Context) -> None:
    """Print what the worker on this machine says of itself; exit code 0 when it is ready, else 1."""
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import ProxyHandler, build_opener

    port = settings_of(ctx).health_port
    if not port:
        raise ParallaxError("the worker has no health page: set PARALLAX_HEALTH_PORT to a port above 0")
    address = f"http://127.0.0.1:{port}/health/"
    try:
        with build_opener(ProxyHandler({})).open(address, timeout=ANSWER_S) as answer:
            body = answer.read(LARGEST_PAGE)
    except HTTPError as error:
        with error:
            body = error.read(LARGEST_PAGE)
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise ParallaxError(
            f"no worker answers at {address} ({reason}): start one with `parallax worker` or set PARALLAX_HEALTH_PORT"
        ) from None
    try:
        status = json.loads(body)
    except ValueError:
        raise ParallaxError(f"what answers at {address} is no Parallax worker: set PARALLAX_HEALTH_PORT") from None
    click.echo(json.dumps(status, indent=2))
    ctx.exit(0 if isinstance(status, dict) and status.get("ready") is True else 1)


@click.command(short_help="Print what Redis holds of a campaign, or the scorecards.")
@click.argument("campaign", required=False)
@click.option("--window", default="24h", show_default=True)
@click.option("--kind", type=click.Choice(["insight", "prediction"]), default="insight", show_default=True)
@click.option(
    "--scorecard", is_flag=True, help="Each partition's scorecard of a horizon, instead of a campaign's values."
)
@horizon_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object on one line; of scorecards one a partition.")
@click.pass_context
def hot(
    ctx: click.Context,
    campaign: str | None,
    window: str,
    kind: Literal["insight", "prediction"],
    scorecard: bool,
    horizon: str,
    as_json: bool,
) -> None:
    """Print what Redis holds of a campaign: value, age, freshness and time to live. Exit code 1 when it has none.

    With --scorecard print how well the predictions have done, by partition, as the workers keep it in Redis.
    """
    from schemas.calendar import iso_instant

    quiet()
    if scorecard == (campaign is not None):
        raise SetupError("name a campaign, or give --scorecard without one")
    settings = server_settings(ctx)
    if campaign is None:
        from stream_app.cli.hot_scorecard import show

        show(asyncio.run(_scorecards(settings, horizon)), as_json=as_json)
        return
    found = asyncio.run(_get(settings, campaign, window, kind))
    if found is None:
        raise ParallaxError(f"Redis holds no {kind} of campaign {campaign} and window {window}")
    value = _value(found.value)
    if as_json:
        facts = {
            "value": value,
            "age_seconds": round(found.age_seconds, 3),
            "freshness": found.freshness,
            "ttl_seconds": found.ttl_seconds,
            "as_of": iso_instant(found.as_of_ms),
            "version": list(found.version),
        }
        click.echo(json.dumps(facts))
        return
    click.echo(
        printable(f"{kind} of {campaign}, {window}: {found.freshness}, {found.age_seconds:,.1f} s old, to live")
        + f" {found.ttl_seconds:,.0f} s, covers up to {iso_instant(found.as_of_ms)}"
    )
    click.echo(json.dumps(value, indent=2))


async def _get(
    settings: "Settings", campaign: str, window: str, kind: Literal["insight", "prediction"]
) -> "HotValue | None":
    async with _hot_store(settings) as store:
        return await store.get(campaign, window, kind)


async def _scorecards(settings: "Settings", horizon: str) -> "list[Held]":
    from stream_app.hot_scorecards import read

    async with _hot_store(settings) as store:
        return await read(store, settings.partitions, horizon)


@contextlib.asynccontextmanager
async def _hot_store(settings: "Settings") -> "AsyncIterator[HotStore]":
    from stream_app.hot_store import HotStore, HotStoreDown

    store = HotStore.of(settings)
    try:
        yield store
    except HotStoreDown as down:
        raise ServerAbsent(
            f"Redis at {settings.redis_host}:{settings.redis_port} does not serve ({down.reason}): start it or set"
            " REDIS_HOST and REDIS_PORT"
        ) from None
    finally:
        await store.close()


@click.command(short_help="Print how often the caches in Redis had the answer.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on one line.")
@click.pass_context
def caches(ctx: click.Context, as_json: bool) -> None:
    """Print how often the caches had the answer, by kind, over all processes since Redis was started.

    A hit comes from Redis in time; one that waited for another's computation is shared, one that was served from the
    copy that has outlived its time stale. Errors are times that Redis failed, failures computations that did.
    """
    import msgspec

    quiet()
    settings = server_settings(ctx)
    if not settings.cache_enabled:
        raise SetupError("the caches are off: set CACHE_ENABLED=true")
    told = asyncio.run(_counts(settings))
    if told is None:
        raise ServerAbsent(
            f"Redis at {settings.redis_host}:{settings.redis_port} does not serve: start it or set REDIS_HOST and"
            " REDIS_PORT"
        )
    facts = {kind: msgspec.structs.asdict(counts) | {"hit_rate": counts.hit_rate} for kind, counts in told.items()}
    if as_json:
        click.echo(json.dumps(facts))
        return
    from stream_app.cli.show import show_table

    columns = ("kind", *next(iter(facts.values())))
    rows = [
        (
            kind,
            *(
                "-" if value is None else f"{value:.1%}" if isinstance(value, float) else f"{value:,}"
                for value in own.values()
            ),
        )
        for kind, own in facts.items()
    ]
    show_table(
        [column.replace("_", " ") for column in columns],
        rows,
        right=[column.replace("_", " ") for column in columns[1:]],
    )


async def _counts(settings: "Settings") -> "dict[Kind, CacheCounts] | None":
    from stream_app.caches import Caches

    caches = Caches.of(settings)
    try:
        return await caches.counts_of_all()
    finally:
        await caches.close()


def _value(stored: bytes) -> Any:
    try:
        return json.loads(stored)
    except ValueError:
        return stored.decode("utf-8", "replace")


COMMANDS: Final = (topics, worker, health, hot, caches)
