"""What a worker says of itself, as JSON on its loopback page: whether it works, how far it is, what it waits for."""

import time
from typing import TYPE_CHECKING, Any

import msgspec
from faust.types import TP

from core.accounting import account
from schemas import topics as names
from schemas.scorecard import DAY, HORIZONS
from stream_app.scorecards import summary
from stream_app.topics import name

if TYPE_CHECKING:
    from stream_app.app import ParallaxApp


def status(app: "ParallaxApp") -> dict[str, Any]:
    """The worker's state. ``ready``: its partitions are assigned and recovered, and it makes checkpoints."""
    assigned = app.consumer.assignment() if app.opened else set()
    lag = {
        base: sum(app.lag(tp) for tp in assigned if tp.topic == name(app.settings, base))
        for base in (*names.INGEST_TOPICS, names.ROUTED, names.ROLLUPS)
    }
    cards = [card for state in app.insights.partitions.values() if (card := state.ctr.scorecard()) is not None]
    accounting = account(tally for state in app.aggregate.partitions.values() for tally in state.tallies.values())
    return {
        "ready": app.opened and not app.crashed and not app.watchdog.reason,
        "stalled": app.watchdog.reason,
        "uptime_seconds": round(time.time() - app.started_at, 3),
        "partitions": {base: sorted(app.partitions_of(base, assigned)) for base in (names.ROUTED, names.ROLLUPS)},
        "lag": lag,
        "positions": {
            base: {partition: _position(app, base, partition, state.position) for partition, state in states.items()}
            for base, states in (
                (names.ROUTED, app.aggregate.partitions),
                (names.ROLLUPS, app.insights.partitions),
            )
        },
        "fenced": app.aggregate.fenced + app.insights.fenced,
        "lost_records": dict(app.lost_records),
        "recovery": {
            base: {"records": stage.recovered.records, "seconds": round(stage.recovered.seconds, 3)}
            for base, stage in ((names.ROUTED, app.aggregate), (names.ROLLUPS, app.insights))
        },
        "owed_rollups": sum(state.owes for state in app.aggregate.partitions.values()),
        "waiting_windows": sum(state.waiting for state in app.insights.partitions.values()),
        "watermarks": {partition: state.watermarks.value for partition, state in app.insights.partitions.items()},
        "unlinked": sum(len(state.unlinked()) for state in app.aggregate.partitions.values()),
        "ingest": {
            "records": app.ingest.records,
            "rows": app.ingest.rows,
            "first_at": app.ingest.first_at,
            "dead_letters": dict(app.ingest.rejected),
        },
        "accounting": {
            "records": accounting.records,
            "applied": accounting.applied,
            "duplicate": accounting.duplicate,
            "superseded": accounting.superseded,
            "dead_letters": accounting.dead_letters,
            "ignored": accounting.ignored,
        },
        "checkpoints": {
            stage: {
                "count": checkpoints.count,
                "seconds": round(checkpoints.seconds, 3),
                "last_at": checkpoints.last_at,
                "writing": checkpoints.writing,
            }
            for stage, checkpoints in (
                ("aggregate", app.aggregate.checkpoints),
                ("insights", app.insights.checkpoints),
            )
        },
        "predictions": summary(cards)
        | {
            "horizons": {horizon: summary(cards, horizon) for horizon in HORIZONS if horizon != DAY},
            "days_to_learn": sum(state.ctr.waiting for state in app.insights.partitions.values()),
            "forgotten": next((why for state in app.insights.partitions.values() if (why := state.ctr.forgotten)), ""),
        },
        "published": app.insights.published,
        "too_large": app.insights.too_large,
        "expired_rollups": sum(state.expired for state in app.insights.partitions.values()),
        "malformed": app.aggregate.malformed + app.insights.malformed,
        "models": msgspec.to_builtins(app.models.status()),
        "patterns": msgspec.to_builtins(app.patterns.status()),
        "redis": _redis(app),
    }


def _position(app: "ParallaxApp", base: str, partition: int, position: int) -> int:
    """The last offset that the state has seen. Behind it there may be transaction markers, which are no records."""
    reached: int = app.consumer.reached(TP(name(app.settings, base), partition))
    return max(position, reached - 1)


def _redis(app: "ParallaxApp") -> dict[str, Any]:
    if app.hot is None:
        return {"enabled": False}
    return {
        "enabled": True,
        "up": app.hot.down_since is None,
        "reason": app.hot.down_reason,
        "pending": app.hot.pending,
        "stale_refused": app.hot.stale_refused,
        "rebuilding": app.insights.rebuilding,
    }
