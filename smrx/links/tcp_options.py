"""Open stream sockets, non-blocking and with the options that every connection has: TCP of both IP versions.

Owns how an address becomes a socket. An address is "tcp://HOST:PORT"; an IPv6 address stands in brackets, and a name is
looked up among the IPv4 addresses only, as in smrx.wire.tcp_address. "unix://PATH" is a Unix socket on one machine.
"""

import contextlib
import os
import socket
import stat
from ipaddress import ip_address
from typing import Any, Final

#: Connections that the kernel holds until they are accepted.
_BACKLOG: Final = 256
#: Seconds of silence before the first keepalive probe and between probes; probes until the connection is closed.
_PROBE_SECONDS: Final = 10
_PROBES: Final = 3
_TCP: Final = "tcp://"
_UNIX: Final = "unix://"


class Target:
    """An address to connect to."""

    def __init__(self, address: str) -> None:
        """Raises ValueError for what is no address."""
        self.family, self._name = _parsed(address)
        #: What connect() takes, None for a host name that was not looked up.
        self._found = self._name if _is_numeric(self.family, self._name) else None

    @property
    def is_known(self) -> bool:
        """Whether there is no host name to be looked up."""
        return self._found is not None

    def forget(self) -> None:
        """Look a host name up again before the next connection."""
        if not _is_numeric(self.family, self._name):
            self._found = None

    def look_up(self) -> None:
        """Look the host name up, which may block; is_known says whether it was found."""
        host, port = self._name
        with contextlib.suppress(OSError):
            found = socket.getaddrinfo(host, int(port), self.family, socket.SOCK_STREAM)
            self._found = found[0][4][:2]

    def connecting(self, *, unacknowledged_ms: int) -> socket.socket:
        """Return a socket that is connecting; it is writable once that has succeeded or failed. Raises OSError.

        `unacknowledged_ms`: see set_options().
        """
        assert self._found is not None, "the host name was not looked up"
        connection = socket.socket(self.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            set_options(connection, unacknowledged_ms=unacknowledged_ms)
            with contextlib.suppress(BlockingIOError):
                connection.connect(self._found)
        except BaseException:
            connection.close()
            raise
        return connection


def listening(address: str) -> socket.socket:
    """Return a socket that listens on an address; raises OSError, ValueError."""
    family, target = _parsed(address)
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_UNIX:
            _remove_stale(target)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(target)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def set_options(connection: socket.socket, *, unacknowledged_ms: int) -> None:
    """Send small frames at once, and close a connection whose peer vanished or reads nothing.

    `unacknowledged_ms`: how long sent data may stay unacknowledged, also because the peer does not read.
    """
    if connection.family == socket.AF_UNIX:
        return
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", _PROBE_SECONDS),
        ("TCP_KEEPINTVL", _PROBE_SECONDS),
        ("TCP_KEEPCNT", _PROBES),
        # Linux only; it also ends a connection whose receive window stays closed.
        ("TCP_USER_TIMEOUT", unacknowledged_ms),
    ):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _parsed(address: str) -> tuple[socket.AddressFamily, Any]:
    """Return the family and what bind() takes."""
    if address.startswith(_UNIX):
        return socket.AF_UNIX, address.removeprefix(_UNIX)
    host, separator, port = address.removeprefix(_TCP).rpartition(":")
    if not address.startswith(_TCP) or not separator or not port.isdecimal():
        raise ValueError(f"expected an address as tcp://HOST:PORT or unix://PATH, found {address!r}")
    if host.startswith("["):
        return socket.AF_INET6, (host[1:-1], int(port))
    return socket.AF_INET, (host, int(port))


def _is_numeric(family: socket.AddressFamily, name: Any) -> bool:
    if family == socket.AF_UNIX:
        return True
    try:
        ip_address(name[0])
    except ValueError:
        return False
    return True


def _remove_stale(path: str) -> None:
    """Remove the socket file of a process that has ended; bind() fails if another process uses it."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)
