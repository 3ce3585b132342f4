"""What nodes promise each other on the wire, held against what they do: votes, acknowledgements, leases.

Owns a record of the promises that left a node. The invariants of the checker break only when several things go wrong
at the right moment; a broken promise is seen at once. Told by the simulated nodes of every message they send and of
their log after every turn; raises Violation.
"""

from collections.abc import Callable
from typing import Final

from smrx.consensus import MemoryJournal, Replica, messages
from smrx.consensus.membership import decode
from smrx.consensus.messages import AppendEntries, AppendReply, RequestVote, Vote
from smrx.sim.checker import Checker, Violation
from smrx.sim.electorate import Electorate, majority

#: Whether an entry (index, term) is where it survives a crash of its node, as far as the node's mode asks for it.
Written = Callable[[int, int], bool]

#: A turn and its timer.
_SLACK_SECONDS: Final = 0.1
#: What an entry may be larger than its commands: a header, half of it to spare.
_ENTRY_BYTES: Final = 64
#: What an entry takes on the wire beside its bytes (their number, term and index), and a message beside its entries.
_PLACE_BYTES: Final = 24
_FRAME_BYTES: Final = 160


class Promises:
    """The promises of all nodes of a run."""

    def __init__(self, electorate: Electorate, lease_seconds: float, checker: Checker) -> None:
        """A leader that hears no majority for `lease_seconds` must have stepped down."""
        self._electorate = electorate
        self._lease_seconds = lease_seconds
        self._checker = checker
        #: (term, voter, how often it was replaced) -> candidate, and the other way round.
        self._votes: dict[tuple[int, int, int], int] = {}
        self._voters: dict[tuple[int, int], set[int]] = {}
        #: node -> index -> term of the entry up to which it told a leader to have everything.
        self._acknowledged: dict[int, dict[int, int]] = {}
        #: The newest of these in the node's present life: (index, term).
        self._newest: dict[int, tuple[int, int]] = {}
        self._heard: dict[int, dict[int, float]] = {}
        self._led_since: dict[int, tuple[int, float]] = {}
        #: A leader's membership, and since when.
        self._counts_since: dict[int, tuple[tuple[int, bytes], float]] = {}
        self._replaced: dict[int, int] = {}
        #: Nodes that know in their present life that they were removed.
        self._ended: set[int] = set()
        self._written: dict[int, Written] = {}

    def writes(self, node: int, written: Written) -> None:
        """There is a node, and this is how its disk is looked at."""
        self._written[node] = written

    def started(self, node: int) -> None:
        """A node begins a new life."""
        self._ended.discard(node)
        self._heard[node] = {}
        self._led_since.pop(node, None)

    def replaced(self, node: int) -> None:
        """Another node has the number of one that was no member any more: it promised nothing yet."""
        self._replaced[node] = self._replaced.get(node, 0) + 1
        self._acknowledged.pop(node, None)
        self._newest.pop(node, None)

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
        if isinstance(body, AppendEntries):
            self._check_size(node, body, frame)
            return False
        if isinstance(body, AppendReply) and body.success and not envelope.flags & messages.LEARNER:
            term = journal.term_at(body.next_index - 1)
            if term is not None:
                if not self._written[node](body.next_index - 1, term):
                    raise Violation(
                        f"an honest word: node {node} acknowledges entry {body.next_index - 1}, not on its disk"
                    )
                self._acknowledged.setdefault(node, {})[body.next_index - 1] = term
                self._newest[node] = max(self._newest.get(node, (0, 0)), (body.next_index - 1, term))
        return False

    def entered(self, node: int, entry: bytes, commands: int) -> None:
        """A leader put an entry of so many bytes of commands into its log."""
        if len(entry) > commands + _ENTRY_BYTES:
            raise Violation(
                f"a small log: node {node} makes {len(entry)} bytes of {commands} bytes of commands, where "
                f"{_ENTRY_BYTES} more are enough"
            )

    def _check_size(self, node: int, body: AppendEntries, frame: bytes) -> None:
        most = sum([len(entry) for entry, _, _ in body.entries]) + _PLACE_BYTES * len(body.entries) + _FRAME_BYTES
        if len(frame) > most:
            raise Violation(
                f"a small log: node {node} sends {len(frame)} bytes where {most} are enough for the entries"
            )

    def _vote(self, node: int, candidate: int, term: int) -> None:
        first = self._votes.setdefault((term, node, self._replaced.get(node, 0)), candidate)
        if first != candidate:
            raise Violation(f"one vote a term: node {node} votes for {candidate} in term {term}, and voted for {first}")
        self._voters.setdefault((term, candidate), set()).add(node)

    def hears(self, node: int, source: int, local: float) -> None:
        """A node takes a message of another, at a time of its own clock."""
        self._heard[node][source] = local

    def after_turn(self, node: int, replica: Replica, journal: MemoryJournal, local: float) -> None:
        """A node has taken a turn, at a time of its own clock."""
        self.committed(node, journal, replica.commit_index)
        index, term = self._newest.get(node, (0, 0))
        if replica.last_index < index:
            if self._checker.term_at(index) == term:
                raise Violation(
                    f"what is acknowledged stays: node {node} acknowledged entry {index}, which was committed, and has "
                    f"no more than {replica.last_index} entries now"
                )
            # A later leader had other entries in their place.
            self._newest.pop(node)
        if replica.removed and node not in self._ended:
            # A real one ends here, and nobody starts it again.
            self._ended.add(node)
            if node in self._electorate.at(replica.commit_index).ids:
                raise Violation(
                    f"members stay: node {node} takes itself for removed, and is a member by all that is committed up "
                    f"to its entry {replica.commit_index}"
                )
        if replica.is_leader:
            self._check_leader(node, replica.term, journal, local)
        else:
            self._led_since.pop(node, None)

    def _check_leader(self, node: int, term: int, journal: MemoryJournal, local: float) -> None:
        if self._led_since.get(node, (0, 0.0))[0] != term:
            self._led_since[node] = (term, local)
            voters = self._voters.get((term, node), set()) | {node}
            members = self._electorate.electing(journal, term)
            if len(voters & members.voters) < majority(members):
                raise Violation(
                    f"a majority elects: node {node} leads term {term} with the votes of {sorted(voters)}, where "
                    f"{sorted(members.voters)} have one"
                )
        if self._counts_since.get(node, ((0, b""), 0.0))[0] != journal.membership:
            # Whoever has a vote from now on is given the time to be heard.
            self._counts_since[node] = (journal.membership, local)
        self._check_lease(node, journal, local)

    def _check_lease(self, node: int, journal: MemoryJournal, local: float) -> None:
        """The member that makes a majority was heard not long ago."""
        (_, entry), counts_since = self._counts_since[node]
        members = decode(entry)
        needed = majority(members) - (node in members.voters)
        if needed <= 0:
            return
        heard = sorted((at for peer, at in self._heard[node].items() if peer in members.voters), reverse=True)
        last = heard[needed - 1] if len(heard) >= needed else 0.0
        silent = local - max(last, self._led_since[node][1], counts_since)
        if silent > self._lease_seconds + _SLACK_SECONDS:
            raise Violation(
                f"a leader cut off steps down: node {node} leads, and has heard no majority for {silent:.2f} s"
            )

    def committed(self, node: int, journal: MemoryJournal, index: int) -> None:
        """A node takes its log up to an entry for committed: the memberships in it were acknowledged, too."""
        for at in self._electorate.learn(node, journal, index):
            if journal.term_at(at) is not None:
                self._check_holders(node, journal, at)

    def applying(self, node: int, journal: MemoryJournal, index: int) -> None:
        """A node is about to apply an entry that none has applied yet: by now a majority has acknowledged it."""
        self.committed(node, journal, index)
        self._check_holders(node, journal, index)

    def _check_holders(self, node: int, journal: MemoryJournal, index: int) -> None:
        term_here = journal.term_at(index)
        # A leader counts itself, too: for what it has written.
        holders = {node} if term_here is not None and self._written[node](index, term_here) else set()
        for other, acknowledged in self._acknowledged.items():
            # The newest are the last; an entry further on that is the same here stands after the same one there.
            for at, term in reversed(acknowledged.items()):
                if at >= index and journal.term_at(at) == term:
                    holders.add(other)
                    break
        deciding = self._electorate.deciding(journal, index)
        if not any(len(holders & members.voters) >= majority(members) for members in deciding):
            raise Violation(
                f"a majority commits: node {node} takes entry {index} for committed, which only nodes "
                f"{sorted(holders)} have written or acknowledged, where "
                f"{' or '.join(str(sorted(members.voters)) for members in deciding)} have a vote"
            )
