"""`python -m tests.client.closing ORDER`: close a link whose connection breaks just before its reports are stopped.

A process of its own: in the wrong order it waits for ever, and no other thread of it runs meanwhile.
"""

import contextlib
import socket
import struct
import sys
from collections.abc import Callable

import zmq

from smrx.client.node_sockets import Link

_SECONDS = 10.0


def in_the_other_order(link: Link) -> None:
    """The reader of the reports goes first."""
    link.monitor.close(linger=0)
    link.socket.disable_monitor()


ORDERS: dict[str, Callable[[Link], None]] = {"as-it-is": Link.close, "the-other": in_the_other_order}


def main() -> None:
    """Close one link."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(_SECONDS)
        link = Link(context, f"tcp://127.0.0.1:{listening.getsockname()[1]}", 1 << 20)
        accepted, _ = listening.accept()
        stop_reports = link.socket.disable_monitor

        def break_first() -> None:
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            accepted.close()
            # Once it has reported the end, ZeroMQ's thread connects again. If it cannot report it, it never does.
            listening.settimeout(1.0)
            with contextlib.suppress(TimeoutError):
                listening.accept()[0].close()
            stop_reports()

        # An attribute of a ZeroMQ socket would be taken for one of its options.
        object.__setattr__(link.socket, "disable_monitor", break_first)
        print("closing", flush=True)
        ORDERS[sys.argv[1]](link)
        print("closed", flush=True)


if __name__ == "__main__":
    main()
