"""PySyncObj's private members under names of our own: the one file that knows them.

Owns no decision. Each access says why the public surface does not do; each override hands a step of the library to a
method that the replica defines. Everything is read against version 0.3.17, which pyproject.toml pins; the library's
elections, vote, log matching and commit rule run as they are.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import pysyncobj.syncobj
from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.node import Node

from smrx.config import Timing
from smrx.consensus.journal import LogEntry, MemoryJournal
from smrx.consensus.messages import MAX_BATCH_BYTES, MAX_MESSAGE_BYTES, Envelope
from smrx.consensus.transport import PeerTransport

# The library reads CLOCK_MONOTONIC_RAW, which drifts from the clock that poll() timeouts and the reactor go by.
pysyncobj.syncobj.monotonicTime = time.monotonic

FOLLOWER: Final[int] = pysyncobj.syncobj._RAFT_STATE.FOLLOWER
CANDIDATE: Final[int] = pysyncobj.syncobj._RAFT_STATE.CANDIDATE
LEADER: Final[int] = pysyncobj.syncobj._RAFT_STATE.LEADER


def now() -> float:
    """The library's clock, which a simulation may replace."""
    return float(pysyncobj.syncobj.monotonicTime())


def chance() -> float:
    """A number in [0, 1) from the library's generator, which a simulation may seed."""
    return float(pysyncobj.syncobj.random.random())


class _NothingToPoll:
    """Stands in for the library's poller: the reactor polls."""

    def poll(self, timeout: float) -> None:
        """Return at once."""


class Library(SyncObj):  # type: ignore[misc]  # pysyncobj has no types
    """SyncObj with hooks. Construct only as a Replica."""

    def __init__(
        self, node_id: int, peers: Iterable[int], transport: PeerTransport, journal: MemoryJournal, timing: Timing
    ) -> None:
        """Start as a follower of nobody, with the term and vote the journal knows."""
        self._journal = journal
        self._nodes = {peer: Node(peer) for peer in peers}
        #: Set while the library works on an append that conflicts with nothing: it would cut the log all the same.
        self._keep_tail = False
        super().__init__(Node(node_id), list(self._nodes.values()), _configuration(timing), transport=transport)
        # The journal is made by a module function from a file name; ours takes its place before the first use.
        self._SyncObj__raftLog = journal
        self._SyncObj__raftCurrentTerm = journal.getCurrentTerm()
        self._SyncObj__votedForNodeId = journal.getVotedForNodeId()
        # What a restart made of a snapshot and the journal is applied, and was committed before.
        self._SyncObj__raftCommitIndex = max(journal.getRaftCommitIndex(), journal.applied_index)
        self._SyncObj__raftLastApplied = max(journal.first_index, journal.applied_index)
        # It would open a poll object a node and ask the kernel at every tick.
        self._poller = _NothingToPoll()

    # State. The library has read-only properties for some of it and none for the rest.

    @property
    def _raft_state(self) -> int:
        return int(self._SyncObj__raftState)

    @property
    def _leader(self) -> int | None:
        leader = self._SyncObj__raftLeader
        return None if leader is None else int(leader.id)

    @property
    def term(self) -> int:
        """The current term."""
        return int(self._SyncObj__raftCurrentTerm)

    @property
    def commit_index(self) -> int:
        """The last log entry known to be on a majority."""
        return int(self._SyncObj__raftCommitIndex)

    @property
    def applied_index(self) -> int:
        """The last log entry the state machine has seen."""
        return int(self._SyncObj__raftLastApplied)

    @property
    def _next_index(self) -> dict[Node, int]:
        # What to send next: ours to set, because the library moves it back on every acknowledgement.
        indexes: dict[Node, int] = self._SyncObj__raftNextIndex
        return indexes

    @property
    def _match_index(self) -> dict[Node, int]:
        # What a peer is known to hold: forgotten here when the peer comes back without it.
        indexes: dict[Node, int] = self._SyncObj__raftMatchIndex
        return indexes

    @property
    def _election_deadline(self) -> float:
        return float(self._SyncObj__raftElectionDeadline)

    @_election_deadline.setter
    def _election_deadline(self, deadline: float) -> None:
        # Moved when an election would be pointless, so that the tick does not ask at every turn.
        self._SyncObj__raftElectionDeadline = deadline

    def _set_voters(self, peers: Iterable[int]) -> None:
        # The library's own way is a pickled entry of its log, in force only when it is applied.
        voters = {self._nodes[peer] for peer in peers}
        known: set[Node] = self._SyncObj__otherNodes
        for node in voters - known:
            self._SyncObj__lastResponseTime[node] = now()
        known.clear()
        known.update(voters)

    def _track(self, peer: int) -> None:
        """Keep for a peer what the library keeps for those with a vote."""
        self._SyncObj__raftNextIndex[self._nodes[peer]] = self._journal.last_index + 1
        self._SyncObj__raftMatchIndex[self._nodes[peer]] = 0

    def _untrack(self, peer: int) -> None:
        node = self._nodes.pop(peer)
        for kept in (self._SyncObj__raftNextIndex, self._SyncObj__raftMatchIndex, self._SyncObj__lastResponseTime):
            kept.pop(node, None)

    def _heartbeat_due(self) -> float:
        return float(self._SyncObj__newAppendEntriesTime)

    # Steps of the library that the replica asks for.

    def _hand_to_library(self, peer: int, message: Mapping[str, Any]) -> None:
        """Let the library handle a message that has passed every check."""
        super()._SyncObj__onMessageReceived(self._nodes[peer], message)

    def _become_follower(self, term: int) -> None:
        """Give up any leadership, and take a higher term without a vote in it."""
        if term > self.term:
            self._SyncObj__setCurrentTerm(term, None)
        self._SyncObj__setState(FOLLOWER)
        self._SyncObj__raftLeader = None

    def _vote_for(self, peer: int) -> None:
        """Give a peer the vote of this term, whatever it was."""
        self._SyncObj__setCurrentTerm(self.term, peer)

    def _lose_leader(self) -> None:
        """Stop naming a leader that was silent for too long; the library does so only once it stands itself."""
        self._SyncObj__raftLeader = None

    def _end_transfer(self) -> None:
        """Let heartbeats count again: the library ignores them once the leader told this node to stand."""
        self._SyncObj__transferInProgress = False

    def _election_timeout(self) -> float:
        """A random time between the shortest and the longest patience with a silent leader."""
        return float(self._SyncObj__generateRaftTimeout())

    def _jump_to(self, index: int) -> None:
        """The state machine now stands after this entry, by a snapshot: all up to it is committed and applied."""
        self._SyncObj__raftLastApplied = index
        self._SyncObj__raftCommitIndex = max(self.commit_index, index)

    def _applied(self, index: int) -> None:
        """This entry will not be applied again, whatever becomes of the attempt."""
        self._SyncObj__raftLastApplied = index

    # Steps of the library that the replica takes over. Defined here under the mangled names, done there.

    def _SyncObj__onMessageReceived(self, node: Node, message: Envelope) -> None:
        # Every message passes the replica's checks before the library sees it.
        self._on_message(node.id, message)

    def _SyncObj__sendNextNodeIdx(
        self, node: Node, reset: bool = False, nextNodeIdx: int | None = None, success: bool = False
    ) -> None:
        # The library's answers carry no term, and ask for a resend from the wrong place.
        self._reply(node.id, self._journal.last_index + 1 if nextNodeIdx is None else nextNodeIdx, reset, success)

    def _SyncObj__getEntries(
        self, fromIDx: int | None, count: int | None = None, maxSizeBytes: int | None = None
    ) -> list[LogEntry]:
        # The append handler alone asks without a count, and takes more than one entry as a reason to cut the log.
        if self._keep_tail and count is None:
            count = 1
        entries: list[LogEntry] = super()._SyncObj__getEntries(fromIDx, count, maxSizeBytes)
        return entries

    def _SyncObj__sendAppendEntries(self) -> None:
        # The library's sender knows no window, splits large entries wrongly, and loops while a snapshot is made.
        self._SyncObj__newAppendEntriesTime = now() + self._SyncObj__conf.appendEntriesPeriod
        self._heartbeat()

    def _SyncObj__connectedToAnyone(self) -> bool:
        # Asked once the election deadline has passed, and nowhere else: the place to decide whether to stand.
        return self._may_stand()

    def _SyncObj__applyLogEntries(self) -> bool:
        # The library swallows nothing and repeats everything: an exception in a command would be applied for ever.
        self._apply_committed()
        return False

    def _SyncObj__doApplyCommand(self, command: bytes) -> None:
        # Reached only from the step above; it unpickles.
        raise AssertionError("the library's apply step is not used")

    def _SyncObj__tryLogCompaction(self) -> None:
        # The library pickles the replica itself, on this thread.
        self._compact_if_due()

    def _SyncObj__loadDumpFile(self, clearJournal: bool) -> None:
        # It unpickles, and takes a failure for success.
        raise AssertionError("the library's snapshots are not used")

    def _SyncObj__onBecomeLeader(self) -> None:
        # The library starts sending inside; what the replica keeps of each peer must be fresh by then.
        self._leading()
        super()._SyncObj__onBecomeLeader()

    def _SyncObj__setState(self, newState: int) -> None:
        # A leader's own deadline is as old as its leadership: without a new one it would stand again at once.
        if self._raft_state == LEADER and newState == FOLLOWER:
            self._election_deadline = now() + self._election_timeout()
            self._leading_no_more()
        super()._SyncObj__setState(newState)

    def _checkCommandsToApply(self) -> None:
        # The library's queue forwards commands to the leader and loses their callbacks; submit() takes its place.
        pass

    def _applyCommand(
        self, command: bytes, callback: Callable[..., None] | None, commandType: int | None = None
    ) -> None:
        raise AssertionError("commands enter through submit()")

    # What the replica defines.

    def _on_message(self, peer: int, envelope: Envelope) -> None:
        raise NotImplementedError

    def _reply(self, peer: int, next_index: int, reset: bool, success: bool) -> None:
        raise NotImplementedError

    def _heartbeat(self) -> None:
        raise NotImplementedError

    def _may_stand(self) -> bool:
        raise NotImplementedError

    def _apply_committed(self) -> None:
        raise NotImplementedError

    def _compact_if_due(self) -> None:
        raise NotImplementedError

    def _leading(self) -> None:
        raise NotImplementedError

    def _leading_no_more(self) -> None:
        raise NotImplementedError


def _configuration(timing: Timing) -> SyncObjConf:
    election_max = timing.election_max_ms / 1000
    return SyncObjConf(
        autoTick=False,
        appendEntriesPeriod=timing.heartbeat_ms / 1000,
        raftMinTimeout=timing.election_min_ms / 1000,
        raftMaxTimeout=election_max,
        # Below the shortest election: a leader cut off steps down before another can stand.
        leaderFallbackTimeout=timing.leader_fallback_ms / 1000,
        connectionTimeout=2 * election_max,
        # Above every entry: the library would split a larger one, and its splitting is broken.
        appendEntriesBatchSizeBytes=max(MAX_BATCH_BYTES, MAX_MESSAGE_BYTES),
        appendEntriesUseBatch=True,
        # A journal file without a dump file would lose the state at its first compaction; we have neither.
        journalFile=None,
        fullDumpFile=None,
        # Membership changes are pickled.
        dynamicMembershipChange=False,
    )
