"""The advertising platforms that Parallax knows."""

from enum import StrEnum


class Platform(StrEnum):
    """Where a metric was reported. ``UNKNOWN`` never enters the stream: it is for library users' partial data."""

    META = "meta"
    TIKTOK = "tiktok"
    GOOGLE_ADS = "google_ads"
    UNKNOWN = "unknown"
