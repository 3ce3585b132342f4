"""What a cluster looks like from outside: every node asked, and their states compared at one sequence.

Decides AGREE, BEHIND, DIVERGED, NOT COMPARED and UNREACHABLE; trusts the hashes more than what a node says of itself.
Asks through a function, so it knows no socket. Called by `smrx cluster`.
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

#: How long a node may take to reach the sequence at which all are compared: ten heartbeats.
_CATCH_UP_SECONDS: Final = 0.5
_AGAIN_SECONDS: Final = 0.01


class Agreement(StrEnum):
    """How a node's state compares with the majority's."""

    AGREE = "AGREE"
    BEHIND = "BEHIND"
    DIVERGED = "DIVERGED"
    NOT_COMPARED = "NOT COMPARED"
    UNREACHABLE = "UNREACHABLE"


class NodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """One node as it was found. `lag` is in commands, against the node that is furthest ahead."""

    node_id: int
    agreement: Agreement
    at: int | None = None
    lag: int | None = None
    status: NodeStatus | None = None

    @property
    def verdict(self) -> str:
        """The agreement as people read it: AGREE at 1200."""
        return str(self.agreement) if self.at is None else f"{self.agreement} at {self.at}"


class ClusterStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The whole cluster at one moment."""

    leader: int | None
    compared_at: int | None
    nodes: tuple[NodeReport, ...]

    @property
    def members(self) -> frozenset[int] | None:
        """Those that belong to the cluster, as its leader says; None if nobody leads."""
        status = next((seen.status for seen in self.nodes if seen.node_id == self.leader), None)
        return None if status is None else frozenset((*status.voters, *status.learners))

    @property
    def diverged(self) -> bool:
        """Whether any node's state is known to be another than the majority's."""
        return any(seen.agreement is Agreement.DIVERGED for seen in self.nodes)


def query_cluster(ask: Ask, node_ids: Sequence[int]) -> ClusterStatus:
    """Ask every node for its status, then all of them for the hash at the sequence the leader had."""
    with ThreadPoolExecutor(max_workers=len(node_ids)) as pool:
        replies = pool.map(lambda node_id: ask(node_id, Status()), node_ids)
        statuses = {i: reply for i, reply in zip(node_ids, replies, strict=True) if isinstance(reply, NodeStatus)}
        leader = _leader(statuses)
        if not statuses:
            return ClusterStatus(leader=None, compared_at=None, nodes=tuple(map(_unreachable, node_ids)))
        sound = [status.sequence for status in statuses.values() if status.fenced is None]
        at = statuses[leader].sequence if leader is not None else max(sound, default=0)
        hashes = dict(zip(statuses, pool.map(lambda status: _hash_at(ask, status, at), statuses.values()), strict=True))
    majority = _majority(hashes, len(node_ids))
    nodes = tuple(
        _judge(ask, statuses[node_id], hashes, majority, at) if node_id in statuses else _unreachable(node_id)
        for node_id in node_ids
    )
    return ClusterStatus(leader=leader, compared_at=at, nodes=nodes)


def _leader(statuses: dict[int, NodeStatus]) -> int | None:
    """The leader of the highest term that anybody reports."""
    leaders = [status for status in statuses.values() if status.role == "leader" and status.fenced is None]
    return max(leaders, key=lambda status: status.term).node_id if leaders else None


def _hash_at(ask: Ask, status: NodeStatus, at: int) -> int | None:
    """The node's hash after command `at`, once it is there; None if it does not get there in time.

    A fenced node is not waited for: it may have stopped.
    """
    deadline = time.monotonic() + (_CATCH_UP_SECONDS if status.fenced is None else 0.0)
    while True:
        reply = ask(status.node_id, HashAt(at=at))
        if not isinstance(reply, HashReply):
            return None
        if reply.state_hash is not None or reply.sequence >= at or time.monotonic() > deadline:
            return reply.state_hash
        time.sleep(_AGAIN_SECONDS)


def _majority(hashes: dict[int, int | None], members: int) -> int | None:
    """The hash that more than half of all members have, at least two of them; None if there is none."""
    counts = Counter(value for value in hashes.values() if value is not None)
    value, count = counts.most_common(1)[0] if counts else (None, 0)
    return value if count >= max(2, members // 2 + 1) else None


def _judge(ask: Ask, status: NodeStatus, hashes: dict[int, int | None], majority: int | None, at: int) -> NodeReport:
    node_id = status.node_id
    lag = max(0, at - status.sequence)
    found = hashes[node_id]

    def seen(agreement: Agreement, where: int | None = None) -> NodeReport:
        return NodeReport(node_id=node_id, agreement=agreement, at=where, lag=lag, status=status)

    # Where no majority says which state is right, every node that differs from another is suspect.
    models = [
        other for other, value in hashes.items() if value is not None and value != found and majority in (None, value)
    ]
    if found is not None and found != majority and models:
        return seen(Agreement.DIVERGED, _first_difference(ask, node_id, models[0], at))
    if status.fenced is not None or (found is None and status.agreement.state == Agreement.DIVERGED):
        # It knows of itself what can no longer be compared: it has stopped, or its hashes are too old.
        return seen(Agreement.DIVERGED, status.agreement.sequence)
    if found is None:
        return seen(Agreement.BEHIND)
    if majority is None:
        return seen(Agreement.NOT_COMPARED)
    return seen(Agreement.AGREE, at)


def _first_difference(ask: Ask, node_id: int, model: int, at: int) -> int:
    """The first command after which the hashes of two nodes differ, as far back as both remember.

    A hash covers the one before it, so hashes that differ once differ ever after: half the range goes with each step.
    """
    low, high = 0, at
    while high - low > 1:
        middle = (low + high) // 2
        pair = [ask(which, HashAt(at=middle)) for which in (node_id, model)]
        values = [reply.state_hash for reply in pair if isinstance(reply, HashReply)]
        if len(values) == 2 and None not in values and values[0] != values[1]:
            high = middle
        else:
            low = middle
    return high


def _unreachable(node_id: int) -> NodeReport:
    return NodeReport(node_id=node_id, agreement=Agreement.UNREACHABLE)
