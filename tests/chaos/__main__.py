"""``python -m tests.chaos``: inject faults into a running application, and compare everything with the oracles."""

import secrets
import sys
import time
from pathlib import Path

import click
from rich.console import Console

from stream_app.errors import ParallaxError
from tests.chaos.cluster import servers
from tests.chaos.faults import FAULTS, GROUPS
from tests.chaos.report import as_json, show
from tests.chaos.session import Session
from tests.chaos.trial import Fault, Result


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--long", is_flag=True, help="At least 200 kills, 60 zombies, long outages: an hour at most.")
@click.option("--seed", type=int, help="Repeats the choices of a run.")
@click.option(
    "--only", multiple=True, type=click.Choice([*GROUPS, *FAULTS]), help="A fault or a group of faults; repeatable."
)
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the report there.")
def main(long: bool, seed: int | None, only: tuple[str, ...], json_path: Path | None) -> None:
    """Hurt workers, broker, Redis and inputs of a running application; nothing may be lost or counted twice."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    seed = secrets.randbelow(1 << 31) if seed is None else seed
    console.print(f"seed {seed}", highlight=False)
    began = time.monotonic()
    results: list[Result] = []

    def told(result: Result) -> None:
        results.append(result)
        state = "ok" if result.ok else "FAILED"
        console.print(f"{time.monotonic() - began:6.0f} s  {result.fault}: {state}", highlight=False)
        for problem in (*result.problems, *result.findings.problems):
            console.print(f"          {problem}", markup=False, highlight=False, soft_wrap=True)

    try:
        with servers() as on:
            session = Session(on, seed, long=long)
            for faults in _groups(only):
                for _ in session.run(faults, told):
                    pass
    except ParallaxError as error:
        click.echo(error, err=True)
        sys.exit(error.exit_code)
    show(results, console)
    if json_path is not None:
        json_path.write_text(as_json(results, seed, long=long))
    bad = [result.fault for result in results if not result.ok]
    console.print(f"{time.monotonic() - began:.0f} s, seed {seed}", highlight=False)
    if bad:
        console.print(f"history and logs of {', '.join(bad)}: {session.kept}", highlight=False, soft_wrap=True)
        sys.exit(1)


def _groups(only: tuple[str, ...]) -> list[list[type[Fault]]]:
    if not only:
        return [list(group) for group in GROUPS.values()]
    chosen = [[fault for fault in group if name in only or fault.name in only] for name, group in GROUPS.items()]
    return [group for group in chosen if group]


if __name__ == "__main__":
    main()
