"""Who advertises where: the accounts, the canonical campaigns, and the platform campaigns that they run as."""

from dataclasses import dataclass
from typing import Final

from schemas.platform import Platform
from stream_app.simulator.wire import chance

ADJECTIVES: Final = (
    "Summer",
    "Evergreen",
    "Spring",
    "Weekend",
    "Loyalty",
    "Launch",
    "Retarget",
    "Holiday",
    "Flash",
    "Brand",
)
NOUNS: Final = (
    "Sneakers",
    "Outdoor",
    "Coffee",
    "Skincare",
    "Bikes",
    "Headphones",
    "Kitchen",
    "Travel",
    "Yoga",
    "Gaming",
)

BASE_CTR: Final = {Platform.META: 0.014, Platform.TIKTOK: 0.027, Platform.GOOGLE_ADS: 0.045}
BASE_CPM: Final = {Platform.META: 9.0, Platform.TIKTOK: 6.0, Platform.GOOGLE_ADS: 30.0}


@dataclass(frozen=True)
class SimAccount:
    """An ad account and the connector that reads it. ``connector`` names the wire shape of its rows."""

    platform: Platform
    account_id: str
    name: str
    connector: str
    currency: str
    time_zone: str
    look_back: int

    @property
    def in_house_id(self) -> str:
        """The id as in-house systems write it: ``act_…`` on Meta."""
        return f"act_{self.account_id}" if self.platform is Platform.META else self.account_id


META_US: Final = SimAccount(
    Platform.META, "212551616838260", "Northwind US", "airbyte", "USD", "America/New_York", look_back=5
)
META_GRAPH: Final = SimAccount(
    Platform.META, "798085168510957", "Northwind Labs", "graph_api", "USD", "America/New_York", look_back=4
)
META_EU: Final = SimAccount(
    Platform.META, "340118274905166", "Northwind Europe", "airbyte", "EUR", "Europe/Berlin", look_back=5
)
TIKTOK_DAILY: Final = SimAccount(
    Platform.TIKTOK, "7002238017842757633", "Northwind", "airbyte", "USD", "America/New_York", look_back=3
)
TIKTOK_HOURLY: Final = SimAccount(
    Platform.TIKTOK, "7114512876330471426", "Northwind Live", "envelope", "USD", "America/New_York", look_back=3
)
GOOGLE_FLAT: Final = SimAccount(
    Platform.GOOGLE_ADS, "4651612872", "Northwind Search", "airbyte", "USD", "America/Los_Angeles", look_back=4
)
GOOGLE_REST: Final = SimAccount(
    Platform.GOOGLE_ADS, "7731940265", "Northwind Shopping", "rest", "USD", "America/New_York", look_back=4
)
GOOGLE_SINGER: Final = SimAccount(
    Platform.GOOGLE_ADS, "9120458837", "Northwind Video", "singer", "USD", "America/Los_Angeles", look_back=4
)
ACCOUNTS: Final = (
    META_US, META_GRAPH, META_EU, TIKTOK_DAILY, TIKTOK_HOURLY, GOOGLE_FLAT, GOOGLE_REST, GOOGLE_SINGER,
)  # fmt: skip


@dataclass(frozen=True)
class PlatformCampaign:
    """One platform's campaign, with its planted performance. Rates are fractions, ``cpm`` in currency units."""

    account: SimAccount
    campaign_id: str
    name: str
    parts: tuple[str, ...]
    ctr: float
    trend: float
    cpm: float
    daily_impressions: float
    conversion_rate: float
    order_value: float

    @property
    def platform(self) -> Platform:
        """The account's platform."""
        return self.account.platform

    @property
    def key(self) -> str:
        """The platform campaign's name across platforms, such as ``meta:2384…``."""
        return f"{self.platform}:{self.campaign_id}"


@dataclass(frozen=True)
class SimCampaign:
    """A canonical campaign and what it runs as."""

    campaign_id: str
    name: str
    runs: tuple[PlatformCampaign, ...]


def roster(seed: int, campaigns: int) -> tuple[SimCampaign, ...]:
    """The canonical campaigns ``cmp-001`` and on, each on one to three platforms."""
    return tuple(_campaign(seed, number) for number in range(campaigns))


def _campaign(seed: int, number: int) -> SimCampaign:
    rng = chance(seed, "campaign", number)
    quality = float(rng.lognormal(0.0, 0.28))
    # A quarter of the campaigns fit one platform much better than another, which the consistency score must tell.
    spread = 0.45 if number % 4 == 3 else 0.08
    trend = float(rng.normal(0.0, 0.012))
    name = f"{ADJECTIVES[number % len(ADJECTIVES)]} {NOUNS[(number * 3 + number // 10) % len(NOUNS)]}"
    platforms = list(BASE_CTR)
    if number % 5 == 4:
        platforms.remove(platforms[number // 5 % 3])
    if number % 10 == 7:
        platforms = [platforms[number // 10 % 3]]
    runs: list[PlatformCampaign] = []
    for platform in platforms:
        appeal = quality * float(rng.lognormal(0.0, spread))
        twins = "AB" if number % 7 == 2 and platform is platforms[number % len(platforms)] else "A"
        runs += [
            _run(seed, number, twin, platform, f"{name} {letter}", appeal, trend) for twin, letter in enumerate(twins)
        ]
    return SimCampaign(f"cmp-{number + 1:03d}", name, tuple(runs))


def _run(
    seed: int, number: int, twin: int, platform: Platform, name: str, appeal: float, trend: float
) -> PlatformCampaign:
    rng = chance(seed, "run", number, twin, platform)
    account = _account(platform, number)
    ctr = min(0.2, BASE_CTR[platform] * appeal * float(rng.lognormal(0.0, 0.05)))
    return PlatformCampaign(
        account=account,
        campaign_id=_campaign_id(platform, number, twin, int(rng.integers(1000))),
        name=name,
        parts=_parts(platform, number, twin),
        ctr=ctr,
        trend=trend,
        cpm=BASE_CPM[platform] * float(rng.lognormal(0.0, 0.15)),
        daily_impressions=float(rng.lognormal(9.3, 0.55)) / (2 if platform is Platform.GOOGLE_ADS else 1),
        conversion_rate=float(rng.uniform(0.02, 0.06)) / (2 if platform is Platform.TIKTOK else 1),
        order_value=float(rng.uniform(15, 60)),
    )


def _account(platform: Platform, number: int) -> SimAccount:
    match platform:
        case Platform.META:
            return META_EU if number % 8 == 5 else META_GRAPH if number % 4 == 1 else META_US
        case Platform.TIKTOK:
            return TIKTOK_HOURLY if number % 5 == 3 else TIKTOK_DAILY
        case _:
            return GOOGLE_REST if number % 5 == 1 else GOOGLE_SINGER if number % 5 == 2 else GOOGLE_FLAT


def _campaign_id(platform: Platform, number: int, twin: int, salt: int) -> str:
    offset = (number * 2 + twin) * 1_000_003 + salt
    match platform:
        case Platform.META:
            return str(23_846_765_228_240_398 + offset * 10_000)
        case Platform.TIKTOK:
            return str(1_714_125_042_508_817 + offset * 1_000)
        case _:
            return str(16_820_250_687 + offset)


def _parts(platform: Platform, number: int, twin: int) -> tuple[str, ...]:
    """A Google campaign's networks, else the suffixes of its ads."""
    if platform is Platform.GOOGLE_ADS:
        return ("SEARCH", "CONTENT") if number % 3 else ("SEARCH", "CONTENT", "YOUTUBE")
    return tuple(f"{ad:02d}" for ad in range(1, 2 + (number + twin) % 3))
