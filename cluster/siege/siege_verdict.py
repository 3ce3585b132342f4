"""Decide whether a cluster kept its bounds during an attack. Pure: measurements in, sentences about violations out.

Every bound has a test with a node that breaks it (tests/e2e/test_siege.py, tests/cluster/siege/test_siege_verdict.py).
Called by siege_run.py.
"""

from dataclasses import dataclass, field
from typing import Final

MIB: Final = 1 << 20
#: The gateway among the ids of nodes, which begin with 1.
GATEWAY: Final = 0


@dataclass(frozen=True)
class Bounds:
    """What a cluster must keep while it is attacked."""

    #: The honest client's p99 beside the attack: at most this many times its p99 alone, or the floor if that is more.
    p99_ratio: float = 2.0
    p99_floor_ms: float = 10.0
    leader_changes: int = 0
    #: By how much the memory of the worst node may grow, at most during the attack and at its end some seconds later.
    memory_mib: int = 64
    memory_after_mib: int = 32
    #: By how many the threads of a node may grow.
    threads: int = 16
    #: What may wait at a node of answers that clients do not read, as the node itself counts it.
    unread_answers_mib: int = 64
    #: Log entries that the attack may cause in a second; None: any number.
    log_entries_per_second: float | None = None


@dataclass(frozen=True)
class Latencies:
    """The orders of the honest client in one span of time, in milliseconds from the time when each was due."""

    orders: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    #: Orders that ended with an error, and those whose outcome was not the one of what was sent.
    failed: int = 0
    wrong: int = 0


@dataclass(frozen=True)
class Memory:
    """The resident bytes of the node or gateway that grew most: before the attack, at most during it, and after it."""

    node_id: int = 0
    before: int = 0
    during: int = 0
    after: int = 0
    #: The most by which the threads of any node grew.
    threads: int = 0


@dataclass
class Measurement:
    """What one attack did."""

    attack: str
    seconds: float
    alone: Latencies
    beside: Latencies
    memory: Memory
    leader_changes: int = 0
    log_entries: int = 0
    #: The most bytes of answers that waited at a node, as it counted them; 0 if there were more before the attack.
    unread_answer_bytes: int = 0
    #: Sentences of the attack itself: promises that it broke.
    harm: list[str] = field(default_factory=list)
    #: Nodes that ended, and whether the others had one state at the end.
    ended_nodes: list[int] = field(default_factory=list)
    states_differ: bool = False
    #: What the attack sent and received, for people.
    note: str = ""
    violations: list[str] = field(default_factory=list)

    @property
    def ratio(self) -> float | None:
        """The honest client's p99 beside the attack over its p99 alone; None without orders."""
        if not self.alone.p99_ms or not self.beside.orders:
            return None
        return self.beside.p99_ms / self.alone.p99_ms


def violations(found: Measurement, bounds: Bounds) -> list[str]:
    """Return one sentence for each bound that was not kept, with the bound in it."""
    return [
        *found.harm,
        *(f"{process_name(node)} ended" for node in found.ended_nodes),
        *(["the nodes did not reach one state after the attack"] if found.states_differ else []),
        *_orders(found, bounds),
        *_node(found, bounds),
    ]


def process_name(node_id: int) -> str:
    """Return how a node, or the gateway, is named in sentences."""
    return f"node {node_id}" if node_id != GATEWAY else "the gateway"


def _orders(found: Measurement, bounds: Bounds) -> list[str]:
    beside, problems = found.beside, []
    if beside.failed:
        problems.append(f"{beside.failed} orders of the honest client failed; expected none")
    if beside.wrong:
        problems.append(f"{beside.wrong} orders of the honest client got a wrong outcome; expected none")
    if not beside.orders:
        problems.append("no order of the honest client was acknowledged")
    allowed_ms = max(bounds.p99_floor_ms, bounds.p99_ratio * found.alone.p99_ms)
    if beside.orders and beside.p99_ms > allowed_ms:
        problems.append(
            f"p99 {found.alone.p99_ms:.1f} -> {beside.p99_ms:.1f} ms; at most {allowed_ms:.1f} ms "
            f"({bounds.p99_ratio:g} times, or {bounds.p99_floor_ms:g} ms)"
        )
    return problems


def _node(found: Measurement, bounds: Bounds) -> list[str]:
    memory, problems = found.memory, []
    if found.leader_changes > bounds.leader_changes:
        problems.append(f"{found.leader_changes} leader changes; at most {bounds.leader_changes}")
    for what, grown, most in (
        ("during the attack", memory.during - memory.before, bounds.memory_mib),
        ("after the attack", memory.after - memory.before, bounds.memory_after_mib),
    ):
        if grown > most * MIB:
            problems.append(f"{process_name(memory.node_id)} grew by {grown // MIB} MiB {what}; at most {most} MiB")
    if memory.threads > bounds.threads:
        problems.append(f"a node grew by {memory.threads} threads; at most {bounds.threads}")
    if found.unread_answer_bytes > bounds.unread_answers_mib * MIB:
        problems.append(
            f"{found.unread_answer_bytes // MIB} MiB of answers waited for clients that do not read; at most "
            f"{bounds.unread_answers_mib} MiB"
        )
    most_entries = bounds.log_entries_per_second
    if most_entries is not None and found.log_entries > most_entries * found.seconds:
        rate = found.log_entries / found.seconds
        problems.append(f"{rate:.0f} log entries a second; at most {most_entries:g}")
    return problems
