"""How commands reach a cluster: a client of one account, or a question to one node. Called by the commands."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from smrx.cli import options
from smrx.cli.survey import Ask
from smrx.config import Config
from smrx.wire import admin
from smrx.wire.admin import AnyReply, AnyRequest
from smrx.wire.frames import FrameError

if TYPE_CHECKING:
    from smrx.client import Client

#: The venue's own account: its session may act for every other, as an operator at a terminal does.
VENUE = 0


def client() -> "Client":
    """A client of the venue, of the running command's configuration. Use as a context manager."""
    from smrx.client import Client

    return Client(options.config(), account=VENUE)


@contextmanager
def asker(config: Config, wait_s: float) -> Iterator[Ask]:
    """Yield a function, good for any thread, that asks one node and waits at most `wait_s` for the answer."""
    import zmq

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
