"""Confirm that this node still leads, so that a read of its state misses no write that was acknowledged before it.

A read notes the commit index and waits for one round: the leader sends every member a message after the read was
requested, and a majority answers in the leader's term (ReadIndex; Ongaro's thesis, 6.4). A later leader would have the
votes of one of them, which would then answer with its term instead. All reads that are requested while a round is under
way share the next one, so reads in every turn do not flood the members; a round that is lost ends with the next
heartbeat. There is no lease and no log entry, so a process that was stopped meanwhile answers nothing too old.

A round is a number that grows with each one. A message of entries carries it in its field `stream`, which followers
echo in every reply, those of earlier programs too: any reply that echoes the number or a later one confirms.

Owns the rounds of the present leadership and what each member has echoed. Sends nothing: the leader does. Called by the
replica for reads, by the leader for messages and replies.
"""

from collections import deque
from enum import Enum
from typing import Final, NamedTuple

from smrx.consensus.context import NotLeader, ReplicaContext
from smrx.consensus.raft_library import now

#: Rounds whose start is kept, for the age of the confirmation: with a round a millisecond, more than a heartbeat.
_ROUNDS_KEPT: Final = 256


class ReadState(Enum):
    """Whether a read may be answered."""

    WAITING = "waiting"
    READY = "ready"
    #: The leadership under which it was requested has ended; request it again, from the new leader.
    LOST = "lost"


class ReadTicket(NamedTuple):
    """A read that was requested: answer once `log_index` is applied and `round_number` confirmed, in the same term."""

    term: int
    log_index: int
    round_number: int


class ReadIndex:
    """The rounds of one leadership."""

    def __init__(self, context: ReplicaContext) -> None:
        self._context = context
        self._raft = context.raft
        self._members = context.members
        #: The highest number in use, and whether a read waits for a round that has not begun.
        self._newest = 0
        self._is_wanted = False
        #: The log index of the first entry of this leadership's term.
        self._first_index = 0
        self._echoed: dict[int, int] = {}
        #: (round, when it began), oldest first.
        self._begun: deque[tuple[int, float]] = deque(maxlen=_ROUNDS_KEPT)
        self._confirmed_at = float("-inf")

    def start(self) -> None:
        """Begin a leadership, before its first entry is appended."""
        self._newest, self._is_wanted = 0, False
        self._first_index = self._context.journal.last_index + 1
        self._echoed.clear()
        self._begun.clear()
        self._confirmed_at = float("-inf")

    # The leader's messages.

    def next_number(self) -> int:
        """Return a number above all that were sent: replies to earlier messages do not echo it."""
        self._newest += 1
        return self._newest

    @property
    def is_wanted(self) -> bool:
        """Whether a read waits for a round that has not begun, and none is under way."""
        return self._is_wanted and not (self._begun and self._begun[-1][0] > self._confirmed_round())

    def begin_round(self) -> int:
        """Begin a round; return its number, which the messages sent from now on carry."""
        self._is_wanted = False
        number = self.next_number()
        self._begun.append((number, now()))
        return number

    def echoed(self, peer: int, number: int) -> None:
        """Record the number in a reply of the present term."""
        if number > self._echoed.get(peer, 0):
            self._echoed[peer] = number
            self._note_confirmed()

    def forget(self, peer: int) -> None:
        """Drop what a peer has echoed: it is another incarnation."""
        self._echoed.pop(peer, None)

    # Reads.

    def request(self) -> ReadTicket:
        """Request a read of the state with everything that is committed by now. Raises NotLeader."""
        if not self._raft.is_leader:
            raise NotLeader
        self._is_wanted = True
        return ReadTicket(self._raft.term, self._read_index(), self._newest + 1)

    def state(self, ticket: ReadTicket) -> ReadState:
        """Return whether a read may be answered now."""
        if not self._raft.is_leader or ticket.term != self._raft.term:
            return ReadState.LOST
        if self._raft.applied_index < ticket.log_index or not self._is_confirmed(ticket):
            return ReadState.WAITING
        return ReadState.READY

    def age_seconds(self) -> float:
        """Return how long ago this node knows that it led last; infinity if it was never confirmed."""
        if self._raft.is_leader and not self._members.voters:
            return 0.0
        return now() - self._confirmed_at

    def _read_index(self) -> int:
        """Return the entry that has to be applied.

        The commit index of a new leader may be lower than what earlier leaders acknowledged, until it has committed an
        entry of its own term; its log holds all of that, before its own first entry.
        """
        return max(self._raft.commit_index, self._first_index)

    def _is_confirmed(self, ticket: ReadTicket) -> bool:
        return self._confirmed_round() >= ticket.round_number

    def _confirmed_round(self) -> float:
        """Return the newest round that a majority has echoed; infinity if this node alone is the majority."""
        views = self._context.views
        echoed = [float("inf")] if self._members.is_voter else []
        # A node that lost its log may have forgotten a vote for a later leader.
        echoed += [self._echoed.get(peer, 0) for peer in self._members.voters if views[peer].holds_state]
        echoed.sort()
        majority = self._members.majority
        return echoed[-majority] if len(echoed) >= majority else 0

    def _note_confirmed(self) -> None:
        confirmed = self._confirmed_round()
        while self._begun and self._begun[0][0] <= confirmed:
            self._confirmed_at = self._begun.popleft()[1]
