"""Insights that a crash may have kept back: published again, and kept in the table until that is known to be done.

What is not kept can be computed again as long as its rollups and its window stay as they are. So it is written to the
table before either is written over, and its window is not published anew in the same checkpoint: then a version is
neither skipped nor told after a higher one, however many crashes there are.
"""

from collections.abc import Callable, Collection, Mapping

from core import stored
from core.aggregate import TableWrite
from core.campaign import Campaign
from core.emission import Emission
from core.shelf import Found, Shelf
from core.window import Window, WindowKey
from schemas import insight as insight_codec
from schemas.insight import Version

Due = tuple[str, WindowKey]


class KeptBack:
    """What is to be published again, and which of it the table holds since which checkpoint. Windows that have
    ``changed`` since are published after that even if they are frozen by then.
    """

    def __init__(self) -> None:
        self.waiting: dict[Due, Emission] = {}
        self.changed: set[Due] = set()
        self._saved: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self.waiting) + len(self._saved)

    def restore(
        self,
        found: Found,
        table: Mapping[bytes, bytes],
        shelf: Shelf,
        windows: Mapping[str, Window],
        published: int,
        current: Callable[[Campaign, WindowKey], Emission | None],
        position: int,
    ) -> None:
        """Find what was not yet published at a checkpoint. What has moved on and was not kept has been published."""
        kept: dict[Due, tuple[bool, bytes]] = {}
        for key in found.again:
            _, campaign_id, name, ordinal = stored.parse_key(key)
            self._saved[key] = stored.number(table[key])
            kept[campaign_id, WindowKey(name, ordinal)] = stored.unpack_again(table[key])
        for campaign_id, day in found.unpublished:
            campaign = shelf.open(campaign_id)
            for window_key, last in campaign.published.get(day, {}).items():
                if last.sequence <= published or window_key.name not in windows:
                    continue
                due = (campaign_id, window_key)
                if due in kept:
                    changed, payload = kept[due]
                    insight = insight_codec.decode(payload)
                    if insight.version == Version(last.revision, last.phase):
                        if changed:
                            self.changed.add(due)
                        latest = campaign.latest(windows[window_key.name]) == window_key.ordinal
                        self.waiting[due] = Emission(insight, payload, position, latest)
                        continue
                again = current(campaign, window_key)
                if again is not None:
                    self.waiting[due] = again

    def take(self) -> dict[Due, Emission]:
        """What is to be published again now."""
        taken, self.waiting = self.waiting, {}
        return taken

    def save(
        self, again: Mapping[Due, Emission], changed: Collection[str], dirty: Collection[Due], sequence: int
    ) -> list[TableWrite]:
        """Writes that keep what is to be published by a checkpoint where its campaign or its window is to change."""
        writes = []
        for due, kept_back in again.items():
            campaign_id, key = due
            if campaign_id in changed or due in dirty:
                table_key = stored.again_key(campaign_id, key)
                self._saved[table_key] = sequence
                value = stored.pack_again(sequence, kept_back.payload, changed=due in dirty)
                writes.append(TableWrite(table_key, value))
        return writes

    def take_published(self, published: int) -> list[bytes]:
        """The keys of what is known to have been published: by a checkpoint up to one."""
        keys = [key for key, sequence in self._saved.items() if sequence <= published]
        for key in keys:
            del self._saved[key]
        return keys
