"""Describe a replica for its operator: its role, what it waits for, and its peers.

Reads the replica's parts and changes nothing. Called for the admin protocol and by the simulator.
"""

from typing import Literal

from smrx.consensus.context import ReplicaContext
from smrx.consensus.raft_library import now
from smrx.wire.admin import PeerStatus

Role = Literal["leader", "follower", "candidate", "learner"]


def role(context: ReplicaContext) -> Role:
    """Return what this node is at present."""
    if context.raft.is_leader:
        return "leader"
    if not context.holds_log or not context.members.is_voter:
        return "learner"
    return "candidate" if context.raft.is_candidate else "follower"


def waiting_for(context: ReplicaContext) -> str | None:
    """Return what this node waits for before it can serve, None if nothing."""
    raft, members, transport = context.raft, context.members, context.transport
    later = transport.newer_incarnation
    if later is not None:
        return (
            f"this is incarnation {context.meta.incarnation} of this node, and other members know incarnation {later}: "
            "its data directory was replaced, and they drop its messages until they are restarted"
        )
    absent = context.bootstrap.awaited(context.views)
    if absent:
        return (
            f"waiting for node {', '.join(map(str, absent))}: a new cluster starts once all of its nodes have connected"
        )
    if context.leader_contact.unusable_snapshot is not None and raft.leader_id is not None:
        return (
            f"cannot use the snapshot of node {raft.leader_id}, the leader: {context.leader_contact.unusable_snapshot}"
        )
    if context.rejoin.active and raft.leader_id is not None:
        target = "?" if context.rejoin.target is None else context.rejoin.target
        return f"catching up with the leader: log entry {context.journal.last_index} of {target}"
    if raft.leader_id is not None:
        return None
    if context.leader_contact.removal_report is not None:
        peer, index = context.leader_contact.removal_report
        return (
            f"waiting to be added: node {peer} reports that this node is no member by log entry {index}; stop it if it "
            "was removed, otherwise run smrx cluster add"
        )
    if not members.is_voter:
        return "waiting to be added as a member: run smrx cluster add"
    reachable = 1 + sum(map(transport.is_connected, members.voters))
    if reachable < members.majority:
        total = len(members.membership.voters)
        return f"waiting for a majority to be connected ({reachable} of {total} members are)"
    if (not context.rejoin.active) + sum(map(context.is_available, members.voters)) < members.majority:
        return "waiting for a majority that holds state"
    return "waiting for a leader to be elected"


def peer_status(context: ReplicaContext) -> tuple[PeerStatus, ...]:
    """Return what this node has of each other node."""
    return tuple(_status_of(context, peer) for peer in sorted(context.views))


def _status_of(context: ReplicaContext, peer: int) -> PeerStatus:
    view, raft = context.views[peer], context.raft
    return PeerStatus(
        node_id=peer,
        connected=context.transport.is_connected(peer),
        lag_entries=context.journal.last_index - raft.match_index(peer) if raft.is_leader else None,
        sequence=view.sequence,
        state_hash=view.state_hash,
        learner=view.learner,
        refused_snapshot=view.refused_snapshot if raft.is_leader else None,
        silent_s=context.transport.silent_seconds(peer),
        clock_offset_s=context.clock.offset_seconds(now(), peer),
    )
