"""What files of pulled reports show of how a day's conversions are restated."""

from collections.abc import Iterable, Sequence

from core.maturity import Observation
from schemas.calendar import Accounts, end_of_day
from schemas.decode import Reader, decode_record
from schemas.event import DAY_MS, Grain, Kind, MetricEvent
from schemas.metrics import CONVERSIONS
from schemas.platform import Platform
from stream_app.files import PROBED_BYTES, FileRecord, Source, arrivals, probe


def observations(
    sources: Sequence[Source], platform: Platform | None, account: str, accounts: Accounts, arrival_ms: int
) -> list[Observation]:
    """Every pull of a whole day that reports conversions, in the order of the pulls. Rows without a time of their own
    were pulled when they arrived. Raises ``SetupError`` for files that cannot be read.
    """
    pulls: list[tuple[int, Observation]] = []
    for source in sources:
        found: Iterable[FileRecord] = arrivals(source, arrival_ms, account)
        whose = platform
        if whose is None:
            whose, found = probe(source, iter(found))
        reader = Reader(platform=whose, accounts=accounts, max_bytes=PROBED_BYTES)
        for record in found:
            outcomes = decode_record(record.value, reader, arrival_ms=arrival_ms, account_hint=account)
            events = [outcome for outcome in outcomes if isinstance(outcome, MetricEvent)]
            pulls += [(event.observed_ms, seen) for event in events if (seen := _observation(event)) is not None]
    return [seen for _, seen in sorted(pulls, key=lambda pull: pull[0])]


def _observation(event: MetricEvent) -> Observation | None:
    conversions = event.values[CONVERSIONS]
    if event.kind is not Kind.SNAPSHOT or event.grain is not Grain.DAY or conversions is None:
        return None
    age = (event.observed_ms - end_of_day(event.day, event.zone)) // DAY_MS
    names = (event.campaign_id, event.ad_group_id, event.ad_id, event.report, *map(str, event.segments))
    return Observation(event.platform, "\0".join(names), event.day, age, conversions)
