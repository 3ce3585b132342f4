"""Run the middle of a node's turn: submit commands, replicate, apply, make durable, reply.

Owns the order of these steps, so that nothing leaves before what it depends on is durable: advance() shows it. Owns
also for which leadership the commands of clients are pending here. Has no sockets and no clock.

The reactor (reactor.py) and the simulated process (smrx/sim/simulated_process.py) derive from Turn, so both run the
same steps. They create the parts, read messages before the turn and override the hooks.
"""

from abc import ABC, abstractmethod

import numpy as np

from smrx.consensus import MetaStore, NotLeader, PeerTransport, Replica
from smrx.node.frame_block import AnswerBlock
from smrx.node.order_entry import OrderEntry, Reply, Route, RouteRun
from smrx.node.replicated_state import Applied, ReplicatedState
from smrx.node.stage_times import Stage
from smrx.wire import batches
from smrx.wire.codes import CommandKind
from smrx.wire.frames import LeaderHint
from smrx.wire.records import COMMAND


class Turn(ABC):
    """The steps that every node runs in each turn."""

    order_entry: OrderEntry
    state: ReplicatedState
    meta: MetaStore
    replica: Replica
    transport: PeerTransport
    #: The term in which this node leads and accepts commands, None if it does not.
    leading_term: int | None = None
    #: The term in which this node led and made sure that the exchange has begun, see _has_begun().
    _begun_term: int | None = None

    @property
    def fenced(self) -> str | None:
        """Why this node may not serve, or None."""
        return self.replica.agreement.fenced

    def submit(self) -> bool:
        """Append the commands that have arrived to the log; return whether there were any."""
        if self.replica.is_leader and self._begun_term != self.replica.term and not self._has_begun():
            return False
        found = False
        for bodies, details, routes in self.order_entry.take_batches():
            found = True
            try:
                index, term = self.submit_entry(bodies, details)
            except NotLeader:
                # Leadership was lost between receiving and submitting; the reply names the new leader.
                self.order_entry.redirect(routes, self.hint())
                continue
            self._submitted(index, term, routes)
        return found

    def submit_entry(self, bodies: list[memoryview], details: bytes = b"") -> tuple[int, int]:
        """Append commands and their details to the log as one entry; return its (index, term). Raises NotLeader.

        An entry without commands is a barrier.
        """
        return self.replica.submit(self._entry(bodies, details)), self.replica.term

    def upgrade_rules(self) -> tuple[int, int]:
        """Append the switch to the next version of the rules; return (its log index, the version).

        Every node applies the new rules from the command after it on. Raises NotLeader; ValueError, in one sentence,
        if a member is not known to have the version.
        """
        if not self.replica.is_leader:
            raise NotLeader
        version = self.replica.rules.next_version()
        return self._switch_rules(version, version), version

    def _switch_rules(self, first: int, last: int) -> int:
        """Append the switches to some versions, one after the other; return the log index. Raises NotLeader."""
        commands = np.zeros(last + 1 - first, COMMAND)
        commands["kind"], commands["quantity_lots"] = CommandKind.SET_VERSION, np.arange(first, last + 1)
        return self.submit_entry([memoryview(commands.tobytes())])[0]

    def _has_begun(self) -> bool:
        """Whether the leader may append commands of clients: not before a new exchange has the newest rules.

        Its first leader switches to the newest version that all members have. Clients' commands wait for that, not for
        its commit. A leader whose log may have commands of earlier leaders waits until it has applied them.
        """
        rules = self.state.rules()
        if self.state.position()[0] == 0 and rules.in_force < rules.newest and self.fenced is None:
            if not self.replica.has_applied_earlier_terms:
                return False
            version = self.replica.rules.first_version()
            if version is None:
                return False
            if version > rules.in_force:
                try:
                    self._switch_rules(rules.in_force + 1, version)
                except NotLeader:
                    return False
        self._begun_term = self.replica.term
        return True

    def advance(self) -> list[Applied]:
        """Replicate, apply what is committed, make it durable and reply; return the entries applied."""
        self._crash_point()
        self.replica.confirm_reads()
        # Send entries and acknowledgements before applying: peers work while this node does. The transport first makes
        # durable what they acknowledge.
        self.transport.flush()
        self._stage_ended(Stage.SEND)
        self._crash_point()
        self.replica.tick()
        self._after_tick()
        applied = self.state.take_applied()
        self._stage_ended(Stage.APPLY)
        self._update_leadership()
        for entry in applied:
            self._applied(entry)
        self._crash_point()
        self.meta.sync()
        # Replies leave only now: what they report is committed on a majority, and term and vote are durable. They go
        # before the second flush because a client waits for them.
        for reply in self.order_entry.take_replies():
            if isinstance(reply, AnswerBlock):
                self._send_answers(reply)
            else:
                self._send(reply)
        self.transport.flush()
        self._stage_ended(Stage.ANSWER)
        return applied

    def _update_leadership(self) -> None:
        """Compare the role of the replica with leading_term; redirect waiting clients when leadership is lost."""
        term = self.replica.term if self.replica.is_leader and self.fenced is None else None
        if term != self.leading_term:
            before, self.leading_term = self.leading_term, term
            if before is not None:
                self.order_entry.lost_leadership(self.hint())
            self._leadership_changed(before)

    # What the reactor and the simulator must provide.

    @abstractmethod
    def hint(self) -> LeaderHint:
        """Return the leader and its address, as far as this node has learned."""

    @abstractmethod
    def wall_ns(self) -> int:
        """Return the nanoseconds since 1970 by this node's clock."""

    @abstractmethod
    def _send(self, reply: Reply) -> None:
        """Send a reply to its client."""

    # What they may extend.

    def stamp_ns(self) -> int:
        """Return the nanoseconds since 1970 that a new entry carries: this node's clock, bounded by the majority's."""
        return self.replica.stamp_ns()

    def _entry(self, bodies: list[memoryview], details: bytes) -> bytes:
        """Encode a log entry."""
        return batches.encode(bodies, self.stamp_ns(), *self.state.position(), details)

    def _send_answers(self, answers: AnswerBlock) -> None:
        """Send the answers of a block to their clients."""
        for identity, frame in answers.frames():
            self._send(Reply(identity, frame))

    def _submitted(self, index: int, term: int, routes: list[Route | RouteRun]) -> None:
        """A batch of client commands is in the log at (index, term)."""
        self.order_entry.submitted(index, term, routes)

    def _applied(self, entry: Applied) -> None:
        """An entry was applied: queue the replies to its commands."""
        self.order_entry.applied(entry)

    def _leadership_changed(self, before: int | None) -> None:  # noqa: B027 (a hook, empty by default)
        """leading_term has changed from `before`."""

    def _after_tick(self) -> None:  # noqa: B027
        """The replica has ticked; no message or reply about it has left yet."""

    def _stage_ended(self, stage: Stage) -> None:  # noqa: B027
        """A stage of the turn has ended."""

    def _crash_point(self) -> None:  # noqa: B027
        """Between two steps: the simulator ends the process here."""
