"""Links as facts of a platform campaign: which campaign it belongs to now, and which it has belonged to."""

import msgspec

from core.cell import Merge
from schemas.link import Link
from schemas.platform import Platform


def own_name(platform: Platform, campaign_id: str) -> str:
    """The campaign that an unlinked platform campaign stands for: itself."""
    return f"{platform}:{campaign_id}"


class Linked(msgspec.Struct, array_like=True):
    """The link that holds, and every other campaign that the platform campaign may have been rolled up into.

    ``revision`` is one more than the routed offset of the link that changed it last.
    """

    platform: Platform
    platform_campaign_id: str
    campaign_id: str = ""
    updated_ms: int = -1
    revision: int = 0
    former: list[str] = []

    @property
    def canonical(self) -> str:
        """The campaign that this platform campaign belongs to."""
        return self.campaign_id or own_name(self.platform, self.platform_campaign_id)

    def merge(self, link: Link, revision: int) -> Merge:
        """Take a link: the newest holds, equal ones are settled by the campaign id."""
        held, new = (self.updated_ms, self.campaign_id), (link.updated_ms, link.campaign_id)
        if new == held or (link.campaign_id == self.campaign_id and new < held):
            return Merge.DUPLICATE
        if new < held:
            return Merge.SUPERSEDED
        before = self.canonical
        self.campaign_id, self.updated_ms = link.campaign_id, link.updated_ms
        if self.canonical != before:
            self.former = sorted({*self.former, before} - {self.canonical})
            self.revision = revision
        return Merge.APPLIED
