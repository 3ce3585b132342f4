"""Draw what a seed's run is like: its cluster, its sizes, and the faults that may happen in it.

Every seed enables a random part of the faults: a run with all faults at once hides what two of them alone would show.
"""

from dataclasses import dataclass, fields
from typing import Final

from smrx.config import Timing
from smrx.sim.scheduler import generator

# The order of the names in each of these tuples is part of every seed: each name takes a draw, in this order.

#: The faults of network, nodes, disks and clients; see fault_injector.py.
FAULTS: Final = (
    "isolate", "isolate the leader", "strand the leader", "partition", "bridge", "one-way cut", "one-way isolation",
    "lose messages", "repeat messages", "replay old messages", "break a connection", "overtake", "stall a connection",
    "crash", "crash the leader", "crash at an election", "crash a majority",
    "pause", "slow turns", "clock jump", "wall clock jump", "clock drift",
    "bit rot", "torn sync", "full disk",
    "compact", "transfer leadership", "corrupt a snapshot chunk",
    "client disconnects", "client abandons its session", "client is cut off",
)  # fmt: skip
#: Membership changes: only some seeds have them.
CHANGES: Final = ("join", "leave", "replace")
#: The loss of a directory breaks guarantees of its node for good: only tests enable it.
LOSSES: Final = ("lose a directory",)
#: Faults from outside the cluster or from the program itself, and coincidences; see fault_scenarios.py.
SCENARIOS: Final = (
    "unknown peer", "out of memory", "large state", "upgrade", "late acknowledgements", "concurrent changes",
    "two new nodes",
)  # fmt: skip
#: A majority that loses its memory at once ends a cluster in memory mode, and the run: this is to be rare.
_PROBABILITIES: Final = {"crash a majority": 0.12}
#: The part of the seeds with membership changes.
_CHANGING: Final = 0.4
#: The part of the seeds with fault scenarios.
_WITH_SCENARIOS: Final = 0.3
#: The part of the seeds with reads, and the mean times between them.
_READING: Final = 0.4
_READ_SECONDS: Final = (0.02, 0.1)
#: The part of the seeds with gateways.
_WITH_GATEWAYS: Final = 0.2
#: The part of the seeds in which traders have credentials.
_WITH_CREDENTIALS: Final = 0.2
#: A large state: that of 100,000 accounts with a million orders has about this size.
LARGE_STATE_BYTES: Final = 200 << 20


@dataclass(frozen=True)
class Profile:
    """What one seed draws."""

    #: Initial nodes.
    nodes: int
    #: Further nodes that may join; their ids follow.
    spares: int
    #: Whether the log is on disk.
    durable: bool
    faults: frozenset[str]
    fault_phase_seconds: float
    #: Mean time between faults.
    fault_seconds: float
    #: Mean time between the requests of a client.
    order_seconds: float
    traders: int
    #: Bounds of the delay of a message.
    delay: tuple[float, float]
    timing: Timing
    compaction_entries: int
    snapshot_commands: int
    #: The size of the state that the time for a snapshot depends on; 0 for the actual, small one.
    state_bytes: int
    chunk_bytes: int
    batch_bytes: int
    pending_commands: int
    event_ring: int
    client_window: int
    frame_commands: int
    #: The probabilities that a message breaks its connection, and that it arrives twice.
    loss: float
    repeats: float
    #: Whether faults begin before the first election.
    early: bool
    #: Mean time between reads; 0 for none.
    read_seconds: float
    #: Gateways, and their clients.
    gateways: int = 0
    gateway_clients: int = 0
    #: Whether traders have credentials.
    credentials: bool = False

    def lines(self) -> list[str]:
        """Return the profile as text, a line for each field."""
        shown = {field.name: getattr(self, field.name) for field in fields(self)}
        faults = ", ".join(name for name in (*FAULTS, *CHANGES, *LOSSES, *SCENARIOS) if name in self.faults)
        return [f"{name} {value}" for name, value in shown.items() if name not in {"faults", "timing"}] + [
            f"faults {faults or 'none'}"
        ]


def draw(seed: int) -> Profile:
    """Return the profile of a seed, always the same."""
    rng = generator("profile", seed)
    nodes = rng.choices((1, 3, 5), (1, 14, 5))[0]
    faults = frozenset(name for name in FAULTS if rng.random() < _PROBABILITIES.get(name, 0.5))
    frame_commands = rng.choice((1, 3, 16))
    # Changes, scenarios and reads have generators of their own: a seed without them is the run it was before they
    # existed.
    changes_rng = generator("changes", seed)
    if changes_rng.random() < _CHANGING:
        faults |= {name for name in CHANGES if changes_rng.random() < 0.7}
    # The label keeps its first name: it is part of every seed.
    scenarios_rng = generator("mishaps", seed)
    if scenarios_rng.random() < _WITH_SCENARIOS:
        faults |= {name for name in SCENARIOS if scenarios_rng.random() < 0.5}
    gateways_rng = generator("gateways", seed)
    gateways = gateways_rng.choice((1, 2)) if gateways_rng.random() < _WITH_GATEWAYS else 0
    reads_rng = generator("reads", seed)
    reads = reads_rng.random() < _READING
    return Profile(
        nodes=nodes,
        spares=changes_rng.choice((1, 2)) if "join" in faults else 0,
        durable=rng.random() < 0.4,
        faults=faults,
        fault_phase_seconds=rng.uniform(1.5, 4.0),
        fault_seconds=rng.choice((0.08, 0.2, 0.4)),
        order_seconds=rng.choice((0.02, 0.05, 0.1)),
        traders=rng.choice((1, 2, 3)),
        delay=rng.choice(((0.0002, 0.002), (0.001, 0.02), (0.0005, 0.1))),
        timing=Timing(
            heartbeat_ms=rng.choice((50, 100, 100, 120)),
            election_min_ms=600,
            election_max_ms=1200,
            leader_fallback_ms=450,
        ),
        compaction_entries=rng.choice((4, 8, 30, 1000)),
        snapshot_commands=rng.choice((6, 20, 100)),
        state_bytes=LARGE_STATE_BYTES if "large state" in faults else 0,
        chunk_bytes=rng.choice((1500, 5000, 256 << 10)),
        batch_bytes=rng.choice((100, 700, 1 << 20)),
        pending_commands=rng.choice((24, 4096)),
        event_ring=rng.choice((64, 1024)),
        client_window=rng.choice((16, 64)),
        frame_commands=frame_commands,
        loss=rng.choice((0.002, 0.01, 0.04)),
        repeats=rng.choice((0.01, 0.05, 0.2)),
        early=rng.random() < 0.3,
        read_seconds=reads_rng.choice(_READ_SECONDS) if reads else 0.0,
        gateways=gateways,
        credentials=generator("credentials", seed).random() < _WITH_CREDENTIALS,
        gateway_clients=gateways_rng.choice((1, 2, 3)) if gateways else 0,
    )
