"""Which of a checkpoint's insights Redis is told: the newest window of each kind of each campaign."""

from collections.abc import Callable, Mapping, Sequence

from core.campaign import Campaign
from core.emission import Emission
from core.window import Window, WindowKey


def newest_windows(
    emissions: Sequence[Emission],
    campaigns: Mapping[str, Campaign],
    windows: Mapping[str, Window],
    current: Callable[[Campaign, WindowKey], Emission | None],
) -> list[Emission]:
    """The newest window of each kind that was published, or that became the newest because a newer one lost its
    content; an empty one where none has any. ``current`` gives what was last published of a window.
    """
    hot = [emission for emission in emissions if emission.latest]
    fresh = {(emission.insight.campaign_id, emission.insight.window) for emission in hot}
    for campaign_id, name in fresh:
        campaigns[campaign_id].shown[name] = campaigns[campaign_id].latest(windows[name]) or 0
    empty: dict[tuple[str, str], Emission] = {}
    for emission in sorted(emissions, key=lambda each: each.insight.window_start):
        campaign_id, name = emission.insight.campaign_id, emission.insight.window
        campaign = campaigns[campaign_id]
        latest = campaign.latest(windows[name])
        if latest is None:
            campaign.shown.pop(name, None)
            empty[campaign_id, name] = emission
        elif (campaign_id, name) not in fresh and campaign.shown.get(name) != latest:
            fresh.add((campaign_id, name))
            campaign.shown[name] = latest
            again = current(campaign, WindowKey(name, latest))
            if again is not None:
                hot.append(again)
    return [*hot, *empty.values()]
