"""Elections: when to stand, whose vote counts, whom to encourage.

Owns what stands before the library's election: a candidate asks first whether it would be elected (Ongaro's thesis,
9.6), so a node that was cut off raises no term and disturbs nobody. Never lets a node stand or vote that lost its log,
or whose state a majority contradicts. Called at the ticks and for the messages of an election.
"""

from collections.abc import Sequence

from smrx.config import Timing
from smrx.consensus.core import StateMachine
from smrx.consensus.following import Following
from smrx.consensus.internals import chance, now
from smrx.consensus.journal import MemoryJournal
from smrx.consensus.membership import Membership
from smrx.consensus.messages import Acquaint, Envelope, NoMember, PreVote, PreVoteReply, RequestVote, StandNow, Vote
from smrx.consensus.recovery import MetaStore
from smrx.consensus.transport import PeerTransport


class Electing(Following):
    """What a node does to get a leader."""

    def __init__(
        self,
        node_id: int,
        peers: Sequence[int],
        machine: StateMachine,
        transport: PeerTransport,
        meta: MetaStore,
        journal: MemoryJournal,
        timing: Timing,
        members: Membership | None = None,
    ) -> None:
        self._votes: tuple[int, set[int]] = (0, set())
        self._round = 0
        self._round_ends_at: float | None = None
        self._encouraged_by: set[int] = set()
        #: The term in which the leader wants this node in its place: nobody needs to be asked first.
        self._told_to_stand: int | None = None
        self._ask_again_at = 0.0
        super().__init__(node_id, peers, machine, transport, meta, journal, timing, members)
        if not self._voters:
            # Nobody's heartbeat to wait for.
            self._election_deadline = now()

    def _may_stand(self) -> bool:
        """Whether to become a candidate now that no leader was heard for long enough."""
        told, self._told_to_stand = self._told_to_stand, None
        if told is not None:
            self._end_transfer()
        if not self._may_lead() or not self._majority_in_reach():
            if told is not None and now() - self._leader_heard_at < self.timing.election_min_ms / 1000:
                # It follows on: the leader that wanted to go is still there.
                self._election_deadline = now() + self._election_timeout()
                return False
            self._lose_leader()
            self._ask_who_leads()
            self._stand_later()
            return False
        self._lose_leader()
        if told == self.term:
            return True
        if len(self._encouraged_by) + 1 >= self._majority:
            self._encouraged_by = set()
            self._round_ends_at = None
            return True
        if self._round_ends_at is None:
            self._ask_for_encouragement()
        elif now() >= self._round_ends_at:
            self._round_ends_at = None
            self._stand_later()
        return False

    def _may_lead(self) -> bool:
        """Whether this node has a vote, its log, and a state nobody doubts, in a cluster that has begun."""
        fit = self.node_id in self._membership.voters and not self._rejoin.active and self.agreement.fenced is None
        return fit and self._founding.may_stand(self._views)

    def _majority_in_reach(self) -> bool:
        return 1 + sum(self._counts(peer) for peer in self._voters) >= self._majority

    def _counts(self, peer: int) -> bool:
        """Whether the peer is there and holds state."""
        return self._transport.is_connected(peer) and self._views[peer].holds_state

    def _stand_later(self) -> None:
        # At random, so that two nodes that wait for the same thing do not stand in the same instant.
        self._election_deadline = now() + self.timing.heartbeat_ms / 1000 * (0.5 + chance())

    def _ask_for_encouragement(self) -> None:
        self._round += 1
        self._encouraged_by = set()
        self._round_ends_at = now() + self.timing.election_min_ms / 2000
        for peer in self._voters:
            self._post(peer, PreVote(self._round, self._journal.last_index, self._journal.last_term))

    def _ask_who_leads(self) -> None:
        """A node that cannot stand asks all the same: the one that leads may be one it never heard of."""
        if now() < self._ask_again_at:
            return
        self._ask_again_at = now() + self.timing.election_min_ms / 1000
        self._round_ends_at = None
        for peer in self._voters:
            self._post(peer, PreVote(self._round, self._journal.last_index, self._journal.last_term))

    def _on_pre_vote(self, peer: int, envelope: Envelope, body: PreVote) -> None:
        behind = (body.last_term, body.last_index) < (self._journal.last_term, self._journal.last_index)
        if behind and self._membership_index > 1:
            # It may not know who leads: one that became a member after its log ended, or after it left this one.
            self._post(peer, Acquaint(list(self._membership.members)))
        if self._is_gone(peer):
            self._post(peer, NoMember(self._membership_index))
        patience = self.timing.election_min_ms / 1000
        if self._rejoin.active or self.is_leader or now() - self._leader_heard_at < patience:
            return
        if (body.last_term, body.last_index) >= (self._journal.last_term, self._journal.last_index):
            self._post(peer, PreVoteReply(body.round))

    def _is_gone(self, peer: int) -> bool:
        """Whether a node that asks for something is no member, as surely as one node can know."""
        settled = 1 < self._membership_index <= self.commit_index and not self._rejoin.active
        return settled and peer not in self._membership.ids

    def _on_pre_vote_reply(self, peer: int, envelope: Envelope, body: PreVoteReply) -> None:
        standing = body.round == self._round and self._round_ends_at is not None
        if standing and peer in self._voters and self._views[peer].holds_state:
            self._encouraged_by.add(peer)

    def _on_stand_now(self, peer: int, envelope: Envelope, body: StandNow) -> None:
        # Only the leader of this term may say so; and it may be late, or the node no longer fit to lead.
        if envelope.term != self.term or self.leader_id != peer or self._rejoin.active:
            return
        self._told_to_stand = self.term
        self._hand_to_library(peer, {"type": "timeout_now", "term": envelope.term})

    def _on_request_vote(self, peer: int, envelope: Envelope, body: RequestVote) -> None:
        if self._rejoin.active:
            return
        self._hand_to_library(
            peer,
            {
                "type": "request_vote",
                "term": envelope.term,
                "last_log_index": body.last_index,
                "last_log_term": body.last_term,
            },
        )

    def _on_vote(self, peer: int, envelope: Envelope, body: Vote) -> None:
        if self._counts_vote(peer, envelope, body):
            self._hand_to_library(peer, {"type": "response_vote", "term": body.term})

    def _counts_vote(self, peer: int, envelope: Envelope, body: Vote) -> bool:
        """The library counts messages, not voters: one vote a member and term, and none of a node without its log."""
        if peer not in self._voters or not self._views[peer].holds_state or body.term != self.term:
            return False
        if self._votes[0] != body.term:
            self._votes = (body.term, set())
        if peer in self._votes[1]:
            return False
        self._votes[1].add(peer)
        return True
