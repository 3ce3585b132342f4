"""Query the status of all nodes and compare their states at one sequence.

Decides AGREE, BEHIND, DIVERGED, NOT COMPARED or UNREACHABLE for each node. The state hashes take precedence over what a
node reports about itself. Queries nodes through a function, so it opens no sockets. Called by `smrx cluster`.
"""

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import Final

import msgspec

from smrx.client.admin_client import Ask
from smrx.wire.admin import HashAt, HashReply, NodeStatus, Status

#: Time for a node to reach the sequence at which all are compared: ten heartbeats.
_CATCH_UP_SECONDS: Final = 0.5
_POLL_SECONDS: Final = 0.01


class Agreement(StrEnum):
    """How the state of a node compares with that of the majority."""

    AGREE = "AGREE"
    BEHIND = "BEHIND"
    DIVERGED = "DIVERGED"
    NOT_COMPARED = "NOT COMPARED"
    UNREACHABLE = "UNREACHABLE"


class NodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """The status of one node and the result of the comparison.

    `agreement_sequence` is the command at which it agrees, or the first at which it differs. `lag` is the number of
    commands up to the compared one that the node has not applied.
    """

    node_id: int
    agreement: Agreement
    agreement_sequence: int | None = None
    lag: int | None = None
    status: NodeStatus | None = None

    @property
    def agreement_text(self) -> str:
        """Return the agreement with its sequence, such as "AGREE at 1200"."""
        at = self.agreement_sequence
        return str(self.agreement) if at is None else f"{self.agreement} at {at}"


class ClusterStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The status of all nodes. `compared_at` is the sequence at which the state hashes were compared."""

    leader: int | None
    compared_at: int | None
    nodes: tuple[NodeReport, ...]

    @property
    def members(self) -> frozenset[int] | None:
        """The ids of the members as the leader reports them, or None without a leader."""
        status = next((node.status for node in self.nodes if node.node_id == self.leader), None)
        return None if status is None else frozenset((*status.voters, *status.learners))

    @property
    def diverged(self) -> bool:
        """Whether the state of a node differs from that of the majority."""
        return any(node.agreement is Agreement.DIVERGED for node in self.nodes)


def query_cluster(ask: Ask, node_ids: Sequence[int]) -> ClusterStatus:
    """Ask all nodes for their status, then for the state hash at the sequence of the leader."""
    with ThreadPoolExecutor(max_workers=len(node_ids)) as pool:
        replies = pool.map(lambda node_id: ask(node_id, Status()), node_ids)
        statuses = {i: reply for i, reply in zip(node_ids, replies, strict=True) if isinstance(reply, NodeStatus)}
        leader = _leader(statuses)
        if not statuses:
            return ClusterStatus(leader=None, compared_at=None, nodes=tuple(map(_unreachable, node_ids)))
        unfenced = [status.sequence for status in statuses.values() if status.fenced is None]
        at = statuses[leader].sequence if leader is not None else max(unfenced, default=0)
        hashes = dict(zip(statuses, pool.map(lambda status: _hash_at(ask, status, at), statuses.values()), strict=True))
    majority = _majority(hashes, len(node_ids))
    nodes = tuple(
        _compare(ask, statuses[node_id], hashes, majority, at) if node_id in statuses else _unreachable(node_id)
        for node_id in node_ids
    )
    return ClusterStatus(leader=leader, compared_at=at, nodes=nodes)


def _leader(statuses: dict[int, NodeStatus]) -> int | None:
    """Return the leader of the highest reported term, or None."""
    leaders = [status for status in statuses.values() if status.role == "leader" and status.fenced is None]
    return max(leaders, key=lambda status: status.term).node_id if leaders else None


def _hash_at(ask: Ask, status: NodeStatus, at: int) -> int | None:
    """Return the hash of the node after command `at`, or None if it does not reach it in time.

    There is no wait for a fenced node, which may have stopped applying commands.
    """
    deadline = time.monotonic() + (_CATCH_UP_SECONDS if status.fenced is None else 0.0)
    while True:
        reply = ask(status.node_id, HashAt(at=at))
        if not isinstance(reply, HashReply):
            return None
        if reply.state_hash is not None or reply.sequence >= at or time.monotonic() > deadline:
            return reply.state_hash
        time.sleep(_POLL_SECONDS)


def _majority(hashes: dict[int, int | None], members: int) -> int | None:
    """Return the hash that more than half of all members have, and at least two; None if there is none."""
    counts = Counter(value for value in hashes.values() if value is not None)
    value, count = counts.most_common(1)[0] if counts else (None, 0)
    return value if count >= max(2, members // 2 + 1) else None


def _compare(ask: Ask, status: NodeStatus, hashes: dict[int, int | None], majority: int | None, at: int) -> NodeReport:
    node_id = status.node_id
    lag = max(0, at - status.sequence)
    found = hashes[node_id]

    def report(agreement: Agreement, sequence: int | None = None) -> NodeReport:
        return NodeReport(node_id=node_id, agreement=agreement, agreement_sequence=sequence, lag=lag, status=status)

    # Without a majority no state is known to be right, so every node that differs from another counts as diverged.
    references = [
        other for other, value in hashes.items() if value is not None and value != found and majority in (None, value)
    ]
    if found is not None and found != majority and references:
        return report(Agreement.DIVERGED, _first_difference(ask, node_id, references[0], at))
    if status.fenced is not None or (found is None and status.agreement.state == Agreement.DIVERGED):
        # The node reports its own divergence: its hash cannot be compared, because it has stopped or dropped the hash.
        return report(Agreement.DIVERGED, status.agreement.sequence)
    if found is None:
        return report(Agreement.BEHIND)
    if majority is None:
        return report(Agreement.NOT_COMPARED)
    return report(Agreement.AGREE, at)


def _first_difference(ask: Ask, node_id: int, reference: int, at: int) -> int:
    """Return the first command after which the hashes of two nodes differ, as far back as both keep them.

    A hash covers the one before it, so hashes that differ once differ from then on: a binary search finds the first.
    """
    low, high = 0, at
    while high - low > 1:
        middle = (low + high) // 2
        pair = [ask(which, HashAt(at=middle)) for which in (node_id, reference)]
        values = [reply.state_hash for reply in pair if isinstance(reply, HashReply)]
        if len(values) == 2 and None not in values and values[0] != values[1]:
            high = middle
        else:
            low = middle
    return high


def _unreachable(node_id: int) -> NodeReport:
    return NodeReport(node_id=node_id, agreement=Agreement.UNREACHABLE)
