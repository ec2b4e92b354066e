"""A model that is published while a worker runs: taken between checkpoints, kept over a restart, never a bad one."""

from pathlib import Path
from typing import Any

import pytest

from core.profile import DEFAULT_PROFILE
from stream_app.feed import Feed
from stream_app.local_worker import LocalWorker
from stream_app.model_follower import DAILY
from stream_app.simulator import simulate
from tests.live import Live, by_id, offline, wait_until
from tests.test_model_follower import send
from tests.test_model_format import flipped, trained

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(240)]
GOOD = trained(3).described(horizon="1d", profile=DEFAULT_PROFILE.version)


def told(worker: LocalWorker) -> dict[str, Any]:
    status = worker.status()
    found: dict[str, Any] = {} if status is None else status["models"]["models"][DAILY]
    return found


def test_a_published_model_is_taken_without_a_pause_and_a_bad_one_never(
    kafka: str, redis_server: tuple[str, int], tmp_path: Path
) -> None:
    """Scenario: a good model is published while a worker runs, then one with a flipped bit; the worker starts again.

    Expectation: the good one is taken, the other refused with a reason; what is published of the campaigns is not
    touched by either.
    """
    days = [step.records for step in simulate(7, 4, 3).steps]
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
        feed.publish(days[1])
        app.drain(feed.count)
        worker.process.stop()
        again = app.start()
        app.ready(again)
        wait_until("the model is there again", lambda: bool(told(again).get("taken")))
        feed.publish(days[2])
        app.drain(feed.count)
        app.check(by_id(offline(feed, app.settings).insights))
