"""Profiles that make a kind of fault frequent, for tests that look for one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from smrx.sim.profile import CHANGES, LARGE_STATE_BYTES, SCENARIOS, Profile

#: Turns the profile that a seed draws into another one.
Focus = Callable[[Profile], Profile]

#: The initial and spare nodes that a scenario needs, if not three and none: two of five hold entries that no other node
#: has; two of four voters are as many as two of three.
_SCENARIO_NODES = {"late acknowledgements": 5, "concurrent changes": 4}
_SCENARIO_SPARES = {"two new nodes": 2}


def as_drawn(drawn: Profile) -> Profile:
    return drawn


def with_fields(base: Focus = as_drawn, *, faults: set[str], **fields: Any) -> Focus:
    """Return a focus that enables these faults only and sets these fields, on top of `base`."""
    return lambda drawn: replace(base(drawn), faults=frozenset(faults), **fields)


def scenario(name: str, *other_faults: str, **fields: Any) -> Focus:
    """Return a focus with one fault scenario, as often as possible."""
    if name == "large state":
        fields["state_bytes"] = LARGE_STATE_BYTES
    return with_fields(
        nodes=_SCENARIO_NODES.get(name, 3),
        spares=_SCENARIO_SPARES.get(name, 0),
        durable=True,
        early=False,
        fault_phase_seconds=4.0,
        faults={name, *other_faults},
        **fields,
    )


def with_changes(drawn: Profile) -> Profile:
    """The same run with all membership changes and without scenarios."""
    faults = (drawn.faults | set(CHANGES)) - set(SCENARIOS)
    return replace(drawn, spares=drawn.spares or 2, state_bytes=0, faults=faults)


def without_changes(drawn: Profile) -> Profile:
    """The same run without membership changes and scenarios."""
    return replace(drawn, spares=0, state_bytes=0, faults=drawn.faults - set(CHANGES) - set(SCENARIOS))


_LAGGING_FAULTS = {"compact", "isolate the leader", "break a connection", "stall a connection", "lose messages"}

#: A log that is compacted all the time, and followers that learn late what is committed.
lagging_followers = with_fields(
    nodes=5,
    durable=False,
    early=False,
    delay=(0.0005, 0.1),
    loss=0.01,
    traders=3,
    fault_seconds=0.08,
    order_seconds=0.05,
    compaction_entries=4,
    batch_bytes=1 << 20,
    faults=_LAGGING_FAULTS,
)
#: Snapshots in many chunks, to nodes that crash, from leaders that change.
slow_transfers = with_fields(
    lagging_followers,
    order_seconds=0.02,
    chunk_bytes=1500,
    faults=_LAGGING_FAULTS | {"isolate", "crash", "transfer leadership"},
)
#: Nodes that are removed while old messages of leaders arrive again.
leaving_members = with_fields(
    nodes=5,
    durable=True,
    early=False,
    delay=(0.001, 0.02),
    repeats=0.2,
    fault_seconds=0.08,
    order_seconds=0.02,
    faults={"leave", "replay old messages", "repeat messages", "overtake", "isolate the leader"},
)
#: Candidates that start at nearly the same time, slow messages, and voters that crash.
contested_elections = with_fields(
    nodes=5,
    durable=True,
    early=True,
    delay=(0.0005, 0.1),
    fault_seconds=0.08,
    faults={"crash at an election", "isolate the leader"},
)
#: Candidates that start at nearly the same time, and messages that arrive twice.
split_votes = with_fields(contested_elections, repeats=0.2, faults={"repeat messages", "isolate the leader"})
#: Nodes in memory mode that are added, removed and replaced, with a log that is compacted all the time.
changing_members = with_fields(
    nodes=3,
    spares=2,
    durable=False,
    early=False,
    fault_seconds=0.08,
    compaction_entries=4,
    faults={*CHANGES, "isolate", "isolate the leader", "partition", "strand the leader", "crash", "compact"},
)
#: Bits that flip in long logs.
rotting_disks = with_fields(
    nodes=3,
    durable=True,
    fault_seconds=0.2,
    compaction_entries=1_000,
    snapshot_commands=10_000,
    faults={"bit rot", "crash"},
)
#: Nodes that restart with an empty directory under their old id, in a partitioned network.
lost_directories = with_fields(
    nodes=3,
    spares=0,
    durable=True,
    early=False,
    fault_seconds=0.08,
    order_seconds=0.05,
    faults={"lose a directory", "isolate", "isolate the leader", "crash the leader"},
)
#: Wall clocks that jump all the time, and leaders that fail.
jumping_clocks = with_fields(
    nodes=3,
    spares=0,
    durable=True,
    early=False,
    fault_phase_seconds=4.0,
    fault_seconds=0.2,
    order_seconds=0.02,
    faults={"wall clock jump", "crash the leader"},
)
jumping_clocks_only = with_fields(jumping_clocks, faults={"wall clock jump"})


def small_messages(drawn: Profile) -> Profile:
    return replace(drawn, batch_bytes=100)


unknown_peers = scenario("unknown peer", "wall clock jump", order_seconds=0.05)
late_acknowledgements = scenario("late acknowledgements", "wall clock jump", order_seconds=0.05)
concurrent_changes = scenario("concurrent changes", "wall clock jump", order_seconds=0.05)
two_new_nodes = scenario("two new nodes", "wall clock jump", order_seconds=0.05)
#: A state that takes time to copy, and no snapshot of it before everything else is done.
large_state = scenario(
    "large state", "wall clock jump", order_seconds=0.05, compaction_entries=10_000, snapshot_commands=10_000
)


def with_reads(drawn: Profile) -> Profile:
    """The same run with frequent reads."""
    return replace(drawn, read_seconds=0.02)


def without_reads(base: Focus) -> Focus:
    """Return a focus without reads, on top of `base`."""
    return lambda drawn: replace(base(drawn), read_seconds=0.0)


#: Leaders change often, and followers learn late what is committed.
reads_of_new_leaders = with_fields(
    with_reads,
    nodes=5,
    spares=0,
    durable=True,
    early=False,
    fault_phase_seconds=4.0,
    state_bytes=0,
    delay=(0.0005, 0.1),
    batch_bytes=100,
    faults={"crash the leader", "isolate the leader", "transfer leadership", "slow turns"},
)

#: Leaders are cut off and stopped, and others are elected meanwhile.
reads_of_paused_leaders = with_fields(
    with_reads,
    nodes=3,
    spares=0,
    durable=True,
    early=False,
    fault_phase_seconds=6.0,
    fault_seconds=0.2,
    state_bytes=0,
    delay=(0.0002, 0.002),
    faults={"pause", "isolate the leader", "strand the leader"},
)
