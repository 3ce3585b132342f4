"""Send one admin request to one node and wait for its reply.

For tools that observe or operate nodes rather than trade: status, local clusters, benchmarks. Has no session and does
not follow the leader. To a node without keys a request that changes something carries the token of the node's
directory, if this process may read it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import zmq

from smrx import client_keys
from smrx.client_keys import ClientKeys
from smrx.config import Config
from smrx.wire import admin, tcp_address
from smrx.wire.admin import AnyReply, AnyRequest
from smrx.wire.frames import FrameError

#: Sends a request to a node; returns the reply, or None if none arrives in time.
Ask = Callable[[int, AnyRequest], AnyReply | None]


@contextmanager
def open_admin_client(config: Config, timeout_s: float, key: str | Path | None = None) -> Iterator[Ask]:
    """Yield a thread-safe function that sends a request to a node and waits up to `timeout_s` for the reply.

    `key`: a key file, for a cluster with keys; see Client. Raises KeysError.
    """
    keys = client_keys.of_client(config, key)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)

    def ask(node_id: int, request: AnyRequest) -> AnyReply | None:
        address = config.node(node_id).admin_address
        if keys is None:
            request = with_token(config, node_id, request)
        # A node that changes its key has two; the other is tried if it does not answer under the first.
        for attempt in range(1 if keys is None else len(keys.nodes.get(address, ""))):
            reply = _ask(context, address, request, timeout_s, keys, attempt)
            if reply is not None:
                return reply
        return None

    try:
        yield ask
    finally:
        context.term()


def with_token(config: Config, node_id: int, request: AnyRequest) -> AnyRequest:
    """Return the request with the token of a node without keys, if it needs one and this process may read it."""
    if not isinstance(request, admin.ChangingRequest):
        return request
    try:
        token = config.admin_token_path(node_id).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return request
    return msgspec.structs.replace(request, token=token)


def _ask(
    context: "zmq.Context[zmq.Socket[bytes]]",
    address: str,
    request: AnyRequest,
    timeout_s: float,
    keys: ClientKeys | None,
    attempt: int,
) -> AnyReply | None:
    # A new socket for each request, so that a late reply is never taken for the next one's.
    with context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.maxmsgsize = admin.MAX_REPLY_BYTES
        if keys is not None:
            keys.secure(socket, address, attempt)
        tcp_address.connect(socket, address)
        socket.send(admin.encode_request(request, 1))
        if not socket.poll(int(timeout_s * 1000)):
            return None
        try:
            return admin.decode_reply(socket.recv())[1]
        except FrameError:
            return None  # The port does not belong to a node.
