"""Benchmarks: what a low and a high value of each ratio is on each platform, as data that a deployment can replace.

Rates are fractions (``.015`` is 1.5 %), costs are in the profile's currency, quality is on the platform's own scale.
"""

import re
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


class Benchmarks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One platform's bands. Without a quality band the platform has no quality signal.

    Raises ``ValueError`` when the CTR band passes 1 or has no ideal strictly between 0 and 1: that ideal is the
    base rate of the CTR predictions.
    """

    ctr: Band
    cpc: Band
    cpm: Band
    engagement: Band
    quality: Band | None = None

    def __post_init__(self) -> None:
        if self.ctr.high > 1:
            raise ValueError(f"ctr is a fraction of at most 1, not {self.ctr.high}")
        if self.ctr.ideal is None or not 0 < self.ctr.ideal < 1:
            raise ValueError("ctr needs an ideal between 0 and 1: CTR predictions start from it")


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


DEFAULT_PROFILE: Final = Profile(
    version="2026-01",
    platforms={
        Platform.META: Benchmarks(
            ctr=Band(0.005, 0.030, 0.015),
            cpc=Band(0.20, 3.00, 1.00),
            cpm=Band(3.0, 20.0, 10.0),
            engagement=Band(0.01, 0.10),
            quality=Band(1.0, 10.0),
        ),
        Platform.TIKTOK: Benchmarks(
            ctr=Band(0.010, 0.060, 0.030),
            cpc=Band(0.10, 1.50, 0.50),
            cpm=Band(2.0, 15.0, 6.0),
            engagement=Band(0.02, 0.15),
        ),
        Platform.GOOGLE_ADS: Benchmarks(
            ctr=Band(0.015, 0.100, 0.040),
            cpc=Band(0.50, 6.00, 2.00),
            cpm=Band(5.0, 40.0, 15.0),
            engagement=Band(0.01, 0.08),
            quality=Band(1.0, 10.0),
        ),
    },
)
