"""``parallax scorecard``: the newest of every partition, merged; the same numbers on the health page."""

import json
import uuid

import numpy as np
import pytest
from click.testing import CliRunner
from confluent_kafka import Producer

from core.learning.measures import measures
from core.learning.online import CtrPredictor
from schemas import scorecard as scorecard_codec
from schemas.scorecard import LearnedScorecard
from stream_app import topics
from stream_app.cli import cli
from stream_app.scorecards import merged, newest, summary
from stream_app.settings import Settings
from tests.test_learning_online import BASE, KEYS, PLATFORMS, TRUTH


def card(first: int, days: int) -> LearnedScorecard:
    """Of the series from a place on."""
    predictor = CtrPredictor(PLATFORMS, BASE)
    for day in range(days):
        shown, clicked = (np.asarray(values[day][first:]) for values in (TRUTH.impressions, TRUTH.clicks))
        predictor.close(day, KEYS[first:], shown, clicked)
    return LearnedScorecard(
        first_day=0,
        last_day=days - 1,
        model="m-1",
        standings={"meta": (True, "better"), "google_ads": (False, "not yet")},
        card=predictor.scorecard.to_bytes(),
    )


def test_a_summary_is_of_all_partitions() -> None:
    cards = [card(0, 5), card(10, 4)]
    both = merged(cards)
    assert both is not None
    found = summary(cards)
    served = next(one for one in measures(both) if (one.axis, one.predictor) == ("all", "served"))
    assert (found["rows"], found["days"], found["last_day"]) == (served.rows, 5, "1970-01-05")
    assert found["predicted_over_actual"] == pytest.approx(served.calibration, abs=1e-4)
    assert found["interval_coverage"] == pytest.approx(served.coverage, abs=1e-4)
    assert found["log_loss"].keys() == {"default", "model", "platform_mean"}
    assert found["promoted"] == ["meta"]
    assert summary([]) == {"rows": 0}


@pytest.mark.kafka
def test_the_newest_of_every_partition_is_printed(kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = f"{uuid.uuid4().hex[:8]}."
    monkeypatch.setenv("PARALLAX_KAFKA_BOOTSTRAP", kafka)
    monkeypatch.setenv("PARALLAX_TOPIC_PREFIX", prefix)
    settings = Settings(kafka_bootstrap=kafka, topic_prefix=prefix)
    missing = CliRunner().invoke(cli, ["scorecard"])
    assert missing.exit_code != 0
    assert "topics create" in missing.output
    topics.create(settings)
    assert CliRunner().invoke(cli, ["scorecard"]).output == "no day has been scored\n"
    producer = Producer({"bootstrap.servers": kafka})
    told = {0: [card(0, 3), card(0, 6)], 1: [card(10, 5)]}
    for partition, cards in told.items():
        for one in cards:
            value = scorecard_codec.encode(one)
            producer.produce(f"{prefix}scorecards.ctr", value, str(partition).encode(), partition=partition)
    assert producer.flush(20) == 0
    assert newest(settings) == {partition: cards[-1] for partition, cards in told.items()}
    printed = CliRunner().invoke(cli, ["scorecard"]).output
    assert "verdict:" in printed
    assert "m-1 on meta: promoted (better)" in printed
    report = json.loads(CliRunner().invoke(cli, ["scorecard", "--format", "json"]).output)
    assert report["rows"] == summary([told[0][-1], told[1][-1]])["rows"]
    assert report["verdict"]
    assert report["partitions"].keys() == {"0", "1"}
