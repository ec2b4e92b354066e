"""Generated histories: what connectors may publish of a few campaigns over three days, as records and as facts.

One of the days is 23 hours long in Los Angeles. Values are few and small, so that identities, pull times and contents
collide often. An event id always stands for the same event, in whatever dress it travels.
"""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

HOUR = 3_600_000
DAY = 24 * HOUR
FIRST_DAY = datetime(2026, 3, 7, tzinfo=UTC)
T0 = int(FIRST_DAY.timestamp()) * 1000
TOPICS = {"meta": "ads.metrics.meta", "tiktok": "ads.metrics.tiktok", "google_ads": "ads.metrics.google"}
LINKS = "ads.campaign-links"
PARTITIONS = 2
SOURCES = [(topic, partition) for topic in (*TOPICS.values(), LINKS) for partition in range(PARTITIONS)]

Wire = dict[str, Any]
Flat = dict[str, int]
Source = tuple[str, int]
LONG = os.environ.get("PARALLAX_HYPOTHESIS") == "long"


def examples(count: int) -> Callable[[Any], Any]:
    """Settings of a property: so many examples, or fifty times as many in the long run."""
    chosen = settings(
        max_examples=count * 50 if LONG else count,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )
    return lambda test: pytest.mark.timeout(7_200)(chosen(test)) if LONG else chosen(test)


@dataclass
class Record:
    """A fetched record."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass(frozen=True)
class Fact:
    """One record before it is put anywhere. ``wire`` is what its payload says, None for what says nothing usable."""

    topic: str
    arrival: int
    value: bytes | None
    key: bytes | None = None
    wire: Wire | None = None

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))

    def __repr__(self) -> str:
        arrival = timedelta(milliseconds=self.arrival - T0)
        return f"{self.topic} at {arrival}: {self.value!r}" + (f" key {self.key!r}" if self.key else "")


History = list[Fact]
Sources = dict[Source, list[Record]]

OWNERS = (("meta", "1"), ("meta", "2"), ("tiktok", "1"), ("google_ads", "7"))
ZONES = {("meta", "1"): "America/Los_Angeles", ("tiktok", "1"): "Asia/Kolkata"}
LEVELS = (("", ""), ("", ""), ("g", ""), ("g", "a"), ("g", "b"))
SEGMENTS: tuple[dict[str, str], ...] = (
    {},
    {},
    {},
    {"device": "mobile"},
    {"device": "desktop"},
    {"network": "search"},
    {"device": "mobile", "network": "search"},
)
METRICS = ("impressions", "clicks", "spend_micros", "conversions_micros", "revenue_micros", "engagements")
POISON = (b"", b"{", b"\xff\xfe", b'{"version":1,"kind":"delta"}', b"[1]", b'{"impressions":NaN}', b"{}", None)
ACCOUNT_LEVEL = b'{"account_id":"1","date_start":"2026-03-07","date_stop":"2026-03-07","impressions":"5"}'


def midnight(day: int, zone: str) -> int:
    """The instant at which the n-th day of the history begins in a zone."""
    local = (FIRST_DAY + timedelta(days=day)).replace(tzinfo=ZoneInfo(zone or "UTC"))
    return int(local.timestamp()) * 1000


def iso(instant: int) -> str:
    """RFC 3339 with an offset that is not UTC's."""
    return datetime.fromtimestamp(instant / 1000, ZoneInfo("Asia/Tokyo")).isoformat()


def measures() -> st.SearchStrategy[dict[str, int]]:
    """Some metrics of a row; small counts, amounts of about a unit."""
    numbers = st.sampled_from((0, 1, 2, 1_000, 1_000_000))
    return st.dictionaries(st.sampled_from(METRICS), numbers, min_size=1, max_size=4)


@st.composite
def snapshots(draw: st.DrawFn) -> Fact:
    """A report row of a day or an hour, pulled at one of a few times."""
    platform, campaign = owner = draw(st.sampled_from(OWNERS))
    zone = draw(st.sampled_from((ZONES.get(owner, ""), ZONES.get(owner, ""), "")))
    day = draw(st.integers(0, 2))
    hour = draw(st.sampled_from((None, None, 0, 1, 2, 22)))
    ad_group, ad = draw(st.sampled_from(LEVELS))
    start = midnight(day, zone) + (hour or 0) * HOUR
    observed = start + draw(st.sampled_from((HOUR, 6 * HOUR, DAY, 3 * DAY)))
    wire: Wire = {
        "version": 1,
        "kind": "snapshot",
        "platform": platform,
        "campaign_id": campaign,
        "period_start": start,
        "period_end": midnight(day + 1, zone) if hour is None else start + HOUR,
        "ad_group_id": ad_group,
        "ad_id": ad,
        "segments": draw(st.sampled_from(SEGMENTS)),
        "report": draw(st.sampled_from(("", "", "other"))),
        "time_zone": zone,
        "currency": draw(st.sampled_from(("USD", "USD", "EUR", ""))),
        "account_id": draw(st.sampled_from(("", "77"))),
        **draw(measures()),
    }
    if draw(st.booleans()):
        wire["observed_at"] = observed
    late = draw(st.sampled_from((0, 0, 0, 1_000, 101 * DAY, -10 * 60_000)))
    return Fact(TOPICS[platform], observed + late, json.dumps(wire).encode(), wire=wire)


@st.composite
def deltas(draw: st.DrawFn) -> Fact:
    """An increment, in its usual dress or another, in time or not."""
    platform, campaign = draw(st.sampled_from(OWNERS))
    ad_group, ad = draw(st.sampled_from(LEVELS))
    start = T0 + draw(st.sampled_from((0, HOUR - 1, 7 * HOUR, 8 * HOUR, 18 * HOUR + 1_800_000, DAY - 1, DAY, 2 * DAY)))
    wire: Wire = {
        "version": 1,
        "kind": "delta",
        "platform": platform,
        "campaign_id": campaign,
        "period_start": start,
        "ad_group_id": ad_group,
        "ad_id": ad,
        "currency": draw(st.sampled_from(("USD", "USD", "EUR", ""))),
        "account_id": draw(st.sampled_from(("", "77", "88"))),
        **draw(measures()),
    }
    if draw(st.integers(0, 3)) == 0:
        wire["segments"] = draw(st.sampled_from(SEGMENTS))
        wire["time_zone"] = ZONES.get((platform, campaign), "")
    wire["event_id"] = sha256(json.dumps(wire, sort_keys=True).encode()).hexdigest()[:8]
    delay = draw(st.sampled_from((0, 1_000, 12 * HOUR, 24 * HOUR, 24 * HOUR + 1, -5 * 60_000, -5 * 60_000 - 1)))
    return dressed(Fact(TOPICS[platform], start + delay, None, wire=wire), draw(st.integers(0, 3)))


def dressed(fact: Fact, dress: int) -> Fact:
    """The same delta, written in one of four ways."""
    assert fact.wire is not None
    wire = dict(fact.wire)
    if dress == 1:
        wire = {"later_field": [1], **wire, "clicks": wire.get("clicks")}
    elif dress == 2:
        wire["period_start"] = iso(wire["period_start"])
    elif dress == 3:
        wire = {name: wire[name] for name in sorted(wire)}
    return replace(fact, value=json.dumps(wire).encode())


@st.composite
def links(draw: st.DrawFn) -> Fact:
    """A link to one of two campaigns, or its withdrawal."""
    platform, campaign = draw(st.sampled_from(OWNERS))
    target = draw(st.sampled_from(("spring", "spring", "summer", None)))
    arrival = T0 + draw(st.integers(0, 3)) * DAY
    wire: Wire = {"version": 1, "platform": platform, "platform_campaign_id": campaign, "campaign_id": target}
    key = f"{platform}:{campaign}".encode()
    if target is None and draw(st.booleans()):
        return Fact(LINKS, arrival, None, key, wire)
    if draw(st.booleans()):
        wire["updated_at"] = arrival - draw(st.integers(0, 1)) * DAY
    return Fact(LINKS, arrival, json.dumps(wire).encode(), key, wire)


def unusable() -> st.SearchStrategy[Fact]:
    """Poison, and rows of an account."""
    return st.builds(
        lambda topic, value: Fact(topic, T0 + DAY, value),
        st.sampled_from((*TOPICS.values(), LINKS)),
        st.sampled_from((*POISON, ACCOUNT_LEVEL)),
    )


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Records of all kinds, some of them published twice."""
    found = draw(st.lists(st.one_of(snapshots(), deltas(), links(), unusable()), min_size=1, max_size=14))
    for index, dress, delay in draw(
        st.lists(st.tuples(st.integers(0, 13), st.integers(0, 3), st.sampled_from((0, 0, HOUR))), max_size=4)
    ):
        fact = found[index % len(found)]
        copy = replace(fact, arrival=fact.arrival + delay)
        found.append(dressed(copy, dress) if fact.wire and fact.wire.get("kind") == "delta" else copy)
    return found


def arrange(history: Sequence[Fact], partitions: Sequence[int] = ()) -> Sources:
    """The history in source partitions, in its order; ``partitions`` says where the n-th record goes."""
    sources: Sources = defaultdict(list)
    for position, fact in enumerate(history):
        partition = partitions[position % len(partitions)] % PARTITIONS if partitions else 0
        records = sources[fact.topic, partition]
        records.append(Record(len(records), fact.arrival, fact.key, fact.value))
    return dict(sources)


def snapshot(
    platform: str = "meta",
    campaign: str = "1",
    day: int = 0,
    hour: int | None = None,
    zone: str = "",
    pulled: int = DAY,
    **fields: Any,
) -> Fact:
    """A report row of a day, or of an hour of it, pulled so many milliseconds after the period began."""
    start = midnight(day, zone) + (hour or 0) * HOUR
    wire: Wire = {
        "version": 1,
        "kind": "snapshot",
        "platform": platform,
        "campaign_id": campaign,
        "period_start": start,
        "period_end": midnight(day + 1, zone) if hour is None else start + HOUR,
        "observed_at": start + pulled,
        "time_zone": zone,
        **fields,
    }
    return Fact(TOPICS[platform], start + pulled, json.dumps(wire).encode(), wire=wire)


def delta(event_id: str, at: int = 0, platform: str = "meta", campaign: str = "1", **fields: Any) -> Fact:
    """An increment, so many milliseconds after the history began, that arrives a second later."""
    wire: Wire = {
        "version": 1,
        "kind": "delta",
        "event_id": event_id,
        "platform": platform,
        "campaign_id": campaign,
        "period_start": T0 + at,
        **fields,
    }
    return Fact(TOPICS[platform], T0 + at + 1_000, json.dumps(wire).encode(), wire=wire)


def link(target: str | None, at: int = 0, platform: str = "meta", campaign: str = "1") -> Fact:
    """A link of a platform campaign, or its withdrawal, so many milliseconds after the history began."""
    wire: Wire = {"version": 1, "platform": platform, "platform_campaign_id": campaign, "campaign_id": target}
    return Fact(LINKS, T0 + at, json.dumps(wire).encode(), f"{platform}:{campaign}".encode(), wire)


def native(platform: str, row: Wire, stream: str = "", pulled: int = 2 * DAY) -> Fact:
    """A native row in Airbyte's envelope."""
    message = {"stream": stream, "data": row, "emitted_at": T0 + pulled}
    return Fact(TOPICS[platform], T0 + pulled, json.dumps(message).encode())
