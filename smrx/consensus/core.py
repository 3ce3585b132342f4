"""What every part of the replica works with: the machine, the log, the peers, and the way to say something.

Owns no rule of consensus. The parts build on each other: Core, Following, Electing, Leading, Changing, Replica.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final, Protocol

from smrx.config import NodeConfig, Timing
from smrx.consensus import membership
from smrx.consensus.agreement import Agreement
from smrx.consensus.bootstrap import Founding
from smrx.consensus.internals import LEADER, Library, now
from smrx.consensus.journal import MemoryJournal
from smrx.consensus.membership import Membership
from smrx.consensus.messages import FENCED, LEARNER, NEW, Body, Envelope, Hello
from smrx.consensus.recovery import MetaStore, Rejoin
from smrx.consensus.transport import Header, PeerTransport

#: The cluster file's membership stands where every log begins.
_GENESIS_INDEX: Final = 1


class StateMachine(Protocol):
    """What the replica drives; the same calls in the same order on every node."""

    def apply(self, log_index: int, term: int, entry: bytes) -> None:
        """Apply one committed entry. An exception means that this node cannot go on."""
        ...

    def snapshot(self) -> bytes:
        """The whole state."""
        ...

    def restore(self, data: bytes | memoryview) -> None:
        """Become the state of a snapshot; raises ValueError, with nothing changed, for what is none."""
        ...

    def position(self) -> tuple[int, int]:
        """(applied command sequence, state hash after it)."""
        ...

    def hash_at(self, sequence: int) -> int | None:
        """The state hash after a command, None if it is not kept."""
        ...

    def hashes_between(self, first: int, last: int) -> Sequence[int] | None:
        """The state hashes after commands first..last, None if they are not all kept."""
        ...


class ConsensusError(Exception):
    """The state of this node cannot be trusted any longer, or cannot be moved on: the node must stop."""


class PeerView:
    """What a peer last said of itself."""

    def __init__(self) -> None:
        self.incarnation = 0
        self.learner = False
        self.fenced = False
        #: It never held state.
        self.new = False
        #: It said so to the present life of this node, and not to an earlier one.
        self.knows_me = False
        self.sequence: int | None = None
        self.state_hash: int | None = None

    @property
    def holds_state(self) -> bool:
        """Whether its vote and its acknowledgements count."""
        return self.incarnation > 0 and not self.learner and not self.fenced


class Core(Library):
    """The replica's parts' common ground."""

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
        self.node_id = node_id
        self.machine = machine
        self.meta = meta
        self.timing = timing
        #: Messages that were well formed but refused, by reason.
        self.refused: Counter[str] = Counter()
        self._transport = transport
        #: Every node this one listens to; members may be fewer: see membership.
        self._views = {peer: PeerView() for peer in peers}
        journal.attach(meta)
        named = peers if members is None else members.voters - {node_id}
        self._founding = Founding(meta, named)
        self._membership = self._first_membership(members, peers, meta, journal)
        self._rejoin = Rejoin(active=self._starts_as_learner(meta, journal))
        if not self._rejoin.active:
            journal.regained()
        self.agreement = Agreement(node_id, peers, machine, transport.post, transport.is_connected)
        super().__init__(node_id, peers, transport, journal, timing)
        transport.attach(
            header=self._header,
            persist_term=self._persist_term,
            persist=self._persist,
            clock=now,
            # A little more than the heartbeat, which says the same and more.
            hello_seconds=1.2 * timing.heartbeat_ms / 1000,
            silence_seconds=timing.election_max_ms / 1000,
            greeting=self._greeting,
            stranger=self._on_stranger,
        )

    def _first_membership(
        self, members: Membership | None, peers: Sequence[int], meta: MetaStore, journal: MemoryJournal
    ) -> Membership:
        """The newest of its log; of a log that is new or lost, the last one known to be committed.

        One that was only ever appended is in force as long as its entry is in the log and no longer: with the entry
        gone, nobody would ever take it back.
        """
        if members is None:
            members = membership.of(NodeConfig(id=node, port=node) for node in (self.node_id, *peers))
        if not meta.membership[1] or not (meta.settled or meta.joined):
            # Kept from the beginning on: a cluster file that was edited since does not change who has a vote.
            meta.set_membership((_GENESIS_INDEX, membership.encode(members)))
        if not journal.membership[1] or not (meta.settled or meta.joined):
            journal.begin_with(meta.membership)
        self._membership_entry = journal.membership
        return membership.decode(self._membership_entry[1])

    @property
    def _membership_index(self) -> int:
        """Where the membership in force stands in the log."""
        return self._membership_entry[0]

    @property
    def membership(self) -> Membership:
        """Who belongs to the cluster, as far as this node's log says."""
        return self._membership

    @property
    def _voters(self) -> frozenset[int]:
        """The other members whose votes and acknowledgements count."""
        return self._membership.voters - {self.node_id}

    @property
    def _majority(self) -> int:
        return len(self._membership.voters) // 2 + 1

    @property
    def is_leader(self) -> bool:
        """Whether this node believes it leads; only a committed entry proves it."""
        return self._raft_state == LEADER

    @property
    def holds_log(self) -> bool:
        """Whether this node has everything it ever acknowledged, as far as it can know."""
        return not self._rejoin.active or self._founding.undecided

    @property
    def leader_id(self) -> int | None:
        """Who leads, as far as this node knows."""
        return self._leader

    @property
    def last_index(self) -> int:
        """The last log entry here, committed or not."""
        return self._journal.last_index

    def _starts_as_learner(self, meta: MetaStore, journal: MemoryJournal) -> bool:
        """A node whose word others may rely on, and whose log is gone, must not act as if it had promised nothing."""
        return journal.lost and (meta.joined or not meta.settled)

    def _header(self) -> Header:
        flags = (LEARNER if self._rejoin.active else 0) | (FENCED if self.agreement.fenced is not None else 0)
        flags |= NEW if self._founding.new else 0
        return Header(self.term, flags, *self.machine.position())

    def _persist_term(self) -> None:
        """Before anything leaves: the term on it, and the vote and the members of that term, are durable."""
        self.meta.sync()

    def _greeting(self, peer: int) -> Body:
        return Hello()

    def _on_stranger(self, envelope: Envelope) -> Body | None:
        return None

    def _persist(self) -> None:
        """Before anything leaves that promises it: the log is durable.

        The term first: no durable entry is of a term that its node could forget.
        """
        self._persist_term()
        self._journal.sync()

    def _post(self, peer: int, body: Body) -> None:
        self._transport.post(peer, body)

    def _is_of_this_term(self, envelope: Envelope) -> bool:
        """The library's acknowledgements carry no term, so that one of an earlier leadership would count."""
        return envelope.term == self.term
