"""The topic plan: which topics there are, how they are partitioned and for how long they keep what.

Everything behind ingest is routed by partition number, so those topics have equal partition counts. Inputs are stamped
on arrival: a backfill whose records carry old dates would be deleted by retention as it arrives. State topics are
compacted no sooner than ``COMPACTION_LAG_MS``, so that a recovery still sees what a stalled worker wrote over.
"""

import time
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any, Final

import msgspec
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ClusterMetadata, ConfigResource, NewTopic

from schemas import topics as names
from stream_app.duration import MILLISECONDS
from stream_app.errors import ServerAbsent, SetupError
from stream_app.settings import Settings

INPUT_MAX_BYTES: Final = 1024 * 1024
DERIVED_MAX_BYTES: Final = 4 * 1024 * 1024
STATE_MAX_BYTES: Final = 32 * 1024 * 1024
"""A block holds what its platform campaign reported of a day, and nothing of that can be left out."""
COMPACTION_LAG_MS: Final = MILLISECONDS["h"]
DESCRIPTION_BYTES: Final = 64 * 1024
"""What a dead letter's description and framing may take."""
SETTLED_MS: Final = 30 * MILLISECONDS["d"]
"""How long what can change no more is kept where its newest record is kept at all."""
ANSWER_S: Final = 5.0
CREATION_S: Final = 30.0
LONGEST_NAME: Final = 249
MOCK_CLUSTER: Final = "mockCluster"
REFUSALS: Final = (KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError.SASL_AUTHENTICATION_FAILED)


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """One planned topic. ``retention_ms`` of -1 keeps records for good, in a compacted topic the newest of a key;
    ``routed``: producers choose partitions.
    """

    name: str
    partitions: int
    compacted: bool = False
    retention_ms: int = -1
    compaction_lag_ms: int = COMPACTION_LAG_MS
    stamped_on_arrival: bool = False
    routed: bool = False
    max_message_bytes: int = DERIVED_MAX_BYTES

    def config(self, replication_factor: int) -> dict[str, str]:
        """The broker's settings for this topic."""
        config = {
            "cleanup.policy": _cleanup_policy(self),
            "message.timestamp.type": "LogAppendTime" if self.stamped_on_arrival else "CreateTime",
            "retention.ms": str(self.retention_ms),
            "max.message.bytes": str(self.max_message_bytes),
            "min.insync.replicas": str(max(1, replication_factor - 1)),
        }
        if self.compacted:
            config["min.compaction.lag.ms"] = str(self.compaction_lag_ms)
        return config


def _cleanup_policy(topic: Topic) -> str:
    if not topic.compacted:
        return "delete"
    return "compact" if topic.retention_ms < 0 else "compact,delete"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What ``create`` did, topic names in the order of the plan."""

    created: tuple[str, ...]
    existing: tuple[str, ...]


def name(settings: Settings, base: str) -> str:
    """A topic's full name, such as ``ads.rollups`` behind the settings' prefix."""
    return settings.topic_prefix + base


def blocks_changelog(settings: Settings) -> str:
    """The full name of the topic that the blocks of AGGREGATE are recovered from."""
    return name(settings, f"{settings.app_id}-blocks-changelog")


def campaigns_changelog(settings: Settings) -> str:
    """The full name of the topic that the campaigns of INSIGHTS are recovered from."""
    return name(settings, f"{settings.app_id}-campaigns-changelog")


def _input_bytes(settings: Settings) -> int:
    return max(INPUT_MAX_BYTES, 2 * settings.max_payload_bytes)


def largest_letter(settings: Settings) -> int:
    """How many bytes of a record, key and headers included, its dead letter can hold: all of what an input topic takes
    uncompressed.
    """
    return 2 * _input_bytes(settings) - DESCRIPTION_BYTES


def plan(settings: Settings) -> tuple[Topic, ...]:
    """Every topic of an application. Raises ``SetupError`` for a plan that cannot work."""
    days = MILLISECONDS["d"]
    count = settings.partitions
    input_bytes = _input_bytes(settings)

    def routed(
        full_name: str, *, keep_days: int = 0, past_horizon: bool = False, largest: int = DERIVED_MAX_BYTES
    ) -> Topic:
        return Topic(
            max_message_bytes=largest,
            name=full_name,
            partitions=count,
            compacted=not keep_days,
            retention_ms=settings.horizon.ms + SETTLED_MS if past_horizon else keep_days * days or -1,
            routed=True,
        )

    topics = (
        *(
            Topic(
                name=name(settings, base),
                partitions=count,
                retention_ms=settings.horizon.ms,
                stamped_on_arrival=True,
                max_message_bytes=input_bytes,
            )
            for base in names.METRICS_TOPICS.values()
        ),
        *(
            Topic(
                name=name(settings, base),
                partitions=count,
                compacted=True,
                # A row is read by the facts of its arrival, so those must be there for as long as it is.
                compaction_lag_ms=settings.horizon.ms if base == names.ACCOUNTS else COMPACTION_LAG_MS,
                stamped_on_arrival=True,
                max_message_bytes=input_bytes,
            )
            for base in names.FACT_TOPICS
        ),
        routed(name(settings, names.ROUTED), keep_days=7),
        routed(name(settings, names.ROLLUPS), past_horizon=True),
        routed(blocks_changelog(settings), largest=STATE_MAX_BYTES),
        routed(campaigns_changelog(settings), largest=STATE_MAX_BYTES),
        routed(name(settings, names.INSIGHTS), keep_days=30),
        routed(name(settings, names.INSIGHTS_LATEST), past_horizon=True),
        routed(name(settings, names.PREDICTIONS), keep_days=30),
        Topic(name=name(settings, names.MODELS), partitions=count, compacted=True),
        routed(name(settings, names.SCORECARDS)),
        Topic(name=name(settings, names.PATTERNS), partitions=count, compacted=True),
        Topic(name=name(settings, names.CREATIVE_SCORES), partitions=count, compacted=True),
        Topic(
            name=name(settings, names.DEAD_LETTERS),
            partitions=count,
            retention_ms=90 * days,
            max_message_bytes=largest_letter(settings) + DESCRIPTION_BYTES,
        ),
    )
    refuse_wrong(topics)
    return topics


def refuse_wrong(topics: Iterable[Topic]) -> None:
    """Raises ``SetupError`` unless names are distinct and sound, and routed topics have equal partition counts."""
    seen: dict[str, Topic] = {}
    first: Topic | None = None
    for topic in topics:
        if topic.name in seen:
            raise SetupError(f"topic {topic.name} is planned twice: choose another PARALLAX_APP_ID")
        if len(topic.name) > LONGEST_NAME:
            raise SetupError(f"topic name {topic.name} is longer than {LONGEST_NAME} characters")
        seen[topic.name] = topic
        if topic.routed:
            first = first or topic
            if topic.partitions != first.partitions:
                raise SetupError(
                    f"topic {topic.name} is planned with {topic.partitions} partitions and {first.name} with"
                    f" {first.partitions}: they must have as many"
                )


def create(settings: Settings) -> Report:
    """Makes the topics that are missing; those that exist must be as planned, or nothing is made.

    Raises ``SetupError`` for a difference or a refused creation, ``ServerAbsent`` without a broker.
    """
    topics = plan(settings)
    admin, cluster = _connect(settings)
    existing = _differences_refused(settings, admin, cluster, topics)
    missing = [topic for topic in topics if topic.name not in existing]
    if _is_mock(cluster):
        for topic in missing:
            admin.list_topics(topic=topic.name, timeout=ANSWER_S)
        verify(settings)
    else:
        existing |= _create_all(settings, admin, missing)
        # KRaft acknowledges a creation before every broker tells of it.
        _differences_refused(settings, admin, _settled(settings, admin, topics), topics)
    return Report(
        created=tuple(topic.name for topic in topics if topic.name not in existing),
        existing=tuple(topic.name for topic in topics if topic.name in existing),
    )


def verify(settings: Settings) -> None:
    """Raises ``SetupError`` naming a topic that is missing or not as planned, and ``ServerAbsent`` without a broker.

    librdkafka's mock cluster knows no topic settings: there, partition counts are all that is compared.
    """
    topics = plan(settings)
    admin, cluster = _connect(settings)
    existing = _differences_refused(settings, admin, cluster, topics)
    for topic in topics:
        if topic.name not in existing:
            raise SetupError(f"topic {topic.name} is missing: run `parallax topics create`")


def _connect(settings: Settings) -> tuple[AdminClient, ClusterMetadata]:
    seen: list[KafkaError] = []
    # librdkafka writes to standard error on its own; what matters of it comes through the callback.
    quiet: dict[str, Any] = {"log_level": 0, "error_cb": seen.append}
    admin = AdminClient(settings.confluent_config() | quiet)
    try:
        return admin, _cluster(settings, admin)
    except ServerAbsent:
        admin.poll(0)
        refusal = next((problem for problem in seen if _is_refusal(problem)), None)
        if refusal is not None:
            raise ServerAbsent(
                f"Kafka at {settings.kafka_bootstrap} refused the connection ({refusal.name()}): mend"
                " PARALLAX_SECURITY_PROTOCOL, PARALLAX_SASL_* or PARALLAX_SSL_CAFILE"
            ) from None
        raise


def _is_refusal(error: KafkaError) -> bool:
    # A broker that speaks plain text hangs up on TLS, which librdkafka counts among transport errors.
    return error.code() in REFUSALS or "handshake failed" in error.str()


def _cluster(settings: Settings, admin: AdminClient) -> ClusterMetadata:
    try:
        return admin.list_topics(timeout=ANSWER_S)
    except KafkaException as error:
        if error.args[0].code() in (KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN):
            raise ServerAbsent(
                f"no Kafka at {settings.kafka_bootstrap}: start it or set PARALLAX_KAFKA_BOOTSTRAP"
            ) from None
        raise ServerAbsent(f"Kafka at {settings.kafka_bootstrap}: {error.args[0].str()}") from None


def _is_mock(cluster: ClusterMetadata) -> bool:
    return str(cluster.cluster_id).startswith(MOCK_CLUSTER)


def _differences_refused(
    settings: Settings, admin: AdminClient, cluster: ClusterMetadata, topics: tuple[Topic, ...]
) -> set[str]:
    """The planned topics that exist. Raises ``SetupError`` for the first that is not as planned."""
    existing = [topic for topic in topics if topic.name in cluster.topics]
    for topic in existing:
        found = len(cluster.topics[topic.name].partitions)
        if found != topic.partitions:
            raise _difference(topic, "partitions", str(found), str(topic.partitions))
    if existing and not _is_mock(cluster):
        resources = [ConfigResource(ConfigResource.Type.TOPIC, topic.name) for topic in existing]
        answers: dict[ConfigResource, Future[Any]] = admin.describe_configs(resources, request_timeout=ANSWER_S)
        for topic, resource in zip(existing, resources, strict=True):
            config = _result(settings, topic, answers[resource])
            wanted = topic.config(settings.replication_factor)
            for setting in ("cleanup.policy", "message.timestamp.type"):
                if config[setting].value != wanted[setting]:
                    raise _difference(topic, setting, config[setting].value, wanted[setting])
    return {topic.name for topic in existing}


def _difference(topic: Topic, what: str, found: str, wanted: str) -> SetupError:
    return SetupError(
        f"topic {topic.name} has {what} {found} where {wanted} is needed: mend the topic or choose another"
        " PARALLAX_TOPIC_PREFIX"
    )


def _create_all(settings: Settings, admin: AdminClient, topics: list[Topic]) -> set[str]:
    """Makes topics; returns the names of those that another command has made meanwhile."""
    if not topics:
        return set()
    answers: dict[str, Future[None]] = admin.create_topics(
        [
            NewTopic(
                topic.name,
                num_partitions=topic.partitions,
                replication_factor=settings.replication_factor,
                config=topic.config(settings.replication_factor),
            )
            for topic in topics
        ],
        operation_timeout=CREATION_S,
        request_timeout=CREATION_S,
    )
    raced = set()
    for topic in topics:
        try:
            _result(settings, topic, answers[topic.name])
        except _AlreadyExists:
            raced.add(topic.name)
    return raced


def _settled(settings: Settings, admin: AdminClient, topics: tuple[Topic, ...]) -> ClusterMetadata:
    """The cluster once it tells of every topic. Raises ``ServerAbsent`` when it does not in time."""
    until = time.monotonic() + CREATION_S
    while time.monotonic() < until:
        cluster = _cluster(settings, admin)
        if all(topic.name in cluster.topics for topic in topics):
            return cluster
        time.sleep(0.05)
    raise ServerAbsent(f"Kafka at {settings.kafka_bootstrap} does not show its new topics: try again")


class _AlreadyExists(Exception):
    """The broker has a topic of that name."""


def _result(settings: Settings, topic: Topic, answer: "Future[Any]") -> Any:
    try:
        return answer.result()
    except KafkaException as failure:
        error = failure.args[0]
        if error.code() == KafkaError.TOPIC_ALREADY_EXISTS:
            raise _AlreadyExists from None
        if error.code() in (KafkaError._TRANSPORT, KafkaError._TIMED_OUT):
            raise ServerAbsent(f"Kafka at {settings.kafka_bootstrap} stopped answering: try again") from None
        raise SetupError(f"topic {topic.name}: Kafka says {error.name()}: {error.str()}") from None
