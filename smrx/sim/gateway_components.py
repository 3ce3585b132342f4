"""The classes a simulated gateway is built from, and its keys; a test replaces one of them with a broken one."""

import hashlib
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from zmq.utils import z85

from smrx.gateway.upstream import Upstream
from smrx.key_files import KeyPair
from smrx.links.connection import Connection
from smrx.links.greeting import ServerGreeting


def _pair(of: str) -> KeyPair:
    """Return a pair that is the same in every run."""
    secret = hashlib.sha256(of.encode()).digest()
    public = X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()
    return KeyPair(z85.encode(public).decode("ascii"), z85.encode(secret).decode("ascii"))


@dataclass(frozen=True)
class GatewayKeys:
    """The keys of all gateways of a run, of their clients, and of an unknown client."""

    gateway: KeyPair = field(default_factory=lambda: _pair("gateway"))
    client: KeyPair = field(default_factory=lambda: _pair("client"))
    unknown: KeyPair = field(default_factory=lambda: _pair("unknown client"))
    #: Stands for the certificate of TLS, which is not simulated.
    certificate: bytes = b"certificate"


@dataclass(frozen=True)
class GatewayComponents:
    """By default what a real gateway runs."""

    upstream: type[Upstream] = Upstream
    #: Of the gateways and of their clients.
    connection: type[Connection] = Connection
    greeting: type[ServerGreeting] = ServerGreeting
    keys: GatewayKeys = field(default_factory=GatewayKeys)
