"""Transfer the leadership to another member, so that clients wait for a moment instead of an election.

Owns the one transfer under way: the successor gets the whole log, then TimeoutNow, and campaigns at once (Ongaro's
thesis, 3.10). Meanwhile the leader takes no commands. Called by an operator's request and at each tick.
"""

import logging
from typing import Final

from smrx.consensus.context import NotLeader, ReplicaContext
from smrx.consensus.messages import TimeoutNow
from smrx.consensus.raft_library import now

log = logging.getLogger(__name__)

#: A transfer that takes longer is abandoned: no commands are taken meanwhile.
_TRANSFER_SECONDS: Final = 0.5
#: A leader with a wrong clock tries to transfer at most this often: in each attempt no commands are taken for a while.
_CLOCK_RETRY_SECONDS: Final = 5.0


class LeadershipTransfer:
    """The part of a replica that transfers its leadership."""

    def __init__(self, context: ReplicaContext) -> None:
        self._context = context
        self._raft = context.raft
        self._journal = context.journal
        self._members = context.members
        self._successor: int | None = None
        self._is_sent = False
        self._next_clock_transfer = float("-inf")
        #: When the transfer is abandoned; infinity if there is none.
        self.deadline = float("inf")

    @property
    def is_active(self) -> bool:
        """Whether a transfer is under way, so that commands have to wait."""
        return self._successor is not None

    def start(self, peer: int | None = None) -> int:
        """Begin a transfer; return the successor.

        If none is named, it is the member with the longest log among those whose clocks are not wrong, or among all if
        there are no such members. Raises NotLeader; ValueError if no member, or not the one named, can lead.
        """
        voters = self._members.voters
        if not self._raft.is_leader:
            raise NotLeader
        if peer is not None and peer not in voters:
            known = ", ".join(map(str, sorted(voters)))
            raise ValueError(f"node {peer} is not one of the other members with a vote ({known})")
        clock_fault = None if peer is None else self._context.clock.peer_fault(peer, now())
        if clock_fault is not None:
            raise ValueError(f"{clock_fault}; nothing was changed")
        eligible = [other for other in sorted(voters) if self._context.is_available(other)]
        if peer is None and eligible:
            peer = max(self._with_right_clocks(eligible) or eligible, key=self._raft.match_index)
        if peer is None or peer not in eligible:
            fault = "no other member is connected and holds the state"
            if peer is not None:
                fault = f"node {peer} is not connected or does not hold the state"
            raise ValueError(f"{fault}; nothing was changed")
        self._successor, self._is_sent, self.deadline = peer, False, now() + _TRANSFER_SECONDS
        self.advance()
        return peer

    def _with_right_clocks(self, nodes: list[int]) -> list[int]:
        return [node for node in nodes if self._context.clock.peer_fault(node, now()) is None]

    def leave_if_clock_is_wrong(self) -> None:
        """If this node leads with a wrong clock, begin a transfer to a member with a right one.

        Without such a member it leads on: its stamps are bounded, and clients would wait for nothing.
        """
        if not self._context.clock.is_wrong or not self._raft.is_leader or self.is_active:
            return
        available = [peer for peer in sorted(self._members.voters) if self._context.is_available(peer)]
        successors = self._with_right_clocks(available)
        if successors and now() >= self._next_clock_transfer:
            self._next_clock_transfer = now() + _CLOCK_RETRY_SECONDS
            successor = self.start(max(successors, key=self._raft.match_index))
            log.warning("node %d: its clock is wrong, so node %d is to lead", self._context.node_id, successor)

    def cancel(self) -> None:
        """End the transfer."""
        self._successor, self.deadline = None, float("inf")

    def advance(self) -> None:
        """Send TimeoutNow once the successor has the whole log; end a transfer that is done or takes too long."""
        peer = self._successor
        if peer is None:
            return
        if not self._raft.is_leader:
            self.cancel()
        elif now() >= self.deadline:
            log.warning("node %d: node %d did not take over the leadership in time", self._context.node_id, peer)
            self.cancel()
        elif peer not in self._members.voters:
            self.cancel()
        elif not self._is_sent and self._raft.commit_index == self._journal.last_index == self._raft.match_index(peer):
            self._is_sent = True
            self._context.transport.post(peer, TimeoutNow())
