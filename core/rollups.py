"""Rollups as they are sent: a block under the campaign that its platform campaign belongs to, and withdrawals."""

from core.block import Block
from core.links import Linked, own_name
from core.panes import Panes
from core.view import day_view
from schemas import rollup as rollup_codec
from schemas.rollup import Rollup


def rollup(block: Block, panes: Panes, linked: Linked | None) -> Rollup:
    """A block's rollup. Its revision is that of the newest change to the block or its link."""
    view = day_view(block, panes)
    return Rollup(
        campaign_id=linked.canonical if linked else own_name(block.platform, block.campaign_id),
        platform=block.platform,
        platform_campaign_id=block.campaign_id,
        account_id=view.account_id,
        day=block.day,
        revision=max(block.revision, linked.revision if linked else 0),
        day_totals=view.totals,
        hours=view.hours,
        start_ms=view.start_ms,
        zone=view.zone,
        covered_ms=view.covered_ms,
        as_of_ms=view.as_of_ms,
        basis=view.basis,
        link_revision=linked.revision if linked else 0,
    )


def withdrawn(linked: Linked, day: int) -> list[Rollup]:
    """An empty rollup for every campaign that a platform campaign's day may have been rolled up into before."""
    return [
        Rollup(
            campaign_id=campaign,
            platform=linked.platform,
            platform_campaign_id=linked.platform_campaign_id,
            day=day,
            revision=linked.revision,
            withdrawn=True,
        )
        for campaign in linked.former
    ]


def rollup_record(message: rollup_codec.Message) -> tuple[bytes, bytes]:
    """Key and value of a record of the rollups topic."""
    return rollup_codec.key(message), rollup_codec.encode(message)
