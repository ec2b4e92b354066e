"""The workload, whose results are known in closed form.

A chapter is a set of platform campaigns whose ids encode the range of the values that they are sent, as in the smoke
test of Kafka Streams. Value k of a campaign is one delta with 1 click, k impressions, 3k of spend and k² of
conversions; so sums are arithmetic, and no two different faults have the same effect on all of them. Beside them there
are snapshots with restatements, links (late, changed, withdrawn), poison, and records that mean nothing. Nothing here
shares code with the product.
"""

import json
import random
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Final, NamedTuple

META, TIKTOK, GOOGLE, LINKS = "ads.metrics.meta", "ads.metrics.tiktok", "ads.metrics.google", "ads.campaign-links"
PLATFORMS: Final = (("meta", META), ("tiktok", TIKTOK), ("google_ads", GOOGLE))
FIRST_DAY: Final = date(2022, 1, 3)
DAY_MS: Final = 86_400_000
HOUR_MS: Final = 3_600_000
SHUFFLE: Final = 10
HOURS: Final = 4
"""Hours of a day in which something happens."""
RESENT: Final = 0.1
FAR: Final = 400
"""A record is sent again up to this many records later."""
KEYS: Final = 20
LINKED: Final = 10
SNAPSHOT_KEYS: Final = 4
RESTATEMENTS: Final = 40
POISON_KEY: Final = "poison"

Totals = dict[str, int]
Expected = dict[tuple[str, str], Totals]
"""By canonical campaign and day. The clicks of a campaign of deltas are the number of its events."""


class Sent(NamedTuple):
    """One record to publish."""

    topic: str
    key: bytes | None
    value: bytes | None


def day_of(ordinal: int) -> str:
    """The date of a day of the workload."""
    return (FIRST_DAY + timedelta(days=ordinal)).isoformat()


def start_of(ordinal: int) -> int:
    """Midnight of a day of the workload, UTC, in epoch milliseconds."""
    return ((FIRST_DAY - date(1970, 1, 1)).days + ordinal) * DAY_MS


def sums(first: int, last: int) -> Totals:
    """What the deltas of the values from ``first`` to ``last``, which is excluded, add up to."""

    def squares(end: int) -> int:
        return (end - 1) * end * (2 * end - 1) // 6

    count = last - first
    total = (first + last - 1) * count // 2
    return {
        "clicks": count,
        "impressions": total,
        "spend_micros": 3 * total,
        "conversions_micros": squares(last) - squares(first),
    }


def restated(number: int) -> Totals:
    """What a snapshot says after its restatement of a number. Values rise and fall."""
    return {
        "clicks": 1 + number * 37 % 101,
        "impressions": 1_000 + number * 7_919 % 500,
        "spend_micros": 10 * (2_000 - number),
        "conversions_micros": number * 1_000_000,
    }


class Chapter:
    """A bounded part of the stream. ``run`` and ``number`` keep its campaigns apart from all others; ``values`` is how
    many deltas a campaign gets. The last value of each is in ``withheld``, to be sent when the state of all others has
    been through whatever the test does to it.
    """

    def __init__(self, run: str, number: int, values: int, seed: int) -> None:
        self.values = values
        self._name = f"{run}.{number:04d}"
        self._number = number
        self._rng = random.Random(f"{seed}/{run}/{number}")
        self.withheld = [self._delta(key, self._range(key)[1] - 1) for key in range(KEYS)]

    def _range(self, key: int) -> tuple[int, int]:
        return key * 1_000, key * 1_000 + self.values

    def _campaign(self, key: int) -> str:
        first, last = self._range(key)
        return f"{self._name}.{key:02d}.{first}-{last}"

    def _pair(self, key: int) -> str:
        """The canonical campaign of a linked key."""
        return f"{self._name}.both.{key - key % 2:02d}"

    def _delta(self, key: int, value: int) -> Sent:
        platform, topic = PLATFORMS[key % 3]
        first, last = self._range(key)
        campaign = self._campaign(key)
        ordinal = self._number + (value >= (first + last) // 2)
        event = {
            "version": 1,
            "kind": "delta",
            "event_id": f"{campaign}.{value}",
            "platform": platform,
            "campaign_id": campaign,
            "period_start": start_of(ordinal) + value % HOURS * 6 * HOUR_MS + value,
            "currency": "USD",
            **sums(value, value + 1),
        }
        # One campaign's records have no key, and are spread over all partitions.
        return Sent(topic, None if key == KEYS - 1 else campaign.encode(), json.dumps(event).encode())

    def _snapshot(self, key: int, number: int) -> Sent:
        platform, topic = PLATFORMS[key % 3]
        campaign = f"{self._name}.{key:02d}.restated-{RESTATEMENTS}"
        start = start_of(self._number)
        event = {
            "version": 1,
            "kind": "snapshot",
            "platform": platform,
            "campaign_id": campaign,
            "period_start": start,
            "period_end": start + DAY_MS,
            "observed_at": start + DAY_MS + number * 1_000,
            "time_zone": "UTC",
            "currency": "USD",
            **restated(number),
        }
        return Sent(topic, campaign.encode(), json.dumps(event).encode())

    def _link(self, key: int, campaign: str | None, updated: int) -> Sent:
        platform, _ = PLATFORMS[key % 3]
        own = self._campaign(key)
        link = {
            "version": 1,
            "platform": platform,
            "platform_campaign_id": own,
            "campaign_id": campaign,
            "updated_at": start_of(self._number) + updated,
        }
        return Sent(LINKS, f"{platform}:{own}".encode(), json.dumps(link).encode())

    def records(self) -> list[Sent]:
        """All records but the withheld, in the order in which they are sent, duplicates included."""
        return list(self._shuffled(self._resent(self._ordered())))

    def _ordered(self) -> list[Sent]:
        deltas = [
            self._delta(key, self._range(key)[0] + value) for value in range(self.values - 1) for key in range(KEYS)
        ]
        snapshots = [
            self._snapshot(KEYS + key, number) for number in range(RESTATEMENTS + 1) for key in range(SNAPSHOT_KEYS)
        ]
        body = self._mingled(deltas, snapshots)
        half = len(body) // 2
        # Links come when half of the events have been counted under the campaigns' own names.
        early = [self._link(2, f"{self._name}.wrong", 1_000), self._link(LINKED, f"{self._name}.wrong", 1_000)]
        late = [self._link(key, self._pair(key), 2_000) for key in range(LINKED)]
        late.append(self._link(LINKED, None, 2_000))
        self._rng.shuffle(late)
        return [*self._mingled(body[:half], early), *self._mingled(body[half:], [*late, *self.poison()])]

    def _mingled(self, many: list[Sent], few: list[Sent]) -> list[Sent]:
        places = sorted(self._rng.randrange(len(many) + 1) for _ in few)
        found = []
        done = 0
        for place, record in zip(places, few, strict=True):
            found += [*many[done:place], record]
            done = place
        return found + many[done:]

    def _resent(self, records: list[Sent]) -> list[Sent]:
        again = [
            (at + self._rng.randint(1, self._rng.choice((SHUFFLE, FAR))), record)
            for at, record in enumerate(records)
            if self._rng.random() < RESENT and not is_poison(record.key)
        ]
        order = [*((at, 0, record) for at, record in enumerate(records)), *((at, 1, record) for at, record in again)]
        return [record for _, _, record in sorted(order, key=lambda item: item[:2])]

    def _shuffled(self, records: list[Sent]) -> Iterator[Sent]:
        window: list[Sent] = []
        for record in records:
            window.append(record)
            if len(window) == SHUFFLE:
                yield window.pop(self._rng.randrange(SHUFFLE))
        self._rng.shuffle(window)
        yield from window

    def poison(self) -> list[Sent]:
        """What nobody can use: its key names the dead letter's code. And a record without a value, which is ignored."""
        found = [
            Sent(PLATFORMS[place % 3][1], f"{POISON_KEY}|{code}|{self._name}.{place}".encode(), value)
            for place, (code, value) in enumerate(poison(self._name))
        ]
        return [*found, Sent(META, f"{self._name}.tombstone".encode(), None)]

    def expected(self, *, released: bool) -> Expected:
        """The totals of each campaign and day; ``released`` says that the withheld records have been sent too."""
        found: Expected = {}
        for key in range(KEYS):
            platform, _ = PLATFORMS[key % 3]
            first, last = self._range(key)
            middle = (first + last) // 2
            campaign = self._pair(key) if key < LINKED else f"{platform}:{self._campaign(key)}"
            for ordinal, own in (
                (self._number, sums(first, middle)),
                (self._number + 1, sums(middle, last - (not released))),
            ):
                held = found.setdefault((campaign, day_of(ordinal)), dict.fromkeys(own, 0))
                for name, value in own.items():
                    held[name] += value
        for key in range(KEYS, KEYS + SNAPSHOT_KEYS):
            platform, _ = PLATFORMS[key % 3]
            campaign = f"{platform}:{self._name}.{key:02d}.restated-{RESTATEMENTS}"
            found[campaign, day_of(self._number)] = restated(RESTATEMENTS)
        return found


def is_poison(key: bytes | None) -> bool:
    """Whether a record's key says that nobody can use the record."""
    return (key or b"").startswith(f"{POISON_KEY}|".encode())


def is_restated(campaign: str) -> bool:
    """Whether a campaign is one of snapshots."""
    return ".restated-" in campaign


def poison(unique: str) -> list[tuple[str, bytes]]:
    """Codes, and records that end with them."""

    def event(**changed: object) -> bytes:
        body = {"version": 1, "kind": "delta", "event_id": f"{unique}.bad", "platform": "meta", "campaign_id": unique}
        return json.dumps({**body, "period_start": "2022-01-05T10:30:00Z", "impressions": 1, **changed}).encode()

    return [
        ("not_utf8", b'{"campaign_id": "\xff\xfe"}'),
        ("malformed_json", event()[:-7]),
        ("malformed_json", b"\x00\x01\x02 any bytes"),
        ("too_deep", b"[" * 1_025 + b"]" * 1_025),
        ("not_a_number", event()[:-1] + b', "clicks": NaN}'),
        ("wrong_type", event(clicks="many")),
        ("negative", event(impressions=-1)),
        ("out_of_range", event(impressions=10**30)),
        ("bad_time", event(period_start="2022-01-05T10:30:00")),
        ("in_the_future", event(period_start="2098-01-01T00:00:00Z")),
        ("unknown_platform", event(platform="pigeon")),
        ("empty", b""),
        ("not_an_object", b"[17]"),
        ("unknown_shape", b'{"data": {"clicks": 1}}'),
    ]
