"""Bind and connect ZeroMQ sockets to TCP addresses of both IP versions.

An address is "tcp://HOST:PORT"; an IPv6 address stands in brackets. A name is looked up among the IPv4 addresses only,
so that all nodes choose the same address for it. Called wherever a TCP socket is bound or connected.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import zmq


def bind(socket: "zmq.Socket[Any]", address: str) -> None:
    """Bind a socket; raises zmq.ZMQError."""
    _enable_ipv6(socket, address)
    socket.bind(address)


def connect(socket: "zmq.Socket[Any]", address: str) -> None:
    """Connect a socket; raises zmq.ZMQError for an invalid address."""
    _enable_ipv6(socket, address)
    socket.connect(address)


def _enable_ipv6(socket: "zmq.Socket[Any]", address: str) -> None:
    """Let a socket use IPv6 if the address needs it: by default ZeroMQ accepts IPv4 only."""
    if address.startswith("tcp://["):
        socket.ipv6 = True
