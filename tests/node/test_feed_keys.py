"""The events port of a node with keys, over real sockets: what each key may subscribe to, and until when."""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from smrx.client import async_client, node_sockets, session_pinger
from smrx.client.async_client import _WatchedSocket
from smrx.client.node_sockets import NodeSocket
from smrx.client.session_pinger import SessionPinger
from smrx.client_keys import ClientKeys
from smrx.feed import subscription_state
from smrx.feed.account_feed import AccountFeed
from smrx.feed.subscriber import Endpoint, Subscriber
from smrx.feed.subscription import Own, Subscription
from smrx.key_files import KeyPair
from smrx.node.publisher import Publisher
from smrx.wire import frames
from smrx.wire.frames import ErrorCode, Frame, FrameKind
from tests.node.test_admission import CUSTOMER, PING, Keyed
from tests.node.test_node_storage import turn_until


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[Keyed]:
    keyed = Keyed(tmp_path, "zmq")
    yield keyed
    keyed.close()


def subscribe(keyed: Keyed, pair: KeyPair, accounts: set[int] | None) -> tuple[zmq.Socket[bytes], Frame]:
    """Subscribe under a key; return the socket and the node's first answer."""
    socket = keyed.connect(keyed.config.node(1).events_address, pair)
    wanted = None if accounts is None else frozenset(accounts)
    return socket, frames.decode(keyed.answer(socket, Subscription(1, accounts=wanted).frame()))


def test_key_in_the_cluster_file_follows_everything(keyed: Keyed) -> None:
    assert keyed.venue is not None
    for accounts in (None, {3, 4}):
        _, frame = subscribe(keyed, keyed.venue.own, accounts)
        assert frame.kind is FrameKind.HEARTBEAT
    assert keyed.node.publisher.subscribers == 2


def is_ended(keyed: Keyed, socket: zmq.Socket[bytes]) -> bool:
    while socket.poll(0):
        frame = frames.decode(socket.recv())
        if frame.kind is FrameKind.ERROR:
            assert frames.error_body(frame).code == ErrorCode.FORBIDDEN
            return True
    return False


@pytest.mark.parametrize("change", ["revoked", "from elsewhere"])
def test_key_of_an_account_follows_its_account_until_it_may_not(keyed: Keyed, change: str) -> None:
    for accounts, missing in ((None, "FOLLOW"), ({4}, "account 4"), ({3, 4}, "account 4")):
        _, frame = subscribe(keyed, CUSTOMER, accounts)
        body = frames.error_body(frame)
        assert (body.code, missing in body.message) == (ErrorCode.FORBIDDEN, True)
    assert keyed.node.publisher.subscribers == 0
    socket, frame = subscribe(keyed, CUSTOMER, {3})
    assert frame.kind is FrameKind.HEARTBEAT
    if change == "revoked":
        keyed.credentials.active = False
    else:
        keyed.credentials.networks = ("192.0.2.1",)
    turn_until(keyed.node, lambda: is_ended(keyed, socket))
    assert keyed.node.publisher.subscribers == 0


def test_subscription_that_is_checked_once_goes_on(keyed: Keyed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Publisher, "_may_stay", lambda publisher, peer: True)
    socket, _ = subscribe(keyed, CUSTOMER, {3})
    keyed.credentials.active = False
    until = time.monotonic() + 1.5
    turn_until(keyed.node, lambda: time.monotonic() > until)
    assert not is_ended(keyed, socket)


# A node that restarts does not know the credentials until it has its state again, and ZeroMQ does not try again where a
# key was refused.


def follows(keyed: Keyed) -> bool:
    """Return whether a private stream comes to the node after its key was refused."""
    endpoint = Endpoint(1, keyed.config.node(1).events_address)
    feed = AccountFeed([endpoint], 1, Own.ACCOUNTS, 1, keyed.keys_of(CUSTOMER))
    try:
        return comes_back(keyed, lambda: feed.poll(0.002), lambda: keyed.node.publisher.subscribers)
    finally:
        feed.close()


def follows_everything(keyed: Keyed) -> bool:
    """Return whether a follower's subscription reaches the node after its key was refused."""
    endpoint = Endpoint(1, keyed.config.node(1).events_address)
    with Subscriber([endpoint], keys=keyed.keys_of(CUSTOMER)) as subscriber:
        # Its credential may not have every event, and is told so.
        return comes_back(
            keyed,
            lambda: subscriber.poll(0.002),
            lambda: subscriber._subscriptions[1].refusal_code == ErrorCode.FORBIDDEN,
        )


def pings(keyed: Keyed) -> bool:
    """Return whether the pings of a session reach the node after the key was refused."""
    seen: list[int] = []
    entry = keyed.node.order_entry
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entry, "_pong", lambda identity, frame, *_: seen.append(frame.aux))
        # The owner is anything that outlives it.
        pinger = SessionPinger(keyed, keyed.keys_of(CUSTOMER))
        pinger.ping_session(7 << 32 | 1, [keyed.config.node(1).orders_address])
        try:
            return comes_back(keyed, lambda: None, lambda: seen)
        finally:
            pinger.close()


def orders(keyed: Keyed) -> bool:
    """Return whether what a client queues reaches the node after its key was refused."""
    node = NodeSocket(keyed.context, keyed.config.node(1).orders_address, 1 << 20, keyed.keys_of(CUSTOMER))
    node.send(PING)
    answers: list[bytes] = []

    def step() -> None:
        node.flush()
        node.disconnected()
        answers.extend(node.receive())

    try:
        return comes_back(keyed, step, lambda: answers)
    finally:
        node.close()


def orders_of_asyncio(keyed: Keyed) -> bool:
    """Do the same on an event loop."""
    answers: list[bytes] = []
    loop = asyncio.new_event_loop()

    async def connect() -> _WatchedSocket:
        address = keyed.config.node(1).orders_address
        keys = keyed.keys_of(CUSTOMER)
        socket = _WatchedSocket(keyed.context, address, 1 << 20, keys, lambda _, found: answers.extend(found))
        socket.send(PING)
        return socket

    node = loop.run_until_complete(connect())
    try:
        return comes_back(keyed, lambda: loop.run_until_complete(asyncio.sleep(0.001)), lambda: answers)
    finally:
        node.close()
        loop.close()


def comes_back(keyed: Keyed, step: Callable[[], object], arrived: Callable[[], object]) -> bool:
    assert keyed.node._zap is not None
    handler = keyed.node._zap
    keyed.credentials.active = False
    turn_until(keyed.node, lambda: (step(), handler.refused)[1] > 0)
    keyed.credentials.active = True
    until = time.monotonic() + 2.0
    turn_until(keyed.node, lambda: (step(), arrived())[1] or time.monotonic() > until)
    return bool(arrived())


@pytest.mark.parametrize("client", [follows, follows_everything, pings, orders, orders_of_asyncio])
@pytest.mark.parametrize("tries_again", [True, False])
def test_clients_come_back_after_their_key_was_refused(
    keyed: Keyed, monkeypatch: pytest.MonkeyPatch, client: Callable[[Keyed], bool], tries_again: bool
) -> None:
    monkeypatch.setattr(subscription_state, "_UNSENT_UNTIL_RETRY", 5)
    for module in (session_pinger, node_sockets, async_client):
        monkeypatch.setattr(module, "RETRY_SECONDS", 0.1)
    if not tries_again:
        monkeypatch.setattr(ClientKeys, "connect_again", lambda *_: None)
    assert client(keyed) is tries_again
