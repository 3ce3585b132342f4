"""Bound the connections of a node's ports, so that unknown peers cannot use up its file descriptors.

ZeroMQ accepts every connection. Without descriptors it goes on trying, no other peer can connect, and no file can be
opened. So the guard counts the connections of each port by ZeroMQ's events, and cuts off those above a bound, which is
the port's share of the descriptors of the process; one address other than of this machine may have as many as are
free. The links of members and the admin port have shares of their own,
and a share is kept for files. A connection without a completed handshake ends after HANDSHAKE_MS (zap.py).

The Raft port and order entry over TCP are no ZeroMQ sockets; their listeners count and bound their own connections.

Owns the monitor sockets, which are not polled: a node's loop turns at least once in each heartbeat interval, and the
descriptors that no port gets suffice for what connects in between. Never reads or closes a descriptor. Run by the
reactor.
"""

import errno
import logging
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from typing import Any, Final

import zmq

from smrx.links.listener import TOO_MANY_CONNECTIONS, TOO_MANY_UNKNOWN, Listener

log = logging.getLogger(__name__)

#: How the descriptors are divided among the ports. What is left is for files, for sockets of the process itself, and
#: for connections that are accepted between two turns and not counted yet.
SHARES: Final[Mapping[str, float]] = {
    "raft": 0.05, "orders_tcp": 0.35, "orders": 0.2, "events": 0.1, "admin": 0.1,
}  # fmt: skip
#: No port needs more connections than this, however many descriptors there are.
_MOST: Final = 1 << 16
#: The time between two readings, and the events read from one monitor each time.
_READ_SECONDS: Final = 0.01
_EVENTS_AT_A_TIME: Final = 4_096
#: The time between two log lines about one port, and between two checks of what is open.
_LOG_SECONDS: Final = 60.0
_CHECK_SECONDS: Final = 10.0
#: Why a listener ends connections if it has no room for them; the last two are of accept().
_NO_ROOM: Final = (TOO_MANY_CONNECTIONS, TOO_MANY_UNKNOWN, os.strerror(errno.EMFILE), os.strerror(errno.ENFILE))
_EVENT: Final = struct.Struct("=HI")


class _Port:
    """The connections of one listening socket, by their descriptors."""

    def __init__(self, name: str, listening: "zmq.Socket[bytes]", most: int) -> None:
        self.name = name
        self.most = most
        self.number = int(str(listening.get_string(zmq.LAST_ENDPOINT)).rpartition(":")[2])
        #: The open connections by their descriptors, and the address of each, None of this machine.
        self.open: dict[int, str | None] = {}
        self.refused = 0
        self.refused_before = 0  # at the last log line
        self.next_log = 0.0
        address = f"inproc://smrx-connections-{name}"
        listening.monitor(address, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self.listening = listening
        self.monitor = listening.context.socket(zmq.PAIR)
        self.monitor.linger = 0
        # Without a limit: ZeroMQ's thread would wait for room.
        self.monitor.rcvhwm = 0
        self.monitor.connect(address)


class _LoggedListener:
    """How many connections a listener had refused at its last log line, and when the next may come."""

    def __init__(self) -> None:
        self.refused = 0
        self.next_log = 0.0


class ConnectionGuard:
    """Counts the connections of each port and cuts off those above its bound."""

    def __init__(
        self,
        listening: "Mapping[str, zmq.Socket[bytes]]",
        descriptors: int,
        listeners: Mapping[str, Listener] | None = None,
    ) -> None:
        """Watch bound sockets by the name of their port, a key of SHARES; report also the connections of `listeners`.

        `descriptors`: the limit of the process.
        """
        self._listeners = listeners or {}
        self._ports = [
            _Port(name, listened, most_connections(name, descriptors)) for name, listened in listening.items()
        ]
        self._logged = {name: _LoggedListener() for name in self._listeners}
        self._next_read = self._next_check = 0.0

    @property
    def open(self) -> dict[str, int]:
        """The open connections of each port."""
        counted = {name: len(listener.connections) for name, listener in self._listeners.items()}
        return counted | {port.name: len(port.open) for port in self._ports}

    @property
    def refused(self) -> dict[str, int]:
        """How many connections of each port were cut off because of its bounds."""
        counted = {name: listener.refused.total() for name, listener in self._listeners.items()}
        return counted | {port.name: port.refused for port in self._ports}

    def run(self, now: float) -> None:
        """Read what happened, if that is due, and cut off what is above a bound."""
        if now < self._next_read:
            return
        self._next_read = now + _READ_SECONDS
        for port in self._ports:
            _read(port)
            if port.refused > port.refused_before and now >= port.next_log:
                port.next_log = now + _LOG_SECONDS
                log.warning(
                    "%s port %d has its most connections (%d): %d more were cut off; close idle connections, or raise "
                    "the limit of open files of this process",
                    port.name, port.number, port.most, port.refused - port.refused_before,
                )  # fmt: skip
                port.refused_before = port.refused
        for name, listener in self._listeners.items():
            logged = self._logged[name]
            refused = sum(listener.refused[reason] for reason in _NO_ROOM)
            if refused > logged.refused and now >= logged.next_log:
                log.warning(
                    "%s port %d has its most connections: %d more were cut off; close idle connections, or raise the "
                    "limit of open files of this process",
                    name, listener.port, refused - logged.refused,
                )  # fmt: skip
                logged.refused, logged.next_log = refused, now + _LOG_SECONDS
        if now >= self._next_check:
            self._next_check = now + _CHECK_SECONDS
            for port in self._ports:
                port.open = {fd: found for fd, found in port.open.items() if _is_open(fd, port.number)}

    def close(self) -> None:
        """Close the monitors."""
        for port in self._ports:
            with suppress(zmq.ZMQError):
                port.listening.disable_monitor()
            port.monitor.close(linger=0)


def most_connections(port: str, descriptors: int) -> int:
    """Return the bound of a port's connections; `descriptors`: the limit of the process."""
    return max(1, min(_MOST, int(descriptors * SHARES[port])))


def _read(port: _Port) -> None:
    for _ in range(_EVENTS_AT_A_TIME):
        try:
            event, fd = _EVENT.unpack(port.monitor.recv_multipart(zmq.DONTWAIT)[0])
        except zmq.Again:
            return
        if event == zmq.EVENT_DISCONNECTED:
            port.open.pop(fd, None)
        elif event == zmq.EVENT_ACCEPTED:
            address = _address_of(fd)
            of_address = 0 if address is None else sum(found == address for found in port.open.values())
            if of_address >= port.most - len(port.open):
                port.refused += _cut_off(fd, port.number)
            else:
                port.open[fd] = address


@contextmanager
def _borrowed(fd: int) -> "Iterator[socket.socket]":
    """Use a descriptor of ZeroMQ as a socket, without owning it. Raises OSError if it is no socket now."""
    borrowed = socket.socket(fileno=fd)
    try:
        yield borrowed
    finally:
        borrowed.detach()


def shared_address(name: Any) -> str | None:
    """Return the address of a peer whose connections are bounded together; None for one of this machine.

    `name`: what getpeername() returns.
    """
    if not isinstance(name, tuple):
        return None
    return None if ip_address(name[0].partition("%")[0]).is_loopback else str(name[0])


def _address_of(fd: int) -> str | None:
    """Return the address of a connection; None of this machine, and if it has ended."""
    try:
        with _borrowed(fd) as connection:
            return shared_address(connection.getpeername())
    except OSError:
        return None


def _is_open(fd: int, port: int) -> bool:
    """Whether a descriptor is still a connection of this port; its number may belong to something else by now."""
    try:
        with _borrowed(fd) as connection:
            return bool(connection.getpeername()) and connection.getsockname()[1] == port
    except (OSError, IndexError):
        return False


def _cut_off(fd: int, port: int) -> bool:
    """End a connection of this port, so that ZeroMQ closes it; return whether there was one."""
    if not _is_open(fd, port):
        return False
    with suppress(OSError), _borrowed(fd) as connection:
        connection.shutdown(socket.SHUT_RDWR)
    return True
