"""A worker's state in Prometheus' text format: the numbers of its health page (``stream_app.health``), and what the
client library tells of any process.

What a worker counts since its start is a counter. What its partitions hold is a gauge, for it moves with them: sums
over all workers are the application's.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from schemas.scorecard import DAY

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
PREFIX: Final = "parallax_"

Samples = Iterable[tuple[tuple[str, ...], float | None]]


def page(status: Mapping[str, Any]) -> bytes:
    """The page of a worker with a status, for the process that this is."""
    return render(status) + _exposed(PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR)


def render(status: Mapping[str, Any]) -> bytes:
    """The part of the page that a status gives."""
    return _exposed(_Status(status))


def _exposed(*collectors: Collector) -> bytes:
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return generate_latest(registry)


class _Status(Collector):
    def __init__(self, status: Mapping[str, Any]) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        for part in (_worker, _topics, _ingest, _state, _checkpoints, _redis, _models, _patterns, _scorecard):
            yield from part(self._status)


def _counter(name: str, what: str, samples: Samples, labels: tuple[str, ...] = ()) -> Metric:
    return _filled(CounterMetricFamily(PREFIX + name, what, labels=labels), samples)


def _gauge(name: str, what: str, samples: Samples, labels: tuple[str, ...] = ()) -> Metric:
    return _filled(GaugeMetricFamily(PREFIX + name, what, labels=labels), samples)


def _filled(family: Any, samples: Samples) -> Metric:
    for values, number in samples:
        if number is not None:
            family.add_metric(values, number)
    found: Metric = family
    return found


def _one(number: float | None) -> Samples:
    return (((), number),)


def _by(numbers: Mapping[Any, float | None]) -> Samples:
    return (((str(label),), number) for label, number in numbers.items())


def _worker(status: Mapping[str, Any]) -> Iterator[Metric]:
    yield _gauge("ready", "1 where partitions are assigned and recovered and checkpoints made.", _one(status["ready"]))
    yield _gauge("stalled", "1 where the watchdog found the worker stalled.", _one(bool(status["stalled"])))
    yield _gauge("uptime_seconds", "Seconds since the start.", _one(status["uptime_seconds"]))
    yield _counter("fenced", "Partitions lost to another owner while writing.", _one(status["fenced"]))
    lost = ((*key.rsplit("/", 1),) for key in status["lost_records"])
    yield _counter(
        "lost_records",
        "Records that retention removed before they were read.",
        zip(lost, status["lost_records"].values(), strict=True),
        ("topic", "partition"),
    )


def _patterns(status: Mapping[str, Any]) -> Iterator[Metric]:
    follower = status["patterns"]
    yield _counter("patterns_follower_starts", "Starts of the process that follows patterns.", _one(follower["starts"]))
    yield _gauge("patterns_follower_pid", "Its process id, while it runs.", _one(follower["pid"]))


def _topics(status: Mapping[str, Any]) -> Iterator[Metric]:
    yield _gauge("lag_offsets", "Offsets of assigned partitions that are not finished.", _by(status["lag"]), ("topic",))
    held = {topic: len(partitions) for topic, partitions in status["partitions"].items()}
    yield _gauge("partitions", "Assigned partitions.", _by(held), ("topic",))
    positions = (
        ((topic, str(partition)), position)
        for topic, of in status["positions"].items()
        for partition, position in of.items()
    )
    yield _gauge("position_offset", "Last offset that the state has seen.", positions, ("topic", "partition"))
    for name, unit in (("recovered_records", "records"), ("recovery_seconds", "seconds")):
        spent = {topic: one[unit] for topic, one in status["recovery"].items()}
        yield _gauge(name, f"The last recovery of partitions, in {unit}.", _by(spent), ("topic",))
    # -1 is the watermark of a partition that has seen no time.
    instants = {partition: ms / 1000 for partition, ms in status["watermarks"].items() if ms >= 0}
    yield _gauge(
        "watermark_timestamp_seconds", "Event time up to which rollups are complete.", _by(instants), ("partition",)
    )


def _ingest(status: Mapping[str, Any]) -> Iterator[Metric]:
    ingest = status["ingest"]
    yield _counter("ingest_records", "Records read from the input topics.", _one(ingest["records"]))
    yield _counter("ingest_rows", "Rows in them.", _one(ingest["rows"]))
    yield _gauge("ingest_first_timestamp_seconds", "When the first record was read.", _one(ingest["first_at"]))
    yield _counter("ingest_dead_letters", "Rows that became dead letters.", _by(ingest["dead_letters"]), ("code",))


def _state(status: Mapping[str, Any]) -> Iterator[Metric]:
    accounting = status["accounting"]
    yield _gauge("accounting_records", "Records in the state of the held partitions.", _one(accounting["records"]))
    ends: list[tuple[tuple[str, ...], float | None]] = [
        ((end, ""), accounting[end]) for end in ("applied", "duplicate", "superseded")
    ]
    ends += [(("dead_letter", code), count) for code, count in accounting["dead_letters"].items()]
    ends += [(("ignored", reason), count) for reason, count in accounting["ignored"].items()]
    yield _gauge("accounting_rows", "Rows in that state by how they ended.", ends, ("outcome", "reason"))
    for name, what in (
        ("owed_rollups", "Rollups that changed and are not sent."),
        ("waiting_windows", "Windows that changed and are not published."),
        ("expired_rollups", "Rollups that came after their day was dropped."),
    ):
        yield _gauge(name, what, _one(status[name]))
    yield _gauge("unlinked_campaigns", "Platform campaigns without a campaign.", _one(status["unlinked"]))
    yield _counter("published_insights", "Insights published.", _one(status["published"]))
    yield _counter("oversize_insights", "Insights too large for their topic.", _one(status["too_large"]))
    yield _counter("malformed_records", "Records of our own topics that meant nothing.", _one(status["malformed"]))


def _checkpoints(status: Mapping[str, Any]) -> Iterator[Metric]:
    found = status["checkpoints"]

    def of(field: str) -> Samples:
        return _by({stage: one[field] for stage, one in found.items()})

    yield _counter("checkpoints", "Checkpoints that are durable.", of("count"), ("stage",))
    yield _counter("checkpoint_seconds", "Seconds spent on them.", of("seconds"), ("stage",))
    yield _gauge("checkpoint_last_timestamp_seconds", "When the last one became durable.", of("last_at"), ("stage",))
    yield _gauge("checkpoint_writing", "1 while one is being written.", of("writing"), ("stage",))


def _redis(status: Mapping[str, Any]) -> Iterator[Metric]:
    redis = status["redis"]
    yield _gauge("redis_enabled", "1 where Redis is written to.", _one(redis["enabled"]))
    if not redis["enabled"]:
        return
    yield _gauge("redis_up", "1 where Redis served the last time.", _one(redis["up"]))
    yield _gauge("redis_pending_entries", "Values that Redis does not have yet.", _one(redis["pending"]))
    yield _counter("redis_stale_refused", "Writes that met a newer version.", _one(redis["stale_refused"]))
    yield _gauge("redis_rebuilding", "1 while Redis is being made whole.", _one(redis["rebuilding"]))


def _models(status: Mapping[str, Any]) -> Iterator[Metric]:
    models = status["models"]
    yield _gauge("models_caught_up", "1 where the models topic has been read to its end.", _one(models["caught_up"]))
    yield _counter("model_refusals", "Models that were refused.", _by(models["refused"]), ("code",))
    known = models["models"]
    yield _gauge(
        "model_taken", "1 where the newest good model serves.", _by({k: m["taken"] for k, m in known.items()}), ("key",)
    )
    published = {key: None if (ms := one["published_ms"]) is None else ms / 1000 for key, one in known.items()}
    yield _gauge(
        "model_published_timestamp_seconds", "When the newest good model was published.", _by(published), ("key",)
    )
    behind = {key: one["refused_since"] is not None for key, one in known.items()}
    yield _gauge("model_refused_since", "1 where a newer model was refused.", _by(behind), ("key",))


def _scorecard(status: Mapping[str, Any]) -> Iterator[Metric]:
    scored = status["predictions"]
    yield _gauge("learning_days_waiting", "Closed days that wait to be learned.", _one(scored["days_to_learn"]))
    yield _gauge("learning_forgotten", "1 where learning could not be restored.", _one(bool(scored["forgotten"])))
    by_horizon: dict[str, Mapping[str, Any]] = {DAY: scored} | scored.get("horizons", {})
    for name, field, what in (
        ("ctr_scored_rows", "rows", "Predictions of a horizon that were scored."),
        ("ctr_scored_impressions", "impressions", "Impressions of these."),
        ("ctr_scored_days", "days", "Days on which their windows ended."),
    ):
        yield _gauge(name, what, _by({horizon: one.get(field, 0) for horizon, one in by_horizon.items()}), ("horizon",))
    by_platform: Mapping[str, Mapping[str, Mapping[str, float | None]]] = scored.get("by_platform", {})
    for name, measure, what in (
        ("ctr_log_loss_nats", "log_loss", "Log-loss per impression, natural log."),
        ("ctr_normalized_entropy_ratio", "normalized_entropy", "Log-loss over that of the rows' own CTR."),
        ("ctr_calibration_ratio", "calibration", "Clicks predicted over actual."),
        ("ctr_interval_coverage_ratio", "coverage", "Share of rows inside of their 90 % interval."),
    ):
        samples = (
            ((horizon, platform, predictor), found[measure])
            for horizon, one in by_horizon.items()
            for platform, predictors in one.get("by_platform", {}).items()
            for predictor, found in predictors.items()
        )
        yield _gauge(name, f"{what} Platform all is every row.", samples, ("horizon", "platform", "predictor"))
    promoted = {one: one in scored.get("promoted", ()) for one in by_platform if one != "all"}
    yield _gauge("ctr_model_promoted", "1 where the model serves in some held partition.", _by(promoted), ("platform",))
