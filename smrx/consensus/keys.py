"""Read and write the CURVE keys of nodes: a pair for each, with the public half in every cluster file.

Owns the file of a secret key and its checks. A node whose cluster file names public keys exchanges messages with
holders of those keys only, encrypted; any other connection fails in the handshake. Called by the node at its start and
by `smrx cluster keygen`.
"""

import os
import stat
from pathlib import Path
from typing import Final, NamedTuple, TypeGuard

import zmq
from zmq.utils import z85

from smrx import toml_file
from smrx.config import Config

#: A Z85 key: 32 bytes in 40 characters (ZeroMQ RFC 32).
_KEY_BYTES: Final = 32


class KeysError(Exception):
    """A key cannot be used; the message is for the operator."""


class KeyPair(NamedTuple):
    """One node's key, both halves in Z85."""

    public: str
    secret: str


class LinkKeys(NamedTuple):
    """The keys of a node's links: its own pair, and each peer's public keys, the current one first."""

    own: KeyPair
    peers: dict[int, tuple[str, ...]]


def generate() -> KeyPair:
    """Generate a new pair."""
    public, secret = zmq.curve_keypair()
    return KeyPair(public.decode("ascii"), secret.decode("ascii"))


def write(path: Path, pair: KeyPair, cluster: str, node_id: int) -> None:
    """Write a new file that only its owner can read; raises KeysError if it exists."""
    text = (
        f"# Secret key of node {node_id} of cluster {cluster!r}. It stays on its machine.\n"
        f'public = "{pair.public}"\n'
        f'secret = "{pair.secret}"\n'
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise KeysError(f"{path}: the key exists already and was not changed") from None
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> KeyPair:
    """Read the pair in a key file; raises KeysError if it is missing, readable by others, or no pair."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        values = toml_file.read(path, "the key file")
    except FileNotFoundError:
        raise KeysError(f"{path}: expected this node's secret key, found no file; see smrx cluster keygen") from None
    except OSError as error:
        raise KeysError(f"{path}: cannot read the key file: {error.strerror}") from None
    except toml_file.TomlFileError as error:
        raise KeysError(f"{error}; see smrx cluster keygen") from None
    if mode & 0o077:
        raise KeysError(f"{path}: expected a file that only its owner can read (chmod 600), found mode {mode:04o}")
    public, secret = values.get("public"), values.get("secret")
    if not is_key(public) or not is_key(secret):
        raise KeysError(f"{path}: expected public and secret, 40 characters of Z85 each, found something else")
    if zmq.curve_public(secret.encode("ascii")).decode("ascii") != public:
        raise KeysError(f"{path}: expected the two halves of one key, found halves of two")
    return KeyPair(public, secret)


def is_key(value: object) -> TypeGuard[str]:
    """Return whether this is 32 bytes in Z85."""
    if not isinstance(value, str):
        return False
    try:
        return len(z85.decode(value)) == _KEY_BYTES
    except (ValueError, KeyError, TypeError):
        return False


def of_node(config: Config, node_id: int) -> LinkKeys | None:
    """Return the keys for a node's links, None if the configuration names none; raises KeysError."""
    if not config.curve:
        return None
    path = config.secret_key_path(node_id)
    own = read(path)
    expected = config.node(node_id).public_keys
    if own.public not in expected:
        raise KeysError(
            f"{path}: expected the key of node {node_id} (public {' or '.join(expected)}), found one with public "
            f"{own.public}"
        )
    return LinkKeys(own, {node.id: node.public_keys for node in config.nodes if node.id != node_id})
