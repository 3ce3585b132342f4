"""The fault state of a cluster: how a node may end, how many may lose their state at once, and what is repaired."""

import random
from typing import Any, cast

import pytest

from cluster.torture.cluster_under_test import ClusterUnderTest
from cluster.torture.fault_state import FaultState
from smrx.cli.exit_codes import Exit
from smrx.config import Config
from smrx.sim.checker import Violation
from smrx.wire.admin import AgreementStatus, AnyReply, AnyRequest, NodeStatus

REFUSED = "smrx: journal.lmdb: the journal is damaged: so and so: rebuild it with `smrx node --id N --rebuild`"
FULL = "smrx: journal.lmdb: expected to write the journal, found: No space left on device"


class Process:
    code: int | None = None

    def poll(self) -> int | None:
        return self.code


class Nodes:
    """Three stub nodes in place of a ClusterUnderTest."""

    node_ids = (1, 2, 3)

    def __init__(self, durability: Any) -> None:
        self.config = Config(durability=durability)
        self.processes = {node: Process() for node in self.node_ids}
        self.roles = dict.fromkeys(self.node_ids, "follower")
        self.last_lines = dict.fromkeys(self.node_ids, "")
        self.started: list[tuple[int, tuple[str, ...]]] = []

    def process(self, node: int) -> Process:
        return self.processes[node]

    def last_line(self, node: int) -> str:
        return self.last_lines[node]

    def start_node(self, node: int, *options: str) -> None:
        self.started.append((node, options))
        self.processes[node] = Process()

    def end(self, node: int, code: int, last_line: str = "") -> None:
        self.processes[node].code, self.last_lines[node] = code, last_line

    def ask(self, node: int, request: AnyRequest) -> AnyReply | None:
        if self.processes[node].code is not None:
            return None
        return NodeStatus(
            node_id=node, sequence=0, cluster="c", role=self.roles[node], term=1, leader_id=1, commit_index=1,
            applied_index=1, last_log_index=1, event_sequence=0, trades=0, state_hash=0,
            agreement=AgreementStatus(state="AGREE"),
        )  # fmt: skip


def fault_state(durability: str = "disk") -> tuple[Nodes, FaultState, list[str]]:
    nodes, reported = Nodes(durability), list[str]()
    return nodes, FaultState(cast(ClusterUnderTest, nodes), nodes.ask, reported.append, random.Random(1)), reported


def until(state: FaultState, nodes: Nodes, starts: int) -> None:
    for _ in range(500):
        if len(nodes.started) >= starts:
            return
        state.turn()
    pytest.fail(f"expected {starts} starts, found {nodes.started}")


@pytest.mark.parametrize("code", [0, 1, -11, int(Exit.DISK), int(Exit.RESOURCE)])
def test_node_that_ends_by_itself_is_a_violation(code: int) -> None:
    nodes, state, _ = fault_state()
    state.turn()
    nodes.end(2, code, REFUSED)
    with pytest.raises(Violation, match=f"node 2 ended by itself with code {code}; its last line: smrx: journal"):
        state.turn()


def test_node_with_full_disk_may_end_and_is_restarted() -> None:
    nodes, state, reported = fault_state()
    state.full.add(2)
    nodes.end(2, Exit.DISK, FULL)
    until(state, nodes, 1)
    assert nodes.started == [(2, ())]
    assert reported[0].startswith("node 2 ended with 11: journal.lmdb: expected to write")


@pytest.mark.parametrize(("code", "last_line"), [(1, FULL), (-7, ""), (int(Exit.DISK), "Traceback ...")])
def test_node_with_full_disk_that_ends_otherwise_is_a_violation(code: int, last_line: str) -> None:
    nodes, state, _ = fault_state()
    state.full.add(2)
    nodes.end(2, code, last_line)
    with pytest.raises(Violation, match="node 2 ended by itself"):
        state.turn()


def test_node_that_refuses_its_files_is_rebuilt_until_it_answers() -> None:
    nodes, state, reported = fault_state()
    state.damaged.add(3)
    state.without_state.add(3)
    nodes.end(3, Exit.RESOURCE, REFUSED)
    state.turn()
    assert nodes.started == [(3, ("--rebuild", "--yes"))]
    assert reported[0].startswith("node 3 refuses its files: journal.lmdb")
    state.rebuilding.add(3)  # It has not answered yet.
    state.start_later(3, 0.0)
    until(state, nodes, 2)
    assert nodes.started[1] == (3, ("--rebuild", "--yes"))


@pytest.mark.parametrize(
    ("code", "last_line"),
    [(int(Exit.RESOURCE), "smrx: journal.lmdb: damaged"), (-11, REFUSED), (1, REFUSED), (int(Exit.RESOURCE), "")],
)
def test_refusal_without_a_remedy_is_a_violation(code: int, last_line: str) -> None:
    nodes, state, _ = fault_state()
    state.damaged.add(3)
    nodes.end(3, code, last_line)
    with pytest.raises(Violation, match="node 3 ended by itself"):
        state.turn()


def test_only_a_minority_may_lose_state_and_a_learner_counts_as_without_state() -> None:
    nodes, state, _ = fault_state("memory")
    assert state.may_lose_state([1])
    assert not state.may_lose_state([1, 2])
    state.without_state.add(1)
    nodes.roles[1] = "learner"
    state.turn()
    assert state.may_lose_state([1])
    assert not state.may_lose_state([2])
    nodes.roles[1] = "follower"
    for _ in range(100):
        state.turn()
        if state.may_lose_state([2]):
            return
    pytest.fail("the node that became a follower still counts as without state")


def test_node_that_does_not_end_after_sigterm_is_a_violation() -> None:
    _, state, _ = fault_state()
    state.stopping[1] = 0.0
    with pytest.raises(Violation, match="node 1 is still running"):
        state.turn()
