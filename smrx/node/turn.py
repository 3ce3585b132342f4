"""A node's turn between what it has read and what it says: one piece of code for the reactor and for the simulation.

Owns the order, and with it that nothing leaves before what it promises is durable: commands into the log; entries and
acknowledgements on their way; commits and applies; term, vote and log made durable; only then answers. Owns whose
commands wait here, too: those of one leadership. No sockets and no clock of its own.
"""

from smrx.consensus import MetaStore, NotLeader, PeerTransport, Replica
from smrx.node.order_entry import OrderEntry, Reply, Route
from smrx.node.replicated_state import Applied, ReplicatedState
from smrx.wire import batches
from smrx.wire.frames import LeaderHint


class Turn:
    """The middle of a node's turn. Whoever derives from it makes the parts, reads before and sends at the end."""

    order_entry: OrderEntry
    state: ReplicatedState
    meta: MetaStore
    replica: Replica
    transport: PeerTransport
    #: The term in which this node leads and takes commands, None if it does not.
    leading_term: int | None = None

    @property
    def fenced(self) -> str | None:
        """Why this node may not serve, or None."""
        return self.replica.agreement.fenced

    def hint(self) -> LeaderHint:
        """Who leads, as far as this node knows."""
        raise NotImplementedError

    def wall_ns(self) -> int:
        """Nanoseconds since 1970, for what is put into the log."""
        raise NotImplementedError

    def submit(self) -> bool:
        """Put the commands that have arrived into the log; whether there were any."""
        found = False
        for bodies, routes in self.order_entry.take_batches():
            found = True
            try:
                index, term = self.submit_entry(bodies)
            except NotLeader:
                # Leadership went between receiving and submitting; the hint in the answer says who has it.
                self.order_entry.redirect(routes, self.hint())
                continue
            self._submitted(index, term, routes)
        return found

    def submit_entry(self, bodies: list[memoryview]) -> tuple[int, int]:
        """Put commands into the log as one entry, none for a barrier; (index, term). Raises NotLeader."""
        return self.replica.submit(self._entry(bodies)), self.replica.term

    def commit(self) -> list[Applied]:
        """Move the log on, apply what is committed, and let leave what may be said by then; return what was applied."""
        self._crash_point()
        # Entries and acknowledgements travel while this node goes on; flush() makes durable what they promise.
        self.transport.flush()
        self._crash_point()
        self.replica.tick()
        self._after_tick()
        applied = self.state.take_applied()
        self._update_leadership()
        for entry in applied:
            self._applied(entry)
        self._crash_point()
        self.meta.sync()
        # What these say is committed on a majority and durable by now; whoever waits for an answer comes first.
        for reply in self.order_entry.take_replies():
            self._send(reply)
        self.transport.flush()
        return applied

    def _update_leadership(self) -> None:
        term = self.replica.term if self.replica.is_leader and self.fenced is None else None
        if term != self.leading_term:
            before, self.leading_term = self.leading_term, term
            if before is not None:
                self.order_entry.lost_leadership(self.hint())
            self._leadership_changed(before)

    # What there is to do at each step, and more of it for whoever looks on.

    def _entry(self, bodies: list[memoryview]) -> bytes:
        return batches.encode(bodies, self.wall_ns(), *self.state.position())

    def _submitted(self, index: int, term: int, routes: list[Route]) -> None:
        self.order_entry.submitted(index, term, routes)

    def _applied(self, entry: Applied) -> None:
        self.order_entry.applied(entry, self.state.outcomes_with_repeats)

    def _send(self, reply: Reply) -> None:
        """Let a reply leave."""
        raise NotImplementedError

    def _leadership_changed(self, before: int | None) -> None:
        """`leading_term` is another than `before`."""

    def _after_tick(self) -> None:
        """The replica knows what is committed, and nothing has told of it yet."""

    def _crash_point(self) -> None:
        """Between two steps a process may end."""
