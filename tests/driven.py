"""One partition of campaigns driven by hand, from rollups."""

from collections.abc import Sequence
from typing import Any

import msgspec

from core import stored
from core.aggregate import rollup_record
from core.campaigns import Campaigns, Checkpoint, Emission
from core.window import parse_window
from schemas.metrics import CLICKS, IMPRESSIONS, WIDTH
from schemas.platform import Platform
from schemas.rollup import Message, Rollup, Totals, Watermark
from tests.histories import DAY, T0
from tests.pipeline import CONFIG, Reader, put

FIRST = T0 // DAY
Table = dict[bytes, bytes]


def totals(clicks: int, impressions: int | None = None) -> Totals:
    values: list[int | None] = [None] * WIDTH
    values[CLICKS], values[IMPRESSIONS] = clicks, impressions
    return Totals(tuple(values))


def rollup(revision: int, clicks: int | None, **fields: Any) -> Rollup:
    """A platform campaign's first day; ``hours`` maps an hour of it to clicks."""
    day = fields.pop("day", FIRST)
    hours = fields.pop("hours", {})
    given = {
        "campaign_id": "spring",
        "platform": Platform.META,
        "platform_campaign_id": "1",
        "start_ms": day * DAY,
        "zone": "UTC",
        "covered_ms": (day + 1) * DAY,
        "as_of_ms": (day + 1) * DAY,
        "basis": "snapshot",
        "day_totals": None if clicks is None else totals(clicks, 100 * clicks),
        "hours": tuple((day * 24 + hour, totals(clicks)) for hour, clicks in sorted(hours.items())),
        **fields,
    }
    return Rollup(day=day, revision=revision, **given)


def withdrawn(revision: int, **fields: Any) -> Rollup:
    return rollup(revision, None, withdrawn=True, zone="", start_ms=0, covered_ms=0, as_of_ms=0, basis="", **fields)


def without_learning(table: Table) -> Table:
    """A table but for what was learned of CTR."""
    return {key: value for key, value in table.items() if stored.parse_key(key)[0] != stored.CTR}


class Driven:
    """One partition of campaigns, its log and its table."""

    def __init__(self, *kinds: str, **config: Any) -> None:
        windows = tuple(parse_window(name) for name in kinds or ("1h", "24h"))
        self.config = msgspec.structs.replace(CONFIG, windows=windows, **config)
        self.table: Table = {}
        self.state = Campaigns.restore(self.table, self.config)
        self.log: list[bytes] = []
        self.reader = Reader()
        self.now = 0

    def tell(self, *messages: Message) -> None:
        for message in messages:
            self.log.append(rollup_record(message)[1])
            self.state.apply(len(self.log) - 1, self.log[-1])

    def take(self, *, wait: int = 10, preliminary: bool = True) -> Checkpoint:
        self.now += wait
        taken = self.state.take(self.now, preliminary=preliminary)
        put(self.table, taken.writes)
        for emission in taken.emissions:
            self.reader.take(emission)
        return taken

    def drain(self) -> list[Emission]:
        """What is published until nothing waits."""
        emissions: list[Emission] = []
        while self.state.pending:
            emissions += self.take().emissions
        return emissions

    def die(self, survive: int, *, written: bool = False) -> Checkpoint:
        """A checkpoint that dies after some of its writes and sends; of its sends alone if all was ``written``."""
        self.now += 10
        taken = self.state.take(self.now, preliminary=True)
        survive += len(taken.writes) if written else 0
        put(self.table, taken.writes[:survive])
        for emission in taken.emissions[: max(0, survive - len(taken.writes))]:
            self.reader.take(emission)
        self.restart()
        return taken

    def restart(self) -> None:
        """Another worker takes over."""
        self.state = Campaigns.restore(self.table, self.config)

    def again(self) -> None:
        """Apply the log from its beginning: what is known is skipped."""
        for offset, payload in enumerate(self.log):
            self.state.apply(offset, payload)


def seen(emissions: Sequence[Emission], kind: str = "24h") -> list[tuple[str, str, int | None]]:
    """Campaign, phase and clicks of what was published."""
    return [
        (each.insight.campaign_id, each.insight.phase, each.insight.totals.clicks)
        for each in emissions
        if each.insight.window == kind
    ]


def at(instant: int) -> Watermark:
    return Watermark(partition=0, watermark_ms=instant)
