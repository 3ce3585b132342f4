"""Make the kernel close the connections of listening ZeroMQ sockets whose peers vanished or do not read.

Called for every socket that accepts connections. Sets socket options only. TCP keepalive is the kernel's; the PING
frames that keep a client's session alive are in smrx.client.session_pinger.
"""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import zmq

#: Seconds of silence before the first probe and between probes.
_PROBE_SECONDS: Final = 10
#: Unanswered probes after which the kernel closes the connection.
_PROBES: Final = 3
#: Seconds for which a peer may accept nothing of what is sent to it. A client that is stopped for longer reconnects.
_UNREAD_SECONDS: Final = 10


def enable_tcp_keepalive(socket: "zmq.Socket[bytes]") -> None:
    """Close connections whose peer vanished without closing them. Call before bind().

    A connection on which nothing is sent would otherwise stay open forever and hold a file descriptor.
    """
    socket.tcp_keepalive = 1
    socket.tcp_keepalive_idle = socket.tcp_keepalive_intvl = _PROBE_SECONDS
    socket.tcp_keepalive_cnt = _PROBES


def close_unread_connections(socket: "zmq.Socket[bytes]") -> None:
    """Close connections whose peer does not read what is sent to it. Call before bind().

    What ZeroMQ holds for such a connection is freed with it. Linux only: TCP_USER_TIMEOUT also ends a connection whose
    receive window stays closed.
    """
    socket.tcp_maxrt = 1000 * _UNREAD_SECONDS
