"""What a seed's run is like: its cluster, its sizes, and which faults may happen in it.

Every seed switches a random part of the faults on: a run in which everything goes wrong at once hides what two faults
alone would show.
"""

from dataclasses import dataclass, fields
from typing import Final

from smrx.config import Timing
from smrx.sim import world

#: Every fault a run may have; faults.py does what each name says.
FAULTS: Final = (
    "isolate", "isolate the leader", "strand the leader", "split", "bridge", "one way", "deafen",
    "lose", "repeat", "echo", "break", "overtake", "stall",
    "crash", "crash the leader", "crash the voter", "crash a majority",
    "pause", "slow", "jump", "wall clock", "drift",
    "rot", "tear", "full disk",
    "compact", "hand over", "damage", "client breaks", "client quits", "client is cut off",
)  # fmt: skip
#: Changes of members, drawn by themselves: only some seeds have them.
CHANGES: Final = ("join", "leave", "replace")
#: A directory that is lost takes promises with it that nobody can bring back: only tests switch this on.
LOSSES: Final = ("lose a directory",)
#: What comes from outside, or from the program itself, and what is arranged; drawn by themselves, too. Done by
#: fault_scenarios.py.
MISHAPS: Final = (
    "stranger", "out of memory", "large state", "upgrade", "late acknowledgements", "hasty changes", "two newcomers"
)  # fmt: skip
#: In memory mode a majority that loses its memory at once ends the cluster, and the run: not too often.
_RARE: Final = {"crash a majority": 0.12}
#: The part of the seeds in which members come and go.
_CHANGING: Final = 0.4
#: The part in which there are mishaps.
_UNLUCKY: Final = 0.3
#: What a large state is: 100,000 accounts with a million orders are about as much.
LARGE_STATE_BYTES: Final = 200 << 20


@dataclass(frozen=True)
class Profile:
    """The draw of one seed."""

    nodes: int
    #: Nodes that may join them, numbered after them.
    spares: int
    #: Whether the log is on a disk.
    durable: bool
    faults: frozenset[str]
    storm_seconds: float
    #: Mean time between faults.
    fault_seconds: float
    #: Mean time between what one client sends.
    order_seconds: float
    traders: int
    delay: tuple[float, float]
    timing: Timing
    compaction_entries: int
    snapshot_commands: int
    #: What the state of a machine counts for where time is taken for a snapshot; 0 for what it is, next to nothing.
    state_bytes: int
    chunk_bytes: int
    batch_bytes: int
    pending_commands: int
    event_ring: int
    outcome_ring: int
    client_window: int
    frame_commands: int
    loss: float
    repeats: float
    #: Whether the storm begins before anybody has been elected.
    early: bool

    def lines(self) -> list[str]:
        """The draw, for people."""
        shown = {field.name: getattr(self, field.name) for field in fields(self)}
        faults = ", ".join(name for name in (*FAULTS, *CHANGES, *LOSSES, *MISHAPS) if name in self.faults)
        return [f"{name} {value}" for name, value in shown.items() if name not in {"faults", "timing"}] + [
            f"faults {faults or 'none'}"
        ]


def draw(seed: int) -> Profile:
    """The profile of a seed, always the same."""
    chance = world.chance("profile", seed)
    nodes = chance.choices((1, 3, 5), (1, 14, 5))[0]
    faults = frozenset(name for name in FAULTS if chance.random() < _RARE.get(name, 0.5))
    frame_commands = chance.choice((1, 3, 16))
    # Of its own chance: a seed without changes is the run it was before there were any.
    changing = world.chance("changes", seed)
    if changing.random() < _CHANGING:
        faults |= {name for name in CHANGES if changing.random() < 0.7}
    unlucky = world.chance("mishaps", seed)
    if unlucky.random() < _UNLUCKY:
        faults |= {name for name in MISHAPS if unlucky.random() < 0.5}
    return Profile(
        nodes=nodes,
        spares=changing.choice((1, 2)) if "join" in faults else 0,
        durable=chance.random() < 0.4,
        faults=faults,
        storm_seconds=chance.uniform(1.5, 4.0),
        fault_seconds=chance.choice((0.08, 0.2, 0.4)),
        order_seconds=chance.choice((0.02, 0.05, 0.1)),
        traders=chance.choice((1, 2, 3)),
        delay=chance.choice(((0.0002, 0.002), (0.001, 0.02), (0.0005, 0.1))),
        timing=Timing(
            heartbeat_ms=chance.choice((50, 100, 100, 120)),
            election_min_ms=600,
            election_max_ms=1200,
            leader_fallback_ms=450,
        ),
        compaction_entries=chance.choice((4, 8, 30, 1000)),
        snapshot_commands=chance.choice((6, 20, 100)),
        state_bytes=LARGE_STATE_BYTES if "large state" in faults else 0,
        chunk_bytes=chance.choice((1500, 5000, 256 << 10)),
        batch_bytes=chance.choice((100, 700, 1 << 20)),
        pending_commands=chance.choice((24, 4096)),
        event_ring=chance.choice((64, 1024)),
        outcome_ring=chance.choice((32, 1024)),
        client_window=chance.choice((16, 64)),
        frame_commands=frame_commands,
        loss=chance.choice((0.002, 0.01, 0.04)),
        repeats=chance.choice((0.01, 0.05, 0.2)),
        early=chance.random() < 0.3,
    )
