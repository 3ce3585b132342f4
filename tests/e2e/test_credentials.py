"""A cluster with keys: two customers, what one tries with what is the other's, and a key that is revoked."""

import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from smrx import cli, client_keys
from smrx.cli.exit_codes import Exit
from smrx.client import Client
from smrx.client.admin_client import open_admin_client
from smrx.client.client_errors import ClientError, ProtocolError, Refused, Unavailable
from smrx.key_files import KeyPair, generate, write
from smrx.local import LocalCluster
from smrx.wire import admin, frames
from smrx.wire.codes import Reason, SessionFlags
from smrx.wire.frames import ErrorCode, FrameKind
from tests import commands

ANN, BOB = 7, 8
#: The numbers of their credentials.
ANNS, BOBS = 17, 18


class Market:
    """A cluster with two customers, and their key files."""

    def __init__(self, directory: Path) -> None:
        self.cluster = LocalCluster(directory, keys=True)
        self.directory = directory
        self.pairs: dict[int, KeyPair] = {}

    @property
    def venue(self) -> Client:
        return Client(self.cluster.config)

    def key(self, account: int) -> Path:
        return self.directory / f"{account}.key"

    def client(self, account: int, **options: object) -> Client:
        return Client(self.cluster.config, account=account, key=self.key(account), timeout=30, **options)  # type: ignore[arg-type]

    def begin(self) -> None:
        self.cluster.start()
        self.cluster.wait_leader()
        with self.venue as venue:
            venue.add_asset("BTC", 8)
            venue.add_asset("USD", 2)
            venue.add_instrument("BTC-USD", "BTC", "USD", lot="1")
            for account, number in ((ANN, ANNS), (BOB, BOBS)):
                self.pairs[account] = generate()
                write(self.key(account), self.pairs[account], f"account {account}")
                venue.open_account(account)
                venue.deposit(account, "USD", "1000", number)
                venue.add_credential(number, self.pairs[account].public, ["read", "trade", "withdraw"], account=account)

    def leader(self) -> int:
        return self.cluster.wait_leader()


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    market = Market(tmp_path_factory.mktemp("credentials"))
    try:
        market.begin()
        yield market
    finally:
        market.cluster.stop()


class Orders:
    """A raw connection of a customer to the leader's orders socket."""

    def __init__(self, market: Market, account: int) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        keys = client_keys.of_client(market.cluster.config, market.key(account))
        assert keys is not None
        address = market.cluster.config.node(market.leader()).orders_address
        keys.secure(self._socket, address)
        self._socket.connect(address)

    def answer(self, data: bytes) -> frames.Frame:
        self._socket.send(data)
        assert self._socket.poll(20_000), "no answer"
        return frames.decode(self._socket.recv())

    def close(self) -> None:
        self._context.destroy(linger=0)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met before the deadline"
        time.sleep(0.01)


def is_forbidden(frame: frames.Frame) -> bool:
    return frame.kind is FrameKind.ERROR and frames.error_body(frame).code == ErrorCode.FORBIDDEN


def test_customer_trades_under_its_own_key_and_reads_its_own_account(market: Market) -> None:
    with market.client(ANN) as ann:
        order = ann.place_limit("BTC-USD", "buy", "100.00", "1")
        session = ann.last_request
        assert session is not None
        assert session[0] >> 32 == ANNS
        assert [row.order_id for row in ann.orders()] == [order.order_id]
        assert [str(balance.held) for balance in ann.balances() if balance.asset == "USD"] == ["100.00"]
        assert ann.depth("BTC-USD").bids
        ann.cancel(order_id=order.order_id)


def test_files_of_a_node_are_for_its_user_only(market: Market) -> None:
    """They have the orders and balances of all accounts."""
    for node in market.cluster.config.nodes:
        directory = market.cluster.config.node_dir(node.id)
        found = {str(path): stat.S_IMODE(path.stat().st_mode) for path in (directory, *directory.rglob("*"))}
        assert len(found) > 2
        assert {path: mode for path, mode in found.items() if mode & 0o077} == {}


def test_request_on_the_session_of_another_is_refused(market: Market) -> None:
    with market.client(ANN) as ann:
        first = ann.place_limit("BTC-USD", "buy", "100.00", "1")
        victim = ann.last_request
        assert victim is not None
        bob = Orders(market, BOB)
        session, last = victim
        theft = commands.cancel((session, last + 1), ANN, first.order_id)
        assert is_forbidden(bob.answer(frames.encode_commands(theft)))
        # Nor can it take the victim's account with a session of its own.
        own = BOBS << 32 | 5
        frame = bob.answer(frames.encode_commands(commands.open_session(own, ANN)))
        assert frames.records(frame)["reason"].tolist() == [Reason.NOT_AUTHORISED]
        bob.close()
        # The victim's next request is its own.
        answer = ann.place_limit("BTC-USD", "buy", "101.00", "2")
        assert answer.order_id != first.order_id
        assert ann.mass_cancel().cancelled == 2


def test_ping_of_another_does_not_keep_a_session_alive(market: Market) -> None:
    session = ANNS << 32 | 77
    ann, bob = Orders(market, ANN), Orders(market, BOB)
    flags = SessionFlags.CANCEL_ON_DISCONNECT
    opened = frames.records(ann.answer(frames.encode_commands(commands.open_session(session, ANN, flags))))
    assert opened["reason"].tolist() == [0]
    assert is_forbidden(bob.answer(frames.encode(FrameKind.PING, aux=session)))
    assert not is_forbidden(ann.answer(frames.encode(FrameKind.PING, aux=session)))
    ann.close()
    bob.close()


def test_account_of_another_cannot_be_read(market: Market) -> None:
    with market.client(BOB) as bob:
        for read in (bob.orders, bob.balances, bob.positions):
            with pytest.raises(ProtocolError, match=f"account {ANN} needs the permission READ"):
                read(account=ANN)
        with pytest.raises(ProtocolError, match="all accounts needs the permission READ"):
            bob.balances(all_accounts=True)
        with pytest.raises(ProtocolError, match="Credentials needs the permission ADMINISTER"):
            bob.credentials()


def test_customer_cannot_stop_or_change_a_node(market: Market) -> None:
    with open_admin_client(market.cluster.config, 5.0, market.key(BOB)) as ask:
        for request in (admin.Shutdown(), admin.RemoveMember(node_id=1), admin.TransferLeadership(), admin.Snapshot()):
            reply = ask(1, request)
            assert isinstance(reply, admin.AdminError)
            assert "needs the permission ADMINISTER" in reply.message
        assert isinstance(ask(1, admin.Status()), admin.NodeStatus)


def test_customer_cannot_act_as_the_venue(market: Market) -> None:
    with market.client(BOB) as bob:
        with pytest.raises(Refused) as caught:
            bob.deposit(BOB, "USD", "1000000", 99)
        assert caught.value.reason is Reason.NOT_AUTHORISED
    with Client(market.cluster.config, account=0, key=market.key(BOB), timeout=30) as venue:
        with pytest.raises(Refused) as caught:
            venue.open_account(9)
        assert caught.value.reason is Reason.NOT_AUTHORISED


def test_unknown_key_is_refused_with_a_sentence(market: Market, tmp_path: Path) -> None:
    unknown = tmp_path / "unknown.key"
    write(unknown, generate(), "no account")
    with (
        Client(market.cluster.config, account=ANN, key=unknown, timeout=2) as client,
        pytest.raises(Unavailable, match="refuses the key of this client"),
    ):
        client.connect()


def test_revoked_key_stops_working_at_once(market: Market) -> None:
    """Also on connections and sessions that are open."""
    pair, number, path = generate(), 30, market.directory / "third.key"
    write(path, pair, "a key to revoke")
    with market.venue as venue:
        venue.add_credential(number, pair.public, ["read", "trade"], account=ANN)
        client = Client(market.cluster.config, account=ANN, key=path, timeout=30)
        order = client.place_limit("BTC-USD", "buy", "100.00", "1")
        assert len(client.orders()) == 1
        venue.revoke_credential(number)
        for call in (lambda: client.place_limit("BTC-USD", "buy", "99.00", "1"), client.orders):
            with pytest.raises(ClientError, match="revoked"):
                call()
        client.close(graceful=False)
        with (
            Client(market.cluster.config, account=ANN, key=path, timeout=2) as again,
            pytest.raises(Unavailable, match="refuses the key of this client"),
        ):
            again.connect()
        assert [row.order_id for row in venue.orders(account=ANN)] == [order.order_id]
        assert venue.mass_cancel(account=ANN).cancelled == 1
        (state,) = [found for found in venue.credentials() if found.number == number]
        assert (state.revoked, state.permissions, state.key) == (True, ("READ", "TRADE"), pair.public)


def test_restricted_key_may_do_less_from_the_next_command_on(market: Market) -> None:
    pair, number, path = generate(), 31, market.directory / "fourth.key"
    write(path, pair, "a key to restrict")
    with market.venue as venue, Client(market.cluster.config, account=ANN, key=path, timeout=30) as client:
        venue.add_credential(number, pair.public, ["read", "trade"], account=ANN)
        order = client.place_limit("BTC-USD", "buy", "100.00", "1")
        venue.set_credential(number, ["read"])
        with pytest.raises(Refused) as caught:
            client.cancel(order_id=order.order_id)
        assert caught.value.reason is Reason.NOT_AUTHORISED
        assert len(client.orders()) == 1
        venue.set_credential(number, ["read", "trade"], networks=["192.0.2.0/24"])
        with pytest.raises(ProtocolError, match="may not connect from this address"):
            client.orders()
        assert venue.mass_cancel(account=ANN).cancelled == 1


def test_stream_of_a_firm_has_its_accounts_and_no_event_of_another_client(market: Market) -> None:
    """Also an account that is opened later. Commands of others that name its accounts are not in it."""
    pair, path, first, later = generate(), market.directory / "firm.key", 51, 52
    write(path, pair, "a firm")
    other = Orders(market, BOB)
    session = BOBS << 32 | 99
    other.answer(frames.encode_commands(commands.open_session(session, BOB)))
    with market.venue as venue:
        venue.open_account(first, firm=5)
        venue.add_credential(50, pair.public, ["read"], firm=5)
        for account in (first, later):
            if account == later:
                venue.open_account(account, firm=5)
            theft = commands.place(
                (session, account - first + 1), account, 1, 1, 10, client_order_id="an order of the firm"
            )
            answer = frames.records(other.answer(frames.encode_commands(theft)))
            assert answer["reason"].tolist() == [Reason.NOT_AUTHORISED]
            venue.deposit(account, "USD", "1", 100 + account)
    other.close()
    with Client(market.cluster.config, account=first, key=path, timeout=30) as client:
        updates = list(client.updates(from_sequence=1, accounts="all", idle=2.0))
        found = [(update.account, update.kind) for update in updates]
        assert found == [(account, kind) for account in (first, later) for kind in ("ACCOUNT_OPENED", "DEPOSITED")]
    with market.client(ANN) as ann:
        assert {update.account for update in ann.updates(from_sequence=1, accounts="all", idle=2.0)} == {ANN}


def test_key_commands(market: Market, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = ["--config", str(market.cluster.config_path)]
    path = tmp_path / "desk.key"
    assert cli.run([*config, "key", "create", str(path)]) == Exit.OK
    public = capsys.readouterr().out.split()[-1]
    added = ["key", "add", "40", "--public", public, "--account", str(BOB), "--allow", "read,trade"]
    added += ["--from", "127.0.0.0/8"]
    assert cli.run([*config, *added]) == Exit.OK
    assert cli.run([*config, "--key", str(path), "order", "list", "--account", str(BOB)]) == Exit.OK
    assert cli.run([*config, "order", "list", "--account", str(ANN), "--key", str(path)]) != Exit.OK
    assert cli.run([*config, "key", "restrict", "40", "--allow", "read"]) == Exit.OK
    capsys.readouterr()
    assert cli.run([*config, "key", "list"]) == Exit.OK
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("40 ")]
    assert f"account {BOB}" in line
    assert "active" in line
    assert cli.run([*config, "key", "revoke", "40"]) == Exit.OK
    assert cli.run([*config, "--key", str(path), "order", "list", "--account", str(BOB)]) != Exit.OK
