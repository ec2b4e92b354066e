"""The READMEs tell the truth: their commands exist, their codes are the codes, their example events are taken."""

import re
from pathlib import Path

import orjson
from click.testing import CliRunner

from schemas.account import AccountFact, decode_account
from schemas.decode import Reader, decode_record
from schemas.event import IgnoreReason, MetricEvent, RejectCode
from schemas.link import Link, decode_link
from schemas.platform import Platform
from schemas.rate import decode_rate
from schemas.rollup import RateFact
from schemas.topics import (
    CREATIVE_SCORES,
    DEAD_LETTERS,
    INGEST_TOPICS,
    INSIGHTS,
    INSIGHTS_LATEST,
    MODELS,
    PREDICTIONS,
    ROLLUPS,
    SCORECARDS,
)
from schemas.topics import ROUTED as ROUTED_TOPIC
from stream_app.cli import cli
from stream_app.settings import Settings, variable

ROOT = Path(__file__).parent.parent
CONTRACTS = (ROOT / "schemas" / "README.md").read_text()
README = "".join(path.read_text() for path in (ROOT / "README.md", ROOT / "stream_app" / "README.md")) + CONTRACTS


def test_every_parallax_command_and_option_exists() -> None:
    lines = re.findall(r"^parallax (.+?)(?:\s{2,}#.*)?$", README, re.MULTILINE)
    assert len(lines) >= 8
    for line in lines:
        words = line.split()
        path = [word for word in words[:2] if re.fullmatch(r"[a-z][a-z-]*", word)]
        command = path[:2] if path[0] in ("topics", "dead-letters") else path[:1]
        told = CliRunner().invoke(cli, [*command, "--help"])
        assert told.exit_code == 0, line
        for option in re.findall(r"--[a-z-]+", line):
            assert option in told.output, line


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)\b", README, re.MULTILINE)) <= targets


def test_the_taxonomy_is_whole() -> None:
    table = CONTRACTS[CONTRACTS.index("| code |") : CONTRACTS.index("Rows that are sound")]
    assert set(re.findall(r"`([a-z0-9_]+)`", table)) == set(map(str, RejectCode))
    reasons = CONTRACTS[CONTRACTS.index("Rows that are sound") :]
    assert set(re.findall(r"`([a-z_]+)`", reasons)) == set(map(str, IgnoreReason))


def test_every_setting_that_is_named_exists() -> None:
    known = {variable(field) for field in Settings.model_fields} | {"PARALLAX_TEST_KAFKA", "PARALLAX_TEST_REDIS"}
    assert set(re.findall(r"\b(?:PARALLAX|REDIS|CACHE)_[A-Z_]+\b", README)) <= known


def test_every_topic_that_is_named_exists() -> None:
    known = {
        *INGEST_TOPICS,
        CREATIVE_SCORES,
        DEAD_LETTERS,
        INSIGHTS,
        INSIGHTS_LATEST,
        MODELS,
        PREDICTIONS,
        ROLLUPS,
        SCORECARDS,
    }
    named = set(
        re.findall(r"\b(?:ads|creatives|insights|models|predictions|scorecards)\.[a-z][a-z-]*(?:\.[a-z]+)?", README)
    )
    assert named <= known | {ROUTED_TOPIC}


def test_the_example_records_are_taken() -> None:
    event, link, account, rate = (
        orjson.loads(re.sub(r"\s+", " ", text)) for text in re.findall(r'`(\{"version".+?\})`', README, re.DOTALL)
    )
    arrival = 1767225600000
    outcomes = decode_record(orjson.dumps(event), Reader(platform=Platform.META), arrival_ms=arrival)
    assert [type(outcome) for outcome in outcomes] == [MetricEvent]
    assert isinstance(decode_link(None, orjson.dumps(link), arrival_ms=arrival, max_bytes=65536), Link)
    assert isinstance(decode_account(None, orjson.dumps(account), arrival_ms=arrival, max_bytes=65536), AccountFact)
    assert isinstance(decode_rate(None, orjson.dumps(rate), arrival_ms=arrival, max_bytes=65536), RateFact)
