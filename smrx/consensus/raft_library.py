"""Wrap PySyncObj: the one file that uses its private members.

Owns the library's state (role, term, vote, commit index, next and match indexes) and gives it plain names. Decides
nothing: the library's election, vote, log matching and commit rule run as they are, and the steps that the project
replaces are passed to `Hooks`. Each access says why the public interface is not enough. Written against version 0.3.17,
which pyproject.toml pins.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

import pysyncobj.syncobj
from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.node import Node

from smrx.config import Timing
from smrx.consensus.journal import LogEntry, MemoryJournal
from smrx.consensus.messages import MAX_BATCH_BYTES, MAX_MESSAGE_BYTES, Envelope
from smrx.consensus.transport import PeerTransport

# The library reads CLOCK_MONOTONIC_RAW, which drifts from the clock of poll() timeouts and of the reactor.
pysyncobj.syncobj.monotonicTime = time.monotonic

_FOLLOWER: Final[int] = pysyncobj.syncobj._RAFT_STATE.FOLLOWER
_CANDIDATE: Final[int] = pysyncobj.syncobj._RAFT_STATE.CANDIDATE
_LEADER: Final[int] = pysyncobj.syncobj._RAFT_STATE.LEADER


def now() -> float:
    """Return the library's time in seconds; a simulation may replace the clock."""
    return float(pysyncobj.syncobj.monotonicTime())


def random_fraction() -> float:
    """Return a number in [0, 1) from the library's generator; a simulation may seed it."""
    return float(pysyncobj.syncobj.random.random())


class Hooks(NamedTuple):
    """The steps of the library that the replica replaces. The first is called for messages, the others by tick()."""

    #: (peer, message): a message of a peer has arrived.
    receive: Callable[[int, Envelope], None]
    #: (peer, next_index, reset, success): the library has handled an append and wants it answered.
    reply_to_append: Callable[[int, int, bool, bool], None]
    #: The election timeout has passed: return whether to become a candidate now.
    may_start_election: Callable[[], bool]
    #: This node has won an election; the library appends the first entry of the term afterwards.
    leadership_won: Callable[[], None]
    #: This node leads no longer.
    leadership_lost: Callable[[], None]
    #: The commit index may have moved.
    apply_committed: Callable[[], None]
    #: This node leads, and the heartbeat period has passed.
    send_heartbeats: Callable[[], None]
    #: The last step of each tick.
    compact_log: Callable[[], None]


class _NoPoller:
    """Replaces the library's poller: the reactor polls."""

    def poll(self, timeout: float) -> None:
        """Return at once."""


class RaftLibrary(SyncObj):  # type: ignore[misc]  # pysyncobj has no types
    """One node of PySyncObj, driven by tick() and deliver()."""

    def __init__(
        self, node_id: int, peers: Iterable[int], transport: PeerTransport, journal: MemoryJournal, timing: Timing
    ) -> None:
        """Start as a follower without a leader, with the journal's term and vote. attach() must follow."""
        self._hooks: Hooks
        self._journal = journal
        self._nodes = {peer: Node(peer) for peer in peers}
        #: Set while the library handles an append without a conflict: it would truncate the log nevertheless.
        self._keep_tail = False
        super().__init__(Node(node_id), list(self._nodes.values()), _configuration(timing), transport=transport)
        # The library creates its journal from a file name; this one replaces it before the first use.
        self._SyncObj__raftLog = journal
        self._SyncObj__raftCurrentTerm = journal.getCurrentTerm()
        self._SyncObj__votedForNodeId = journal.getVotedForNodeId()
        # A restart applies committed entries from the snapshot and the journal before the library starts.
        self._SyncObj__raftCommitIndex = max(journal.getRaftCommitIndex(), journal.applied_index)
        self._SyncObj__raftLastApplied = max(journal.first_index, journal.applied_index)
        # The library's own poller opens a poll object for each node and makes a system call at every tick.
        self._poller = _NoPoller()

    def attach(self, hooks: Hooks) -> None:
        """Set what the library calls; needed before the first tick or message."""
        self._hooks = hooks

    # State. The library has public read-only properties for some of it and none for the rest.

    @property
    def is_leader(self) -> bool:
        """Whether this node is the leader of its term, as far as it knows."""
        return bool(self._SyncObj__raftState == _LEADER)

    @property
    def is_candidate(self) -> bool:
        """Whether this node is in an election of its own."""
        return bool(self._SyncObj__raftState == _CANDIDATE)

    @property
    def leader_id(self) -> int | None:
        """The leader of the term, None if unknown."""
        leader = self._SyncObj__raftLeader
        return None if leader is None else int(leader.id)

    @property
    def term(self) -> int:
        """The current term."""
        return int(self._SyncObj__raftCurrentTerm)

    @property
    def commit_index(self) -> int:
        """The last log entry that is known to be on a majority."""
        return int(self._SyncObj__raftCommitIndex)

    @property
    def applied_index(self) -> int:
        """The last log entry that the state machine has applied."""
        return int(self._SyncObj__raftLastApplied)

    # A method: the library's constructor evaluates every property, before it has set this.
    def heartbeat_due(self) -> float:
        """Return when the leader's next heartbeat is due."""
        return float(self._SyncObj__newAppendEntriesTime)

    @property
    def election_deadline(self) -> float:
        """When the election timeout passes."""
        return float(self._SyncObj__raftElectionDeadline)

    @election_deadline.setter
    def election_deadline(self, deadline: float) -> None:
        # Moved while an election is pointless, so that not every tick asks again.
        self._SyncObj__raftElectionDeadline = deadline

    def election_timeout(self) -> float:
        """Return a random election timeout in seconds."""
        return float(self._SyncObj__generateRaftTimeout())

    # Peers and their indexes.

    def add_peer(self, peer: int) -> None:
        """Add a node that may send and receive messages, without a vote."""
        self._nodes[peer] = Node(peer)
        self.reset_indexes(peer)

    def remove_peer(self, peer: int) -> None:
        """Drop everything that is kept for a peer."""
        node = self._nodes.pop(peer)
        for kept in (self._SyncObj__raftNextIndex, self._SyncObj__raftMatchIndex, self._SyncObj__lastResponseTime):
            kept.pop(node, None)

    def set_voters(self, peers: Iterable[int]) -> None:
        """Count the votes and acknowledgements of these peers, besides those of this node."""
        # The library's own way is a pickled log entry that takes effect when it is applied.
        voters = {self._nodes[peer] for peer in peers}
        known: set[Node] = self._SyncObj__otherNodes
        for node in voters - known:
            self._SyncObj__lastResponseTime[node] = now()
        known.clear()
        known.update(voters)

    def reset_indexes(self, peer: int) -> None:
        """Set a peer's indexes as at the start of a leadership; the library does so for voters only."""
        self._SyncObj__raftNextIndex[self._nodes[peer]] = self._journal.last_index + 1
        self._SyncObj__raftMatchIndex[self._nodes[peer]] = 0

    def next_index(self, peer: int) -> int:
        """Return the first entry that was not sent to a peer yet."""
        return int(self._SyncObj__raftNextIndex[self._nodes[peer]])

    def set_next_index(self, peer: int, index: int) -> None:
        """Set the first entry to send to a peer. The library would move it back at every acknowledgement."""
        self._SyncObj__raftNextIndex[self._nodes[peer]] = index

    def match_index(self, peer: int) -> int:
        """Return the last entry that a peer has acknowledged in this term, 0 if none."""
        return int(self._SyncObj__raftMatchIndex.get(self._nodes[peer], 0))

    # Steps of the library.

    def has_work(self, time: float) -> bool:
        """Return whether a tick has something to do, apart from what an acknowledgement has changed."""
        if self._SyncObj__raftState == _LEADER:
            return bool(time > self._SyncObj__newAppendEntriesTime)
        is_behind = self._SyncObj__raftCommitIndex > self._SyncObj__raftLastApplied
        return bool(is_behind or time > self._SyncObj__raftElectionDeadline)

    def tick(self) -> None:
        """Run one tick: election, commit index, leader's quorum check, apply, heartbeats, compaction."""
        self.doTick(0.0)

    def acknowledge(self, peer: int, next_index: int, *, counts: bool) -> None:
        """Note that a peer has replied; with `counts` also that it has every entry before `next_index`.

        What the library does with such a reply, without the ten comparisons before it.
        """
        node = self._nodes[peer]
        if counts and self._SyncObj__raftMatchIndex[node] < next_index - 1:
            self._SyncObj__raftMatchIndex[node] = next_index - 1
            self._SyncObj__raftNextIndex[node] = next_index
        self._SyncObj__lastResponseTime[node] = now()

    def deliver(self, peer: int, message: Mapping[str, Any]) -> None:
        """Let the library handle a message that has passed every check."""
        super()._SyncObj__onMessageReceived(self._nodes[peer], message)

    def deliver_append(self, peer: int, message: Mapping[str, Any], *, truncate: bool) -> None:
        """Let the library append entries; it truncates the log first only if told so."""
        self._keep_tail = not truncate
        try:
            self.deliver(peer, message)
        finally:
            self._keep_tail = False

    def step_down(self, term: int) -> None:
        """Become a follower without a leader; a higher term is adopted, without a vote in it."""
        if term > self.term:
            self._SyncObj__setCurrentTerm(term, None)
        self._SyncObj__setState(_FOLLOWER)
        self._SyncObj__raftLeader = None

    def vote_for(self, peer: int) -> None:
        """Record a vote for a peer in the current term, replacing any other."""
        self._SyncObj__setCurrentTerm(self.term, peer)

    def clear_leader(self) -> None:
        """Drop a leader that has timed out; the library does so only when it becomes a candidate."""
        self._SyncObj__raftLeader = None

    def end_transfer(self) -> None:
        """Let heartbeats reset the election timeout again: the library ignores them after a TimeoutNow."""
        self._SyncObj__transferInProgress = False

    def advance_to(self, index: int) -> None:
        """Set the applied index after a snapshot was installed, and the commit index to at least that."""
        self._SyncObj__raftLastApplied = index
        self._SyncObj__raftCommitIndex = max(self.commit_index, index)

    def mark_applied(self, index: int) -> None:
        """Set the applied index before an entry is applied, so that no entry is applied twice."""
        self._SyncObj__raftLastApplied = index

    # Steps that the replica replaces, under the library's mangled names.

    def _SyncObj__onMessageReceived(self, node: Node, message: Envelope) -> None:
        # The replica checks every message before the library handles it.
        self._hooks.receive(node.id, message)

    def _SyncObj__sendNextNodeIdx(
        self, node: Node, reset: bool = False, nextNodeIdx: int | None = None, success: bool = False
    ) -> None:
        # The library's replies carry no term, and ask for entries from the wrong index.
        next_index = self._journal.last_index + 1 if nextNodeIdx is None else nextNodeIdx
        self._hooks.reply_to_append(node.id, next_index, reset, success)

    def _SyncObj__getEntries(
        self, fromIDx: int | None, count: int | None = None, maxSizeBytes: int | None = None
    ) -> list[LogEntry]:
        # Only the append handler asks without a count; if it gets more than one entry, it truncates the log.
        if self._keep_tail and count is None:
            count = 1
        entries: list[LogEntry] = super()._SyncObj__getEntries(fromIDx, count, maxSizeBytes)
        return entries

    def _SyncObj__sendAppendEntries(self) -> None:
        # The library's sender has no window, splits large entries wrongly, and loops while a snapshot is made.
        self._SyncObj__newAppendEntriesTime = now() + self._SyncObj__conf.appendEntriesPeriod
        self._hooks.send_heartbeats()

    def _SyncObj__connectedToAnyone(self) -> bool:
        # The library asks this only once the election timeout has passed, just before it becomes a candidate.
        return self._hooks.may_start_election()

    def _SyncObj__applyLogEntries(self) -> bool:
        # The library applies an entry that raises an exception again at every tick.
        self._hooks.apply_committed()
        return False

    def _SyncObj__doApplyCommand(self, command: bytes) -> None:
        # It unpickles. Called only by the step above.
        raise AssertionError("the library's apply step is not used")

    def _SyncObj__tryLogCompaction(self) -> None:
        # The library pickles itself, on this thread.
        self._hooks.compact_log()

    def _SyncObj__loadDumpFile(self, clearJournal: bool) -> None:
        # It unpickles, and treats a failure as success.
        raise AssertionError("the library's snapshots are not used")

    def _SyncObj__onBecomeLeader(self) -> None:
        # The library starts sending here; the state kept of each peer must be reset before.
        self._hooks.leadership_won()
        super()._SyncObj__onBecomeLeader()

    def _SyncObj__setState(self, newState: int) -> None:
        # A leader's election deadline is from before its leadership: without a new one it would campaign at once.
        if self._SyncObj__raftState == _LEADER and newState == _FOLLOWER:
            self.election_deadline = now() + self.election_timeout()
            self._hooks.leadership_lost()
        super()._SyncObj__setState(newState)

    def _checkCommandsToApply(self) -> None:
        # The library's queue forwards commands to the leader and loses their callbacks; Replica.submit() replaces it.
        pass

    def _applyCommand(
        self, command: bytes, callback: Callable[..., None] | None, commandType: int | None = None
    ) -> None:
        raise AssertionError("commands enter through Replica.submit()")


def _configuration(timing: Timing) -> SyncObjConf:
    election_max = timing.election_max_ms / 1000
    return SyncObjConf(
        autoTick=False,
        appendEntriesPeriod=timing.heartbeat_ms / 1000,
        raftMinTimeout=timing.election_min_ms / 1000,
        raftMaxTimeout=election_max,
        # Below the shortest election timeout: an isolated leader steps down before another node campaigns.
        leaderFallbackTimeout=timing.leader_fallback_ms / 1000,
        connectionTimeout=2 * election_max,
        # Above every entry: the library would split a larger one, and its splitting is broken.
        appendEntriesBatchSizeBytes=max(MAX_BATCH_BYTES, MAX_MESSAGE_BYTES),
        appendEntriesUseBatch=True,
        # A journal file without a dump file loses the state at the first compaction; the project uses neither.
        journalFile=None,
        fullDumpFile=None,
        # Membership changes are pickled.
        dynamicMembershipChange=False,
    )
