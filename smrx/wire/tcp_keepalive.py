"""What is asked of TCP below ZeroMQ. Used by every socket that waits for callers; sets options, moves no bytes."""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import zmq

#: A caller from whom nothing comes is asked for a sign of life so often, and so many times before it is given up.
_PROBE_SECONDS: Final = 10
_PROBES: Final = 3


def probe_callers(socket: "zmq.Socket[bytes]") -> None:
    """Notice callers that vanished without a word; call it before bind().

    Where nothing is sent nobody else notices: the connection would stay open for ever, and with it a descriptor.
    """
    socket.tcp_keepalive = 1
    socket.tcp_keepalive_idle = socket.tcp_keepalive_intvl = _PROBE_SECONDS
    socket.tcp_keepalive_cnt = _PROBES
