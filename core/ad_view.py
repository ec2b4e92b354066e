"""What a block says of each ad: the day view of the ad's own rows, unsegmented, so that no two views are added.

A row that names no ad group states the same delivery as one that does. Where an ad's rows name one ad group, those
without are taken as its too; where they name several, those without state the sum of them and are left out.
"""

from collections import defaultdict

from core.block import Block
from core.cell import Cell, CellKey, merge
from core.panes import Panes
from core.view import DayView, day_view


def ad_views(block: Block, panes: Panes) -> dict[str, DayView]:
    """The day of each ad that has rows of its own, by ad id."""
    cells: dict[str, dict[CellKey, Cell]] = defaultdict(dict)
    for key, cell in block.cells.items():
        if key.ad_id and not key.segments:
            cells[key.ad_id][key] = cell
    rows: dict[str, list[int]] = defaultdict(list)
    for row in block.pane_rows:
        pane = panes.key(row)
        if pane.ad_id and not pane.segments:
            rows[pane.ad_id].append(row)
    found = {}
    for ad_id in sorted(cells.keys() | rows.keys()):
        own = Block(block.platform, block.campaign_id, block.day)
        own.cells, own.pane_rows = _once(cells[ad_id]), rows[ad_id]
        found[ad_id] = day_view(own, panes)
    return found


def _once(cells: dict[CellKey, Cell]) -> dict[CellKey, Cell]:
    """An ad's cells with each delivery in one of them."""
    groups = {key.ad_group_id for key in cells if key.ad_group_id}
    if len(groups) > 1:
        return {key: cell for key, cell in cells.items() if key.ad_group_id}
    found: dict[CellKey, Cell] = {}
    for key, cell in cells.items():
        bare = CellKey(key.hour, "", key.ad_id, key.segments, key.report)
        found[bare] = merge(found.get(bare), cell)[0]
    return found
