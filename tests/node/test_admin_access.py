"""Who may send which request to the admin port."""

from pathlib import Path

import pytest
import zmq

from smrx.client.admin_client import with_token
from smrx.config import NodeConfig
from smrx.node import admin_access
from smrx.node.principal import EVERYTHING, Principal
from smrx.wire import admin
from smrx.wire.admin import AdminError, AdminErrorCode
from smrx.wire.codes import Permission, Scope
from tests.node.test_node_storage import Alone, alone, configuration, turn_until

CHANGES: tuple[admin.AnyRequest, ...] = (
    admin.Snapshot(),
    admin.TransferLeadership(),
    admin.AddMember(node=NodeConfig(id=9, port=7000)),
    admin.RemoveMember(node_id=1),
    admin.UpgradeRules(),
    admin.Shutdown(),
)
PUBLIC = {
    admin.Status, admin.HashAt, admin.LogDigest, admin.Depth, admin.Assets, admin.Instruments,
}  # fmt: skip
OF_AN_ACCOUNT = {admin.Orders, admin.Balances, admin.Transfers, admin.Positions, admin.Accounts}
CUSTOMER = Principal(7, Permission.READ | Permission.TRADE | Permission.ADMINISTER, Scope.ACCOUNT, 3)
OPERATOR = Principal(8, Permission.ADMINISTER, Scope.ALL, 0)
FOLLOWER = Principal(9, Permission.FOLLOW, Scope.ALL, 0)
READER = Principal(10, Permission.READ, Scope.ALL, 0)


def ask(exchange: Alone, request: admin.AnyRequest) -> admin.AnyReply:
    """Return the reply of the node, over a real socket."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as asking:
        asking.linger = 0
        asking.connect(exchange.config.node(1).admin_address)
        asking.send(admin.encode_request(request, 1))
        turn_until(exchange.node, lambda: asking.poll(0))
        return admin.decode_reply(asking.recv())[1]


def test_every_request_is_public_or_needs_something() -> None:
    needing = set(admin_access.NEEDS)
    assert set(admin.AnyRequest.__args__) == PUBLIC | OF_AN_ACCOUNT | needing
    assert {type(request) for request in CHANGES} == {
        kind for kind, needed in admin_access.NEEDS.items() if needed is Permission.ADMINISTER
    } - {admin.Credentials}
    assert all(isinstance(request, admin.ChangingRequest) for request in CHANGES)


@pytest.mark.parametrize("request_", CHANGES, ids=lambda request: type(request).__name__)
def test_changing_request_needs_administer_for_the_whole_exchange(request_: admin.AnyRequest) -> None:
    assert admin_access.refusal(request_, OPERATOR, None) is None
    for principal in (CUSTOMER, FOLLOWER, READER):
        said = admin_access.refusal(request_, principal, None)
        assert said == f"{type(request_).__name__} needs the permission ADMINISTER for all accounts"


def test_log_and_images_need_follow() -> None:
    request = admin.ReadLog(after=0, first_hash=0)
    assert admin_access.refusal(request, FOLLOWER, None) is None
    assert admin_access.refusal(request, OPERATOR, None) == "ReadLog needs the permission FOLLOW for all accounts"


def test_account_is_read_with_read_for_it_only() -> None:
    assert admin_access.refusal(admin.Orders(account=3), CUSTOMER, None) is None
    assert admin_access.refusal(admin.Orders(account=4), CUSTOMER, None) == (
        "Orders of account 4 needs the permission READ for it"
    )
    assert admin_access.refusal(admin.Balances(), CUSTOMER, None) == (
        "Balances of all accounts needs the permission READ for them"
    )
    assert admin_access.refusal(admin.Balances(), READER, None) is None
    assert admin_access.refusal(admin.Orders(account=3), FOLLOWER, None) is not None
    # Public data is for every client that may connect.
    assert admin_access.refusal(admin.Depth(instrument=1), FOLLOWER, None) is None


def test_credential_that_may_not_connect_any_more_gets_nothing() -> None:
    assert "revoked" in str(admin_access.refusal(admin.Status(), None, None))


@pytest.mark.parametrize("request_", CHANGES, ids=lambda request: type(request).__name__)
def test_changing_request_to_a_node_without_keys_needs_its_token(request_: admin.ChangingRequest) -> None:
    said = admin_access.refusal(request_, EVERYTHING, "the token")
    assert f"{type(request_).__name__} needs the token in admin.token" in str(said)
    for token in ("", "another", "the token ", "thé token", "the token\n"):
        changed = type(request_)(**{**_fields(request_), "token": token})
        assert admin_access.refusal(changed, EVERYTHING, "the token") is not None
    changed = type(request_)(**{**_fields(request_), "token": "the token"})
    assert admin_access.refusal(changed, EVERYTHING, "the token") is None


def _fields(request: admin.ChangingRequest) -> dict[str, object]:
    return {name: getattr(request, name) for name in request.__struct_fields__}


def test_token_is_new_at_each_start_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "admin.token"
    path.write_text("old")
    path.chmod(0o666)
    first = admin_access.write_token(path)
    assert (path.read_text().strip(), path.stat().st_mode & 0o777) == (first, 0o600)
    assert admin_access.write_token(path) != first


def test_unknown_client_cannot_change_or_stop_a_node_without_keys(tmp_path: Path) -> None:
    """Also not from the node's own machine: the address decides nothing."""
    with alone(configuration(tmp_path)) as exchange:
        before = exchange.node.replica.last_index
        for request in CHANGES:
            reply = ask(exchange, request)
            assert isinstance(reply, AdminError)
            assert reply.code == AdminErrorCode.REFUSED
            assert "needs the token" in reply.message
        assert exchange.node.replica.last_index == before
        # Requests that only read are answered.
        assert isinstance(ask(exchange, admin.Status()), admin.NodeStatus)
        assert isinstance(ask(exchange, admin.Accounts()), admin.AccountsReply)
        # Who can read the file may do it.
        request = with_token(exchange.config, 1, admin.Snapshot())
        assert isinstance(ask(exchange, request), admin.SnapshotReply)
