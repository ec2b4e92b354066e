"""``python -m bench``: how fast a worker catches up, beside a plain Faust agent on the same machine."""

import os
import sys
import time

import click
from rich.console import Console

from bench import catch_up, plain
from bench.process import require_proc
from bench.report import Report, Run, as_json, show
from bench.trial import Measured
from bench.workload import Workload
from stream_app.errors import ParallaxError
from tests.servers import running_kafka


@click.command()
@click.option("--events", type=click.IntRange(1_000), default=1_000_000, show_default=True, help="For Parallax.")
@click.option(
    "--plain-events", type=click.IntRange(1_000), default=60_000, show_default=True, help="For the plain agent."
)
@click.option("--runs", type=click.IntRange(1), default=3, show_default=True)
@click.option("--partitions", type=click.IntRange(1, 64), default=4, show_default=True)
@click.option("--json", "in_json", is_flag=True, help="One JSON object instead of the table.")
def main(events: int, plain_events: int, runs: int, partitions: int, *, in_json: bool) -> None:
    """Measure the catch-up rate on the tests' Kafka (PARALLAX_TEST_KAFKA, else one of its own), run after run.

    The exit code is 1 when a result is not right; the ratio does not decide it.
    """
    console = Console(stderr=in_json)
    try:
        require_proc()
        if plain_events > events:
            raise click.BadParameter("the plain agent takes a part of --events", param_hint="--plain-events")
        report = _measure(events, plain_events, runs, partitions, console)
    except ParallaxError as error:
        click.echo(f"bench: {error}", err=True)
        sys.exit(error.exit_code)
    if in_json:
        click.echo(as_json(report))
    else:
        show(report, console)
    sys.exit(1 if report.wrong else 0)


def _measure(events: int, plain_events: int, runs: int, partitions: int, console: Console) -> Report:
    workload = Workload(events, time.time_ns() // 1_000_000)
    done: list[Run] = []
    with running_kafka() as bootstrap:
        for number in range(1, runs + 1):

            def said(side: str, measured: Measured, number: int = number) -> Measured:
                console.print(
                    f"run {number}: {side} {measured.rate:,.0f} events/s, {measured.seconds:.1f} s,"
                    f" {measured.cpu_seconds:.1f} CPU s, load {measured.load}"
                )
                return measured

            done.append(
                Run(
                    parallax=said("Parallax", catch_up.measure(bootstrap, workload, partitions)),
                    plain=said("plain", plain.measure(bootstrap, workload, plain_events, partitions, send=False)),
                    plain_sending=said(
                        "plain, sending", plain.measure(bootstrap, workload, plain_events, partitions, send=True)
                    ),
                )
            )
    return Report(runs=done, mean_event_bytes=workload.mean_bytes(), partitions=partitions, cores=os.cpu_count() or 1)


if __name__ == "__main__":
    main()
