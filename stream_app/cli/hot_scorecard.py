"""How ``parallax hot --scorecard`` shows what Redis holds."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from stream_app.errors import ParallaxError

if TYPE_CHECKING:
    from stream_app.hot_scorecards import Held

NUMBERS: Final = ("rows", "log loss default", "model", "platform mean", "pred/actual", "90% interval", "age")


def show(found: "Sequence[Held]", *, as_json: bool) -> None:
    """Print scorecards by partition. Raises ``ParallaxError`` where there is none."""
    if not found:
        raise ParallaxError("Redis holds no scorecard of that horizon: a worker writes one once it has been scored")
    if as_json:
        for one in found:
            stored = one.stored
            facts = {
                "value": one.scorecard,
                "age_seconds": round(stored.age_seconds, 3),
                "freshness": stored.freshness,
                "ttl_seconds": stored.ttl_seconds,
            }
            click.echo(json.dumps(facts))
        return
    from stream_app.cli.show import show_table

    show_table(("partition", "days", *NUMBERS, "model serves"), map(_row, found), right=NUMBERS)


def _row(one: "Held") -> tuple[str, ...]:
    told = one.scorecard
    losses: dict[str, Any] = told.get("log_loss") or {}
    return (
        str(told.get("partition", "-")),
        f"{told.get('first_day', '-')} to {told.get('last_day', '-')}",
        _number(told.get("rows"), ",.0f"),
        *(_number(losses.get(name), ".6f") for name in ("default", "model", "platform_mean")),
        _number(told.get("predicted_over_actual"), ".3f"),
        _number(told.get("interval_coverage"), ".1%"),
        f"{one.stored.age_seconds:,.0f} s",
        ", ".join(map(str, told.get("promoted") or ())) or "nowhere",
    )


def _number(value: Any, spelling: str) -> str:
    return format(value, spelling) if isinstance(value, int | float) else "-"
