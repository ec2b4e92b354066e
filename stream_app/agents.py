"""The agents, tasks and pages of a worker: what calls the stages, and when."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from schemas import topics as names
from stream_app.health import status
from stream_app.metrics import CONTENT_TYPE, page
from stream_app.model_follower import DAILY
from stream_app.retraining import Retrainer
from stream_app.topics import name

if TYPE_CHECKING:
    from stream_app.app import ParallaxApp

HEARTBEAT_S = 0.5


def attach(app: "ParallaxApp") -> None:
    """Give an application its agents, its tasks and its health page."""

    def topic(base: str) -> Any:
        return app.topic(
            name(app.settings, base), key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
        )

    async def consume(stream: Any, stage: Any) -> None:
        async for event in stream.noack().events():
            if not app.is_current(event):
                continue
            try:
                await app.open_assigned()
                # The partition may have gone, and even come back, while others were being opened.
                if not app.is_current(event):
                    continue
                await stage.take(event, app.consumer)
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                await app.fail(error)
                raise

    for base in names.INGEST_TOPICS:

        async def ingest(stream: Any) -> None:
            await consume(stream, app.ingest)

        app.agent(topic(base), name=f"ingest-{base}")(ingest)

    @app.agent(topic(names.ROUTED), name="aggregate")
    async def aggregate(stream: Any) -> None:
        await consume(stream, app.aggregate)

    @app.agent(topic(names.ROLLUPS), name="insights")
    async def insights(stream: Any) -> None:
        await consume(stream, app.insights)

    @app.page("/health/")
    async def health(_web: Any, _request: Any) -> Any:
        found = status(app)
        return app.web.json(found, status=200 if found["ready"] else 503)

    @app.page("/metrics")
    async def metrics(_web: Any, _request: Any) -> Any:
        # As a header, for its character set is no part of what aiohttp calls the content type.
        return app.web.bytes(page(status(app)), headers={"Content-Type": CONTENT_TYPE})

    @app.task  # type: ignore[untyped-decorator]
    async def checkpoint() -> None:
        await _repeat(app, app.settings.checkpoint_interval.seconds, app.check)

    @app.task  # type: ignore[untyped-decorator]
    async def retrain() -> None:
        # One of the workers is enough: the one that has the first partition.
        await Retrainer(
            app.settings,
            published_ms=lambda: app.models.status().models[DAILY].published_ms,
            leads=lambda: app.models.status().caught_up and 0 in app.insights.partitions,
        ).run()

    @app.task  # type: ignore[untyped-decorator]
    async def keep_patterns() -> None:
        await app.patterns.run()

    @app.task  # type: ignore[untyped-decorator]
    async def heartbeat() -> None:
        await _repeat(app, HEARTBEAT_S, app.beat)


async def _repeat(app: "ParallaxApp", seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """Do work again and again until the worker stops; a failure ends the worker."""
    while not app.should_stop and not app.draining:
        await app.sleep(seconds)
        try:
            await work()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, going on would acknowledge what was lost
            await app.fail(error)
            return
