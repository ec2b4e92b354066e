"""What a process of this machine has used so far, from Linux's /proc."""

import os
import sys
from pathlib import Path
from typing import Final

from stream_app.errors import SetupError

TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")


def require_proc() -> None:
    """Raises ``SetupError`` where there is no /proc."""
    if not sys.platform.startswith("linux"):
        raise SetupError("the benchmark reads CPU time and memory from /proc: run it on Linux")


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


def peak_rss_bytes(pid: int) -> int:
    """The most memory that was resident at any time."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
