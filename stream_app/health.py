"""What a worker says of itself, as JSON on its loopback page: whether it works, how far it is, what it waits for."""

import time
from typing import TYPE_CHECKING, Any

from core.accounting import account
from schemas import topics as names
from stream_app.topics import name

if TYPE_CHECKING:
    from stream_app.app import ParallaxApp


def status(app: "ParallaxApp") -> dict[str, Any]:
    """The worker's state. ``ready``: its partitions are assigned and recovered, and it makes checkpoints."""
    assigned = app.consumer.assignment() if app.settled else set()
    lag = {
        base: sum(app.consumer.lag(tp) for tp in assigned if tp.topic == name(app.settings, base))
        for base in (*names.INGEST_TOPICS, names.ROUTED, names.ROLLUPS)
    }
    accounting = account(tally for state in app.aggregate.partitions.values() for tally in state.tallies.values())
    return {
        "ready": app.settled and not app.crashed,
        "uptime_seconds": round(time.time() - app.started_at, 3),
        "partitions": {base: sorted(app.partitions_of(base, assigned)) for base in (names.ROUTED, names.ROLLUPS)},
        "lag": lag,
        "positions": {
            names.ROUTED: {partition: state.position for partition, state in app.aggregate.partitions.items()},
            names.ROLLUPS: {partition: state.position for partition, state in app.insights.partitions.items()},
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
        "published": app.insights.published,
        "malformed": app.aggregate.malformed + app.insights.malformed,
        "redis": _redis(app),
    }


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
