"""Draw the faults of a run from a seed before the run starts.

The same seed, durability and length give the same plan on every machine. The run itself does not repeat: which node is
"the leader" when a fault is due, and how far each process is, depends on the machine. Pure.
"""

import random
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, Literal

import msgspec

Durability = Literal["memory", "disk"]


class Fault(StrEnum):
    """The kinds of faults."""

    KILL_LEADER = "kill leader"
    KILL_FOLLOWER = "kill follower"
    KILL_SEVERAL = "kill several"
    KILL_ALL = "kill all"
    STOP = "stop"
    PAUSE_LEADER = "pause leader"
    PAUSE_FOLLOWER = "pause follower"
    PAUSE_ALL = "pause all"
    ISOLATE_LEADER = "isolate leader"
    ISOLATE_FOLLOWER = "isolate follower"
    SPLIT = "split"
    BRIDGE = "bridge"
    CUT_OUTGOING = "cut outgoing links"
    CUT_INCOMING = "cut incoming links"
    CUT_ONE = "cut one link"
    DELAY = "delay links"
    LIMIT_BANDWIDTH = "limit bandwidth"
    CUT_CLIENTS = "cut clients"
    DELAY_CLIENTS = "delay clients"
    TRANSFER_LEADERSHIP = "transfer leadership"
    SNAPSHOT = "snapshot"
    LOSE_STATE = "lag, lose state, cut off"
    KILL_CLIENT = "kill client"
    PAUSE_CLIENT = "pause client"
    KILL_VERIFIER = "kill verifier"
    PAUSE_VERIFIER = "pause verifier"
    KILL_GATEWAY = "kill gateway"
    PAUSE_GATEWAY = "pause gateway"
    FULL_DISK = "full disk"
    DAMAGE_FILE = "damage a file"


#: How often each kind is drawn, relative to the others.
_WEIGHTS: Final[Mapping[Fault, int]] = {
    Fault.KILL_LEADER: 10,
    Fault.KILL_FOLLOWER: 5,
    Fault.KILL_SEVERAL: 4,
    Fault.STOP: 3,
    Fault.PAUSE_LEADER: 8,
    Fault.PAUSE_FOLLOWER: 4,
    Fault.PAUSE_ALL: 2,
    Fault.ISOLATE_LEADER: 8,
    Fault.ISOLATE_FOLLOWER: 4,
    Fault.SPLIT: 5,
    Fault.BRIDGE: 4,
    Fault.CUT_OUTGOING: 4,
    Fault.CUT_INCOMING: 4,
    Fault.CUT_ONE: 4,
    Fault.DELAY: 4,
    Fault.LIMIT_BANDWIDTH: 3,
    Fault.CUT_CLIENTS: 6,
    Fault.DELAY_CLIENTS: 3,
    Fault.TRANSFER_LEADERSHIP: 5,
    Fault.SNAPSHOT: 6,
    Fault.LOSE_STATE: 8,
    Fault.KILL_CLIENT: 6,
    Fault.PAUSE_CLIENT: 2,
    Fault.KILL_VERIFIER: 4,
    Fault.PAUSE_VERIFIER: 3,
    Fault.KILL_GATEWAY: 6,
    Fault.PAUSE_GATEWAY: 4,
}
_DISK_WEIGHTS: Final[Mapping[Fault, int]] = {Fault.KILL_ALL: 5, Fault.FULL_DISK: 6, Fault.DAMAGE_FILE: 8}
#: The mean time between two faults; they overlap.
_GAP_SECONDS: Final = 0.8
#: A fault lasts between a time shorter than every timeout and several of the longest election timeouts.
_SHORTEST_SECONDS: Final = 0.05
_LONGEST_SECONDS: Final = 5.0


class PlannedFault(msgspec.Struct, frozen=True):
    """One fault: when it starts and how long it lasts. `chance` seeds its other random choices."""

    at_s: float
    fault: Fault
    lasts_s: float
    chance: int


def draw_plan(seed: int, durability: Durability, seconds: float) -> list[PlannedFault]:
    """Return the faults of a run in order of time; none starts in its last tenth."""
    chance = random.Random(f"{seed} {durability}")
    weights = dict(_WEIGHTS) | (dict(_DISK_WEIGHTS) if durability == "disk" else {})
    kinds, shares = list(weights), list(weights.values())
    # Draw half of the kinds more often than the others, so that faults of the same kinds overlap.
    favoured = set(chance.sample(kinds, len(kinds) // 2))
    shares = [share * (4 if kind in favoured else 1) for kind, share in weights.items()]
    faults: list[PlannedFault] = []
    at = chance.expovariate(1 / _GAP_SECONDS)
    while at < 0.9 * seconds:
        (fault,) = chance.choices(kinds, shares)
        # Log-uniform: short and long faults are equally likely on every scale.
        lasts = _SHORTEST_SECONDS * (_LONGEST_SECONDS / _SHORTEST_SECONDS) ** chance.random()
        faults.append(PlannedFault(at, fault, lasts, chance.getrandbits(32)))
        at += chance.expovariate(1 / _GAP_SECONDS)
    return faults
