"""Settings: environment before file before default, typed, and checked as a whole before anything starts.

Variables are ``PARALLAX_`` and the field, except the Redis ones that the domain's users know (``UNPREFIXED``); tables
are JSON there, the windows a list with commas. A file is TOML with the fields' own names; a table in the environment
replaces the file's whole. Secrets come from the environment alone, and are never shown.
"""

import json
import os
import ssl
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from schemas.calendar import Account, Accounts, zone
from schemas.currency import CODES
from schemas.patterns import WINDOW as PATTERNS_WINDOW
from schemas.platform import Platform
from stream_app.duration import MILLISECONDS, Duration
from stream_app.errors import SetupError

PREFIX: Final = "PARALLAX_"
FILE_VARIABLE: Final = "PARALLAX_CONFIG"
TEST_VARIABLES: Final = "PARALLAX_TEST_"
SECRETS: Final = ("sasl_password", "redis_password")
UNPREFIXED: Final = (
    "redis_host",
    "redis_port",
    "redis_db",
    "redis_username",
    "redis_password",
    "redis_tls",
    "redis_cafile",
    "cache_enabled",
    "cache_ttl",
)
REPORTING_PLATFORMS: Final = (Platform.META, Platform.TIKTOK, Platform.GOOGLE_ADS)
DAY_MS: Final = MILLISECONDS["d"]

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")]


def variable(field: str) -> str:
    """The environment variable of a field."""
    return field.upper() if field in UNPREFIXED else PREFIX + field.upper()


def _window_list(value: Any) -> Any:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _sliding_days(window: str) -> int:
    """N of a window ``Nd``; 0 for any other text."""
    return int(window[:-1]) if window[-1:] == "d" and window[:-1].isascii() and window[:-1].isdigit() else 0


def is_loopback(host: str) -> bool:
    """Whether a host name or address stays on this machine."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def iso_currency(value: str) -> str:
    """The code itself, or nothing. Raises ``ValueError`` for what is no ISO 4217 code."""
    if value and value not in CODES:
        raise ValueError(f"{value!r} is no ISO 4217 code")
    return value


class AccountFacts(BaseModel):
    """What is known of an ad account beside its rows: IANA zone and ISO 4217 currency, empty where unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    time_zone: str = ""
    currency: str = ""

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        zone(value)
        return value

    @field_validator("currency")
    @classmethod
    def _known_currency(cls, value: str) -> str:
        return iso_currency(value)


class Settings(BaseSettings):
    """Everything that can be set, once checked. ``load`` reads it from environment and file."""

    model_config = SettingsConfigDict(
        alias_generator=variable,
        case_sensitive=False,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        validate_by_alias=True,
        validate_by_name=True,
        validate_default=True,
    )

    kafka_bootstrap: str = "127.0.0.1:9092"
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_SSL", "SASL_PLAINTEXT"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    sasl_username: str = ""
    sasl_password: SecretStr = SecretStr("")
    ssl_cafile: Path | None = None
    allow_plaintext: bool = False

    app_id: Name = "parallax"
    topic_prefix: str = Field(default="", pattern=r"^[A-Za-z0-9._-]{0,80}$")
    partitions: int = Field(default=4, ge=1, le=1024)
    replication_factor: int = Field(default=1, ge=1, le=9)
    fencing: Literal["transactions", "none"] = "transactions"
    store: Literal["memory", "rocksdb"] = "memory"
    datadir: Path = Path(".parallax")

    windows: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_window_list)] = ("1h", "24h", "7d")
    horizon: Duration = Duration(100 * DAY_MS)
    delta_lateness: Duration = Duration(DAY_MS)
    future_tolerance: Duration = Duration(DAY_MS)
    final_after: dict[Platform, Duration] = {}
    accounts: dict[str, AccountFacts] = {}
    profile_file: Path | None = None
    reporting_currency: str = ""
    rates_file: Path | None = None

    checkpoint_interval: Duration = Duration(250)
    emit_interval: Duration = Duration(1_000)
    catchup_lag: int = Field(default=20_000, ge=0)
    session_timeout: Duration = Duration(10_000)
    start_patience: Duration = Duration(120_000)
    stop_patience: Duration = Duration(60_000)
    stall_timeout: Duration = Duration(60_000)
    max_payload_bytes: int = Field(default=65_536, ge=256, le=16 * 1024 * 1024)

    cache_enabled: bool = True
    cache_ttl: int = Field(default=3_600, ge=1, le=366 * 86_400)
    redis_host: str = "127.0.0.1"
    redis_port: int = Field(default=6379, ge=1, le=65_535)
    redis_db: int = Field(default=0, ge=0)
    redis_username: str = ""
    redis_password: SecretStr = SecretStr("")
    redis_tls: bool = False
    redis_cafile: Path | None = None

    retrain_every: Duration | None = None
    patterns_every: Duration | None = None

    health_port: int = Field(default=6066, ge=0, le=65_535)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    _sources: dict[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments alone: ``load`` reads environment and file, so that ``Settings(...)`` means what it says."""
        return (init_settings,)

    @field_validator("kafka_bootstrap")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        for server in value.split(","):
            host, colon, port = server.strip().rpartition(":")
            if not (host and colon and port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
                raise ValueError(f"{server.strip()!r} is not HOST:PORT")
        return ",".join(server.strip() for server in value.split(","))

    @field_validator("windows")
    @classmethod
    def _known_windows(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for window in value:
            if window not in ("1h", "24h") and not 2 <= _sliding_days(window) <= 366:
                raise ValueError(f"{window!r} is no window: write 1h, 24h, or 2d to 366d")
        if not value or len(set(value)) != len(value):
            raise ValueError("name at least one window, and each once")
        return value

    @field_validator("final_after")
    @classmethod
    def _every_platform(cls, value: dict[Platform, Duration]) -> dict[Platform, Duration]:
        if Platform.UNKNOWN in value:
            raise ValueError("the platforms are meta, tiktok and google_ads")
        return dict.fromkeys(REPORTING_PLATFORMS, Duration(DAY_MS)) | value

    @field_validator("accounts")
    @classmethod
    def _platform_and_account(cls, value: dict[str, AccountFacts]) -> dict[str, AccountFacts]:
        for key in value:
            if not key.startswith(tuple(f"{platform}:" for platform in REPORTING_PLATFORMS)):
                raise ValueError(f"{key!r} is not platform:account with a platform of meta, tiktok or google_ads")
        return value

    @field_validator("reporting_currency")
    @classmethod
    def _known_currency(cls, value: str) -> str:
        return iso_currency(value)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        longest = max(_sliding_days(window) for window in self.windows) * DAY_MS
        if longest > self.horizon.ms:
            raise ValueError(f"horizon {self.horizon} is shorter than the longest window: set PARALLAX_HORIZON")
        if self.rates_file is not None and not self.reporting_currency:
            raise ValueError("rates_file needs a currency to convert into: set PARALLAX_REPORTING_CURRENCY")
        if self.delta_lateness > self.horizon:
            raise ValueError("delta_lateness is longer than horizon: set PARALLAX_DELTA_LATENESS")
        if self.patterns_every is not None and PATTERNS_WINDOW not in self.windows:
            raise ValueError(
                f"patterns are learned from window {PATTERNS_WINDOW}: add it to PARALLAX_WINDOWS, or leave"
                " PARALLAX_PATTERNS_EVERY empty"
            )
        if self.security_protocol.startswith("SASL") and not (
            self.sasl_username and self.sasl_password.get_secret_value()
        ):
            raise ValueError(f"{self.security_protocol} needs PARALLAX_SASL_USERNAME and PARALLAX_SASL_PASSWORD")
        if not self.allow_plaintext:
            self._refuse_plaintext()
        return self

    def _refuse_plaintext(self) -> None:
        if self.security_protocol.endswith("PLAINTEXT"):
            for server in self.kafka_bootstrap.split(","):
                if not is_loopback(server.rpartition(":")[0]):
                    raise ValueError(
                        f"Kafka at {server} would be spoken to in plain text: set PARALLAX_SECURITY_PROTOCOL=SASL_SSL"
                        " or PARALLAX_ALLOW_PLAINTEXT=true"
                    )
        if self.cache_enabled and not self.redis_tls and not is_loopback(self.redis_host):
            raise ValueError(
                f"Redis at {self.redis_host} would be spoken to in plain text: set REDIS_TLS=true"
                " or PARALLAX_ALLOW_PLAINTEXT=true"
            )

    def known_accounts(self) -> Accounts:
        """The accounts' zones and currencies, as ``core`` takes them."""
        return Accounts({key: Account(facts.time_zone, facts.currency) for key, facts in self.accounts.items()})

    def aiokafka_security(self) -> dict[str, Any]:
        """Keyword arguments of aiokafka's clients. Host names are always checked. Holds the password."""
        security: dict[str, Any] = {"security_protocol": self.security_protocol}
        if self.security_protocol.endswith("SSL"):
            security["ssl_context"] = ssl.create_default_context(cafile=self.ssl_cafile)
        if self.security_protocol.startswith("SASL"):
            security["sasl_mechanism"] = self.sasl_mechanism
            security["sasl_plain_username"] = self.sasl_username
            security["sasl_plain_password"] = self.sasl_password.get_secret_value()
        return security

    def confluent_config(self) -> dict[str, Any]:
        """Configuration of confluent-kafka's clients: servers and security. Holds the password."""
        config: dict[str, Any] = {
            "bootstrap.servers": self.kafka_bootstrap,
            "security.protocol": self.security_protocol,
        }
        if self.security_protocol.endswith("SSL"):
            config["ssl.endpoint.identification.algorithm"] = "https"
            if self.ssl_cafile is not None:
                config["ssl.ca.location"] = str(self.ssl_cafile)
        if self.security_protocol.startswith("SASL"):
            config["sasl.mechanism"] = self.sasl_mechanism
            config["sasl.username"] = self.sasl_username
            config["sasl.password"] = self.sasl_password.get_secret_value()
        return config

    def redis_url_kwargs(self) -> dict[str, Any]:
        """Keyword arguments of ``redis.Redis`` and ``redis.asyncio.Redis``. Holds the password."""
        connection: dict[str, Any] = {"host": self.redis_host, "port": self.redis_port, "db": self.redis_db}
        if self.redis_username:
            connection["username"] = self.redis_username
        if password := self.redis_password.get_secret_value():
            connection["password"] = password
        if self.redis_tls:
            connection |= {"ssl": True, "ssl_check_hostname": True}
            if self.redis_cafile is not None:
                connection["ssl_ca_certs"] = str(self.redis_cafile)
        return connection


def load(config: Path | None = None) -> Settings:
    """The settings from the environment and from ``config``, else from the file that ``PARALLAX_CONFIG`` names.

    Raises ``SetupError`` that names what is wrong and where.
    """
    path = config or (Path(os.environ[FILE_VARIABLE]) if os.environ.get(FILE_VARIABLE) else None)
    _refuse_unknown_variables(os.environ)
    try:
        environment = EnvSettingsSource(Settings)()
    except SettingsError as error:
        field = str(error).partition('"')[2].partition('"')[0]
        raise SetupError(f"{variable(field)} is not JSON") from None
    file = {} if path is None else _read_file(path)
    try:
        settings = Settings(**(file | environment))
    except ValidationError as error:
        raise SetupError("; ".join(_sentence(problem, environment, path) for problem in error.errors())) from None
    for name in Settings.model_fields:
        if variable(name) in environment:
            settings._sources[name] = f"environment {variable(name)}"
        elif variable(name) in file:
            settings._sources[name] = f"file {path}"
    return settings


def describe(settings: Settings) -> list[tuple[str, str, str]]:
    """Name, value and source of every setting, secrets masked, in the order of their definition."""
    return [
        (name, shown(getattr(settings, name)), settings._sources.get(name, f"default (set {variable(name)})"))
        for name in Settings.model_fields
    ]


def shown(value: object) -> str:
    """A setting's value as ``describe`` gives it; a secret is a mask."""
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, dict):
        plain = {key: str(item) if isinstance(item, Duration) else item.model_dump() for key, item in value.items()}
        return json.dumps(plain, sort_keys=True)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    """A misspelt variable is refused, for it would be ignored in silence."""
    known = [variable(name) for name in Settings.model_fields]
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in (*known, FILE_VARIABLE) and not name.startswith(TEST_VARIABLES):
            near = [other for other in known if other == name.removeprefix(PREFIX)] or get_close_matches(name, known, 1)
            hint = f": did you mean {near[0]}?" if near else ": `parallax settings` lists them"
            raise SetupError(f"{name} is no setting{hint}")


def _read_file(path: Path) -> dict[str, Any]:
    """The file's settings by variable. Raises ``SetupError`` for one that cannot be read or holds a secret."""
    if not path.is_file():
        raise SetupError(f"there is no settings file {path}: mend --config or {FILE_VARIABLE}")
    try:
        file = TomlConfigSettingsSource(Settings, toml_file=path)()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SetupError(f"{path} cannot be read as TOML: {error}") from None
    for name in SECRETS:
        if variable(name) in file:
            raise SetupError(f"{name} does not belong into {path}: set {variable(name)} in the environment")
    return file


def _sentence(problem: Mapping[str, Any], environment: Mapping[str, Any], path: Path | None) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:
        return message
    first, *rest = (str(part) for part in problem["loc"])
    field = next((name for name in Settings.model_fields if first in (name, variable(name))), first)
    where = "".join(f"[{part}]" for part in rest if part != "[key]")
    if problem["type"] == "extra_forbidden":
        return f"{path}: {first}{where} is no setting: `parallax settings` lists them"
    source = variable(field) if variable(field) in environment else f"{field} in {path}"
    return f"{source}{where}: {message}"
