"""Labels of campaigns from a file: what their users call them, which the stream does not know."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from core.learning.campaign_data import CampaignData
from stream_app.errors import SetupError

COLUMNS: Final = ("campaign_id", "vertical", "objective")


class Labels(NamedTuple):
    """Of one campaign; empty for unknown."""

    vertical: str
    objective: str


def read_labels(path: Path) -> dict[str, Labels]:
    """Labels by campaign id, from CSV with the columns ``campaign_id``, and ``vertical`` or ``objective`` or both.

    Raises ``SetupError`` with the line for a file that cannot be read so.
    """
    found: dict[str, Labels] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            rows = csv.DictReader(lines, strict=True)
            columns = rows.fieldnames or []
            if "campaign_id" not in columns or not {"vertical", "objective"} & set(columns):
                raise SetupError(f"{path}: the columns are campaign_id, and vertical or objective or both")
            for row in rows:
                campaign = row["campaign_id"]
                if not campaign or None in row:
                    raise SetupError(f"{path}, line {rows.line_num}: a campaign_id, and no more fields than columns")
                if campaign in found:
                    raise SetupError(f"{path}, line {rows.line_num}: campaign {campaign} comes twice")
                found[campaign] = Labels(row.get("vertical") or "", row.get("objective") or "")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SetupError(f"{path} cannot be read as CSV: {getattr(error, 'strerror', None) or error}") from None
    return found


def labelled(campaigns: Iterable[CampaignData], labels: Mapping[str, Labels]) -> list[CampaignData]:
    """The campaigns with their labels."""
    return [
        msgspec.structs.replace(campaign, **labels[campaign.campaign_id]._asdict())
        if campaign.campaign_id in labels
        else campaign
        for campaign in campaigns
    ]
