"""Greet the other end of a connection, and prove the X25519 keys of both ends to each other inside of TLS. Sans I/O.

The side that dials sends a hello: protocol version, purpose of the port, cluster, and with keys a new (ephemeral)
public key and its own. The other side answers with a welcome, its two public keys and a proof, the first with its own.
A proof is an HMAC of all that was said and of the server's certificate as its sender saw it, under a secret that takes
the secret key of one of the two to compute. docs/security.md has the argument. Without keys nothing is proven.

Owns the three messages. Knows no socket: greeted_links.py moves the bytes. The caller says whose key may connect.
"""

import hashlib
import hmac
import struct
from collections.abc import Callable
from typing import Final, NamedTuple

import xxhash
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from zmq.utils import z85

from smrx.key_files import KeyPair

VERSION: Final = 1
#: What a connection is for; a greeting for one port is refused at another.
PEER: Final = 1
ORDERS: Final = 2
#: The port of a gateway.
GATEWAY: Final = 3
ANY_CLUSTER: Final = 0

#: What a hello and a welcome begin with. They differ, so that no message can be sent back as the answer to itself.
_HELLO_MAGIC: Final = b"smrx-hlo"
_WELCOME_MAGIC: Final = b"smrx-wlc"
#: Magic, version, purpose, whether there are keys, cluster, ephemeral public key, public key.
_HELLO: Final = struct.Struct("<8sHBBQ32s32s")
_PROOF_BYTES: Final = hashlib.sha256().digest_size
HELLO_BYTES: Final = _HELLO.size
#: The largest message of a greeting, and how many the dialing side sends.
MAX_BYTES: Final = _HELLO.size + _PROOF_BYTES
_NO_KEY: Final = bytes(32)
_SECRET_LABEL: Final = b"smrx link secret 1"
_SERVER: Final = b"smrx link server 1"
_CLIENT: Final = b"smrx link client 1"


class GreetingError(Exception):
    """The other end is refused; the message is a reason to be counted."""


def cluster_number(name: str) -> int:
    """Return the number of a cluster for a greeting."""
    return xxhash.xxh3_64_intdigest(name.encode())


class Terms(NamedTuple):
    """What both ends have to agree on."""

    purpose: int
    #: The number of the cluster. A client of order entry without a cluster file has ANY_CLUSTER.
    cluster: int


class _Hello(NamedTuple):
    ephemeral: bytes
    public: bytes


#: Returns whether the holder of a public key (Z85) may connect.
Allows = Callable[[str], bool]


class _Greeting:
    """What both sides have in common."""

    def __init__(self, terms: Terms, own: KeyPair | None, certificate: bytes | None, allows: Allows) -> None:
        """`certificate`: the server's, as this side sees it; a key needs one. `allows`: whose proof counts."""
        if own is not None and not certificate:
            raise GreetingError("no certificate")
        #: Whether the greeting is complete: the other end may be believed.
        self.done = False
        #: The public key of the other end, None without keys. Proven once `done`.
        self.peer_key: str | None = None
        self._terms = terms
        self._allows = allows
        self._certificate = hashlib.sha256(certificate or b"").digest()
        self._own = None if own is None else X25519PrivateKey.from_private_bytes(z85.decode(own.secret))
        self._own_public = _NO_KEY if own is None else z85.decode(own.public)
        self._ephemeral: X25519PrivateKey | None = None
        self._expected = b""

    def _message(self, magic: bytes) -> bytes:
        """Return this side's hello with a new ephemeral key."""
        public = _NO_KEY
        if self._own is not None:
            self._ephemeral = X25519PrivateKey.generate()
            public = self._ephemeral.public_key().public_bytes_raw()
        has_key = self._own is not None
        return _HELLO.pack(magic, VERSION, self._terms.purpose, has_key, self._terms.cluster, public, self._own_public)

    def _check(self, message: bytes, magic: bytes) -> _Hello:
        """Check the hello of the other end against the terms; set peer_key."""
        if len(message) != _HELLO.size or not message.startswith(magic):
            raise GreetingError("no greeting")
        _, version, purpose, has_key, cluster, ephemeral, public = _HELLO.unpack(message)
        if version != VERSION:
            raise GreetingError("another version of the greeting")
        if purpose != self._terms.purpose:
            raise GreetingError("a greeting for another port")
        is_any = purpose == ORDERS and ANY_CLUSTER in (cluster, self._terms.cluster)
        if cluster != self._terms.cluster and not is_any:
            raise GreetingError("a greeting from another cluster")
        if has_key != (self._own is not None):
            raise GreetingError("a greeting without a key" if self._own is not None else "a greeting with a key")
        if self._own is not None:
            key = z85.encode(public).decode("ascii")
            # Its own key proves nothing: the proof could be computed on this side alone.
            if public == self._own_public or not self._allows(key):
                raise GreetingError("a greeting under an unknown key")
            self.peer_key = key
        return _Hello(ephemeral, public)

    def _proofs(self, peer: _Hello, hello: bytes, welcome: bytes, *, is_server: bool) -> tuple[bytes, bytes]:
        """Return (the server's proof, the client's proof)."""
        assert self._own is not None
        assert self._ephemeral is not None
        try:
            peer_ephemeral = X25519PublicKey.from_public_bytes(peer.ephemeral)
            peer_public = X25519PublicKey.from_public_bytes(peer.public)
            both = self._own.exchange(peer_public)
            # The server's key against the client's ephemeral one, then the reverse: whose secret key was stolen can
            # be impersonated, but others cannot be impersonated to it.
            of_server, of_client = self._own.exchange(peer_ephemeral), self._ephemeral.exchange(peer_public)
        except ValueError:
            # The library refuses keys of low order, for which the secret is known.
            raise GreetingError("a greeting with an invalid key") from None
        if not is_server:
            of_server, of_client = of_client, of_server
        secret = hmac.digest(_SECRET_LABEL, both + of_server + of_client, "sha256")
        said = hashlib.sha256(self._certificate + hello + welcome).digest()
        return hmac.digest(secret, _SERVER + said, "sha256"), hmac.digest(secret, _CLIENT + said, "sha256")

    def _check_proof(self, proof: bytes) -> None:
        if not hmac.compare_digest(proof, self._expected):
            raise GreetingError("a greeting with a wrong proof")


class ClientGreeting(_Greeting):
    """The side that dials."""

    def first(self) -> bytes:
        """Return the message to begin with."""
        self._hello = self._message(_HELLO_MAGIC)
        return self._hello

    def receive(self, message: bytes) -> bytes | None:
        """Handle the welcome; return the message to send, if any. Raises GreetingError."""
        if self.done:
            raise GreetingError("no greeting")
        peer = self._check(message[: _HELLO.size], _WELCOME_MAGIC)
        if self._own is None:
            if len(message) != _HELLO.size:
                raise GreetingError("no greeting")
            self.done = True
            return None
        self._expected, proof = self._proofs(peer, self._hello, message[: _HELLO.size], is_server=False)
        self._check_proof(message[_HELLO.size :])
        self.done = True
        return proof


class ServerGreeting(_Greeting):
    """The side that accepts."""

    def first(self) -> bytes | None:
        """Return None: the side that dials begins."""
        return None

    def receive(self, message: bytes) -> bytes | None:
        """Handle the hello, and with keys the proof; return the message to send, if any. Raises GreetingError."""
        if self.done:
            raise GreetingError("no greeting")
        if self._expected:
            self._check_proof(message)
            self.done = True
            return None
        peer = self._check(message, _HELLO_MAGIC)
        welcome = self._message(_WELCOME_MAGIC)
        if self._own is None:
            self.done = True
            return welcome
        proof, self._expected = self._proofs(peer, message, welcome, is_server=True)
        return welcome + proof
