"""The follower on a real Kafka: good models are taken between checkpoints, bad ones never."""

import json
import uuid
from collections.abc import Callable, Iterator

import msgspec
import pytest
import xgboost
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from core.learning.ctr_model import CtrModel
from schemas import topics as names
from schemas.model import ModelRefused, RefusalCode, decode, encode
from stream_app.embedded import free_port
from stream_app.errors import SetupError
from stream_app.model_check import checked
from stream_app.model_follower import DAILY, ModelFollower
from stream_app.settings import Settings
from stream_app.topics import name
from stream_app.training import publish, refuse_absent
from tests.live import wait_until
from tests.test_model_format import flipped, giving_nan, trained

READ_S = 30.0
GOOD = [trained(seed).described(horizon="1d", profile="p1") for seed in (3, 4)]


@pytest.fixture
def settings(kafka: str) -> Settings:
    return Settings(kafka_bootstrap=kafka, topic_prefix=f"models-{uuid.uuid4().hex[:10]}.", partitions=2)


def make_topic(settings: Settings) -> None:
    admin = AdminClient(settings.confluent_config())
    topic = NewTopic(name(settings, names.MODELS), 2, 1, config={"max.message.bytes": "4194304"})
    admin.create_topics([topic])[topic.topic].result(20)
    wait_until("the topic is told of", lambda: topic.topic in admin.list_topics(timeout=10).topics)


@pytest.fixture
def following(settings: Settings) -> Iterator[ModelFollower]:
    make_topic(settings)
    with ModelFollower(settings, "p1") as follower:
        assert follower.caught_up(READ_S)
        yield follower


def send(settings: Settings, payload: bytes | None, key: str = DAILY) -> None:
    producer = Producer(settings.confluent_config() | {"partitioner": "murmur2_random"})
    producer.produce(name(settings, names.MODELS), payload, key.encode())
    assert producer.flush(20) == 0


def wait_until_refused(follower: ModelFollower, count: int) -> None:
    wait_until(f"refusal {count}", lambda: sum(follower.status().refused.values()) == count, READ_S)


def cut(model: CtrModel) -> bytes:
    return model.to_bytes()[:-1]


def crashing(model: CtrModel) -> bytes:
    """Sealed trees whose first branch leads out of the tree: loading or trying them ends a process."""
    booster = xgboost.Booster(model_file=bytearray(decode(model.to_bytes()).trees))
    document = json.loads(bytes(booster.save_raw("json")))
    tree = document["learner"]["gradient_booster"]["model"]["trees"][0]
    tree["left_children"][0] = tree["right_children"][0] = 2**30
    text = json.dumps(document).encode()
    return encode(model.header, text)


BAD: dict[str, tuple[Callable[[CtrModel], bytes | None], RefusalCode]] = {
    "missing": (lambda model: None, RefusalCode.EMPTY),
    "truncated": (cut, RefusalCode.TRUNCATED),
    "flipped": (lambda model: flipped(model.to_bytes(), -99), RefusalCode.CHECKSUM),
    "other features": (
        lambda model: encode(
            msgspec.structs.replace(model.header, feature_names=("x",)), decode(model.to_bytes()).trees
        ),
        RefusalCode.OTHER_FEATURES,
    ),
    "other horizon": (lambda model: model.described(horizon="7d").to_bytes(), RefusalCode.OTHER_KIND),
    "other profile": (lambda model: model.described(profile="p2").to_bytes(), RefusalCode.OTHER_PROFILE),
    "NaN": (giving_nan, RefusalCode.NOT_A_PROBABILITY),
    "crashing": (crashing, RefusalCode.NOT_TREES),
}


@pytest.mark.kafka
def test_good_then_bad_then_good(settings: Settings, following: ModelFollower) -> None:
    assert following.take() is None
    first, second = GOOD
    publish(settings, first)
    wait_until("the first is there", lambda: following.status().models[DAILY].model_id is not None, READ_S)
    assert not following.status().models[DAILY].taken
    taken = following.take()
    assert taken is not None
    assert taken.to_bytes() == first.to_bytes()
    for done, (damage, code) in enumerate(BAD.values(), start=1):
        send(settings, damage(second))
        wait_until_refused(following, done)
        current = following.take()
        assert current is not None
        assert current.model_id == first.model_id
        told = following.status().models[DAILY]
        assert told.model_id == first.model_id
        assert told.taken
        assert told.refused_since is not None
        assert told.refused_since.code == following.refused() == code
        assert told.refused_since.reason
        assert told.refused_since.position.startswith(name(settings, names.MODELS))
    assert sum(following.status().refused.values()) == len(BAD)
    publish(settings, second)
    wait_until("the second is there", lambda: following.status().models[DAILY].refused_since is None, READ_S)
    told = following.status().models[DAILY]
    assert (told.model_id, told.taken, told.refused_since) == (second.model_id, False, None)
    assert following.refused() is None
    taken = following.take()
    assert taken is not None
    assert taken.model_id == second.model_id
    assert following.status().models[DAILY].taken


@pytest.mark.kafka
def test_a_new_follower_has_the_newest_good_model_and_says_what_came_after(settings: Settings) -> None:
    make_topic(settings)
    for model in GOOD:
        publish(settings, model)
    send(settings, cut(GOOD[0]))
    send(settings, cut(GOOD[0]), "something/else")
    with ModelFollower(settings, "p1") as follower:
        assert follower.caught_up(READ_S)
        status = follower.status()
        assert (status.problem, status.refused) == ("", {"truncated": 1})
        current = follower.take()
        assert current is not None
        assert current.model_id == GOOD[1].model_id
        refused = status.models[DAILY].refused_since
        assert refused is not None
        assert refused.code == "truncated"
    assert follower.status().problem == "not running"


@pytest.mark.kafka
def test_a_topic_that_comes_later_is_followed_then(settings: Settings) -> None:
    with pytest.raises(SetupError, match="does not exist"):
        refuse_absent(settings)
    with ModelFollower(settings, "p1") as follower:
        wait_until("it says so", lambda: "parallax topics create" in follower.status().problem, READ_S)
        make_topic(settings)
        publish(settings, GOOD[0])
        wait_until("it is read", lambda: follower.take() is not None, READ_S)
        assert follower.status().problem == ""


def test_without_a_broker_it_says_so_and_ends_when_told() -> None:
    with ModelFollower(Settings(kafka_bootstrap=f"127.0.0.1:{free_port()}"), "p1") as follower:
        wait_until("it says so", lambda: follower.status().problem.startswith("Kafka at 127.0.0.1"), READ_S)
        assert follower.take() is None
        assert not follower.status().caught_up
    assert follower.status().problem == "not running"


def test_a_model_that_ends_a_process_is_refused_by_this_one() -> None:
    with pytest.raises(ModelRefused, match="ended the process") as refused:
        checked(crashing(GOOD[0]), "p1")
    assert refused.value.code == RefusalCode.NOT_TREES
    assert checked(GOOD[0].to_bytes(), "p1").model_id == GOOD[0].model_id
