"""Check what nodes guarantee each other on the wire: votes, acknowledgements and leases.

Owns a record of the guarantees in the messages that left each node. The checker notices a broken guarantee only when
several faults coincide; this module notices it at once. Simulated nodes report every message they send, and their log
after every turn; a contradiction raises Violation.
"""

from collections.abc import Callable
from typing import Final

from smrx.consensus import MemoryJournal, Replica, messages
from smrx.consensus.membership import decode
from smrx.consensus.messages import AppendEntries, AppendReply, RequestVote, Vote
from smrx.sim.checker import Checker, Violation
from smrx.sim.membership_history import MembershipHistory, majority

#: Return whether an entry (index, term) survives a crash of its node, as far as the node's mode requires.
IsDurable = Callable[[int, int], bool]

#: A turn and its timer.
_SLACK_SECONDS: Final = 0.1
#: How many bytes an entry may have besides its commands: a header, half of it to spare.
_ENTRY_OVERHEAD_BYTES: Final = 64
#: What a message adds to an entry (length, term and index), and what it has besides entries.
_PER_ENTRY_BYTES: Final = 24
_ENVELOPE_BYTES: Final = 160


class WireInvariants:
    """The guarantees of all nodes of a run."""

    def __init__(self, history: MembershipHistory, lease_seconds: float, checker: Checker) -> None:
        """A leader that receives nothing from a majority for `lease_seconds` must step down."""
        self._history = history
        self._lease_seconds = lease_seconds
        self._checker = checker
        #: (term, voter, how often it was replaced) -> candidate
        self._votes: dict[tuple[int, int, int], int] = {}
        #: (term, candidate) -> voters
        self._voters: dict[tuple[int, int], set[int]] = {}
        #: node -> index -> term of each entry up to which the node acknowledged the log to a leader.
        self._acknowledged: dict[int, dict[int, int]] = {}
        #: node -> (index, term) of the newest of these that the node still holds.
        self._newest: dict[int, tuple[int, int]] = {}
        #: node -> peer -> local time of the last message from the peer.
        self._received_at: dict[int, dict[int, float]] = {}
        #: node -> (term, local time) since when it leads.
        self._led_since: dict[int, tuple[int, float]] = {}
        #: node -> the leader's membership, its voters, and since when it has it.
        self._membership_since: dict[int, tuple[tuple[int, bytes], frozenset[int], float]] = {}
        #: node -> how often a new node reused its id.
        self._replaced: dict[int, int] = {}
        #: Nodes that learned in this incarnation that they were removed.
        self._removed: set[int] = set()
        self._is_durable: dict[int, IsDurable] = {}

    def add_node(self, node: int, is_durable: IsDurable) -> None:
        """Register a node and the function that inspects its disk."""
        self._is_durable[node] = is_durable

    def started(self, node: int) -> None:
        """Record that a node starts a new incarnation."""
        self._removed.discard(node)
        self._received_at[node] = {}
        self._led_since.pop(node, None)

    def replaced(self, node: int) -> None:
        """Record that a new node reuses the id of a removed one: it has given no guarantee yet."""
        self._replaced[node] = self._replaced.get(node, 0) + 1
        self._acknowledged.pop(node, None)
        self._newest.pop(node, None)

    def lost_memory(self, node: int) -> None:
        """Record that a node lost the entries it acknowledged, and starts without them."""
        self._newest.pop(node, None)

    def message_sent(self, node: int, journal: MemoryJournal, target: int, frame: bytes) -> bool:
        """Record a message that leaves a node; return whether it belongs to an election."""
        envelope = messages.decode(frame)
        if isinstance(envelope, str):
            raise Violation(f"valid messages: node {node} sends a message that its peers drop: {envelope}")
        body = envelope.body
        if isinstance(body, Vote):
            self._record_vote(node, target, body.term)
            return True
        if isinstance(body, RequestVote):
            self._record_vote(node, node, envelope.term)
            return True
        if isinstance(body, AppendEntries):
            self._check_message_size(node, body, frame)
            return False
        if isinstance(body, AppendReply) and body.success and not envelope.flags & messages.LEARNER:
            term = journal.term_at(body.next_index - 1)
            if term is not None:
                if not self._is_durable[node](body.next_index - 1, term):
                    raise Violation(
                        f"durable acknowledgement: node {node} acknowledges entry {body.next_index - 1}, which is not "
                        "on its disk"
                    )
                self._acknowledged.setdefault(node, {})[body.next_index - 1] = term
                self._newest[node] = max(self._newest.get(node, (0, 0)), (body.next_index - 1, term))
        return False

    def entry_logged(self, node: int, entry: bytes, command_bytes: int) -> None:
        """Check the size of an entry that a leader put into its log for so many bytes of commands."""
        if len(entry) > command_bytes + _ENTRY_OVERHEAD_BYTES:
            raise Violation(
                f"entry size: node {node} logs {len(entry)} bytes for {command_bytes} bytes of commands; at most "
                f"{_ENTRY_OVERHEAD_BYTES} more are needed"
            )

    def _check_message_size(self, node: int, body: AppendEntries, frame: bytes) -> None:
        entry_bytes = sum([len(entry) for entry, _, _ in body.entries])
        limit = entry_bytes + _PER_ENTRY_BYTES * len(body.entries) + _ENVELOPE_BYTES
        if len(frame) > limit:
            raise Violation(f"entry size: node {node} sends {len(frame)} bytes for entries that need at most {limit}")

    def _record_vote(self, node: int, candidate: int, term: int) -> None:
        first = self._votes.setdefault((term, node, self._replaced.get(node, 0)), candidate)
        if first != candidate:
            raise Violation(
                f"one vote per term: node {node} votes for {candidate} in term {term} and voted for {first} before"
            )
        self._voters.setdefault((term, candidate), set()).add(node)

    def message_received(self, node: int, source: int, local: float) -> None:
        """Record that a node reads a message of a peer, at a time of the node's clock."""
        self._received_at[node][source] = local

    def after_turn(self, node: int, replica: Replica, journal: MemoryJournal, local: float) -> None:
        """Check a node after a turn, at a time of the node's clock."""
        self.after_commit(node, journal, replica.commit_index)
        index, term = self._newest.get(node, (0, 0))
        if replica.last_index < index:
            if self._checker.term_at(index) == term:
                raise Violation(
                    f"acknowledged entries stay: node {node} acknowledged entry {index}, which was committed, and now "
                    f"has only {replica.last_index} entries"
                )
            # A later leader had other entries in their place.
            self._newest.pop(node)
        if replica.removed and node not in self._removed:
            # The process of a real node ends here and is not restarted.
            self._removed.add(node)
            if node in self._history.at(replica.commit_index).ids:
                raise Violation(
                    f"members stay: node {node} considers itself removed, and is a member by the log committed up to "
                    f"its entry {replica.commit_index}"
                )
        if replica.is_leader:
            self._check_leader(node, replica.term, journal, local)
        else:
            self._led_since.pop(node, None)

    def _check_leader(self, node: int, term: int, journal: MemoryJournal, local: float) -> None:
        if self._led_since.get(node, (0, 0.0))[0] != term:
            self._led_since[node] = (term, local)
            voters = self._voters.get((term, node), set()) | {node}
            members = self._history.electing(journal, term)
            if len(voters & members.voters) < majority(members):
                raise Violation(
                    f"a majority elects: node {node} leads term {term} with the votes of {sorted(voters)}; the voters "
                    f"are {sorted(members.voters)}"
                )
        if node not in self._membership_since or self._membership_since[node][0] != journal.membership:
            # A new voter gets the time of a lease for its first message.
            self._membership_since[node] = (journal.membership, decode(journal.membership[1]).voters, local)
        self._check_lease(node, local)

    def _check_lease(self, node: int, local: float) -> None:
        """Check that a leader received messages from a majority within the lease."""
        _, voters, membership_since = self._membership_since[node]
        needed = len(voters) // 2 + 1 - (node in voters)
        if needed <= 0:
            return
        received = sorted((at for peer, at in self._received_at[node].items() if peer in voters), reverse=True)
        last = received[needed - 1] if len(received) >= needed else 0.0
        silent = local - max(last, self._led_since[node][1], membership_since)
        if silent > self._lease_seconds + _SLACK_SECONDS:
            raise Violation(
                f"an isolated leader steps down: node {node} leads and received nothing from a majority for "
                f"{silent:.2f} s"
            )

    def after_commit(self, node: int, journal: MemoryJournal, index: int) -> None:
        """Check the memberships in a log that a node considers committed up to an entry: a majority has each."""
        for at in self._history.add_committed(node, journal, index):
            if journal.term_at(at) is not None:
                self._check_holders(node, journal, at)

    def before_first_apply(self, node: int, journal: MemoryJournal, index: int) -> None:
        """Check that a majority acknowledged an entry that a node is about to apply as the first of all nodes."""
        self.after_commit(node, journal, index)
        self._check_holders(node, journal, index)

    def _check_holders(self, node: int, journal: MemoryJournal, index: int) -> None:
        own_term = journal.term_at(index)
        # A leader counts itself for the entries it has written.
        holders = {node} if own_term is not None and self._is_durable[node](index, own_term) else set()
        for other, acknowledged in self._acknowledged.items():
            # The newest are last. A node that has a later entry of this log has this entry too (log matching).
            for at, term in reversed(acknowledged.items()):
                if at >= index and journal.term_at(at) == term:
                    holders.add(other)
                    break
        deciding = self._history.deciding(journal, index)
        if not any(len(holders & members.voters) >= majority(members) for members in deciding):
            raise Violation(
                f"a majority commits: node {node} commits entry {index}, which only nodes {sorted(holders)} have "
                f"written or acknowledged; the voters are "
                f"{' or '.join(str(sorted(members.voters)) for members in deciding)}"
            )
