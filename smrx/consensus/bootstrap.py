"""The beginning of a cluster: who is empty because it is new, and who because what it had is gone.

An empty node cannot tell by itself: its directory may have been lost, or put in the place of another's, and it may
have promised anything. So it counts for nothing until every member that its cluster file names has told it, knowing of
its present life, that it never held state either. Then it is a founder, durably, and has a vote; and it stands only
once all of them are founders. So nobody holds state before everybody is a founder, and an empty node that hears of
state knows that it is none of the first: it learns before it counts, as a member does that lost its log
(recovery.Rejoin).

Owns no message and no clock. Asked by the replica.
"""

from collections.abc import Collection, Mapping
from typing import Protocol

from smrx.consensus.recovery import MetaStore


class Said(Protocol):
    """What a peer last said of itself."""

    @property
    def knows_me(self) -> bool:
        """Whether it said so to the present life of this node."""
        ...

    @property
    def new(self) -> bool:
        """Whether it never held state."""
        ...

    @property
    def learner(self) -> bool:
        """Whether it counts for nothing yet."""
        ...


class Founding:
    """One node's part in it."""

    def __init__(self, meta: MetaStore, others: Collection[int]) -> None:
        """`others` are those whom the cluster file names beside this node; it is the only one if there are none."""
        self._meta = meta
        self._others = frozenset(others)
        #: Somebody says that it holds state, or held it: the beginning is over.
        self._over = False
        if not self._others and not meta.joined:
            meta.set_settled()

    @property
    def new(self) -> bool:
        """Whether this node never held state."""
        return not self._meta.joined

    @property
    def undecided(self) -> bool:
        """Whether this node is empty, and knows neither that it is a founder nor that there is state."""
        return self.new and not self._meta.settled and not self._over

    def heard(self, said: Mapping[int, Said]) -> bool:
        """Somebody spoke to this life; return whether that makes this node a founder."""
        if not self.new:
            return False
        told = [said[peer] for peer in self._others if peer in said and said[peer].knows_me]
        self._over = not all(peer.new for peer in told)
        if self._over or self._meta.settled or len(told) < len(self._others):
            return False
        self._meta.set_settled()
        return True

    def may_stand(self, said: Mapping[int, Said]) -> bool:
        """Whether the others are as far as this node: nobody may lead before all are founders."""
        return not self.missing(said)

    def awaited(self, said: Mapping[int, Said]) -> list[int]:
        """Whom a person should look after: those not heard, else those that are not as far as this node."""
        missing = self.missing(said)
        return [peer for peer in missing if peer not in said or not said[peer].knows_me] or missing

    def missing(self, said: Mapping[int, Said]) -> list[int]:
        """Those of whom this node has to know that they are founders, and does not yet."""
        if self._over or not self.new:
            return []
        return sorted(
            peer
            for peer in self._others
            if peer not in said or not said[peer].knows_me or (said[peer].new and said[peer].learner)
        )
