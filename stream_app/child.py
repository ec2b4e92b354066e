"""Processes of our own beside a worker: how they find this package, at what priority they run, and how they end."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from stream_app.settings import FILE_VARIABLE, SECRETS, Settings, shown, variable

END_S: Final = 10.0
LOWEST_PRIORITY: Final = 19
SOURCE: Final = str(Path(__file__).resolve().parents[1])


def importable(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables, with which Python imports this very source first."""
    return {**environment, "PYTHONPATH": os.pathsep.join(filter(None, (SOURCE, environment.get("PYTHONPATH"))))}


def environment(settings: Settings, given: Mapping[str, str]) -> dict[str, str]:
    """A process's variables: those of this one, and what a settings file has set. Secrets are in the former."""
    told = {field for field in settings.model_fields_set if field not in SECRETS}
    fields = {variable(field): shown(getattr(settings, field)) for field in sorted(told)}
    return importable({name: value for name, value in given.items() if name != FILE_VARIABLE} | fields)


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
