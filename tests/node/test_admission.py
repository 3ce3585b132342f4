"""Who may connect to the client ports of a node with keys, and whom each message is from, over real sockets."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from smrx import client_keys, key_files
from smrx.client_keys import ClientKeys
from smrx.feed.subscription import Subscription
from smrx.key_files import KeyPair
from smrx.local import LocalCluster
from smrx.node import admin_access, admission, order_entry
from smrx.node.credential_lookup import Credentials
from smrx.node.principal import Principal, Sender
from smrx.node.reactor import Node
from smrx.wire import admin, frames
from smrx.wire.admin import AdminError
from smrx.wire.codes import ALL_PERMISSIONS, Permission, Scope
from smrx.wire.frames import ErrorCode, FrameKind
from tests import commands
from tests.node.order_client import TRANSPORTS, LinkSocket, OrderClient, connected
from tests.node.test_node_storage import turn_until

CUSTOMER = key_files.generate()


class OneCredential(Credentials):
    """Credential 7, of account 3."""

    active = True
    networks = ("127.0.0.1",)

    def number_of(self, key: str) -> int | None:
        return 7 if key == CUSTOMER.public else None

    def principal(self, number: int) -> Principal | None:
        permissions = Permission.READ | Permission.TRADE
        return Principal(7, permissions, Scope.ACCOUNT, 3) if self.active and number == 7 else None

    def may_connect_from(self, number: int, address: str) -> bool:
        return address in self.networks


class Keyed:
    """A node with keys in this process."""

    def __init__(self, directory: Path, transport: str) -> None:
        self.transport = transport
        self.config = LocalCluster(directory, nodes=1, keys=True).config
        self.node = Node(self.config, 1)
        self.credentials = OneCredential(self.node.state)
        self.node.admission._credentials = self.credentials
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.venue = client_keys.of_client(self.config)
        assert self.venue is not None
        turn_until(self.node, lambda: self.node.replica.is_leader)

    def keys_of(self, pair: KeyPair) -> ClientKeys:
        assert self.venue is not None
        return ClientKeys(pair, self.venue.nodes)

    def connect(self, address: str, pair: KeyPair | None, route: bytes = b"") -> zmq.Socket[bytes]:
        """Return a socket that connects with a pair, or without keys; `route`: a routing id of its own."""
        socket = self.context.socket(zmq.DEALER)
        socket.linger = 0
        if route:
            socket.routing_id = route
        self.connect_socket(socket, address, pair)
        return socket

    def connect_socket(self, socket: zmq.Socket[bytes], address: str, pair: KeyPair | None) -> None:
        if pair is not None:
            self.keys_of(pair).secure(socket, address)
        socket.connect(address)

    def answer(self, socket: OrderClient, data: bytes) -> bytes:
        socket.send(data)
        turn_until(self.node, lambda: bool(socket.poll(0)))
        return socket.recv()

    def orders(self, pair: KeyPair | None) -> OrderClient:
        keys = None if pair is None else self.keys_of(pair)
        return connected(self.transport, self.context, self.config.node(1), keys)

    def asking(self, pair: KeyPair | None) -> zmq.Socket[bytes]:
        return self.connect(self.config.node(1).admin_address, pair)

    def ask(self, socket: zmq.Socket[bytes], request: admin.AnyRequest) -> admin.AnyReply:
        return admin.decode_reply(self.answer(socket, admin.encode_request(request, 1)))[1]

    def close(self) -> None:
        self.context.destroy(linger=0)
        self.node.close()


@pytest.fixture
def keyed(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Keyed]:
    """Orders are sent over ZeroMQ, or over the transport that is the parameter."""
    keyed = Keyed(tmp_path, getattr(request, "param", "zmq"))
    yield keyed
    keyed.close()


def error(data: bytes) -> ErrorCode:
    frame = frames.decode(data)
    assert frame.kind is FrameKind.ERROR
    return ErrorCode(frames.error_body(frame).code)


def is_turned_away(keyed: Keyed, address: str, pair: KeyPair | None, data: bytes) -> bool:
    """Connect and send data; return whether the node ends the handshake, False if it answers."""
    if keyed.transport == "tcp" and address == keyed.config.node(1).orders_address:
        client = keyed.orders(pair)
        assert isinstance(client, LinkSocket)
        client.send(data)
        turn_until(keyed.node, lambda: client.poll(0) or client.was_turned_away)
        refused = client.was_turned_away
        client.close()
        return refused
    socket = keyed.context.socket(zmq.DEALER)
    socket.linger = 0
    # Before it connects: a handshake without a key fails once, and is not tried again.
    monitor = socket.get_monitor_socket(
        zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_DISCONNECTED
    )
    keyed.connect_socket(socket, address, pair)
    socket.send(data)
    turn_until(keyed.node, lambda: monitor.poll(0) or socket.poll(0))
    refused = not socket.poll(0)
    socket.disable_monitor()
    return refused


PING = frames.encode(FrameKind.PING)
STATUS = admin.encode_request(admin.Status(), 1)


@pytest.mark.parametrize("keyed", TRANSPORTS, indirect=True)
@pytest.mark.parametrize("pair", [None, key_files.generate()], ids=["no key", "unknown key"])
def test_unknown_clients_are_turned_away_from_every_port(keyed: Keyed, pair: KeyPair | None) -> None:
    node = keyed.config.node(1)
    for address, data in (
        (node.orders_address, PING),
        (node.admin_address, STATUS),
        (node.events_address, frames.encode(FrameKind.RETRANSMIT, correlation=1)),
    ):
        assert is_turned_away(keyed, address, pair, data), address


def test_venue_and_member_may_do_everything(keyed: Keyed) -> None:
    assert keyed.venue is not None
    member = key_files.read(keyed.config.secret_key_path(1))
    for pair in (keyed.venue.own, member):
        pong = frames.decode(keyed.answer(keyed.orders(pair), PING))
        assert frames.leader_hint(pong).credential == 0
        assert isinstance(keyed.ask(keyed.asking(pair), admin.Balances(account=3)), admin.BalancesReply)
        assert isinstance(keyed.ask(keyed.asking(pair), admin.Snapshot()), admin.SnapshotReply)


@pytest.mark.parametrize("keyed", TRANSPORTS, indirect=True)
def test_credential_is_known_by_its_key(keyed: Keyed) -> None:
    pong = frames.decode(keyed.answer(keyed.orders(CUSTOMER), PING))
    assert frames.leader_hint(pong).credential == 7
    asking = keyed.asking(CUSTOMER)
    assert isinstance(keyed.ask(asking, admin.Orders(account=3)), admin.OrdersReply)
    for request in (admin.Orders(account=4), admin.Orders(), admin.Shutdown(), admin.Snapshot()):
        assert isinstance(keyed.ask(asking, request), AdminError)
    assert not keyed.node._stop


@pytest.mark.parametrize("keyed", TRANSPORTS, indirect=True)
def test_session_of_another_is_neither_used_nor_kept_alive(keyed: Keyed) -> None:
    """Request n + 1 on a victim's session, an OPEN_SESSION of it, and a PING for it: all are refused."""
    socket = keyed.orders(CUSTOMER)
    victim = 8 << 32 | 77
    for stolen in (
        frames.encode_commands(commands.cancel((victim, 2), 3, 1)),
        frames.encode_commands(commands.open_session(victim, 3)),
        frames.encode(FrameKind.PING, aux=victim),
        # The venue's sessions have no credential.
        frames.encode_commands(commands.open_session(77, 0)),
    ):
        assert error(keyed.answer(socket, stolen)) == ErrorCode.FORBIDDEN
    assert keyed.node.order_entry.take_active_sessions() == set()
    last = keyed.node.replica.last_index
    own = frames.encode_commands(commands.open_session(7 << 32 | 77, 3))
    assert frames.decode(keyed.answer(socket, own)).kind is FrameKind.OUTCOMES
    assert keyed.node.replica.last_index == last + 1


@pytest.mark.parametrize("keyed", TRANSPORTS, indirect=True)
def test_revoked_credential_is_refused_with_its_next_message(keyed: Keyed) -> None:
    orders, asking = keyed.orders(CUSTOMER), keyed.asking(CUSTOMER)
    keyed.answer(orders, PING)
    keyed.ask(asking, admin.Status())
    keyed.credentials.active = False
    turn_until(keyed.node, lambda: error_or_none(keyed.answer(orders, PING)) is ErrorCode.FORBIDDEN)
    reply = keyed.ask(asking, admin.Status())
    assert isinstance(reply, AdminError)
    assert "revoked" in reply.message
    # A new connection ends in the handshake.
    assert is_turned_away(keyed, keyed.config.node(1).orders_address, CUSTOMER, PING)


def error_or_none(data: bytes) -> ErrorCode | None:
    return error(data) if frames.decode(data).kind is FrameKind.ERROR else None


@pytest.mark.parametrize("keyed", TRANSPORTS, indirect=True)
def test_credential_connects_only_from_its_networks(keyed: Keyed) -> None:
    orders = keyed.orders(CUSTOMER)
    keyed.answer(orders, PING)
    keyed.credentials.networks = ("192.0.2.7",)
    # An existing connection from another address is refused, too.
    turn_until(keyed.node, lambda: error_or_none(keyed.answer(orders, PING)) is ErrorCode.FORBIDDEN)
    assert is_turned_away(keyed, keyed.config.node(1).orders_address, CUSTOMER, PING)


@pytest.mark.parametrize("keyed", TRANSPORTS, indirect=True)
def test_node_that_looks_no_key_up_lets_unknown_clients_in(keyed: Keyed, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tests above would see if the door were open."""
    everything = Principal(9, ALL_PERMISSIONS, Scope.ALL, 0)
    monkeypatch.setattr(OneCredential, "number_of", lambda self, key: 9)
    monkeypatch.setattr(OneCredential, "principal", lambda self, number: everything)
    unknown = key_files.generate()
    assert not is_turned_away(keyed, keyed.config.node(1).orders_address, unknown, PING)
    assert not is_turned_away(keyed, keyed.config.node(1).admin_address, unknown, STATUS)


# Deliberate faults: what the tests above would see.


def is_heir(keyed: Keyed) -> bool:
    """Return whether a customer gets the events of a follower whose routing id it takes over, without a request."""
    assert keyed.venue is not None
    address = keyed.config.node(1).events_address
    keyed.answer(keyed.orders(keyed.venue.own), frames.encode_commands(commands.open_session(5, 0)))
    follower = keyed.connect(address, keyed.venue.own, b"settlement")
    first = frames.decode(keyed.answer(follower, Subscription(0).frame()))
    if first.kind is FrameKind.ERROR:
        assert frames.error_body(first).code == ErrorCode.FORBIDDEN
        return False
    # Nothing is sent until the other is there.
    keyed.node.publisher._next_heartbeat = float("inf")
    # A routing id is free again when the node has noticed that its first owner left.
    left = keyed.node.publisher.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    follower.close()
    turn_until(keyed.node, lambda: left.poll(0))
    keyed.node.publisher.socket.disable_monitor()
    heir = keyed.connect(address, CUSTOMER, b"settlement")
    monitor = heir.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    turn_until(keyed.node, lambda: monitor.poll(0))
    heir.disable_monitor()
    keyed.answer(keyed.orders(keyed.venue.own), frames.encode_commands(commands.open_session(6, 0)))
    turn_until(keyed.node, lambda: heir.poll(0))
    return frames.decode(heir.recv()).kind is FrameKind.EVENTS


def test_routing_id_that_a_client_chose_is_refused_on_every_port(keyed: Keyed) -> None:
    assert keyed.venue is not None
    node, own = keyed.config.node(1), keyed.venue.own
    assert error(keyed.answer(keyed.connect(node.orders_address, own, b"desk"), PING)) == ErrorCode.FORBIDDEN
    assert isinstance(keyed.ask(keyed.connect(node.admin_address, own, b"desk"), admin.Status()), AdminError)
    assert not is_heir(keyed)


def test_admission_of_any_routing_id_hands_a_stream_to_an_heir(keyed: Keyed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "_is_own_route", lambda route: True)
    assert is_heir(keyed)


@pytest.mark.parametrize("keyed", TRANSPORTS, indirect=True)
def test_order_entry_that_compares_no_credentials_lets_a_session_be_used(
    keyed: Keyed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order_entry, "_sessions_belong_to", lambda frame, credential: True)
    socket = keyed.orders(CUSTOMER)
    stolen = frames.encode_commands(commands.cancel((8 << 32 | 77, 2), 3, 1))
    assert frames.decode(keyed.answer(socket, stolen)).kind is FrameKind.OUTCOMES


@pytest.mark.parametrize("keyed", TRANSPORTS, indirect=True)
def test_admission_that_remembers_principals_accepts_a_revoked_credential(
    keyed: Keyed, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = keyed.orders(CUSTOMER)
    keyed.answer(orders, PING)
    known = keyed.node.admission.principal_of(Sender(b"\0", "7", "127.0.0.1"))
    assert known is not None
    monkeypatch.setattr(keyed.node.admission, "principal_of", lambda sender: known)
    keyed.credentials.active = False
    for _ in range(10):
        assert error_or_none(keyed.answer(orders, PING)) is None


def test_admin_port_that_asks_no_permission_stops_for_a_customer(keyed: Keyed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_access, "refusal", lambda request, principal, token: None)
    assert isinstance(keyed.ask(keyed.asking(CUSTOMER), admin.Shutdown()), admin.ShutdownReply)
    assert keyed.node._stop
