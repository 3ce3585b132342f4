"""One question to one node of a configuration, and its answer in time or none.

For whoever watches nodes rather than trades: status, surveys, local clusters. Knows no session and follows no leader.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import zmq

from smrx.config import Config
from smrx.wire import admin
from smrx.wire.admin import AnyReply, AnyRequest
from smrx.wire.frames import FrameError

#: Returns a node's answer, or None when it gave none in time.
Ask = Callable[[int, AnyRequest], AnyReply | None]


@contextmanager
def open_admin_client(config: Config, wait_s: float) -> Iterator[Ask]:
    """Yield a function, good for any thread, that asks one node and waits at most `wait_s` for the answer."""
    addresses = {node.id: node.admin_address for node in config.nodes}
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)

    def ask(node_id: int, request: AnyRequest) -> AnyReply | None:
        # A socket for each question: an answer that comes too late can never be taken for the next one's.
        with context.socket(zmq.DEALER) as socket:
            socket.linger = 0
            socket.maxmsgsize = admin.MAX_REPLY_BYTES
            socket.connect(addresses[node_id])
            socket.send(admin.encode_request(request, 1))
            if not socket.poll(int(wait_s * 1000)):
                return None
            try:
                return admin.decode_reply(socket.recv())[1]
            except FrameError:
                return None  # Whoever listens there is no node of ours.

    try:
        yield ask
    finally:
        context.term()
