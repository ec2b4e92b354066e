"""The retraining loop: off by default, due by the newest model's age, in a process of its own."""

import asyncio
import doctest
import json
import os
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import stream_app.retraining
from core.learning.promotion import PromotionRule
from stream_app.child import environment
from stream_app.duration import Duration
from stream_app.retraining import Days, Retrainer, command, days_at, due
from stream_app.settings import Settings

DAY = 86_400_000
NOW = (date(2026, 3, 10).toordinal() - date(1970, 1, 1).toordinal()) * DAY + 7 * 3_600_000
EVERY = Duration(DAY)


@pytest.mark.parametrize(
    ("every", "published", "tried", "wanted"),
    [
        (None, None, None, False),
        (EVERY, None, None, True),
        (EVERY, NOW - DAY, None, True),
        (EVERY, NOW - DAY + 1, None, False),
        (EVERY, NOW - 9 * DAY, NOW - 1, False),
        (EVERY, NOW - 1, NOW - 9 * DAY, False),
        (EVERY, NOW - 9 * DAY, NOW - DAY, True),
    ],
)
def test_a_model_is_due_by_age_and_a_failure_is_not_tried_at_once(
    every: Duration | None, published: int | None, tried: int | None, wanted: bool
) -> None:
    assert due(NOW, every, published, tried) is wanted


def test_examples() -> None:
    assert doctest.testmod(stream_app.retraining).failed == 0


def test_whole_days_are_taken_and_the_last_are_judged() -> None:
    days = days_at(NOW, PromotionRule(windows=14))
    assert (date.fromordinal(days.split), date.fromordinal(days.end)) == (date(2026, 2, 24), date(2026, 3, 10))
    assert days.first < days.split - 180
    words = command(days)
    assert words[words.index("--split") + 1] == "2026-02-24"
    assert words[words.index("--to") + 1] == "2026-03-10"
    assert {"train", "--publish"} <= set(words)
    assert "--force" not in words


def test_the_process_gets_what_a_file_has_set() -> None:
    settings = Settings(partitions=7, sasl_password="canary", windows=("1h", "7d"))  # type: ignore[arg-type]
    found = environment(settings, {"PARALLAX_CONFIG": "px.toml", "PARALLAX_SASL_PASSWORD": "canary", "HOME": "/h"})
    assert (found["PARALLAX_PARTITIONS"], found["PARALLAX_WINDOWS"], found["HOME"]) == ("7", "1h,7d", "/h")
    assert found["PARALLAX_SASL_PASSWORD"] == "canary"
    assert "PARALLAX_CONFIG" not in found


def test_it_is_off_unless_asked_for() -> None:
    assert Settings().retrain_every is None

    def never(_days: Days) -> Sequence[str]:
        raise AssertionError

    asyncio.run(asyncio.wait_for(Retrainer(Settings(), lambda: None, command_of=never).run(), 5))


class Clock:
    """A day passes at every look."""

    def __init__(self) -> None:
        self.now_ms = NOW

    def __call__(self) -> float:
        self.now_ms += DAY
        return self.now_ms / 1_000


def script(folder: Path, body: str) -> list[str]:
    path = folder / "child.py"
    path.write_text(body)
    return [sys.executable, str(path)]


async def until(retrainer: Retrainer, wanted: str) -> None:
    task = asyncio.create_task(retrainer.run())
    try:
        async with asyncio.timeout(20):
            while retrainer.outcome != wanted:  # noqa: ASYNC110 an attribute announces nothing
                await asyncio.sleep(0.02)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("raise SystemExit(0)", "published"),
        (
            "import sys; print('parallax: not published: the model does not beat', file=sys.stderr); sys.exit(1)",
            "parallax: not published: the model does not beat",
        ),
        ("import os; os._exit(9)", "exit code 9"),
    ],
)
def test_what_became_of_a_training_is_told(tmp_path: Path, body: str, wanted: str) -> None:
    settings = Settings(retrain_every="1d")  # type: ignore[arg-type] # pydantic parses it
    asked: list[Days] = []

    def asking(days: Days) -> Sequence[str]:
        asked.append(days)
        return script(tmp_path, body)

    retrainer = Retrainer(settings, lambda: None, command_of=asking, clock=Clock())
    asyncio.run(until(retrainer, wanted))
    assert asked[0] == days_at(NOW + DAY)
    assert retrainer.tried_ms is not None


def test_only_who_leads_trains() -> None:
    settings = Settings(retrain_every="5ms")  # type: ignore[arg-type] # pydantic parses it
    looks: list[int] = []

    def leads() -> bool:
        looks.append(1)
        return False

    async def some_looks() -> None:
        task = asyncio.create_task(Retrainer(settings, lambda: None, leads, clock=Clock()).run())
        async with asyncio.timeout(20):
            while len(looks) < 3:  # noqa: ASYNC110 a list announces nothing
                await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(some_looks())


def test_the_process_ends_with_the_worker_and_is_of_low_priority(tmp_path: Path) -> None:
    settings = Settings(retrain_every="1d")  # type: ignore[arg-type] # pydantic parses it
    told = tmp_path / "told.json"
    body = (
        "import json, os, pathlib, time\n"
        "while os.getpriority(os.PRIO_PROCESS, 0) < 19: time.sleep(0.01)\n"
        f"path = pathlib.Path({str(told)!r})\n"
        "path.with_suffix('.new').write_text(json.dumps({'pid': os.getpid()}))\n"
        "path.with_suffix('.new').rename(path)\n"
        "time.sleep(600)\n"
    )

    async def begun() -> None:
        retrainer = Retrainer(settings, lambda: None, command_of=lambda _days: script(tmp_path, body), clock=Clock())
        task = asyncio.create_task(retrainer.run())
        async with asyncio.timeout(20):
            while not told.exists():  # noqa: ASYNC110 a file announces nothing
                await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(begun())
    facts: dict[str, Any] = json.loads(told.read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(facts["pid"], 0)
