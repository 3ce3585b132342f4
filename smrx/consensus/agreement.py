"""Whether the nodes have the same state, and what to do when they do not.

Owns what each peer said of its state, the search for the first command after which two nodes differ, and the verdict:
a node that a majority of the others contradicts fences itself; one in the majority names those that left it. Never
takes silence for agreement. Called by the replica for every message and every tick; asks peers through a function it
is given; no I/O, no clock of its own.

Each state hash covers the one before, so two nodes that differ after command n differ after every later one, and the
first difference is found by asking for hashes at narrowing steps.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal, Protocol

from smrx.consensus.messages import MAX_HASHES, Body, HashReply, HashRequest

log = logging.getLogger(__name__)

State = Literal["AGREE", "BEHIND", "DIVERGED", "NOT COMPARED"]

#: An unanswered question is asked again after this.
_ASK_AGAIN_SECONDS: Final = 0.1
#: A ballot that a majority could not answer by then is held again at a later command.
_BALLOT_SECONDS: Final = 0.3
#: How long a node that sees a difference waits for the others' word before it stops for want of a majority.
_UNDECIDED_SECONDS: Final = 1.0
#: A node this long short of a peer's sequence is shown as behind; less is the ordinary delay of replication.
_BEHIND_SECONDS: Final = 0.5


class HashedState(Protocol):
    """What agreement needs of the state machine."""

    def position(self) -> tuple[int, int]:
        """(applied command sequence, state hash after it)."""
        ...

    def hash_at(self, sequence: int) -> int | None:
        """The state hash after a command, None if it is not kept."""
        ...


class _Peer:
    """What one peer said."""

    def __init__(self) -> None:
        #: The last sequence compared and found equal; None before the first comparison.
        self.agreed: int | None = None
        #: A state of the peer this node has not reached: (sequence, hash, heard at).
        self.pending: tuple[int, int, float] | None = None
        #: Between these two lies the first difference: equal after `low`, different after `high`.
        self.low = 0
        self.high: int | None = None
        self.first_divergent: int | None = None
        #: The peer's answer at the sequence of the ballot.
        self.vote: tuple[int, int] | None = None
        self.asked_at = float("-inf")


class Agreement:
    """One node's view of whether the others have its state."""

    def __init__(
        self,
        node_id: int,
        peers: Iterable[int],
        machine: HashedState,
        ask: Callable[[int, Body], None],
        is_connected: Callable[[int], bool],
    ) -> None:
        """`ask` posts a message to a peer."""
        self.fenced: str | None = None
        #: Nodes a majority with this one contradicts, and the first command after which they differ.
        self.diverged: dict[int, int] = {}
        self._node_id = node_id
        self._peers = {peer: _Peer() for peer in peers}
        self._majority = (len(self._peers) + 1) // 2 + 1
        #: Whether this node is one of those whose states are counted.
        self._counted = True
        self._machine = machine
        self._ask = ask
        self._is_connected = is_connected
        self._seen_at: float | None = None
        #: The sequence at which all are asked for their hash once a difference is known, and since when.
        self._ballot: tuple[int, float] | None = None
        self._now = float("-inf")

    # What the status shows.

    @property
    def state(self) -> State:
        """AGREE: a majority had this node's hash when last compared."""
        if self.fenced is not None or self._open_dispute is not None:
            return "DIVERGED"
        if self._is_behind():
            return "BEHIND"
        return "NOT COMPARED" if self._agreed() is None else "AGREE"

    @property
    def sequence(self) -> int:
        """AGREE: the last command compared. DIVERGED: the first that differs. Else the last one applied here."""
        if self._open_dispute is not None:
            return self._open_dispute
        agreed = self._agreed()
        return agreed if agreed is not None and self.state == "AGREE" else self._machine.position()[0]

    @property
    def _open_dispute(self) -> int | None:
        """The first command after which this node and a peer not known to be the wrong one differ, if found."""
        found = [
            peer.first_divergent
            for node, peer in self._peers.items()
            if peer.first_divergent is not None and node not in self.diverged
        ]
        return min(found, default=None)

    @property
    def first_divergent(self) -> int | None:
        """The first command on which any two nodes are known to differ, whoever is wrong."""
        found = [peer.first_divergent for peer in self._peers.values() if peer.first_divergent is not None]
        return min(found, default=None)

    def set_voters(self, voters: Iterable[int]) -> None:
        """From now on the states of these nodes are compared and counted."""
        voters = set(voters)
        self._counted = self._node_id in voters
        self._majority = len(voters) // 2 + 1
        voters.discard(self._node_id)
        self._peers = {node: self._peers.get(node) or _Peer() for node in sorted(voters)}
        self.diverged = {node: first for node, first in self.diverged.items() if node in voters}

    def fence(self, reason: str) -> None:
        """Leave the cluster's work: this node's state cannot be trusted. The first reason stays."""
        if self.fenced is None:
            log.critical("node %d leaves the majority: %s", self._node_id, reason)
            self.fenced = reason

    # What the replica feeds in.

    def observe(self, node: int, sequence: int, state_hash: int, now: float) -> None:
        """A peer says its state after a command."""
        peer = self._peers.get(node)
        if peer is None or peer.high is not None:
            return
        mine = self._hash_at(sequence)
        if mine is not None:
            self._compare(node, peer, sequence, state_hash == mine, now)
        elif sequence > self._machine.position()[0] and peer.pending is None:
            peer.pending = (sequence, state_hash, now)

    def answer(self, node: int, request: HashRequest) -> None:
        """Tell a peer the hashes it asks for."""
        known = [(sequence, self._hash_at(sequence)) for sequence in request.sequences]
        self._ask(node, HashReply(known))

    def answered(self, node: int, reply: HashReply, now: float) -> None:
        """A peer tells the hashes it was asked for."""
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
            # The next question may go at once. An answer that brings nothing must not ask it again: that would loop.
            peer.asked_at = float("-inf")
        self._narrow(node, peer, now)
        self._judge(now)

    def tick(self, now: float) -> None:
        """Compare what this node has reached by now, and pursue open differences."""
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
        """A peer came back in a new life: what it said before is of no account, what it did stays named."""
        if node in self._peers:
            self._peers[node] = _Peer()
        self.diverged.pop(node, None)

    def restart(self) -> None:
        """This node's state was replaced by a snapshot: nothing of it has been compared."""
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
        """Ask for hashes between equal and different until they are neighbours."""
        if peer.high is None or peer.first_divergent is not None:
            return
        questions = steps(peer.low + 1, peer.high - 1, MAX_HASHES)
        # What this node no longer has it cannot compare: the search ends at the first command it can speak of.
        questions = [sequence for sequence in questions if self._hash_at(sequence) is not None]
        if not questions:
            peer.first_divergent = peer.high
            log.error("the first difference between node %d and node %d: command %d", self._node_id, node, peer.high)
        elif now - peer.asked_at >= _ASK_AGAIN_SECONDS:
            peer.asked_at = now
            self._ask(node, HashRequest(questions))

    # The verdict.

    def _judge(self, now: float) -> None:
        """Once the first difference is found, let the state that a majority of the cluster holds stand."""
        first = self._open_dispute
        if first is None or self.fenced is not None:
            return
        # Asked about now, not about the first difference: under load that one leaves the rings within a fraction of
        # a second, and two nodes that differed once differ ever after.
        if self._ballot is None or now - self._ballot[1] >= _BALLOT_SECONDS:
            self._ballot = (max(first, self._machine.position()[0]), now)
            for peer in self._peers.values():
                peer.asked_at = float("-inf")
        sequence, _ = self._ballot
        mine = self._hash_at(sequence)
        if mine is None:
            return
        votes: dict[int, list[int]] = {mine: [self._node_id] if self._counted else []}
        silent = []
        for node, peer in self._peers.items():
            theirs = self._vote_of(node, peer, sequence, mine, now)
            if theirs is None:
                silent.append(node)
            else:
                votes.setdefault(theirs, []).append(node)
        standing = max(votes.values(), key=len)
        if len(standing) >= self._majority:
            self._decide(standing, first, votes[mine])
        elif (
            self._seen_at is not None
            and now - self._seen_at >= _UNDECIDED_SECONDS
            and not any(self._is_connected(node) for node in silent)
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

    def _decide(self, standing: Sequence[int], first: int, with_this: Sequence[int]) -> None:
        # Not whether this node is among them: one without a vote is not counted, and right all the same.
        if standing is not with_this:
            others = " and ".join(str(node) for node in sorted(standing))
            self.fence(f"diverged at command {first}: nodes {others} hold another state after it")
            return
        for node, peer in self._peers.items():
            if peer.high is not None and node not in standing and node not in self.diverged:
                self.diverged[node] = peer.first_divergent or first
                log.critical("node %d diverged at command %d", node, self.diverged[node])
        self._ballot = None
        if self._open_dispute is None:
            self._seen_at = None

    def _agreed(self) -> int | None:
        """The last command for which a majority, this node included, is known to have this node's state."""
        agreed = sorted((peer.agreed for peer in self._peers.values() if peer.agreed is not None), reverse=True)
        needed = self._majority - self._counted
        return agreed[needed - 1] if 0 < needed <= len(agreed) else None

    def _is_behind(self) -> bool:
        position, _ = self._machine.position()
        return any(
            peer.pending is not None and peer.pending[0] > position and self._now - peer.pending[2] >= _BEHIND_SECONDS
            for peer in self._peers.values()
        )


def steps(first: int, last: int, most: int) -> list[int]:
    """Return at most `most` numbers of first..last, evenly spread and ending with `last`."""
    count = last - first + 1
    if count <= 0:
        return []
    if count <= most:
        return list(range(first, last + 1))
    return [first + (count * (step + 1)) // most - 1 for step in range(most)]
