"""The events port of a node with keys, over real sockets: what each key may subscribe to, and until when."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from smrx.feed.subscription import Subscription
from smrx.key_files import KeyPair
from smrx.wire import frames
from smrx.wire.frames import ErrorCode, Frame, FrameKind
from tests.node.test_admission import CUSTOMER, Keyed
from tests.node.test_node_storage import turn_until


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[Keyed]:
    keyed = Keyed(tmp_path)
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


def test_key_of_an_account_follows_its_account_until_it_is_revoked(keyed: Keyed) -> None:
    for accounts, missing in ((None, "FOLLOW"), ({4}, "account 4"), ({3, 4}, "account 4")):
        _, frame = subscribe(keyed, CUSTOMER, accounts)
        body = frames.error_body(frame)
        assert (body.code, missing in body.message) == (ErrorCode.FORBIDDEN, True)
    assert keyed.node.publisher.subscribers == 0
    socket, frame = subscribe(keyed, CUSTOMER, {3})
    assert frame.kind is FrameKind.HEARTBEAT
    keyed.credentials.active = False

    def is_ended() -> bool:
        while socket.poll(0):
            frame = frames.decode(socket.recv())
            if frame.kind is FrameKind.ERROR:
                assert frames.error_body(frame).code == ErrorCode.FORBIDDEN
                return True
        return False

    turn_until(keyed.node, is_ended)
    assert keyed.node.publisher.subscribers == 0
