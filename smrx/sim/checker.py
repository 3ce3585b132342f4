"""What must hold under every fault, checked while it happens.

Owns the only log: what some node applied at each index, replayed once more by one machine that knows no faults. Shares
the state machine with the nodes and nothing of consensus or of the node; what a session may do it knows from rules of
its own (EXCHANGE.md: previous + 1, a repeat is not applied again). Told by the simulated nodes and clients; raises
Violation, with the two things that contradict each other.
"""

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.node.replicated_state import Applied, ReplicatedState
from smrx.wire import batches
from smrx.wire.codes import CommandKind, OutcomeStatus, Reason
from smrx.wire.records import COMMAND_SIZE, OUTCOME_SIZE

#: (session id, request id)
Request = tuple[int, int]

#: What only time brings: no client asked for it, and it counts as no request of the session it names.
_THE_LEADERS_OWN: Final = (CommandKind.TICK, CommandKind.DISCONNECT)


class Violation(AssertionError):
    """Something that must hold under every fault did not."""


class _Place(NamedTuple):
    """Where and how a request was applied."""

    sequence: int
    command: bytes
    outcome: bytes


class Checker:
    """The five invariants of CONSENSUS.md, and the engine's."""

    def __init__(self, machine: Callable[[], ReplicatedState]) -> None:
        """`machine` makes the machine of the replay."""
        self._replay = machine()
        #: index -> (term, entry), and what the replay made of it.
        self._log: dict[int, tuple[int, bytes]] = {}
        self._results: dict[int, tuple[int, int, bytes]] = {}
        self._digests: dict[int, int] = {}
        self._hashes: dict[int, int] = {0: self._replay.position()[1]}
        self._last_index = 0
        self._leaders: dict[int, int] = {}
        self._sessions: dict[int, int] = {}
        self._places: dict[Request, _Place] = {}
        self._asked: dict[Request, tuple[bytes, int]] = {}
        self._answered_sequence = 0
        self._refused: set[bytes] = set()
        self._submitted: set[bytes] = set()
        self.answered = 0

    @property
    def last_index(self) -> int:
        """The last log entry that any node applied."""
        return self._last_index

    @property
    def commands(self) -> int:
        """Commands applied, repeats not counted."""
        return self._replay.position()[0]

    def has_applied(self, session: int, request: int) -> bool:
        """Whether a request stands in the log."""
        return (session, request) in self._places

    def term_at(self, index: int) -> int | None:
        """The term of an applied entry."""
        known = self._log.get(index)
        return None if known is None else known[0]

    # 1. One log, one state; 5. one leader a term.

    def applying(self, node: int, index: int, term: int, entry: bytes) -> None:
        """A node is about to apply an entry."""
        known = self._log.get(index)
        if known is not None:
            if known != (term, entry):
                raise Violation(
                    f"log agreement: node {node} applies at entry {index} one of term {term} "
                    f"({_entry_text(entry)}), where another node applied one of term {known[0]} "
                    f"({_entry_text(known[1])})"
                )
            return
        if index <= self._last_index:
            raise Violation(
                f"log agreement: node {node} applies a command at entry {index}, where other nodes, by now at "
                f"{self._last_index}, applied none"
            )
        self._log[index] = (term, entry)
        self._last_index = index
        self._replay_entry(index, term, entry)

    def _replay_entry(self, index: int, term: int, entry: bytes) -> None:
        self._replay.apply(index, term, entry)
        (applied,) = self._replay.take_applied()
        outcomes = applied.outcomes.tobytes()
        self._results[index] = (applied.sequence, applied.state_hash, outcomes)
        self._digests[index] = self._replay.log_digest
        self._hashes[applied.sequence] = applied.state_hash
        self._follow_sessions(index, batches.decode(entry).commands, applied.outcomes)

    def applied(self, node: int, entry: Applied) -> None:
        """A node has applied an entry."""
        expected = self._results[entry.log_index]
        if (entry.sequence, entry.state_hash) != expected[:2]:
            raise Violation(
                f"one state: after entry {entry.log_index} node {node} is at command {entry.sequence} with state hash "
                f"{entry.state_hash:016x}, the replay at {expected[0]} with {expected[1]:016x}"
            )
        if entry.outcomes.tobytes() != expected[2]:
            raise Violation(f"one state: the outcomes of entry {entry.log_index} on node {node} are not the replay's")

    def restored(self, node: int, position: tuple[int, int]) -> None:
        """A node took over a state."""
        sequence, state_hash = position
        if self._hashes.get(sequence) != state_hash:
            raise Violation(
                f"one state: node {node} took over a state at command {sequence} with hash {state_hash:016x} that the "
                "log does not lead to"
            )

    def leads(self, node: int, term: int) -> None:
        """A node believes that it leads."""
        first = self._leaders.setdefault(term, node)
        if first != node:
            raise Violation(f"one leader a term: nodes {first} and {node} both lead term {term}")

    # 4. Exactly once, at most once, never.

    def _follow_sessions(self, index: int, commands: NDArray[np.void], outcomes: NDArray[np.void]) -> None:
        """Hold what the machine said of each command against what the session's ids allow."""
        raw, said = commands.tobytes(), outcomes.tobytes()
        for at, (kind, session, request, status, reason, sequence) in enumerate(
            zip(
                commands["kind"].tolist(), commands["session_id"].tolist(), commands["request_id"].tolist(),
                outcomes["status"].tolist(), outcomes["reason"].tolist(), outcomes["sequence"].tolist(), strict=True,
            )
        ):  # fmt: skip
            if kind in _THE_LEADERS_OWN:
                continue
            last = self._sessions.get(session)
            opens = kind == CommandKind.OPEN_SESSION
            repeat = last is not None and (opens or request <= last)
            if repeat != (status == OutcomeStatus.DUPLICATE):
                word = "again" if repeat else "not"
                raise Violation(
                    f"exactly once: request {request} of session {session:x}, at entry {index}, was {word} applied "
                    f"(the session had reached {last})"
                )
            if repeat:
                continue
            if opens:
                if status == OutcomeStatus.ACCEPTED:
                    self._sessions[session] = 0
                continue
            due = last is not None and request == last + 1
            if not due and not (status == OutcomeStatus.REJECTED and reason <= Reason.REQUEST_GAP):
                raise Violation(
                    f"in order: request {request} of session {session:x}, at entry {index}, was applied although the "
                    f"session had reached {last}"
                )
            if not due:
                continue
            command = raw[COMMAND_SIZE * at : COMMAND_SIZE * (at + 1)]
            asked = self._asked.get((session, request))
            if asked is None or asked[0] != command:
                raise Violation(
                    f"nothing invented: request {request} of session {session:x} is not what its client sent"
                )
            outcome = said[OUTCOME_SIZE * at : OUTCOME_SIZE * (at + 1)]
            self._places[session, request] = _Place(sequence, command, outcome)
            self._sessions[session] = request
            if kind == CommandKind.CLOSE_SESSION and status == OutcomeStatus.ACCEPTED:
                del self._sessions[session]

    def refused(self, delivery: bytes) -> None:
        """A node said of a frame that nothing of it was taken."""
        self._refused.add(delivery)
        if delivery in self._submitted:
            raise Violation("refused, never applied: a frame that was refused stands in a log")

    def submitted(self, delivery: bytes) -> None:
        """A node put a frame into its log."""
        self._submitted.add(delivery)
        if delivery in self._refused:
            raise Violation("refused, never applied: a frame that was refused is put into a log")

    # 2. The replay's answers; 3. real-time order.

    def asked(self, session: int, request: int, command: bytes, floor: int | None = None) -> None:
        """A client is about to send a request for the first time.

        `floor`: the last command that had been answered by then, where answers are not told in the order of time.
        """
        self._asked[session, request] = (command, self._answered_sequence if floor is None else floor)

    def told(self, session: int, outcomes: NDArray[np.void]) -> None:
        """A client learns the outcomes of its next requests."""
        raw = outcomes.tobytes()
        for at, (request, status, sequence) in enumerate(
            zip(
                outcomes["request_id"].tolist(), outcomes["status"].tolist(), outcomes["sequence"].tolist(), strict=True
            )
        ):
            name = f"request {request} of session {session:x}"
            place = self._places.get((session, request))
            if place is None:
                raise Violation(f"acknowledged, in the log once: {name} was answered and stands in no log")
            # A repeat whose first outcome nobody remembers says only that it was applied.
            if status != OutcomeStatus.DUPLICATE or sequence:
                outcome = raw[OUTCOME_SIZE * at : OUTCOME_SIZE * (at + 1)]
                if outcome != place.outcome:
                    raise Violation(
                        f"the replay's answers: {name} was answered as command {sequence}, the replay applied it as "
                        f"{place.sequence}" + (", with another outcome" if sequence == place.sequence else "")
                    )
            floor = self._asked[session, request][1]
            if place.sequence <= floor:
                raise Violation(
                    f"real-time order: {name} is command {place.sequence}, but was sent after command {floor} had been "
                    "answered"
                )
            self.answered += 1
            self._answered_sequence = max(self._answered_sequence, place.sequence)

    # At the end.

    def check_machines(self, machines: Iterable[tuple[int, ReplicatedState]]) -> None:
        """All nodes are where the replay is, and what each holds contradicts nothing."""
        expected = self._replay.position()
        digest = self._replay.engine.recompute_content_hash()
        for node, machine in [(0, self._replay), *machines]:
            name = f"node {node}" if node else "the replay"
            if machine.position() != expected:
                raise Violation(f"one state: {name} ends at {machine.position()}, the replay at {expected}")
            if machine.log_digest != self._replay.log_digest:
                raise Violation(f"log agreement: the log digest of {name} is not the replay's")
            if machine.engine.content_hash() != digest:
                raise Violation(f"one state: the records of {name} are not the replay's")
            faults = machine.engine.check_invariants()
            if faults:
                raise Violation(f"engine: {name}: {faults[0]}")

    def stands(self, node: int, index: int, position: tuple[int, int], log_digest: int) -> None:
        """A node, asked from outside, says where it is after the log up to an entry."""
        last = max((known for known in self._log if known <= index), default=0)
        sequence, state_hash, _ = self._results[last]
        if position != (sequence, state_hash):
            raise Violation(
                f"one state: after entry {index} node {node} stands at command {position[0]} with state hash "
                f"{position[1]:016x}, the replay at {sequence} with {state_hash:016x}"
            )
        if log_digest != self._digests[last]:
            raise Violation(f"log agreement: the log digest of node {node} after entry {index} is not the replay's")

    def check_hashes(self, node: int, machine: ReplicatedState) -> None:
        """The state hashes at every sequence this node remembers are those of the replay."""
        last = min(machine.position()[0], self._replay.position()[0])
        if machine.hashes_between(1, last) != self._replay.hashes_between(1, last):
            raise Violation(f"one state: the state hashes of node {node} are not those of the replay")


def _entry_text(entry: bytes) -> str:
    commands = batches.decode(entry).commands
    named = ", ".join(f"{int(c['session_id']):x}/{int(c['request_id'])}" for c in commands[:3])
    return f"{len(commands)} commands: {named}{', ...' if len(commands) > 3 else ''}" if len(commands) else "a barrier"
