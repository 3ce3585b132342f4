"""What nodes promise each other on the wire, held against what they do: votes, acknowledgements, leases.

Owns a record of the promises that left a node. The invariants of the checker break only when several things go wrong
at the right moment; a broken promise is seen at once. Told by the simulated nodes of every message they send and of
their log after every turn; raises Violation.
"""

from typing import Final

from smrx.consensus import MemoryJournal, Replica, messages
from smrx.consensus.messages import AppendReply, RequestVote, Vote
from smrx.sim.checker import Checker, Violation

#: A turn and its timer.
_SLACK_SECONDS: Final = 0.1


class Promises:
    """The promises of all nodes of a run."""

    def __init__(self, nodes: int, lease_seconds: float, checker: Checker) -> None:
        """A leader that hears no majority for `lease_seconds` must have stepped down."""
        self._majority = nodes // 2 + 1
        self._lease_seconds = lease_seconds
        self._checker = checker
        #: (term, voter) -> candidate, and the other way round.
        self._votes: dict[tuple[int, int], int] = {}
        self._voters: dict[tuple[int, int], set[int]] = {}
        #: node -> index -> term of the entry up to which it told a leader to have everything.
        self._acknowledged: dict[int, dict[int, int]] = {}
        #: The newest of these in the node's present life: (index, term).
        self._newest: dict[int, tuple[int, int]] = {}
        self._heard: dict[int, dict[int, float]] = {}
        self._led_since: dict[int, tuple[int, float]] = {}

    def started(self, node: int) -> None:
        """A node begins a new life."""
        self._heard[node] = {}
        self._led_since.pop(node, None)

    def lost_memory(self, node: int) -> None:
        """What a node acknowledged is gone, and it knows it."""
        self._newest.pop(node, None)

    def sends(self, node: int, journal: MemoryJournal, target: int, frame: bytes) -> bool:
        """A message leaves a node; return whether it belongs to an election."""
        envelope = messages.decode(frame)
        if isinstance(envelope, str):
            raise Violation(f"sense: node {node} sends what its peers must drop: {envelope}")
        body = envelope.body
        if isinstance(body, Vote):
            self._vote(node, target, body.term)
            return True
        if isinstance(body, RequestVote):
            self._vote(node, node, envelope.term)
            return True
        if isinstance(body, AppendReply) and body.success and not envelope.flags & messages.LEARNER:
            term = journal.term_at(body.next_index - 1)
            if term is not None:
                self._acknowledged.setdefault(node, {})[body.next_index - 1] = term
                self._newest[node] = max(self._newest.get(node, (0, 0)), (body.next_index - 1, term))
        return False

    def _vote(self, node: int, candidate: int, term: int) -> None:
        first = self._votes.setdefault((term, node), candidate)
        if first != candidate:
            raise Violation(f"one vote a term: node {node} votes for {candidate} in term {term}, and voted for {first}")
        self._voters.setdefault((term, candidate), set()).add(node)

    def hears(self, node: int, source: int, local: float) -> None:
        """A node takes a message of another, at a time of its own clock."""
        self._heard[node][source] = local

    def after_turn(self, node: int, replica: Replica, local: float) -> None:
        """A node has taken a turn, at a time of its own clock."""
        index, term = self._newest.get(node, (0, 0))
        if replica.last_index < index:
            if self._checker.term_at(index) == term:
                raise Violation(
                    f"what is acknowledged stays: node {node} acknowledged entry {index}, which was committed, and has "
                    f"no more than {replica.last_index} entries now"
                )
            # A later leader had other entries in their place.
            self._newest.pop(node)
        if replica.is_leader:
            self._check_leader(node, replica, local)
        else:
            self._led_since.pop(node, None)

    def _check_leader(self, node: int, replica: Replica, local: float) -> None:
        term = replica.term
        if self._led_since.get(node, (0, 0.0))[0] != term:
            self._led_since[node] = (term, local)
            voters = self._voters.get((term, node), set()) | {node}
            if len(voters) < self._majority:
                raise Violation(f"a majority elects: node {node} leads term {term} with the votes of {sorted(voters)}")
        self._check_lease(node, local)

    def _check_lease(self, node: int, local: float) -> None:
        """The member that makes a majority was heard not long ago."""
        needed = self._majority - 1
        if not needed:
            return
        heard = sorted(self._heard[node].values(), reverse=True)
        last = heard[needed - 1] if len(heard) >= needed else 0.0
        silent = local - max(last, self._led_since[node][1])
        if silent > self._lease_seconds + _SLACK_SECONDS:
            raise Violation(
                f"a leader cut off steps down: node {node} leads, and has heard no majority for {silent:.2f} s"
            )

    def applying(self, node: int, journal: MemoryJournal, index: int) -> None:
        """A node is about to apply an entry that none has applied yet: by now a majority has acknowledged it."""
        holders = {node}
        for other, acknowledged in self._acknowledged.items():
            # The newest are the last; an entry further on that is the same here stands after the same one there.
            for at, term in reversed(acknowledged.items()):
                if at >= index and journal.term_at(at) == term:
                    holders.add(other)
                    break
        if len(holders) < self._majority:
            raise Violation(
                f"a majority commits: node {node} applies entry {index}, which only nodes {sorted(holders)} have "
                "acknowledged"
            )
