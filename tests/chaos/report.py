"""The table and the JSON of a run."""

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.chaos.trial import Result


def show(results: Sequence[Result], console: Console) -> None:
    """One row a fault."""
    table = Table(title="faults", title_justify="left")
    table.add_column("fault", no_wrap=True)
    for heading in (
        "times injected",
        "in flight",
        "events lost",
        "counted twice",
        "stale overwrites",
        "worker exits",
        "seconds to recover",
    ):
        table.add_column(heading, justify="right")
    table.add_column("")
    for result in results:
        found = result.findings
        table.add_row(
            result.fault,
            f"{result.injected:,}",
            _in_flight(result.in_flight),
            f"{found.lost:,}",
            f"{found.twice:,}",
            f"{found.stale:,}",
            f"{result.exits:,}",
            "" if result.recovery is None else f"{result.recovery:.1f}",
            "ok" if result.ok else "FAILED",
        )
    console.print(table)


def _in_flight(counts: Sequence[int]) -> str:
    if not counts:
        return ""
    middle = sorted(counts)[len(counts) // 2]
    return f"{middle:,}" if len(counts) == 1 else f"{min(counts):,}…{max(counts):,}"


def as_json(results: Sequence[Result], seed: int, *, long: bool) -> str:
    """Everything that is known of a run."""
    report: dict[str, Any] = {
        "seed": seed,
        "tier": "long" if long else "short",
        "ok": all(result.ok for result in results),
        "injected": sum(result.injected for result in results),
        "lost": sum(result.findings.lost for result in results),
        "counted_twice": sum(result.findings.twice for result in results),
        "stale_overwrites": sum(result.findings.stale for result in results),
        "faults": [result.as_dict() for result in results],
    }
    return json.dumps(report, indent=1, default=str)
