"""Who belongs to the cluster: an entry of the log like any other, in force from the moment it is appended.

Owns the entry's bytes and the steps by which a cluster may change: one member at a time, a new one first without a vote
(Ongaro's thesis, 4.1 to 4.3). Two clusters that differ by one voter cannot have majorities without a common member, so
no moment has two leaders. Pure; called by the replica, and by the journal to know such an entry.

The first membership is the cluster file's. After that the log's is the truth; the file is where a node finds the others
at its start.
"""

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from smrx.config import NodeConfig

#: First byte of such an entry. PySyncObj's own number for it means a pickled one, and stays absurd.
KIND: Final = 4
_PREFIX: Final = bytes((KIND,))
_FORMAT: Final = 1
_HOST: Final = re.compile(r"[0-9A-Za-z_.\-]+|\[[0-9A-Fa-f:.]+\]")


class MembershipError(ValueError):
    """A change that cannot be made; the message is one sentence for the operator."""


class Member(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One member: where it listens, and whether it has a vote or only learns."""

    node: NodeConfig
    voter: bool
    #: The log index at which it became a member, 0 for those of the beginning: two nodes of one name differ in it.
    since: int = 0


class Membership(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Every member, in the order of their ids."""

    format: int
    members: tuple[Member, ...]

    @property
    def ids(self) -> frozenset[int]:
        """Every member's id."""
        return frozenset(member.node.id for member in self.members)

    @property
    def voters(self) -> frozenset[int]:
        """Those whose votes and acknowledgements count."""
        return frozenset(member.node.id for member in self.members if member.voter)

    def node(self, node_id: int) -> NodeConfig | None:
        """Where a member listens."""
        return next((member.node for member in self.members if member.node.id == node_id), None)

    def with_learner(self, node: NodeConfig, since: int = 0) -> "Membership":
        """One member more, without a vote; raises MembershipError if it is one already."""
        if node.id in self.ids:
            raise MembershipError(f"expected a node that is no member, found member {node.id}; nothing was changed")
        return _ordered((*self.members, Member(node, voter=False, since=since)))

    def promoted(self, node_id: int) -> "Membership":
        """The same members, one more of them with a vote."""
        return _ordered(Member(m.node, m.voter or m.node.id == node_id, m.since) for m in self.members)

    def without(self, node_id: int) -> "Membership":
        """One member less; raises MembershipError if it is none, or the last one with a vote."""
        if node_id not in self.ids:
            known = ", ".join(map(str, sorted(self.ids)))
            raise MembershipError(f"expected one of the members {known}, found {node_id}; nothing was changed")
        if self.voters == {node_id}:
            raise MembershipError(f"expected a member to stay, found only node {node_id}; nothing was changed")
        return _ordered(member for member in self.members if member.node.id != node_id)


def _ordered(members: Iterable[Member]) -> Membership:
    return Membership(_FORMAT, tuple(sorted(members, key=lambda member: member.node.id)))


def of(nodes: Iterable[NodeConfig]) -> Membership:
    """The membership in which every one of these nodes has a vote."""
    return _ordered(Member(node, voter=True) for node in nodes)


def host_fault(node: NodeConfig) -> str | None:
    """What keeps others from connecting to a node's host, whatever the network; None if nothing."""
    if _HOST.fullmatch(node.host):
        return None
    return f"expected the name or the address of a host for node {node.id}, found {node.host!r}; nothing was changed"


def is_membership(entry: bytes) -> bool:
    """Whether a log entry says who belongs to the cluster."""
    return entry.startswith(_PREFIX)


def encode(membership: Membership) -> bytes:
    """The log entry."""
    return _PREFIX + msgspec.msgpack.encode(membership)


def decode(entry: bytes) -> Membership:
    """The membership in a log entry; raises MembershipError for bytes that are none."""
    try:
        found = msgspec.msgpack.decode(memoryview(entry)[1:], type=Membership)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MembershipError(f"expected a membership, found: {error}") from None
    if not is_membership(entry) or found.format != _FORMAT or not found.voters or found != _ordered(found.members):
        raise MembershipError("expected a membership of this version with at least one voter, found another")
    if len(found.ids) != len(found.members):
        raise MembershipError("expected each member once, found one twice")
    return found
