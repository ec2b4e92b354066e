"""Benchmarks: what a low and a high value of each ratio is on each platform, as data that a deployment can replace.

Rates are fractions (``.015`` is 1.5 %), costs are in the profile's currency, quality is on the platform's own scale.
"""

import re
from itertools import pairwise
from math import isfinite
from typing import Final

import msgspec

from schemas.platform import Platform

ISO_CURRENCY: Final = re.compile(r"[A-Z]{3}")


class Band(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The range of a ratio. Raises ``ValueError`` unless ``0 <= low < high`` and ``low <= ideal <= high``."""

    low: float
    high: float
    ideal: float | None = None

    def __post_init__(self) -> None:
        if not (isfinite(self.low) and isfinite(self.high) and 0 <= self.low < self.high):
            raise ValueError(f"a band needs finite numbers with 0 <= low < high, not low {self.low}, high {self.high}")
        if self.ideal is not None and not self.low <= self.ideal <= self.high:
            raise ValueError(f"ideal {self.ideal} lies outside of the band from {self.low} to {self.high}")


Curve = tuple[tuple[float, float], ...]
"""Points (days since a window's end, share of its final conversions that is reported by then), joined by lines."""


class Benchmarks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One platform's bands, and how its conversions mature. Without a quality band the platform has no quality signal,
    without a ``maturity`` curve nothing is said of how far its conversions still move.

    Raises ``ValueError`` when the CTR band passes 1 or has no ideal strictly between 0 and 1 (that ideal is the base
    rate of the CTR predictions), and for a curve that does not rise to 1.
    """

    ctr: Band
    cpc: Band
    cpm: Band
    engagement: Band
    quality: Band | None = None
    maturity: Curve | None = None

    def __post_init__(self) -> None:
        if self.maturity is not None:
            _refuse_wrong_curve(self.maturity)
        if self.ctr.high > 1:
            raise ValueError(f"ctr is a fraction of at most 1, not {self.ctr.high}")
        if self.ctr.ideal is None or not 0 < self.ctr.ideal < 1:
            raise ValueError("ctr needs an ideal between 0 and 1: CTR predictions start from it")


def _refuse_wrong_curve(curve: Curve) -> None:
    days, shares = [point[0] for point in curve], [point[1] for point in curve]
    if not curve or not all(isfinite(number) for number in (*days, *shares)):
        raise ValueError("a maturity curve needs points of finite numbers")
    if days[0] < 0 or any(day <= before for before, day in pairwise(days)):
        raise ValueError(f"the days of a maturity curve start at 0 or later and rise, not {days}")
    if shares[0] < 0 or shares[-1] != 1 or any(share < before for before, share in pairwise(shares)):
        raise ValueError(f"the shares of a maturity curve never fall and end at 1, not {shares}")


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A versioned set of benchmarks. Raises ``ValueError`` for one that cannot be used."""

    version: str
    platforms: dict[Platform, Benchmarks]
    currency: str = "USD"

    def __post_init__(self) -> None:
        if not self.version.strip():
            raise ValueError("a profile needs a version")
        if not ISO_CURRENCY.fullmatch(self.currency):
            raise ValueError(f"currency must be an ISO 4217 code such as USD, not {self.currency!r}")
        if not self.platforms:
            raise ValueError("a profile needs the benchmarks of at least one platform")
        if Platform.UNKNOWN in self.platforms:
            raise ValueError("the platform 'unknown' cannot have benchmarks")


def load_profile(data: bytes | str) -> Profile:
    """A profile from its JSON. Raises ``ValueError`` that says what is wrong, and where.

    >>> load_profile('{"version": "1", "platforms": {}}')
    Traceback (most recent call last):
    ValueError: benchmark profile: a profile needs the benchmarks of at least one platform
    """
    try:
        return msgspec.json.decode(data, type=Profile)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"benchmark profile: {error}") from error


# A conversion is counted for the day of its click or view, so a day is whole once its attribution window has passed:
# 7 days after a click on Meta ("7-day click, 1-day view", the default attribution setting) and on TikTok ("7-day click,
# 1-day view"), 30 by default and 90 at most on Google Ads (click-through conversion window), each and a day for
# processing. The shares before that are round assumptions: `parallax maturity` learns an account's own.
SEVEN_DAYS: Final[Curve] = ((0.0, 0.75), (1.0, 0.88), (3.0, 0.95), (8.0, 1.0))
UP_TO_NINETY_DAYS: Final[Curve] = ((0.0, 0.6), (1.0, 0.7), (7.0, 0.82), (31.0, 0.96), (91.0, 1.0))

DEFAULT_PROFILE: Final = Profile(
    version="2026-01",
    platforms={
        Platform.META: Benchmarks(
            ctr=Band(0.005, 0.030, 0.015),
            cpc=Band(0.20, 3.00, 1.00),
            cpm=Band(3.0, 20.0, 10.0),
            engagement=Band(0.01, 0.10),
            quality=Band(1.0, 10.0),
            maturity=SEVEN_DAYS,
        ),
        Platform.TIKTOK: Benchmarks(
            ctr=Band(0.010, 0.060, 0.030),
            cpc=Band(0.10, 1.50, 0.50),
            cpm=Band(2.0, 15.0, 6.0),
            engagement=Band(0.02, 0.15),
            maturity=SEVEN_DAYS,
        ),
        Platform.GOOGLE_ADS: Benchmarks(
            ctr=Band(0.015, 0.100, 0.040),
            cpc=Band(0.50, 6.00, 2.00),
            cpm=Band(5.0, 40.0, 15.0),
            engagement=Band(0.01, 0.08),
            quality=Band(1.0, 10.0),
            maturity=UP_TO_NINETY_DAYS,
        ),
    },
)
