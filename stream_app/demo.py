"""The demo: the whole main job on embedded servers, with simulated connectors, and a check of itself.

The worker is a process of its own that runs the production application. What it published is compared, insight by
insight and byte for byte, with ``core`` run offline over the records as the broker stored them.
"""

import itertools
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from core.offline import Computed, compute
from schemas.calendar import iso_instant
from schemas.topics import CAMPAIGN_LINKS, METRICS_TOPICS
from stream_app.demo_report import Observed, build_report
from stream_app.domain import ingest_config, insight_config
from stream_app.embedded import embedded_kafka, embedded_redis
from stream_app.errors import ParallaxError, SetupError
from stream_app.feed import Feed
from stream_app.files import arrivals, probe
from stream_app.local_worker import Drained, LocalWorker
from stream_app.outputs import Outputs
from stream_app.settings import PREFIX, UNPREFIXED, Settings, shown, variable
from stream_app.simulator import SimRecord, Simulation, live, simulate
from stream_app.summary import Latency, Rate, render, to_json
from stream_app.topics import create

START_S: Final = 30.0
STEP_S: Final = 40.0
TRICKLE: Final = 600
TRICKLE_PER_SECOND: Final = 200
PARTITION_BYTES: Final = 4 * 1024 * 1024
"""What a partition of the embedded broker may be given: it keeps 5 MiB, and forgets what came first."""
EVER: Final = "3660d"


class Steps(msgspec.Struct, frozen=True):
    """What is published: labelled steps, then live events; and what is known of the accounts and campaigns."""

    steps: list[tuple[str, list[SimRecord]]]
    events: Iterator[SimRecord]
    simulation: Simulation | None


def run(*, seed: int, campaigns: int, days: int, as_json: bool, inputs: Sequence[Path] = (), keep: bool = False) -> int:
    """Run the demo; the exit code. Prints a summary, or one JSON object. Raises ``ParallaxError``."""
    started = time.monotonic()
    feed_plan = _from_files(inputs, seed) if inputs else _simulated(seed, campaigns, days)
    _refuse_too_much(feed_plan)
    console = Console(stderr=as_json)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="parallax-demo-")))
        bootstrap = stack.enter_context(embedded_kafka())
        redis_host, redis_port = stack.enter_context(embedded_redis())
        settings = _settings(bootstrap, redis_host, redis_port, folder, feed_plan)
        create(settings)
        worker = LocalWorker(_environment(settings), folder / "worker.log")
        stack.callback(worker.process.stop)
        outputs = stack.enter_context(Outputs(settings))
        drained = Drained(settings)
        stack.callback(drained.close)
        observed, computed = _observe(console, feed_plan, settings, worker, outputs, drained, quiet=as_json)
        report = build_report(observed, computed, outputs, settings, feed_plan.simulation, time.monotonic() - started)
        if as_json:
            sys.stdout.buffer.write(to_json(report) + b"\n")
            sys.stdout.flush()
        else:
            render(report, console)
        if keep:
            _keep(console, settings, feed_plan, worker)
    return 0 if report.ok else 1


def _simulated(seed: int, campaigns: int, days: int) -> Steps:
    try:
        simulation = simulate(seed, campaigns, days)
    except ValueError as error:
        raise SetupError(str(error)) from error
    steps = [(step.day_label, step.records) for step in simulation.steps]
    last = max(record.timestamp_ms for _, records in steps for record in records)
    return Steps(steps, live(seed, last + 1_000, campaigns, days), simulation)


def _from_files(paths: Sequence[Path], seed: int) -> Steps:
    now_ms = time.time_ns() // 1_000_000
    steps = []
    for path in paths:
        platform, records = None, list(arrivals(path, now_ms))
        if records and _is_link(records[0].value):
            topic = CAMPAIGN_LINKS
        else:
            platform, _ = probe(path, iter(records))
            topic = METRICS_TOPICS[platform]
        steps.append(
            (
                path.name,
                [SimRecord(topic, record.key, record.value, now_ms, list(record.headers)) for record in records],
            )
        )
    return Steps(steps, live(seed, now_ms), None)


def _is_link(payload: bytes | None) -> bool:
    try:
        body = orjson.loads(payload or b"")
    except ValueError:
        return False
    return isinstance(body, dict) and "platform_campaign_id" in body


def _refuse_too_much(plan: Steps) -> None:
    sizes: dict[str, int] = {}
    for _, records in plan.steps:
        for record in records:
            sizes[record.topic] = sizes.get(record.topic, 0) + len(record.value or b"") + 100
    topic, size = max(sizes.items(), key=lambda item: item[1], default=("", 0))
    if size > 4 * PARTITION_BYTES:
        raise SetupError(
            f"{size >> 20} MiB for {topic} are more than the embedded broker keeps: take fewer campaigns, days or"
            " files, or a real Kafka and `parallax produce`"
        )


def _settings(bootstrap: str, host: str, port: int, folder: Path, plan: Steps) -> Settings:
    wide: dict[str, Any] = {"horizon": EVER, "delta_lateness": EVER}
    if plan.simulation is not None:
        wide = {"accounts": plan.simulation.accounts}
    return Settings(
        kafka_bootstrap=bootstrap,
        redis_host=host,
        redis_port=port,
        datadir=folder / "data",
        # The embedded broker has no transactions, and there is one worker alone.
        fencing="none",
        **wide,
    )


def _environment(settings: Settings) -> dict[str, str]:
    """The worker's environment: these settings, and nothing that this process was told of others."""
    theirs = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(PREFIX) and name not in {field.upper() for field in UNPREFIXED}
    }
    ours = {
        variable(field): shown(getattr(settings, field))
        for field in settings.model_fields_set
        if field != "redis_password"
    }
    return theirs | ours | {"PARALLAX_LOG_LEVEL": "WARNING"}


def _observe(
    console: Console,
    plan: Steps,
    settings: Settings,
    worker: LocalWorker,
    outputs: Outputs,
    drained: Drained,
    *,
    quiet: bool,
) -> tuple[Observed, Computed]:
    """Publish everything, let the worker finish it, and compute the same offline."""
    feed = Feed(settings)
    rate = None
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=quiet,
        transient=True,
    ) as progress:
        task = progress.add_task("starting the worker", total=len(plan.steps) + 3)
        _wait_ready(worker)
        progress.advance(task)
        for label, records in plan.steps:
            progress.update(task, description=f"{label}: {len(records):,} records")
            began = time.monotonic()
            rows = feed.publish(records)
            _finish(drained, worker, feed)
            seconds = time.monotonic() - began
            rate = Rate(events=rows, seconds=seconds, events_per_second=rows / seconds)
            progress.advance(task)
        progress.update(task, description="live events")
        latency = _trickle(feed, list(itertools.islice(plan.events, TRICKLE)), outputs) if plan.simulation else None
        _finish(drained, worker, feed)
        progress.advance(task)
        progress.update(task, description="recomputing offline")
        computed = compute(
            [(topic, partition, records) for (topic, partition), records in feed.stored.items()],
            ingest_config(settings),
            insight_config(settings),
        )
        if not outputs.catch_up():
            raise ParallaxError("the outputs could not be read to their end")
        progress.advance(task)
    status = worker.status()
    if status is None:
        raise ParallaxError(f"the worker does not answer: {worker.last_line()}")
    return Observed(status=status, records=feed.count, rate=rate, latency=latency), computed


def _wait_ready(worker: LocalWorker) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        status = worker.status()
        if status is not None and status["ready"]:
            return
        time.sleep(0.1)
    raise ParallaxError(f"the worker was not ready within {START_S:.0f} s: {worker.last_line()}")


def _finish(drained: Drained, worker: LocalWorker, feed: Feed) -> None:
    if not drained.wait([worker], feed.count, STEP_S):
        raise ParallaxError(f"the worker did not finish within {STEP_S:.0f} s: {worker.last_line()}")


def _trickle(feed: Feed, records: Sequence[SimRecord], outputs: Outputs) -> Latency | None:
    """Publish at a steady pace; from a record's publication to the first insight that rests on it."""
    sent: dict[tuple[str, str], float] = {}
    began = time.monotonic()
    for number, record in enumerate(records):
        time.sleep(max(0.0, began + number / TRICKLE_PER_SECOND - time.monotonic()))
        event = orjson.loads(record.value or b"{}")
        sent[f"{event['platform']}:{event['campaign_id']}", iso_instant(event["period_start"])] = time.monotonic()
        feed.send(record)
    feed.flush()
    return outputs.latency(sent, deadline_seconds=5.0)


def _keep(console: Console, settings: Settings, plan: Steps, worker: LocalWorker) -> None:
    """Stay up and go on publishing until Ctrl-C."""
    console.print(
        f"\nStill running. Kafka at {settings.kafka_bootstrap}, Redis at {settings.redis_host}:{settings.redis_port},"
        f" the worker's health at http://127.0.0.1:{worker.port}/health/\n"
        f"  PARALLAX_KAFKA_BOOTSTRAP={settings.kafka_bootstrap} parallax tail insights\n"
        f"  REDIS_PORT={settings.redis_port} parallax hot cmp-001 --window 24h\n"
        "Live events are published until Ctrl-C."
    )
    feed = Feed(settings, keep=False)
    try:
        for record in plan.events:
            feed.send(record)
            time.sleep(1 / TRICKLE_PER_SECOND)
            if not worker.process.running:
                raise ParallaxError(f"the worker ended: {worker.last_line()}")
    except KeyboardInterrupt:
        console.print("stopping")
