"""Scorecards of CTR predictions as partitions publish them: read from their topic, merged, and in a few numbers."""

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any, Final

from core.learning.baselines import PLATFORM_MEAN
from core.learning.measures import Measures, measures
from core.learning.scorecard import Scorecard
from core.learning.walk import DEFAULT, MODEL, SERVED
from schemas import scorecard as scorecard_codec
from schemas import topics as names
from schemas.calendar import iso_date
from schemas.scorecard import DAY, LearnedScorecard
from stream_app.extent import ExtentReader
from stream_app.settings import Settings
from stream_app.topics import name

LOG_LOSSES: Final = (DEFAULT, MODEL, PLATFORM_MEAN)
MEASURES: Final = ("log_loss", "normalized_entropy", "calibration", "coverage")


def newest(settings: Settings) -> dict[int, LearnedScorecard]:
    """Each partition's newest scorecard. Raises ``ServerAbsent`` and, for a topic that is not there, ``SetupError``."""
    found: dict[int, LearnedScorecard] = {}
    with ExtentReader(settings) as reader:
        for extent in reader.whole(name(settings, names.SCORECARDS)):
            # There are but a few: the topic is compacted under one key a partition.
            payloads = [record.value for batch in reader.read(extent) for record in batch if record.value is not None]
            if payloads:
                found[extent.partition] = scorecard_codec.decode(payloads[-1])
    return found


def merged(cards: Iterable[LearnedScorecard], horizon: str = DAY) -> Scorecard | None:
    """One scorecard of disjoint partitions; None of none."""
    found = [Scorecard.from_bytes(payload) for card in cards if (payload := card.of(horizon)) is not None]
    return reduce(Scorecard.merged, found) if found else None


def summary(cards: Sequence[LearnedScorecard], horizon: str = DAY) -> dict[str, Any]:
    """A few numbers of all partitions and a horizon: of the predictions that serve, log losses (nats per impression),
    and the measures of each predictor on each platform and on ``all`` of them.
    """
    card = merged(cards, horizon)
    if card is None:
        return {"rows": 0}
    whole = Scorecard(card.predictors)
    whole.segments = {key: sums for key, sums in card.segments.items() if key[0] in ("all", "platform")}
    by_platform: dict[str, dict[str, Measures]] = {}
    for one in measures(whole):
        by_platform.setdefault(one.segment, {})[one.predictor] = one
    by_name = by_platform["all"]
    served = by_name[SERVED]
    return {
        "rows": served.rows,
        "impressions": int(served.impressions),
        "days": len(card.windows),
        "last_day": iso_date(max(card.windows)),
        "log_loss": {one: round(by_name[one].log_loss, 6) for one in LOG_LOSSES},
        "predicted_over_actual": None if served.calibration is None else round(served.calibration, 4),
        "interval_coverage": None if served.coverage is None else round(served.coverage, 4),
        "by_platform": {
            segment: {predictor: _rounded(one) for predictor, one in predictors.items()}
            for segment, predictors in by_platform.items()
        },
        "promoted": sorted({platform for one in cards for platform, (serves, _) in one.standings.items() if serves}),
    }


def _rounded(one: Measures) -> dict[str, float | None]:
    found = {measure: getattr(one, measure) for measure in MEASURES}
    return {measure: None if value is None else round(value, 6) for measure, value in found.items()}
