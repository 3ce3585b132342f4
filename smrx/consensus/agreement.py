"""Compare the state hashes of the nodes, and fence a node that a majority contradicts.

Owns the state that each peer has reported, the search for the first command after which two nodes differ, and the
decision: a node that a majority of the cluster contradicts, or that finds no majority, fences itself; a node in the
majority records which ones diverged. A peer that does not report is never counted as agreeing. Called by the replica
for every message and every tick; sends requests through a function it is given; no I/O, no clock of its own.

Each state hash covers the one before, so two nodes that differ after command n differ after every later one, and the
first difference is found by asking for hashes at narrowing steps.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal, Protocol

from smrx.consensus.messages import MAX_HASHES, Body, HashReply, HashRequest

log = logging.getLogger(__name__)

State = Literal["AGREE", "BEHIND", "DIVERGED", "NOT COMPARED"]

#: A request without a reply is sent again after this time.
_ASK_AGAIN_SECONDS: Final = 0.1
#: A ballot that a majority has not answered by then is repeated at a later command.
_BALLOT_SECONDS: Final = 0.3
#: How long a node that sees a difference waits for the other nodes before it fences itself without a majority.
_UNDECIDED_SECONDS: Final = 1.0
#: A node that lags a peer's sequence for this time is shown as behind; less is the normal delay of replication.
_BEHIND_SECONDS: Final = 0.5


class HashedState(Protocol):
    """What the comparison needs of the state machine."""

    def position(self) -> tuple[int, int]:
        """Return (applied command sequence, state hash after it)."""
        ...

    def hash_at(self, sequence: int) -> int | None:
        """Return the state hash after a command, None if it is not kept."""
        ...


class _Peer:
    """What one peer has reported."""

    def __init__(self) -> None:
        #: The last sequence compared and found equal; None before the first comparison.
        self.agreed: int | None = None
        #: A state of the peer that this node has not reached: (sequence, hash, received at).
        self.pending: tuple[int, int, float] | None = None
        #: The first difference is between these two: equal after `low`, different after `high`.
        self.low = 0
        self.high: int | None = None
        self.first_divergent: int | None = None
        #: The peer's (sequence, hash) at the sequence of the ballot.
        self.vote: tuple[int, int] | None = None
        self.asked_at = float("-inf")


class Agreement:
    """One node's comparison of its state with that of the others."""

    def __init__(
        self,
        node_id: int,
        peers: Iterable[int],
        machine: HashedState,
        ask: Callable[[int, Body], None],
        is_connected: Callable[[int], bool],
    ) -> None:
        """`ask` sends a message to a peer."""
        self.fenced: str | None = None
        #: Nodes that a majority with this one contradicts, and the first command after which they differ.
        self.diverged: dict[int, int] = {}
        self._node_id = node_id
        self._peers = {peer: _Peer() for peer in peers}
        self._majority = (len(self._peers) + 1) // 2 + 1
        #: Whether this node is a voter, so that its state counts.
        self._counted = True
        self._machine = machine
        self._ask = ask
        self._is_connected = is_connected
        self._seen_at: float | None = None
        #: The (sequence, start time) of the ballot: all nodes are asked for their hash after this command.
        self._ballot: tuple[int, float] | None = None
        self._now = float("-inf")

    # For the status.

    @property
    def state(self) -> State:
        """The result; AGREE: a majority had this node's hash when last compared."""
        if self.fenced is not None or self._open_dispute is not None:
            return "DIVERGED"
        if self._is_behind():
            return "BEHIND"
        return "NOT COMPARED" if self._agreed() is None else "AGREE"

    @property
    def sequence(self) -> int:
        """AGREE: the last command compared. DIVERGED: the first that differs. Otherwise the last one applied here."""
        if self._open_dispute is not None:
            return self._open_dispute
        agreed = self._agreed()
        return agreed if agreed is not None and self.state == "AGREE" else self._machine.position()[0]

    @property
    def _open_dispute(self) -> int | None:
        """The first command after which this node and a peer that is not known to be wrong differ, if found."""
        found = [
            peer.first_divergent
            for node, peer in self._peers.items()
            if peer.first_divergent is not None and node not in self.diverged
        ]
        return min(found, default=None)

    @property
    def first_divergent(self) -> int | None:
        """The first command after which this node and any peer are known to differ."""
        found = [peer.first_divergent for peer in self._peers.values() if peer.first_divergent is not None]
        return min(found, default=None)

    def set_voters(self, voters: Iterable[int]) -> None:
        """Set the nodes whose states are compared and counted."""
        voters = set(voters)
        self._counted = self._node_id in voters
        self._majority = len(voters) // 2 + 1
        voters.discard(self._node_id)
        self._peers = {node: self._peers.get(node) or _Peer() for node in sorted(voters)}
        self.diverged = {node: first for node, first in self.diverged.items() if node in voters}

    def fence(self, reason: str) -> None:
        """Fence this node: its state is not reliable. The first reason is kept."""
        if self.fenced is None:
            log.critical("node %d is fenced: %s", self._node_id, reason)
            self.fenced = reason

    # Called by the replica.

    def observe(self, node: int, sequence: int, state_hash: int, now: float) -> None:
        """Compare a peer's state hash after a command with this node's."""
        peer = self._peers.get(node)
        if peer is None or peer.high is not None:
            return
        mine = self._hash_at(sequence)
        if mine is not None:
            self._compare(node, peer, sequence, state_hash == mine, now)
        elif sequence > self._machine.position()[0] and peer.pending is None:
            peer.pending = (sequence, state_hash, now)

    def answer(self, node: int, request: HashRequest) -> None:
        """Reply to a peer with the hashes it requests."""
        known = [(sequence, self._hash_at(sequence)) for sequence in request.sequences]
        self._ask(node, HashReply(known))

    def answered(self, node: int, reply: HashReply, now: float) -> None:
        """Use the hashes of a peer's reply."""
        peer = self._peers.get(node)
        if peer is None:
            return
        for sequence, theirs in reply.hashes:
            if theirs is None:
                continue
            if self._ballot is not None and sequence == self._ballot[0]:
                peer.vote = (sequence, theirs)
            mine = self._hash_at(sequence)
            if mine is None or peer.high is None or sequence >= peer.high:
                continue
            if theirs != mine:
                peer.high = sequence
            else:
                peer.low = max(peer.low, sequence)
            # The next request may be sent at once. A reply without new hashes must not repeat it: that would loop.
            peer.asked_at = float("-inf")
        self._narrow(node, peer, now)
        self._judge(now)

    def tick(self, now: float) -> None:
        """Compare what this node has reached by now, and continue open searches."""
        self._now = now
        for node, peer in self._peers.items():
            if peer.pending is not None:
                sequence, theirs, _ = peer.pending
                if sequence <= self._machine.position()[0]:
                    peer.pending = None
                    mine = self._hash_at(sequence)
                    if mine is not None:
                        self._compare(node, peer, sequence, mine == theirs, now)
            if peer.high is not None and peer.first_divergent is None:
                self._narrow(node, peer, now)
        if self._seen_at is not None:
            self._judge(now)

    def forget(self, node: int) -> None:
        """Drop what a peer has reported: it has a new incarnation."""
        if node in self._peers:
            self._peers[node] = _Peer()
        self.diverged.pop(node, None)

    def restart(self) -> None:
        """Drop every comparison: this node's state was replaced by a snapshot."""
        for node in self._peers:
            self._peers[node] = _Peer()

    # The search.

    def _hash_at(self, sequence: int) -> int | None:
        position, state_hash = self._machine.position()
        return state_hash if sequence == position else self._machine.hash_at(sequence)

    def _compare(self, node: int, peer: _Peer, sequence: int, equal: bool, now: float) -> None:
        if equal:
            peer.agreed = max(peer.agreed or 0, sequence)
            return
        log.error("node %d and node %d differ after command %d", self._node_id, node, sequence)
        peer.low, peer.high = peer.agreed or 0, sequence
        if self._seen_at is None:
            self._seen_at = now
        self._narrow(node, peer, now)
        self._judge(now)

    def _narrow(self, node: int, peer: _Peer, now: float) -> None:
        """Request hashes between the equal and the different command until they are adjacent."""
        if peer.high is None or peer.first_divergent is not None:
            return
        questions = steps(peer.low + 1, peer.high - 1, MAX_HASHES)
        # Hashes that this node no longer keeps cannot be compared: the search ends at the first one it keeps.
        questions = [sequence for sequence in questions if self._hash_at(sequence) is not None]
        if not questions:
            peer.first_divergent = peer.high
            log.error("the first difference between node %d and node %d: command %d", self._node_id, node, peer.high)
        elif now - peer.asked_at >= _ASK_AGAIN_SECONDS:
            peer.asked_at = now
            self._ask(node, HashRequest(questions))

    # The decision.

    def _judge(self, now: float) -> None:
        """Once the first difference is found, find the state that a majority of the cluster holds."""
        first = self._open_dispute
        if first is None or self.fenced is not None:
            return
        # At the present command, not at the first difference: under load the hash of that one is dropped within a
        # fraction of a second, and nodes that differ once differ after every later command.
        if self._ballot is None or now - self._ballot[1] >= _BALLOT_SECONDS:
            self._ballot = (max(first, self._machine.position()[0]), now)
            for peer in self._peers.values():
                peer.asked_at = float("-inf")
        sequence, _ = self._ballot
        mine = self._hash_at(sequence)
        if mine is None:
            return
        votes: dict[int, list[int]] = {mine: [self._node_id] if self._counted else []}
        unanswered = []
        for node, peer in self._peers.items():
            theirs = self._vote_of(node, peer, sequence, mine, now)
            if theirs is None:
                unanswered.append(node)
            else:
                votes.setdefault(theirs, []).append(node)
        prevailing = max(votes.values(), key=len)
        if len(prevailing) >= self._majority:
            self._decide(prevailing, first, votes[mine])
        elif (
            self._seen_at is not None
            and now - self._seen_at >= _UNDECIDED_SECONDS
            and not any(self._is_connected(node) for node in unanswered)
        ):
            self.fence(f"diverged at command {first}, and no majority of the cluster holds one state after it")

    def _vote_of(self, node: int, peer: _Peer, sequence: int, mine: int, now: float) -> int | None:
        if peer.vote is not None and peer.vote[0] == sequence:
            return peer.vote[1]
        if peer.agreed is not None and peer.agreed >= sequence:
            return mine
        if now - peer.asked_at >= _ASK_AGAIN_SECONDS:
            peer.asked_at = now
            self._ask(node, HashRequest([sequence]))
        return None

    def _decide(self, prevailing: Sequence[int], first: int, with_this: Sequence[int]) -> None:
        # By identity, not by whether this node is in the list: a learner is not counted, and may hold the right state.
        if prevailing is not with_this:
            others = " and ".join(str(node) for node in sorted(prevailing))
            self.fence(
                f"diverged at command {first}: nodes {others} hold another state after it; {remedy(self._node_id)}"
            )
            return
        for node, peer in self._peers.items():
            if peer.high is not None and node not in prevailing and node not in self.diverged:
                self.diverged[node] = peer.first_divergent or first
                log.critical("node %d diverged at command %d", node, self.diverged[node])
        self._ballot = None
        if self._open_dispute is None:
            self._seen_at = None

    def _agreed(self) -> int | None:
        """Return the last command for which a majority is known to have this node's state."""
        agreed = sorted((peer.agreed for peer in self._peers.values() if peer.agreed is not None), reverse=True)
        needed = self._majority - self._counted
        return agreed[needed - 1] if 0 < needed <= len(agreed) else None

    def _is_behind(self) -> bool:
        position, _ = self._machine.position()
        return any(
            peer.pending is not None and peer.pending[0] > position and self._now - peer.pending[2] >= _BEHIND_SECONDS
            for peer in self._peers.values()
        )


def remedy(node: int) -> str:
    """Return what an operator has to do about a node whose state is wrong."""
    return f"stop it and run `smrx node --id {node} --rebuild`: it then catches up with the others"


def steps(first: int, last: int, most: int) -> list[int]:
    """Return at most `most` numbers of first..last, evenly spread and ending with `last`."""
    count = last - first + 1
    if count <= 0:
        return []
    if count <= most:
        return list(range(first, last + 1))
    return [first + (count * (step + 1)) // most - 1 for step in range(most)]
