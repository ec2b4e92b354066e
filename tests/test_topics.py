"""The topic plan: what it promises, and that differences on a real broker are refused."""

import os
import time
import uuid

import msgspec
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from schemas import topics as names
from stream_app import topics
from stream_app.embedded import embedded_kafka, free_port
from stream_app.errors import ServerAbsent, SetupError
from stream_app.settings import Settings


@pytest.fixture
def own(kafka: str) -> Settings:
    """Settings whose topics no other test has."""
    run = uuid.uuid4().hex[:8]
    return Settings(kafka_bootstrap=kafka, topic_prefix=f"{run}.", app_id=f"app-{run}", partitions=3)


def make(settings: Settings, base: str, partitions: int, **config: str) -> None:
    admin = AdminClient(settings.confluent_config())
    new = NewTopic(
        topics.name(settings, base),
        num_partitions=partitions,
        replication_factor=1,
        config={key.replace("_", "."): value for key, value in config.items()},
    )
    for answer in admin.create_topics([new]).values():
        answer.result()
    while new.topic not in admin.list_topics(timeout=10).topics:
        os.sched_yield()


def test_the_plan_has_every_topic_of_the_schemas() -> None:
    planned = {topic.name: topic for topic in topics.plan(Settings(app_id="px", topic_prefix="t."))}
    bases = {
        *names.INGEST_TOPICS,
        *(names.ROUTED, names.ROLLUPS, names.INSIGHTS, names.INSIGHTS_LATEST, names.PREDICTIONS, names.DEAD_LETTERS),
        names.MODELS,
        names.SCORECARDS,
        names.PATTERNS,
        names.CREATIVE_SCORES,
        *("px-blocks-changelog", "px-campaigns-changelog"),
    }
    assert planned.keys() == {f"t.{base}" for base in bases}


def test_co_partitioned_topics_have_equal_counts() -> None:
    settings = Settings(partitions=7)
    counts = {topic.name: topic.partitions for topic in topics.plan(settings)}
    co_partitioned = (
        *(names.ROUTED, names.ROLLUPS, names.INSIGHTS, names.INSIGHTS_LATEST, names.PREDICTIONS, names.SCORECARDS),
        *(topics.blocks_changelog(settings), topics.campaigns_changelog(settings)),
    )
    assert {counts[topic] for topic in co_partitioned} == {7}


def test_inputs_outlive_the_horizon_and_are_stamped_on_arrival() -> None:
    settings = Settings(horizon="50d")  # type: ignore[arg-type] # pydantic parses it
    planned = {topic.name: topic for topic in topics.plan(settings)}
    for base in names.METRICS_TOPICS.values():
        config = planned[base].config(1)
        assert config["message.timestamp.type"] == "LogAppendTime"
        assert int(config["retention.ms"]) >= settings.horizon.ms
    for base in names.FACT_TOPICS:
        assert planned[base].config(1)["cleanup.policy"] == "compact"
        assert planned[base].config(1)["message.timestamp.type"] == "LogAppendTime"
    # A row that is still there must be read again by the facts of its arrival.
    assert int(planned[names.ACCOUNTS].config(1)["min.compaction.lag.ms"]) >= settings.horizon.ms


def test_what_is_past_the_horizon_leaves_the_compacted_topics_and_nothing_before() -> None:
    settings = Settings(horizon="50d")  # type: ignore[arg-type] # pydantic parses it
    planned = {topic.name: topic.config(1) for topic in topics.plan(settings)}
    for base in (names.ROLLUPS, names.INSIGHTS_LATEST):
        assert planned[base]["cleanup.policy"] == "compact,delete"
        assert int(planned[base]["retention.ms"]) > settings.horizon.ms
    for changelog in (topics.blocks_changelog(settings), topics.campaigns_changelog(settings)):
        assert (planned[changelog]["cleanup.policy"], planned[changelog]["retention.ms"]) == ("compact", "-1")


@pytest.mark.parametrize("max_payload_bytes", [65_536, 4 * 1024 * 1024])
def test_a_dead_letter_holds_the_largest_input_and_what_is_said_of_it(max_payload_bytes: int) -> None:
    planned = {topic.name: topic for topic in topics.plan(Settings(max_payload_bytes=max_payload_bytes))}
    largest_input = max(planned[base].max_message_bytes for base in names.INGEST_TOPICS)
    assert largest_input > max_payload_bytes
    assert planned[names.DEAD_LETTERS].max_message_bytes >= largest_input + 256 * 1024


def test_a_plan_of_unequal_counts_is_refused() -> None:
    plan = list(topics.plan(Settings()))
    wrong = [msgspec.structs.replace(t, partitions=5) if t.name == names.ROLLUPS else t for t in plan]
    with pytest.raises(SetupError, match=r"ads\.rollups is planned with 5 partitions and ads\.metrics\.routed with 4"):
        topics.refuse_wrong(wrong)
    with pytest.raises(SetupError, match="planned twice"):
        topics.refuse_wrong([*plan, plan[0]])


@pytest.mark.kafka
def test_creation_is_as_planned_and_idempotent(own: Settings) -> None:
    with pytest.raises(SetupError, match=r"ads\.metrics\.meta is missing: run `parallax topics create`"):
        topics.verify(own)
    plan = topics.plan(own)
    first = topics.create(own)
    assert first.created == tuple(topic.name for topic in plan)
    second = topics.create(own)
    assert (second.created, second.existing) == ((), first.created)
    topics.verify(own)

    admin = AdminClient(own.confluent_config())
    found = admin.list_topics(timeout=10).topics
    resources = {topic.name: ConfigResource(ConfigResource.Type.TOPIC, topic.name) for topic in plan}
    answers = admin.describe_configs(list(resources.values()))
    for topic in plan:
        assert len(found[topic.name].partitions) == topic.partitions == 3
        config = answers[resources[topic.name]].result()
        assert {key: config[key].value for key in topic.config(1)} == topic.config(1)


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("partitions", "config", "told"),
    [
        (2, {}, "has partitions 2 where 3 is needed"),
        (3, {"cleanup_policy": "compact"}, "has cleanup.policy compact where delete is needed"),
        (3, {}, "has message.timestamp.type CreateTime where LogAppendTime is needed"),
    ],
)
def test_an_existing_topic_that_differs_is_refused_and_nothing_is_made(
    own: Settings, partitions: int, config: dict[str, str], told: str
) -> None:
    make(own, names.METRICS_TOPICS[next(iter(names.METRICS_TOPICS))], partitions, **config)
    for command in (topics.create, topics.verify):
        with pytest.raises(SetupError) as refusal:
            command(own)
        assert told in str(refusal.value)
        assert topics.name(own, "ads.metrics.meta") in str(refusal.value)
    made = [name for name in AdminClient(own.confluent_config()).list_topics(timeout=10).topics if own.app_id in name]
    assert made == []


@pytest.mark.kafka
def test_the_missing_half_of_a_plan_is_made(own: Settings) -> None:
    make(own, names.ROUTED, 3, cleanup_policy="delete")
    report = topics.create(own)
    assert report.existing == (topics.name(own, names.ROUTED),)
    assert len(report.created) == len(topics.plan(own)) - 1


@pytest.mark.kafka
def test_a_refused_creation_is_one_line(own: Settings) -> None:
    with pytest.raises(SetupError, match="INVALID_REPLICATION_FACTOR"):
        topics.create(own.model_copy(update={"replication_factor": 3}))


def test_the_mock_cluster_gets_the_plan_too() -> None:
    with embedded_kafka() as bootstrap:
        settings = Settings(kafka_bootstrap=bootstrap)
        with pytest.raises(SetupError, match="is missing"):
            topics.verify(settings)
        assert len(topics.create(settings).created) == len(topics.plan(settings))
        assert topics.create(settings).created == ()
        topics.verify(settings)
        with pytest.raises(SetupError, match="has partitions 4 where 3 is needed"):
            topics.create(Settings(kafka_bootstrap=bootstrap, partitions=3))


def test_an_absent_broker_is_one_line_and_soon(capfd: pytest.CaptureFixture[str]) -> None:
    settings = Settings(kafka_bootstrap=f"127.0.0.1:{free_port()}")
    began = time.monotonic()
    with pytest.raises(ServerAbsent) as refusal:
        topics.verify(settings)
    assert time.monotonic() - began < 8
    assert str(refusal.value) == (f"no Kafka at {settings.kafka_bootstrap}: start it or set PARALLAX_KAFKA_BOOTSTRAP")
    assert refusal.value.exit_code == 3
    assert capfd.readouterr() == ("", "")


@pytest.mark.kafka
def test_a_broker_that_speaks_plain_text_refuses_tls(own: Settings) -> None:
    with pytest.raises(ServerAbsent, match=r"refused the connection .* mend PARALLAX_SECURITY_PROTOCOL"):
        topics.verify(own.model_copy(update={"security_protocol": "SSL"}))


@pytest.mark.kafka
def test_a_plain_client_sees_arrival_stamps(own: Settings) -> None:
    """A record with an old date keeps its place in an input topic: it is stamped as it arrives."""
    topics.create(own)
    stamps: list[tuple[int, int]] = []
    producer = Producer(own.confluent_config())
    producer.produce(
        topics.name(own, "ads.metrics.meta"),
        b"{}",
        timestamp=86_400_000,
        on_delivery=lambda _error, message: stamps.append(message.timestamp()),
    )
    assert producer.flush(20) == 0
    assert stamps[0][1] > 86_400_000
