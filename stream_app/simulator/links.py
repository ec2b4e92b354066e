"""Campaign links: most come on the first day, a few late; one is corrected mid-way and one is withdrawn."""

from dataclasses import dataclass
from typing import Final

from schemas.topics import CAMPAIGN_LINKS
from stream_app.simulator.clock import pull_ms
from stream_app.simulator.draft import Draft
from stream_app.simulator.roster import PlatformCampaign, SimCampaign
from stream_app.simulator.wire import chance, to_json

LATE: Final = 4


@dataclass(frozen=True)
class LinkPlan:
    """Which link is published at which step, as (step, platform campaign, canonical campaign or none)."""

    entries: tuple[tuple[int, PlatformCampaign, str | None], ...]
    late: int
    moved: int
    withdrawn: frozenset[str]

    def at(self, step: int, days: int) -> list[Draft]:
        """The link records of a step."""
        return [_record(run, target, pull_ms(step, days)) for when, run, target in self.entries if when == step]


def plan_links(seed: int, campaigns: tuple[SimCampaign, ...], days: int) -> LinkPlan:
    """The life of all links. With one day or one campaign there is nothing late or moved."""
    rng = chance(seed, "links")
    runs = [(run, campaign.campaign_id) for campaign in campaigns for run in campaign.runs]
    order = [int(index) for index in rng.permutation(len(runs))]
    spare = order if days > 1 and len(campaigns) > 1 else []
    late, moved, withdrawn = set(spare[:LATE]), set(spare[LATE : LATE + 1]), set(spare[LATE + 1 : LATE + 2])
    entries: list[tuple[int, PlatformCampaign, str | None]] = []
    for index, (run, target) in enumerate(runs):
        first = min(4 + int(rng.integers(8)), days - 1) if index in late else 0
        if index in moved:
            entries.append((first, run, _other(campaigns, target)))
            entries.append((max(1, days // 2), run, target))
        else:
            entries.append((first, run, target))
        if index in withdrawn:
            entries.append((max(1, days * 2 // 3), run, None))
    return LinkPlan(
        tuple(entries), len(late), len(moved), frozenset(runs[index][0].key for index in withdrawn)
    )  # fmt: skip


def _other(campaigns: tuple[SimCampaign, ...], target: str) -> str:
    names = [campaign.campaign_id for campaign in campaigns]
    return names[(names.index(target) + 1) % len(names)]


def _record(run: PlatformCampaign, target: str | None, updated_ms: int) -> Draft:
    link = {
        "version": 1,
        "platform": run.platform,
        "account_id": run.account.in_house_id,
        "platform_campaign_id": run.campaign_id,
        "campaign_id": target,
        "updated_at": updated_ms,
    }
    return Draft(CAMPAIGN_LINKS, run.key.encode(), to_json(link))
