"""What winning campaigns have in common across platforms: the types, and an account's patterns as they are published.

Wire: JSON on ``patterns.cross-platform``, compacted, keyed by the account (``platform:account id``, or ``all``), and in
the ``patterns`` cache. A null value says that the account has no campaign any more.
"""

from typing import Final

import msgspec

from schemas.platform import Platform

ALL: Final = "all"
"""The key of all accounts' campaigns together; an account's own key holds a colon."""
VERSION: Final = 1
WINDOW: Final = "7d"
"""The window that tells a campaign's newest results."""


class PooledRatio(msgspec.Struct, frozen=True, kw_only=True):
    """``value`` is shrunk, with its 90 % interval; ``observed`` the plain pooled ratio; ``campaigns`` the support.
    ``trust`` (0 to 1) is the weight that the group's own data have in ``value``.
    """

    value: float
    low: float
    high: float
    observed: float
    campaigns: int
    trust: float


class PlatformStats(msgspec.Struct, frozen=True, kw_only=True):
    """One platform in the campaigns that ran on it: how many, how many won, their 90 % interval, and its own ROAS."""

    campaigns: int
    winners: int
    win_rate: float | None
    win_rate_low: float | None
    win_rate_high: float | None
    avg_normalized_ctr: float | None
    avg_normalized_engagement: float | None
    avg_composite: float | None
    roas: PooledRatio | None


class PlatformCombo(msgspec.Struct, frozen=True, kw_only=True):
    """A set of platforms that campaigns ran on. ``avg_roas`` is pooled and shrunk, [``low``, ``high``] its 90 %
    interval, ``count`` the campaigns behind it.
    """

    combo: tuple[Platform, ...]
    avg_roas: float
    count: int
    low: float
    high: float
    observed_roas: float


class CrossPlatformPatterns(msgspec.Struct, frozen=True, kw_only=True):
    """``win_rate`` is of the campaigns with a ROAS (``judged_campaigns``). ``avg_winner_…`` are means of the winners'
    normalized values. ``best_platform_combo`` has the highest lower bound among combinations of ``min_support``
    campaigns or more, ``None`` where there is none; ``combos`` has all, the best first.
    """

    total_winners: int
    total_campaigns: int
    judged_campaigns: int
    win_rate: float | None
    win_rate_low: float | None
    win_rate_high: float | None
    avg_winner_ctr: float | None
    avg_winner_engagement: float | None
    avg_winner_composite: float | None
    avg_consistency: float | None
    platform_stats: dict[Platform, PlatformStats]
    multi_platform_winners: int
    best_platform_combo: PlatformCombo | None
    combos: list[PlatformCombo]
    min_roas: float
    min_support: int


class AccountPatterns(msgspec.Struct, frozen=True, kw_only=True):
    """Schema version 1. The patterns of an account's campaigns, or of all accounts'.

    A campaign counts for each account that any of its platforms reported under, as a whole, with its newest ``window``.
    ``as_of``: the date on which the newest of these windows ends, exclusive. ``benchmarks``: the profile's version.
    """

    schema_version: int = VERSION
    account: str
    as_of: str
    window: str
    benchmarks: str
    patterns: CrossPlatformPatterns


encode: Final = msgspec.json.Encoder(order="deterministic").encode
_decoder: Final = msgspec.json.Decoder(AccountPatterns)


def decode(payload: bytes) -> AccountPatterns:
    """The patterns of their bytes. Raises ``ValueError`` for another version or no patterns at all."""
    try:
        found = _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"not patterns: {error}") from error
    if found.schema_version != VERSION:
        raise ValueError(f"patterns version {found.schema_version} is not known here; version {VERSION} is")
    return found
