"""Check the properties that hold under every fault, while the run happens.

The properties: all nodes apply one log and reach one state; an acknowledged request is in the log, with the outcome
that was reported; requests that do not overlap in time keep their order, reads included; a request is applied once at
most, and a refused one never; a term has one leader; the engine's own invariants hold.

Owns the reference log, which is what some node applied at each index, and a replay of it without faults.
Shares the replicated state with the nodes, and no code of consensus or node. Checks sessions by its own rule: the
next request of a session is its last one plus 1, and a repeat is not applied again; from version 2 of the rules on it
must be the same command. Simulated nodes and clients report what they do; a contradiction raises Violation, which
names both sides of it.
"""

from collections.abc import Callable, Iterable
from itertools import takewhile
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from smrx.node.replicated_state import Applied, ReplicatedState
from smrx.wire import batches
from smrx.wire.codes import CommandKind, EventKind, OutcomeStatus, Reason
from smrx.wire.command_list import CommandList
from smrx.wire.records import DEFAULT_ANSWERS, OUTCOME_SIZE, SESSION_COMMAND

if TYPE_CHECKING:
    from smrx.sim.credential_checks import CredentialChecks

#: (session id, request id)
Request = tuple[int, int]

#: Reasons of a malformed command; then those that leave the next request of the session the same.
_BEFORE_SESSIONS: Final = frozenset(takewhile(lambda reason: reason is not Reason.UNKNOWN_SESSION, Reason))
_NOT_CONSUMED: Final = _BEFORE_SESSIONS | {Reason.UNKNOWN_SESSION, Reason.REQUEST_GAP, Reason.SESSION_CLOSED}

#: From this version of the rules on, a repeated request must be the same command.
_COMPARING_RULES: Final = 2

#: Commands that the leader logs by itself: no client sent them, and they are no request of the session they name.
_TIMER_DRIVEN: Final = (CommandKind.TICK, CommandKind.DISCONNECT, CommandKind.SET_VERSION)


class Violation(AssertionError):
    """A property that holds under every fault does not hold."""


class _AppliedRequest(NamedTuple):
    """Where a request was applied, with what outcome, and whether a repeat of it must be the same command."""

    sequence: int
    command: bytes
    outcome: bytes
    compared: bool


class Checker:
    """The reference log, its replay, and what clients sent and received."""

    def __init__(self, new_state: Callable[[], ReplicatedState], credentials: "CredentialChecks | None" = None) -> None:
        """`new_state` creates the state of the replay. `credentials`: the checks of a run with credentials."""
        self.credentials = credentials
        self._replay = new_state()
        #: index -> (term, entry)
        self._log: dict[int, tuple[int, bytes]] = {}
        #: index -> (sequence, state hash, outcomes) of the replay.
        self._results: dict[int, tuple[int, int, bytes]] = {}
        self._log_digests: dict[int, int] = {}
        self._state_hashes: dict[int, int] = {0: self._replay.position()[1]}
        self._last_index = 0
        self._leaders: dict[int, int] = {}
        #: Whether a leader logged a switch to rules of the next version, and the members at those times.
        self.has_logged_next_rules = False
        self._switched_members: frozenset[int] = frozenset()
        #: The last request of each session, closed ones included, and which of them are closed.
        self._sessions: dict[int, int] = {}
        self._closed: set[int] = set()
        #: The version of the rules in force.
        self._rules = self._replay.engine.rules_version
        #: How many of its last answers each session asked the exchange to keep.
        self._kept: dict[int, int] = {}
        self._applied: dict[Request, _AppliedRequest] = {}
        #: The command of each request, and the last sequence answered before it was sent.
        self._sent: dict[Request, tuple[bytes, int]] = {}
        #: The last sequence of an answer to a request or a read.
        self._answered_sequence = 0
        #: By read: the last sequence answered before it was sent.
        self._reads: dict[int, int] = {}
        self._refused: set[bytes] = set()
        self._submitted: set[bytes] = set()
        #: Requests whose outcome a client received, and reads that were answered.
        self.answered = 0
        self.reads_answered = 0

    @property
    def last_index(self) -> int:
        """The last log entry that any node applied."""
        return self._last_index

    @property
    def commands(self) -> int:
        """The number of commands applied, without repeats."""
        return self._replay.position()[0]

    def has_applied(self, session: int, request: int) -> bool:
        """Return whether a request is in the log."""
        return (session, request) in self._applied

    def term_at(self, index: int) -> int | None:
        """Return the term of an applied entry, None if no node applied it."""
        known = self._log.get(index)
        return None if known is None else known[0]

    # One log, one state, one leader per term.

    def before_apply(self, node: int, index: int, term: int, entry: bytes) -> None:
        """Check an entry that a node is about to apply; replay it if the node is the first."""
        known = self._log.get(index)
        if known is not None:
            if known != (term, entry):
                raise Violation(
                    f"log agreement: node {node} applies entry {index} of term {term} ({_entry_text(entry)}), another "
                    f"node applied one of term {known[0]} ({_entry_text(known[1])})"
                )
            return
        if index <= self._last_index:
            raise Violation(
                f"log agreement: node {node} applies commands at entry {index}, other nodes are at "
                f"{self._last_index} and applied none there"
            )
        self._log[index] = (term, entry)
        self._last_index = index
        self._replay_entry(index, term, entry)

    def _replay_entry(self, index: int, term: int, entry: bytes) -> None:
        self._replay.apply(index, term, entry)
        (applied,) = self._replay.take_applied()
        outcomes = applied.outcomes.tobytes()
        self._results[index] = (applied.sequence, applied.state_hash, outcomes)
        self._log_digests[index] = self._replay.log_digest
        self._state_hashes[applied.sequence] = applied.state_hash
        batch = batches.decode(entry)
        self._check_sessions(index, CommandList(batch.commands, batch.details), applied)

    def after_apply(self, node: int, entry: Applied) -> None:
        """Compare the result of an entry that a node applied with the replay's."""
        expected = self._results[entry.log_index]
        if (entry.sequence, entry.state_hash) != expected[:2]:
            raise Violation(
                f"one state: after entry {entry.log_index} node {node} is at command {entry.sequence} with state hash "
                f"{entry.state_hash:016x}, the replay at {expected[0]} with {expected[1]:016x}"
            )
        if entry.outcomes.tobytes() != expected[2]:
            raise Violation(
                f"one state: the outcomes of entry {entry.log_index} on node {node} differ from the replay's"
            )

    def state_restored(self, node: int, position: tuple[int, int]) -> None:
        """Check the (sequence, state hash) of a state that a node restored."""
        sequence, state_hash = position
        if self._state_hashes.get(sequence) != state_hash:
            raise Violation(
                f"one state: node {node} restored a state at command {sequence} with hash {state_hash:016x}, which the "
                "log does not produce"
            )

    def next_rules_logged(self, members: frozenset[int]) -> None:
        """Record that a leader logged a switch to the rules of the next version, with the members at that point."""
        self.has_logged_next_rules = True
        self._switched_members |= members

    def lacks_rules(self, node: int, had_rules: bool) -> None:
        """Check a node that stops because it lacks the rules in force.

        A leader may know of a member what was true before that was restarted with an older program, but it may not
        switch without having heard from every member that it has the rules.
        """
        if not self.has_logged_next_rules:
            raise Violation(f"rules: node {node} stops for lack of rules that no leader switched to")
        if node in self._switched_members and not had_rules:
            raise Violation(f"rules: a leader switched to rules that member {node} never had")

    def leader_seen(self, node: int, term: int) -> None:
        """Check that no other node leads the term that a node leads."""
        first = self._leaders.setdefault(term, node)
        if first != node:
            raise Violation(f"one leader per term: nodes {first} and {node} both lead term {term}")

    # A request is applied once at most, a refused one never.

    def _check_sessions(self, index: int, batch: CommandList, applied: Applied) -> None:
        """Check the outcome of each command against the request ids of its session."""
        outcomes = applied.outcomes
        commands, pieces, raw_outcomes = batch.records, batch.pieces(), outcomes.tobytes()
        ended = _ended_sessions(applied.events)
        for at, (kind, session, request, status, reason, sequence) in enumerate(
            zip(
                commands["kind"].tolist(), commands["session_id"].tolist(), commands["request_id"].tolist(),
                outcomes["status"].tolist(), outcomes["reason"].tolist(), outcomes["sequence"].tolist(), strict=True,
            )
        ):  # fmt: skip
            # Silent sessions end before the command is checked: their ids are free, their requests forgotten.
            for gone, last_request in ended.pop(sequence, ()):
                self._session_ended(index, gone, last_request)
            if kind in _TIMER_DRIVEN:
                if kind == CommandKind.SET_VERSION and status == OutcomeStatus.ACCEPTED:
                    self._rules += 1
                continue
            outcome = raw_outcomes[OUTCOME_SIZE * at : OUTCOME_SIZE * (at + 1)]
            last = self._sessions.get(session)
            opens = kind == CommandKind.OPEN_SESSION
            reopens = opens and session in self._closed
            repeat = last is not None and not reopens and (opens or request <= last)
            first = self._applied.get((session, request)) if repeat else None
            # A repeat has its first outcome, byte for byte; one that is older than the answers kept only says so.
            is_old = status == OutcomeStatus.DUPLICATE or (first is not None and outcome == first.outcome)
            is_mismatch = status == OutcomeStatus.REJECTED and reason == Reason.REQUEST_MISMATCH and sequence == 0
            if repeat != (is_old or is_mismatch):
                raise Violation(
                    f"exactly once: request {request} of session {session:x}, at entry {index}, was "
                    f"{'applied again' if repeat else 'not applied'} (last request of the session: {last})"
                )
            is_kept = first is not None and last is not None and last - request < self._kept[session]
            is_other = first is not None and is_kept and first.compared and pieces[at] != first.command
            if is_mismatch != is_other:
                raise Violation(
                    f"same request: request {request} of session {session:x}, at entry {index}, was repeated with "
                    f"{'another' if is_other else 'the same'} command, and {'not ' if is_other else ''}refused for it"
                )
            if is_mismatch:
                continue
            if first is not None and is_kept and outcome != first.outcome:
                raise Violation(
                    f"first answers: request {request} of session {session:x}, at entry {index}, has another outcome "
                    f"than its first (last request of the session: {last})"
                )
            if repeat:
                continue
            if opens:
                if self.credentials is not None:
                    self.credentials.first_applied(index, pieces[at], status, reason)
                if status == OutcomeStatus.ACCEPTED:
                    self._sessions.setdefault(session, 0)
                    self._closed.discard(session)
                    self._kept.setdefault(
                        session, int(commands.view(SESSION_COMMAND)["answers"][at]) or DEFAULT_ANSWERS
                    )
                continue
            is_next = last is not None and request == last + 1
            if session in self._closed and status == OutcomeStatus.REJECTED and reason == Reason.SESSION_CLOSED:
                continue
            if not is_next and not (status == OutcomeStatus.REJECTED and reason in _NOT_CONSUMED):
                raise Violation(
                    f"in order: request {request} of session {session:x}, at entry {index}, was applied after request "
                    f"{last}"
                )
            if not is_next:
                continue
            command = pieces[at]
            sent = self._sent.get((session, request))
            if sent is None or sent[0] != command:
                raise Violation(
                    f"only sent commands: request {request} of session {session:x} is not what its client sent"
                )
            if self.credentials is not None:
                self.credentials.first_applied(index, command, status, reason)
            self._applied[session, request] = _AppliedRequest(
                sequence, command, outcome, self._rules >= _COMPARING_RULES
            )
            self._sessions[session] = request
            if kind == CommandKind.CLOSE_SESSION and status == OutcomeStatus.ACCEPTED:
                self._closed.add(session)

    def _session_ended(self, index: int, session: int, last_request: int) -> None:
        """Forget a session that the exchange ended because it was silent."""
        known = self._sessions.pop(session, None)
        if known != last_request:
            raise Violation(
                f"sessions: entry {index} ended session {session:x} after request {last_request}; its last request is "
                f"{known}"
            )
        self._closed.discard(session)
        del self._kept[session]

    def frame_refused(self, delivery: bytes) -> None:
        """Record that a node refused a frame: it may not put it into its log."""
        self._refused.add(delivery)
        if delivery in self._submitted:
            raise Violation("refused, never applied: a node refused a frame that is in a log")

    def frame_submitted(self, delivery: bytes) -> None:
        """Record that a node put a frame into its log: it may not refuse it."""
        self._submitted.add(delivery)
        if self.credentials is not None:
            self.credentials.frame_submitted(delivery)
        if delivery in self._refused:
            raise Violation("refused, never applied: a node put a frame into its log that it had refused")

    # What clients receive is what the replay computes, in real-time order.

    def request_sent(self, session: int, request: int, command: bytes, floor: int | None = None) -> None:
        """Record a request before its client sends it for the first time, as a piece of a CommandList.

        `floor` is the last sequence answered by then, for a caller that does not report answers in order of time.
        """
        self._sent[session, request] = (command, self._answered_sequence if floor is None else floor)

    def outcomes_received(self, session: int, outcomes: NDArray[np.void]) -> None:
        """Check the outcomes that a client received for its next requests."""
        raw = outcomes.tobytes()
        for at, (request, sequence) in enumerate(
            zip(outcomes["request_id"].tolist(), outcomes["sequence"].tolist(), strict=True)
        ):
            name = f"request {request} of session {session:x}"
            applied = self._applied.get((session, request))
            if applied is None:
                raise Violation(f"acknowledged, in the log: {name} was answered and is in no log")
            # A client never waits for more answers than the exchange keeps for it, so it gets the first one.
            outcome = raw[OUTCOME_SIZE * at : OUTCOME_SIZE * (at + 1)]
            if outcome != applied.outcome:
                raise Violation(
                    f"replayed outcomes: {name} was answered as command {sequence}, the replay applied it as "
                    f"{applied.sequence}" + (", with another outcome" if sequence == applied.sequence else "")
                )
            floor = self._sent[session, request][1]
            if applied.sequence <= floor:
                raise Violation(
                    f"real-time order: {name} is command {applied.sequence}, but was sent after the answer to command "
                    f"{floor}"
                )
            self.answered += 1
            self._answered_sequence = max(self._answered_sequence, applied.sequence)

    # Reads are linearizable: an answer has every command that was answered before the read was sent, in any client.

    def read_requested(self, read: int) -> None:
        """Record a read before its client sends it."""
        self._reads[read] = self._answered_sequence

    def read_answered(self, node: int, read: int, position: tuple[int, int]) -> None:
        """Check the (sequence, state hash) that a node answered; the network may deliver an answer only once."""
        floor = self._reads.pop(read)
        sequence, state_hash = position
        if self._state_hashes.get(sequence) != state_hash:
            raise Violation(
                f"linearizable reads: node {node} answered read {read} with a state at command {sequence} that the log "
                "does not produce"
            )
        if sequence < floor:
            raise Violation(
                f"linearizable reads: node {node} answered read {read} at command {sequence}, but the read was sent "
                f"after the answer to command {floor}"
            )
        self.reads_answered += 1
        self._answered_sequence = max(self._answered_sequence, sequence)

    # At the end of a run.

    def check_final_states(self, states: Iterable[tuple[int, ReplicatedState]]) -> None:
        """Check that the states of all nodes equal the replay, and the engine's invariants in each."""
        expected = self._replay.position()
        content_hash = self._replay.engine.recompute_content_hash()
        checked: set[bytes] = set()
        for node, state in [(0, self._replay), *states]:
            name = f"node {node}" if node else "the replay"
            if state.position() != expected:
                raise Violation(f"one state: {name} ends at {state.position()}, the replay at {expected}")
            if state.log_digest != self._replay.log_digest:
                raise Violation(f"log agreement: the log digest of {name} differs from the replay's")
            if state.engine.content_hash() != content_hash:
                raise Violation(f"one state: the records of {name} differ from the replay's")
            # Nodes that applied the same log and restored nothing since have the same bytes in memory.
            memory = _memory_of(state)
            if memory in checked:
                continue
            checked.add(memory)
            faults = state.engine.check_invariants()
            if faults:
                raise Violation(f"engine invariants: {name}: {faults[0]}")

    def check_position(self, node: int, index: int, position: tuple[int, int], log_digest: int) -> None:
        """Check the (sequence, state hash) and log digest that a node reports after the log up to an entry."""
        last = max((known for known in self._log if known <= index), default=0)
        sequence, state_hash, _ = self._results[last]
        if position != (sequence, state_hash):
            raise Violation(
                f"one state: after entry {index} node {node} is at command {position[0]} with state hash "
                f"{position[1]:016x}, the replay at {sequence} with {state_hash:016x}"
            )
        if log_digest != self._log_digests[last]:
            raise Violation(
                f"log agreement: the log digest of node {node} after entry {index} differs from the replay's"
            )

    def check_hashes(self, node: int, state: ReplicatedState) -> None:
        """Check the state hash at every sequence that a node still stores."""
        last = min(state.position()[0], self._replay.position()[0])
        if state.hashes_between(1, last) != self._replay.hashes_between(1, last):
            raise Violation(f"one state: the state hashes of node {node} differ from the replay's")


def _memory_of(state: ReplicatedState) -> bytes:
    """Return a hash of the memory of an engine in use: what snapshots store, and the indexes that they do not."""
    found = xxhash.xxh3_128()
    for piece in state.engine.snapshot_pieces():
        found.update(piece)
    for array in state.engine.arrays_outside_snapshot():
        found.update(len(array).to_bytes(8, "little"))
        found.update(array.view(np.uint8).data)
    return found.digest()


def _ended_sessions(events: NDArray[np.void]) -> dict[int, list[tuple[int, int]]]:
    """Return the sessions that ended by silence and their last requests, by the command before which they ended."""
    found: dict[int, list[tuple[int, int]]] = {}
    for event in events[events["kind"] == EventKind.SESSION_EXPIRED]:
        ended = int(event["session_id"]), int(event["request_id"])
        found.setdefault(int(event["command_sequence"]), []).append(ended)
    return found


def _entry_text(entry: bytes) -> str:
    commands = batches.decode(entry).commands
    named = ", ".join(f"{int(c['session_id']):x}/{int(c['request_id'])}" for c in commands[:3])
    return f"{len(commands)} commands: {named}{', ...' if len(commands) > 3 else ''}" if len(commands) else "a barrier"
