"""Admin requests that change the cluster are accepted only from local and configured addresses."""

import socket
from pathlib import Path

import msgspec
import pytest
import zmq

from smrx.node import admin_access
from smrx.wire import admin
from smrx.wire.admin import AdminError, AdminErrorCode
from tests.node.test_node_storage import Alone, alone, configuration, turn_until


def ask(exchange: Alone, request: admin.AnyRequest) -> admin.AnyReply:
    """Return the reply of the node, over a real socket."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as asking:
        asking.linger = 0
        asking.connect(exchange.config.node(1).admin_address)
        asking.send(admin.encode_request(request, 1))
        turn_until(exchange.node, lambda: asking.poll(0))
        return admin.decode_reply(asking.recv())[1]


CHANGES = [
    admin.Snapshot(),
    admin.TransferLeadership(),
    admin.RemoveMember(node_id=1),
    admin.Corrupt(account=0, asset=1, delta=1),
]


@pytest.mark.parametrize(
    ("peer", "allowed"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.5", True),
        ("::ffff:10.0.0.5", True),
        ("192.0.2.7", False),
        ("2001:db8::7", False),
        ("0.0.0.0.0", False),
        ("", False),
    ],
)
def test_only_local_and_configured_addresses_may_change_the_cluster(peer: str, allowed: bool) -> None:
    assert admin_access.may_change_cluster(peer, ["10.0.0.5"]) == allowed


def test_every_local_address_may_change_the_cluster() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no other address than loopback")
        assert admin_access.may_change_cluster(probe.getsockname()[0], [])


def test_request_from_another_address_is_refused_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peers: list[tuple[str, tuple[str, ...]]] = []

    def refuse(peer: str, named: tuple[str, ...]) -> bool:
        peers.append((peer, named))
        return False

    config = msgspec.structs.replace(configuration(tmp_path), admin_from=("192.0.2.7",))
    with alone(config) as exchange:
        before = exchange.node.replica.last_index
        monkeypatch.setattr(admin_access, "may_change_cluster", refuse)
        for request in (*CHANGES, admin.AddMember(node=config.nodes[0]), admin.Shutdown()):
            reply = ask(exchange, request)
            assert isinstance(reply, AdminError)
            assert reply.code == AdminErrorCode.REFUSED
            assert "127.0.0.1 may not change the cluster" in reply.message
        assert peers == [("127.0.0.1", ("192.0.2.7",))] * 6
        assert exchange.node.replica.last_index == before
        # Requests that only read are answered to every address.
        assert isinstance(ask(exchange, admin.Status()), admin.NodeStatus)
        assert isinstance(ask(exchange, admin.Accounts()), admin.AccountsReply)


def test_request_from_a_local_address_is_accepted(tmp_path: Path) -> None:
    with alone(configuration(tmp_path)) as exchange:
        assert isinstance(ask(exchange, admin.Snapshot()), admin.SnapshotReply)


def test_every_request_is_listed_as_reading_or_changing() -> None:
    reads = {
        admin.Status, admin.HashAt, admin.LogDigest, admin.Depth, admin.Orders, admin.Balances, admin.Transfers,
        admin.Accounts, admin.Assets, admin.Instruments, admin.Positions, admin.TakeStateImage, admin.ReadStateImage,
    }  # fmt: skip
    assert set(admin.AnyRequest.__args__) == reads | set(admin_access.CHANGING_REQUESTS)
