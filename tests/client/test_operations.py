"""The verbs: names and decimals in, typed results out, the same in both clients."""

import inspect
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from smrx.client import AsyncClient, Client, InvalidValue, ProtocolError, Refused, Unavailable
from smrx.client.operations import Operations
from smrx.client.results import Level, OrderResult
from smrx.wire import admin
from smrx.wire.codes import CommandKind, OutcomeStatus, Reason, Side
from smrx.wire.records import COMMAND
from tests.client.conftest import Call
from tests.client.stub_cluster import Stub
from tests.client.test_blocking_client import orders


def test_the_two_clients_have_the_same_verbs_with_the_same_arguments() -> None:
    def signatures(kind: type) -> dict[str, inspect.Signature]:
        return {
            name: inspect.signature(member)
            for name, member in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }

    blocking, on_a_loop = signatures(Client), signatures(AsyncClient)
    only_blocking = {"submit_nowait", "poll"}
    assert set(blocking) - set(on_a_loop) == only_blocking
    assert {name: blocking[name] for name in on_a_loop} == on_a_loop
    assert inspect.signature(Client.__init__) == inspect.signature(AsyncClient.__init__)


def test_every_verb_says_in_both_clients_what_it_does_and_what_it_comes_to() -> None:
    for kind in (Client, AsyncClient):
        for name, verb in inspect.getmembers(Operations, inspect.isfunction):
            if name.startswith("_"):
                continue
            offered = getattr(kind, name)
            assert offered.__doc__ == verb.__doc__
            assert offered.__doc__
            said = inspect.signature(offered)
            assert said.parameters == inspect.signature(verb).parameters
            assert "Generator" not in str(said), f"{name} is said to come to its steps"
    assert inspect.signature(Client.place).return_annotation is OrderResult
    assert inspect.iscoroutinefunction(AsyncClient.place)


def test_market_is_added_and_found_by_name(market: Call) -> None:
    assert [(asset.id, asset.symbol, asset.decimals) for asset in market(1, "assets")] == [(1, "BTC", 8), (2, "USD", 6)]
    [instrument] = market(1, "instruments")
    assert (instrument.symbol, instrument.base.symbol, instrument.quote.symbol) == ("BTC-USD", "BTC", "USD")
    assert (instrument.lot_units, instrument.scale_units) == (10_000, 1)
    assert (instrument.max_price_ticks, instrument.max_quantity_lots) == (10_000_000, 10_000_000)


def test_a_symbol_is_added_once(market: Call) -> None:
    with pytest.raises(InvalidValue, match="found BTC, which exists"):
        market(0, "add_asset", "BTC", 2)
    with pytest.raises(InvalidValue, match="found BTC-USD, which exists"):
        market(0, "add_instrument", "BTC-USD", "BTC", "USD")
    with pytest.raises(InvalidValue, match="1 to 8 characters"):
        market(0, "add_asset", "bitcoin", 2)
    with pytest.raises(InvalidValue, match="decimals: expected 0 to 18, found 19"):
        market(0, "add_asset", "X", 19)


def test_money_moves_once_per_transfer_id(market: Call) -> None:
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


def test_orders_are_placed_changed_and_cancelled_in_decimals(market: Call, stub: Stub) -> None:
    placed = market(1, "place_limit", "BTC-USD", "buy", "50000.00", "0.5", client_order_id=9, post_only=True)
    assert (placed.state, placed.filled, placed.remaining, placed.leaves_lots) == ("New", "0.0000", "0.5000", 5000)
    [order] = market(1, "orders", "BTC-USD")
    assert (order.side, order.price, order.quantity, order.price_ticks) == ("BUY", "50000.00", "0.5000", 5_000_000)
    assert stub.venue.orders[placed.order_id].flags == 1
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


def test_positions_are_in_decimals_and_in_whole_numbers_of_any_size(market: Call, stub: Stub) -> None:
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
    [listed] = stub.venue.instruments.values()
    stub.venue.instruments[listed.instrument] = msgspec.structs.replace(listed, scale_units=1 << 31)
    assert market(1, "positions")[0].buy_notional_units == 5_000_000 * 5_000 << 31 > 1 << 64


@pytest.mark.parametrize(
    ("verb", "arguments", "named", "message"),
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
def test_what_cannot_be_sent_is_named_before_anything_is_sent(
    market: Call, stub: Stub, verb: str, arguments: tuple[object, ...], named: dict[str, Any], message: str
) -> None:
    before = stub.venue.sequence
    with pytest.raises(InvalidValue, match=message):
        market(1, verb, *arguments, **named)
    assert stub.venue.sequence == before


def test_status_and_barrier(call: Call, stub: Stub) -> None:
    assert call(0, "status", 2).role == "follower"
    assert call(0, "status").node_id == 1
    stub.elect(3)
    assert call(0, "barrier").node_id == 3
    assert call(0, "open_account", 5).account == 5
    assert call(0, "accounts") == [0, 1, 2, 5]


def test_queries_ask_the_leader_first_and_another_if_it_is_silent(market: Call, stub: Stub) -> None:
    stub.elect(2)
    stub.seen.clear()
    market(1, "depth", "BTC-USD")
    assert stub.seen["Depth 2"] == 1
    stub.faults.deaf = {2}
    market(1, "depth", "BTC-USD")
    assert stub.seen["Depth 1"] + stub.seen["Depth 3"] == 1


def test_a_query_never_answers_from_before_what_the_client_has_seen(stub: Stub) -> None:
    with Client(stub.config, account=0, timeout=0.5) as client:
        client.add_asset("BTC", 8)
        stub.faults.stale = {1, 2}
        stub.seen.clear()
        client.accounts()
        assert stub.seen["Accounts 3"] == 1
        stub.faults.stale = {1, 2, 3}
        with pytest.raises(Unavailable, match="commands behind what this client has seen"):
            client.accounts()


def test_with_order_addresses_only_the_nodes_say_where_they_answer(stub: Stub) -> None:
    with Client(stub.orders_addresses[1], account=0) as client:
        assert client.accounts() == [0, 1, 2]
    stub.admin_hints = False
    with (
        Client(stub.orders_addresses, account=0, timeout=0.2) as client,
        pytest.raises(Unavailable, match="no address to ask"),
    ):
        client.accounts()


def test_an_id_that_another_client_took_is_not_the_end(stub: Stub) -> None:
    with Client(stub.config, account=0) as mine, Client(stub.config, account=0) as other:
        mine.assets()
        answer = mine._core.verbs.add_asset("BTC", 8)
        step: Any = None
        # Both look, both see no asset, and the other one is quicker.
        while True:
            step = answer.send(step)
            if hasattr(step, "commands"):
                break
            step = mine._do(step)
        other.add_asset("USD", 2)
        outcome = mine._do(step)
        assert outcome["reason"][0] == Reason.ASSET_EXISTS

        def rest() -> Any:
            return (yield from _resumed(answer, outcome))

        assert mine._run(rest()).asset == 2


def _resumed(steps: Any, value: Any) -> Any:
    """Go on with a generator that waits for a value."""
    try:
        while True:
            value = yield steps.send(value)
    except StopIteration as end:
        return end.value


def test_a_duplicate_that_nobody_remembers_is_reported_as_such(market: Call, stub: Stub) -> None:
    stub.venue._remembers = False
    with Client(stub.config, account=1) as client:
        client.instruments()
        client.connect()
        with stub.lock:
            stub.faults.garbage_answers = 1
        answer = client.place_limit("BTC-USD", "buy", "1", "1")
    assert answer.duplicate
    assert (answer.state, answer.sequence) == ("Unknown", 0)
    assert len(stub.venue.orders) == 1


def test_an_unknown_reason_is_a_protocol_error(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(stub.config, account=0) as client:

        def refused(commands: object) -> object:
            outcome = orders(1).view(COMMAND).copy()
            from smrx.wire.records import OUTCOME

            outcome = outcome.view(OUTCOME)
            outcome[:] = 0
            outcome["status"], outcome["reason"] = OutcomeStatus.REJECTED, 9999
            return outcome

        monkeypatch.setattr(client, "submit", refused)
        with pytest.raises(ProtocolError, match="reason 9999, which this version does not know"):
            client.open_account(3)


def test_the_kinds_sent_are_those_of_the_verbs(market: Call, stub: Stub) -> None:
    kinds = {int(body[0]) for _, _, body in stub.venue.ledger}
    assert {CommandKind.ADD_ASSET, CommandKind.ADD_INSTRUMENT, CommandKind.CLOSE_SESSION} <= kinds
    assert admin.MAX_ROWS >= 1000
