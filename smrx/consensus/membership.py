"""Define the membership of the cluster: a log entry that is in force from its append on.

Owns the entry's bytes and the changes that are allowed: one member at a time, a new one first without a vote (Ongaro's
thesis, 4.1 to 4.3). Majorities of two memberships that differ by one voter have a member in common, so there are never
two leaders of a term. Pure; called by the replica, and by the journal to recognise such an entry.

The first membership is the cluster file's. Afterwards the log decides; the file only tells a node where to connect at
its start.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from smrx import config
from smrx.config import NodeConfig

#: The first byte of a membership entry. PySyncObj's own number means a pickled entry, which stays invalid.
KIND: Final = 4
_PREFIX: Final = bytes((KIND,))
_FORMAT: Final = 1


class MembershipError(ValueError):
    """A change that is not possible; the message is for the operator."""


class ChangePending(MembershipError):
    """A change that has to wait until an earlier one is committed; try again."""


class Member(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One member: its addresses, and whether it is a voter or a learner."""

    node: NodeConfig
    voter: bool
    #: The log index at which it became a member, 0 for the first ones: it distinguishes two nodes of one id.
    since: int = 0


class Membership(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """All members, in the order of their ids."""

    format: int
    members: tuple[Member, ...]

    @property
    def ids(self) -> frozenset[int]:
        """The ids of all members."""
        return frozenset(member.node.id for member in self.members)

    @property
    def voters(self) -> frozenset[int]:
        """The ids of the members whose votes and acknowledgements count."""
        return frozenset(member.node.id for member in self.members if member.voter)

    def node(self, node_id: int) -> NodeConfig | None:
        """Return a member's addresses, None if it is no member."""
        return next((member.node for member in self.members if member.node.id == node_id), None)

    def with_learner(self, node: NodeConfig, since: int = 0) -> "Membership":
        """Return the membership with one more member, without a vote; raises MembershipError if it is one already."""
        if node.id in self.ids:
            raise MembershipError(f"node {node.id} is a member already; nothing was changed")
        return _ordered((*self.members, Member(node, voter=False, since=since)))

    def promoted(self, node_id: int) -> "Membership":
        """Return the membership in which this member has a vote."""
        return _ordered(Member(m.node, m.voter or m.node.id == node_id, m.since) for m in self.members)

    def without(self, node_id: int) -> "Membership":
        """Return the membership without a member; raises MembershipError if it is none, or the last voter."""
        if node_id not in self.ids:
            known = ", ".join(map(str, sorted(self.ids)))
            raise MembershipError(f"node {node_id} is no member (members: {known}); nothing was changed")
        if self.voters == {node_id}:
            raise MembershipError(f"node {node_id} is the only voter and cannot be removed; nothing was changed")
        return _ordered(member for member in self.members if member.node.id != node_id)


def _ordered(members: Iterable[Member]) -> Membership:
    return Membership(_FORMAT, tuple(sorted(members, key=lambda member: member.node.id)))


def of(nodes: Iterable[NodeConfig]) -> Membership:
    """Return the membership in which each of these nodes has a vote."""
    return _ordered(Member(node, voter=True) for node in nodes)


def host_fault(node: NodeConfig) -> str | None:
    """Return why no node can connect to a node's host, None if the host is valid."""
    fault = config.host_fault(node.host)
    return None if fault is None else f"node {node.id}: {fault}; nothing was changed"


def is_membership(entry: bytes) -> bool:
    """Return whether a log entry is a membership."""
    return entry.startswith(_PREFIX)


def encode(membership: Membership) -> bytes:
    """Return the log entry of a membership."""
    return _PREFIX + msgspec.msgpack.encode(membership)


def decode(entry: bytes) -> Membership:
    """Return the membership in a log entry; raises MembershipError for other bytes."""
    try:
        found = msgspec.msgpack.decode(memoryview(entry)[1:], type=Membership)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MembershipError(f"expected a membership, found: {error}") from None
    if not is_membership(entry) or found.format != _FORMAT or not found.voters or found != _ordered(found.members):
        raise MembershipError("expected a membership of this version with at least one voter, found another")
    if len(found.ids) != len(found.members):
        raise MembershipError("expected each member once, found one twice")
    return found
