"""All faults, in the order in which they are injected, by what they hurt."""

from collections.abc import Mapping
from typing import Final

from tests.chaos.broker_faults import BrokerDown, BrokerDownAtStart, BrokerKill, BrokerRestart
from tests.chaos.input_faults import Bomb, Oversize, Poison, RetentionPassed
from tests.chaos.redis_faults import RedisDown, RedisFlushed, RedisFull, RedisSlow
from tests.chaos.trial import Fault
from tests.chaos.worker_faults import CrashAtEachStep, KillStorm, RebalanceStorm, Rescale, RollingTerm, Zombie

GROUPS: Final[Mapping[str, tuple[type[Fault], ...]]] = {
    "workers": (RollingTerm, Rescale, KillStorm, RebalanceStorm),
    "steps": (CrashAtEachStep, Zombie),
    "redis": (RedisDown, RedisFlushed, RedisSlow, RedisFull),
    "inputs": (Poison, Oversize, RetentionPassed, Bomb),
    "broker": (BrokerRestart, BrokerKill, BrokerDown, BrokerDownAtStart),
}
FAULTS: Final[Mapping[str, type[Fault]]] = {fault.name: fault for group in GROUPS.values() for fault in group}
