"""What a nemesis will do and when, drawn from a seed before anything happens.

The same seed, size, mode and length give the same plan everywhere. What becomes of it does not repeat: whom "the
leader" means, and how far each process is, real machines decide. Pure.
"""

import random
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, Literal

import msgspec

Durability = Literal["memory", "disk"]


class Fault(StrEnum):
    """Everything that is done to a cluster."""

    KILL_LEADER = "kill leader"
    KILL_FOLLOWER = "kill follower"
    KILL_SEVERAL = "kill several"
    KILL_ALL = "kill all"
    STOP = "stop in order"
    PAUSE_LEADER = "pause leader"
    PAUSE_FOLLOWER = "pause follower"
    PAUSE_ALL = "pause all"
    ISOLATE_LEADER = "isolate leader"
    ISOLATE_FOLLOWER = "isolate follower"
    SPLIT = "split"
    BRIDGE = "bridge"
    MUTE = "mute"
    DEAFEN = "deafen"
    CUT_ONE = "cut one link"
    SLOW = "slow links"
    NARROW = "narrow links"
    CUT_CLIENTS = "cut clients"
    SLOW_CLIENTS = "slow clients"
    HAND_OVER = "hand over"
    SNAPSHOT = "snapshot"
    FORGET = "lag, forget, cut off"
    KILL_TRADER = "kill trader"
    PAUSE_TRADER = "pause trader"
    KILL_VERIFIER = "kill verifier"
    PAUSE_VERIFIER = "pause verifier"
    FULL_DISK = "full disk"
    DAMAGE = "damage a file"


#: How often each is drawn, against the others.
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
    Fault.MUTE: 4,
    Fault.DEAFEN: 4,
    Fault.CUT_ONE: 4,
    Fault.SLOW: 4,
    Fault.NARROW: 3,
    Fault.CUT_CLIENTS: 6,
    Fault.SLOW_CLIENTS: 3,
    Fault.HAND_OVER: 5,
    Fault.SNAPSHOT: 6,
    Fault.FORGET: 8,
    Fault.KILL_TRADER: 6,
    Fault.PAUSE_TRADER: 2,
    Fault.KILL_VERIFIER: 4,
    Fault.PAUSE_VERIFIER: 3,
}
_DISK_WEIGHTS: Final[Mapping[Fault, int]] = {Fault.KILL_ALL: 5, Fault.FULL_DISK: 6, Fault.DAMAGE: 8}
#: Between two faults, on average; they overlap.
_GAP_SECONDS: Final = 0.8
#: A fault lasts between a moment that no timeout notices and several of the longest election timeouts.
_SHORTEST_SECONDS: Final = 0.05
_LONGEST_SECONDS: Final = 5.0


class Step(msgspec.Struct, frozen=True):
    """One fault. `chance` seeds whatever else it has to choose."""

    at_s: float
    fault: Fault
    lasts_s: float
    chance: int


def draw(seed: int, durability: Durability, seconds: float) -> list[Step]:
    """Return the steps of a run, in order of time, none after its last tenth."""
    chance = random.Random(f"{seed} {durability}")
    weights = dict(_WEIGHTS) | (dict(_DISK_WEIGHTS) if durability == "disk" else {})
    kinds, shares = list(weights), list(weights.values())
    # Half of a run's kinds at random: faults meet more often if there are fewer kinds of them.
    liked = set(chance.sample(kinds, len(kinds) // 2))
    shares = [share * (4 if kind in liked else 1) for kind, share in weights.items()]
    steps: list[Step] = []
    at = chance.expovariate(1 / _GAP_SECONDS)
    while at < 0.9 * seconds:
        (fault,) = chance.choices(kinds, shares)
        # As many short ones as long ones, on every scale.
        lasts = _SHORTEST_SECONDS * (_LONGEST_SECONDS / _SHORTEST_SECONDS) ** chance.random()
        steps.append(Step(at, fault, lasts, chance.getrandbits(32)))
        at += chance.expovariate(1 / _GAP_SECONDS)
    return steps
