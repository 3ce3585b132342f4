"""Simulate the stream sockets of one process: bytes are cut anywhere, and a connection may end between any two.

Owns the bytes that have arrived and were not read, and what the process waits for. Stands for both the sockets and the
poller under smrx/links/connection.py, which runs unchanged on it. The simulated network carries the pieces of each
connection in order; of a connection that breaks it delivers a first part, to each end its own. Used by the gateways and
their clients.
"""

import errno
import random
import struct
from collections.abc import Callable
from typing import Any, Final, cast

from smrx.links.poller import READ, WRITE, Poller
from smrx.sim.network import Network
from smrx.sim.scheduler import Scheduler

#: Of a piece on the network: the number of its connection and what it is.
_PIECE: Final = struct.Struct("<IB")
_CONNECT, _DATA, _END = range(3)
#: How often a call takes only a part of the bytes, and how often it takes none: the other side's window is closed.
_PARTIAL: Final = 0.3
_CLOSED_WINDOW: Final = 0.1
_WINDOW_SECONDS: Final = 0.02
#: Mean time until an end is told that its connection is broken.
_NOTICE_SECONDS: Final = 0.05
_LAST_BYTES: Final = 300
#: The process is called again after this time while something is ready.
_TURN_SECONDS: Final = 0.0002

#: (the other end, the number of the connection)
_Name = tuple[int, int]


class SimulatedSocket:
    """What a Connection uses of a socket."""

    def __init__(self, sockets: "SimulatedSockets", name: _Name, descriptor: int) -> None:
        self.name = name
        #: The bytes that have arrived, whether more may come, and whether the connection is broken.
        self.arrived = bytearray()
        self.ended = False
        self.broken = False
        #: Whether the network has lost the connection, of which this end may not have been told.
        self.lost = False
        #: Bytes of those under way that still arrive then.
        self.last_bytes = 0
        self.window_opens_at = 0.0
        self._sockets = sockets
        self._descriptor = descriptor

    def fileno(self) -> int:
        """See socket."""
        return self._descriptor

    def getpeername(self) -> tuple[str, int]:
        """See socket."""
        return f"end-{self.name[0]}", self.name[1]

    def getsockopt(self, level: int, option: int) -> int:
        """Return that connecting succeeded."""
        return errno.ECONNRESET if self.broken else 0

    def recv_into(self, space: memoryview) -> int:
        """See socket."""
        self._check()
        if not self.arrived:
            if self.ended:
                return 0
            raise BlockingIOError
        count = self._sockets.part_of(min(len(space), len(self.arrived)))
        space[:count] = self.arrived[:count]
        del self.arrived[:count]
        return count

    def send(self, data: bytes | memoryview) -> int:
        """See socket."""
        self._check()
        return self._sockets.send(self, bytes(data))

    def sendmsg(self, buffers: list[bytes | memoryview]) -> int:
        """See socket."""
        return self.send(b"".join(buffers))

    def close(self) -> None:
        """See socket."""
        self._sockets.close(self)

    def _check(self) -> None:
        if self.broken:
            raise ConnectionResetError(errno.ECONNRESET, "connection reset")


class SimulatedSockets:
    """The sockets of one process, as its poller."""

    def __init__(
        self, end: int, *, scheduler: Scheduler, network: Network, rng: random.Random, wake: Callable[[float], None]
    ) -> None:
        """`wake` schedules a turn of the process at a time, in which it calls run()."""
        #: Called for each connection that another end makes; it returns nothing and may close the socket.
        self.accept: Callable[[SimulatedSocket], None] = SimulatedSocket.close
        self._end = end
        self._scheduler = scheduler
        self._network = network
        self._rng = rng
        self._wake = wake
        self._sockets: dict[_Name, SimulatedSocket] = {}
        #: By descriptor: the socket, what is called, and the events it waits for.
        self._watched: dict[int, tuple[SimulatedSocket, Callable[[int], None], int]] = {}
        self._open: dict[int, SimulatedSocket] = {}
        self._descriptor = 0
        self._connections = 0

    @property
    def as_poller(self) -> Poller:
        """This object, with the type that a Connection asks for."""
        return cast(Poller, self)

    def connect(self, other: int) -> Any:
        """Return a socket that is connected to another end, which may not be there."""
        self._connections += 1
        self._network.reopen(self._end, other)
        found = self._add((other, self._connections))
        self._transmit(found, _CONNECT)
        return found

    def receive(self, source: int, frame: bytes) -> None:
        """Take a piece from the network."""
        number, kind = _PIECE.unpack_from(frame)
        found = self._sockets.get((source, number))
        if kind == _CONNECT and found is None:
            self.accept(self._add((source, number)))
        elif found is not None and not found.ended:
            data = frame[_PIECE.size :]
            if found.lost:
                # A first part of what was under way.
                data = data[: found.last_bytes]
                found.last_bytes -= len(data)
            found.arrived += data
            found.ended = kind == _END and not found.lost
        self._wake(self._scheduler.now)

    def network_broke(self, other: int) -> None:
        """End the connections with another end, each when this one is told."""
        for found in self._sockets.values():
            if found.name[0] == other and not found.lost:
                found.lost, found.last_bytes = True, self._rng.randrange(_LAST_BYTES)
                self._scheduler.call_later(self._rng.expovariate(1 / _NOTICE_SECONDS), self._break, found)

    def end_all(self) -> None:
        """End every connection: the process has ended, and the other ends are told."""
        for found in list(self._sockets.values()):
            self.close(found)
        self._watched.clear()
        self._open.clear()

    # What a Connection uses of a poller.

    def add(self, descriptor: int, ready: Callable[[int], None], events: int = READ) -> None:
        """See Poller."""
        self._watched[descriptor] = (self._open[descriptor], ready, events)
        self._wake(self._scheduler.now)

    def change(self, descriptor: int, events: int) -> None:
        """See Poller."""
        socket, ready, _ = self._watched[descriptor]
        self._watched[descriptor] = (socket, ready, events)
        self._wake(self._scheduler.now)

    def remove(self, descriptor: int) -> None:
        """See Poller."""
        del self._watched[descriptor]

    def run(self) -> None:
        """Call who is ready once, and come back when another is."""
        for descriptor, (socket, ready, _) in tuple(self._watched.items()):
            events = self._events(descriptor)
            if events and socket is self._open.get(descriptor):
                ready(events)
        now = self._scheduler.now
        for descriptor, (socket, _, wanted) in self._watched.items():
            if self._events(descriptor):
                self._wake(now + _TURN_SECONDS)
            elif wanted & WRITE:
                self._wake(max(now, socket.window_opens_at))

    # What a socket uses.

    def part_of(self, size: int) -> int:
        """Return how many of some bytes a call takes, at least one."""
        return self._rng.randint(1, size) if self._rng.random() < _PARTIAL else size

    def send(self, socket: SimulatedSocket, data: bytes) -> int:
        """Take bytes of a socket, or none for a while."""
        now = self._scheduler.now
        if now < socket.window_opens_at or self._rng.random() < _CLOSED_WINDOW:
            socket.window_opens_at = max(socket.window_opens_at, now + self._rng.uniform(0, _WINDOW_SECONDS))
            raise BlockingIOError
        count = self.part_of(len(data))
        self._transmit(socket, _DATA, data[:count])
        return count

    def close(self, socket: SimulatedSocket) -> None:
        """End a connection; the other end is told behind the bytes that were sent."""
        if self._sockets.get(socket.name) is socket:
            del self._sockets[socket.name]
            self._open.pop(socket.fileno(), None)
            self._transmit(socket, _END)

    def _add(self, name: _Name) -> SimulatedSocket:
        self._descriptor += 1
        found = SimulatedSocket(self, name, self._descriptor)
        self._sockets[name] = self._open[self._descriptor] = found
        return found

    def _transmit(self, socket: SimulatedSocket, kind: int, data: bytes = b"") -> None:
        other, number = socket.name
        if not socket.lost:
            self._network.send(self._end, other, _PIECE.pack(number, kind) + data)

    def _break(self, socket: SimulatedSocket) -> None:
        socket.broken = True
        self._wake(self._scheduler.now)

    def _events(self, descriptor: int) -> int:
        socket, _, wanted = self._watched[descriptor]
        events = READ if socket.arrived or socket.ended or socket.broken else 0
        if socket.broken or self._scheduler.now >= socket.window_opens_at:
            events |= WRITE
        # As with epoll, an error is always reported.
        return events if socket.broken else events & wanted
