"""Posting: every event checked against the ones before it and put into the books. Compiled; exact integers throughout.

Checked of the stream: sequences have no gaps, commands follow one another, time does not go back, kinds are known, a
trade is followed by the fills of its maker and its taker, match ids have no gaps. Checked of the content: see Fault.

- A trade posts four legs (quote and base, from and to) and two fees (each party's to the venue, account 0).
- A buy holds, for each open lot, price x scale and the taker's fee of that; a sell the base of the lot. Market buys and
  pending stop buys hold nothing. No account owns less than it holds, and none holds less than nothing.
- A fee is ceil(notional x rate / 10^6), so always in the venue's favour.

A fault leaves the books in the middle of an event: they are of no use after it.
"""

from typing import Any, Final

from smrx.engine.codes import EventKind, OrderFlags, OrderType, Reason, Side
from smrx.engine.jit import kernel
from smrx.settlement.books.faults import Fault
from smrx.settlement.books.tables import find, place, remove

_NEW: Final = int(EventKind.NEW)
_PARTIALLY_FILLED: Final = int(EventKind.PARTIALLY_FILLED)
_FILLED: Final = int(EventKind.FILLED)
_CANCELLED: Final = int(EventKind.CANCELLED)
_REPLACED: Final = int(EventKind.REPLACED)
_EXPIRED: Final = int(EventKind.EXPIRED)
_TRADE: Final = int(EventKind.TRADE)
_DEPOSITED: Final = int(EventKind.DEPOSITED)
_WITHDRAWN: Final = int(EventKind.WITHDRAWN)
_ACCOUNT_OPENED: Final = int(EventKind.ACCOUNT_OPENED)
_ASSET_ADDED: Final = int(EventKind.ASSET_ADDED)
_INSTRUMENT_ADDED: Final = int(EventKind.INSTRUMENT_ADDED)
_RULES_SET: Final = int(EventKind.RULES_SET)
_TRIGGERED: Final = int(EventKind.TRIGGERED)
_LAST_KIND: Final = int(max(EventKind))

_BUY: Final = int(Side.BUY)
_SELL: Final = int(Side.SELL)
_LIMIT: Final = int(OrderType.LIMIT)
_MARKET: Final = int(OrderType.MARKET)
_STOP: Final = int(OrderType.STOP)
_STOP_LIMIT: Final = int(OrderType.STOP_LIMIT)
_QUOTE_BUDGET: Final = int(OrderFlags.QUOTE_BUDGET)
_FOK_UNFILLABLE: Final = int(Reason.FOK_UNFILLABLE)

#: Amounts the exchange can count: below this, sums of two never overflow.
MAX_AMOUNT: Final = (1 << 62) - 1
_MILLION: Final = 1_000_000

_F: Final = Fault
SEQUENCE, COMMAND, TIME_WITHIN, TIME_BACK, KIND = (
    int(f) for f in (_F.SEQUENCE, _F.COMMAND, _F.TIME_WITHIN, _F.TIME_BACK, _F.KIND)
)
FILLS_MISSING, FILL_ALONE, MATCH_ID, TRADE_SIDE, TRADE_ORDER, TRADE_QUANTITY = (
    int(f) for f in (_F.FILLS_MISSING, _F.FILL_ALONE, _F.MATCH_ID, _F.TRADE_SIDE, _F.TRADE_ORDER, _F.TRADE_QUANTITY)
)
MAKER_PRICE, TAKER_LIMIT, TAKER_FEE, MAKER_FEE, BUDGET, FILL_DIFFERS, FILL_COUNT, FILL_KIND, MAKER_TYPE = (
    int(f)
    for f in (
        _F.MAKER_PRICE, _F.TAKER_LIMIT, _F.TAKER_FEE, _F.MAKER_FEE, _F.BUDGET, _F.FILL_DIFFERS, _F.FILL_COUNT,
        _F.FILL_KIND, _F.MAKER_TYPE,
    )
)  # fmt: skip
UNKNOWN_INSTRUMENT, ORDER_OPEN, ORDER_NOT_OPEN, ORDER_IDENTITY, QUANTITY, PRICE, ORDER_SIDE, ORDER_DIFFERS = (
    int(f)
    for f in (
        _F.UNKNOWN_INSTRUMENT, _F.ORDER_OPEN, _F.ORDER_NOT_OPEN, _F.ORDER_IDENTITY, _F.QUANTITY, _F.PRICE,
        _F.ORDER_SIDE, _F.ORDER_DIFFERS,
    )
)  # fmt: skip
UNFILLABLE_FILLED, NOTHING_LEFT, NOT_A_STOP = (int(f) for f in (_F.UNFILLABLE_FILLED, _F.NOTHING_LEFT, _F.NOT_A_STOP))
UNKNOWN_ACCOUNT, UNKNOWN_ASSET, AMOUNT, AVAILABLE, HELD, SUPPLY = (
    int(f) for f in (_F.UNKNOWN_ACCOUNT, _F.UNKNOWN_ASSET, _F.AMOUNT, _F.AVAILABLE, _F.HELD, _F.SUPPLY)
)
ACCOUNT_EXISTS, ASSET_EXISTS, INSTRUMENT_EXISTS, INSTRUMENT_RULES, FEES_WITH_ORDERS, FEE_RATES = (
    int(f)
    for f in (
        _F.ACCOUNT_EXISTS, _F.ASSET_EXISTS, _F.INSTRUMENT_EXISTS, _F.INSTRUMENT_RULES, _F.FEES_WITH_ORDERS,
        _F.FEE_RATES,
    )
)  # fmt: skip


@kernel
def say(numbers: Any, a: Any, b: Any, c: Any, d: Any) -> None:
    """Note the numbers of a fault."""
    numbers[0], numbers[1], numbers[2], numbers[3] = a, b, c, d


@kernel
def fee_of(notional: Any, rate: Any) -> Any:
    """ceil(notional x rate / 10^6), without a product beyond 62 bits."""
    whole = notional // _MILLION
    return whole * rate - (-((notional - whole * _MILLION) * rate)) // _MILLION


@kernel
def balance(tables: Any, account: Any, asset: Any, sequence: Any) -> Any:
    """The place of a balance, made if it was not there, and marked as touched."""
    key = (account << 32) | asset
    at = find(tables.balances, key)
    if at < 0:
        at = place(tables.balances, key)
        tables.balances[at].key = key
        tables.balances[at].total = 0
        tables.balances[at].held = 0
        tables.balances[at].touched = 0
        tables.core[0].balances += 1
    if tables.balances[at].touched == 0:
        tables.balances[at].touched = sequence
    return at


@kernel
def move(tables: Any, source: Any, target: Any, asset: Any, amount: Any, sequence: Any) -> None:
    """Move money between two accounts; whether the source could afford it is checked when its hold changes."""
    tables.balances[balance(tables, source, asset, sequence)].total -= amount
    tables.balances[balance(tables, target, asset, sequence)].total += amount


@kernel
def hold(tables: Any, order: Any, change: Any, sequence: Any, numbers: Any) -> Any:
    """Change what an order holds; what is owned must cover it."""
    instrument = tables.instruments[find(tables.instruments, np_int(order.instrument))]
    asset = instrument.quote if order.side == _BUY else instrument.base
    at = balance(tables, np_int(order.account), asset, sequence)
    held = tables.balances[at].held + change
    tables.balances[at].held = held
    total = tables.balances[at].total
    if held < 0 or held > total:
        say(numbers, np_int(order.account), asset, total, held)
        return HELD
    return 0


@kernel
def np_int(value: Any) -> Any:
    """A small unsigned field as a signed word."""
    return value + 0


@kernel
def lot_hold(instrument: Any, side: Any, kind: Any, price: Any) -> Any:
    """What each open lot of an order holds."""
    if side == _SELL:
        return instrument.lot_units
    if kind == _MARKET or kind == _STOP:  # noqa: SIM109 - numba compiles this to two comparisons
        return 0
    worth = price * instrument.scale_units
    return worth + fee_of(worth, instrument.taker_fee)


@kernel
def known_order(tables: Any, row: Any, numbers: Any) -> Any:
    """The place of the open order an event is about if it says the same of it as the books; else -fault."""
    at = find(tables.orders, row.order_id)
    if at < 0:
        return -ORDER_NOT_OPEN
    order = tables.orders[at]
    if order.account != row.account or order.instrument != row.instrument or order.side != row.side:
        say(numbers, order.account, order.instrument, order.side, 0)
        return -ORDER_IDENTITY
    return at


@kernel
def new(tables: Any, row: Any, numbers: Any) -> Any:
    listed = find(tables.instruments, np_int(row.instrument))
    if listed < 0:
        return UNKNOWN_INSTRUMENT
    if find(tables.orders, row.order_id) >= 0 or row.order_id == 0:
        return ORDER_OPEN
    if find(tables.accounts, row.account + 1) < 0:
        return UNKNOWN_ACCOUNT
    if row.side != _BUY and row.side != _SELL:
        return ORDER_SIDE
    instrument = tables.instruments[listed]
    by_budget = (row.flags & _QUOTE_BUDGET) != 0
    if by_budget:
        if row.quantity_lots < 1 or row.quantity_lots > MAX_AMOUNT or row.leaves_lots != 0:
            say(numbers, MAX_AMOUNT, 0, 0, 0)
            return QUANTITY
    elif row.quantity_lots < 1 or row.quantity_lots > instrument.max_quantity or row.leaves_lots != row.quantity_lots:
        say(numbers, instrument.max_quantity, 0, 0, 0)
        return QUANTITY
    priced = row.order_type == _LIMIT or row.order_type == _STOP_LIMIT
    if priced:
        if row.price_ticks < 1 or row.price_ticks > instrument.max_price:
            return PRICE
    elif row.price_ticks != 0:
        return PRICE
    at = place(tables.orders, row.order_id)
    order = tables.orders[at]
    order.key = row.order_id
    order.price = row.price_ticks
    order.leaves = 0 if by_budget else row.quantity_lots
    order.cum = 0
    order.per_lot = lot_hold(instrument, row.side, row.order_type, row.price_ticks)
    order.budget = row.quantity_lots if by_budget else 0
    order.account = row.account
    order.instrument = row.instrument
    order.side = row.side
    order.type = row.order_type
    order.by_budget = 1 if by_budget else 0
    tables.core[0].orders += 1
    instrument.open_orders += 1
    return hold(tables, order, order.per_lot * order.leaves, row.sequence, numbers)


@kernel
def close(tables: Any, at: Any) -> None:
    """An order is gone."""
    order = tables.orders[at]
    tables.instruments[find(tables.instruments, np_int(order.instrument))].open_orders -= 1
    tables.core[0].orders -= 1
    remove(tables.orders, at)


@kernel
def trade(tables: Any, row: Any, numbers: Any) -> Any:
    core = tables.core[0]
    listed = find(tables.instruments, np_int(row.instrument))
    if listed < 0:
        return UNKNOWN_INSTRUMENT
    if row.match_id != core.trades + 1:
        say(numbers, core.trades + 1, 0, 0, 0)
        return MATCH_ID
    if row.side != _BUY and row.side != _SELL:
        return TRADE_SIDE
    taker_at, maker_at = find(tables.orders, row.order_id), find(tables.orders, row.counter_order_id)
    if taker_at < 0 or tables.orders[taker_at].side != row.side or tables.orders[taker_at].account != row.account:
        say(numbers, row.order_id, 0, 0, 0)
        return TRADE_ORDER
    if (
        maker_at < 0
        or tables.orders[maker_at].side == row.side
        or tables.orders[maker_at].account != row.counter_account
    ):
        say(numbers, row.counter_order_id, 0, 0, 0)
        return TRADE_ORDER
    taker, maker = tables.orders[taker_at], tables.orders[maker_at]
    if taker.instrument != row.instrument or maker.instrument != row.instrument:
        say(numbers, row.order_id if taker.instrument != row.instrument else row.counter_order_id, 0, 0, 0)
        return TRADE_ORDER
    if maker.type != _LIMIT or taker.type == _STOP or taker.type == _STOP_LIMIT:
        say(numbers, row.counter_order_id if maker.type != _LIMIT else row.order_id, 0, 0, 0)
        return MAKER_TYPE
    instrument = tables.instruments[listed]
    price, quantity = row.price_ticks, row.quantity_lots
    most = maker.leaves if taker.by_budget else min(taker.leaves, maker.leaves)
    if quantity < 1 or quantity > most:
        say(numbers, most, 0, 0, 0)
        return TRADE_QUANTITY
    if price != maker.price:
        say(numbers, maker.price, 0, 0, 0)
        return MAKER_PRICE
    if taker.price != 0 and (price > taker.price if row.side == _BUY else price < taker.price):
        say(numbers, taker.price, 0, 0, 0)
        return TAKER_LIMIT
    notional = price * quantity * instrument.scale_units
    taker_fee, maker_fee = fee_of(notional, instrument.taker_fee), fee_of(notional, instrument.maker_fee)
    if row.cum_lots != taker_fee:
        say(numbers, taker_fee, 0, 0, 0)
        return TAKER_FEE
    if row.leaves_lots != maker_fee:
        say(numbers, maker_fee, 0, 0, 0)
        return MAKER_FEE
    if taker.by_budget:
        if notional + taker_fee > taker.budget:
            say(numbers, notional + taker_fee, taker.budget, 0, 0)
            return BUDGET
        taker.budget -= notional + taker_fee
    taker_account, maker_account = np_int(row.account), np_int(row.counter_account)
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
    tables.trade[0] = row
    return 0


@kernel
def fill_difference(tables: Any, row: Any, numbers: Any) -> Any:
    """Check that a fill says of its party what the trade says."""
    made, taker = tables.trade[0], tables.core[0].due == 2
    side = row.side
    wanted_side = made.side if taker else _BUY + _SELL - made.side
    found = (row.match_id, row.command_sequence, np_int(row.instrument), row.price_ticks, row.quantity_lots,
             row.order_id, np_int(row.account), np_int(side))  # fmt: skip
    wanted = (made.match_id, made.command_sequence, np_int(made.instrument), made.price_ticks, made.quantity_lots,
              made.order_id if taker else made.counter_order_id,
              np_int(made.account) if taker else np_int(made.counter_account), np_int(wanted_side))  # fmt: skip
    for field in range(8):
        if found[field] != wanted[field]:
            say(numbers, made.match_id, found[field], wanted[field], 2 * field + (1 if taker else 0))
            return FILL_DIFFERS
    return 0


@kernel
def fill(tables: Any, row: Any, numbers: Any) -> Any:
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
        say(numbers, order.cum, order.leaves, 0, 0)
        return FILL_COUNT
    done = row.kind == _FILLED
    if not order.by_budget and done != (order.leaves == 0):
        return FILL_KIND
    fault = hold(tables, order, -order.per_lot * row.quantity_lots, row.sequence, numbers)
    if done:
        close(tables, at)
    return fault


@kernel
def repeats(row: Any, order: Any, price: Any, quantity: Any, leaves: Any, numbers: Any) -> Any:
    """Check that an event repeats the order as it is known."""
    if (
        row.price_ticks != price
        or row.quantity_lots != quantity
        or row.cum_lots != order.cum
        or row.leaves_lots != leaves
    ):
        say(numbers, price, quantity, order.cum, leaves)
        return ORDER_DIFFERS
    return 0


@kernel
def end(tables: Any, row: Any, numbers: Any) -> Any:
    if row.reason == _FOK_UNFILLABLE and row.order_id == row.command_sequence and find(tables.orders, row.order_id) < 0:
        # It ended before it began: no NEW, no hold.
        return UNFILLABLE_FILLED if row.cum_lots != 0 else 0
    at = known_order(tables, row, numbers)
    if at < 0:
        return -at
    order = tables.orders[at]
    fault = repeats(row, order, order.price, order.cum + order.leaves, 0, numbers)
    if fault == 0:
        fault = hold(tables, order, -order.per_lot * order.leaves, row.sequence, numbers)
    close(tables, at)
    return fault


@kernel
def replace(tables: Any, row: Any, numbers: Any) -> Any:
    at = known_order(tables, row, numbers)
    if at < 0:
        return -at
    order = tables.orders[at]
    instrument = tables.instruments[find(tables.instruments, np_int(order.instrument))]
    fault = repeats(row, order, row.price_ticks, row.quantity_lots, row.quantity_lots - order.cum, numbers)
    if fault != 0:
        return fault
    priced = order.type == _LIMIT or order.type == _STOP_LIMIT
    if row.leaves_lots < 1 or row.quantity_lots > instrument.max_quantity or order.by_budget:
        return NOTHING_LEFT
    if (row.price_ticks < 1 or row.price_ticks > instrument.max_price) if priced else row.price_ticks != 0:
        return PRICE
    before = order.per_lot * order.leaves
    order.price, order.leaves = row.price_ticks, row.leaves_lots
    order.per_lot = lot_hold(instrument, order.side, order.type, order.price)
    return hold(tables, order, order.per_lot * order.leaves - before, row.sequence, numbers)


@kernel
def trigger(tables: Any, row: Any, numbers: Any) -> Any:
    at = known_order(tables, row, numbers)
    if at < 0:
        return -at
    order = tables.orders[at]
    becomes = _MARKET if order.type == _STOP else _LIMIT
    if (order.type != _STOP and order.type != _STOP_LIMIT) or row.order_type != becomes:
        return NOT_A_STOP
    order.type = row.order_type
    return repeats(row, order, order.price, order.cum + order.leaves, order.leaves, numbers)


@kernel
def transfer(tables: Any, row: Any, numbers: Any) -> Any:
    asset_id, account = np_int(row.instrument), np_int(row.account)
    listed = find(tables.assets, asset_id)
    if listed < 0:
        say(numbers, asset_id, 0, 0, 0)
        return UNKNOWN_ASSET
    if find(tables.accounts, account + 1) < 0:
        return UNKNOWN_ACCOUNT
    amount = row.quantity_lots
    if amount < 1 or amount > MAX_AMOUNT:
        return AMOUNT
    if row.kind == _WITHDRAWN:
        amount = -amount
    asset = tables.assets[listed]
    asset.supply += amount
    if asset.supply > asset.cap:
        say(numbers, asset.supply, asset.cap, asset_id, 0)
        return SUPPLY
    at = balance(tables, account, asset_id, row.sequence)
    tables.balances[at].total += amount
    available = tables.balances[at].total - tables.balances[at].held
    if available != row.cum_lots or available < 0:
        say(numbers, available, asset_id, 0, 0)
        return AVAILABLE
    return 0


@kernel
def open_account(tables: Any, row: Any) -> Any:
    key = row.account + 1
    if find(tables.accounts, key) >= 0:
        return ACCOUNT_EXISTS
    tables.accounts[place(tables.accounts, key)].key = key
    tables.core[0].accounts += 1
    return 0


@kernel
def add_asset(tables: Any, row: Any, numbers: Any) -> Any:
    key = np_int(row.instrument)
    if key == 0:
        say(numbers, key, 0, 0, 0)
        return UNKNOWN_ASSET
    if find(tables.assets, key) >= 0:
        return ASSET_EXISTS
    asset = tables.assets[place(tables.assets, key)]
    asset.key = key
    asset.symbol = row.client_order_id
    asset.decimals = row.quantity_lots
    asset.supply = 0
    asset.cap = row.price_ticks if row.price_ticks > 0 else MAX_AMOUNT
    tables.core[0].assets += 1
    return 0


@kernel
def add_instrument(tables: Any, row: Any, numbers: Any) -> Any:
    key = np_int(row.instrument)
    if find(tables.instruments, key) >= 0:
        return INSTRUMENT_EXISTS
    for asset in (row.order_id, row.counter_order_id):
        if find(tables.assets, asset) < 0:
            say(numbers, asset, 0, 0, 0)
            return UNKNOWN_ASSET
    lot_units, scale_units = np_int(row.account), np_int(row.counter_account)
    if key == 0 or lot_units < 1 or scale_units < 1 or row.price_ticks < 1 or row.quantity_lots < 1:
        return INSTRUMENT_RULES
    if row.price_ticks > MAX_AMOUNT // row.quantity_lots // scale_units or row.quantity_lots > MAX_AMOUNT // lot_units:
        return INSTRUMENT_RULES
    instrument = tables.instruments[place(tables.instruments, key)]
    instrument.key = key
    instrument.symbol = row.client_order_id
    instrument.base = row.order_id
    instrument.quote = row.counter_order_id
    instrument.lot_units = lot_units
    instrument.scale_units = scale_units
    instrument.max_price = row.price_ticks
    instrument.max_quantity = row.quantity_lots
    instrument.taker_fee = 0
    instrument.maker_fee = 0
    instrument.open_orders = 0
    tables.core[0].instruments += 1
    return 0


@kernel
def set_rules(tables: Any, row: Any, numbers: Any) -> Any:
    at = find(tables.instruments, np_int(row.instrument))
    if at < 0:
        return UNKNOWN_INSTRUMENT
    instrument = tables.instruments[at]
    taker_fee, maker_fee = np_int(row.account), np_int(row.counter_account)
    if maker_fee >= 1 << 31:
        maker_fee -= 1 << 32
    if taker_fee > _MILLION or maker_fee > taker_fee or maker_fee < -taker_fee:
        say(numbers, maker_fee, taker_fee, 0, 0)
        return FEE_RATES
    if taker_fee != instrument.taker_fee or maker_fee != instrument.maker_fee:
        if instrument.open_orders != 0:
            say(numbers, instrument.open_orders, 0, 0, 0)
            return FEES_WITH_ORDERS
        worth = instrument.max_price * instrument.scale_units
        if worth + fee_of(worth, taker_fee) > MAX_AMOUNT // instrument.max_quantity:
            return INSTRUMENT_RULES
        instrument.taker_fee, instrument.maker_fee = taker_fee, maker_fee
    return 0


@kernel
def in_stream(tables: Any, row: Any, numbers: Any) -> Any:
    """Check that an event follows the one before it, and take its place."""
    core = tables.core[0]
    if row.sequence != core.sequence + 1:
        return SEQUENCE
    step = row.command_sequence - core.command
    if (step != 0 or core.sequence == 0) and step != 1:
        say(numbers, core.command, core.command + 1, 0, 0)
        return COMMAND
    if row.time_ns != core.time_ns and core.sequence != 0:
        say(numbers, core.time_ns, 0, 0, 0)
        if step == 0:
            return TIME_WITHIN
        if row.time_ns < core.time_ns:
            return TIME_BACK
    if row.kind < _NEW or row.kind > _LAST_KIND:
        return KIND
    is_fill = row.kind == _PARTIALLY_FILLED or row.kind == _FILLED
    if is_fill != (core.due != 0):
        return FILL_ALONE if is_fill else FILLS_MISSING
    core.sequence = row.sequence
    core.command = row.command_sequence
    core.time_ns = row.time_ns
    return 0


@kernel
def post_one(tables: Any, row: Any, numbers: Any) -> Any:
    """Post one event; the fault, or 0."""
    fault = in_stream(tables, row, numbers)
    if fault != 0:
        return fault
    kind = row.kind
    if kind == _TRADE:
        return trade(tables, row, numbers)
    if kind == _PARTIALLY_FILLED or kind == _FILLED:  # noqa: SIM109
        return fill(tables, row, numbers)
    if kind == _NEW:
        return new(tables, row, numbers)
    if kind == _CANCELLED or kind == _EXPIRED:  # noqa: SIM109
        return end(tables, row, numbers)
    if kind == _REPLACED:
        return replace(tables, row, numbers)
    if kind == _TRIGGERED:
        return trigger(tables, row, numbers)
    if kind == _DEPOSITED or kind == _WITHDRAWN:  # noqa: SIM109
        return transfer(tables, row, numbers)
    if kind == _ACCOUNT_OPENED:
        return open_account(tables, row)
    if kind == _ASSET_ADDED:
        return add_asset(tables, row, numbers)
    if kind == _INSTRUMENT_ADDED:
        return add_instrument(tables, row, numbers)
    if kind == _RULES_SET:
        return set_rules(tables, row, numbers)
    return 0
