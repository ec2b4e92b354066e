"""The simulator: reproducible, true to the wire, and with each fault that it claims to have planted."""

import os
import subprocess
import sys
from collections import Counter, defaultdict
from hashlib import sha256
from itertools import islice, pairwise
from pathlib import Path
from statistics import fmean
from zlib import crc32

import msgspec
import orjson
import pytest

from schemas.calendar import Account, Accounts
from schemas.decode import Reader, decode_record
from schemas.event import HOUR_MS, Grain, Ignored, Kind, MetricEvent, Outcome, Rejection
from schemas.link import Link, decode_link
from schemas.platform import Platform
from schemas.topics import CAMPAIGN_LINKS, METRICS_TOPICS
from stream_app.simulator import SimRecord, Simulation, live, simulate

SEED = 7
PARTITIONS = 4
MIB = 2**20
Decoded = list[tuple[SimRecord, list[Outcome | Link]]]


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return simulate(SEED)


@pytest.fixture(scope="module")
def decoded(simulation: Simulation) -> Decoded:
    return decode_all(simulation)


def decode_all(simulation: Simulation) -> Decoded:
    accounts = Accounts(msgspec.convert(simulation.accounts, dict[str, Account]))
    readers = {topic: Reader(platform=platform, accounts=accounts) for platform, topic in METRICS_TOPICS.items()}
    pairs: Decoded = []
    for record in records_of(simulation):
        at = record.timestamp_ms
        if record.topic == CAMPAIGN_LINKS:
            pairs.append((record, [decode_link(record.key, record.value, arrival_ms=at, max_bytes=65_536)]))
        else:
            pairs.append((record, [*decode_record(record.value, readers[record.topic], arrival_ms=at)]))
    return pairs


def records_of(simulation: Simulation) -> list[SimRecord]:
    return [record for step in simulation.steps for record in step.records]


def events_of(decoded: Decoded, kind: Kind) -> list[tuple[SimRecord, MetricEvent]]:
    return [
        (record, outcome)
        for record, outcomes in decoded
        for outcome in outcomes
        if isinstance(outcome, MetricEvent) and outcome.kind is kind
    ]


def digest(simulation: Simulation) -> str:
    return sha256(repr((simulation.steps, simulation.truth, simulation.expected)).encode()).hexdigest()


def cell(event: MetricEvent) -> tuple[object, ...]:
    return (
        event.platform, event.report, event.campaign_id, event.ad_id, event.segments, event.grain, event.start_ms,
    )  # fmt: skip


def test_the_same_seed_gives_the_same_bytes_in_another_process(simulation: Simulation) -> None:
    code = (
        "from hashlib import sha256; from stream_app.simulator import simulate; s = simulate(7);"
        "print(sha256(repr((s.steps, s.truth, s.expected)).encode()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "123"}
    root = Path(__file__).parent.parent
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root, env=environment
    )
    assert other.stdout.strip() == digest(simulation)


def test_another_seed_gives_other_bytes(simulation: Simulation) -> None:
    assert digest(simulate(SEED + 1)) != digest(simulation)


def test_the_days_end_on_a_fixed_date_whatever_their_number(simulation: Simulation) -> None:
    assert len(simulation.steps) == 14
    assert simulation.steps[0].day_label == "2025-06-02"
    assert simulation.steps[-1].day_label == simulate(3, 2, 3).steps[-1].day_label == "2025-06-15"


def test_every_row_decodes_to_what_was_planted(simulation: Simulation, decoded: Decoded) -> None:
    outcomes = [outcome for _, found in decoded for outcome in found]
    expected = simulation.expected
    assert len(decoded) == expected.records
    assert len(outcomes) == expected.rows
    assert Counter(o.code.value for o in outcomes if isinstance(o, Rejection)) == expected.dead_letters
    assert Counter(o.reason.value for o in outcomes if isinstance(o, Ignored)) == expected.ignored
    assert len(expected.dead_letters) >= 8
    assert set(expected.dead_letters.values()) == {1}


@pytest.mark.parametrize(("seed", "campaigns", "days"), [(0, 1, 1), (1, 2, 2), (2, 3, 5), (3, 40, 4)])
def test_other_sizes_decode_too(seed: int, campaigns: int, days: int) -> None:
    small = simulate(seed, campaigns, days)
    outcomes = [outcome for _, found in decode_all(small) for outcome in found]
    assert Counter(o.code.value for o in outcomes if isinstance(o, Rejection)) == small.expected.dead_letters
    assert Counter(o.reason.value for o in outcomes if isinstance(o, Ignored)) == small.expected.ignored


def test_the_same_ads_come_in_every_connectors_shape(decoded: Decoded) -> None:
    shapes = Counter(shape_of(record.value) for record, outcomes in decoded if isinstance(outcomes[0], MetricEvent))
    assert set(shapes) == {
        "airbyte ads_insights", "graph", "airbyte campaigns_reports_daily", "airbyte ads_reports_daily", "tiktok v1.3",
        "airbyte campaign_performance", "rest", "singer", "canonical",
    }  # fmt: skip


def shape_of(value: bytes | None) -> str:
    body = orjson.loads(value or b"")
    match body:
        case {"stream": stream, "emitted_at": int(), "data": dict()}:
            return f"airbyte {stream}"
        case {"type": "RECORD", "record": {"segments": {"date": str()}}}:
            return "singer"
        case {"data": {"list": [{"dimensions": {"stat_time_hour": str()}}, *_]}, "code": 0}:
            return "tiktok v1.3"
        case {"data": [{"impressions": str(), "actions": list()}, *_]}:
            return "graph"
        case {"metrics": {"costMicros": str()}}:
            return "rest"
        case {"version": 1, "kind": "delta"}:
            return "canonical"
    return "unknown"


def test_ids_have_the_platforms_magnitudes(decoded: Decoded) -> None:
    least = {Platform.META: 17e15, Platform.TIKTOK: 1.7e15, Platform.GOOGLE_ADS: 1e10}
    for _, event in events_of(decoded, Kind.SNAPSHOT):
        assert int(event.campaign_id) > least[event.platform]
        if event.platform is Platform.TIKTOK and event.account_id:
            assert int(event.account_id) > 7e18


def test_repulls_hold_the_planted_duplicates_restatements_and_stale_rows(
    simulation: Simulation, decoded: Decoded
) -> None:
    newest: dict[tuple[object, ...], MetricEvent] = {}
    told: Counter[str] = Counter()
    for _, event in events_of(decoded, Kind.SNAPSHOT):
        held = newest.get(cell(event))
        if held is None:
            told["first"] += 1
        elif held.values == event.values:
            told["same"] += 1
        elif held.observed_ms < event.observed_ms:
            told["restated"] += 1
        else:
            told["older"] += 1
            continue
        newest[cell(event)] = event
    expected = simulation.expected
    assert told["first"] == expected.first_rows
    assert told["restated"] <= expected.restatements
    assert told["restated"] > 0.9 * expected.restatements
    assert told["same"] >= expected.unchanged > 5 * told["restated"]
    assert told["older"] >= expected.stale > 0


def test_restated_conversions_grow_and_spend_sometimes_shrinks(decoded: Decoded) -> None:
    pulls: dict[tuple[object, ...], list[MetricEvent]] = defaultdict(list)
    for _, event in events_of(decoded, Kind.SNAPSHOT):
        pulls[cell(event)].append(event)
    grew = shrank = 0
    for versions in pulls.values():
        for old, new in pairwise(sorted(versions, key=lambda event: event.observed_ms)):
            assert (new.values[4] or 0) >= (old.values[4] or 0)
            grew += (new.values[4] or 0) > (old.values[4] or 0)
            shrank += (new.values[3] or 0) < (old.values[3] or 0)
    assert grew > 100
    assert 20 < shrank < grew


def test_verbatim_duplicates_are_about_two_percent(simulation: Simulation) -> None:
    total = repeated = 0
    for step in simulation.steps:
        native = [record for record in step.records if b'"kind":"delta"' not in (record.value or b"")]
        total += len(native)
        repeated += len(native) - len({(record.topic, record.value) for record in native})
    assert repeated == simulation.expected.duplicate_records
    assert 0.01 < repeated / total < 0.03


def test_some_days_are_first_reported_three_days_late(simulation: Simulation, decoded: Decoded) -> None:
    first: dict[tuple[object, ...], tuple[SimRecord, MetricEvent]] = {}
    for record, event in events_of(decoded, Kind.SNAPSHOT):
        first.setdefault(cell(event), (record, event))
    late = [event for record, event in first.values() if record.timestamp_ms // 86_400_000 - event.day >= 4]
    assert len(late) == simulation.expected.late_rows >= 3


def test_every_row_arrives_after_its_period_and_its_pull(decoded: Decoded) -> None:
    length = {Grain.DAY: 24 * HOUR_MS, Grain.HOUR: HOUR_MS}
    for record, event in events_of(decoded, Kind.SNAPSHOT):
        assert event.start_ms + length[event.grain] < event.observed_ms <= record.timestamp_ms


def test_arrival_never_goes_back(simulation: Simulation) -> None:
    stamps = [record.timestamp_ms for record in records_of(simulation)]
    assert stamps == sorted(stamps)


def test_a_pull_arrives_out_of_order(simulation: Simulation) -> None:
    emitted = [
        orjson.loads(r.value or b"")["emitted_at"]
        for r in simulation.steps[1].records
        if b'"emitted_at"' in (r.value or b"")
    ]
    assert sum(late < early for early, late in pairwise(emitted)) > len(emitted) // 4


def test_links_come_late_move_and_are_withdrawn(simulation: Simulation, decoded: Decoded) -> None:
    label = {id(record): index for index, step in enumerate(simulation.steps) for record in step.records}
    life: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for record, outcomes in decoded:
        link = outcomes[0]
        if isinstance(link, Link):
            key = f"{link.platform}:{link.platform_campaign_id}"
            assert record.key == key.encode()
            life[key].append((label[id(record)], link.campaign_id))
    late = [key for key, entries in life.items() if entries[0][0] > 0]
    moved = [key for key, entries in life.items() if len({target for _, target in entries if target}) == 2]
    withdrawn = [key for key, entries in life.items() if entries[-1][1] == ""]
    assert len(late) == simulation.expected.late_links == 4
    assert all(4 <= life[key][0][0] <= 11 for key in late)
    assert len(moved) == simulation.expected.moved_links == 1
    assert len(withdrawn) == simulation.expected.withdrawn_links == 1
    used = {f"{event.platform}:{event.campaign_id}" for _, event in events_of(decoded, Kind.SNAPSHOT)}
    assert used == set(life)
    assert {target for entries in life.values() for _, target in entries if target} == set(simulation.truth)


def test_campaigns_run_on_one_to_three_platforms_some_twice(simulation: Simulation, decoded: Decoded) -> None:
    widths = Counter(len(platforms) for platforms in simulation.truth.values())
    assert set(widths) == {1, 2, 3}
    assert widths[3] > 10
    assert simulation.expected.links > sum(len(platforms) for platforms in simulation.truth.values()) + 2
    currencies = Counter(event.currency for _, event in events_of(decoded, Kind.SNAPSHOT))
    assert set(currencies) == {"USD", "EUR"}


def test_todays_deltas_are_many_and_no_platform_has_reported_them(simulation: Simulation, decoded: Decoded) -> None:
    deltas = events_of(decoded, Kind.DELTA)
    ids = Counter(event.event_id for _, event in deltas)
    reported = max(event.day for _, event in events_of(decoded, Kind.SNAPSHOT))
    assert len(ids) == simulation.expected.deltas == 20_000
    assert len(deltas) - len(ids) == simulation.expected.delta_duplicates
    assert 100 < simulation.expected.delta_duplicates < 300
    assert {event.day for _, event in deltas} == {reported + 1}
    contents = {event.event_id: event for _, event in deltas}
    for record, event in deltas:
        assert contents[event.event_id] == event
        assert 0 <= record.timestamp_ms - event.start_ms <= 2 * HOUR_MS
        assert event.zone


def test_observed_click_rates_follow_the_planted_truth(simulation: Simulation, decoded: Decoded) -> None:
    targets: dict[str, str] = {}
    counts: dict[tuple[str, Platform], list[int]] = defaultdict(lambda: [0, 0])
    for _, outcomes in decoded:
        if isinstance(outcomes[0], Link):
            link = outcomes[0]
            targets[f"{link.platform}:{link.platform_campaign_id}"] = link.campaign_id
    for _, event in events_of(decoded, Kind.DELTA):
        target = targets[f"{event.platform}:{event.campaign_id}"]
        if target:
            counts[target, event.platform][0] += event.values[0] or 0
            counts[target, event.platform][1] += event.values[1] or 0
    for (campaign, platform), (impressions, clicks) in counts.items():
        rate = simulation.truth[campaign][platform][-1]
        assert abs(clicks - impressions * rate) < 5 * (impressions * rate) ** 0.5 + 5


def test_campaign_quality_is_shared_by_its_platforms(simulation: Simulation) -> None:
    wide = [paths for paths in simulation.truth.values() if len(paths) == 3]
    means = {platform: fmean(paths[platform][0] for paths in wide) for platform in METRICS_TOPICS}
    meta = [paths[Platform.META][0] / means[Platform.META] - 1 for paths in wide]
    google = [paths[Platform.GOOGLE_ADS][0] / means[Platform.GOOGLE_ADS] - 1 for paths in wide]
    assert fmean(a * b for a, b in zip(meta, google, strict=True)) > 0


def test_the_default_fits_the_embedded_broker(simulation: Simulation) -> None:
    sizes: Counter[tuple[str, int]] = Counter()
    for place, record in enumerate(records_of(simulation)):
        partition = (crc32(record.key) if record.key else place) % PARTITIONS
        sizes[record.topic, partition] += len(record.value or b"") + len(record.key or b"") + 70
    assert {topic for topic, _ in sizes} == {*METRICS_TOPICS.values(), CAMPAIGN_LINKS}
    assert max(sizes.values()) < 4 * MIB
    assert simulation.expected.records < 60_000


def test_live_events_are_endless_paced_and_never_repeat_an_earlier_run() -> None:
    start = 1_750_200_000_000
    events = list(islice(live(SEED, start), 2_001))
    assert (events[0].timestamp_ms, events[-1].timestamp_ms) == (start, start + 10_000)
    assert events == list(islice(live(SEED, start), 2_001))
    ids = {orjson.loads(event.value or b"")["event_id"] for event in events}
    later = {orjson.loads(event.value or b"")["event_id"] for event in islice(live(SEED, start + 1), 2_001)}
    assert len(ids) == 2_001
    assert not ids & later
    for event in events:
        (outcome,) = decode_record(event.value, Reader(platform=Platform.UNKNOWN), arrival_ms=event.timestamp_ms)
        assert isinstance(outcome, MetricEvent)
        assert outcome.start_ms < event.timestamp_ms


@pytest.mark.parametrize("arguments", [(-1, 20, 14), (1, 0, 14), (1, 20, 0)])
def test_impossible_sizes_are_refused(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        simulate(*arguments)
