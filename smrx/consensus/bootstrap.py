"""Decide whether an empty node may vote: it is one of a new cluster's first nodes, or it has lost its data.

An empty node cannot tell by itself. Its directory may have been lost, or swapped for another one, and it may have voted
or acknowledged anything before. So it does not count until every other member named in its cluster file has reported,
to this incarnation, that it never held state either. Then the node is bootstrapped, durably, and has a vote; it
campaigns only once all of them are bootstrapped. Hence no node holds state before all nodes are bootstrapped, and an
empty node that sees a peer with state is not one of the first: it catches up before it counts, as a member does that
lost its log (recovery.Rejoin).

Sends no messages and reads no clock. Called by the replica.
"""

from collections.abc import Collection, Mapping
from typing import Protocol

from smrx.consensus.recovery import MetaStore


class PeerReport(Protocol):
    """What a peer's last message said about it."""

    @property
    def knows_me(self) -> bool:
        """Whether the message was for the present incarnation of this node."""
        ...

    @property
    def new(self) -> bool:
        """Whether the peer never held state."""
        ...

    @property
    def learner(self) -> bool:
        """Whether the peer's votes and acknowledgements do not count yet."""
        ...


class Bootstrap:
    """One node's part in the start of a new cluster."""

    def __init__(self, meta: MetaStore, others: Collection[int]) -> None:
        """`others`: the other nodes of the cluster file; without any, this node is the whole cluster."""
        self._meta = meta
        self._others = frozenset(others)
        #: A peer holds state, or held it: the cluster exists already.
        self._cluster_exists = False
        if not self._others and not meta.joined:
            meta.set_initialized()

    @property
    def never_held_state(self) -> bool:
        """Whether this node never held state."""
        return not self._meta.joined

    @property
    def undecided(self) -> bool:
        """Whether this node is empty, and it is open whether the cluster is new."""
        return self.never_held_state and not self._meta.initialized and not self._cluster_exists

    def update(self, reports: Mapping[int, PeerReport]) -> bool:
        """Take account of a peer's message; return whether this node has just been bootstrapped."""
        if not self.never_held_state:
            return False
        known = [reports[peer] for peer in self._others if peer in reports and reports[peer].knows_me]
        self._cluster_exists = not all(report.new for report in known)
        if self._cluster_exists or self._meta.initialized or len(known) < len(self._others):
            return False
        self._meta.set_initialized()
        return True

    def pending(self, reports: Mapping[int, PeerReport]) -> list[int]:
        """Return the nodes not known to be bootstrapped; no node may lead while there are any."""
        if self._cluster_exists or not self.never_held_state:
            return []
        return sorted(
            peer
            for peer in self._others
            if peer not in reports or not reports[peer].knows_me or (reports[peer].new and reports[peer].learner)
        )

    def awaited(self, reports: Mapping[int, PeerReport]) -> list[int]:
        """Return the pending nodes an operator should check: those without a report, else all of them."""
        pending = self.pending(reports)
        return [peer for peer in pending if peer not in reports or not reports[peer].knows_me] or pending
