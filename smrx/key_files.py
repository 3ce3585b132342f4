"""Read, write and check the files of CURVE keys, of nodes and of clients: both halves of a pair, for one owner.

Owns the format of a key file and its checks. Knows nothing of who may use a key. Called by nodes and clients at their
start, and by `smrx cluster keygen` and `smrx key create`.
"""

import os
import stat
from pathlib import Path
from typing import Final, NamedTuple, TypeGuard

import zmq
from zmq.utils import z85

from smrx import toml_file

#: A Z85 key: 32 bytes in 40 characters (ZeroMQ RFC 32).
KEY_BYTES: Final = 32


class KeysError(Exception):
    """A key cannot be used; the message is for its owner."""


class KeyPair(NamedTuple):
    """A key, both halves in Z85."""

    public: str
    secret: str


def generate() -> KeyPair:
    """Generate a new pair."""
    public, secret = zmq.curve_keypair()
    return KeyPair(public.decode("ascii"), secret.decode("ascii"))


def write(path: Path, pair: KeyPair, of: str) -> None:
    """Write a new file that only its owner can read; `of` says whose key it is. Raises KeysError if it exists."""
    text = (
        f"# Secret key of {of}. It stays on its machine.\n"
        f'public = "{pair.public}"\n'
        f'secret = "{pair.secret}"\n'
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise KeysError(f"{path}: the key exists already and was not changed") from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def read(path: Path, *, hint: str = "smrx cluster keygen") -> KeyPair:
    """Read the pair in a key file; raises KeysError if it is missing, readable by others, another user's, or no pair.

    `hint`: the command that makes such a file.
    """
    try:
        status = path.stat()
        values = toml_file.read(path, "the key file")
    except FileNotFoundError:
        raise KeysError(f"{path}: expected a secret key, found no file; see {hint}") from None
    except OSError as error:
        raise KeysError(f"{path}: cannot read the key file: {error.strerror}") from None
    except toml_file.TomlFileError as error:
        raise KeysError(f"{error}; see {hint}") from None
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid not in (0, os.geteuid()):
        raise KeysError(
            f"{path}: expected a file of this user or of root, found one of user {status.st_uid}, who knows it"
        )
    if mode & 0o077:
        raise KeysError(f"{path}: expected a file that only its owner can read (chmod 600), found mode {mode:04o}")
    public, secret = values.get("public"), values.get("secret")
    if not is_key(public) or not is_key(secret):
        raise KeysError(f"{path}: expected public and secret, 40 characters of Z85 each, found something else")
    if zmq.curve_public(secret.encode("ascii")) != public.encode("ascii"):
        raise KeysError(f"{path}: the public and the secret key are halves of two different keys")
    return KeyPair(public, secret)


def is_key(value: object) -> TypeGuard[str]:
    """Return whether this is 32 bytes in Z85."""
    if not isinstance(value, str):
        return False
    try:
        return len(z85.decode(value)) == KEY_BYTES
    except (ValueError, KeyError, TypeError):
        return False
