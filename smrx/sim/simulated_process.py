"""A process of a simulated node: the turn of smrx/node/turn.py, without sockets, with a place to crash at every step.

Owns when it wakes, what has come and was not read, and when it dies. Runs order entry, state and replica as
its member makes them; bytes come from the simulated network and go there. Never decides whether what a node does is
right: that is the checker's.
"""

import struct
from collections.abc import Callable
from typing import Final

from smrx.consensus import ConsensusError, MemoryJournal
from smrx.consensus.storage import StorageFull
from smrx.node.order_entry import Reply, Route
from smrx.node.replicated_state import Applied
from smrx.node.turn import Turn
from smrx.sim.checker import Checker, Violation
from smrx.sim.network import Network
from smrx.sim.promises import Promises
from smrx.sim.simulated_transport import SimulatedTransport
from smrx.sim.timeline import Timeline
from smrx.sim.versions import PRESENT, Versions
from smrx.sim.world import World
from smrx.wire.frames import FrameKind, LeaderHint

#: Clients have the numbers from here on; nodes those below.
FIRST_CLIENT: Final = 100
#: A turn begins this long after what it was waited for: a real one is woken by a timer of whole milliseconds.
_WAKE_SECONDS: Final = 0.0005
#: What waits at a socket of a node that does not read is bounded.
_INBOX: Final = 256
_NEVER: Final = float("inf")
#: One delivery of a client's frame: the client, the node, and which one of that node's it is.
DELIVERY: Final = struct.Struct("<IIQ")
#: Where a frame's header says what kind it is.
_KIND_AT: Final = 5
_BASE_WALL_NS: Final = 1_700_000_000_000_000_000


class Crash(BaseException):
    """The process dies here. Not an Exception: nothing of the node may catch it."""


class OutOfMemory(MemoryError):
    """The state machine could not finish an entry, for a reason that lies in no command."""


class Process(Turn):
    """What runs of a node, one life after another; whoever derives from it begins each."""

    journal: MemoryJournal
    transport: SimulatedTransport

    def __init__(
        self,
        node_id: int,
        *,
        world: World,
        versions: Versions,
        network: Network,
        checker: Checker,
        promises: Promises,
        timeline: Timeline,
    ) -> None:
        self.id = node_id
        #: Of the program; see versions.
        self.version = PRESENT
        self.network = network
        self.up = False
        #: Lives so far.
        self.life = 0
        #: Steps until the process dies, None if nothing kills it.
        self.fuse: int | None = None
        #: Whether it dies with the next message of an election that it sends.
        self.dies_at_election = False
        #: Called when it has died.
        self.on_crash: Callable[[], None] = lambda: None
        #: What a turn takes.
        self.pace = 0.0
        self.rate = 1.0
        self.offset = 0.0
        self.wall_offset_ns = 0
        self._world = world
        self._versions = versions
        self._checker = checker
        self._promises = promises
        self._timeline = timeline
        self._deliveries = 0
        self._turn_at = _NEVER
        self._busy_until = 0.0
        self._inbox: list[tuple[int, bytes]] = []
        self._orders: list[tuple[int, bytes]] = []
        self._knocks: list[tuple[str, bytes]] = []
        network.join(node_id, self._deliver)

    # Its life.

    def _begin(self) -> None:
        """Another life begins, and nothing of the one before goes on."""
        self.life += 1
        self.fuse = None
        self.dies_at_election = False
        self._busy_until = 0.0
        self._turn_at = _NEVER
        self.leading_term = None
        self._shown: tuple[str, int] = ("", 0)

    def at_work(self) -> None:
        """From now on the clock is this node's, and entries are read as its program reads them."""
        self._world.clock.view(self.rate, self.offset)
        self._versions.view(self.version)

    def crash(self) -> None:
        """Lose the process and everything that was not synced."""
        if self.up:
            self.up = False
            self._inbox.clear()
            self._orders.clear()
            self._knocks.clear()
            self._timeline.note("node {} dies", self.id)
            self.on_crash()

    def step(self) -> None:
        """The process may die here."""
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse <= 0:
                raise Crash

    def transmit(self, peer: int, frame: bytes) -> None:
        """Let a message leave."""
        self.step()
        election = self._promises.sends(self.id, self.journal, peer, frame)
        self.network.send(self.id, peer, frame, dear=election)
        if election and self.dies_at_election:
            raise Crash

    def pause(self, seconds: float) -> None:
        """Let the process stand still."""
        self._busy_until = max(self._busy_until, self._world.now + seconds)

    def wake_up(self) -> None:
        """End a pause."""
        self._busy_until = 0.0
        self.wake(self._world.now)

    # Its loop: when it wakes, and a turn.

    def wake(self, time: float) -> None:
        """Take a turn at a time, or when the process can."""
        time = max(time, self._busy_until)
        if self.up and time < self._turn_at:
            self._turn_at = time
            self._world.at(time, self._turn_due, time, self.life)

    def _deliver(self, source: int, frame: bytes) -> None:
        if not self.up:
            return
        if source < FIRST_CLIENT:
            if len(self._inbox) < _INBOX:
                self._inbox.append((source, frame))
        elif len(self._orders) < _INBOX:
            self._orders.append((source, frame))
        self.wake(self._world.now)

    def knock(self, key: str, frame: bytes) -> None:
        """Somebody who may be no member, with a key of his own, says something at the door."""
        if self.up and len(self._knocks) < _INBOX:
            self._knocks.append((key, frame))
            self.wake(self._world.now)

    def _turn_due(self, time: float, life: int) -> None:
        if not self.up or life != self.life or time != self._turn_at:
            return
        self._turn_at = _NEVER
        if self._world.now < self._busy_until:
            self.wake(self._busy_until)
            return
        clock = self._world.clock
        self.at_work()
        try:
            self._turn()
        except Crash:
            self.crash()
            return
        except Violation:
            raise
        except StorageFull:
            self._timeline.note("node {} stops: its disk is full", self.id)
            self.crash()
            return
        except Exception as error:
            if isinstance(error.__cause__, Violation):
                raise error.__cause__ from None
            if isinstance(error, ConsensusError) and isinstance(error.__cause__, OutOfMemory):
                self._timeline.note("node {} stops: {}", self.id, str(error))
                self.crash()
                return
            raise Violation(f"node {self.id} stopped: {error!r}") from error
        self._look()
        if self.pace:
            self.pause(self.pace)
        self.wake(max(clock.true(self.replica.next_deadline()), clock.time) + _WAKE_SECONDS)

    def _turn(self) -> None:
        """Node.turn(): what came is read, and then the turn that both have."""
        self.transport.posted = 0
        inbox, self._inbox = self._inbox, []
        for source, frame in inbox:
            self.step()
            self._timeline.message(source, self.id, frame)
            self._promises.hears(self.id, source, self._world.clock())
            self.transport.receive(frame)
        while self._knocks:
            self.transport.knock(*self._knocks.pop(0))
        orders, self._orders = self._orders, []
        for source, frame in orders:
            self._deliveries += 1
            self.take_order(DELIVERY.pack(source, self.id, self._deliveries), frame)
        if not self.replica.is_transferring:
            self.submit()
        self.advance()

    def take_order(self, delivery: bytes, frame: bytes) -> None:
        """A client's frame has come."""
        self.order_entry.receive(delivery, frame, self.hint(), self.fenced)

    @property
    def owes(self) -> int:
        """Commands that clients wait for here."""
        return self.order_entry.waiting_commands

    def _crash_point(self) -> None:
        self.step()

    def _entry(self, bodies: list[memoryview]) -> bytes:
        return self._versions.formats.write(super()._entry(bodies), self.version)

    def submit_entry(self, bodies: list[memoryview]) -> tuple[int, int]:
        """As Turn."""
        index, term = super().submit_entry(bodies)
        self._promises.entered(self.id, self.journal.between(index, index)[0][0], sum(map(len, bodies)))
        return index, term

    def _submitted(self, index: int, term: int, routes: list[Route]) -> None:
        for route in routes:
            self._checker.submitted(route.identity)
        self._timeline.note("node {} submits entry {} in term {}, {} frames", self.id, index, term, len(routes))
        super()._submitted(index, term, routes)

    def _after_tick(self) -> None:
        # Before anything can tell of it: members are no entries that a machine applies.
        self._promises.committed(self.id, self.journal, self.replica.commit_index)

    def _applied(self, entry: Applied) -> None:
        self._checker.applied(self.id, entry)
        super()._applied(entry)

    def _send(self, reply: Reply) -> None:
        self.step()
        if reply.frame[_KIND_AT] == FrameKind.ERROR:
            self._checker.refused(reply.identity)
        self.network.send(self.id, DELIVERY.unpack(reply.identity)[0], reply.frame)

    def hand_over(self) -> None:
        """Make another node the leader. Raises NotLeader; ValueError where no other can lead."""
        self.call(self.replica.transfer_leadership)

    def call(self, request: Callable[[], int]) -> None:
        """Let an operator's request reach the replica between two turns."""
        self.at_work()
        request()
        self.wake(self._world.now)

    def wall_ns(self) -> int:
        """What its clock on the wall shows."""
        return _BASE_WALL_NS + int(self._world.now * 1e9) + self.wall_offset_ns

    def hint(self) -> LeaderHint:
        """Who leads, as far as this node knows."""
        leader = self.replica.leader_id
        return LeaderHint(leader, None if leader is None else address(leader), self.id, self.replica.term)

    def _look(self) -> None:
        """Show the checker and the reader what this node is by now."""
        replica = self.replica
        self._promises.after_turn(self.id, replica, self.journal, self._world.clock())
        if replica.is_leader:
            self._checker.leads(self.id, replica.term)
        shown = (replica.role, replica.term)
        if shown != self._shown:
            self._shown = shown
            self._timeline.note("node {} is {} in term {}, commit {}", self.id, *shown, replica.commit_index)
        if replica.agreement.fenced is not None:
            raise Violation(f"one state: node {self.id} fenced itself: {replica.agreement.fenced}")


def address(node: int) -> str:
    """Where a node takes orders."""
    return f"tcp://node:{node}"


def node_at(address: str) -> int:
    """The node at an order address."""
    return int(address.rpartition(":")[2])
