"""A bounded number of orders expires when time advances; the rest expires with the next entries."""

import numpy as np

from smrx.engine import Engine
from smrx.wire.codes import CommandKind, EventKind, OrderType, Side, TimeInForce
from smrx.wire.command_list import CommandList
from smrx.wire.records import COMMAND, DETAILS, MAX_CANCELS, ORDER_DETAILS
from tests.commands import Commands, apply, command
from tests.engine.kernels.test_bounded_cancels import QuickOracle, Recorded
from tests.engine.small_market import SECOND

MORE = 3
EXPIRY = 5 * SECOND


def market_with_due_orders(rules: int = 2) -> Recorded:
    """Return a market in which account 1 has MAX_CANCELS + MORE buy orders that expire at one time."""
    market = Recorded(rules)
    rows = np.zeros(MAX_CANCELS + MORE, COMMAND)
    rows["kind"], rows["account"], rows["instrument"], rows["side"] = CommandKind.PLACE, 1, 1, Side.BUY
    rows["order_type"], rows["tif"], rows["quantity_lots"] = OrderType.LIMIT, TimeInForce.GTD, 1
    rows["price_ticks"], rows["details"] = 100, 1
    rows["session_id"], rows["request_id"] = 11, 1 + np.arange(len(rows))
    details = np.zeros(1, ORDER_DETAILS)
    details["expiry_ns"] = EXPIRY
    market.send(CommandList(rows, details.view(DETAILS)))
    market.requests[11] = len(rows)
    return market


def tick() -> Commands:
    return command(CommandKind.TICK, (0, 0))


def expired(events: np.ndarray) -> int:
    return int((events["kind"] == EventKind.EXPIRED).sum())


def test_entry_expires_a_bounded_number_and_the_next_the_rest() -> None:
    market = market_with_due_orders()
    found = [expired(apply(market.engine, tick(), at).events) for at in (EXPIRY - 1, EXPIRY, EXPIRY + 1, EXPIRY + 2)]
    assert found == [0, MAX_CANCELS, MORE, 0]
    assert market.engine.inspect.counts()["orders"] == 0
    market.check_state()


def test_commands_at_one_time_expire_a_bounded_number_in_all() -> None:
    market = market_with_due_orders()
    orders = [market.sell(2, 1, 900 + at).events for at in range(2)]
    assert [expired(events) for events in orders] == [0, 0]
    market.send(CommandList(np.concatenate([place_row(market, at) for at in range(4)])), EXPIRY)
    assert market.engine.inspect.open_order_count(1) == MORE
    assert expired(market.send(CommandList(place_row(market, 5)), EXPIRY).events) == 0
    # An order whose time has passed can trade until it expires.
    trade = market.send(CommandList(place_row(market, 0, price=100)), EXPIRY)
    assert (trade.events["kind"] == EventKind.TRADE).sum() == 1
    # A TICK goes on, also when the time stands still.
    assert expired(apply(market.engine, tick(), EXPIRY).events) == MORE - 1


def place_row(market: Recorded, at: int, price: int = 0) -> np.ndarray:
    row = np.zeros(1, COMMAND)
    row["kind"], row["account"], row["instrument"], row["side"] = CommandKind.PLACE, 3, 1, Side.SELL
    row["order_type"], row["tif"], row["quantity_lots"] = OrderType.LIMIT, TimeInForce.GTC, 1
    row["price_ticks"] = price or 1000 + at
    row["session_id"], row["request_id"] = market.sender(3)
    return row


def test_restored_state_and_small_calls_go_on_alike() -> None:
    market = market_with_due_orders()
    apply(market.engine, tick(), EXPIRY)
    restored = Engine.restore(market.engine.snapshot())
    rows = np.concatenate([place_row(market, at) for at in range(3)])
    whole = apply(market.engine, CommandList(rows), EXPIRY + 1)
    parts = [apply(restored, CommandList(rows[at : at + 1]), EXPIRY + 1) for at in range(3)]
    assert whole.hashes.tobytes() == b"".join(part.hashes.tobytes() for part in parts)


def test_oracle_agrees() -> None:
    market, oracle = market_with_due_orders(), QuickOracle()
    for sent in market.sent:
        oracle.apply(sent.records, 1, sent.details)
    for sent, at in ((tick(), EXPIRY), (CommandList(place_row(market, 1)), EXPIRY), (tick(), EXPIRY)):
        found, expected = apply(market.engine, sent, at), oracle.apply(sent.records, at, sent.details)
        assert found.outcomes.tobytes() == expected.outcomes.tobytes()
        assert found.events.tobytes() == expected.events.tobytes()
        assert market.engine.content_hash() == oracle.content_hash()


def test_first_rules_expire_everything_at_once() -> None:
    market = market_with_due_orders(rules=1)
    assert expired(apply(market.engine, tick(), EXPIRY).events) == MAX_CANCELS + MORE
