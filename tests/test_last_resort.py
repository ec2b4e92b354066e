"""The last resort of a worker that is to stop and cannot: its process ends all the same."""

import subprocess
import sys
from pathlib import Path

import pytest

from stream_app.watchdog import EXIT_CODE
from tests.live import ROOT

SCRIPT = "import time; from stream_app.worker import _end_within; _end_within(0.01); time.sleep(25)"
FULL = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); "


@pytest.mark.parametrize(("script", "told"), [(SCRIPT, "had 0 s to stop and did not"), (FULL + SCRIPT, "")])
def test_a_worker_that_does_not_stop_is_ended_even_where_its_log_takes_no_more(
    script: str, told: str, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    with log.open("wb") as output:
        ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, stderr=output, check=False, timeout=60)
    assert ended.returncode == EXIT_CODE
    assert told in log.read_text()
