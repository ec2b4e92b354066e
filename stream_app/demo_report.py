"""What the demo found: the live stream held against the offline computation, and the lines that a person reads."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import redis

from core.accounting import Accounting
from core.offline import Computed
from schemas import insight as insight_codec
from schemas.insight import CrossPlatformInsight, PlatformBreakdown
from schemas.prediction import CtrPrediction
from stream_app.hot_store import HotStore
from stream_app.outputs import Outputs
from stream_app.settings import Settings
from stream_app.simulator import Simulation
from stream_app.summary import (
    DemoReport,
    HotSummary,
    InsightLine,
    Latency,
    PlatformLine,
    PredictionLine,
    Rate,
)

DAY = "24h"
SHOWN_FIRST = "7d"
WHOLE_DAY = 0.999


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen of the live run: the worker's own status, records published, rate and latency."""

    status: dict[str, Any]
    records: int
    rate: Rate | None
    latency: Latency | None


def build_report(
    observed: Observed,
    computed: Computed,
    outputs: Outputs,
    settings: Settings,
    simulation: Simulation | None,
    seconds: float,
) -> DemoReport:
    """The report. ``ok`` only where live and offline agree in everything."""
    accounting = _accounting(observed, computed)
    live = {key: insight for key, insight in outputs.insights.items() if insight.platform_breakdown}
    hot, hot_problems = _hot(settings, live) if settings.cache_enabled else (None, [])
    problems = [
        *_accounting_problems(accounting, observed, computed, outputs),
        *_insight_problems(live, computed),
        *hot_problems,
    ]
    offline = {insight.insight_id: insight for insight in computed.insights}
    return DemoReport(
        ok=not problems,
        problems=problems,
        seconds=seconds,
        accounting=accounting,
        insights=_insight_lines(live.values(), simulation),
        predictions=_prediction_lines(outputs.predictions, offline),
        hot=hot,
        rate=observed.rate,
        latency=observed.latency,
    )


def _accounting(observed: Observed, computed: Computed) -> Accounting:
    """The worker's accounting; the number of rows is the offline decoder's, an independent count."""
    told = observed.status["accounting"]
    return Accounting(
        records=told["records"],
        rows=computed.accounting.rows,
        applied=told["applied"],
        duplicate=told["duplicate"],
        superseded=told["superseded"],
        dead_letters=told["dead_letters"],
        ignored=told["ignored"],
    )


def _accounting_problems(
    accounting: Accounting, observed: Observed, computed: Computed, outputs: Outputs
) -> Iterator[str]:
    if not accounting.adds_up:
        yield f"{accounting.rows} rows came in, and {accounting.accounted} are accounted for"
    if accounting.records != observed.records:
        yield f"{observed.records} records were published, and the worker counts {accounting.records}"
    for what in ("dead_letters", "ignored"):
        live, offline = getattr(accounting, what), getattr(computed.accounting, what)
        if live != offline:
            yield f"{what.replace('_', ' ')} are {live} live and {offline} offline"
    letters = {row.letter.id for row in computed.rejected}
    if letters != set(outputs.dead_letters):
        odd = sorted(letters ^ set(outputs.dead_letters))
        yield f"{len(odd)} dead letters are on one side only, such as {odd[0]}"


def _insight_problems(live: Mapping[str, CrossPlatformInsight], computed: Computed) -> Iterator[str]:
    offline = {insight.insight_id: insight for insight in computed.insights}
    for key in sorted(live.keys() - offline.keys()):
        yield f"live only: {_place(live[key])}"
    for key, insight in offline.items():
        if key not in live:
            yield f"offline only: {_place(insight)}"
        elif insight_codec.content(live[key]) != insight_codec.content(insight):
            yield f"live and offline differ: {_place(insight)}, {_first_difference(live[key], insight)}"


def _place(insight: CrossPlatformInsight) -> str:
    return f"{insight.campaign_id} {insight.window} from {insight.window_start}"


def _first_difference(live: CrossPlatformInsight, offline: CrossPlatformInsight) -> str:
    one, other = msgspec.to_builtins(live), msgspec.to_builtins(offline)
    for field in one:
        if field not in ("version", "phase", "as_of", "correction") and one[field] != other[field]:
            return f"{field} is {str(one[field])[:80]} and {str(other[field])[:80]}"
    return "in no field"


def _newest(insights: Mapping[str, CrossPlatformInsight]) -> dict[tuple[str, str], CrossPlatformInsight]:
    """The newest window of each campaign and kind."""
    newest: dict[tuple[str, str], CrossPlatformInsight] = {}
    for insight in insights.values():
        key = (insight.campaign_id, insight.window)
        if key not in newest or newest[key].window_start < insight.window_start:
            newest[key] = insight
    return newest


def _hot(settings: Settings, live: Mapping[str, CrossPlatformInsight]) -> tuple[HotSummary, list[str]]:
    """What Redis holds, and where that is not the newest insight."""
    client = redis.Redis(**settings.redis_url_kwargs())
    try:
        kinds = {kind: list(client.scan_iter(f"parallax:{kind}:*", count=1_000)) for kind in ("insight", "prediction")}
        ttls = [client.pttl(key) / 1000 for keys in kinds.values() for key in keys]
        memory = client.info("memory")
    finally:
        client.close()
    summary = HotSummary(
        keys={kind: len(keys) for kind, keys in kinds.items()},
        ttl_min_s=min(ttls, default=None),
        ttl_max_s=max(ttls, default=None),
        used_memory_bytes=int(memory["used_memory"]),
    )
    return summary, asyncio.run(_hot_problems(settings, live))


async def _hot_problems(settings: Settings, live: Mapping[str, CrossPlatformInsight]) -> list[str]:
    store = HotStore.of(settings)
    problems = []
    try:
        for (campaign, window), insight in sorted(_newest(live).items()):
            held = await store.get(campaign, window)
            if held is None:
                problems.append(f"Redis lacks {_place(insight)}")
            elif insight_codec.content(insight_codec.decode(held.value)) != insight_codec.content(insight):
                problems.append(f"Redis holds another insight than the topic: {_place(insight)}")
    finally:
        await store.close()
    return problems


def _insight_lines(live: "Iterator[CrossPlatformInsight] | Any", simulation: Simulation | None) -> list[InsightLine]:
    insights = list(live)
    daily: dict[tuple[str, str], dict[str, float | None]] = defaultdict(dict)
    for insight in insights:
        if insight.window == DAY:
            for platform, breakdown in insight.platform_breakdown.items():
                daily[insight.campaign_id, platform][insight.window_start] = breakdown.ctr
    newest = _newest({insight.insight_id: insight for insight in insights})
    ordered = sorted(
        newest.values(), key=lambda insight: (insight.window != SHOWN_FIRST, insight.window, insight.campaign_id)
    )
    names = simulation.names if simulation else {}
    return [
        InsightLine(
            campaign=insight.campaign_id,
            name=names.get(insight.campaign_id, ""),
            window=insight.window,
            window_end=insight.window_end,
            phase=insight.phase,
            platforms=[
                _platform_line(platform, breakdown, daily[insight.campaign_id, platform])
                for platform, breakdown in insight.platform_breakdown.items()
            ],
            best_platform=insight.best_platform,
            consistency=insight.consistency_score,
            roas=insight.roas,
            roas_reason=insight.roas_reason,
        )
        for insight in ordered
    ]


def _platform_line(platform: str, breakdown: PlatformBreakdown, daily: Mapping[str, float | None]) -> PlatformLine:
    return PlatformLine(
        platform=platform,
        impressions=breakdown.totals.impressions or 0,
        clicks=breakdown.totals.clicks or 0,
        ctr=breakdown.ctr,
        spend_micros=breakdown.totals.spend_micros,
        currency=breakdown.totals.currency,
        composite=breakdown.composite_score,
        daily_ctr=[daily[day] for day in sorted(daily)],
    )


def _prediction_lines(
    predictions: list[CtrPrediction], offline: Mapping[str, CrossPlatformInsight]
) -> list[PredictionLine]:
    """For each campaign, platform and whole day: the last prediction that was published for it, and what happened."""
    days = {
        (insight.campaign_id, insight.window_start): insight for insight in offline.values() if insight.window == DAY
    }
    last: dict[tuple[str, str], CtrPrediction] = {}
    for prediction in predictions:
        if prediction.window == DAY:
            key = (prediction.campaign_id, prediction.label_window_start)
            if key not in last or last[key].revision <= prediction.revision:
                last[key] = prediction
    lines = []
    for (campaign, day), prediction in sorted(last.items(), key=lambda item: (item[0][1], item[0][0]), reverse=True):
        insight = days.get((campaign, day))
        for platform, rate in sorted(prediction.platforms.items()):
            shown = insight.platform_breakdown.get(platform) if insight else None
            if shown is None or shown.ctr is None or shown.coverage < WHOLE_DAY or not shown.totals.impressions:
                continue
            lines.append(
                PredictionLine(
                    campaign=campaign,
                    platform=platform,
                    rate=rate.rate,
                    low=rate.low,
                    high=rate.high,
                    actual=shown.ctr,
                    actual_impressions=shown.totals.impressions,
                    inside=rate.low <= shown.ctr <= rate.high,
                )
            )
    return lines
