"""Simulate the process of a node: the turn of smrx/node/turn.py without sockets, and a crash possible at every step.

Owns when the process runs, the messages it has not read, and when it crashes. Runs the real order entry, state and
replica, which SimulatedNode creates, on the simulated network. Never decides whether the node is right: the checker
does.
"""

import contextlib
import struct
from collections.abc import Callable
from typing import Final

from smrx.consensus import ConsensusError, MemoryJournal, NotLeader
from smrx.consensus.context import UnknownRules
from smrx.consensus.storage import StorageFull
from smrx.engine.kernels.rules_version import NEWEST_RULES
from smrx.node.credential_lookup import Credentials
from smrx.node.frame_block import block_of
from smrx.node.order_entry import Reply, Route, RouteRun, each_route
from smrx.node.pending_reads import PendingReads
from smrx.node.principal import EVERYTHING, Principal
from smrx.node.replicated_state import Applied
from smrx.node.turn import Turn
from smrx.sim.checker import Checker, Violation
from smrx.sim.clock_invariants import ClockInvariants
from smrx.sim.network import Network
from smrx.sim.scheduler import Scheduler
from smrx.sim.simulated_reader import ANSWER, READ, REQUEST
from smrx.sim.simulated_transport import SimulatedTransport
from smrx.sim.trace import Trace
from smrx.sim.versions import CURRENT_VERSION, NEXT_VERSION, Versions
from smrx.sim.wire_invariants import WireInvariants
from smrx.wire import batches
from smrx.wire.frames import FrameKind, LeaderHint

#: The network ends of clients are numbered from here on; those of nodes are below.
FIRST_CLIENT: Final = 100
#: Delay between a deadline and its turn: the timer of a real node has whole milliseconds.
_WAKE_SECONDS: Final = 0.0005
#: Limit of the unread messages at each socket.
_INBOX: Final = 256
#: Limit of the reads that wait.
_READS: Final = 64
_NEVER: Final = float("inf")
#: One delivery of a client's frame: the client, the node, and the node's count of deliveries.
DELIVERY: Final = struct.Struct("<IIQ")
#: The offset of the kind in a frame's header.
_KIND_AT: Final = 5
_ERROR: Final = int(FrameKind.ERROR)
BASE_WALL_NS: Final = 1_700_000_000_000_000_000


class Crash(BaseException):
    """The process crashes here. Not an Exception, so that no code of the node catches it."""


class OutOfMemory(MemoryError):
    """The state machine could not finish an entry, for a reason outside of its commands."""


class Process(Turn):
    """The processes of a node, one after the other; the derived class starts each."""

    journal: MemoryJournal
    transport: SimulatedTransport

    def __init__(
        self,
        node_id: int,
        *,
        scheduler: Scheduler,
        versions: Versions,
        network: Network,
        checker: Checker,
        wire: WireInvariants,
        clocks: ClockInvariants,
        trace: Trace,
    ) -> None:
        self.id = node_id
        #: The version of the program.
        self.version = CURRENT_VERSION
        #: Whether a process of the next version ran in this directory.
        self.had_next_version = False
        self.network = network
        #: Whether a process runs.
        self.up = False
        #: The number of processes started so far.
        self.process_number = 0
        #: Steps until the process crashes; None for no crash.
        self.steps_to_crash: int | None = None
        #: Whether it crashes after the next election message it sends.
        self.crashes_at_election = False
        #: Called after a crash.
        self.on_crash: Callable[[], None] = lambda: None
        #: How long a turn takes.
        self.turn_seconds = 0.0
        self.clock_rate = 1.0
        self.clock_offset = 0.0
        #: How far the node's wall clock is ahead; and (until when, how far) before each change.
        self.wall_offset_ns = 0
        self._earlier_offsets: list[tuple[float, int]] = []
        self._scheduler = scheduler
        self._versions = versions
        self._checker = checker
        self._wire = wire
        self._clocks = clocks
        self._trace = trace
        self._deliveries = 0
        self._turn_at = _NEVER
        self._busy_until = 0.0
        self._inbox: list[tuple[int, bytes]] = []
        self._orders: list[tuple[int, bytes]] = []
        #: The frames of this turn, with their deliveries and senders.
        self._received: list[tuple[bytes, bytes, Principal | None]] = []
        self._from_unknown_peers: list[tuple[str, bytes]] = []
        network.attach(node_id, self._deliver)
        clocks.add_node(node_id, self._latest_wall_ns)

    # Start and crash.

    def _begin(self) -> None:
        """Reset everything that belongs to one process."""
        self.process_number += 1
        self.steps_to_crash = None
        self.crashes_at_election = False
        self._busy_until = 0.0
        self._turn_at = _NEVER
        self.leading_term = None
        self._traced_role: tuple[str, int] = ("", 0)
        #: The log entry after which the time of the state was checked last.
        self._timed_index = -1
        #: By the reader's end and the number of the read.
        self._reads: PendingReads[int, int] = PendingReads(of_peer=_READS, in_all=_READS)

    def select(self) -> None:
        """Make the clock and the entry formats those of this node."""
        self._scheduler.clock.set_skew(self.clock_rate, self.clock_offset)
        self._versions.select(self.version)

    def crash(self) -> None:
        """End the process; everything that was not synced is lost."""
        if self.up:
            self.up = False
            self._inbox.clear()
            self._orders.clear()
            self._from_unknown_peers.clear()
            self._trace.note("node {} crashes", self.id)
            self.network.break_gateway_links(self.id)
            self.on_crash()

    def step(self) -> None:
        """Count a step at which the process may crash."""
        if self.steps_to_crash is not None:
            self.steps_to_crash -= 1
            if self.steps_to_crash <= 0:
                raise Crash

    def transmit(self, peer: int, frame: bytes) -> None:
        """Send a message to a peer."""
        self.step()
        is_election = self._wire.message_sent(self.id, self.journal, peer, frame)
        self.network.send(self.id, peer, frame, is_election=is_election)
        if is_election and self.crashes_at_election:
            raise Crash

    def pause(self, seconds: float) -> None:
        """Stop the process for some seconds."""
        self._busy_until = max(self._busy_until, self._scheduler.now + seconds)

    def end_pause(self) -> None:
        """Continue a paused process."""
        self._busy_until = 0.0
        self.wake(self._scheduler.now)

    # The loop.

    def wake(self, time: float) -> None:
        """Schedule a turn at a time, or as soon as the process is not busy."""
        time = max(time, self._busy_until)
        if self.up and time < self._turn_at:
            self._turn_at = time
            self._scheduler.call_at(time, self._turn_due, time, self.process_number)

    def _deliver(self, source: int, frame: bytes) -> None:
        if not self.up:
            return
        if source < FIRST_CLIENT:
            if len(self._inbox) < _INBOX:
                self._inbox.append((source, frame))
        elif len(self._orders) < _INBOX:
            self._orders.append((source, frame))
        self.wake(self._scheduler.now)

    def receive_from_unknown_peer(self, key: str, frame: bytes) -> None:
        """Queue a frame of a peer that connects with a key and may be no member."""
        if self.up and len(self._from_unknown_peers) < _INBOX:
            self._from_unknown_peers.append((key, frame))
            self.wake(self._scheduler.now)

    def _turn_due(self, time: float, process_number: int) -> None:
        if not self.up or process_number != self.process_number or time != self._turn_at:
            return
        self._turn_at = _NEVER
        if self._scheduler.now < self._busy_until:
            self.wake(self._busy_until)
            return
        clock = self._scheduler.clock
        self.select()
        try:
            self._turn()
        except Crash:
            self.crash()
            return
        except Violation:
            raise
        except UnknownRules as error:
            self._lacks_rules(error)
            self.crash()
            return
        except StorageFull:
            self._trace.note("node {} stops: its disk is full", self.id)
            self.crash()
            return
        except Exception as error:
            if isinstance(error.__cause__, Violation):
                raise error.__cause__ from None
            if isinstance(error, ConsensusError) and isinstance(error.__cause__, OutOfMemory):
                self._trace.note("node {} stops: {}", self.id, str(error))
                self.crash()
                return
            raise Violation(f"node {self.id} stopped: {error!r}") from error
        self._report()
        if self.turn_seconds:
            self.pause(self.turn_seconds)
        self.wake(max(clock.to_true_time(self.replica.next_deadline()), clock.time) + _WAKE_SECONDS)

    def _turn(self) -> None:
        """Read what arrived and take a turn, as Node.turn() does."""
        self.transport.posted = 0
        inbox, self._inbox = self._inbox, []
        for source, frame in inbox:
            self.step()
            self._trace.message(source, self.id, frame)
            self._wire.message_received(self.id, source, self._scheduler.clock())
            self.transport.receive(frame)
        while self._from_unknown_peers:
            self.transport.receive_with_key(*self._from_unknown_peers.pop(0))
        orders, self._orders = self._orders, []
        for source, frame in orders:
            if frame.startswith(READ):
                self._request_read(source, REQUEST.unpack(frame)[1])
                continue
            self._deliveries += 1
            delivery = DELIVERY.pack(source, self.id, self._deliveries)
            if self._checker.credentials is not None:
                self._receive_with_credential(source, delivery, frame)
            else:
                self.receive_order(delivery, frame)
        received, self._received = self._received, []
        if received:
            self.order_entry.receive_block(block_of(received), self.hint(), self.fenced)
        if not self.replica.is_transferring:
            self.submit()
        self.advance()
        self._answer_reads()

    def _request_read(self, source: int, number: int) -> None:
        if self._reads.has_space(source):
            with contextlib.suppress(NotLeader):
                self._reads.add(source, number, self.replica.request_read())

    def _answer_reads(self) -> None:
        self._reads.release(self.replica.read_state)
        while (answerable := self._reads.take()) is not None:
            self.step()
            if not answerable.is_lost:
                sequence, state_hash = self.state.position()
                frame = ANSWER.pack(READ, answerable.read, sequence, state_hash)
                self.network.send(self.id, answerable.peer, frame)

    def receive_order(self, delivery: bytes, frame: bytes) -> None:
        """Pass a client's frame to order entry, with the others of this turn."""
        self._received.append((delivery, frame, EVERYTHING))

    def _receive_with_credential(self, source: int, delivery: bytes, frame: bytes) -> None:
        """Pass a client's frame on with its principal; without a known credential its connection was refused."""
        number = self.network.credentials.get(source, 0)
        if number and self.state.engine.credential(number) is None:
            return
        assert self._checker.credentials is not None
        self._checker.credentials.frame_received(delivery, number, frame)
        self._received.append((delivery, frame, Credentials(self.state).principal(number) if number else EVERYTHING))

    @property
    def unanswered_commands(self) -> int:
        """Commands of clients that this node has accepted and not answered."""
        return self.order_entry.waiting_commands

    def _crash_point(self) -> None:
        self.step()

    def _lacks_rules(self, error: UnknownRules) -> None:
        """Check that a node which stops had said it has the rules, or was no member; its operator then upgrades it."""
        self._trace.note("node {} stops: {}", self.id, str(error))
        self._checker.lacks_rules(self.id, self.had_next_version)
        self.version = NEXT_VERSION

    def _entry(self, bodies: list[memoryview], details: bytes) -> bytes:
        entry = super()._entry(bodies, details)
        #: The stamp of the last entry that this process made.
        self.last_stamp_ns = batches.decode(entry).time_ns
        return self._versions.formats.write(entry, self.state.rules().in_force)

    def _switch_rules(self, first: int, last: int) -> int:
        index = super()._switch_rules(first, last)
        if last > NEWEST_RULES:
            self._checker.next_rules_logged(self.replica.membership.ids)
        self._trace.note("node {} logs the switch to version {} of the rules at entry {}", self.id, last, index)
        return index

    def submit_entry(self, bodies: list[memoryview], details: bytes = b"") -> tuple[int, int]:
        """See Turn."""
        index, term = super().submit_entry(bodies, details)
        self._clocks.entry_logged(self.id, self.last_stamp_ns, self.replica.membership.voters)
        size = sum(map(len, bodies)) + len(details)
        self._wire.entry_logged(self.id, self.journal.between(index, index)[0][0], size)
        return index, term

    def _submitted(self, index: int, term: int, routes: list[Route | RouteRun]) -> None:
        for route in each_route(routes):
            self._checker.frame_submitted(route.identity)
        self._trace.note(
            "node {} submits entry {} in term {}, {} frames", self.id, index, term, len(list(each_route(routes)))
        )
        super()._submitted(index, term, routes)

    def _after_tick(self) -> None:
        # Memberships are committed without an apply, so they are checked here, before any answer depends on them.
        self._wire.after_commit(self.id, self.journal, self.replica.commit_index)

    def _applied(self, entry: Applied) -> None:
        self._checker.after_apply(self.id, entry)
        super()._applied(entry)

    def _send(self, reply: Reply) -> None:
        self.step()
        if reply.frame[_KIND_AT] == _ERROR:
            self._checker.frame_refused(reply.identity)
        self.network.send(self.id, DELIVERY.unpack(reply.identity)[0], reply.frame)

    def transfer_leadership(self) -> None:
        """Make another node the leader. Raise NotLeader, or ValueError if no other node can lead."""
        self.call(self.replica.transfer_leadership)

    def call(self, request: Callable[[], object]) -> None:
        """Run an operator's request between two turns."""
        self.select()
        request()
        self.wake(self._scheduler.now)

    def wall_ns(self) -> int:
        """Return the time of the node's wall clock."""
        return self._wall_ns(self.wall_offset_ns)

    def _wall_ns(self, offset_ns: int) -> int:
        # No clock shows a time before 1970.
        return max(0, BASE_WALL_NS + int(self._scheduler.now * 1e9) + offset_ns)

    def set_wall_clock(self, offset_ns: int) -> None:
        """Let the node's wall clock jump to be this far ahead of true time."""
        self._trace.note("the wall clock of node {} is {} s ahead", self.id, offset_ns / 1e9)
        self._earlier_offsets.append((self._scheduler.now, self.wall_offset_ns))
        self.wall_offset_ns = offset_ns

    def _latest_wall_ns(self, seconds: float) -> int:
        """Return the wall clock, as far ahead as it was at any time in the last seconds."""
        since = self._scheduler.now - seconds
        earlier = [offset for until, offset in self._earlier_offsets if until > since]
        return self._wall_ns(max([self.wall_offset_ns, *earlier]))

    def hint(self) -> LeaderHint:
        """Return the leader that this node follows."""
        leader = self.replica.leader_id
        return LeaderHint(leader, None if leader is None else address(leader), self.id, self.replica.term)

    def _report(self) -> None:
        """Report the node's state to the checkers and the trace after a turn."""
        replica = self.replica
        if replica.applied_index != self._timed_index:
            self._timed_index = replica.applied_index
            self._clocks.state_time(self.id, self.state.engine.time_ns)
        self._wire.after_turn(self.id, replica, self.journal, self._scheduler.clock())
        if replica.is_leader:
            self._checker.leader_seen(self.id, replica.term)
        role = (replica.role, replica.term)
        if role != self._traced_role:
            self._traced_role = role
            self._trace.note("node {} is {} in term {}, commit {}", self.id, *role, replica.commit_index)
        if replica.agreement.fenced is not None:
            raise Violation(f"one state: node {self.id} fenced itself: {replica.agreement.fenced}")


def address(node: int) -> str:
    """Return the address at which a node takes orders."""
    return f"tcp://node:{node}"


def node_at(address: str) -> int:
    """Return the node at an order address."""
    return int(address.rpartition(":")[2])
