"""The campaigns of live insights: each with what its platforms reported in its newest window that has content.

Insights may come in any order and any number of times; the same ones give the same campaigns. Of a campaign the
``KEPT`` newest windows are kept, each in its highest version: where a correction empties the newest, the one before
it stands, and where all of them are empty, the campaign goes. It also goes once all of its windows end ``keep_days`` or
more before the newest window of any campaign.
"""

from datetime import date
from typing import Final

import msgspec

from core.learning.campaign_data import CampaignData
from core.ratios import PlatformMetrics
from schemas.event import DAY_MS
from schemas.insight import CrossPlatformInsight, InsightTotals
from schemas.metrics import MICROS
from schemas.patterns import ALL, WINDOW
from schemas.platform import Platform

KEPT: Final = 7
DUMP_VERSION: Final = 1
EPOCH: Final = date(1970, 1, 1).toordinal()


class _Reported(msgspec.Struct, frozen=True, array_like=True):
    """One platform's counts, money in micros, and its accounts."""

    platform: Platform
    impressions: int | None
    clicks: int | None
    conversions: int | None
    engagements: int | None
    currency: str
    spend: int | None
    revenue: int | None
    accounts: list[str]


class _Seen(msgspec.Struct, frozen=True, array_like=True, order=True, gc=False):
    """A window's newest version. ``end``: days since 1970-01-01, exclusive. ``content`` is empty where nothing is left,
    else the msgpack of what the platforms reported; it also decides between equal versions.
    """

    end: int
    revision: int
    phase: int
    content: bytes


class _Dump(msgspec.Struct, frozen=True, array_like=True):
    """All that ``LiveCampaigns`` knows, and the configuration that decided what it keeps."""

    version: int
    configuration: tuple[str, int, str, int]
    newest: int
    campaigns: dict[str, tuple[_Seen, ...]]


_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder(list[_Reported]).decode
_undump: Final = msgspec.msgpack.Decoder(_Dump).decode


class LiveCampaigns:
    """Feed it insights, ask it for campaigns. ``currency`` is the benchmarks': money that a campaign's insight
    converts into it is taken so. ``keep_days``: how long a campaign counts after its last window.
    """

    def __init__(self, currency: str = "USD", keep_days: int = 100, window: str = WINDOW) -> None:
        self.window = window
        self._currency, self._keep = currency, keep_days
        self._campaigns: dict[str, tuple[_Seen, ...]] = {}
        self._members: dict[str, set[str]] = {}
        self._changed: set[str] = set()
        self._newest = self._swept = 0

    def __len__(self) -> int:
        return len(self._members.get(ALL, ()))

    def take(self, insight: CrossPlatformInsight) -> None:
        """Take one insight; one of another window is passed over. Raises ``ValueError`` for what is no sound one."""
        if insight.window != self.window:
            return
        end = date.fromisoformat(insight.window_end).toordinal() - EPOCH
        if end <= self._newest - self._keep:
            return
        reported = [self._reported(name, insight) for name in sorted(insight.platform_breakdown)]
        content = _pack(reported) if reported else b""
        seen = _Seen(end, insight.version.revision, insight.version.phase, content)
        self._newest = max(self._newest, end)
        held = {one.end: one for one in self._campaigns.get(insight.campaign_id, ())}
        if end not in held or held[end] < seen:
            held[end] = seen
            newest = sorted(held.values(), reverse=True)[:KEPT]
            self._put(insight.campaign_id, tuple(newest))

    def dump(self) -> bytes:
        """What has been taken, for ``restore``."""
        self._sweep()
        return _pack(_Dump(DUMP_VERSION, self._configuration(), self._newest, self._campaigns))

    def restore(self, payload: bytes) -> None:
        """Be, from the beginning, what was dumped. Raises ``ValueError`` for another version or configuration, and for
        bytes that are no dump.
        """
        try:
            dumped = _undump(payload)
        except msgspec.DecodeError as error:
            raise ValueError(f"not a dump of live campaigns: {error}") from error
        if (dumped.version, dumped.configuration) != (DUMP_VERSION, self._configuration()):
            raise ValueError(f"a dump of version {dumped.version} and {dumped.configuration} is not known here")
        self._newest = self._swept = dumped.newest
        for campaign_id, windows in dumped.campaigns.items():
            self._put(campaign_id, windows)

    def _configuration(self) -> tuple[str, int, str, int]:
        return self._currency, self._keep, self.window, KEPT

    def changed(self) -> list[str]:
        """The accounts whose campaigns have changed since this was asked last, sorted, ``all`` among them."""
        self._sweep()
        changed, self._changed = self._changed, set()
        return sorted(changed)

    def accounts(self) -> list[str]:
        """The accounts (``platform:account id``) that have campaigns, sorted; without ``all``."""
        self._sweep()
        return sorted(self._members.keys() - {ALL})

    def of(self, account: str = ALL) -> list[CampaignData]:
        """An account's campaigns, or those of all, by id. ``account_id`` of each is the account asked for, else its own
        where it has but one.
        """
        self._sweep()
        return [self._campaign(name, account) for name in sorted(self._members.get(account, ()))]

    def _reported(self, name: str, insight: CrossPlatformInsight) -> _Reported:
        breakdown = insight.platform_breakdown[name]
        totals, (currency, spend, revenue) = breakdown.totals, self._money(breakdown.totals)
        return _Reported(
            platform=Platform(name),
            impressions=totals.impressions,
            clicks=totals.clicks,
            conversions=totals.conversions_micros,
            engagements=totals.engagements,
            currency=currency,
            spend=spend,
            revenue=revenue,
            accounts=breakdown.accounts,
        )

    def _money(self, totals: InsightTotals) -> tuple[str, int | None, int | None]:
        reporting = totals.reporting
        if totals.currency != self._currency and reporting is not None and reporting.currency == self._currency:
            return reporting.currency, reporting.spend_micros, reporting.revenue_micros
        return totals.currency or "", totals.spend_micros, totals.revenue_micros

    def _put(self, campaign_id: str, windows: tuple[_Seen, ...]) -> None:
        before, after = _standing(self._campaigns.get(campaign_id, ())), _standing(windows)
        if windows:
            self._campaigns[campaign_id] = windows
        else:
            self._campaigns.pop(campaign_id, None)
        if (before and (before.end, before.content)) == (after and (after.end, after.content)):
            return
        for account in _accounts(before) - _accounts(after):
            self._members[account].discard(campaign_id)
            if not self._members[account]:
                del self._members[account]
        for account in _accounts(after):
            self._members.setdefault(account, set()).add(campaign_id)
        self._changed |= _accounts(before) | _accounts(after)

    def _sweep(self) -> None:
        """Drop what has ended too long ago, once the newest window has moved on."""
        if self._swept == self._newest:
            return
        self._swept, oldest = self._newest, self._newest - self._keep
        for campaign_id, windows in list(self._campaigns.items()):
            if windows[-1].end <= oldest:
                self._put(campaign_id, tuple(one for one in windows if one.end > oldest))

    def _campaign(self, campaign_id: str, account: str) -> CampaignData:
        standing = _standing(self._campaigns[campaign_id])
        assert standing is not None, "a member has content"  # noqa: S101 - a set and a dictionary that go together
        own = _accounts(standing) - {ALL}
        return CampaignData(
            campaign_id=campaign_id,
            platforms={one.platform: _metrics(one) for one in _unpack(standing.content)},
            account_id=account if account != ALL else own.pop() if len(own) == 1 else "",
            ended_ms=standing.end * DAY_MS,
        )


def _standing(windows: tuple[_Seen, ...]) -> _Seen | None:
    """The newest window with content; they come newest first."""
    return next((one for one in windows if one.content), None)


def _accounts(seen: _Seen | None) -> set[str]:
    if seen is None:
        return set()
    return {ALL} | {f"{one.platform}:{account}" for one in _unpack(seen.content) for account in one.accounts}


def _metrics(one: _Reported) -> PlatformMetrics:
    return PlatformMetrics(
        platform=one.platform,
        impressions=one.impressions,
        clicks=one.clicks,
        spend=None if one.spend is None else one.spend / MICROS,
        conversions=None if one.conversions is None else one.conversions / MICROS,
        revenue=None if one.revenue is None else one.revenue / MICROS,
        engagements=one.engagements,
        currency=one.currency,
    )
