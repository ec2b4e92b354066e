"""A model that is published while a worker runs: taken between checkpoints, kept over a restart, never a bad one."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.profile import DEFAULT_PROFILE
from schemas import prediction
from schemas import topics as names
from stream_app.feed import Feed
from stream_app.local_worker import LocalWorker
from stream_app.model_follower import DAILY
from stream_app.simulator import simulate
from tests.live import Live, by_id, offline, wait_until
from tests.test_model_follower import send
from tests.test_model_format import flipped, trained

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(240)]
GOOD = trained(3).described(horizon="1d", profile=DEFAULT_PROFILE.version)

Place = tuple[int, int]
"""Partition and offset."""


def told(worker: LocalWorker) -> dict[str, Any]:
    status = worker.status()
    found: dict[str, Any] = {} if status is None else status["models"]["models"][DAILY]
    return found


def refusals(app: Live, since: Collection[Place] = ()) -> dict[Place, str | msgspec.UnsetType]:
    """What the predictions that were published since some others say of a refused model, by where they stand."""
    found = {(record.partition(), record.offset()): record.value() for record in app.read(names.PREDICTIONS)}
    return {place: prediction.decode(value).model_refused for place, value in found.items() if place not in since}


def test_a_published_model_is_taken_without_a_pause_and_a_bad_one_never(
    kafka: str, redis_server: tuple[str, int], tmp_path: Path
) -> None:
    """Scenario: a good model is published while a worker runs, then one with a flipped bit; the worker starts again.

    Expectation: the good one is taken, the other refused with a reason, and predictions say so from then on, the new
    worker's too; what is published of the campaigns is not touched by either.
    """
    days = [step.records for step in simulate(7, 4, 4).steps]
    with Live(kafka, redis_server, tmp_path, redis_db=5) as app:
        worker, feed = app.start(), Feed(app.settings)
        feed.publish(days[0])
        app.ready(worker)
        app.drain(feed.count)
        send(app.settings, GOOD.to_bytes())
        wait_until("the model is taken", lambda: bool(told(worker).get("taken")))
        assert told(worker)["model_id"] == GOOD.model_id
        payload = GOOD.to_bytes()
        send(app.settings, flipped(payload, len(payload) - 9))
        wait_until("the other is refused", lambda: bool(told(worker).get("refused_since")))
        assert told(worker)["model_id"] == GOOD.model_id
        before = refusals(app)
        assert set(before.values()) == {msgspec.UNSET}
        feed.publish(days[1])
        app.drain(feed.count)
        assert set(refusals(app, before).values()) == {"checksum"}
        worker.process.stop()
        again = app.start()
        app.ready(again)
        wait_until("the model is there again", lambda: bool(told(again).get("taken") and told(again)["refused_since"]))
        before = refusals(app)
        feed.publish(days[2])
        app.drain(feed.count)
        assert set(refusals(app, before).values()) == {"checksum"}
        send(app.settings, GOOD.to_bytes())
        wait_until("the refusal is over", lambda: not told(again)["refused_since"])
        before = refusals(app)
        feed.publish(days[3])
        app.drain(feed.count)
        assert set(refusals(app, before).values()) == {msgspec.UNSET}
        app.check(by_id(offline(feed, app.settings).insights))
