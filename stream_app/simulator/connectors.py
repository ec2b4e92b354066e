"""The connectors: which reports a pull of a day holds, and how each connector puts them into Kafka records."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from schemas.calendar import iso_instant
from schemas.platform import Platform
from schemas.topics import METRICS_TOPICS
from stream_app.simulator import google_ads, meta, tiktok
from stream_app.simulator.draft import Draft
from stream_app.simulator.performance import pulls_of_day
from stream_app.simulator.roster import PlatformCampaign, SimAccount
from stream_app.simulator.wire import Row, to_json

GRAPH_PAGE: Final = 18
ENVELOPE_PAGE: Final = 48
EMISSION_GAP_MS: Final = 9


@dataclass(frozen=True)
class Report:
    """One row before it is wrapped. Rows of one ``identity`` restate one another."""

    connector: str
    stream: str
    identity: str
    row: Row


def reports(run: PlatformCampaign, seed: int, day_index: int, day: int, age: int) -> list[Report]:
    """What a pull says of one platform campaign's day, ``age`` days after the day's first pull."""
    versions = pulls_of_day(run, seed, day_index)
    parts = versions[min(age, len(versions) - 1)]
    connector, identity = run.account.connector, f"{run.key}/{day}"
    match run.platform:
        case Platform.META:
            return [
                Report(connector, "ads_insights", f"{identity}/{part.name}", meta.ad_row(run, day, part))
                for part in parts
            ]
        case Platform.TIKTOK:
            ads = [
                Report("airbyte", "ads_reports_daily", f"{identity}/{part.name}", tiktok.ad_row(run, day, part))
                for part in parts
            ]
            if connector == "airbyte":
                row = tiktok.campaign_row(run, day, parts)
                return [Report(connector, "campaigns_reports_daily", identity, row), *ads]
            hours = enumerate(tiktok.hourly_rows(run, day, parts))
            return [*(Report(connector, "hourly", f"{identity}/h{hour}", row) for hour, row in hours), *ads]
        case _:
            shape = google_ads.flat_row if connector == "airbyte" else google_ads.rest_row
            return [
                Report(connector, "campaign_performance", f"{identity}/{part.name}", shape(run, day, part))
                for part in parts
            ]


def account_total(
    account: SimAccount, runs: list[PlatformCampaign], seed: int, day_index: int, day: int
) -> Report | None:
    """The account's own total of a day, from the connectors that publish one."""
    parts = tuple(part for run in runs for part in pulls_of_day(run, seed, day_index)[0])
    if not parts or account.connector != "airbyte":
        return None
    identity = f"{account.account_id}/{day}"
    match account.platform:
        case Platform.TIKTOK:
            return Report("airbyte", "advertisers_reports_daily", identity, tiktok.advertiser_row(account, day, parts))
        case Platform.GOOGLE_ADS:
            row = google_ads.account_row(account, day, tiktok.total(parts))
            return Report("airbyte", "account_performance_report", identity, row)
        case _:
            return None


def wrap(platform: Platform, batch: list[Report], emitted_ms: int) -> Iterator[Draft]:
    """A pull's reports of one account as its connector's records."""
    topic = METRICS_TOPICS[platform]
    by_connector: dict[str, list[Report]] = {}
    for report in batch:
        by_connector.setdefault(report.connector, []).append(report)
    for connector, rows in by_connector.items():
        match connector:
            case "graph_api":
                for page in _pages(rows, GRAPH_PAGE):
                    yield Draft(topic, None, to_json(meta.graph_body(page)), len(page))
            case "envelope":
                for page in _pages(rows, ENVELOPE_PAGE):
                    yield Draft(topic, None, to_json(tiktok.envelope(page)), len(page))
            case "rest":
                for report in rows:
                    yield Draft(topic, report.identity.rpartition("/")[0].encode(), to_json(report.row))
            case "singer":
                for number, report in enumerate(rows):
                    message = google_ads.singer_record(report.row, iso_instant(emitted_ms + number * EMISSION_GAP_MS))
                    yield Draft(topic, b"campaign_performance", to_json(message))
            case _:
                for number, report in enumerate(rows):
                    yield airbyte(topic, report, emitted_ms + number * EMISSION_GAP_MS)


def airbyte(topic: str, report: Report, emitted_ms: int) -> Draft:
    """One row in Airbyte's envelope."""
    return Draft(topic, None, to_json({"stream": report.stream, "data": report.row, "emitted_at": emitted_ms}))


def _pages(rows: list[Report], size: int) -> Iterator[list[Row]]:
    return ([report.row for report in rows[start : start + size]] for start in range(0, len(rows), size))
