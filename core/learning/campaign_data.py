"""What library users hand in: campaigns, and what each of their platforms reported."""

from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any, TypeAlias

import msgspec

from core.ratios import PlatformMetrics
from schemas.platform import Platform

PlatformData: TypeAlias = Mapping[Platform, PlatformMetrics]


class CreativeSignals(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a campaign's creative, each from 0 to 1, or ``None``: see ``CreativeDNA.signals``.

    For training they must not rest on the campaign's own results, which are the label. Raises ``ValueError`` for a
    number outside of [0, 1].
    """

    creative_dna_score: float | None = None
    hook_strength: float | None = None
    visual_appeal: float | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and not (isinstance(value, Real) and 0 <= float(value) <= 1):
                raise ValueError(f"{name} lies between 0 and 1, not at {str(value)[:40]}")


def signals_of(signals: CreativeSignals | Mapping[str, float | None] | None) -> CreativeSignals | None:
    """Signals from themselves or a mapping of their fields. Raises ``ValueError`` for what is neither, and for a field
    that does not exist.

    >>> signals_of({"hook_strength": 0.8}).hook_strength
    0.8
    """
    if signals is None or isinstance(signals, CreativeSignals):
        return signals
    if not isinstance(signals, Mapping):
        raise ValueError(f"creative signals are a mapping of their fields, not {type(signals).__name__}")  # noqa: TRY004
    unknown = set(signals) - set(CreativeSignals.__struct_fields__)
    if unknown:
        raise ValueError(f"creative signals have no field {min(map(str, unknown))!r}")
    return CreativeSignals(**signals)


class CampaignData(msgspec.Struct, frozen=True, kw_only=True):
    """One campaign over all of its platforms.

    ``ended_ms``: where its results end, epoch milliseconds; ``None`` where data has no time. ``vertical`` and
    ``objective`` are the user's own labels, empty for unknown.
    """

    campaign_id: str
    platforms: dict[Platform, PlatformMetrics]
    account_id: str = ""
    vertical: str = ""
    objective: str = ""
    creative_id: str = ""
    creative_dna: CreativeSignals | None = None
    ended_ms: int | None = None


CampaignLike: TypeAlias = CampaignData | tuple[str, Mapping[Any, Any] | Iterable[PlatformMetrics]]
"""A campaign, or the pair of its id and its platforms' data."""


def platform_data_of(data: Mapping[Any, Any] | Iterable[PlatformMetrics]) -> dict[Platform, PlatformMetrics]:
    """Platforms' metrics by platform, in the order of the platforms' names, from any of the shapes users have.

    Takes a mapping from platform (or its name) to ``PlatformMetrics`` or to a plain mapping of its fields, or an
    iterable of ``PlatformMetrics``. Raises ``ValueError`` for an unknown name, a field that does not exist, a platform
    that comes twice, or one under another's name.

    >>> platform_data_of({"meta": {"impressions": 1000, "clicks": 20}})[Platform.META].clicks
    20
    """
    found: dict[Platform, PlatformMetrics] = {}
    for name, value in _named(data):
        platform = Platform(name)
        if not isinstance(value, PlatformMetrics):
            if not isinstance(value, Mapping):
                kind = type(value).__name__
                raise ValueError(f"{platform}: metrics are a PlatformMetrics or a mapping, not {kind}")  # noqa: TRY004
            unknown = set(value) - set(PlatformMetrics.__struct_fields__)
            if unknown:
                raise ValueError(f"{platform}: metrics have no field {sorted(map(str, unknown))[0]!r}")
            value = PlatformMetrics(**{"platform": platform, **value})
        if value.platform != platform:
            raise ValueError(f"metrics of {value.platform} stand under {platform}")
        if platform in found:
            raise ValueError(f"{platform} comes twice")
        found[platform] = value
    return dict(sorted(found.items()))


def _named(data: Mapping[Any, Any] | Iterable[PlatformMetrics]) -> Iterable[tuple[Any, Any]]:
    if isinstance(data, Mapping):
        return data.items()
    rows = list(data) if isinstance(data, Iterable) else [data]
    for row in rows:
        if not isinstance(row, PlatformMetrics):
            kind = type(row).__name__
            raise ValueError(f"platform data is a mapping by platform, or PlatformMetrics, not {kind}")  # noqa: TRY004
    return [(row.platform, row) for row in rows]


def campaigns_of(campaigns: Iterable[CampaignLike]) -> list[CampaignData]:
    """Campaigns in the order given. Raises ``ValueError`` for what is no campaign, for a campaign id that comes twice,
    and as above.
    """
    if not isinstance(campaigns, Iterable):
        raise ValueError(f"campaigns are an iterable of them, not {type(campaigns).__name__}")  # noqa: TRY004
    found: dict[str, CampaignData] = {}
    for campaign in map(_campaign, campaigns):
        if campaign.campaign_id in found:
            raise ValueError(f"campaign {campaign.campaign_id!r} comes twice: one seen on several platforms is one")
        found[campaign.campaign_id] = campaign
    return list(found.values())


def _campaign(given: CampaignLike) -> CampaignData:
    if isinstance(given, CampaignData):
        return given
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise ValueError(f"a campaign is a CampaignData or a pair of id and platform data, not {str(given)[:40]!r}")
    campaign_id, data = given
    return CampaignData(campaign_id=campaign_id_of(campaign_id), platforms=platform_data_of(data))


def campaign_id_of(given: object) -> str:
    """A campaign's id. Raises ``ValueError`` for what is no text."""
    if not isinstance(given, str):
        raise ValueError(f"a campaign id is text, not {type(given).__name__}")  # noqa: TRY004
    return given
