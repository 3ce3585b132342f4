"""Both ends prove their keys: a process without a secret key, or in between, is refused by both."""

from collections.abc import Callable
from typing import Any

import pytest

from smrx.key_files import KeyPair, generate
from smrx.links import greeting
from smrx.links.greeting import ORDERS, PEER, ClientGreeting, GreetingError, ServerGreeting, Terms

TERMS = Terms(PEER, 77)
SERVER, CLIENT, OTHER = generate(), generate(), generate()
CERTIFICATE = b"certificate of the server"


def client(own: KeyPair | None = CLIENT, certificate: bytes = CERTIFICATE, terms: Terms = TERMS) -> ClientGreeting:
    return ClientGreeting(terms, own, certificate, lambda key: key == SERVER.public)


def server(own: KeyPair | None = SERVER, certificate: bytes = CERTIFICATE, terms: Terms = TERMS) -> ServerGreeting:
    return ServerGreeting(terms, own, certificate, lambda key: key == CLIENT.public)


def greet(one: ClientGreeting, other: ServerGreeting) -> None:
    """Run a greeting to its end."""
    welcome = other.receive(one.first())
    assert welcome is not None
    proof = one.receive(welcome)
    if proof is not None:
        assert other.receive(proof) is None


def test_both_ends_learn_the_key_of_the_other() -> None:
    one, other = client(), server()
    greet(one, other)
    assert (one.done, one.peer_key) == (True, SERVER.public)
    assert (other.done, other.peer_key) == (True, CLIENT.public)


def test_without_keys_nothing_is_proven() -> None:
    one, other = client(None), server(None)
    greet(one, other)
    assert (one.done, one.peer_key, other.done, other.peer_key) == (True, None, True, None)


def test_nothing_is_done_before_the_proof() -> None:
    one, other = client(), server()
    welcome = other.receive(one.first())
    assert not other.done
    assert not one.done
    assert welcome is not None
    one.receive(welcome)
    assert one.done
    assert not other.done


# Attacks. Each returns normally if it succeeds.


def unknown_client() -> None:
    greet(client(OTHER), server())


def unknown_server() -> None:
    one = client()
    one.receive(ServerGreeting(TERMS, OTHER, CERTIFICATE, lambda key: True).receive(one.first()) or b"")


def client_without_the_secret() -> None:
    """The client's public key is known to all; its server would accept anything."""
    one = ClientGreeting(TERMS, KeyPair(CLIENT.public, OTHER.secret), CERTIFICATE, lambda key: True)
    one._check_proof = lambda proof: None  # type: ignore[method-assign]
    greet(one, server())


def server_without_the_secret() -> None:
    one = client()
    other = ServerGreeting(TERMS, KeyPair(SERVER.public, OTHER.secret), CERTIFICATE, lambda key: True)
    one.receive(other.receive(one.first()) or b"")


def impersonate_to_a_stolen_key() -> None:
    """The secret of the client was stolen: the thief acts as any server to it, without that server's secret."""
    one = client()
    other = ServerGreeting(TERMS, KeyPair(SERVER.public, OTHER.secret), CERTIFICATE, lambda key: True)
    stolen: Any = greeting.X25519PrivateKey.from_private_bytes(greeting.z85.decode(CLIENT.secret))
    server_key = greeting.X25519PublicKey.from_public_bytes(greeting.z85.decode(SERVER.public))
    real = other._own

    class Stolen:
        def exchange(self, peer: Any) -> Any:
            """Compute the static secret from the other side; the rest from what the thief has."""
            is_static = peer.public_bytes_raw() == greeting.z85.decode(CLIENT.public)
            return stolen.exchange(server_key) if is_static else real.exchange(peer)  # type: ignore[union-attr]

    other._own = Stolen()  # type: ignore[assignment]
    one.receive(other.receive(one.first()) or b"")


def in_between() -> None:
    """Two TLS connections, and every message passed on: each end sees another certificate."""
    greet(client(certificate=b"certificate of the process in between"), server())


def in_between_against_the_server() -> None:
    one, other = client(certificate=b"certificate of the process in between"), server()
    one._check_proof = lambda proof: None  # type: ignore[method-assign]
    greet(one, other)


def reflected_hello() -> None:
    one = client()
    one.receive(one.first())


def reflected_proof() -> None:
    one, other = client(), server()
    welcome = other.receive(one.first())
    assert welcome is not None
    other.receive(welcome[-32:])


def replayed_client() -> None:
    one, first = client(), server()
    hello = one.first()
    proof = one.receive(first.receive(hello) or b"")
    assert proof is not None
    again = server()
    again.receive(hello)
    again.receive(proof)


def replayed_server() -> None:
    first = client()
    welcome = server().receive(first.first())
    assert welcome is not None
    again = client()
    again.first()
    again.receive(welcome)


def other_cluster() -> None:
    greet(client(terms=Terms(PEER, 78)), server())


def other_port() -> None:
    greet(client(terms=Terms(ORDERS, 77)), server())


def hello_for_another_port_rewritten() -> None:
    """The purpose is changed on the way: both agree on their terms, but not on what was said."""
    one, other = client(terms=Terms(ORDERS, 77)), server()
    one._check_proof = lambda proof: None  # type: ignore[method-assign]
    one._check = lambda message, magic: client()._check(message, magic)  # type: ignore[method-assign]
    hello = bytearray(one.first())
    hello[10] = PEER
    proof = one.receive(other.receive(bytes(hello)) or b"")
    other.receive(proof or b"")


def downgrade_to_no_key() -> None:
    greet(client(None), server())


def downgraded_server() -> None:
    """A process in between says that the client has no key, and answers in the same way."""
    one = client()
    hello = bytearray(one.first())
    hello[11] = False
    one.receive(server(None).receive(bytes(hello)) or b"")


def other_version() -> None:
    hello = bytearray(client().first())
    hello[8] += 1
    server().receive(bytes(hello))


def own_key_sent_back() -> None:
    one = ClientGreeting(TERMS, CLIENT, CERTIFICATE, lambda key: True)
    greet(one, ServerGreeting(TERMS, CLIENT, CERTIFICATE, lambda key: True))


def key_of_low_order() -> None:
    """A public key for which the secret is known to all: 0."""
    hello = bytearray(client().first())
    hello[-32:] = bytes(32)
    ServerGreeting(TERMS, SERVER, CERTIFICATE, lambda key: True).receive(bytes(hello))


def ephemeral_key_of_low_order() -> None:
    hello = bytearray(client().first())
    hello[-64:-32] = bytes(32)
    server().receive(bytes(hello))


def cut_hello() -> None:
    server().receive(client().first()[:-1])


def long_hello() -> None:
    server().receive(client().first() + b"\0")


def message_after_the_end() -> None:
    one, other = client(), server()
    greet(one, other)
    other.receive(one.first())


REFUSED: dict[Callable[[], None], str] = {
    unknown_client: "unknown key",
    unknown_server: "unknown key",
    client_without_the_secret: "wrong proof",
    server_without_the_secret: "wrong proof",
    impersonate_to_a_stolen_key: "wrong proof",
    in_between: "wrong proof",
    in_between_against_the_server: "wrong proof",
    reflected_hello: "no greeting",
    reflected_proof: "wrong proof",
    replayed_client: "wrong proof",
    replayed_server: "wrong proof",
    other_cluster: "another cluster",
    other_port: "another port",
    hello_for_another_port_rewritten: "wrong proof",
    downgrade_to_no_key: "without a key",
    downgraded_server: "without a key",
    other_version: "another version",
    own_key_sent_back: "unknown key",
    key_of_low_order: "invalid key",
    ephemeral_key_of_low_order: "invalid key",
    cut_hello: "no greeting",
    long_hello: "no greeting",
    message_after_the_end: "no greeting",
}


@pytest.mark.parametrize("attack", REFUSED, ids=lambda attack: attack.__name__)
def test_attack_is_refused(attack: Callable[[], None]) -> None:
    with pytest.raises(GreetingError, match=REFUSED[attack]):
        attack()


def accepts_any_proof(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(greeting._Greeting, "_check_proof", lambda self, proof: None)


def proves_without_the_certificate(patch: pytest.MonkeyPatch) -> None:
    made = greeting._Greeting.__init__

    def init(self: Any, terms: Any, own: Any, certificate: Any, allows: Any) -> None:
        made(self, terms, own, certificate and b"the same", allows)

    patch.setattr(greeting._Greeting, "__init__", init)


def proves_the_same_for_both(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(greeting, "_CLIENT", greeting._SERVER)


def keeps_its_ephemeral_key(patch: pytest.MonkeyPatch) -> None:
    key = greeting.X25519PrivateKey.generate()

    class Kept:
        from_private_bytes = greeting.X25519PrivateKey.from_private_bytes

        @staticmethod
        def generate() -> Any:
            return key

    patch.setattr(greeting, "X25519PrivateKey", Kept)


def proves_without_ephemeral_keys(patch: pytest.MonkeyPatch) -> None:
    proofs = greeting._Greeting._proofs

    def static_only(self: Any, peer: Any, hello: Any, welcome: Any, *, is_server: bool) -> Any:
        class Nothing:
            def exchange(self, peer: Any) -> bytes:
                return b""

        own = self._own

        class Static:
            def exchange(self, key: Any) -> Any:
                return own.exchange(key) if key.public_bytes_raw() == peer.public else b""

        self._ephemeral, self._own = Nothing(), Static()
        try:
            return proofs(self, peer, hello, welcome, is_server=is_server)
        finally:
            self._own = own

    patch.setattr(greeting._Greeting, "_proofs", static_only)


def allows_any_key(patch: pytest.MonkeyPatch) -> None:
    made = greeting._Greeting.__init__

    def init(self: Any, terms: Any, own: Any, certificate: Any, allows: Any) -> None:
        made(self, terms, own, certificate, lambda key: True)

    patch.setattr(greeting._Greeting, "__init__", init)


@pytest.mark.parametrize(
    ("fault", "attack"),
    [
        (accepts_any_proof, client_without_the_secret),
        (accepts_any_proof, server_without_the_secret),
        (proves_without_the_certificate, in_between),
        (proves_without_the_certificate, in_between_against_the_server),
        (proves_the_same_for_both, reflected_proof),
        (keeps_its_ephemeral_key, replayed_client),
        (keeps_its_ephemeral_key, replayed_server),
        (proves_without_ephemeral_keys, impersonate_to_a_stolen_key),
        (allows_any_key, unknown_client),
        (allows_any_key, unknown_server),
    ],
)
def test_attack_succeeds_without_the_guard(
    fault: Callable[[pytest.MonkeyPatch], None], attack: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So each attack is one, and its guard is what refuses it."""
    fault(monkeypatch)
    attack()
