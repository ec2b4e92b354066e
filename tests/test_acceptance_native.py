"""Every native fixture through real Kafka and Redis: topics, hot store, offline command and a plain recount agree."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas import insight as insight_codec
from schemas.topics import CAMPAIGN_LINKS, DEAD_LETTERS, INSIGHTS_LATEST
from tests import raw_sums
from tests.live import ROOT, Live, by_id

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

NATIVE = ROOT.parent / "shared" / "native"
LINKS = {
    ("meta", "23846765228240398"): "awareness",
    ("tiktok", "1714125042508817"): "awareness",
    ("google_ads", "16820250687"): "awareness",
    ("meta", "23854404676180548"): "cars",
    ("google_ads", "20643300404"): "new-year",
    ("google_ads", "700001"): "new-year",
    ("tiktok", "11111111"): "new-year",
}
"""Of the others, ``tiktok:1714073078669329`` and ``tiktok:advertiser_id``, each stands for itself."""


def restated() -> list[dict[str, Any]]:
    """The restated pairs as Airbyte publishes such rows, in the order of their pulls."""
    envelopes = []
    for row in json.loads((NATIVE / "google_ads" / "restated_pairs.json").read_text()):
        data = {name: value for name, value in row.items() if name not in ("pull", "emitted_at_ms")}
        envelopes.append({"stream": "ad_group_ad", "data": data, "emitted_at": row["emitted_at_ms"]})
    return envelopes


def written(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


class Published:
    """The files of one run, by platform, and the links."""

    def __init__(self, folder: Path, *, newest_pull_first: bool) -> None:
        pairs = restated()
        self.restated = pairs[::-1] if newest_pull_first else pairs
        self.files = {
            "meta": [NATIVE / "meta" / "airbyte_ads_insights.jsonl", NATIVE / "meta" / "graph_api_body.json"],
            "tiktok": [NATIVE / "tiktok" / "airbyte_reports.jsonl", NATIVE / "tiktok" / "report_envelope_hourly.json"],
            "google_ads": [
                NATIVE / "google_ads" / "airbyte_reports.jsonl",
                NATIVE / "google_ads" / "rest_row.json",
                written(folder / "google_restated.jsonl", self.restated),
            ],
        }
        self.links = written(
            folder / "links.jsonl",
            [
                {"version": 1, "platform": platform, "platform_campaign_id": own, "campaign_id": campaign}
                for (platform, own), campaign in LINKS.items()
            ],
        )
        self.records = sum(
            len(path.read_text().splitlines()) if path.suffix == ".jsonl" else 1
            for paths in self.files.values()
            for path in paths
        )

    def rows(self) -> list[raw_sums.Row | None]:
        return list(raw_sums.native_rows(NATIVE, self.restated))


@pytest.fixture
def live(kafka: str, redis_server: tuple[str, int], tmp_path: Path) -> Iterator[Live]:
    with Live(kafka, redis_server, tmp_path, redis_db=11) as live:
        yield live


def produce(live: Live, *arguments: str | Path) -> None:
    ended = live.command("produce", *arguments)
    assert (ended.returncode, ended.stderr) == (0, "")


def offline_lines(live: Live, published: Published) -> list[bytes]:
    """What ``parallax insights`` prints for the same files."""
    files = [path for paths in published.files.values() for path in paths]
    ended = live.command("insights", *files, "--links", published.links, "--format", "json")
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.encode().splitlines()


@pytest.mark.parametrize("newest_pull_first", [False, True], ids=["pulls in order", "newest pull first"])
def test_all_native_records_give_the_insights_of_the_files(live: Live, tmp_path: Path, newest_pull_first: bool) -> None:
    """Scenario: all fixtures are published; links come first, or, with the pulls reversed, when all rows are applied.

    Expectation: one set of insights, the same in both topics, in Redis, offline, and in a recount of the raw JSON.
    """
    published = Published(tmp_path, newest_pull_first=newest_pull_first)
    worker = live.start()
    if not newest_pull_first:
        produce(live, published.links, "--links")
    for platform, files in published.files.items():
        produce(live, *files, "--platform", platform)
    if newest_pull_first:
        live.ready(worker)
        live.drain(published.records)
        assert any(insight.campaign_id == "tiktok:11111111" for insight in live.latest().values())
        produce(live, published.links, "--links")
    accounting = live.drain(published.records + len(LINKS))

    rows = published.rows()
    counted = [row for row in rows if row is not None]
    # The pair of 2023-12-31 differs in no metric that counts; the one of 2024-01-01 does.
    assert accounting == {
        "records": published.records + len(LINKS),
        "applied": len(counted) - (2 if newest_pull_first else 1) + len(LINKS),
        "duplicate": 1,
        "superseded": int(newest_pull_first),
        "dead_letters": {},
        "ignored": accounting["ignored"],
    }
    assert sum(accounting["ignored"].values()) == len(rows) - len(counted)
    assert accounting["ignored"] == {"account_level": 23, "no_campaign": 5, "no_metrics": 6, "no_period": 9}
    assert live.read(DEAD_LETTERS) == []
    assert len(live.read(CAMPAIGN_LINKS)) == len(LINKS)

    lines = offline_lines(live, published)
    live.check(by_id(insight_codec.decode(line) for line in lines))

    expected = raw_sums.recount(rows, LINKS)
    last = {message.key(): json.loads(message.value()) for message in live.read(INSIGHTS_LATEST)}
    found: dict[raw_sums.Key, raw_sums.Sums] = {}
    for insight in last.values():
        parts = raw_sums.told(insight)
        assert raw_sums.totals(insight["totals"]) == raw_sums.add(parts.values())
        found |= parts
    assert found == expected


def test_the_recount_says_what_was_worked_out_by_hand(tmp_path: Path) -> None:
    sums = raw_sums.recount(raw_sums.native_rows(NATIVE, restated()), LINKS)
    # Two ads, each in six streams: 345 and 421 impressions once.
    assert sums["awareness", "24h", "2021-09-03", "meta"] == {
        "impressions": 766,
        "clicks": 1,
        "link_clicks": 1,
        "engagements": 1,
        "spend_micros:USD": 1_450_000,
    }
    # Two products of one ad, all strings.
    assert sums["cars", "24h", "2023-06-01", "meta"] == {
        "impressions": 356,
        "clicks": 16,
        "link_clicks": 13,
        "engagements": 14,
        "spend_micros:USD": 22_880_000,
    }
    # The restated pull of an ad, the REST row's one unit of an unknown currency, no conversion lost or added twice.
    assert sums["new-year", "24h", "2024-01-01", "google_ads"] == {
        "impressions": 257,
        "clicks": 37,
        "conversions_micros": 15_295_535,
        "spend_micros:USD": 328_930_000,
        "spend_micros:": 1_000_000,
        "revenue_micros:USD": 1_184_553_500,
    }
    # Campaign level comes first; it carries no conversions, which the ad group's do.
    assert sums["awareness", "24h", "2021-10-28", "tiktok"]["impressions"] == 4_787
    assert sums["awareness", "24h", "2021-10-25", "tiktok"] == {
        "impressions": 5_830,
        "clicks": 69,
        "conversions_micros": 0,
        "engagements": 36,
        "video_views": 5_173,
        "spend_micros:": 20_000_000,
        "revenue_micros:": 0,
    }
    assert sums["new-year", "1h", "2024-01-01T10:00:00.000Z", "tiktok"]["impressions"] == 4_696


def test_the_recount_notices_a_loss_a_duplicate_and_a_swap() -> None:
    rows = [row for row in raw_sums.native_rows(NATIVE, restated()) if row is not None]
    whole = raw_sums.recount(rows, LINKS)
    at = next(place for place, row in enumerate(rows) if row.campaign == "20643300404" and row.day == "2024-01-01")
    older, newer = rows[at], rows[at + 2]
    assert raw_sums.recount(rows[: at + 2] + rows[at + 3 :], LINKS) != whole
    assert raw_sums.recount([*rows, newer._replace(entity=("another",))], LINKS) != whole
    swapped = [*rows]
    swapped[at], swapped[at + 2] = older._replace(pulled=newer.pulled), newer._replace(pulled=older.pulled)
    assert raw_sums.recount(swapped, LINKS) != whole
