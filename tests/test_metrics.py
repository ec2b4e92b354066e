"""``/metrics``: what the health page says, in Prometheus' format, as Prometheus' own parser reads it."""

import itertools
import platform
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from core.accounting import account
from core.learning.measures import measures
from core.learning.walk import PREDICTORS
from schemas.event import IgnoreReason, RejectCode
from stream_app.app import ParallaxApp
from stream_app.feed import Feed
from stream_app.health import status
from stream_app.metrics import render
from stream_app.model_follower import DAILY
from stream_app.scorecards import merged, summary
from stream_app.settings import Settings
from stream_app.simulator import simulate
from tests.live import Live, wait_until
from tests.test_scorecard_command import card

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
TOLD_OTHERWISE = {
    ("predictions", "last_day"),
    *(("predictions", name) for name in ("log_loss", "predicted_over_actual", "interval_coverage")),
    *(("models", "models", DAILY, name) for name in ("model_id", "first_day", "last_day", "refused_since")),
}
"""What no number can say, and what the scorecard says by platform and predictor."""


def parsed(page: bytes) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(page.decode()):
        assert family.type in ("counter", "gauge"), family
        assert family.documentation, family
        for sample in family.samples:
            assert (family.type == "counter") == sample.name.endswith("_total"), sample
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, key
            found[key] = sample.value
    return found


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[f"parallax_{name}", frozenset(labels.items())]


def numbered(tree: Any, numbers: Iterator[int]) -> Any:
    """The same shape with another number at each place."""
    if isinstance(tree, Mapping):
        return {key: numbered(one, numbers) for key, one in tree.items()}
    if isinstance(tree, bool) or not isinstance(tree, int | float | None):
        return tree
    return next(numbers)


def leaves(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    if isinstance(tree, Mapping):
        for key, one in tree.items():
            if (*path, str(key)) not in TOLD_OTHERWISE:
                yield from leaves(one, (*path, str(key)))
    elif isinstance(tree, int | float) and not isinstance(tree, bool):
        yield path, tree


@pytest.fixture
def idle() -> dict[str, Any]:
    """What a worker says that was not started."""
    return status(ParallaxApp(Settings(kafka_bootstrap="127.0.0.1:9", health_port=0, fencing="none")))


def full(idle: dict[str, Any]) -> dict[str, Any]:
    """The same with something at every place, each number another one."""
    codes = {str(code): 0 for code in RejectCode}
    filled = {
        **idle,
        "positions": {topic: {0: 0, 3: 0} for topic in idle["positions"]},
        "lost_records": {"ads.metrics.meta/0": 0, "t/x/12": 0},
        "watermarks": {0: 0, 3: 0},
        "ingest": {**idle["ingest"], "dead_letters": codes},
        "accounting": {
            **idle["accounting"],
            "dead_letters": codes,
            "ignored": {str(reason): 0 for reason in IgnoreReason},
        },
        "predictions": {**summary([card(0, 5), card(10, 4)]), "days_to_learn": 0, "forgotten": ""},
    }
    models = filled["models"]
    filled["models"] = {**models, "refused": {"checksum": 0, "truncated": 0}}
    found: dict[str, Any] = numbered(filled, itertools.count(1_000))
    return found


def test_an_idle_worker_has_a_page(idle: dict[str, Any]) -> None:
    samples = parsed(render(idle))
    assert value(samples, "ready") == 0
    assert value(samples, "stalled") == 0
    assert value(samples, "redis_enabled") == 1
    assert value(samples, "ctr_scored_rows", horizon="1d") == 0
    assert value(samples, "accounting_rows", outcome="applied", reason="") == 0
    assert not any(name.startswith("parallax_watermark") for name, _ in samples)


def test_every_number_of_the_health_page_is_a_sample(idle: dict[str, Any]) -> None:
    told = full(idle)
    values = set(parsed(render(told)).values())
    missing = {
        path: number
        for path, number in leaves(told)
        if number not in values and not (path[0] in ("watermarks", "models") and number / 1000 in values)
    }
    assert missing == {}


def test_every_end_of_a_row_is_a_sample(idle: dict[str, Any]) -> None:
    told = full(idle)["accounting"]
    samples = parsed(render({**idle, "accounting": told}))
    rows = {labels: number for (name, labels), number in samples.items() if name == "parallax_accounting_rows"}
    found = {(dict(labels)["outcome"], dict(labels)["reason"]): number for labels, number in rows.items()}
    assert found == {
        **{(end, ""): told[end] for end in ("applied", "duplicate", "superseded")},
        **{("dead_letter", code): told["dead_letters"][code] for code in map(str, RejectCode)},
        **{("ignored", reason): told["ignored"][reason] for reason in map(str, IgnoreReason)},
    }
    assert value(samples, "accounting_records") == told["records"]
    assert set(account([]).__struct_fields__) == {"rows", *told}


def test_names_keep_what_they_are_of(idle: dict[str, Any]) -> None:
    told = full(idle)
    told["stalled"] = "insights: nothing was committed"
    told["watermarks"] = {0: -1, 3: 1_500}
    samples = parsed(render(told))
    assert value(samples, "stalled") == 1
    assert value(samples, "lost_records_total", topic="t/x", partition="12") == told["lost_records"]["t/x/12"]
    assert value(samples, "watermark_timestamp_seconds", partition="3") == 1.5
    assert ("parallax_watermark_timestamp_seconds", frozenset({("partition", "0")})) not in samples
    for stage in ("aggregate", "insights"):
        found = told["checkpoints"][stage]
        assert value(samples, "checkpoints_total", stage=stage) == found["count"]
        assert value(samples, "checkpoint_seconds_total", stage=stage) == found["seconds"]
    assert value(samples, "lag_offsets", topic="ads.metrics.meta") == told["lag"]["ads.metrics.meta"]
    assert value(samples, "model_refusals_total", code="checksum") == told["models"]["refused"]["checksum"]


def test_the_scorecard_is_there_by_platform_and_predictor(idle: dict[str, Any]) -> None:
    cards = [card(0, 5), card(10, 4)]
    scored = {**summary(cards), "horizons": {"7d": summary(cards, "7d")}, "days_to_learn": 2, "forgotten": ""}
    samples = parsed(render({**idle, "predictions": scored}))
    both = merged(cards)
    assert both is not None
    judged = [one for one in measures(both) if one.axis in ("all", "platform")]
    assert {one.predictor for one in judged} == set(PREDICTORS)
    for one in judged:
        labels = {"horizon": "1d", "platform": one.segment, "predictor": one.predictor}
        for name, wanted in (
            ("ctr_log_loss_nats", one.log_loss),
            ("ctr_normalized_entropy_ratio", one.normalized_entropy),
            ("ctr_calibration_ratio", one.calibration),
            ("ctr_interval_coverage_ratio", one.coverage),
        ):
            if wanted is None:
                assert (f"parallax_{name}", frozenset(labels.items())) not in samples
            else:
                assert value(samples, name, **labels) == pytest.approx(wanted, abs=1e-6)
    assert value(samples, "ctr_scored_days", horizon="1d") == 5
    assert value(samples, "ctr_scored_days", horizon="7d") == 0
    assert value(samples, "ctr_model_promoted", platform="meta") == 1
    assert value(samples, "ctr_model_promoted", platform="google_ads") == 0


@pytest.mark.kafka
@pytest.mark.redis
def test_a_worker_serves_the_page(kafka: str, redis_server: tuple[str, int], tmp_path: Path) -> None:
    """Scenario: a worker has read some days, among them rows that are dead letters, and is idle.

    Expectation: its page agrees with its health page, and tells of its process.
    """
    with Live(kafka, redis_server, tmp_path, redis_db=9) as app:
        worker, feed = app.start(), Feed(app.settings)
        for step in simulate(7, 4, 4).steps:
            feed.publish(step.records)
        app.ready(worker)
        app.drain(feed.count)

        def page() -> Samples:
            with urllib.request.urlopen(f"http://127.0.0.1:{worker.port}/metrics", timeout=10) as answer:
                assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
                return parsed(answer.read())

        def quiet() -> bool:
            before, found, after = worker.status(), page(), worker.status()
            assert before is not None
            assert after is not None
            moving = ("uptime_seconds", "checkpoints")
            same = {**after, **{one: before[one] for one in moving}} == before
            return same and agree(found, after)

        wait_until("both pages say the same", quiet)
        samples = page()
        assert value(samples, "ready") == 1
        assert value(samples, "redis_up") == 1
        assert value(samples, "published_insights_total") > 0
        assert value(samples, "ingest_records_total") == feed.count
        assert sum(number for (name, _), number in samples.items() if "ingest_dead_letters" in name) > 0
        own = {name: number for (name, labels), number in samples.items() if not labels}
        (info,) = (dict(labels) for name, labels in samples if name == "python_info")
        assert info["version"] == platform.python_version()
        assert {f"python_gc_collections_total/{generation}" for generation in range(3)} == {
            f"{name}/{dict(labels)['generation']}" for name, labels in samples if name == "python_gc_collections_total"
        }
        assert 0 < own["process_open_fds"] < own["process_max_fds"]
        assert own["process_virtual_memory_bytes"] > own["process_resident_memory_bytes"] > 10_000_000
        told = worker.status()
        assert told is not None
        assert own["process_start_time_seconds"] == pytest.approx(time.time() - told["uptime_seconds"], abs=60)
        assert page()["process_cpu_seconds_total", frozenset()] >= own["process_cpu_seconds_total"] > 0


def agree(samples: Samples, told: dict[str, Any]) -> bool:
    expected = parsed(render(told))
    moving = ("parallax_uptime", "parallax_checkpoint")
    ours = {key for key in samples if not key[0].startswith(("process_", "python_"))}
    return ours == expected.keys() and all(
        samples[key] == expected[key] for key in expected if not key[0].startswith(moving)
    )
