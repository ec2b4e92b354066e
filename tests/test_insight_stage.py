"""What INSIGHTS sends: an insight that no record holds is said to be one, and its neighbours go out."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from core.campaigns import Emission
from schemas import dead_letter
from schemas import topics as names
from schemas.platform import Platform
from stream_app import insight_stage
from stream_app.domain import insight_config
from stream_app.insight_stage import InsightStage
from stream_app.producer import Outgoing
from stream_app.settings import Settings
from tests.test_insight import built, part


@pytest.fixture
def stage() -> InsightStage:
    settings = Settings(cache_enabled=False)
    unused: Any = None
    return InsightStage(settings, insight_config(settings), unused, unused, unused, None)


def test_an_insight_that_no_record_holds_becomes_a_dead_letter(
    stage: InsightStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(insight_stage, "LARGEST_OUTPUT", 100)
    insight = built(part(Platform.META, impressions=1))
    emissions = [Emission(insight, bytes(size), 7, latest=True) for size in (100, 101, 99)]
    sent = list(stage._outgoing(emissions, []))
    by_topic: dict[str, list[Outgoing]] = {}
    for record in sent:
        by_topic.setdefault(record.topic, []).append(record)
    assert [len(record.value or b"") for record in by_topic[names.INSIGHTS]] == [100, 99]
    assert [len(record.value or b"") for record in by_topic[names.INSIGHTS_LATEST]] == [100, 99]
    (said,) = by_topic[names.DEAD_LETTERS]
    letter = dead_letter.decode(dict(said.headers)[dead_letter.HEADER])
    assert (letter.code, letter.source.topic, letter.source.offset) == ("output_too_large", names.ROLLUPS, 7)
    assert stage.too_large == 1


def test_what_is_offered_to_redis_again_ends_with_its_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenario: Redis is being made whole, a part at a checkpoint, when the partitions go to another worker.

    Expectation: nothing more is read of them: their tables are closed.
    """
    monkeypatch.setattr(insight_stage, "REBUILD_CHUNK", 1)
    settings = Settings(cache_enabled=False)
    unused: Any = None
    stage = InsightStage(settings, insight_config(settings), unused, unused, unused, unused)
    read: list[int] = []

    class Offered:
        def __init__(self, partition: int) -> None:
            self._partition = partition

        def hot(self) -> Iterator[tuple[list[Emission], list[Any]]]:
            for _ in range(3):
                read.append(self._partition)
                yield [], []

    monkeypatch.setattr(stage, "_states", {partition: Offered(partition) for partition in (0, 1, 2)})
    offered = stage._hot_entries()
    next(offered)
    asyncio.run(stage.close({0, 1}))
    assert list(offered) == [[]] * 4
    assert read == [0, 2, 2, 2]
