"""Whether an opened partition goes on where it stopped.

Three things may be between: records that retention removed before they were read, a log that ends before its state (it
was made anew), and a state that ends before what the group has committed (its changelog lost records, or was deleted).
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping

from faust.types import TP

from stream_app.batch_transport import BatchConsumer
from stream_app.errors import SetupError
from stream_app.extent import Extent, ExtentReader
from stream_app.settings import Settings

log = logging.getLogger(__name__)


async def count_gaps(consumer: BatchConsumer, partitions: set[TP], lost: Counter[str]) -> None:
    """Count what retention removed before it was read. The stream goes on from what there is, and says so."""
    if not partitions:
        return
    earliest = await consumer.earliest_offsets(*partitions)
    for tp, committed in (await _committed(consumer, partitions)).items():
        if committed is None or not 0 <= committed < earliest[tp]:
            continue
        # Committed at once, so that no later owner counts it again. One that could not be is not counted here.
        if not await consumer.skip(tp, earliest[tp]):
            continue
        gap = earliest[tp] - committed
        lost[f"{tp.topic}/{tp.partition}"] += gap
        log.error(
            "%s/%s: retention removed %d records before they were read, offsets %d to %d: publish them again",
            *(tp.topic, tp.partition, gap, committed, earliest[tp] - 1),
        )


async def check_ends(consumer: BatchConsumer, positions: Mapping[TP, int]) -> None:
    """Raise ``SetupError`` for a state that is ahead of its log: it would take new records for old ones."""
    ends = await consumer.highwaters(*positions)
    for tp, position in positions.items():
        if position >= ends[tp]:
            raise SetupError(
                f"{tp.topic}/{tp.partition} ends at {ends[tp]} where the state has seen {position + 1} records:"
                " the topic was made anew; choose another PARALLAX_APP_ID, or delete the changelogs too"
            )


async def rewind(consumer: BatchConsumer, settings: Settings, positions: Mapping[TP, int]) -> bool:
    """Let the group go back to where states end that are behind what it has committed; whether one was.

    What the group has committed is changed, so it takes another assignment to come into force. Raises ``ServerAbsent``.
    """
    behind = {
        tp: (positions[tp] + 1, committed)
        for tp, committed in (await _committed(consumer, set(positions))).items()
        if committed is not None and committed > positions[tp] + 1
    }
    rewound = False
    for tp, (start, committed) in behind.items():
        # Behind a state's last record there may be transaction markers alone.
        if not await asyncio.to_thread(_holds_records, settings, Extent(tp.topic, tp.partition, start, committed)):
            continue
        log.error(
            "%s/%s: its state ends before offset %d and %d were committed: its changelog lost records; they are applied"
            " again",
            *(tp.topic, tp.partition, start, committed),
        )
        # A commit that fails is tried again under the next assignment: going on from here would leave records out.
        await consumer.skip(tp, start)
        rewound = True
    return rewound


async def _committed(consumer: BatchConsumer, partitions: set[TP]) -> dict[TP, int | None]:
    wanted = sorted(partitions)
    return dict(zip(wanted, await asyncio.gather(*map(consumer.committed, wanted)), strict=True))


def _holds_records(settings: Settings, extent: Extent) -> bool:
    with ExtentReader(settings) as reader:
        kept = reader.bounds(extent.topic, extent.partition)
        rest = Extent(extent.topic, extent.partition, max(extent.start, kept.start), min(extent.end, kept.end))
        return any(map(len, reader.read(rest)))
