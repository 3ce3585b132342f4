"""`python -m tests.client.close_during_disconnect ORDER`: close a socket while its connection breaks.

Runs as a separate process: in the wrong order the close blocks forever and stops every thread of the process.
"""

import contextlib
import socket
import struct
import sys
from collections.abc import Callable

import zmq

from smrx.client.node_sockets import NodeSocket

_SECONDS = 10.0


def close_monitor_first(node: NodeSocket) -> None:
    """Close the monitor before disabling it; this blocks."""
    node.monitor.close(linger=0)
    node.socket.disable_monitor()


ORDERS: dict[str, Callable[[NodeSocket], None]] = {"correct": NodeSocket.close, "wrong": close_monitor_first}


def main() -> None:
    """Close one socket."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(_SECONDS)
        node = NodeSocket(context, f"tcp://127.0.0.1:{listening.getsockname()[1]}", 1 << 20)
        accepted, _ = listening.accept()
        disable_monitor = node.socket.disable_monitor

        def break_first() -> None:
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            accepted.close()
            # ZeroMQ's thread reconnects after it has reported the disconnect. While it cannot report, it does not.
            listening.settimeout(1.0)
            with contextlib.suppress(TimeoutError):
                listening.accept()[0].close()
            disable_monitor()

        # Plain assignment to a ZeroMQ socket sets a socket option.
        object.__setattr__(node.socket, "disable_monitor", break_first)
        print("closing", flush=True)
        ORDERS[sys.argv[1]](node)
        print("closed", flush=True)


if __name__ == "__main__":
    main()
