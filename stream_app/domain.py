"""What the settings mean to ``core``."""

from core.campaigns import InsightConfig
from core.ingest import Ingest
from core.lateness import Lateness
from core.profile import DEFAULT_PROFILE, load_profile
from core.rates import RateTable
from core.retention import Retention
from core.window import parse_window
from stream_app.errors import SetupError
from stream_app.rates_file import read_rates
from stream_app.settings import Settings


def ingest_config(settings: Settings) -> Ingest:
    """How input is decoded, judged and routed."""
    return Ingest(
        partitions=settings.partitions,
        accounts=settings.known_accounts(),
        lateness=Lateness(
            horizon_ms=settings.horizon.ms,
            delta_ms=settings.delta_lateness.ms,
            future_ms=settings.future_tolerance.ms,
        ),
        max_payload_bytes=settings.max_payload_bytes,
    )


def retention(settings: Settings) -> Retention:
    """How long the state of days is kept."""
    return Retention(
        horizon_ms=settings.horizon.ms,
        delta_ms=settings.delta_lateness.ms,
        window_days=max(1, *(parse_window(window).days for window in settings.windows)),
    )


def insight_config(settings: Settings) -> InsightConfig:
    """Which windows there are, and how they are judged. Raises ``SetupError``."""
    profile = DEFAULT_PROFILE
    if settings.profile_file is not None:
        try:
            profile = load_profile(settings.profile_file.read_bytes())
        except (OSError, ValueError) as error:
            raise SetupError(f"{settings.profile_file}: {error}") from error
    windows = tuple(parse_window(window) for window in settings.windows)
    rates = RateTable(
        currency=settings.reporting_currency,
        rates=() if settings.rates_file is None else read_rates(settings.rates_file),
    )
    try:
        return InsightConfig(
            windows=windows,
            profile=profile,
            final_after_ms={str(platform): after.ms for platform, after in settings.final_after.items()},
            emit_interval_ms=settings.emit_interval.ms,
            horizon_ms=settings.horizon.ms,
            rates=rates,
        )
    except ValueError as error:
        raise SetupError(f"PARALLAX_FINAL_AFTER, PARALLAX_HORIZON: {error}") from error
