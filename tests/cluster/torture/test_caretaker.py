"""Whoever looks after the nodes: what they may end with, what may break at once, and what is repaired when."""

import random
from typing import Any, cast

import pytest

from cluster.torture.caretaker import Caretaker
from cluster.torture.field import Field
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
    """Three nodes that do what a test says, in the place of a Field."""

    node_ids = (1, 2, 3)

    def __init__(self, durability: Any) -> None:
        self.config = Config(durability=durability)
        self.processes = {node: Process() for node in self.node_ids}
        self.roles = dict.fromkeys(self.node_ids, "follower")
        self.said = dict.fromkeys(self.node_ids, "")
        self.started: list[tuple[int, tuple[str, ...]]] = []

    def process(self, node: int) -> Process:
        return self.processes[node]

    def last_line(self, node: int) -> str:
        return self.said[node]

    def start_node(self, node: int, *options: str) -> None:
        self.started.append((node, options))
        self.processes[node] = Process()

    def end(self, node: int, code: int, said: str = "") -> None:
        self.processes[node].code, self.said[node] = code, said

    def ask(self, node: int, request: AnyRequest) -> AnyReply | None:
        if self.processes[node].code is not None:
            return None
        return NodeStatus(
            node_id=node, sequence=0, cluster="c", role=self.roles[node], term=1, leader_id=1, commit_index=1,
            applied_index=1, last_log_index=1, event_sequence=0, trades=0, state_hash=0,
            agreement=AgreementStatus(state="AGREE"),
        )  # fmt: skip


def care(durability: str = "disk") -> tuple[Nodes, Caretaker, list[str]]:
    nodes, told = Nodes(durability), list[str]()
    return nodes, Caretaker(cast(Field, nodes), nodes.ask, told.append, random.Random(1)), told


def until(caretaker: Caretaker, nodes: Nodes, starts: int) -> None:
    for _ in range(500):
        if len(nodes.started) >= starts:
            return
        caretaker.turn()
    pytest.fail(f"expected {starts} starts, found {nodes.started}")


@pytest.mark.parametrize("code", [0, 1, -11, int(Exit.DISK), int(Exit.RESOURCE)])
def test_a_node_that_ends_by_itself_is_a_violation(code: int) -> None:
    nodes, caretaker, _ = care()
    caretaker.turn()
    nodes.end(2, code, REFUSED)
    with pytest.raises(Violation, match=f"node 2 ended by itself with code {code}; the last it said: smrx: journal"):
        caretaker.turn()


def test_a_node_with_a_full_disk_may_end_with_its_code_and_is_started_again() -> None:
    nodes, caretaker, told = care()
    caretaker.full.add(2)
    nodes.end(2, Exit.DISK, FULL)
    until(caretaker, nodes, 1)
    assert nodes.started == [(2, ())]
    assert told[0].startswith("node 2 ended with 11: journal.lmdb: expected to write")


@pytest.mark.parametrize(("code", "said"), [(1, FULL), (-7, ""), (int(Exit.DISK), "Traceback ...")])
def test_a_node_with_a_full_disk_that_ends_otherwise_is_a_violation(code: int, said: str) -> None:
    nodes, caretaker, _ = care()
    caretaker.full.add(2)
    nodes.end(2, code, said)
    with pytest.raises(Violation, match="node 2 ended by itself"):
        caretaker.turn()


def test_a_node_that_refuses_its_files_is_rebuilt_and_again_if_it_dies_before_it_answers() -> None:
    nodes, caretaker, told = care()
    caretaker.damaged.add(3)
    caretaker.empty.add(3)
    nodes.end(3, Exit.RESOURCE, REFUSED)
    caretaker.turn()
    assert nodes.started == [(3, ("--rebuild", "--yes"))]
    assert told[0].startswith("node 3 refuses its files: journal.lmdb")
    caretaker.given_up.add(3)  # It has not answered yet.
    caretaker.revive_later(3, 0.0)
    until(caretaker, nodes, 2)
    assert nodes.started[1] == (3, ("--rebuild", "--yes"))


@pytest.mark.parametrize(
    ("code", "said"),
    [(int(Exit.RESOURCE), "smrx: journal.lmdb: damaged"), (-11, REFUSED), (1, REFUSED), (int(Exit.RESOURCE), "")],
)
def test_a_refusal_that_does_not_say_what_to_do_is_a_violation(code: int, said: str) -> None:
    nodes, caretaker, _ = care()
    caretaker.damaged.add(3)
    nodes.end(3, code, said)
    with pytest.raises(Violation, match="node 3 ended by itself"):
        caretaker.turn()


def test_never_more_than_a_minority_is_empty_and_a_node_that_learns_is() -> None:
    nodes, caretaker, _ = care("memory")
    assert caretaker.may_empty([1])
    assert not caretaker.may_empty([1, 2])
    caretaker.empty.add(1)
    nodes.roles[1] = "learner"
    caretaker.turn()
    assert caretaker.may_empty([1])
    assert not caretaker.may_empty([2])
    nodes.roles[1] = "follower"
    for _ in range(100):
        caretaker.turn()
        if caretaker.may_empty([2]):
            return
    pytest.fail("expected the node that came back to count again")


def test_a_node_that_does_not_end_when_it_is_asked_to_is_a_violation() -> None:
    _, caretaker, _ = care()
    caretaker.ending[1] = 0.0
    with pytest.raises(Violation, match="node 1 was asked to end"):
        caretaker.turn()
