"""Enable TCP keepalive on listening ZeroMQ sockets.

Called for every socket that accepts connections. Sets socket options only. This is the kernel's keepalive; the PING
frames that keep a client's session alive are in smrx.client.session_pinger.
"""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import zmq

#: Seconds of silence before the first probe and between probes.
_PROBE_SECONDS: Final = 10
#: Unanswered probes after which the kernel closes the connection.
_PROBES: Final = 3


def enable_tcp_keepalive(socket: "zmq.Socket[bytes]") -> None:
    """Close connections whose peer vanished without closing them. Call before bind().

    A connection on which nothing is sent would otherwise stay open forever and hold a file descriptor.
    """
    socket.tcp_keepalive = 1
    socket.tcp_keepalive_idle = socket.tcp_keepalive_intvl = _PROBE_SECONDS
    socket.tcp_keepalive_cnt = _PROBES
