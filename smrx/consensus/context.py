"""Hold what the parts of one replica share: its log, its peers, its membership, and its settings.

Owns no rule of consensus. Built once by the replica; each part takes from it what it works with.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from smrx.config import NodeConfig, Timing
from smrx.consensus import membership
from smrx.consensus.agreement import Agreement
from smrx.consensus.bootstrap import Bootstrap
from smrx.consensus.journal import MemoryJournal
from smrx.consensus.majority_clock import MajorityClock
from smrx.consensus.membership import Membership
from smrx.consensus.messages import CHUNK_BYTES, MAX_BATCH_BYTES, RulesVersions
from smrx.consensus.raft_library import RaftLibrary
from smrx.consensus.recovery import MetaStore, Rejoin
from smrx.consensus.transport import PeerTransport

#: The cluster file's membership is in force from the first log index on.
_BOOTSTRAP_INDEX: Final = 1


class StateMachine(Protocol):
    """What the replica drives; it makes the same calls in the same order on every node."""

    def apply(self, log_index: int, term: int, entry: bytes) -> None:
        """Apply one committed entry. An exception means that this node must stop; UnknownRules says why itself."""
        ...

    def snapshot(self) -> bytes:
        """Return the whole state."""
        ...

    def restore(self, data: bytes | memoryview) -> None:
        """Replace the state by that of a snapshot.

        Raises ValueError, with nothing changed, for invalid data; UnknownRules.
        """
        ...

    def position(self) -> tuple[int, int]:
        """Return (applied command sequence, state hash after it)."""
        ...

    def hash_at(self, sequence: int) -> int | None:
        """Return the state hash after a command, None if it is not kept."""
        ...

    def hashes_between(self, first: int, last: int) -> Sequence[int] | None:
        """Return the state hashes after commands first..last, None if they are not all kept."""
        ...

    def rules(self) -> RulesVersions:
        """Return the versions of the rules that this program can apply, and the one in force."""
        ...


class ConsensusError(Exception):
    """The state of this node is no longer reliable, or cannot advance: the node must stop."""


class UnknownRules(ConsensusError):
    """The rules in force are a version that the program of this node cannot apply; the message is one sentence."""


class NotLeader(Exception):
    """Only the leader takes commands; the replica's leader_id names it."""


@dataclass(frozen=True, kw_only=True)
class ReplicaSettings:
    """Timing and limits of a replica."""

    timing: Timing
    #: The log is compacted past this many entries, or this many bytes, whichever comes first.
    compaction_entries: int
    compaction_bytes: int = 256 << 20
    #: In disk mode a snapshot is taken after this many commands (a third of a second to apply at a restart) or seconds.
    snapshot_commands: int = 1_000_000
    snapshot_seconds: float = 600.0
    #: When a message of entries is full, and the size of a snapshot's chunks; smaller only in tests.
    batch_bytes: int = MAX_BATCH_BYTES
    chunk_bytes: int = CHUNK_BYTES


class PeerView:
    """What a peer's last message said about it."""

    def __init__(self) -> None:
        self.incarnation = 0
        self.learner = False
        self.fenced = False
        #: The peer never held state.
        self.new = False
        #: The message was for the present incarnation of this node, not for an earlier one.
        self.knows_me = False
        self.sequence: int | None = None
        self.state_hash: int | None = None
        #: Why the peer's present incarnation cannot use the snapshots of this node; None if it can, as far as is known.
        self.refused_snapshot: str | None = None
        self.rules: RulesVersions | None = None

    @property
    def holds_state(self) -> bool:
        """Whether its votes and acknowledgements count."""
        return self.incarnation > 0 and not self.learner and not self.fenced


class LeaderContact:
    """What this node has received from leaders."""

    def __init__(self) -> None:
        #: When the last message of a leader arrived.
        self.at = float("-inf")
        #: The highest commit index that a leader reported.
        self.commit_index = 0
        #: (peer, log index) of a report that this node is not a member; None once a leader has sent something.
        self.removal_report: tuple[int, int] | None = None
        #: Why this node cannot use the snapshots it is sent; None if it can, as far as it knows.
        self.unusable_snapshot: str | None = None


class MembershipInForce:
    """The newest membership of this node's log. It is in force from its append on, committed or not."""

    def __init__(self, node_id: int, entry: tuple[int, bytes]) -> None:
        self._node_id = node_id
        self.set(entry)

    def set(self, entry: tuple[int, bytes]) -> None:
        """Put the membership of a log entry (index, bytes) into force."""
        self.entry = entry
        #: Where the log holds it.
        self.index = entry[0]
        self.membership = membership.decode(entry[1])
        self.ids = self.membership.ids
        all_voters = self.membership.voters
        #: The other members whose votes and acknowledgements count.
        self.voters: frozenset[int] = all_voters - {self._node_id}
        self.learners = self.ids - all_voters
        self.is_voter = self._node_id in all_voters
        self.majority = len(all_voters) // 2 + 1


class ReplicaContext:
    """The shared parts of one replica."""

    def __init__(
        self,
        node_id: int,
        peers: Sequence[int],
        *,
        machine: StateMachine,
        transport: PeerTransport,
        meta: MetaStore,
        journal: MemoryJournal,
        settings: ReplicaSettings,
        members: Membership | None,
        starts_as_learner: Callable[[MetaStore, MemoryJournal], bool],
        wall_ns: Callable[[], int],
    ) -> None:
        self.node_id = node_id
        self.machine = machine
        self.transport = transport
        self.meta = meta
        self.journal = journal
        self.settings = settings
        #: Every node this one exchanges messages with; not all of them need to be members.
        self.views = {peer: PeerView() for peer in peers}
        #: Messages that were well formed but refused, by reason.
        self.refused: Counter[str] = Counter()
        self.leader_contact = LeaderContact()
        self.bootstrap = Bootstrap(meta, peers if members is None else members.voters - {node_id})
        self.members = MembershipInForce(node_id, _initial_membership(node_id, peers, members, meta, journal))
        self.clock = MajorityClock(
            node_id,
            self.members,
            wall_ns,
            max_skew_ms=settings.timing.max_clock_skew_ms,
            # A leader without messages from a majority for longer steps down.
            report_ms=settings.timing.leader_fallback_ms,
        )
        self.rejoin = Rejoin(active=starts_as_learner(meta, journal))
        if not self.rejoin.active:
            journal.mark_complete()
        self.agreement = Agreement(node_id, peers, machine, transport.post, transport.is_connected)
        self.raft = RaftLibrary(node_id, peers, transport, journal, settings.timing)

    @property
    def holds_log(self) -> bool:
        """Whether this node has every entry that it ever acknowledged, as far as it can know."""
        return not self.rejoin.active or self.bootstrap.undecided

    def is_available(self, peer: int) -> bool:
        """Whether a peer is connected and holds state."""
        return self.transport.is_connected(peer) and self.views[peer].holds_state

    def is_former_member(self, node: int) -> bool:
        """Whether a node is no member by a committed change, as far as this node can know."""
        decided = 1 < self.members.index <= self.raft.commit_index and not self.rejoin.active
        return decided and node not in self.members.ids


def _initial_membership(
    node_id: int, peers: Sequence[int], members: Membership | None, meta: MetaStore, journal: MemoryJournal
) -> tuple[int, bytes]:
    """Return the newest membership of the log; of a log that is new or lost, the last one known to be committed.

    A membership that was only appended is in force while its entry is in the log: if the entry is lost, no leader
    could ever revoke it.
    """
    if members is None:
        members = membership.of(NodeConfig(id=node, port=node) for node in (node_id, *peers))
    if not meta.membership[1] or not (meta.initialized or meta.joined):
        # Kept from the first start on: editing the cluster file afterwards does not change the voters.
        meta.set_membership((_BOOTSTRAP_INDEX, membership.encode(members)))
    if not journal.membership[1] or not (meta.initialized or meta.joined):
        journal.set_base_membership(meta.membership)
    return journal.membership
