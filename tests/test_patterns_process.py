"""The follower of patterns beside a worker: off by default, one worker leads, started anew, gone with the worker."""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from stream_app.patterns_process import PatternsProcess, State
from stream_app.settings import Settings

ON = Settings(patterns_every="5m")  # type: ignore[arg-type] # pydantic parses it
WAITING = "import sys\nprint('at work', flush=True)\nsys.stdin.read()\n"


def script(folder: Path, body: str) -> list[str]:
    path = folder / "child.py"
    path.write_text(body)
    return [sys.executable, str(path)]


def kept(command: list[str], leads: Callable[[], bool] = lambda: True) -> PatternsProcess:
    return PatternsProcess(ON, leads, command, look_s=0.02, grace_s=0.1, pause_s=0.02)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 an attribute announces nothing
            await asyncio.sleep(0.01)


async def running(process: PatternsProcess, work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(process.run())
    try:
        await work
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_is_off_unless_asked_for() -> None:
    assert Settings().patterns_every is None
    process = PatternsProcess(Settings(), lambda: True, ["/bin/false"])
    asyncio.run(asyncio.wait_for(process.run(), 5))
    assert (process.status().state, process.status().starts) == (State.OFF, 0)


def test_it_runs_at_low_priority_and_ends_with_its_task(tmp_path: Path) -> None:
    process = kept(script(tmp_path, WAITING))
    pids: list[int] = []

    async def look() -> None:
        await until(lambda: process.status().outcome == "at work")
        pid = process.status().pid
        assert pid is not None
        assert os.getpriority(os.PRIO_PROCESS, pid) == 19
        assert process.status().state is State.RUNNING
        pids.append(pid)

    asyncio.run(running(process, look()))
    assert not alive(pids[0])
    assert process.status().pid is None


def test_one_that_dies_is_started_again_and_says_how_it_ended(tmp_path: Path) -> None:
    process = kept(script(tmp_path, "import sys\nprint('parallax: no Kafka', file=sys.stderr)\nsys.exit(3)\n"))

    async def look() -> None:
        await until(lambda: process.status().starts >= 3)
        assert "parallax: no Kafka" in process.status().outcome

    asyncio.run(running(process, look()))
    told: list[str] = []
    process = PatternsProcess(ON, lambda: True, script(tmp_path, "raise SystemExit(3)"), pause_s=60)

    async def ended() -> None:
        await until(lambda: process.status().state is State.PAUSING)
        told.append(process.status().outcome)

    asyncio.run(running(process, ended()))
    assert told == ["ended with exit code 3"]


def test_only_who_leads_runs_it_and_a_short_absence_changes_nothing(tmp_path: Path) -> None:
    leading, looks = [False], [0]

    def leads() -> bool:
        looks[0] += 1
        return leading[0]

    process = PatternsProcess(ON, leads, script(tmp_path, WAITING), look_s=0.01, grace_s=2.0, pause_s=0.01)

    async def some_looks() -> None:
        wanted = looks[0] + 3
        await until(lambda: looks[0] >= wanted)

    async def look() -> None:
        await some_looks()
        assert (process.status().state, process.status().starts) == (State.STANDING_BY, 0)
        leading[0] = True
        await until(lambda: process.status().outcome == "at work")
        pid = process.status().pid
        assert pid is not None
        leading[0] = False
        await some_looks()
        leading[0] = True
        await some_looks()
        assert process.status().pid == pid
        leading[0] = False
        await until(lambda: process.status().state is State.STANDING_BY)
        assert not alive(pid)
        assert process.status().starts == 1

    asyncio.run(running(process, look()))
