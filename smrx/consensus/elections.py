"""Elect a leader: when to campaign, which votes count, whom to vote for.

Owns the steps in front of the library's election. A candidate asks for pre-votes first (Ongaro's thesis, 9.6), so a
node that was isolated raises no term. A node that lost its log, or whose state a majority contradicts, neither
campaigns nor votes. The vote itself, one for each term and only for a log that is at least as new, is the library's.
Called when the election timeout passes and for the messages of an election.
"""

from smrx.consensus.context import ReplicaContext
from smrx.consensus.messages import (
    Envelope,
    MembershipHint,
    NotAMember,
    PreVote,
    PreVoteReply,
    RequestVote,
    TimeoutNow,
    Vote,
)
from smrx.consensus.raft_library import now, random_fraction


class Elections:
    """The part of a replica that elects leaders."""

    def __init__(self, context: ReplicaContext) -> None:
        self._context = context
        self._raft = context.raft
        self._journal = context.journal
        self._members = context.members
        self._rejoin = context.rejoin
        self._timing = context.settings.timing
        self._post = context.transport.post
        #: The members that have voted for this node, and the term.
        self._votes: tuple[int, set[int]] = (0, set())
        #: The pre-vote round: its number, when it ends (None if none is open), and who has granted it.
        self._round = 0
        self._round_ends_at: float | None = None
        self._pre_votes: set[int] = set()
        #: The term in which the leader told this node to campaign: no pre-votes are needed.
        self._transfer_term: int | None = None
        self._next_leader_query = 0.0
        #: Since when this node leaves the election to others, because its clock is wrong; None if it does not.
        self._left_to_others_since: float | None = None
        if not self._members.voters:
            # No other node can lead.
            self._raft.election_deadline = now()

    def may_start_election(self) -> bool:
        """Return whether to become a candidate now that the election timeout has passed."""
        transfer_term, self._transfer_term = self._transfer_term, None
        if transfer_term is not None:
            self._raft.end_transfer()
        can_win = self._may_lead() and self._majority_available()
        if not can_win or (transfer_term is None and self._leaves_to_others()):
            timeout = self._timing.election_min_ms / 1000
            if transfer_term is not None and now() - self._context.leader_contact.at < timeout:
                # The leader that wants to transfer is still there: follow it.
                self._raft.election_deadline = now() + self._raft.election_timeout()
                return False
            self._raft.clear_leader()
            self._query_leader()
            self._retry_later()
            return False
        self._raft.clear_leader()
        if transfer_term == self._raft.term:
            return True
        if len(self._pre_votes) + 1 >= self._members.majority:
            self._pre_votes = set()
            self._round_ends_at = None
            return True
        if self._round_ends_at is None:
            self._request_pre_votes()
        elif now() >= self._round_ends_at:
            self._round_ends_at = None
            self._retry_later()
        return False

    def _may_lead(self) -> bool:
        """Whether this node has a vote, its log, an undisputed state, and a cluster that is bootstrapped."""
        context = self._context
        eligible = self._members.is_voter and not self._rejoin.active and context.agreement.fenced is None
        return eligible and not context.bootstrap.pending(context.views)

    def _leaves_to_others(self) -> bool:
        """Whether this node's clock is wrong, and the others have not had the time yet to elect one of them.

        Not for longer: it may be the only one that can win, as one that alone has the newest entry. Its stamps are
        bounded, so a leader with a wrong clock is better than none.
        """
        verdict = self._context.clock.judge(now())
        if verdict not in ("ahead", "behind"):
            if verdict is not None:
                self._left_to_others_since = None
            return False
        since = self._left_to_others_since
        if since is None or self._context.leader_contact.at > since:
            since = self._left_to_others_since = now()
        return now() - since < self._timing.election_max_ms / 1000

    def won(self) -> None:
        """This node has won an election: it leaves a later one to others anew."""
        self._left_to_others_since = None

    def _majority_available(self) -> bool:
        return 1 + sum(map(self._context.is_available, self._members.voters)) >= self._members.majority

    def _retry_later(self) -> None:
        # At random, so that two nodes that wait for the same condition do not campaign at the same time.
        self._raft.election_deadline = now() + self._timing.heartbeat_ms / 1000 * (0.5 + random_fraction())

    def _request_pre_votes(self) -> None:
        self._round += 1
        self._pre_votes = set()
        self._round_ends_at = now() + self._timing.election_min_ms / 2000
        self._post_pre_vote()

    def _query_leader(self) -> None:
        """Send a pre-vote request that cannot win: the replies may name members that are unknown here."""
        if now() < self._next_leader_query:
            return
        self._next_leader_query = now() + self._timing.election_min_ms / 1000
        self._round_ends_at = None
        self._post_pre_vote()

    def _post_pre_vote(self) -> None:
        for peer in self._members.voters:
            self._post(peer, PreVote(self._round, self._journal.last_index, self._journal.last_term))

    def on_pre_vote(self, peer: int, envelope: Envelope, body: PreVote) -> None:
        """Grant a pre-vote if this node has no leader and the candidate's log is not behind."""
        behind = (body.last_term, body.last_index) < (self._journal.last_term, self._journal.last_index)
        if behind and self._members.index > 1:
            # The leader may be unknown to it, as one that became a member after the candidate's log ended.
            self._post(peer, MembershipHint(list(self._members.membership.members)))
        if self._context.is_former_member(peer):
            self._post(peer, NotAMember(self._members.index))
        timeout = self._timing.election_min_ms / 1000
        if self._rejoin.active or self._raft.is_leader or now() - self._context.leader_contact.at < timeout:
            return
        if (body.last_term, body.last_index) >= (self._journal.last_term, self._journal.last_index):
            self._post(peer, PreVoteReply(body.round))

    def on_pre_vote_reply(self, peer: int, envelope: Envelope, body: PreVoteReply) -> None:
        """Count a pre-vote of the open round."""
        is_open = body.round == self._round and self._round_ends_at is not None
        if is_open and peer in self._members.voters and self._context.views[peer].holds_state:
            self._pre_votes.add(peer)

    def on_timeout_now(self, peer: int, envelope: Envelope, body: TimeoutNow) -> None:
        """Campaign at the next tick, if the leader of this term says so and this node can lead."""
        if envelope.term != self._raft.term or self._raft.leader_id != peer or self._rejoin.active:
            return
        self._transfer_term = self._raft.term
        self._raft.deliver(peer, {"type": "timeout_now", "term": envelope.term})

    def on_request_vote(self, peer: int, envelope: Envelope, body: RequestVote) -> None:
        """Let the library decide on a vote; a node without its log does not vote."""
        if self._rejoin.active:
            return
        self._raft.deliver(
            peer,
            {
                "type": "request_vote",
                "term": envelope.term,
                "last_log_index": body.last_index,
                "last_log_term": body.last_term,
            },
        )

    def on_vote(self, peer: int, envelope: Envelope, body: Vote) -> None:
        """Count a vote for this node; with a majority the library makes it the leader."""
        if self._counts_vote(peer, body):
            self._raft.deliver(peer, {"type": "response_vote", "term": body.term})

    def _counts_vote(self, peer: int, body: Vote) -> bool:
        """Return whether a vote counts: one for each member and term, none from a node without its log.

        The library counts messages.
        """
        if (
            peer not in self._members.voters
            or not self._context.views[peer].holds_state
            or body.term != self._raft.term
        ):
            return False
        if self._votes[0] != body.term:
            self._votes = (body.term, set())
        if peer in self._votes[1]:
            return False
        self._votes[1].add(peer)
        return True
