"""``parallax patterns``, ``recommend``, ``benchmarks`` and ``caches`` on insights that stand on a real topic."""

import json
import uuid
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Producer
from redis import Redis

from core.profile import DEFAULT_PROFILE, load_profile
from schemas import insight as insight_codec
from schemas.insight import CrossPlatformInsight, InsightTotals, MoneyTotals, Version
from schemas.platform import Platform
from stream_app import topics
from stream_app.cli import cli
from stream_app.embedded import free_port
from stream_app.settings import Settings
from tests.test_insight import golden

pytestmark = [pytest.mark.kafka, pytest.mark.redis]
CAMPAIGNS = 30
TRUE_ROAS = {"meta": 3.0, "tiktok": 1.5}


def insight(number: int, rng: np.random.Generator) -> CrossPlatformInsight:
    """Every third campaign runs on Meta alone; accounts take turns; a ROAS that strays around its platform's own."""
    one = golden()
    parts = {}
    for name in ("meta",) if number % 3 == 0 else ("meta", "tiktok"):
        spend = int(rng.integers(50, 150)) * 10**6
        revenue = round(spend * TRUE_ROAS[name] * float(rng.lognormal(-0.02, 0.2)))
        totals = InsightTotals(
            impressions=20_000,
            clicks=int(rng.integers(200, 500)),
            link_clicks=None,
            conversions_micros=None,
            engagements=int(rng.integers(300, 900)),
            video_views=None,
            currency="USD",
            spend_micros=spend,
            revenue_micros=revenue,
            money=[MoneyTotals("USD", spend, revenue)],
        )
        part = one.platform_breakdown["meta"]
        parts[name] = msgspec.structs.replace(part, totals=totals, accounts=[str(number % 2)])
    return msgspec.structs.replace(
        one,
        insight_id=f"{number:032x}",
        campaign_id=f"c-{number:02}",
        window="7d",
        window_end="2026-03-08",
        version=Version(1, 0),
        platform_breakdown=parts,
    )


@pytest.fixture(scope="module")
def prefix(kafka: str) -> str:
    """A topic prefix under which insights stand, beside one that is none."""
    found = f"{uuid.uuid4().hex[:8]}."
    settings = Settings(kafka_bootstrap=kafka, topic_prefix=found)
    topics.create(settings)
    producer, rng = Producer({"bootstrap.servers": kafka}), np.random.default_rng(5)
    for number in range(CAMPAIGNS):
        one = insight(number, rng)
        producer.produce(f"{found}insights.latest", insight_codec.encode(one), one.insight_id, partition=number % 4)
    producer.produce(f"{found}insights.latest", b'{"window":"7d"', "broken", partition=0)
    assert producer.flush(20) == 0
    return found


@pytest.fixture(autouse=True)
def _environment(kafka: str, redis_server: tuple[str, int], prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARALLAX_KAFKA_BOOTSTRAP", kafka)
    monkeypatch.setenv("PARALLAX_TOPIC_PREFIX", prefix)
    monkeypatch.setenv("REDIS_HOST", redis_server[0])
    monkeypatch.setenv("REDIS_PORT", str(redis_server[1]))
    monkeypatch.setenv("REDIS_DB", "7")
    with Redis(host=redis_server[0], port=redis_server[1], db=7) as client:
        client.flushdb()


def run(*arguments: str | Path, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def test_patterns_are_printed_and_the_second_time_come_from_the_cache() -> None:
    first, second = run("patterns").output, run("patterns").output
    assert f"computed now from {CAMPAIGNS} campaigns" in first
    assert "from the cache, " in second
    assert first.splitlines()[1:] == second.splitlines()[1:]
    assert "best platforms: meta" in first
    own = json.loads(run("patterns", "--account", "tiktok:1", "--format", "json").output)
    assert (own["account"], own["as_of"], own["source"]) == ("tiktok:1", "2026-03-08", "computed")
    assert own["patterns"]["total_campaigns"] == sum(number % 2 == 1 and number % 3 > 0 for number in range(CAMPAIGNS))
    told = run("caches").output
    assert "33.3%" in told
    assert json.loads(run("caches", "--json").output)["budget"]["hit_rate"] is None


def test_a_cached_answer_of_other_benchmarks_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("patterns")
    profile = msgspec.structs.replace(DEFAULT_PROFILE, version="house")
    path = tmp_path / "profile.json"
    path.write_bytes(msgspec.json.encode(profile))
    monkeypatch.setenv("PARALLAX_PROFILE_FILE", str(path))
    found = json.loads(run("patterns", "--format", "json").output)
    assert (found["benchmarks"], found["source"]) == ("house", "computed")


def test_without_redis_they_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_PORT", str(free_port()))
    assert "computed now" in run("patterns").output
    assert "REDIS_HOST" in run("caches", code=3).output


@pytest.mark.parametrize(
    ("arguments", "variables", "code", "told"),
    [
        (("patterns",), {"PARALLAX_WINDOWS": "1h,24h"}, 2, "add it to PARALLAX_WINDOWS"),
        (("patterns", "--follow"), {"PARALLAX_WINDOWS": "14d"}, 2, "add it to PARALLAX_WINDOWS"),
        (("recommend",), {"PARALLAX_WINDOWS": "1h"}, 2, "add it to PARALLAX_WINDOWS"),
        (("patterns", "--account", "act_1"), {}, 2, "PLATFORM:ID"),
        (("patterns", "--account", "meta:9"), {}, 1, "accounts with campaigns: meta:0, meta:1, tiktok:0, tiktok:1"),
        (("patterns", "--follow", "--account", "meta:1"), {}, 2, "leave out --account"),
        (("patterns",), {"PARALLAX_TOPIC_PREFIX": "absent."}, 2, "topics create"),
        (("patterns", "--follow"), {"PARALLAX_TOPIC_PREFIX": "absent."}, 2, "topics create"),
        (("recommend", "--budget", "-1"), {}, 2, "--budget is above 0"),
        (("recommend", "--budget", "nan"), {}, 2, "--budget is above 0"),
        (("benchmarks", "--vertical", "x"), {}, 2, "needs --labels"),
        (("benchmarks", "--min-support", "1000"), {}, 1, "smaller --min-support"),
        (("caches",), {"CACHE_ENABLED": "false"}, 2, "CACHE_ENABLED=true"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_is_one_line(
    arguments: tuple[str, ...], variables: dict[str, str], code: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    result = run(*arguments, code=code)
    assert told in result.stderr.splitlines()[-1]
    assert result.stdout == ""


@pytest.mark.parametrize("command", ["patterns", "recommend", "benchmarks"])
def test_no_broker_is_one_line(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARALLAX_KAFKA_BOOTSTRAP", f"127.0.0.1:{free_port()}")
    assert "PARALLAX_KAFKA_BOOTSTRAP" in run(command, code=3).stderr


def test_platforms_are_ranked_by_the_campaigns_that_ran() -> None:
    found = json.loads(run("recommend", "--budget", "100", "--format", "json").output)
    assert found["best"] == "meta"
    assert [one["platform"] for one in found["ranked"]] == ["meta", "tiktok"]
    meta = found["ranked"][0]
    assert meta["roas"]["low"] < TRUE_ROAS["meta"] < meta["roas"]["high"]
    assert meta["evidence"] == {"all": CAMPAIGNS}
    assert found["notes"] == []
    table = run("recommend", "--budget", "5000").output
    assert "it beats tiktok with probability" in table
    assert "no campaign spent nearly that much" in table


def test_labels_narrow_and_one_that_does_not_is_told(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("campaign_id,vertical\n" + "".join(f"c-{n:02},shoes\n" for n in range(10)) + "gone,hats\n")
    found = json.loads(run("recommend", "--vertical", "shoes", "--labels", labels, "--format", "json").output)
    assert found["ranked"][0]["evidence"] == {"all": CAMPAIGNS, "vertical": 10}
    assert found["notes"] == [f"labels: 10 of the {CAMPAIGNS} live campaigns have one; the file names 11"]
    hats = run("recommend", "--vertical", "hats", "--labels", labels).output
    assert "vertical hats: no live campaign has it, it narrows nothing" in hats
    bare = run("recommend", "--vertical", "shoes", "--objective", "traffic").output
    assert "vertical shoes: the stream does not know it of any campaign, it narrows nothing; give --labels" in bare
    assert "objective traffic: the stream does not know it of any campaign, it narrows nothing and only decides" in bare
    assert "by cpc" in bare
    account = json.loads(run("recommend", "--account", "meta:1", "--format", "json").output)
    assert account["ranked"][0]["evidence"]["account_id"] == CAMPAIGNS // 2


def test_an_objective_is_a_known_one_or_one_that_labels_name(tmp_path: Path) -> None:
    told = run("recommend", "--objective", "nonsense", code=2).stderr
    assert "--objective nonsense: known are app_installs, awareness," in told
    assert len(told.splitlines()) == 1
    labels = tmp_path / "labels.csv"
    labels.write_text("campaign_id,objective\n" + "".join(f"c-{n:02},nonsense\n" for n in range(10)))
    own = json.loads(run("recommend", "--objective", "nonsense", "--labels", labels, "--format", "json").output)
    assert own["ranked"][0]["evidence"] == {"all": CAMPAIGNS, "objective": 10}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("campaign,vertical\na,b\n", "the columns are campaign_id"),
        ("campaign_id\na\n", "the columns are campaign_id"),
        ("campaign_id,vertical\na,b,c\n", "line 2"),
        ("campaign_id,vertical\na,b\na,c\n", "line 3: campaign a comes twice"),
        ('campaign_id,vertical\n"a,b\n', "cannot be read as CSV"),
    ],
)
def test_labels_that_cannot_be_read_are_one_line(text: str, told: str, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text(text)
    assert told in run("recommend", "--labels", labels, code=2).stderr
    assert "cannot be read" in run("recommend", "--labels", tmp_path / "absent.csv", code=2).stderr


def test_too_few_campaigns_are_not_enough_evidence(monkeypatch: pytest.MonkeyPatch, kafka: str) -> None:
    prefix = f"{uuid.uuid4().hex[:8]}."
    topics.create(Settings(kafka_bootstrap=kafka, topic_prefix=prefix))
    monkeypatch.setenv("PARALLAX_TOPIC_PREFIX", prefix)
    assert "is a worker running?" in run("recommend", code=1).stderr
    producer, one = Producer({"bootstrap.servers": kafka}), insight(1, np.random.default_rng(1))
    producer.produce(f"{prefix}insights.latest", insight_codec.encode(one), one.insight_id, partition=0)
    assert producer.flush(20) == 0
    told = run("recommend", code=1).output
    assert "meta: not enough evidence: 1 campaigns with 20000 impressions; it takes 5 and 10000" in told


def test_a_learned_profile_is_one_that_the_settings_take(tmp_path: Path) -> None:
    out = tmp_path / "profile.json"
    told = run("benchmarks", "--min-support", "15", "--out", out)
    profile = load_profile(out.read_bytes())
    assert profile.version.startswith(f"{DEFAULT_PROFILE.version}+learned.")
    band = profile.platforms[Platform.META].ctr
    assert 200 / 20_000 <= band.low < band.high <= 500 / 20_000
    assert profile.platforms[Platform.GOOGLE_ADS] == DEFAULT_PROFILE.platforms[Platform.GOOGLE_ADS]
    assert profile.platforms[Platform.META].maturity == DEFAULT_PROFILE.platforms[Platform.META].maturity
    assert f"meta: ctr learned ({CAMPAIGNS})" in told.stderr
    assert "google_ads: ctr kept (0)" in told.stderr
    assert load_profile(run("benchmarks", "--min-support", "15").stdout) == profile
