"""Elect stop orders: find those that are due when the last trade price moves, and queue them in order.

A pending stop is in a book of its own by stop price, whose best level is the one that a moving price reaches first.
Elected stops are in no book: they form a queue linked through `next`, whose ends are in `turn`. triggering.py triggers
them. Called by matching.py and placing.py.
"""

from typing import Any

import numpy as np

from smrx.engine.kernels.book import dequeue
from smrx.engine.kernels.jit import NIL, Record, Tables, inlined, kernel
from smrx.engine.state import BOOKS
from smrx.wire.codes import Side


@inlined
def is_reached(side: Any, stop_price: Any, last: Any) -> Any:
    """Whether a last trade price triggers a stop; no price (0) triggers none."""
    if last == 0:
        return False
    return last >= stop_price if side == Side.BUY else last <= stop_price


@inlined
def sell_stops(state: Tables, instrument_slot: Any) -> Any:
    """Return the book of an instrument's pending sell stops."""
    return state.books[BOOKS * np.int64(instrument_slot) + 2]


@inlined
def buy_stops(state: Tables, instrument_slot: Any) -> Any:
    """Return the book of an instrument's pending buy stops."""
    return state.books[BOOKS * np.int64(instrument_slot) + 3]


@inlined
def best_due(state: Tables, book: Record, side: Any, last: Any) -> Any:
    """Return the best level of a stop book if it is due, else 0."""
    if book.best != NIL and is_reached(side, state.levels[book.best].price, last):
        return book.best
    return NIL


@kernel
def elect_due_stops(state: Tables, instrument_slot: Any) -> None:
    """Queue every due stop: the one whose stop price is farthest from the last price first, then by order id."""
    turn = state.turn[0]
    last = state.instruments[instrument_slot].last_price
    while True:
        buys = best_due(state, buy_stops(state, instrument_slot), Side.BUY, last)
        sells = best_due(state, sell_stops(state, instrument_slot), Side.SELL, last)
        if buys == NIL and sells == NIL:
            return
        at = buys if buys != NIL else sells
        if buys != NIL and sells != NIL:
            # Both sides can be due at once only at the first trade of an instrument.
            buy, sell = state.levels[buys], state.levels[sells]
            near, far = last - buy.price, sell.price - last
            if far > near or (far == near and state.orders[sell.first].order_id < state.orders[buy.first].order_id):
                at = sells
        slot = state.levels[at].first
        dequeue(state, slot)
        order = state.orders[slot]
        order.level = 0
        order.next = 0
        if turn.elected == NIL:
            turn.elected = slot
        else:
            state.orders[turn.last_elected].next = slot
        turn.last_elected = slot


@inlined
def elect_stops(state: Tables, instrument_slot: Any) -> None:
    """Queue the stops that are due now, if there are any."""
    if buy_stops(state, instrument_slot).best != NIL or sell_stops(state, instrument_slot).best != NIL:
        elect_due_stops(state, instrument_slot)
