"""Reads of a node: pages of one moment, nothing older than asked for, nothing from a fenced node."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from smrx.engine.inspect import DTYPES
from smrx.node import read_service
from smrx.wire import admin
from smrx.wire.admin import AdminError, AdminErrorCode
from smrx.wire.codes import Side
from tests import commands
from tests.node.test_node_storage import Alone, alone, configuration, turn_until

ORDERS = 300


class Reader:
    """A connection to the admin port of a node in this process."""

    def __init__(self, exchange: Alone, context: "zmq.Context[zmq.Socket[bytes]]") -> None:
        self.exchange = exchange
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(exchange.config.node(1).admin_address)

    def ask(self, request: admin.AnyRequest) -> Any:
        self.socket.send(admin.encode_request(request, 1))
        turn_until(self.exchange.node, lambda: self.socket.poll(0))
        return admin.decode_reply(self.socket.recv())[1]

    def ask_until_available(self, request: admin.AnyRequest) -> Any:
        while True:
            reply = self.ask(request)
            if not isinstance(reply, AdminError) or reply.code != AdminErrorCode.UNAVAILABLE:
                return reply

    def listing(self, request: admin.AnyPage) -> tuple[list[Any], set[int]]:
        """Return all rows and the sequences of the pages, as the SDK reads them."""
        first = reply = self.ask_until_available(request)
        rows = list(admin.rows_of(reply))
        sequences = {reply.sequence}
        while reply.more:
            assert reply.view
            reply = self.ask(msgspec.structs.replace(request, view=first.view, offset=len(rows), level="any"))
            assert not isinstance(reply, AdminError), reply
            rows += admin.rows_of(reply)
            sequences.add(reply.sequence)
        return rows, sequences


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    with alone(configuration(tmp_path_factory.mktemp("reads"))) as made:
        turn_until(made.node, lambda: made.node.replica.is_leader and made.node.replica.commit_index > 1)
        made.node.state.engine.apply(
            *_arguments(
                [
                    commands.open_session(1, 0),
                    commands.add_asset((1, 1), 1, "BTC"),
                    commands.add_asset((1, 2), 2, "USD"),
                    commands.add_instrument((1, 3), 1, "BTC-USD", base_asset=1, quote_asset=2),
                    commands.open_account((1, 4), 7),
                    commands.open_account((1, 5), 8),
                    commands.deposit((1, 6), 7, 2, 1 << 40, 1),
                    commands.deposit((1, 7), 8, 1, 100, 2),
                    *(commands.place((1, 8 + n), 7, Side.BUY, 1, 1 + n) for n in range(ORDERS)),
                ]
            )
        )
        yield made


def _arguments(made: list[Any]) -> tuple[Any, int, Any]:
    joined = commands.join(made)
    # The time of now: the node ends what is old.
    return joined.records, time.time_ns(), joined.details


@pytest.fixture
def reader(exchange: Alone) -> Iterator[Reader]:
    with zmq.Context() as context:
        made = Reader(exchange, context)
        yield made
        made.socket.close()


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_service, "PAGE_BYTES", 50 * DTYPES["orders"].itemsize)


def test_listing_of_one_page_comes_from_the_loop(reader: Reader) -> None:
    reply = reader.ask(admin.Orders(account=7, packed=True))
    assert (reply.more, reply.view, reply.role, reply.age_ms) == (False, "", "leader", 0)
    rows = admin.rows_of(reply)
    assert [row.price_ticks for row in rows] == list(range(1, ORDERS + 1))


@pytest.mark.parametrize("packed", [True, False])
def test_reader_that_wants_few_rows_gets_them_from_the_loop(
    reader: Reader, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    monkeypatch.setattr(reader.exchange.node.admin._read_service, "_opened", None)
    reply = reader.ask(admin.Orders(account=7, limit=3, packed=packed))
    assert [row.price_ticks for row in admin.rows_of(reply)] == [1, 2, 3]
    assert (reply.more, reply.view) == (True, "")


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("account", [None, 7])
def test_pages_of_a_long_listing_are_of_one_moment(reader: Reader, account: int | None) -> None:
    rows, sequences = reader.listing(admin.Orders(account=account, packed=True))
    assert [row.price_ticks for row in rows] == list(range(1, ORDERS + 1))
    assert len(sequences) == 1


@pytest.mark.usefixtures("small_pages")
def test_view_is_read_by_its_connection_only(exchange: Alone, reader: Reader) -> None:
    reply = reader.ask_until_available(admin.Orders(packed=True))
    with zmq.Context() as context:
        other = Reader(exchange, context)
        refused = other.ask(admin.Orders(packed=True, view=reply.view, level="any"))
        other.socket.close()
    assert refused.code == AdminErrorCode.UNAVAILABLE


def test_program_without_views_gets_the_whole_listing_by_offset(reader: Reader) -> None:
    rows: list[Any] = []
    more = True
    while more:
        reply = reader.ask_until_available(admin.Orders(account=7, offset=len(rows), level="any"))
        rows += reply.rows
        more = reply.more
    assert [row.price_ticks for row in rows] == list(range(1, ORDERS + 1))


def test_orders_are_found_by_their_ids(reader: Reader) -> None:
    known = admin.rows_of(reader.ask(admin.Orders(account=7, packed=True)))[5]
    assert admin.rows_of(reader.ask(admin.Orders(order_id=known.order_id, packed=True))) == (known,)
    assert admin.rows_of(reader.ask(admin.Orders(account=8, order_id=known.order_id, packed=True))) == ()
    assert admin.rows_of(reader.ask(admin.Orders(account=7, order_id=1 << 60, packed=True))) == ()


@pytest.mark.parametrize("packed", [True, False])
def test_other_tables(reader: Reader, packed: bool) -> None:
    def rows(request: admin.AnyPage) -> list[Any]:
        return list(admin.rows_of(reader.ask(msgspec.structs.replace(request, packed=packed))))

    assert [row.asset for row in rows(admin.Balances(account=7))] == [2]
    assert [(row.account, row.buy_orders, row.buy_lots) for row in rows(admin.Positions(account=7))] == [
        (7, ORDERS, str(ORDERS))
    ]
    assert [row.transfer_id for row in rows(admin.Transfers(account=8))] == [2]
    assert [row.account for row in rows(admin.Accounts())] == [0, 7, 8]
    assert [row.account for row in rows(admin.Accounts(account=8))] == [8]
    assert [row.symbol for row in rows(admin.Assets())] == ["BTC", "USD"]
    assert [row.symbol for row in rows(admin.Instruments())] == ["BTC-USD"]


def test_read_that_asks_for_more_than_the_node_has_is_refused(reader: Reader) -> None:
    sequence = reader.ask(admin.Depth(instrument="BTC-USD")).sequence
    refused = reader.ask(admin.Depth(instrument="BTC-USD", level="any", min_sequence=sequence + 1))
    assert refused.code == AdminErrorCode.UNAVAILABLE
    assert f"is at command {sequence}, and the read asks for {sequence + 1} or later" in refused.message
    assert reader.ask(admin.Depth(instrument=1, min_sequence=sequence, levels=2)).bids[0].price_ticks == ORDERS
    unknown = reader.ask(admin.Depth(instrument="NONE"))
    assert unknown.code == AdminErrorCode.UNKNOWN_INSTRUMENT


def test_fenced_node_answers_no_read(tmp_path: Path) -> None:
    with alone(configuration(tmp_path)) as made, zmq.Context() as context:
        turn_until(made.node, lambda: made.node.replica.is_leader)
        made.node.replica.agreement.fence("a test")
        asking = Reader(made, context)
        for request in (
            admin.Depth(instrument=1, level="any"), admin.Orders(level="any"), admin.Balances(level="leader"),
            admin.Accounts(), admin.Positions(account=1), admin.Transfers(account=1), admin.Assets(),
            admin.Instruments(),
        ):  # fmt: skip
            assert asking.ask(request).code == AdminErrorCode.FENCED
        assert asking.ask(admin.Status()).fenced == "a test"
        asking.socket.close()


def test_many_requests_of_one_connection_wait_or_are_refused(exchange: Alone, reader: Reader) -> None:
    """Another connection is answered meanwhile."""
    for number in range(200):
        reader.socket.send(admin.encode_request(admin.Depth(instrument=1, level="any"), number))
    with zmq.Context() as context:
        other = Reader(exchange, context)
        assert other.ask(admin.Depth(instrument=1)).role == "leader"
        other.socket.close()
    codes = []
    for _ in range(200):
        turn_until(exchange.node, lambda: reader.socket.poll(0))
        codes.append(type(admin.decode_reply(reader.socket.recv())[1]).__name__)
    assert set(codes) <= {"DepthReply", "AdminError"}
    assert "DepthReply" in codes
