"""Let the sockets of a client connect to nodes with keys: the client's own pair, and the public keys of the nodes.

Owns which key file a client uses and which key a node is expected to have. Used by the SDK, by the subscriber of the
feed and by tools; they own the sockets.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import zmq

from smrx import key_files
from smrx.config import Config
from smrx.key_files import KeyPair, KeysError
from smrx.wire import tcp_address

_HINT = "smrx key create"


#: A connection that is not there after this time is tried again; as long as a node may take for a handshake.
RETRY_SECONDS: Final = 3.0


class ClientKeys(NamedTuple):
    """The pair of a client, and the public keys of each node by the addresses of its client ports."""

    own: KeyPair
    nodes: Mapping[str, tuple[str, ...]]

    def secure(self, socket: "zmq.Socket[Any]", address: str, attempt: int = 0) -> None:
        """Set the keys of the next connection of a socket to an address; raises KeysError for an unknown address.

        A node that changes its key has two: successive attempts use each in turn.
        """
        known = self.nodes.get(address)
        if not known:
            raise KeysError(f"the public key of the node at {address} is not in the cluster file")
        socket.curve_secretkey = self.own.secret.encode("ascii")
        socket.curve_publickey = self.own.public.encode("ascii")
        socket.curve_serverkey = known[attempt % len(known)].encode("ascii")

    def connect_again(self, socket: "zmq.Socket[Any]", address: str, attempt: int) -> None:
        """Connect a socket once more, with the next of the node's keys.

        ZeroMQ does not try again by itself where a node has refused the key. A node that has restarted refuses those
        of credentials that it does not know yet.
        """
        with contextlib.suppress(zmq.ZMQError):
            socket.disconnect(address)
        self.secure(socket, address, attempt)
        tcp_address.connect(socket, address)


def of_client(config: Config, path: str | Path | None = None) -> ClientKeys | None:
    """Return the keys of a client of a cluster, None if its nodes have none; raises KeysError.

    Without a path this is the venue's key beside the data of the nodes, if this machine has it.
    """
    if not config.curve:
        if path is not None:
            raise KeysError(f"{path}: a key was given, but the nodes of cluster {config.cluster!r} have no public_keys")
        return None
    if path is None:
        path = config.venue_key_path
        if not path.exists():
            raise KeysError(f"cluster {config.cluster!r} accepts clients with a key only; give one with --key or key=")
    nodes = {
        address: node.public_keys
        for node in config.nodes
        for address in (node.orders_address, node.orders_tcp_address, node.events_address, node.admin_address)
    }
    return ClientKeys(key_files.read(Path(path).expanduser(), hint=_HINT), nodes)
