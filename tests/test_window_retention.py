"""Windows past the horizon: frozen, out of memory and table, whatever a crash does around it; the state stays flat."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import msgspec
import pytest

from core import shelf, stored
from core.aggregate import rollup_record
from core.campaigns import Campaigns, InsightConfig
from core.published import Published
from core.window import WindowKey
from schemas.platform import Platform
from schemas.rollup import Rollup, Watermark
from tests.driven import FIRST, Driven, at, rollup, seen, withdrawn, without_learning
from tests.histories import DAY, HOUR, T0
from tests.pipeline import flat, put

HORIZON = 10 * DAY
KINDS = ("1h", "24h", "7d")


def frozen_at(day: int) -> int:
    """The watermark at which windows that end on a day are frozen: it ended, its zone's lag, horizon and grace."""
    return (day + 2) * DAY + HORIZON + DAY


def keys(table: dict[bytes, bytes], kind: str) -> list[tuple[str, int]]:
    """Campaigns and days of the keys of a kind."""
    parsed = [stored.parse_key(key) for key in table]
    return sorted((campaign, day) for name, campaign, _, day in parsed if name.startswith(kind))


def retained(*kinds: str, **config: Any) -> Driven:
    return Driven(*(kinds or KINDS), horizon_ms=HORIZON, **config)


def test_a_frozen_window_leaves_memory_and_table_and_is_not_published_again() -> None:
    driven = retained("24h")
    driven.tell(at(T0 + 3 * DAY), rollup(1, 5), rollup(2, 6, day=FIRST + 1))
    driven.drain()
    driven.tell(at(frozen_at(FIRST) - 1))
    driven.drain()
    driven.tell(rollup(3, 7))
    assert seen(driven.drain()) == [("spring", "corrected", 7)], "one millisecond before it is frozen"
    driven.tell(at(frozen_at(FIRST)))
    driven.drain()
    driven.tell(rollup(4, 8), rollup(5, 9, day=FIRST + 1))
    assert seen(driven.drain()) == [("spring", "corrected", 9)]
    driven.tell(at(frozen_at(FIRST)))
    driven.drain()
    assert keys(driven.table, "windows") == [("spring", FIRST + 1)]
    assert keys(driven.table, "rollup") == [("spring", FIRST + 1)]
    assert driven.state.expired == 1
    assert [each.window_start for each in driven.state.insights()] == ["2026-03-08"]


def test_a_rollup_stays_as_long_as_a_window_can_use_it() -> None:
    driven = retained("24h", "7d")
    driven.tell(at(T0 + 9 * DAY), rollup(1, 5), rollup(2, 6, day=FIRST + 6))
    driven.drain()
    driven.tell(at(frozen_at(FIRST + 5)))
    driven.drain()
    driven.tell(rollup(3, 7))
    (corrected,) = driven.drain()
    assert (corrected.insight.window, flat(corrected.insight)["clicks"]) == ("7d", 13)
    driven.tell(at(frozen_at(FIRST + 6)))
    driven.drain()
    driven.tell(at(frozen_at(FIRST + 6)), rollup(4, 9))
    assert driven.drain() == []
    assert driven.state.expired == 1
    assert keys(driven.table, "rollup") == [("spring", FIRST + 6)]


def test_a_rollup_of_hours_stays_a_day_longer_for_the_zones() -> None:
    driven = retained("1h")
    late = rollup(1, 5, zone="America/Los_Angeles", hours={30: 5})
    driven.tell(at(T0 + 3 * DAY), late)
    driven.drain()
    driven.tell(at(frozen_at(FIRST)))
    driven.drain()
    driven.tell(msgspec.structs.replace(late, revision=2, hours=rollup(2, 5, hours={30: 6}).hours))
    (corrected,) = driven.drain()
    assert flat(corrected.insight) == {"clicks": 6}


def test_a_campaign_without_rollups_leaves() -> None:
    driven = retained("24h")
    driven.tell(at(T0 + 3 * DAY), rollup(1, 5), rollup(2, 5, campaign_id="autumn", day=FIRST + 9))
    driven.drain()
    driven.tell(at(frozen_at(FIRST)))
    driven.drain()
    driven.tell(at(frozen_at(FIRST)))
    driven.drain()
    assert driven.state.campaign("spring") is None
    assert [each.campaign_id for each in driven.state.predictions()] == ["autumn"]
    assert len(without_learning(driven.table)) == 3, "autumn's rollup and window, and the mark"


def test_without_a_horizon_nothing_leaves() -> None:
    driven = Driven("24h")
    driven.tell(rollup(1, 5), at(T0 + 1_000 * DAY))
    driven.drain()
    driven.tell(at(T0 + 1_001 * DAY), rollup(2, 6))
    assert seen(driven.drain()) == [("spring", "corrected", 6)]


def test_what_becomes_final_and_frozen_at_once_is_published_once() -> None:
    driven = retained("24h")
    driven.tell(rollup(1, 5))
    driven.take()
    driven.tell(at(frozen_at(FIRST) + 30 * DAY))
    assert seen(driven.drain()) == [("spring", "final", 5)]
    driven.tell(at(frozen_at(FIRST) + 31 * DAY))
    driven.drain()
    assert len(without_learning(driven.table)) == 1, "the mark"


def test_windows_must_be_final_before_they_are_frozen() -> None:
    with pytest.raises(ValueError, match="at most the horizon"):
        InsightConfig(horizon_ms=HORIZON, final_after_ms={"meta": HORIZON + 1})
    with pytest.raises(ValueError, match="at most the horizon"):
        InsightConfig(horizon_ms=DAY - 1)
    InsightConfig(horizon_ms=HORIZON, final_after_ms={"meta": HORIZON})


Batch = list[Rollup | Watermark]
COURSE: list[Batch] = [
    [rollup(1, 5, hours={3: 5}), rollup(1, 4, day=FIRST + 1), rollup(1, 3, campaign_id="autumn")],
    [at(T0 + 4 * DAY), rollup(2, 6, hours={3: 6}), rollup(2, 8, platform=Platform.TIKTOK)],
    [rollup(3, 7, hours={4: 6}), at(frozen_at(FIRST) - 1), rollup(4, 8, hours={4: 7})],
    [rollup(5, 9, hours={4: 8}), at(frozen_at(FIRST)), rollup(6, 1, hours={4: 9}), rollup(2, 5, day=FIRST + 1)],
    [at(frozen_at(FIRST + 1)), rollup(4, 9, day=FIRST + 1)],
    [rollup(7, 2), rollup(5, 6, day=FIRST + 1), at(frozen_at(FIRST + 3))],
    [at(frozen_at(FIRST + 8)), rollup(8, 3), rollup(9, 4, day=FIRST + 9), withdrawn(9, campaign_id="autumn")],
    [rollup(10, 5, day=FIRST + 9), at(frozen_at(FIRST + 8) + HOUR)],
    [rollup(11, 6, day=FIRST + 9), at(frozen_at(FIRST + 9))],
    [rollup(12, 7, day=FIRST + 20), at(frozen_at(FIRST + 17))],
    [rollup(13, 8, day=FIRST + 20)],
]
"""Around the expiry of the first day's windows, of its rollups, and of all that the first days left."""


def carry_out(death: int = -1, survive: int = 0, sent: int = -1, *, whole: bool = False) -> Driven:
    """The course, with a death after so many writes and sends of a batch's checkpoint, and before it one of the batch
    before after so many of its sends, perhaps with a ``whole`` checkpoint between the two.
    """
    driven = retained()
    for number, batch in enumerate(COURSE):
        driven.tell(*batch)
        if sent >= 0 and number == death - 1:
            driven.die(sent, written=True)
            continue
        if number == death:
            if whole:
                driven.take()
            driven.die(survive)
            driven.again()
        driven.drain()
    return driven


def told(driven: Driven) -> Any:
    """All that has ever been published, and all that is held."""
    windows: dict[tuple[bytes, WindowKey], Published] = {}
    rollups = {}
    for key, value in driven.table.items():
        kind = stored.parse_key(key)[0]
        if kind == stored.WINDOWS:
            for name, published in stored.unpack_windows(value).items():
                windows[key, name] = msgspec.structs.replace(published, sequence=0)
        elif kind != stored.CTR and key != stored.MARK_KEY:
            rollups[key] = value
    sizes = {name: size for name, size in driven.state.sizes().items() if name not in ("decoded", "emitted_at")}
    learned = driven.state.ctr.captured, driven.state.ctr.predictor.to_bytes()
    return driven.reader.payloads, driven.reader.latest, windows, rollups, list(driven.state.insights()), sizes, learned


def test_a_crash_after_any_write_or_send_around_an_expiry_changes_nothing() -> None:
    expected = told(carry_out())
    assert len(expected[0]) > 20
    for number in range(len(COURSE)):
        for survive in range(16):
            assert told(carry_out(number, survive)) == expected, (number, survive)


def test_a_second_crash_before_what_the_first_kept_back_is_out_changes_nothing() -> None:
    expected = told(carry_out())
    for number, survive, whole in product(range(1, 8), range(0, 18, 2), (False, True)):
        assert told(carry_out(number, survive, sent=0, whole=whole)) == expected, (number, survive, whole)


def test_a_checkpoint_drops_some_campaigns_and_the_next_ones_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "EXPIRED_AT_ONCE", 2)
    driven = retained("24h")
    driven.tell(at(T0 + 3 * DAY), *(rollup(1, 5, campaign_id=str(name)) for name in range(5)))
    driven.drain()
    left = []
    for step in range(5):
        driven.tell(at(frozen_at(FIRST) + step))
        driven.drain()
        left.append(len(keys(driven.table, "windows")))
    assert left == [5, 3, 1, 0, 0]
    driven.restart()
    assert driven.state.sizes()["keys"] == 0


def test_deletes_come_after_the_mark() -> None:
    driven = retained("24h")
    driven.tell(at(T0 + 3 * DAY), rollup(1, 5))
    driven.drain()
    driven.tell(at(frozen_at(FIRST)))
    driven.drain()
    driven.tell(at(frozen_at(FIRST)))
    *_, mark, window, kept = driven.take().writes
    assert mark.key == stored.MARK_KEY
    assert {window, kept} == {(key, None) for key in (window.key, kept.key)}


def simulated(days: int) -> Iterator[tuple[int, Batch]]:
    """Hour by hour: campaigns report, the day before is restated, and each day an old one is."""
    revision = 0
    for hour in range(days * 24):
        day, of_day = divmod(hour, 24)
        batch: Batch = [at(T0 + (hour + 1) * HOUR)]
        for campaign in range(3):
            name = f"{campaign}-{day // 5}" if campaign % 2 else str(campaign)
            for age in (0, 1, 9) if of_day == 12 else (0,):
                revision += 1
                hours = {each: each + 1 for each in range(of_day + 1)} if campaign == 0 else {}
                batch.append(rollup(revision, hour % 50, campaign_id=name, day=FIRST + day - age, hours=hours))
        yield hour, batch


def test_ninety_days_of_state_stay_flat() -> None:
    table: dict[bytes, bytes] = {}
    config = msgspec.structs.replace(retained().config, decoded=3)
    state = Campaigns.restore(table, config)
    sizes: dict[int, dict[str, int]] = {}
    offset = 0
    for hour, batch in simulated(90):
        for message in batch:
            state.apply(offset, rollup_record(message)[1])
            offset += 1
        put(table, state.take(hour * 1_000_000, preliminary=True).writes)
        held = {"table_keys": len(table), "table_bytes": sum(map(len, table)) + sum(map(len, table.values()))}
        day = sizes.setdefault(hour // 24, {})
        for name, size in {**held, **state.sizes()}.items():
            day[name] = max(day.get(name, 0), size)
    for name in sizes[0]:
        early = max(sizes[day][name] for day in range(20, 30))
        late = max(sizes[day][name] for day in range(20, 90))
        assert late <= 1.1 * early, (name, early, late)
    assert sizes[89]["table_keys"] > 100
