"""Processes of our own beside a worker: how they find this package, at what priority they run, and how they end."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

END_S: Final = 10.0
LOWEST_PRIORITY: Final = 19
SOURCE: Final = str(Path(__file__).resolve().parents[1])


def importable(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables, with which Python imports this very source first."""
    return {**environment, "PYTHONPATH": os.pathsep.join(filter(None, (SOURCE, environment.get("PYTHONPATH"))))}


async def begun(
    command: Sequence[str], environment: Mapping[str, str], *, stdin: int, stdout: int, stderr: int
) -> asyncio.subprocess.Process:
    """A process at the lowest priority, so that it takes no time from the worker's checkpoints."""
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdin=stdin, stdout=stdout, stderr=stderr)
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, process.pid, LOWEST_PRIORITY)
    return process


async def ended(process: asyncio.subprocess.Process) -> None:
    """End a process in good order, by force when that takes longer than ``END_S``; returns when it is gone."""
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(END_S):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
