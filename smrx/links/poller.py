"""Wait for many sockets at once: plain ones and those of ZeroMQ, on one epoll.

Owns the epoll and the rule by which ZeroMQ's edge-triggered descriptors are asked: after a descriptor was readable, or
after the socket was used, which may take the signal without a message being read. A socket that was neither cannot have
a message, so a turn without ZeroMQ traffic costs no call of ZeroMQ. Never reads a message. Called by the loop of a
process.
"""

import select
import time
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

import zmq

READ: Final = 1
WRITE: Final = 4
#: ZeroMQ sockets are asked at least this often, so that one whose use was not reported delays a message by this time.
_ASK_SECONDS: Final = 0.01
#: A plain number: arithmetic with an enum of pyzmq takes as long as asking.
_POLLIN: Final = int(zmq.POLLIN)
#: Events taken from the kernel at once.
_EVENTS: Final = 256

#: Called with the events of a socket: READ, WRITE, or others for an error.
Ready = Callable[[int], None]


class Watcher(Protocol):
    """What a connection asks of the watcher of its descriptor: a Poller, or BulkLinks."""

    def add(self, descriptor: int, ready: Ready, events: int = READ) -> None:
        """Call `ready` whenever a descriptor has one of these events."""

    def change(self, descriptor: int, events: int) -> None:
        """Wait for other events of a descriptor."""

    def remove(self, descriptor: int) -> None:
        """Forget a descriptor; call before it is closed."""


class ZmqSocket:
    """A ZeroMQ socket that a Poller watches, and whether it has to be asked before the next wait."""

    def __init__(self, watched: "zmq.Socket[Any]", ready: Ready) -> None:
        self.watched = watched
        self.ready = ready
        #: Whether it may have a message: its descriptor was readable, or the socket was used. Set by its user.
        self.is_used = True
        #: Whether it is known to have a message.
        self.has_message = False
        #: Whether it is not asked, since its user reads nothing for a time. Set by its user, who knows until when.
        self.is_paused = False

    def ask(self) -> bool:
        """Return whether there is a message, and keep the answer until it is read."""
        # A fraction of the cost of poll(), and of the exception that recv() raises if there is no message.
        self.has_message = bool(cast(int, self.watched.getsockopt(zmq.EVENTS)) & _POLLIN)
        self.is_used = False
        return self.has_message

    def on_signal(self, events: int) -> None:
        """Note that the descriptor was readable."""
        if self.is_paused:
            # Otherwise it stays readable.
            self.ask()
        self.is_used = True


class Poller:
    """The sockets of one loop."""

    def __init__(self, *, spin_seconds: float = 0.0, on_waited: Callable[[], None] = lambda: None) -> None:
        """`spin_seconds`: how long a wait asks again and again before it sleeps. It takes a processor of its own.

        `on_waited` is called after each wait, before the sockets that are ready.
        """
        self._spin_seconds = spin_seconds
        self._on_waited = on_waited
        # Elsewhere than on Linux poll() has the same interface, with another unit of time.
        self._has_epoll = hasattr(select, "epoll")
        self._descriptors: Any = select.epoll() if self._has_epoll else select.poll()
        self._ready: dict[int, Ready] = {}
        self._zmq: dict[int, ZmqSocket] = {}
        self._next_ask = 0.0

    def add(self, descriptor: int, ready: Ready, events: int = READ) -> None:
        """Call `ready` whenever a descriptor has one of these events."""
        self._ready[descriptor] = ready
        self._descriptors.register(descriptor, events)

    def change(self, descriptor: int, events: int) -> None:
        """Wait for other events of a descriptor."""
        self._descriptors.modify(descriptor, events)

    def remove(self, descriptor: int) -> None:
        """Forget a descriptor; call before it is closed."""
        del self._ready[descriptor]
        self._zmq.pop(descriptor, None)
        self._descriptors.unregister(descriptor)

    @property
    def descriptor(self) -> int:
        """A descriptor that is readable when run() would call a `ready`; only with an epoll, and not for ZeroMQ."""
        return int(self._descriptors.fileno())

    def add_zmq(self, watched: "zmq.Socket[Any]", ready: Ready) -> ZmqSocket:
        """Call `ready` whenever a message can be read from a ZeroMQ socket.

        Set `is_used` of the result whenever the socket was sent to, or read from outside of `ready`.
        """
        descriptor = cast(int, watched.getsockopt(zmq.FD))
        entry = self._zmq[descriptor] = ZmqSocket(watched, ready)
        self.add(descriptor, entry.on_signal)
        return entry

    def run(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds, rounded up to milliseconds, and call who is ready; return whether any was."""
        if timeout > 0 and self._has_zmq_message():
            timeout = 0.0
        found = self._wait(timeout)
        self._on_waited()
        for descriptor, events in found:
            ready = self._ready.get(descriptor)
            # One of the calls before may have removed it.
            if ready is not None:
                ready(events)
        return self._run_zmq() or bool(found)

    def close(self) -> None:
        """Release the epoll."""
        if self._has_epoll:
            self._descriptors.close()

    def _wait(self, timeout: float) -> list[tuple[int, int]]:
        found: list[tuple[int, int]]
        if not self._has_epoll:
            found = self._descriptors.poll(timeout * 1000)
            return found
        if self._spin_seconds and timeout > 0:
            until = time.monotonic() + min(self._spin_seconds, timeout)
            while True:
                found = self._descriptors.poll(0, _EVENTS)
                if found or time.monotonic() >= until:
                    break
            if found or timeout <= self._spin_seconds:
                return found
        found = self._descriptors.poll(timeout, _EVENTS)
        return found

    def _has_zmq_message(self) -> bool:
        return any(entry.ask() for entry in self._zmq.values() if entry.is_used and not entry.is_paused)

    def _run_zmq(self) -> bool:
        if not self._zmq:
            return False
        now = time.monotonic()
        ask_all = now >= self._next_ask
        if ask_all:
            self._next_ask = now + _ASK_SECONDS
        ran = False
        for entry in tuple(self._zmq.values()):
            if entry.is_paused:
                continue
            if entry.has_message or ((entry.is_used or ask_all) and entry.ask()):
                # What it reads and sends may take the signal of the next message.
                entry.has_message, entry.is_used = False, True
                entry.ready(READ)
                ran = True
        return ran
