"""Settings: precedence, types, refusals in one line, and secrets that never show."""

import logging
import os
import ssl
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.platform import Platform
from stream_app.domain import insight_config
from stream_app.duration import LONGEST_MS, MILLISECONDS, Duration
from stream_app.errors import SetupError
from stream_app.settings import PREFIX, UNPREFIXED, Settings, describe, load, variable

CANARY = "canary-5f1d9c"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(PREFIX) or name.lower() in UNPREFIXED:
            monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "parallax.toml"
    path.write_text(
        """
        partitions = 6
        redis_port = 7000
        windows = ["1h", "14d"]
        checkpoint_interval = "100ms"
        [accounts."meta:act_1"]
        time_zone = "America/New_York"
        currency = "USD"
        [final_after]
        meta = "2d"
        """
    )
    return path


def test_environment_goes_before_file_before_default(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_PORT", "7001")
    settings = load(file)
    assert (settings.redis_port, settings.partitions, settings.cache_ttl) == (7001, 6, 3600)
    sources = {name: source for name, _, source in describe(settings)}
    assert sources["redis_port"] == "environment REDIS_PORT"
    assert sources["partitions"] == f"file {file}"
    assert sources["cache_ttl"] == "default (set CACHE_TTL)"


def test_the_file_can_be_named_by_the_environment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARALLAX_CONFIG", str(file))
    settings = load()
    assert settings.windows == ("1h", "14d")
    assert settings.final_after == {
        Platform.META: Duration.parse("2d"),
        Platform.TIKTOK: Duration.parse("1d"),
        Platform.GOOGLE_ADS: Duration.parse("1d"),
    }
    account = settings.known_accounts().of(Platform.META, "act_1")
    assert (account.time_zone, account.currency) == ("America/New_York", "USD")


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("REDIS_HOST", "localhost", "redis_host", "localhost"),
        ("REDIS_PORT", "6380", "redis_port", 6380),
        ("REDIS_DB", "3", "redis_db", 3),
        ("CACHE_ENABLED", "false", "cache_enabled", False),
        ("CACHE_TTL", "60", "cache_ttl", 60),
        ("PARALLAX_WINDOWS", "1h, 7d", "windows", ("1h", "7d")),
        ("PARALLAX_HORIZON", "30d", "horizon", Duration(30 * 86_400_000)),
        ("PARALLAX_FINAL_AFTER", '{"tiktok":"6h"}', "final_after", None),
        ("PARALLAX_TOPIC_PREFIX", "run7.", "topic_prefix", "run7."),
        ("PARALLAX_PARTITIONS", "", "partitions", 4),
        ("PARALLAX_RETRAIN_EVERY", "7d", "retrain_every", Duration(7 * 86_400_000)),
        ("PARALLAX_PATTERNS_EVERY", "5m", "patterns_every", Duration(300_000)),
        ("PARALLAX_REPORTING_CURRENCY", "EUR", "reporting_currency", "EUR"),
    ],
)
def test_each_variable_sets_its_field(
    name: str, text: str, field: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, text)
    found = getattr(load(), field)
    assert found == value if value is not None else found[Platform.TIKTOK] == Duration.parse("6h")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("PARALLAX_PARTITIONS", "many", "PARALLAX_PARTITIONS: Input should be a valid integer"),
        ("PARALLAX_PARTITIONS", "0", "greater than or equal to 1"),
        ("PARALLAX_HORIZON", "100", "PARALLAX_HORIZON: a duration is a whole number and a unit"),
        ("PARALLAX_HORIZON", "3d", "shorter than the longest window"),
        ("PARALLAX_WINDOWS", "2h", "'2h' is no window"),
        ("PARALLAX_WINDOWS", "1d", "'1d' is no window"),
        ("PARALLAX_WINDOWS", "1h,1h", "each once"),
        ("PARALLAX_ACCOUNTS", '{"meta:1":{"time_zone":"Mars/Olympus"}}', "unknown time zone 'Mars/Olympus'"),
        ("PARALLAX_ACCOUNTS", '{"meta:1":{"currency":"usd"}}', "no ISO 4217 code"),
        ("PARALLAX_ACCOUNTS", '{"act_1":{}}', "is not platform:account"),
        ("PARALLAX_ACCOUNTS", "{", "PARALLAX_ACCOUNTS is not JSON"),
        ("PARALLAX_REPORTING_CURRENCY", "EURO", "PARALLAX_REPORTING_CURRENCY: 'EURO' is no ISO 4217 code"),
        ("PARALLAX_RATES_FILE", "rates.csv", "set PARALLAX_REPORTING_CURRENCY"),
        ("PARALLAX_FINAL_AFTER", '{"myspace":"1d"}', "PARALLAX_FINAL_AFTER[myspace]"),
        ("PARALLAX_KAFKA_BOOTSTRAP", "localhost", "'localhost' is not HOST:PORT"),
        ("PARALLAX_KAFKA_BOOTSTRAP", "kafka.example:9092", "PARALLAX_SECURITY_PROTOCOL=SASL_SSL"),
        ("PARALLAX_SECURITY_PROTOCOL", "SASL_SSL", "needs PARALLAX_SASL_USERNAME and PARALLAX_SASL_PASSWORD"),
        ("REDIS_HOST", "redis.example", "REDIS_TLS=true"),
        ("PARALLAX_REDIS_HOST", "localhost", "did you mean REDIS_HOST?"),
        ("PARALLAX_PARTITION", "4", "did you mean PARALLAX_PARTITIONS?"),
        ("PARALLAX_PATTERNS_EVERY", "often", "PARALLAX_PATTERNS_EVERY: a duration is"),
        ("PARALLAX_CONFIG", "missing.toml", "there is no settings file missing.toml"),
    ],
)
def test_a_wrong_variable_is_refused_in_one_line(
    name: str, text: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(SetupError) as refusal:
        load()
    assert told in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert refusal.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("partition = 4", "partition is no setting"),
        ("partitions = ", "cannot be read as TOML"),
        ('partitions = "x"', "partitions in "),
        (f'sasl_password = "{CANARY}"', "set PARALLAX_SASL_PASSWORD in the environment"),
        (f'redis_password = "{CANARY}"', "set REDIS_PASSWORD in the environment"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(SetupError) as refusal:
        load(path)
    assert told in str(refusal.value)
    assert str(path) in str(refusal.value)
    assert CANARY not in str(refusal.value)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "[::1]"])
def test_plain_text_stays_on_loopback(host: str) -> None:
    assert Settings(kafka_bootstrap=f"{host}:9092", redis_host=host.strip("[]"))


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "localhost.example", "kafka", "[::2]"])  # noqa: S104
def test_plain_text_to_elsewhere_needs_leave(host: str) -> None:
    with pytest.raises(ValidationError, match="plain text"):
        Settings(kafka_bootstrap=f"127.0.0.1:9092,{host}:9092")
    with pytest.raises(ValidationError, match="plain text"):
        Settings(redis_host=host.strip("[]"))
    assert Settings(kafka_bootstrap=f"{host}:9092", redis_host=host, allow_plaintext=True)
    assert Settings(redis_host=host, cache_enabled=False)


def test_secrets_never_show(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("PARALLAX_SASL_PASSWORD", CANARY)
    monkeypatch.setenv("REDIS_PASSWORD", CANARY)
    settings = load()
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("parallax").info("%s %r", settings, settings)
    everything = [repr(settings), str(settings), repr(describe(settings)), caplog.text, settings.model_dump_json()]
    monkeypatch.setenv("PARALLAX_PARTITIONS", "0")
    with pytest.raises(SetupError) as refusal:
        load()
    everything.append("".join(traceback.format_exception(refusal.value)))
    assert CANARY not in "".join(everything)
    shown = {name: value for name, value, _ in describe(settings)}
    assert shown["sasl_password"] == shown["redis_password"] == "**********"


def test_clients_get_security_as_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARALLAX_SASL_PASSWORD", CANARY)
    monkeypatch.setenv("REDIS_PASSWORD", CANARY)
    monkeypatch.setenv("PARALLAX_SASL_USERNAME", "worker")
    monkeypatch.setenv("PARALLAX_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("PARALLAX_KAFKA_BOOTSTRAP", "kafka.example:9093")
    monkeypatch.setenv("REDIS_HOST", "redis.example")
    monkeypatch.setenv("REDIS_TLS", "true")
    settings = load()
    aiokafka = settings.aiokafka_security()
    assert aiokafka["ssl_context"].check_hostname
    assert aiokafka["ssl_context"].verify_mode == ssl.CERT_REQUIRED
    assert aiokafka["sasl_plain_password"] == CANARY
    confluent = settings.confluent_config()
    assert confluent["ssl.endpoint.identification.algorithm"] == "https"
    assert (confluent["sasl.username"], confluent["sasl.password"]) == ("worker", CANARY)
    redis = settings.redis_url_kwargs()
    assert (redis["ssl"], redis["ssl_check_hostname"], redis["password"]) == (True, True, CANARY)


def test_every_setting_is_described_once() -> None:
    rows = describe(load())
    assert [name for name, _, _ in rows] == list(Settings.model_fields)
    assert len({variable(name) for name, _, _ in rows}) == len(rows)


@given(st.integers(1, 10_000), st.sampled_from(sorted(MILLISECONDS)))
def test_a_duration_reads_back_what_it_writes(count: int, unit: str) -> None:
    text = f"{count}{unit}"
    if count * MILLISECONDS[unit] > LONGEST_MS:
        with pytest.raises(ValueError, match="at most ten years"):
            Duration.parse(text)
    else:
        duration = Duration.parse(text)
        assert duration.ms == count * MILLISECONDS[unit]
        assert Duration.parse(str(duration)) == duration


@pytest.mark.parametrize("text", ["", "5", "h", "-1h", "1.5h", "1 hour", "0s", "1h30m", "\u0661h", "9999999999d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a duration is"):
        Duration.parse(text)


def test_a_lateness_beyond_the_horizon_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a window would be frozen before it is final."""
    for name, value in (("HORIZON", "8d"), ("FINAL_AFTER", '{"tiktok":"9d"}')):
        monkeypatch.setenv(f"PARALLAX_{name}", value)
    with pytest.raises(SetupError, match="PARALLAX_FINAL_AFTER, PARALLAX_HORIZON: windows must be final before"):
        insight_config(load())
    monkeypatch.setenv("PARALLAX_FINAL_AFTER", '{"tiktok":"8d"}')
    assert insight_config(load()).horizon_ms == 8 * 86_400_000


def test_patterns_want_the_window_that_they_are_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARALLAX_WINDOWS", "1h,14d")
    assert load().patterns_every is None
    monkeypatch.setenv("PARALLAX_PATTERNS_EVERY", "5m")
    with pytest.raises(SetupError, match="add it to PARALLAX_WINDOWS"):
        load()
