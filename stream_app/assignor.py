"""Who gets which partition: every topic evenly, and as much as possible where it was.

A partition that stays spares its owner the reading of its changelog. aiokafka's own sticky assignor balances the sum
over all topics, so one worker may get all the state and another all the input.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import msgspec
from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

VERSION: Final = 1

Owned = dict[str, list[int]]
_owned: Final = msgspec.msgpack.Decoder(Owned)


def share(topics: Mapping[str, int], members: Mapping[str, Owned]) -> dict[str, Owned]:
    """By member, the partitions of each topic. ``topics`` gives numbers of partitions, ``members`` what each holds.

    Of every topic two members' shares differ by one at most; what is over goes to who holds the most of it already,
    then to who has the least in all.
    """
    shares: dict[str, Owned] = {member: {} for member in members}
    load = dict.fromkeys(sorted(members), 0)
    for topic, count in sorted(topics.items()):
        free = set(range(count))
        claims: dict[str, list[int]] = {}
        for member in load:
            claims[member] = [p for p in sorted(set(members[member].get(topic, ()))) if p in free]
            free -= set(claims[member])
        least, over = divmod(count, len(load))
        favoured = sorted(load, key=lambda member: (-len(claims[member]), load[member], member))[:over]
        for member in load:
            kept = claims[member][: least + (member in favoured)]
            free |= set(claims[member]) - set(kept)
            shares[member][topic] = kept
        spare = iter(sorted(free))
        for member in load:
            while len(shares[member][topic]) < least + (member in favoured):
                shares[member][topic].append(next(spare))
            shares[member][topic].sort()
            load[member] += len(shares[member][topic])
    return shares


class StickyByTopic(AbstractPartitionAssignor):  # type: ignore[misc] # aiokafka has no types
    """The group protocol around ``share``. Members tell what they hold; a worker process is one member."""

    name = "parallax-sticky"
    held: ClassVar[Owned] = {}

    @classmethod
    def assign(
        cls, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """The leader's decision."""
        topics = {topic for metadata in members.values() for topic in metadata.subscription}
        counts = {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in topics}
        shares = share(counts, {member: _claims(metadata.user_data) for member, metadata in members.items()})
        return {
            member: ConsumerProtocolMemberAssignment(VERSION, sorted(own.items()), b"")
            for member, own in shares.items()
        }

    @classmethod
    def metadata(cls, topics: Any) -> ConsumerProtocolMemberMetadata:
        """What this member tells when it joins."""
        return ConsumerProtocolMemberMetadata(VERSION, list(topics), msgspec.msgpack.encode(cls.held))

    @classmethod
    def on_assignment(cls, assignment: ConsumerProtocolMemberAssignment) -> None:
        """What this member was given."""
        cls.held = {topic: list(partitions) for topic, partitions in assignment.assignment}


def _claims(user_data: bytes | None) -> Owned:
    """What a member holds; nothing where it says so in a way that is not known here."""
    try:
        return _owned.decode(user_data or b"")
    except msgspec.DecodeError:
        return {}
