"""Send one admin request to one node and wait for its reply.

For tools that observe or operate nodes rather than trade: status, local clusters, benchmarks. Has no session and does
not follow the leader.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import zmq

from smrx.config import Config
from smrx.wire import admin, tcp_address
from smrx.wire.admin import AnyReply, AnyRequest
from smrx.wire.frames import FrameError

#: Sends a request to a node; returns the reply, or None if none arrives in time.
Ask = Callable[[int, AnyRequest], AnyReply | None]


@contextmanager
def open_admin_client(config: Config, timeout_s: float) -> Iterator[Ask]:
    """Yield a thread-safe function that sends a request to a node and waits up to `timeout_s` for the reply."""
    addresses = {node.id: node.admin_address for node in config.nodes}
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)

    def ask(node_id: int, request: AnyRequest) -> AnyReply | None:
        # A new socket for each request, so that a late reply is never taken for the next one's.
        with context.socket(zmq.DEALER) as socket:
            socket.linger = 0
            socket.maxmsgsize = admin.MAX_REPLY_BYTES
            tcp_address.connect(socket, addresses[node_id])
            socket.send(admin.encode_request(request, 1))
            if not socket.poll(int(timeout_s * 1000)):
                return None
            try:
                return admin.decode_reply(socket.recv())[1]
            except FrameError:
                return None  # The port does not belong to a node.

    try:
        yield ask
    finally:
        context.term()
