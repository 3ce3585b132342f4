"""Operations take names and decimals and return typed results, in both clients."""

import inspect
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from smrx.client import AsyncClient, Client, InvalidValue, ProtocolError, Refused, Stale, Unavailable
from smrx.client.operations import Operations
from smrx.client.results import Level, OrderResult
from smrx.wire import admin
from smrx.wire.codes import CommandKind, OutcomeStatus, Reason, Side
from smrx.wire.records import COMMAND
from tests.client.conftest import Call, shorten_timeout
from tests.client.stub_cluster import StubCluster
from tests.client.test_blocking_client import orders


def test_both_clients_have_the_same_methods_and_arguments() -> None:
    def signatures(kind: type) -> dict[str, inspect.Signature]:
        return {
            name: inspect.signature(member)
            for name, member in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }

    blocking, asynchronous = signatures(Client), signatures(AsyncClient)
    only_blocking = {"submit_nowait", "poll"}
    assert set(blocking) - set(asynchronous) == only_blocking
    # An iterator in one client is an asynchronous iterator in the other.
    assert blocking["updates"].parameters == asynchronous.pop("updates").parameters
    assert {name: blocking[name] for name in asynchronous} == asynchronous
    assert inspect.signature(Client.__init__) == inspect.signature(AsyncClient.__init__)


def test_methods_have_the_docstring_and_the_return_type_of_the_operation() -> None:
    for kind in (Client, AsyncClient):
        for name, operation in inspect.getmembers(Operations, inspect.isfunction):
            # updates_of() is a part of updates(), which is no single operation.
            if name.startswith("_") or name == "updates_of":
                continue
            method = getattr(kind, name)
            assert method.__doc__ == operation.__doc__
            assert method.__doc__
            signature = inspect.signature(method)
            assert signature.parameters == inspect.signature(operation).parameters
            assert "Generator" not in str(signature), f"{name} returns its steps"
    assert inspect.signature(Client.place).return_annotation is OrderResult
    assert inspect.iscoroutinefunction(AsyncClient.place)


def test_added_market_is_found_by_name(market: Call) -> None:
    assert [(asset.id, asset.symbol, asset.decimals) for asset in market(1, "assets")] == [(1, "BTC", 8), (2, "USD", 6)]
    [instrument] = market(1, "instruments")
    assert (instrument.symbol, instrument.base.symbol, instrument.quote.symbol) == ("BTC-USD", "BTC", "USD")
    assert (instrument.lot_units, instrument.scale_units) == (10_000, 1)
    assert (instrument.max_price_ticks, instrument.max_quantity_lots) == (10_000_000, 10_000_000)


def test_symbol_is_added_once(market: Call) -> None:
    with pytest.raises(InvalidValue, match="asset BTC exists already"):
        market(0, "add_asset", "BTC", 2)
    with pytest.raises(InvalidValue, match="instrument BTC-USD exists already"):
        market(0, "add_instrument", "BTC-USD", "BTC", "USD")
    with pytest.raises(InvalidValue, match="1 to 16 characters"):
        market(0, "add_asset", "bitcoin", 2)
    with pytest.raises(InvalidValue, match="decimals: expected 0 to 18, found 19"):
        market(0, "add_asset", "X", 19)


def test_transfer_is_applied_once_per_transfer_id(market: Call) -> None:
    first = market(0, "deposit", 1, "USD", "1000.5", 7)
    assert (first.available, first.available_units, first.already_done) == ("1000.500000", 1_000_500_000, False)
    again = market(0, "deposit", 1, "USD", "1000.5", 7)
    assert (again.available, again.already_done) == (None, True)
    assert market(1, "withdraw", 1, "USD", 1, 8).available == "999.500000"
    with pytest.raises(Refused, match="INSUFFICIENT_FUNDS") as caught:
        market(1, "withdraw", 1, "USD", 1000, 9)
    assert caught.value.reason is Reason.INSUFFICIENT_FUNDS
    assert caught.value.outcome is not None
    [balance] = market(1, "balances")
    assert (balance.asset, balance.available, balance.held) == ("USD", "999.500000", "0.000000")
    assert market(2, "balances") == []
    assert len(market(2, "balances", all_accounts=True)) == 1


def test_orders_are_placed_changed_and_cancelled_in_decimals(market: Call, stub: StubCluster) -> None:
    placed = market(1, "place_limit", "BTC-USD", "buy", "50000.00", "0.5", client_order_id=9, post_only=True)
    assert (placed.state, placed.filled, placed.remaining, placed.leaves_lots) == ("New", "0.0000", "0.5000", 5000)
    [order] = market(1, "orders", "BTC-USD")
    assert (order.side, order.price, order.quantity, order.price_ticks) == ("BUY", "50000.00", "0.5000", 5_000_000)
    assert stub.exchange.orders[placed.order_id].flags == 1
    book = market(2, "depth", "BTC-USD")
    assert book.asks == ()
    assert book.bids == (
        Level(price="50000.00", quantity="0.5000", orders=1, price_ticks=5_000_000, quantity_lots=5000),
    )
    assert market(1, "reduce", "0.2", client_order_id=9).remaining == "0.2000"
    assert market(1, "replace", "BTC-USD", "50000", Decimal("0.1"), order_id=placed.order_id).leaves_lots == 1000
    cancelled = market(1, "cancel", placed.order_id)
    assert (cancelled.state, cancelled.order_id) == ("Cancelled", placed.order_id)
    with pytest.raises(Refused, match="UNKNOWN_ORDER"):
        market(1, "cancel", client_order_id=9)
    with pytest.raises(Refused, match="UNKNOWN_ORDER"):
        market(1, "reduce", "0.1", order_id=placed.order_id)
    market(1, "place_market", "BTC-USD", Side.SELL, "1")
    assert market(1, "mass_cancel", "BTC-USD", "SELL").cancelled == 1


def test_positions_have_decimals_and_integers_of_any_size(market: Call, stub: StubCluster) -> None:
    market(0, "deposit", 1, "BTC", "2.5", 7)
    market(1, "place_limit", "BTC-USD", "buy", "50000.00", "0.5")
    market(1, "place_limit", "BTC-USD", "sell", "60000.00", "0.25")
    [row] = market(1, "positions")
    assert (row.account, row.symbol, row.base, row.quote) == (1, "BTC-USD", "BTC", "USD")
    assert (row.base_total, row.base_available_units, row.quote_total) == ("2.50000000", 250_000_000, "0.000000")
    assert (row.buy_orders, row.buy_quantity, row.buy_lots) == (1, "0.5000", 5_000)
    assert (row.buy_notional, row.buy_notional_units) == ("25000.000000", 25_000_000_000)
    assert (row.sell_orders, row.sell_quantity, row.sell_notional) == (1, "0.2500", "15000.000000")
    assert market(2, "positions", 1) == [row]
    [listed] = stub.exchange.instruments.values()
    stub.exchange.instruments[listed.instrument] = msgspec.structs.replace(listed, scale_units=1 << 31)
    assert market(1, "positions")[0].buy_notional_units == 5_000_000 * 5_000 << 31 > 1 << 64


@pytest.mark.parametrize(
    ("operation", "arguments", "named", "message"),
    [
        (
            "place_limit",
            ("BTC-USD", "buy", "1.005", "1"),
            {},
            "price: expected a multiple of the tick 0.01, found 1.005",
        ),
        ("place_limit", ("BTC-USD", "buy", "1", "0.00001"), {}, "quantity: expected a multiple of the lot 0.0001"),
        ("place_limit", ("BTC-USD", "buy", 0.5, "1"), {}, "expected a decimal such as .*, found the float 0.5"),
        ("place_limit", ("BTC-USD", "buy", "-1", "1"), {}, "expected a decimal above 0, found -1"),
        ("place_limit", ("BTC-USD", "buy", "1e5", "1"), {}, "found 1e5"),
        ("place_limit", ("ETH-USD", "buy", "1", "1"), {}, "instrument: expected one of BTC-USD, found ETH-USD"),
        ("place_limit", ("BTC-USD", "hold", "1", "1"), {}, "side: expected one of BUY, SELL, found 'hold'"),
        ("place_limit", ("BTC-USD", Side.ANY, "1", "1"), {}, "side: expected BUY or SELL"),
        ("place_limit", ("BTC-USD", "buy", "1", "1"), {"tif": "DAY"}, "tif: expected one of GTC, IOC, FOK"),
        ("place_limit", ("BTC-USD", "buy", "1", "1"), {"account": -1}, r"account: expected an integer from 0 to 2\^32"),
        ("place_limit", ("BTC-USD", "buy", "1", "1"), {"client_order_id": 1 << 64}, r"client_order_id: .* 2\^64 - 1"),
        ("cancel", (), {}, "either order_id or client_order_id"),
        ("cancel", (1,), {"client_order_id": 2}, "either order_id or client_order_id"),
        ("deposit", (1, "EUR", "1", 1), {}, "asset: expected one of BTC, USD, found EUR"),
        ("deposit", (1, "USD", "0.0000001", 1), {}, "USD amount: expected a multiple of the minimal unit 0.000001"),
        ("depth", ("BTC-USD", 0), {}, "levels: expected 1 to 1000, found 0"),
        ("status", (9,), {}, "expected the id of a node in the configuration, found 9"),
    ],
)
def test_invalid_value_is_reported_before_anything_is_sent(
    market: Call, stub: StubCluster, operation: str, arguments: tuple[object, ...], named: dict[str, Any], message: str
) -> None:
    before = stub.exchange.sequence
    with pytest.raises(InvalidValue, match=message):
        market(1, operation, *arguments, **named)
    assert stub.exchange.sequence == before


def test_status(call: Call, stub: StubCluster) -> None:
    assert call(0, "status", 2).role == "follower"
    assert call(0, "status").node_id == 1
    stub.elect(3)
    assert call(0, "open_account", 5).account == 5
    assert call(0, "accounts") == [0, 1, 2, 5]


def test_read_is_linearizable_and_asks_the_leader(market: Call, stub: StubCluster) -> None:
    stub.elect(2)
    stub.received.clear()
    stub.levels.clear()
    market(1, "depth", "BTC-USD")
    assert stub.received["Depth 2"] == 1
    assert {level for level, _, _ in stub.levels} == {"linearizable"}


def test_read_without_a_leader_fails_instead_of_showing_an_old_book(stub: StubCluster) -> None:
    with Client(stub.config, account=0) as client:
        client.add_asset("BTC", 8)
        shorten_timeout(client, 2.0)
        stub.faults.silent = {1}
        with pytest.raises(Unavailable, match="only the leader answers this read"):
            client.accounts()
        assert client.accounts(level="any") == [0, 1, 2]
        stub.elect(3)
        assert client.accounts() == [0, 1, 2]


def test_read_at_level_any_asks_the_other_nodes_first(market: Call, stub: StubCluster) -> None:
    stub.received.clear()
    stub.levels.clear()
    assert market(1, "depth", "BTC-USD", level="any").age_ms == 0
    assert stub.received["Depth 1"] == 0
    market(1, "depth", "BTC-USD", level=Stale(max_age_s=0.25, min_sequence=3))
    assert stub.levels[-1][0] == "any"
    assert stub.levels[-1][1] >= 3
    assert stub.levels[-1][2] == 250
    stub.faults.silent = {2, 3}
    market(1, "depth", "BTC-USD", level="any")
    assert stub.received["Depth 1"] == 1


@pytest.mark.parametrize("level", ["newest", "", Stale(max_age_s=-1), Stale(max_age_s=float("nan"))])
def test_unknown_level_is_invalid(market: Call, level: Any) -> None:
    with pytest.raises(InvalidValue, match="level: expected"):
        market(1, "depth", "BTC-USD", level=level)


def test_reads_never_go_backwards(stub: StubCluster) -> None:
    """Neither behind an outcome of this client, nor behind another read."""
    with Client(stub.config, account=0) as client:
        client.add_asset("BTC", 8)
        stub.faults.stale = {1, 2}
        stub.received.clear()
        client.accounts(level="any")
        assert stub.received["Accounts 3"] == 1
        stub.faults.stale = {1, 2, 3}
        shorten_timeout(client, 0.5)
        with pytest.raises(Unavailable, match="commands behind what this client has seen"):
            client.accounts(level="any")
    stub.faults.stale = {2}
    with Client(stub.config, account=0) as reader:
        shorten_timeout(reader, 2.0)
        stub.faults.silent = {2}
        reader.accounts(level="any")
        assert reader._core.router.last_sequence > 0
        assert stub.levels[-1][1] == 0
        stub.faults.silent = {1, 3}
        with pytest.raises(Unavailable, match="commands behind what this client has seen"):
            reader.accounts(level="any")
        assert stub.levels[-1][1] == reader._core.router.last_sequence


def test_node_of_an_earlier_version_cannot_confirm_a_read(stub: StubCluster) -> None:
    stub.faults.old = {1, 2, 3}
    with Client(stub.config, account=0, timeout=2.0) as client:
        with pytest.raises(Unavailable, match="runs an earlier version of smrx"):
            client.accounts()
        assert client.accounts(level="any") == [0, 1, 2]


def test_order_addresses_are_enough_if_nodes_report_admin_addresses(stub: StubCluster) -> None:
    with Client(stub.orders_addresses[1], account=0) as client:
        assert client.accounts() == [0, 1, 2]
    stub.admin_hints = False
    with (
        Client(stub.orders_addresses, account=0) as client,
        pytest.raises(Unavailable, match="no admin address is known"),
    ):
        client.accounts()


def test_add_asset_retries_if_another_client_took_the_id(stub: StubCluster) -> None:
    with Client(stub.config, account=0) as mine, Client(stub.config, account=0) as other:
        mine.assets()
        answer = mine._core.operations.add_asset("BTC", 8)
        step: Any = None
        # Both clients see no asset; the other one adds its asset first.
        while True:
            step = answer.send(step)
            if hasattr(step, "commands"):
                break
            step = mine._run_step(step)
        other.add_asset("USD", 2)
        outcome = mine._run_step(step)
        assert outcome["reason"][0] == Reason.ASSET_EXISTS

        def rest() -> Any:
            return (yield from _resumed(answer, outcome))

        assert mine._run(rest()).asset == 2


def _resumed(steps: Any, value: Any) -> Any:
    """Resume a generator that waits for a value."""
    try:
        while True:
            value = yield steps.send(value)
    except StopIteration as end:
        return end.value


def test_duplicate_without_a_stored_outcome_is_reported(market: Call, stub: StubCluster) -> None:
    stub.exchange.stores_outcomes = False
    with Client(stub.config, account=1) as client:
        client.instruments()
        client.connect()
        with stub.lock:
            stub.faults.garbage_answers = 1
        answer = client.place_limit("BTC-USD", "buy", "1", "1")
    assert answer.duplicate
    assert (answer.state, answer.sequence) == ("Unknown", 0)
    assert len(stub.exchange.orders) == 1


def test_unknown_reason_is_a_protocol_error(stub: StubCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(stub.config, account=0) as client:

        def refused(*commands: object) -> object:
            outcome = orders(1).view(COMMAND).copy()
            from smrx.wire.records import OUTCOME

            outcome = outcome.view(OUTCOME)
            outcome[:] = 0
            outcome["status"], outcome["reason"] = OutcomeStatus.REJECTED, 9999
            return outcome

        monkeypatch.setattr(client, "submit", refused)
        with pytest.raises(ProtocolError, match="reason 9999, unknown to this version"):
            client.open_account(3)


def test_command_kinds_sent_are_those_of_the_operations(market: Call, stub: StubCluster) -> None:
    kinds = {int(body[0]) for _, _, body in stub.exchange.ledger}
    assert {CommandKind.ADD_ASSET, CommandKind.ADD_INSTRUMENT, CommandKind.CLOSE_SESSION} <= kinds
    assert admin.MAX_ROWS >= 1000
