"""Inspect copies only the rows that a query asks for."""

import tracemalloc

import numpy as np

from smrx.engine import Engine
from smrx.engine.inspect import Inspect
from smrx.engine.state import TABLES

COUNT, ACCOUNTS = 100_000, 1_000


def many_orders() -> Inspect:
    """Return the view of a state with orders of many accounts, freed slots among them."""
    state = Engine().inspect._state
    orders = np.zeros(COUNT, state.orders.dtype)
    orders["order_id"] = np.arange(COUNT)[::-1]
    orders["account_id"] = np.arange(COUNT) % ACCOUNTS
    orders["instrument_id"] = np.arange(COUNT) // ACCOUNTS % 2
    orders["live"] = np.arange(COUNT) < COUNT - ACCOUNTS
    pools = state.pools.copy()
    pools["top"][next(number for number, table in enumerate(TABLES) if table.name == "orders")] = COUNT
    return Inspect(state._replace(orders=orders, pools=pools))


def test_orders_of_an_account_are_chosen_before_they_are_copied() -> None:
    inspect = many_orders()
    tracemalloc.start()
    try:
        found = inspect.orders(7)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found) == COUNT // ACCOUNTS - 1
    assert (np.diff(found["order_id"].astype(np.int64)) > 0).all()
    # A few bytes for each order to choose by; an order itself has 128.
    assert peak < COUNT * 16


def test_orders_are_chosen_by_account_and_instrument() -> None:
    inspect = many_orders()
    everything = inspect.orders()
    assert len(everything) == COUNT - ACCOUNTS
    for account, instrument in ((7, None), (None, 1), (7, 1), (ACCOUNTS, None)):
        wanted = np.ones(len(everything), np.bool_)
        if account is not None:
            wanted &= everything["account"] == account
        if instrument is not None:
            wanted &= everything["instrument"] == instrument
        assert inspect.orders(account, instrument).tobytes() == everything[wanted].tobytes()
