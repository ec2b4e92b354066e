"""The benchmark measures real work: a small run is right on all sides, and says so as JSON."""

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import orjson
import pytest

from bench.report import Report, Run, as_json
from bench.trial import Measured, admin_of
from bench.workload import METRICS, SPAN_MS, Workload
from schemas.canonical import decoder
from schemas.link import Link, decode_link

ROOT = Path(__file__).parent.parent
NOW_MS = 1_800_000_000_000


@pytest.mark.kafka
@pytest.mark.redis
@pytest.mark.timeout(240)
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
    admin = admin_of(kafka)
    assert not [topic for topic in admin.list_topics(timeout=10).topics if topic.startswith("bench-")]


def test_the_account_of_the_events_is_what_their_payloads_add_up_to() -> None:
    workload = Workload(5_000, NOW_MS)
    for events, records in ((5_000, workload.stream()), (1_200, workload.plain("events", 1_200))):
        found: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0] * len(METRICS))
        ids = set()
        for record in records:
            event = orjson.loads(record.value or b"")
            ids.add(event["event_id"])
            own = found[event["campaign_id"], event["platform"]]
            for position, metric in enumerate(METRICS):
                own[position] += event[metric]
        assert len(ids) == events
        assert {key: tuple(sums) for key, sums in found.items()} == workload.sums(events)


def test_the_plain_agent_gets_the_first_of_the_same_events() -> None:
    workload = Workload(2_000, NOW_MS)
    streamed = [record.value for record in workload.stream()]
    assert [record.value for record in workload.plain("events", 700)] == streamed[:700]


def test_every_event_is_canonical_recent_and_linked() -> None:
    workload = Workload(3_000, NOW_MS)
    linked = set()
    for record in workload.links():
        link = decode_link(record.key, record.value, arrival_ms=NOW_MS, max_bytes=1_000)
        assert isinstance(link, Link)
        linked.add((str(link.platform), link.platform_campaign_id))
    for record in workload.stream():
        event = decoder.decode(record.value or b"")
        assert event.kind == "delta"
        assert (event.platform, event.campaign_id) in linked
        assert isinstance(event.period_start, int)
        assert NOW_MS - SPAN_MS - 5_000 < event.period_start < NOW_MS
        assert record.key == f"{event.platform}:{event.campaign_id}".encode()
    assert 200 < workload.mean_bytes() < 240


def test_ratios_are_taken_within_a_run_and_then_their_median() -> None:
    body = orjson.loads(as_json(_report((100, 10, 5), (400, 10, 5), (600, 20, 10))))
    assert body["ratio"]["plain"] == {"median": 30, "least": 10, "most": 40}
    assert body["ratio"]["plain_sending"] == {"median": 60, "least": 20, "most": 80}
    assert body["rate"]["parallax"] == {"median": 400, "least": 100, "most": 600}
    assert body["ok"] is True


def test_a_wrong_result_is_said_and_is_not_ok() -> None:
    body = orjson.loads(as_json(_report((100, 10, 5), wrong=["9 of 10 records count as applied"])))
    assert body["ok"] is False
    assert body["wrong"] == ["9 of 10 records count as applied"]


def _report(*rates: tuple[float, float, float], wrong: list[str] | None = None) -> Report:
    runs = [
        Run(
            parallax=_measured(parallax, wrong or []),
            plain=_measured(plain, []),
            plain_sending=_measured(sending, []),
        )
        for parallax, plain, sending in rates
    ]
    return Report(runs=runs, mean_event_bytes=228.04, partitions=4, cores=2)


def _measured(rate: float, wrong: list[str]) -> Measured:
    return Measured(
        events=1_200,
        seconds=1_200 / rate,
        cpu_seconds=1.0,
        peak_rss_bytes=1 << 20,
        load=0.5,
        seconds_from_start=2_400 / rate,
        wrong=wrong,
    )
