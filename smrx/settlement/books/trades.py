"""Post a trade and the fills of its maker and taker, which must follow it and agree. Compiled, exact integers.

A trade posts four legs (quote and base, from and to) and two fees (each party's to the venue, account 0), and these
must be what the instrument's rules say.
"""

from typing import Any, Final

from smrx.engine.kernels.jit import kernel, view_as
from smrx.follower.record_table import find
from smrx.settlement.books.book_tables import TRADE_PLACE
from smrx.settlement.books.event_rows import TRADE
from smrx.settlement.books.money import fee_of, hold, move, set_numbers, signed
from smrx.settlement.books.open_orders import close, known_order
from smrx.settlement.books.posting_faults import Fault
from smrx.wire.codes import EventKind, OrderType, Side

_FILLED: Final = int(EventKind.FILLED)
_BUY: Final = int(Side.BUY)
_SELL: Final = int(Side.SELL)
_LIMIT: Final = int(OrderType.LIMIT)
_STOP: Final = int(OrderType.STOP)
_STOP_LIMIT: Final = int(OrderType.STOP_LIMIT)

# Plain integers, as kernels take them.
MATCH_ID: Final = int(Fault.MATCH_ID)
TRADE_SIDE: Final = int(Fault.TRADE_SIDE)
TRADE_ORDER: Final = int(Fault.TRADE_ORDER)
TRADE_QUANTITY: Final = int(Fault.TRADE_QUANTITY)
MAKER_PRICE: Final = int(Fault.MAKER_PRICE)
TAKER_LIMIT: Final = int(Fault.TAKER_LIMIT)
TAKER_FEE: Final = int(Fault.TAKER_FEE)
MAKER_FEE: Final = int(Fault.MAKER_FEE)
BUDGET: Final = int(Fault.BUDGET)
FILL_DIFFERS: Final = int(Fault.FILL_DIFFERS)
FILL_COUNT: Final = int(Fault.FILL_COUNT)
FILL_KIND: Final = int(Fault.FILL_KIND)
MAKER_TYPE: Final = int(Fault.MAKER_TYPE)
UNKNOWN_INSTRUMENT: Final = int(Fault.UNKNOWN_INSTRUMENT)


@kernel
def trade(tables: Any, row: Any, numbers: Any) -> Any:
    """Post TRADE: four legs and two fees; its fills must follow."""
    core = tables.core[0]
    found = view_as(row, TRADE)
    listed = find(tables.instruments, signed(row.instrument))
    if listed < 0:
        return UNKNOWN_INSTRUMENT
    if row.match_id != core.trades + 1:
        set_numbers(numbers, core.trades + 1, 0, 0, 0)
        return MATCH_ID
    if row.side != _BUY and row.side != _SELL:
        return TRADE_SIDE
    taker_at, maker_at = find(tables.orders, row.order_id), find(tables.orders, row.counter_order_id)
    if taker_at < 0 or tables.orders[taker_at].side != row.side or tables.orders[taker_at].account != row.account:
        set_numbers(numbers, row.order_id, 0, 0, 0)
        return TRADE_ORDER
    if (
        maker_at < 0
        or tables.orders[maker_at].side == row.side
        or tables.orders[maker_at].account != found.counter_account
    ):
        set_numbers(numbers, row.counter_order_id, 0, 0, 0)
        return TRADE_ORDER
    taker, maker = tables.orders[taker_at], tables.orders[maker_at]
    if taker.instrument != row.instrument or maker.instrument != row.instrument:
        set_numbers(numbers, row.order_id if taker.instrument != row.instrument else row.counter_order_id, 0, 0, 0)
        return TRADE_ORDER
    if maker.type != _LIMIT or taker.type == _STOP or taker.type == _STOP_LIMIT:
        set_numbers(numbers, row.counter_order_id if maker.type != _LIMIT else row.order_id, 0, 0, 0)
        return MAKER_TYPE
    instrument = tables.instruments[listed]
    price, quantity = row.price_ticks, row.quantity_lots
    most = maker.leaves if taker.by_budget else min(taker.leaves, maker.leaves)
    if quantity < 1 or quantity > most:
        set_numbers(numbers, most, 0, 0, 0)
        return TRADE_QUANTITY
    if price != maker.price:
        set_numbers(numbers, maker.price, 0, 0, 0)
        return MAKER_PRICE
    if taker.price != 0 and (price > taker.price if row.side == _BUY else price < taker.price):
        set_numbers(numbers, taker.price, 0, 0, 0)
        return TAKER_LIMIT
    notional = price * quantity * instrument.scale_units
    taker_fee, maker_fee = fee_of(notional, instrument.taker_fee), fee_of(notional, instrument.maker_fee)
    if found.taker_fee != taker_fee:
        set_numbers(numbers, taker_fee, 0, 0, 0)
        return TAKER_FEE
    if found.maker_fee != maker_fee:
        set_numbers(numbers, maker_fee, 0, 0, 0)
        return MAKER_FEE
    if taker.by_budget:
        if notional + taker_fee > taker.budget:
            set_numbers(numbers, notional + taker_fee, taker.budget, 0, 0)
            return BUDGET
        taker.budget -= notional + taker_fee
    taker_account, maker_account = signed(row.account), signed(found.counter_account)
    buyer = taker_account if row.side == _BUY else maker_account
    seller = maker_account if row.side == _BUY else taker_account
    move(tables, buyer, seller, instrument.quote, notional, row.sequence)
    move(tables, seller, buyer, instrument.base, quantity * instrument.lot_units, row.sequence)
    if taker_fee != 0:
        move(tables, taker_account, 0, instrument.quote, taker_fee, row.sequence)
    if maker_fee != 0:
        move(tables, maker_account, 0, instrument.quote, maker_fee, row.sequence)
    core.trades += 1
    core.due = 1
    tables.last[TRADE_PLACE] = row
    return 0


@kernel
def fill_difference(tables: Any, row: Any, numbers: Any) -> Any:
    """Check that a fill agrees with the trade about its party."""
    made, taker = tables.last[TRADE_PLACE], tables.core[0].due == 2
    counter_account = view_as(made, TRADE).counter_account
    side = row.side
    wanted_side = made.side if taker else _BUY + _SELL - made.side
    found = (row.match_id, row.command_sequence, signed(row.instrument), row.price_ticks, row.quantity_lots,
             row.order_id, signed(row.account), signed(side))  # fmt: skip
    wanted = (made.match_id, made.command_sequence, signed(made.instrument), made.price_ticks, made.quantity_lots,
              made.order_id if taker else made.counter_order_id,
              signed(made.account) if taker else signed(counter_account), signed(wanted_side))  # fmt: skip
    for field in range(8):
        if found[field] != wanted[field]:
            set_numbers(numbers, made.match_id, found[field], wanted[field], 2 * field + (1 if taker else 0))
            return FILL_DIFFERS
    return 0


@kernel
def fill(tables: Any, row: Any, numbers: Any) -> Any:
    """Post PARTIALLY_FILLED or FILLED: the maker's or the taker's share of the last trade."""
    core = tables.core[0]
    fault = fill_difference(tables, row, numbers)
    if fault != 0:
        return fault
    core.due = 2 if core.due == 1 else 0
    at = known_order(tables, row, numbers)
    if at < 0:
        return -at
    order = tables.orders[at]
    order.cum += row.quantity_lots
    if not order.by_budget:
        order.leaves -= row.quantity_lots
    if order.cum != row.cum_lots or order.leaves != row.leaves_lots or order.leaves < 0:
        set_numbers(numbers, order.cum, order.leaves, 0, 0)
        return FILL_COUNT
    done = row.kind == _FILLED
    if not order.by_budget and done != (order.leaves == 0):
        return FILL_KIND
    fault = hold(tables, order, -order.per_lot * row.quantity_lots, row.sequence, numbers)
    if done:
        close(tables, at)
    return fault
