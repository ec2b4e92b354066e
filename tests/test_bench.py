"""The benchmark measures real work: a small run is right on all sides, and says so as JSON."""

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

ROOT = Path(__file__).parent.parent
pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(240)]


def test_a_small_run_is_right_and_gives_json(kafka: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--events", "30000", "--plain-events", "2000", "--runs", "1", "--json"],
        cwd=ROOT,
        env=os.environ | {"PARALLAX_TEST_KAFKA": kafka},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    report = orjson.loads(done.stdout)
    assert report["ok"] is True
    assert report["wrong"] == []
    # A small run is mostly start and end: its rate says nothing of the promise, which is for a million events.
    assert report["rate"]["parallax"]["median"] > 0 < report["rate"]["plain"]["median"]
    assert {"rate", "ratio", "runs", "cores", "partitions", "mean_event_bytes"} <= report.keys()
