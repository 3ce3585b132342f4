"""Change the members of the cluster, and exchange messages with those that the log names.

Owns when a change may be made, and when a removed member is dropped as a peer. There is one change at a time, in force
from its append on. What other nodes report about members can add a peer to listen to, never a voter: only the log names
voters. Called by an operator's requests, for every new entry, for messages about members, and at each tick.
"""

import logging

from smrx.config import NodeConfig
from smrx.consensus.context import NotLeader, PeerView, ReplicaContext
from smrx.consensus.leader import Leader
from smrx.consensus.leadership_transfer import LeadershipTransfer
from smrx.consensus.membership import ChangePending, Member, Membership, MembershipError, encode, host_fault
from smrx.consensus.messages import Body, Envelope, Hello, MembershipHint, NotAMember

log = logging.getLogger(__name__)


class MemberChanges:
    """The part of a replica that changes members."""

    def __init__(self, context: ReplicaContext, leader: Leader, transfer: LeadershipTransfer) -> None:
        self._context = context
        self._raft = context.raft
        self._journal = context.journal
        self._members = context.members
        self._views = context.views
        self._transport = context.transport
        self._leader_contact = context.leader_contact
        self._leader = leader
        self._transfer = transfer
        #: This node was a member and was removed.
        self.removed = False
        #: A membership was committed, so there may be peers to remove.
        self.removal_due = False
        #: When each member became one: see membership.Member.
        self._since: dict[int, int] = {}

    # Changes, by the leader.

    def add(self, node: NodeConfig) -> int:
        """Add a member, which gets its vote once it has the log; return the entry's index.

        Raises NotLeader; MembershipError if the change is impossible, or not possible yet.
        """
        fault = host_fault(node) or self._transport.keys_fault(node)
        if fault is not None:
            # Once this is in the log, every member would try to connect, now and at every start.
            raise MembershipError(fault)
        return self._change(self._members.membership.with_learner(node, self._journal.last_index + 1))

    def remove(self, node_id: int) -> int:
        """Remove a member; return the entry's index. Raises NotLeader; MembershipError, also for this node."""
        if node_id == self._context.node_id:
            raise MembershipError(f"node {node_id} leads: transfer the leadership to another member first")
        membership = self._members.membership.without(node_id)
        remaining = membership.voters - {self._context.node_id}
        available, needed = 1 + sum(map(self._context.is_available, remaining)), len(membership.voters) // 2 + 1
        if self._raft.is_leader and node_id in self._members.voters and available < needed:
            # The change would be in force at once, and nothing could be committed any more.
            raise MembershipError(
                f"expected a majority of the remaining voters ({needed}) to be available, found {available}; "
                "nothing was changed"
            )
        return self._change(membership)

    def _change(self, membership: Membership) -> int:
        if not self._raft.is_leader or self._transfer.is_active or self._context.agreement.fenced is not None:
            raise NotLeader
        # One change at a time, and none before the leader's own first entry is committed: until then a change by an
        # earlier leader may still be kept or dropped (Ongaro's message to raft-dev, 2015-07-10).
        commit_index = self._raft.commit_index
        if self._members.index > commit_index or self._journal.term_at(commit_index) != self._raft.term:
            raise ChangePending("the last change of members is not committed yet; try again")
        return self._append(membership)

    def _append(self, membership: Membership) -> int:
        index = self._journal.last_index + 1
        self._journal.add(encode(membership), index, self._raft.term)
        self.follow_log()
        self._leader.replicate()
        return index

    def promote_learners(self) -> None:
        """Give a learner that has the whole log its vote."""
        if not self._raft.is_leader or self._transfer.is_active or self._members.index > self._raft.commit_index:
            return
        for peer in self._members.learners:
            commit_index = self._raft.commit_index
            ready = self._context.is_available(peer) and self._raft.match_index(peer) >= commit_index
            if ready and self._journal.term_at(commit_index) == self._raft.term:
                log.info("node %d has the log and gets its vote", peer)
                self._change(self._members.membership.promoted(peer))
                return

    # The membership in force, on every node.

    def follow_log(self) -> None:
        """Put the newest membership of the log into force."""
        if self._journal.membership == self._members.entry:
            return
        # It is durable with its entry before any message of this turn leaves: no majority with this node is counted
        # by another membership.
        self._members.set(self._journal.membership)
        log.info("node %d: members %s", self._context.node_id, _described(self._members.membership))
        self.put_into_force()

    def put_into_force(self) -> None:
        """Add every member as a peer, send to all of them while leading, and count those with a vote."""
        for member in self._members.membership.members:
            if member.node.id != self._context.node_id:
                self._replace_reused(member)
                self._add_peer(member.node)
        self._raft.set_voters(self._members.voters)
        self._context.agreement.set_voters(self._members.membership.voters)
        if self._raft.is_leader:
            self._leader.add_members()

    def on_committed(self, index: int, entry: bytes) -> None:
        """Make a committed membership durable, so that a node that loses its log still has it."""
        if index > self._context.meta.membership[0]:
            self._context.meta.set_membership((index, entry))
        self.removal_due = True

    def note_removal(self, leader_last_index: int) -> None:
        """Set `removed` if this node has the leader's whole log, and a committed membership in it leaves this node out.

        A node that is being added does not have the whole log yet. An uncommitted removal may be unknown to the next
        leader, and the message may be an old one.
        """
        commit_index = self._raft.commit_index
        left_out = self._context.node_id not in self._members.ids and self._members.index <= commit_index
        if left_out and commit_index >= max(leader_last_index, self._leader_contact.commit_index):
            self.removed = True

    # Peers.

    def _add_peer(self, node: NodeConfig) -> None:
        """Exchange messages with a node; whether it has a vote is decided by the log."""
        if node.id in self._views or node.id == self._context.node_id:
            return
        self._views[node.id] = PeerView()
        self._transport.add_peer(node)
        self._raft.add_peer(node.id)

    def _replace_reused(self, member: Member) -> None:
        """Drop what is known of a peer whose node id was removed and added again: it may be another node."""
        node = member.node
        before = self._since.get(node.id)
        self._since[node.id] = member.since
        if before is not None and before != member.since and node.id in self._views:
            self._leader.reset_peer(node.id)
            self._context.agreement.forget(node.id)
            self._views[node.id] = PeerView()
            # Acknowledgements of the old node may still be under way to this leader and must not count for the new
            # one. A follower counts none; and it may be applying old entries, after messages of the new node only.
            self._transport.remove_peer(node.id, require_newer=self._raft.is_leader)
            self._transport.add_peer(node)

    def remove_former_peers(self) -> None:
        """Once a membership is committed, remove the peers that are not in the newest one.

        A node that still catches up applies old memberships, which may lack the very leader that sends it the log. So
        it removes nothing before it has applied all that is committed.
        """
        if not self.removal_due:
            return
        applied_index = self._raft.applied_index
        if self._members.index > applied_index or applied_index < self._leader_contact.commit_index:
            return
        self.removal_due = False
        for peer in self._views.keys() - self._members.ids:
            self._leader.send_removal(peer)
            del self._views[peer]
            self._leader.remove_peer(peer)
            self._since.pop(peer, None)
            self._transport.remove_peer(peer, require_newer=self._raft.is_leader)
            self._raft.remove_peer(peer)

    # Messages about members.

    def hello(self, peer: int) -> Body:
        """Return the message for a peer that was sent nothing for a while.

        A member that sends nothing may not listen to this node, because its file and its log name other nodes.
        """
        if self._members.index > 1 and peer in self._members.ids and not self._transport.is_connected(peer):
            return MembershipHint(list(self._members.membership.members))
        return Hello()

    def on_membership_hint(self, peer: int, envelope: Envelope, body: MembershipHint) -> None:
        """Add the peers that a voter names."""
        if peer in self._members.voters:
            for member in body.members:
                # Otherwise this node would keep a dead node as a peer while the leader has its node id.
                if member.since > self._since.get(member.node.id, member.since):
                    self._replace_reused(member)
                self._add_peer(member.node)

    def on_unknown_peer(self, envelope: Envelope) -> Body | None:
        """Return the answer to a node that is no peer: it became a member while this node was away, or was removed.

        Without a leader, the members that such a node names are added as peers, if this node is one of them.
        """
        body = envelope.body
        if isinstance(body, MembershipHint):
            named = {member.node.id for member in body.members}
            if self._raft.leader_id is None and {self._context.node_id, envelope.sender} <= named:
                log.info("node %d: node %d names the members %s", self._context.node_id, envelope.sender, sorted(named))
                for member in body.members:
                    self._add_peer(member.node)
            return None
        return NotAMember(self._members.index) if self._context.is_former_member(envelope.sender) else None

    def on_not_a_member(self, peer: int, envelope: Envelope, body: NotAMember) -> None:
        """Record a report that this node was removed. It may be wrong: it changes nothing but the status."""
        if self._raft.leader_id is None:
            if self._leader_contact.removal_report is None:
                log.warning("node %d: node %d reports that this node is no member", self._context.node_id, peer)
            self._leader_contact.removal_report = (peer, body.membership_index)


def _described(membership: Membership) -> str:
    return ", ".join(f"{m.node.id}" + ("" if m.voter else " (learner)") for m in membership.members)
