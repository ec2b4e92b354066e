"""``parallax creatives``: from files and from real topics, a planted hook is found, and nothing counts twice."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas import creative_score
from schemas.platform import Platform
from schemas.topics import CREATIVE_SCORES, CREATIVES
from stream_app.extent import ExtentReader
from stream_app.feed import Feed
from stream_app.simulator import SimRecord
from stream_app.topics import name
from tests.creative_feed import CreativeFeed, lines, row
from tests.live import Live

ROOT = Path(__file__).parents[1]
ARRIVED = ("--arrived-at", "2026-02-01T00:00:00Z")


@pytest.fixture(scope="module")
def feed() -> CreativeFeed:
    return CreativeFeed()


@pytest.fixture(scope="module")
def folder(feed: CreativeFeed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("creatives")
    (folder / "rows.jsonl").write_text(lines(feed.rows()))
    (folder / "links.jsonl").write_text(lines(feed.links()))
    (folder / "creatives.jsonl").write_text(lines(feed.statements()))
    return folder


def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "stream_app", "creatives", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def of_files(folder: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    stated, links = folder / "creatives.jsonl", folder / "links.jsonl"
    files = ("--creatives", stated, "--links", links, "--platform", "meta", *ARRIVED)
    return run(folder / "rows.jsonl", *files, *more)


def hooks(report: dict[str, Any]) -> dict[str, Any]:
    return {one["label"]: one for one in report["patterns"]["ctr"] if one["attribute"] == "hook"}


def check_delivered(report: dict[str, Any], feed: CreativeFeed) -> None:
    """Every creative has delivered what its campaigns did, each once."""
    for score in report["creatives"]:
        own = [each for each in feed.campaigns if each.creative_id == score["creative_id"]]
        assert score["campaigns"] == len(own)
        for platform in Platform.META, Platform.TIKTOK, Platform.GOOGLE_ADS:
            found = score["delivered"].get(platform)
            assert (found is None) == (not own)
            if found is not None:
                assert found["impressions"] == sum(each.platforms[platform].impressions or 0 for each in own)
                assert found["clicks"] == sum(each.platforms[platform].clicks or 0 for each in own)
                spend = sum(each.platforms[platform].spend or 0 for each in own)
                assert found["spend"] == pytest.approx(spend, abs=1e-4)


def test_from_files(folder: Path, feed: CreativeFeed) -> None:
    told = of_files(folder, "--format", "json")
    assert (told.returncode, told.stderr) == (0, "")
    report = json.loads(told.stdout)
    assert hooks(report)["question"]["low"] > 0
    check_delivered(report, feed)
    assert report["learned"] == {
        "creatives": len({each.creative_id for each in feed.campaigns}),
        "campaigns": 90,
        "ads": 270,
        "first_day": "2026-01-01",
        "last_day": "2026-01-03",
        "as_of": "2026-01-04T00:00:00.000Z",
        "profile": "2026-01",
    }
    assert of_files(folder, "--format", "json").stdout == told.stdout
    shown = of_files(folder)
    assert (shown.returncode, shown.stderr) == (0, "")
    for words in ("90 campaigns, 270 ads, 2026-01-01 to 2026-01-03", "question", "cr-000", "creative_dna"):
        assert words in shown.stdout


def test_days_accounts_and_single_creatives(folder: Path) -> None:
    part = json.loads(of_files(folder, "--from", "2026-01-02", "--to", "2026-01-03", "--format", "json").stdout)
    assert (part["learned"]["first_day"], part["learned"]["last_day"]) == ("2026-01-02", "2026-01-02")
    alone = json.loads(of_files(folder, "--account", "acme", "--creative", "cr-003", "--format", "json").stdout)
    assert [score["creative_id"] for score in alone["creatives"]] == ["cr-003"]
    whole = json.loads(of_files(folder, "--format", "json").stdout)
    assert alone["creatives"][0] == next(score for score in whole["creatives"] if score["creative_id"] == "cr-003")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--from", "1.4."), 2, "--from must be a date"),
        (("--from", "2026-01-02", "--to", "2026-01-02"), 2, "is not after"),
        (("--links", "links.jsonl"), 2, "for rows in files"),
        (("rows.jsonl",), 2, "need --creatives FILE"),
        (("absent.jsonl", "--creatives", "creatives.jsonl"), 2, "there is no such file"),
        (("rows.jsonl", "--creatives", "creatives.jsonl", "--creative", "x"), 1, "creative x is not known"),
        (("rows.jsonl", "--creatives", "creatives.jsonl", "--account", "x"), 1, "no creative names the account x"),
    ],
)
def test_what_is_wrong_is_one_line(folder: Path, arguments: tuple[str, ...], code: int, told: str) -> None:
    done = run(*(folder / each if each.endswith("jsonl") else each for each in arguments))
    assert (done.returncode, done.stdout) == (code, "")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [(), ("--publish",)])
def test_without_a_broker_it_is_one_line(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARALLAX_KAFKA_BOOTSTRAP", "127.0.0.1:1")
    done = run(*arguments)
    assert done.returncode == 3
    assert "PARALLAX_KAFKA_BOOTSTRAP" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture
def app(kafka: str, tmp_path: Path) -> Iterator[Live]:
    with Live(kafka, ("127.0.0.1", 1), tmp_path, partitions=2, cache_enabled=False) as app:
        yield app


def scored(app: Live, *arguments: str) -> dict[str, Any]:
    done = app.command("creatives", "--format", "json", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    report: dict[str, Any] = json.loads(done.stdout)
    return {field: value for field, value in report.items() if field != "sources"}


def on_topic(app: Live) -> dict[bytes, bytes | None]:
    found: dict[bytes, bytes | None] = {}
    with ExtentReader(app.settings) as reader:
        for extent in reader.whole(name(app.settings, CREATIVE_SCORES)):
            for batch in reader.read(extent):
                found |= {record.key or b"": record.value for record in batch}
    return found


@pytest.mark.kafka
def test_from_the_topics_and_onto_one(app: Live, feed: CreativeFeed, folder: Path) -> None:
    """Scenario: rows, links and creatives are published; records are repeated; one row is restated; a creative is
    withdrawn.

    Expectation: the planted hook is found; a repeated record changes nothing, a restated one its creative's delivery,
    a withdrawal takes the score back.
    """
    for file, option in (("creatives", "--creatives"), ("links", "--links")):
        done = app.command("produce", folder / f"{file}.jsonl", option)
        assert done.returncode == 0, done.stderr
    # Canonical events say their platform themselves.
    assert app.command("produce", folder / "rows.jsonl", "--platform", "tiktok").returncode == 0
    first = scored(app, "--publish")
    question = hooks(first)["question"]
    assert question["low"] > 0
    assert (question["campaigns"] >= 10, question["creatives"] >= 3) == (True, True)
    check_delivered(first, feed)
    assert first["published"] == {"scores": len(feed.creatives), "withdrawn": 0}
    published = on_topic(app)
    assert {key.decode() for key in published} == {each.creative_id for each in feed.creatives}
    for score in first["creatives"]:
        value = published[score["creative_id"].encode()]
        assert value is not None
        assert creative_score.decode(value) == msgspec.convert(score, creative_score.CreativeScored)
    first["published"] = None

    sender = Feed(app.settings)
    sender.publish([*feed.rows()[:60], *feed.statements(), *feed.statements()[:5]])
    assert scored(app) == first

    campaign = feed.campaigns[0]
    part = feed.part(campaign.campaign_id, Platform.META, 0)
    more = part | {"clicks": part["clicks"] + 7}
    later = {"observed_at": "2026-01-05T00:00:00Z"}
    sender.publish([row(campaign.campaign_id, Platform.META, 0, more, **later)])
    restated = scored(app)
    for score, before in zip(restated["creatives"], first["creatives"], strict=True):
        if score["creative_id"] == campaign.creative_id:
            before["delivered"]["meta"]["clicks"] += 7
            for one in (score, before):
                # What is derived of the clicks follows them.
                del one["delivered"]["meta"]["composite"]
        assert score["delivered"] == before["delivered"]
    assert restated["learned"]["as_of"] == "2026-01-05T00:00:00.000Z"

    gone = feed.creatives[3].creative_id
    sender.publish([SimRecord(CREATIVES, gone.encode(), None, 0, [])])
    last = scored(app, "--publish")
    assert last["published"] == {"scores": len(feed.creatives) - 1, "withdrawn": 1}
    held = on_topic(app)
    assert held[gone.encode()] is None
    assert sum(value is not None for value in held.values()) == len(feed.creatives) - 1
    assert app.committed() == dict.fromkeys(app.committed(), 0), "no group has moved"


@pytest.mark.kafka
@pytest.mark.redis
def test_creatives_through_the_worker(kafka: str, redis_server: tuple[str, int], tmp_path: Path) -> None:
    """Scenario: a worker takes creatives, rows and unsound creatives, which are sent again.

    Expectation: every record has its end, the unsound are dead letters, and a redrive leaves what holds as it was.
    """
    feed = CreativeFeed(campaigns=6, creatives=4)
    with Live(kafka, redis_server, tmp_path, partitions=2) as app:
        app.ready(app.start())
        sender = Feed(app.settings)
        bad = SimRecord(CREATIVES, b"cr-000", b'{"version":1,"creative_id":"cr-000","hook":7}', 0, [])
        sender.publish([*feed.statements(), bad, SimRecord(CREATIVES, b"other", feed.statements()[1].value, 0, [])])
        sender.publish(feed.rows())
        accounting = app.drain(sender.count)
        assert accounting["dead_letters"] == {"bad_creative": 2}
        assert accounting["records"] == sender.count
        assert accounting["applied"] >= len(feed.creatives)
        listed = app.command("dead-letters", "list", "--code", "bad_creative", "--topic", CREATIVES)
        assert listed.returncode == 0, listed.stderr
        before = scored(app)
        again = app.command("dead-letters", "redrive", "--code", "bad_creative", "--yes")
        assert again.returncode == 0, again.stderr
        accounting = app.drain(sender.count + 2)
        assert accounting["dead_letters"] == {"bad_creative": 4}
        assert scored(app) == before
        assert len(before["creatives"]) == len(feed.creatives)


@pytest.mark.kafka
def test_before_anything_is_published(app: Live) -> None:
    done = app.command("creatives")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("no creatives are known")
    report = scored(app, "--publish")
    assert (report["creatives"], report["published"]) == ([], {"scores": 0, "withdrawn": 0})


@pytest.mark.kafka
def test_publishing_without_the_topic_is_refused_before_anything_is_read(kafka: str, tmp_path: Path) -> None:
    live = Live(kafka, ("127.0.0.1", 1), tmp_path, cache_enabled=False)
    done = live.command("creatives", "--publish")
    assert (done.returncode, done.stdout) == (2, "")
    assert "parallax topics create" in done.stderr
