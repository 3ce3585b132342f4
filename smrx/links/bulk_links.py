"""Watch many plain connections and move their bytes in compiled code, a whole turn of them at a time.

Owns an epoll of its own, which a Poller watches like one more descriptor, the arena into which a turn's bytes are read,
and what is kept of an incomplete frame of each connection. A Connection is moved here once it is open and greeted, and
stays the owner of its socket, its queue and its end. Only connections without TLS can be here; without compiled code or
an epoll none are (`is_available`), and the owner reads each one itself. Never looks into a frame. Called by order_links
of a node.
"""

import platform
import select
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from smrx.engine.kernels.jit import INTERPRETED
from smrx.links import bulk_kernels
from smrx.links.bulk_kernels import (
    ADDRESS,
    BLOCKED,
    DESCRIPTOR,
    END,
    HELD,
    NUMBER,
    ROOM,
    SERIAL,
    START,
    WANTED,
)
from smrx.links.connection import Connection
from smrx.links.poller import READ, WRITE, Poller, Ready

#: Connections that are ready and taken from the kernel at once, and read in one turn.
_EVENTS: Final = 1_024
#: Bytes read from one connection in a turn, so that the others are read, too.
_READ_BYTES: Final = 128 << 10
#: An incomplete frame up to this size is copied in front of what is read next; a larger one is completed in place, so
#: that a peer that sends it byte by byte costs no copy of it each time.
_JOINED_BYTES: Final = 16 << 10
#: Room for an incomplete frame: at least so much, and a larger room than the second is given back.
_LEAST_ROOM: Final = 4 << 10
_KEPT_ROOM: Final = 64 << 10


def is_available() -> bool:
    """Return whether this process can move bytes in compiled code."""
    return not INTERPRETED and hasattr(select, "epoll")


def event_layout() -> tuple[int, int]:
    """Return the size of a struct epoll_event and the place of its data: it is packed on x86-64 only."""
    return (12, 4) if platform.machine() == "x86_64" else (16, 8)


class BulkLinks:
    """The plain connections of one owner, by their descriptors; a Watcher for each of them."""

    def __init__(self, poller: Poller, ready: Ready, *, arena_bytes: int, largest_bytes: int) -> None:
        """Call `ready` when receive() has something to do.

        `arena_bytes`: what a turn reads. `largest_bytes`: of what keep() may be told to wait for.
        """
        self._poller = poller
        self._epoll = select.epoll()
        numbers = self._numbers = np.zeros(bulk_kernels.NUMBERS, np.int64)
        numbers[bulk_kernels.EPOLL] = self._epoll.fileno()
        numbers[bulk_kernels.EVENT_BYTES], numbers[bulk_kernels.EVENT_DATA] = event_layout()
        numbers[bulk_kernels.READ_BYTES], numbers[bulk_kernels.JOINED_BYTES] = _READ_BYTES, _JOINED_BYTES
        self._events: NDArray[np.uint8] = np.zeros(_EVENTS * event_layout()[0], np.uint8)
        #: What was read in this turn; valid until receive() is called again.
        self.arena: NDArray[np.uint8] = np.empty(arena_bytes + largest_bytes + _READ_BYTES + _KEPT_ROOM, np.uint8)
        self._spans: NDArray[np.int64] = np.zeros((_EVENTS, bulk_kernels.SPAN_WORDS), np.int64)
        self._others: NDArray[np.int64] = np.zeros((2 * _EVENTS, 2), np.int64)
        self._table: NDArray[np.int64] = np.zeros((256, bulk_kernels.COLUMNS), np.int64)
        self._rooms: dict[int, NDArray[np.uint8]] = {}
        self._ready: dict[int, Ready] = {}
        self._serial = 0
        poller.add(self._epoll.fileno(), ready)

    def adopt(self, connection: Connection, serial: int) -> None:
        """Watch a connection from now on; nothing that it has received may be left. `serial`: any number above 0."""
        self._serial = serial
        connection.move_to(self)

    # What a Connection asks of a Watcher.

    def add(self, descriptor: int, ready: Ready, events: int = READ) -> None:
        """Watch a descriptor, the one of the connection in adopt()."""
        if descriptor >= len(self._table):
            larger = np.zeros((2 * descriptor, bulk_kernels.COLUMNS), np.int64)
            larger[: len(self._table)] = self._table
            self._table = larger
        self._table[descriptor] = 0
        self._table[descriptor, SERIAL] = self._serial
        self._ready[descriptor] = ready
        self._epoll.register(descriptor, events)

    def change(self, descriptor: int, events: int) -> None:
        """Wait for other events of a descriptor."""
        self._table[descriptor, BLOCKED] = events & WRITE
        self._epoll.modify(descriptor, events)

    def remove(self, descriptor: int) -> None:
        """Forget a descriptor; call before it is closed."""
        del self._ready[descriptor]
        self._rooms.pop(descriptor, None)
        self._table[descriptor] = 0
        self._epoll.unregister(descriptor)
        # Events in the buffer may be of this descriptor, which another connection may have next. The kernel reports
        # the others again.
        self._numbers[bulk_kernels.EVENTS] = 0

    # What the owner calls.

    def receive(self) -> NDArray[np.int64]:
        """Read what has arrived; return a span of the arena for each connection, see bulk_kernels.SPAN_WORDS.

        The owner moves START behind what it takes, and calls keep() for the rest. A connection that has ended, or for
        which more can be sent, is told so.
        """
        numbers = self._numbers
        count = bulk_kernels.receive_ready(numbers, self._events, self._table, self.arena, self._spans, self._others)
        spans = self._spans[:count]
        for descriptor, events in self._others[: numbers[bulk_kernels.OTHERS]].tolist():
            ready = self._ready.get(descriptor)
            if ready is not None:
                ready(events)
        return spans

    def keep(self, spans: NDArray[np.int64], wanted: Callable[[NDArray[np.uint8]], int]) -> None:
        """Keep what is left of spans until more has arrived. `wanted` says how many bytes complete some."""
        for row in spans[spans[:, START] < spans[:, END]].tolist():
            descriptor, start, end = row[DESCRIPTOR], row[START], row[END]
            if self._table[descriptor, SERIAL] != row[NUMBER]:
                continue
            rest = self.arena[start:end]
            needed = max(_LEAST_ROOM, wanted(rest))
            room = self._rooms.get(descriptor)
            if room is None or len(room) < needed or len(room) > max(needed, _KEPT_ROOM):
                # Memory that is not used yet costs nothing.
                room = self._rooms[descriptor] = np.empty(needed, np.uint8)
            room[: end - start] = rest
            self._table[descriptor, [HELD, ADDRESS, ROOM, WANTED]] = end - start, room.ctypes.data, len(room), needed

    def send(
        self, descriptors: NDArray[np.int64], serials: NDArray[np.int64], data: NDArray[np.uint8], ends: Any
    ) -> NDArray[np.int64]:
        """Send each connection its part of the data; return the bytes sent of each part.

        The parts are one behind the other, `ends` says where each ends. Nothing is sent to a connection that is not
        here with this serial number, or for which bytes wait: the owner gives the rest to the Connection.
        """
        sent = np.zeros(len(descriptors), np.int64)
        bulk_kernels.send_all(self._table, descriptors, serials, data, ends, sent)
        return sent

    def close(self) -> None:
        """Release the epoll, after the connections were closed."""
        self._poller.remove(self._epoll.fileno())
        self._epoll.close()
