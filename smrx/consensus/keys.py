"""Choose the CURVE keys of a node's links: its own pair, and each peer's public keys from the cluster file.

A node whose cluster file names public keys exchanges messages with holders of those keys only, encrypted; any other
connection fails in the handshake. key_files.py reads the file. Called by the node at its start.
"""

from typing import NamedTuple

from smrx import key_files
from smrx.config import Config
from smrx.key_files import KeyPair, KeysError


class LinkKeys(NamedTuple):
    """The keys of a node's links: its own pair, and each peer's public keys, the current one first."""

    own: KeyPair
    peers: dict[int, tuple[str, ...]]


def of_node(config: Config, node_id: int) -> LinkKeys | None:
    """Return the keys for a node's links, None if the configuration names none; raises KeysError."""
    if not config.curve:
        return None
    path = config.secret_key_path(node_id)
    own = key_files.read(path)
    expected = config.node(node_id).public_keys
    if own.public not in expected:
        raise KeysError(
            f"{path}: expected the key of node {node_id} (public {' or '.join(expected)}), found one with public "
            f"{own.public}"
        )
    return LinkKeys(own, {node.id: node.public_keys for node in config.nodes if node.id != node_id})


def holders_of(keys: LinkKeys, key: str) -> list[int]:
    """Return the peers with this public key: they may connect, and a message under it is from one of them."""
    return [peer for peer, public in keys.peers.items() if key in public]
