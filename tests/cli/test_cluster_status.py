"""The comparison of `smrx cluster status`, on fake nodes with a list of hashes."""

import json
from collections.abc import Iterable

import msgspec
import pytest

from smrx.cli import cluster_commands
from smrx.cli.cluster_status import ClusterStatus, query_cluster
from smrx.config import Config, NodeConfig
from smrx.wire.admin import AgreementStatus, AnyReply, AnyRequest, HashAt, HashReply, NodeStatus, PeerStatus, Status


class Node:
    """A node that keeps a hash for each command from `oldest` on."""

    def __init__(
        self, hashes: Iterable[int], *, role: str = "follower", oldest: int = 0, fenced_at: int | None = None
    ) -> None:
        self.hashes, self.role, self.oldest, self.fenced_at = list(hashes), role, oldest, fenced_at

    @property
    def sequence(self) -> int:
        return len(self.hashes) - 1

    def answer(self, node_id: int, request: AnyRequest) -> AnyReply:
        if isinstance(request, HashAt):
            known = self.oldest <= request.at <= self.sequence
            return HashReply(
                node_id=node_id,
                sequence=self.sequence,
                at=request.at,
                state_hash=self.hashes[request.at] if known else None,
            )
        assert isinstance(request, Status)
        return NodeStatus(
            node_id=node_id,
            sequence=self.sequence,
            cluster="test",
            role=self.role,
            term=3,
            leader_id=1,
            commit_index=self.sequence,
            applied_index=self.sequence,
            last_log_index=self.sequence,
            event_sequence=self.sequence,
            trades=0,
            state_hash=self.hashes[-1],
            agreement=AgreementStatus(
                state="AGREE" if self.fenced_at is None else "DIVERGED",
                sequence=self.sequence if self.fenced_at is None else self.fenced_at,
            ),
            fenced=None if self.fenced_at is None else "its state differs from the majority's",
            # All nodes report where two nodes differ; this does not mean that this node is the wrong one.
            first_divergent_sequence=33,
        )


def status_of(*nodes: Node | None) -> ClusterStatus:
    members = {i + 1: node for i, node in enumerate(nodes)}

    def ask(node_id: int, request: AnyRequest) -> AnyReply | None:
        node = members[node_id]
        return None if node is None else node.answer(node_id, request)

    return query_cluster(ask, list(members))


def agreements(found: ClusterStatus) -> list[str]:
    return [node.agreement_text for node in found.nodes]


def leader(length: int) -> Node:
    return Node(range(length), role="leader")


def test_equal_hashes_agree_even_if_a_node_is_ahead_of_the_leader() -> None:
    found = status_of(leader(101), Node(range(101)), Node(range(105)))
    assert agreements(found) == ["AGREE at 100"] * 3
    assert (found.leader, found.compared_at, found.diverged) == (1, 100, False)


def test_node_without_answer_is_unreachable_and_the_others_agree() -> None:
    assert agreements(status_of(leader(11), None, Node(range(11)))) == ["AGREE at 10", "UNREACHABLE", "AGREE at 10"]


def test_slow_node_is_behind_by_its_lag() -> None:
    found = status_of(leader(101), Node(range(101)), Node(range(41)))
    assert agreements(found) == ["AGREE at 100", "AGREE at 100", "BEHIND"]
    assert found.nodes[2].lag == 60


@pytest.mark.parametrize("first", [1, 2, 37, 99, 100])
def test_different_hash_is_diverged_at_the_first_differing_command(first: int) -> None:
    wrong = [i if i < first else 1000 + i for i in range(101)]
    found = status_of(leader(101), Node(range(101)), Node(wrong))
    assert agreements(found) == ["AGREE at 100", "AGREE at 100", f"DIVERGED at {first}"]
    assert found.diverged


def test_leader_that_differs_from_the_majority_is_diverged() -> None:
    wrong = [i if i < 50 else 1000 + i for i in range(101)]
    assert agreements(status_of(Node(wrong, role="leader"), Node(range(101)), Node(range(101)))) == [
        "DIVERGED at 50",
        "AGREE at 100",
        "AGREE at 100",
    ]


def test_divergence_reported_by_a_node_is_shown_when_its_hashes_are_dropped() -> None:
    stopped = Node(range(41), fenced_at=33)
    assert agreements(status_of(leader(101), Node(range(101)), stopped))[2] == "DIVERGED at 33"


def test_fenced_node_is_diverged_even_with_the_right_hash() -> None:
    damaged = Node(range(101), fenced_at=100)
    assert agreements(status_of(leader(101), Node(range(101)), damaged))[2] == "DIVERGED at 100"


def test_nothing_is_compared_without_a_majority() -> None:
    assert agreements(status_of(leader(11), None, None)) == ["NOT COMPARED", "UNREACHABLE", "UNREACHABLE"]
    assert agreements(status_of(leader(11))) == ["NOT COMPARED"]


def test_two_states_without_a_majority_are_both_diverged() -> None:
    found = status_of(leader(11), Node([*range(10), 77]), None)
    assert agreements(found) == ["DIVERGED at 10", "DIVERGED at 10", "UNREACHABLE"]


def test_status_without_any_answer_has_no_leader() -> None:
    found = status_of(None, None, None)
    assert (found.leader, found.compared_at, agreements(found)) == (None, None, ["UNREACHABLE"] * 3)


def test_snapshot_that_a_node_cannot_use_is_shown_with_both_nodes(capsys: pytest.CaptureFixture[str]) -> None:
    reason = "snapshot: The snapshot has state layout 2; this version of smrx reads layouts up to 1"
    leader, lagging = (Node([1, 2], role="leader"), Node([1], role="learner"))
    peers = (PeerStatus(node_id=2, connected=True), PeerStatus(node_id=3, connected=True, refused_snapshot=reason))

    def ask(node_id: int, request: AnyRequest) -> AnyReply | None:
        answer = (leader if node_id == 1 else lagging).answer(node_id, request)
        if isinstance(answer, NodeStatus) and node_id == 1:
            return msgspec.structs.replace(answer, peers=peers, voters=(1, 2, 3))
        return answer

    config = Config(nodes=tuple(NodeConfig(id=node, port=28_000 + node) for node in (1, 2)))
    seen = query_cluster(ask, [1, 2])
    cluster_commands._print(config, seen, False)
    assert f"node 1: node 3 cannot use the snapshots of this node, the leader: {reason}" in capsys.readouterr().out
    cluster_commands._print(config, seen, True)
    nodes = json.loads(capsys.readouterr().out)["nodes"]
    assert nodes[0]["refused_snapshots"] == {"3": reason}
    assert nodes[1]["refused_snapshots"] == {}
