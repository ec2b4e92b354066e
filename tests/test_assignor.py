"""Sharing of partitions: complete, even by topic, and sticky."""

from hypothesis import given
from hypothesis import strategies as st

from stream_app.assignor import Owned, share

TOPICS = st.dictionaries(st.sampled_from(["in", "routed", "rollups"]), st.integers(0, 9), min_size=1)
CLAIMS = st.dictionaries(
    st.sampled_from("abcde"),
    st.dictionaries(st.sampled_from(["in", "routed", "gone"]), st.lists(st.integers(0, 12), max_size=9)),
    min_size=1,
)


@given(TOPICS, CLAIMS)
def test_every_partition_has_one_owner_and_every_topic_is_shared_evenly(
    topics: dict[str, int], members: dict[str, Owned]
) -> None:
    shares = share(topics, members)
    assert shares.keys() == members.keys()
    for topic, count in topics.items():
        assert sorted(p for own in shares.values() for p in own[topic]) == list(range(count))
        sizes = [len(own[topic]) for own in shares.values()]
        assert max(sizes) - min(sizes) <= 1


@given(TOPICS, CLAIMS)
def test_what_is_shared_already_stays_where_it_is(topics: dict[str, int], members: dict[str, Owned]) -> None:
    once = share(topics, members)
    assert share(topics, once) == once


@given(TOPICS, CLAIMS)
def test_of_a_worker_that_leaves_only_its_own_partitions_move(
    topics: dict[str, int], members: dict[str, Owned]
) -> None:
    before = share(topics, members | {"z": {}})
    after = share(topics, {member: own for member, own in before.items() if member != "z"})
    for member, own in after.items():
        for topic, count in topics.items():
            # An even share may not grow by more than it must.
            assert len(set(before[member][topic]) - set(own[topic])) <= (count % len(after) != 0)


def test_what_is_over_goes_to_who_has_least() -> None:
    shares = share({"routed": 4, "rollups": 4, "in": 4}, {"a": {}, "b": {}, "c": {}})
    assert sorted(sum(map(len, own.values())) for own in shares.values()) == [4, 4, 4]
