"""The command: every error is one line, nothing secret is shown, and files give what the core computes."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, cast

import click
import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Producer
from redis import Redis

from core.campaigns import InsightConfig
from core.ingest import Ingest
from core.lateness import Lateness
from core.offline import compute
from core.window import parse_window
from schemas import insight, prediction
from schemas.calendar import instant_ms
from schemas.dates import LATEST_MS
from schemas.platform import Platform
from schemas.topics import CAMPAIGN_LINKS, METRICS_TOPICS
from stream_app.cli import cli
from stream_app.embedded import embedded_redis, free_port
from stream_app.files import arrivals
from stream_app.settings import Settings
from stream_app.topics import plan

ROOT = Path(__file__).parents[1]
NATIVE = ROOT.parent / "shared" / "native"
FILES = sorted(path for path in NATIVE.glob("*/*") if path.suffix in (".json", ".jsonl"))
ARRIVED = "2026-01-01T00:00:00.000Z"
ARRIVED_MS = instant_ms(ARRIVED)
CANARY = "canary-3f1c"
SECRETS = {
    "PARALLAX_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    "PARALLAX_SASL_USERNAME": "someone",
    "PARALLAX_SASL_PASSWORD": CANARY,
    "REDIS_PASSWORD": CANARY,
}


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    known = [str(field.alias) for field in Settings.model_fields.values()]
    for name in (*known, "PARALLAX_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PARALLAX_KAFKA_BOOTSTRAP", f"127.0.0.1:{free_port()}")
    monkeypatch.setenv("REDIS_PORT", str(free_port()))
    monkeypatch.setenv("PARALLAX_HEALTH_PORT", str(free_port()))


Arguments = tuple[str | Path, ...]


def run(*arguments: str | Path, stdin: bytes | None = None) -> Result:
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments], input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def process(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stream_app", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60, **options)


def the_line(result: Result | subprocess.CompletedProcess[str]) -> str:
    """The one line on standard error of a command that failed."""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("parallax: ")
    return lines[0]


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


@pytest.mark.parametrize("path", [(), *commands(cli)], ids=" ".join)
def test_every_command_has_help_that_fits(path: tuple[str, ...]) -> None:
    result = run(*path, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: ")
    assert all(len(line) <= 110 for line in result.stdout.splitlines())
    assert "..." not in result.stdout.partition("Commands:")[2]


def test_help_and_settings_come_without_the_heavy_libraries() -> None:
    script = """
import sys
from stream_app.cli import cli
for arguments in (["--help"], ["insights", "--help"], ["settings"], ["settings", "--json"], ["schema"]):
    cli.main(arguments, standalone_mode=False)
heavy = {"faust", "numpy", "xgboost", "scipy", "aiokafka", "confluent_kafka", "redis"} & sys.modules.keys()
sys.exit(f"imported {heavy}" if heavy else 0)
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_the_command_runs_as_a_process() -> None:
    for arguments in (["--help"], ["--version"]):
        ended = process(*arguments)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert "parallax" in ended.stdout


def test_settings_say_value_and_source_and_no_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CACHE_TTL", "60")
    config = tmp_path / "px.toml"
    config.write_text('app_id = "own"\nwindows = ["24h"]\n')
    found = json.loads(run("--config", config, "settings", "--json").stdout)
    assert found.keys() == Settings.model_fields.keys()
    assert found["cache_ttl"] == {"value": "60", "source": "environment CACHE_TTL"}
    assert found["app_id"] == {"value": "own", "source": f"file {config}"}
    assert found["partitions"]["source"].startswith("default")
    table = run("--config", config, "settings")
    for name, fact in found.items():
        line = next(line for line in table.stdout.splitlines() if line.split()[:1] == [name])
        assert fact["value"] in line
        assert fact["source"] in line
    for shown in (json.dumps(found), table.output):
        assert CANARY not in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ("settings",),
        ("topics", "create"),
        ("topics", "plan"),
        ("topics", "verify"),
        ("worker",),
        ("produce", "-", "--links"),
        ("insights", "-"),
        ("tail", "insights"),
        ("hot", "c"),
        ("health",),
    ],
    ids=" ".join,
)
def test_a_wrong_setting_is_one_line(monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    monkeypatch.setenv("PARALLAX_PARTITIONS", "many")
    result = run(*arguments, stdin=b"")
    assert result.exit_code == 2
    assert "PARALLAX_PARTITIONS" in the_line(result)
    assert result.stdout == ""


def test_other_wrong_settings_are_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    absent = tmp_path / "absent.toml"
    assert str(absent) in the_line(run("--config", absent, "settings"))
    profile = tmp_path / "profile.json"
    monkeypatch.setenv("PARALLAX_PROFILE_FILE", str(profile))
    assert str(profile) in the_line(run("insights", FILES[0]))
    profile.write_text("{}")
    assert str(profile) in the_line(run("insights", FILES[0]))
    monkeypatch.delenv("PARALLAX_PROFILE_FILE")
    certificates = tmp_path / "ca.pem"
    monkeypatch.setenv("PARALLAX_SECURITY_PROTOCOL", "SSL")
    monkeypatch.setenv("PARALLAX_SSL_CAFILE", str(certificates))
    for _ in range(2):
        for arguments in (("tail", "insights"), ("topics", "verify"), ("produce", "-", "--links"), ("worker",)):
            result = run(*arguments, stdin=b"")
            assert result.exit_code == 2
            assert the_line(result).endswith("mend PARALLAX_SSL_CAFILE")
        certificates.write_text("no certificate")


def test_a_window_that_cannot_be_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("insights", FILES[0], "--window", "5m")
    assert result.exit_code == 2
    assert "5m" in the_line(result)
    assert "--window" in the_line(result)
    monkeypatch.setenv("PARALLAX_WINDOWS", "400d")
    for arguments in (("insights", str(FILES[0])), ("worker",)):
        assert "PARALLAX_WINDOWS" in the_line(run(*arguments))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("topics", "create"), "PARALLAX_KAFKA_BOOTSTRAP"),
        (("topics", "verify"), "PARALLAX_KAFKA_BOOTSTRAP"),
        (("worker",), "PARALLAX_KAFKA_BOOTSTRAP"),
        (("produce", "-", "--platform", "meta"), "PARALLAX_KAFKA_BOOTSTRAP"),
        (("tail", "insights"), "PARALLAX_KAFKA_BOOTSTRAP"),
        (("hot", "c"), "REDIS_HOST"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_an_absent_server_is_one_line(monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], told: str) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PARALLAX_START_PATIENCE", "1ms")
    ended = process(*arguments, stdin=subprocess.DEVNULL)
    assert ended.returncode == 3
    assert told in the_line(ended)
    assert ended.stdout == ""
    assert CANARY not in ended.stderr


def test_a_missing_or_odd_file_is_one_line(tmp_path: Path) -> None:
    absent = tmp_path / "absent\x1b[2J.jsonl"
    odd = tmp_path / "rows.csv"
    odd.write_text("a")
    for file, told in ((absent, "there is no such file"), (odd, "rows are read from"), (tmp_path, "rows are read")):
        for arguments in (("insights", file), ("insights", FILES[0], "--links", file), ("produce", file, "--links")):
            result = run(*arguments)
            assert result.exit_code == 2
            assert told in the_line(result)
            assert "\x1b" not in result.stderr


def test_produce_wants_to_know_the_topic() -> None:
    for choice in ((), ("--links", "--platform", "meta")):
        result = run("produce", FILES[0], *choice)
        assert result.exit_code == 2
        assert "one of --platform, --links, --rates, --accounts and --creatives" in result.stderr


def test_the_plan_is_shown_without_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARALLAX_TOPIC_PREFIX", "t.")
    planned = plan(Settings(topic_prefix="t."))
    found = json.loads(run("topics", "plan", "--json").stdout)
    assert found == [{"name": topic.name, "partitions": 4, "config": topic.config(1)} for topic in planned]
    table = run("topics", "plan").stdout
    assert all(f"{topic.name} " in table for topic in planned)
    assert "100d" in table


def test_schema_prints_one_or_all() -> None:
    every = json.loads(run("schema").stdout)
    assert list(every) == [
        *("metric-event", "campaign-link", "exchange-rate", "account", "creative"),
        *("insight", "prediction", "patterns", "creative-score", "model-header", "dead-letter"),
    ]
    assert json.loads(run("schema", "insight").stdout) == every["insight"]
    result = run("schema", "nothing")
    assert result.exit_code == 2
    assert "choose from metric-event" in the_line(result)


LINKED = ("20643300404", "23854404676180548")
LINKS = [
    {"version": 1, "platform": platform, "platform_campaign_id": campaign, "campaign_id": "summer"}
    for platform, campaign in zip(("google_ads", "meta"), LINKED, strict=True)
]


@pytest.fixture
def links(tmp_path: Path) -> Path:
    path = tmp_path / "links.json"
    path.write_text(json.dumps(LINKS))
    return path


def directly(links: Path, windows: tuple[str, ...]) -> tuple[list[bytes], list[bytes]]:
    """What the core makes of the native files, each topic in a partition of its own."""
    batches, offset = [], 0
    for topic, path in [(CAMPAIGN_LINKS, links), *((METRICS_TOPICS[Platform(f.parent.name)], f) for f in FILES)]:
        records = list(arrivals(path, ARRIVED_MS, first_offset=offset))
        offset += len(records)
        batches.append((topic, 0, records))
    computed = compute(
        batches,
        Ingest(partitions=1, lateness=Lateness(horizon_ms=LATEST_MS, delta_ms=LATEST_MS)),
        InsightConfig(windows=tuple(map(parse_window, windows))),
        predictions=True,
    )
    return list(map(insight.encode, computed.insights)), list(map(prediction.encode, computed.predictions))


def test_facts_of_accounts_and_rates_are_files_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, rates, accounts = tmp_path / "meta.jsonl", tmp_path / "rates.jsonl", tmp_path / "accounts.jsonl"
    row = {
        "account_id": "7",
        "campaign_id": "1",
        "date_start": "2026-01-03",
        "date_stop": "2026-01-03",
        "spend": "2.00",
    }
    rows.write_text(json.dumps(row) + "\n")
    rate = {"version": 1, "date": "2026-01-02", "currency": "EUR", "per": "USD", "rate": "1.5"}
    rates.write_text(json.dumps(rate) + "\n")
    account = {"version": 1, "platform": "meta", "account_id": "7", "time_zone": "Asia/Kolkata", "currency": "EUR"}
    accounts.write_text(json.dumps(account) + "\n")
    command: Arguments = ("insights", rows, "--rates", rates, "--accounts", accounts, "--window", "24h")
    assert "PARALLAX_REPORTING_CURRENCY" in the_line(run(*command))
    monkeypatch.setenv("PARALLAX_REPORTING_CURRENCY", "USD")
    result = run(*command, "--format", "json")
    found = json.loads(result.stdout)
    assert found["totals"]["currency"] == "EUR"
    assert found["totals"]["reporting"] == {
        "currency": "USD",
        "spend_micros": 3_000_000,
        "revenue_micros": None,
        "roas": None,
        "rates": [{"currency": "EUR", "date": "2026-01-02", "rate": "1.5"}],
        "missing": [],
    }
    assert found["platform_breakdown"]["meta"]["zones"] == ["Asia/Kolkata"]
    assert result.stderr.startswith("3 records = 3 rows: 3 applied")


@pytest.mark.parametrize("windows", [("24h",), ("7d", "1h")])
def test_insights_of_files_are_those_of_the_core(links: Path, windows: tuple[str, ...]) -> None:
    options = [option for window in windows for option in ("--window", window)]
    command: Arguments = ("insights", *FILES, "--links", links, "--arrived-at", ARRIVED, *options, "--format", "json")
    result = run(*command)
    expected, predictions = directly(links, windows)
    assert result.exit_code == 0
    assert result.stdout_bytes.splitlines() == expected
    assert run(*command, "--predictions").stdout_bytes.splitlines() == [*expected, *predictions]
    summer = [line for line in expected if json.loads(line)["campaign_id"] == "summer"]
    assert any(len(json.loads(line)["platform_breakdown"]) == 1 for line in summer)
    assert run(*command, "--campaign", "summer").stdout_bytes.splitlines() == summer
    accounting = result.stderr.splitlines()
    assert len(accounting) == 1
    assert "0 dead letters, " in accounting[0]


def test_the_default_windows_are_those_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARALLAX_WINDOWS", "24h,3d")
    lines = run("insights", FILES[0], "--format", "json").stdout.splitlines()
    assert {json.loads(line)["window"] for line in lines} == {"24h", "3d"}


def test_the_table_shows_what_json_holds(links: Path) -> None:
    command: Arguments = ("insights", *FILES, "--links", links, "--window", "24h", "--predictions")
    table = run(*command).stdout
    title, *rows = [line for line in table.partition("\n\n")[0].splitlines() if "──" not in line]
    for name in ("campaign", "window", "start", "platforms", "impressions", "clicks", "ctr", "spend", "roas"):
        assert name in title
    found = [json.loads(line) for line in run(*command[:-1], "--format", "json").stdout.splitlines()]
    assert len(rows) == len(found)
    for row, one in zip(rows, found, strict=True):
        assert row.split()[:3] == [one["campaign_id"], "24h", one["window_start"]]
        if one["totals"]["impressions"] is not None:
            assert f" {one['totals']['impressions']:,} " in row
    assert "90% interval" in table
    assert run("insights", FILES[0], "--campaign", "nobody").stdout == "no insights\n"


DELTA = {
    "version": 1,
    "kind": "delta",
    "event_id": "e",
    "platform": "tiktok",
    "campaign_id": "c",
    "period_start": "2025-06-01T10:00:00Z",
    "impressions": 1000,
    "clicks": 10,
    "spend_micros": 2_500_000,
    "currency": "EUR",
}


def rows(*bodies: Any) -> bytes:
    return b"".join(json.dumps(body).encode() + b"\n" for body in bodies)


def test_history_is_never_too_late_unless_a_horizon_says_so() -> None:
    daily = {
        **DELTA,
        "kind": "snapshot",
        "event_id": "",
        "period_start": "2025-06-01T00:00:00Z",
        "period_end": "2025-06-02T00:00:00Z",
        "platform": "meta",
    }
    command = ("insights", "-", "--arrived-at", "2025-06-21T00:00:00Z", "--window", "24h", "--format", "json")

    def insights(*options: str) -> tuple[set[str], str]:
        result = run(*command, *options, stdin=rows(DELTA, daily))
        return {json.loads(line)["best_platform"] for line in result.stdout.splitlines()}, result.stderr

    assert len(run(*command, stdin=rows(DELTA, daily)).stdout.splitlines()) == 2
    found, told = insights()
    assert found == {"meta", "tiktok"}
    found, told = insights("--horizon", "30d")
    assert found == {"meta"}
    assert "1 dead letters (too_late 1)" in told
    assert "stdin record 1, row 0: too_late: " in told
    assert insights("--horizon", "10d")[0] == set()
    assert "--horizon soon" in the_line(run(*command, "--horizon", "soon", stdin=b""))


def test_dead_letters_are_told_with_their_place_and_do_not_fail(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(rows(DELTA) + b"\xff\n" * 6 + rows({**DELTA, "clicks": -1}))
    result = run("insights", path, "--window", "24h")
    assert result.exit_code == 0
    assert "2.50 EUR" in result.stdout
    account, *letters, more = result.stderr.splitlines()
    assert account.startswith("8 records = 8 rows: 1 applied, 0 duplicate, 0 superseded, 7 dead letters (")
    assert "not_utf8 6" in account
    assert len(letters) == 5
    assert f"{path} record 2, row 0: not_utf8: " in letters[0]
    assert more == "  and 2 more dead letters"


def test_platform_and_account_are_taken_from_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARALLAX_ACCOUNTS", '{"tiktok:acc": {"currency": "JPY"}}')
    row = {"campaign_id": "9", "stat_time_day": "2024-01-01 00:00:00", "impressions": "5", "spend": "7"}
    body = rows({"stream": "campaigns_reports_daily", "data": {"dimensions": row, "metrics": row}, "emitted_at": 1})
    body = body.replace(b'"emitted_at": 1', b'"emitted_at": 1704200000000')
    command = ("insights", "-", "--window", "24h", "--format", "json", "--account", "acc")
    found = json.loads(run(*command, stdin=body).stdout)
    assert (found["campaign_id"], found["totals"]["currency"]) == ("tiktok:9", "JPY")
    assert "unknown_shape 1" in run(*command, "--platform", "meta", stdin=body).stderr


def test_control_characters_do_not_reach_the_terminal() -> None:
    result = run("insights", "-", "--window", "24h", stdin=rows({**DELTA, "campaign_id": "\x1b[2Jx[bold]"}))
    assert "\x1b" not in result.stdout
    assert "\ufffd[2Jx[bold]" in result.stdout


def test_a_wrong_arrival_is_one_line() -> None:
    assert "--arrived-at" in the_line(run("insights", FILES[0], "--arrived-at", "yesterday"))


def test_a_reader_that_leaves_ends_the_command_without_a_word(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(rows(*({**DELTA, "campaign_id": f"c{n}"} for n in range(300))))
    command = [sys.executable, "-m", "stream_app", "insights", str(path), "--format", "json", "--window", "24h"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stderr is not None
        started.stdout.close()
        assert started.stderr.read() == b""
    assert started.returncode == 141


def test_ctrl_c_ends_the_command_without_a_word(tmp_path: Path) -> None:
    fifo = tmp_path / "rows.jsonl"
    os.mkfifo(fifo)
    script = f"""
import pathlib
pathlib.Path.is_file = lambda self: True
from stream_app.cli import cli
cli(["insights", {str(fifo)!r}])
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stderr=subprocess.PIPE) as started:
        assert started.stderr is not None
        # Opening for writing succeeds once the command has opened the file for reading.
        with fifo.open("wb"):
            started.send_signal(signal.SIGINT)
            told = started.stderr.read()
    assert (started.returncode, told) == (130, b"")


@contextmanager
def page(status: int, body: bytes) -> Iterator[int]:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health/" else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [(200, b'{"ready": true, "lag": {}}', 0), (503, b'{"ready": false}', 1), (200, b"[]", 1)],
)
def test_health_is_what_the_page_says(monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, code: int) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    with page(status, body) as port:
        monkeypatch.setenv("PARALLAX_HEALTH_PORT", str(port))
        result = run("health")
    assert (result.exit_code, json.loads(result.stdout)) == (code, json.loads(body))


def test_without_a_worker_health_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("health")
    assert result.exit_code == 1
    assert "no worker answers" in the_line(result)
    with page(200, b"<html>") as port:
        monkeypatch.setenv("PARALLAX_HEALTH_PORT", str(port))
        assert "is no Parallax worker" in the_line(run("health"))
    monkeypatch.setenv("PARALLAX_HEALTH_PORT", "0")
    assert "set PARALLAX_HEALTH_PORT" in the_line(run("health"))


def test_a_second_worker_on_the_same_health_port_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with page(200, b"{}") as port:
        monkeypatch.setenv("PARALLAX_HEALTH_PORT", str(port))
        result = run("worker")
    assert result.exit_code == 2
    assert f"port {port} for the health page cannot be had" in the_line(result)


def test_hot_shows_value_age_freshness_and_ttl(monkeypatch: pytest.MonkeyPatch) -> None:
    with embedded_redis() as (host, port):
        monkeypatch.setenv("REDIS_HOST", host)
        monkeypatch.setenv("REDIS_PORT", str(port))
        absent = run("hot", "summer: a")
        assert absent.exit_code == 1
        assert "Redis holds no insight of campaign summer: a and window 24h" in the_line(absent)
        written = time.time_ns() // 1_000_000 - 3_000_000
        fields = {"start": 0, "revision": 7, "phase": 1, "as_of": ARRIVED_MS, "written": written, "value": '{"x": "é"}'}
        with Redis(host=host, port=port) as client:
            for kind in ("insight", "prediction"):
                client.hset(f"parallax:{kind}:summer: a:7d", mapping=cast("dict[Any, Any]", fields))
                client.pexpire(f"parallax:{kind}:summer: a:7d", 600_000)
        for kind in ("insight", "prediction"):
            found = json.loads(run("hot", "summer: a", "--window", "7d", "--kind", kind, "--json").stdout)
            assert found["value"] == {"x": "é"}
            assert 3_000 <= found["age_seconds"] < 3_100
            assert (found["freshness"], found["as_of"]) == ("stale", ARRIVED)
            assert 500 < found["ttl_seconds"] <= 600
            assert found["version"][-2:] == [7, 1]
        first, _, rest = run("hot", "summer: a", "--window", "7d").stdout.partition("\n")
        assert "stale" in first
        assert ARRIVED in first
        assert json.loads(rest) == {"x": "é"}


def test_demo_passes_its_options_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    class Demo:
        @staticmethod
        def run(**options: Any) -> int:
            seen.append(options)
            return 1

    monkeypatch.setitem(sys.modules, "stream_app.demo", cast("Any", Demo))
    assert run("demo").exit_code == 1
    path = tmp_path / "rows.jsonl"
    run("demo", "--seed", "3", "--campaigns", "2", "--days", "5", "--json", "--input", path, "--input", path, "--keep")
    assert seen[0] == {"seed": 7, "campaigns": 20, "days": 14, "as_json": False, "inputs": [], "keep": False}
    assert seen[1] == {"seed": 3, "campaigns": 2, "days": 5, "as_json": True, "inputs": [path, path], "keep": True}


@pytest.fixture
def own_topics(kafka: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A prefix whose topics no other test has."""
    prefix = f"cli-{uuid.uuid4().hex[:8]}."
    monkeypatch.setenv("PARALLAX_KAFKA_BOOTSTRAP", kafka)
    monkeypatch.setenv("PARALLAX_TOPIC_PREFIX", prefix)
    return prefix


@pytest.mark.kafka
def test_a_missing_topic_is_one_line(own_topics: str) -> None:
    path = str(FILES[0])
    for arguments in (("topics", "verify"), ("tail", "insights"), ("produce", path, "--platform", "meta"), ("worker",)):
        result = run(*arguments)
        assert result.exit_code == 2
        assert own_topics in the_line(result)
        assert "run `parallax topics create`" in the_line(result)


@pytest.mark.kafka
def test_topics_are_made_filled_and_tailed(own_topics: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = run("topics", "create")
    assert made.exit_code == 0
    planned = [topic.name for topic in plan(Settings(topic_prefix=own_topics))]
    assert made.stdout.splitlines() == [
        *(f"created {name}" for name in planned),
        f"{len(planned)} topics created, 0 were there",
    ]
    assert run("topics", "create").stdout == f"0 topics created, {len(planned)} were there\n"
    assert run("topics", "verify").stdout == f"{len(planned)} topics are as planned\n"
    body = rows(*({**DELTA, "event_id": str(n)} for n in range(5)))
    # The same topic under another name: what was produced is then what is tailed.
    monkeypatch.setattr("schemas.topics.INSIGHTS", "ads.metrics.tiktok")
    produced = run("produce", "-", "--platform", "tiktok", "--account", "a", stdin=body)
    assert produced.exit_code == 0
    assert produced.stdout.startswith(f"5 records published to {own_topics}ads.metrics.tiktok (")
    tailed = run("tail", "insights", "--from-beginning", "--limit", "5", "--format", "json")
    assert tailed.exit_code == 0
    assert sorted(tailed.stdout.splitlines()) == sorted(
        json.dumps(json.loads(line), separators=(",", ":")) for line in body.splitlines()
    )
    assert len(run("tail", "insights", "--from-beginning", "--limit", "2").stdout.splitlines()) == 2


@pytest.mark.kafka
def test_ctrl_c_ends_a_tail_without_a_word(own_topics: str) -> None:
    run("topics", "create")
    producer = Producer({"bootstrap.servers": os.environ["PARALLAX_KAFKA_BOOTSTRAP"]})
    producer.produce(f"{own_topics}predictions.ctr", b'{"n": 1}')
    assert producer.flush(20) == 0
    command = [sys.executable, "-m", "stream_app", "tail", "predictions", "--from-beginning", "--format", "json"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stderr is not None
        assert started.stdout.readline() == b'{"n":1}\n'
        started.send_signal(signal.SIGINT)
        assert (started.stdout.read(), started.stderr.read()) == (b"", b"")
    assert started.returncode == 130


@pytest.mark.kafka
def test_what_was_not_delivered_gives_exit_code_1(own_topics: str, tmp_path: Path) -> None:
    run("topics", "create")
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"x": "' + b"y" * 1_500_000 + b'"}\n' + rows(DELTA))
    result = run("produce", path, "--platform", "meta")
    assert result.exit_code == 1
    assert "1 records were not delivered, 1 were" in the_line(result)


@pytest.mark.kafka
def test_produce_shows_progress_on_a_terminal_only(own_topics: str, tmp_path: Path) -> None:
    run("topics", "create")
    path = tmp_path / "rows.jsonl"
    path.write_bytes(rows(*({**DELTA, "event_id": str(n)} for n in range(3000))))
    arguments = ("produce", str(path), "--platform", "tiktok")
    assert process(*arguments).stderr == ""
    master, terminal = os.openpty()
    command = [sys.executable, "-m", "stream_app", *arguments]
    environment = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(command, cwd=ROOT, stderr=terminal, stdout=subprocess.PIPE, env=environment) as started:
        os.close(terminal)
        shown = read_terminal(master)
        assert started.stdout is not None
        told = started.stdout.read()
    os.close(master)
    assert started.returncode == 0
    assert told.startswith(b"3000 records published")
    assert "kB" in shown


def read_terminal(master: int) -> str:
    shown = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError as error:
            # Linux says so when nobody holds the other end any more.
            assert error.errno == errno.EIO  # noqa: PT017
            return shown.decode()
        if not part:
            return shown.decode()
        shown += part
