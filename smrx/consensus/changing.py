"""Changes of members: who belongs to the cluster, whom this node listens to, what those are told that do not belong.

Owns when a change may be made, and when whoever went is heard no more. One change at a time, in force with its entry
and not only once that is committed. What others say of members is a reason to listen to somebody, never one to count
him: the log alone says who has a vote. Called by an operator's requests, for every new entry, and at each tick.
"""

import logging
from collections.abc import Sequence

from pysyncobj.node import Node

from smrx.config import NodeConfig, Timing
from smrx.consensus.core import PeerView, StateMachine
from smrx.consensus.journal import MemoryJournal
from smrx.consensus.leading import Leading, NotLeader
from smrx.consensus.membership import Member, Membership, MembershipError, decode, encode, host_fault
from smrx.consensus.messages import Acquaint, Body, Envelope, Hello, NoMember
from smrx.consensus.progress import Progress
from smrx.consensus.recovery import MetaStore
from smrx.consensus.transport import PeerTransport

log = logging.getLogger(__name__)


class Changing(Leading):
    """What a node does as members come and go."""

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
        #: This node was a member and is none any more.
        self.removed = False
        #: When each member became one: see membership.Member.
        self._since: dict[int, int] = {}
        super().__init__(node_id, peers, machine, transport, meta, journal, timing, members)

    def add_member(self, node: NodeConfig) -> int:
        """Make a node a member: it learns first, and gets its vote once it has the log; return the entry's index.

        Raises NotLeader; MembershipError where that cannot be, or not yet.
        """
        fault = host_fault(node) or self._transport.keys_fault(node)
        if fault is not None:
            # Once in the log every member would try, now and at every start.
            raise MembershipError(fault)
        return self._change(self._membership.with_learner(node, self._journal.last_index + 1))

    def remove_member(self, node_id: int) -> int:
        """Make a node no member; return the entry's index. Raises NotLeader; MembershipError, also for this node."""
        if node_id == self.node_id:
            raise MembershipError("expected another node than the leader, found the leader: let another one lead first")
        membership = self._membership.without(node_id)
        staying = membership.voters - {self.node_id}
        reached, needed = 1 + sum(map(self._counts, staying)), len(membership.voters) // 2 + 1
        if self.is_leader and node_id in self._voters and reached < needed:
            # The change would be in force at once, and nothing could be committed any more.
            raise MembershipError(
                f"expected a majority of those that stay ({needed} nodes) in reach, with the state, found {reached}; "
                "nothing was changed"
            )
        return self._change(membership)

    def _change(self, membership: Membership) -> int:
        if not self.is_leader or self.handing_over or self.agreement.fenced is not None:
            raise NotLeader
        # One step at a time, and none before this leader's own first entry is committed: until then an earlier leader's
        # change may still come or go (Ongaro's message to raft-dev, 2015-07-10).
        if self._membership_index > self.commit_index or self._journal.term_at(self.commit_index) != self.term:
            raise MembershipError("expected the last change of members to be done, found it on its way; try again")
        index = self._journal.last_index + 1
        self._journal.add(encode(membership), index, self.term)
        self._follow_membership()
        self._replicate()
        return index

    def _give_votes(self) -> None:
        """A member that only learned, and has all there is, gets its vote."""
        if not self.is_leader or self.handing_over or self._membership_index > self.commit_index:
            return
        for peer in self._membership.ids - self._membership.voters:
            ready = self._counts(peer) and self._match_index[self._nodes[peer]] >= self.commit_index
            if ready and self._journal.term_at(self.commit_index) == self.term:
                log.info("node %d has the log and gets its vote", peer)
                self._change(self._membership.promoted(peer))
                return

    def _follow_membership(self) -> None:
        """The log may say anew who belongs to the cluster."""
        index, entry = self._journal.membership
        if (index, entry) == self._membership_entry:
            return
        # Durable with its entry before any message of this turn: a majority that this node takes part in is counted
        # by it.
        self._membership_entry, self._membership = (index, entry), decode(entry)
        log.info("node %d: members %s", self.node_id, _described(self._membership))
        self._adopt_membership()

    def _adopt_membership(self) -> None:
        """Know every member, send to all of them while leading, and count those with a vote."""
        for member in self._membership.members:
            if member.node.id != self.node_id:
                self._forget_namesake(member)
                self._meet(member.node)
        self._set_voters(self._voters)
        self.agreement.set_voters(self._membership.voters)
        if self.is_leader:
            for peer in self._membership.ids - self._progress.keys() - {self.node_id}:
                self._track(peer)
                self._progress[peer] = Progress()

    def _meet(self, node: NodeConfig) -> None:
        """Listen to a node; what it says counts as the log says."""
        if node.id in self._views or node.id == self.node_id:
            return
        self._views[node.id] = PeerView()
        self._nodes[node.id] = Node(node.id)
        self._transport.meet(node)
        self._track(node.id)

    def _forget_namesake(self, member: Member) -> None:
        """A member that went and came under its name again may be another one, of whom nothing is known yet."""
        node = member.node
        before = self._since.get(node.id)
        self._since[node.id] = member.since
        if before is not None and before != member.since and node.id in self._views:
            self._forget_peer(node.id)
            self.agreement.forget(node.id)
            self._views[node.id] = PeerView()
            # What the old one acknowledged to this leader may still be on its way, and is not the new one's. Who does
            # not lead counts nothing; and it may be on its way through old entries, and have heard the new one only.
            self._transport.part(node.id, outlived=self.is_leader)
            self._transport.meet(node)

    def _on_acquaint(self, peer: int, envelope: Envelope, body: Acquaint) -> None:
        if peer in self._voters:
            for member in body.members:
                # Or it listens to one that is dead, and the leader has its name.
                if member.since > self._since.get(member.node.id, member.since):
                    self._forget_namesake(member)
                self._meet(member.node)

    def _greeting(self, peer: int) -> Body:
        """One that is not heard may be one that does not listen, because its file and its log name others."""
        if self._membership_index > 1 and peer in self._membership.ids and not self._transport.is_connected(peer):
            return Acquaint(list(self._membership.members))
        return Hello()

    def _on_stranger(self, envelope: Envelope) -> Body | None:
        """A node that this one does not know: a member of these days, while this one slept, or none any more.

        Who hears no leader listens to those it is told of. What they say counts as the log says.
        """
        body = envelope.body
        if isinstance(body, Acquaint):
            told = {member.node.id for member in body.members}
            if self.leader_id is None and {self.node_id, envelope.sender} <= told:
                log.info("node %d: node %d names the members %s", self.node_id, envelope.sender, sorted(told))
                for member in body.members:
                    self._meet(member.node)
            return None
        return NoMember(self._membership_index) if self._is_gone(envelope.sender) else None

    def _on_no_member(self, peer: int, envelope: Envelope, body: NoMember) -> None:
        """Somebody says that this node was removed. It may be wrong: nothing is given up, and whoever looks is told."""
        if self.leader_id is None:
            if self._told_gone is None:
                log.warning("node %d: node %d says that this node is no member any more", self.node_id, peer)
            self._told_gone = (peer, body.membership_index)

    def _part_from_others(self) -> None:
        """A membership is committed: whoever is not in the newest one was told so as far as could be.

        Not before this node knows all that is committed: on its way through the log it meets old memberships, which
        may lack the very leader it has the log from.
        """
        if self._membership_index > self.applied_index or self.applied_index < self._told_commit:
            return
        self._parting_due = False
        for peer in self._views.keys() - self._membership.ids:
            self._announce_to(peer)
            del self._views[peer]
            self._progress.pop(peer, None)
            self._since.pop(peer, None)
            self._transport.part(peer, outlived=self.is_leader)
            self._untrack(peer)

    def _announce_to(self, peer: int) -> None:
        """Tell one that goes that it does: it will hear nothing more."""
        if self.is_leader and peer in self._progress and self._transport.is_connected(peer):
            self._post_last_words(peer)

    def _note_removal(self, leader_last_index: int) -> None:
        """A node that has all its leader has, and finds itself no member, was removed. (One that joins has not.)

        Once that is committed: before, another leader may know nothing of it. The leader's word may be an old one.
        """
        gone = self.node_id not in self._membership.ids and self._membership_index <= self.commit_index
        if gone and self.commit_index >= max(leader_last_index, self._told_commit):
            self.removed = True


def _described(membership: Membership) -> str:
    return ", ".join(f"{m.node.id}" + ("" if m.voter else " (learns)") for m in membership.members)
