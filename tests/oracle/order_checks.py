"""Check an order's terms: price, quantity, display, expiry, notional, account limits, combination.

Takes the order as it would be after PLACE or REPLACE; changes nothing. Called by command_checks.py.
"""

from smrx.wire.codes import (
    CollarReference,
    OrderFlags,
    OrderType,
    Reason,
    RuleFlags,
    Side,
    Stp,
    TimeInForce,
)
from tests.oracle.book import OPPOSITE
from tests.oracle.records import AMOUNT_LIMIT, Instrument, Order
from tests.oracle.state import State

#: The most parts of an iceberg: it bounds the events that one order may cause.
MAX_ICEBERG_PARTS = 1_000

ALL_RULE_FLAGS = RuleFlags.MIN_NOTIONAL_OF_MARKET | RuleFlags.MAX_NOTIONAL_OF_MARKET

PRICED = (OrderType.LIMIT, OrderType.STOP_LIMIT)


def price(state: State, order: Order) -> Reason:
    instrument = state.instruments[order.instrument]
    if order.order_type not in PRICED:
        return Reason.INVALID_PRICE if order.price != 0 else Reason.NONE
    if order.price < 1:
        return Reason.INVALID_PRICE
    if order.price < instrument.rules.min_price:
        return Reason.PRICE_BELOW_MINIMUM
    return Reason.PRICE_ABOVE_MAXIMUM if order.price > instrument.max_price else Reason.NONE


def stop_price(state: State, order: Order) -> Reason:
    instrument = state.instruments[order.instrument]
    lowest = max(1, instrument.rules.min_price)
    if order.is_stop and not lowest <= order.stop_price <= instrument.max_price:
        return Reason.INVALID_STOP_PRICE
    return Reason.NONE


def band(state: State, order: Order) -> Reason:
    instrument = state.instruments[order.instrument]
    reference = {OrderType.LIMIT: instrument.last_price, OrderType.STOP_LIMIT: order.stop_price}.get(order.order_type)
    if instrument.rules.band_bp == 0 or reference is None:
        return Reason.NONE
    width = reference * instrument.rules.band_bp // 10_000
    return Reason.PRICE_OUTSIDE_BAND if abs(order.price - reference) > width else Reason.NONE


def quantity(state: State, order: Order) -> Reason:
    if order.is_budget:
        return Reason.NONE if 1 <= order.quantity < AMOUNT_LIMIT else Reason.INVALID_QUANTITY
    instrument = state.instruments[order.instrument]
    # The new quantity of an order must be more than what is filled; that of a new order, more than 0.
    if order.quantity <= order.cum:
        return Reason.INVALID_QUANTITY
    if order.quantity < instrument.rules.min_quantity:
        return Reason.QUANTITY_BELOW_MINIMUM
    return Reason.QUANTITY_ABOVE_MAXIMUM if order.quantity > instrument.max_quantity else Reason.NONE


def display(state: State, order: Order) -> Reason:
    if order.display and not 0 < order.display < order.quantity <= MAX_ICEBERG_PARTS * order.display:
        return Reason.INVALID_DISPLAY
    return Reason.NONE


def expiry(state: State, order: Order) -> Reason:
    if order.expiry_ns is None:
        return Reason.NONE
    # A market order has no use for an expiry, and GTD is not offered for it.
    past = order.order_type is not OrderType.MARKET and order.expiry_ns <= state.time_ns
    return Reason.INVALID_EXPIRY if past else Reason.NONE


def notional_or_none(state: State, order: Order) -> int | None:
    """Return the notional of an order before it trades, or None if it is unknown."""
    if order.is_budget:
        return order.quantity
    if order.order_type in PRICED:
        return state.instruments[order.instrument].notional(order.price, order.quantity)
    return None


def notional(state: State, order: Order) -> Reason:
    rules = state.instruments[order.instrument].rules
    amount = notional_or_none(state, order)
    if amount is None:
        return Reason.NONE
    if amount < rules.min_notional:
        return Reason.NOTIONAL_BELOW_MINIMUM
    return Reason.NOTIONAL_ABOVE_MAXIMUM if 0 < rules.max_notional < amount else Reason.NONE


def market_notional(state: State, order: Order) -> Reason:
    """Check a market order by lots, valued at the best opposite price, against the bounds that hold for it."""
    rules = state.instruments[order.instrument].rules
    best = state.books[order.instrument].best_price(OPPOSITE[order.side])
    if order.order_type is not OrderType.MARKET or order.is_budget or best is None:
        return Reason.NONE
    amount = state.instruments[order.instrument].notional(best, order.quantity)
    if rules.flags & RuleFlags.MIN_NOTIONAL_OF_MARKET and amount < rules.min_notional:
        return Reason.NOTIONAL_BELOW_MINIMUM
    too_much = 0 < rules.max_notional < amount
    return Reason.NOTIONAL_ABOVE_MAXIMUM if too_much and rules.flags & RuleFlags.MAX_NOTIONAL_OF_MARKET else Reason.NONE


CHECKS_OF_PLACE = (price, stop_price, band, quantity, display, expiry, notional, market_notional)
#: REPLACE does not change stop price and expiry.
CHECKS_OF_REPLACE = (price, band, quantity, display, notional)


def account_limits(state: State, order: Order, others: list[Order]) -> Reason:
    """Check an order against the limits of its account; `others` are the account's other open orders."""
    limits = state.accounts[order.account].limits
    amount = notional_or_none(state, order)
    stays = order.is_stop or order.tif in (TimeInForce.GTC, TimeInForce.GTD)
    if stays and 0 < limits.open_orders <= len(others):
        return Reason.OPEN_ORDERS_LIMIT
    if not order.is_budget and 0 < limits.order_quantity < order.quantity:
        return Reason.ORDER_QUANTITY_LIMIT
    if amount is not None and 0 < limits.order_notional < amount:
        return Reason.ORDER_NOTIONAL_LIMIT
    if stays and order.order_type in PRICED and amount is not None and limits.open_notional:
        quote = state.instruments[order.instrument].quote_asset
        if open_notional(state, others, quote) + amount > limits.open_notional:
            return Reason.OPEN_NOTIONAL_LIMIT
    return Reason.NONE


def open_notional(state: State, orders: list[Order], quote_asset: int) -> int:
    listed = [(order, state.instruments[order.instrument]) for order in orders]
    return sum(
        instrument.notional(order.price, order.leaves)
        for order, instrument in listed
        if instrument.quote_asset == quote_asset
    )


def combination(order: Order) -> Reason:
    """Check for combinations that the record can express and the venue does not offer."""
    gtc, ioc, fok, gtd = TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK, TimeInForce.GTD
    tifs: dict[OrderType, tuple[TimeInForce, ...]] = {
        OrderType.LIMIT: (gtc, ioc, fok, gtd),
        OrderType.MARKET: (ioc,),
        OrderType.STOP: (ioc, gtd),
        OrderType.STOP_LIMIT: (gtc, ioc, fok, gtd),
    }
    may_rest = order.order_type in PRICED and order.tif in (gtc, gtd)
    supported = (
        order.tif in tifs[order.order_type]
        and ((may_rest and not order.is_stop) or not order.flags & OrderFlags.POST_ONLY)
        and (may_rest or not order.display)
        and (not order.is_budget or is_budget_supported(order))
    )
    return Reason.NONE if supported else Reason.UNSUPPORTED_COMBINATION


def is_budget_supported(order: Order) -> bool:
    """Whether a budget order is supported: a budget counts money, and DECREMENT counts lots."""
    return order.order_type is OrderType.MARKET and order.side is Side.BUY and order.stp is not Stp.DECREMENT


def rules(instrument: Instrument) -> bool:
    """Whether an instrument's rules are within their bounds."""
    asked = instrument.rules
    bounds = (
        0 <= asked.min_price <= instrument.max_price
        and 0 <= asked.min_quantity <= instrument.max_quantity
        and 0 <= asked.min_notional < AMOUNT_LIMIT
        and 0 <= asked.max_notional < AMOUNT_LIMIT
        and (asked.max_notional == 0 or asked.min_notional <= asked.max_notional)
    )
    charges = asked.taker_fee <= 1_000_000 and -asked.taker_fee <= asked.maker_fee <= asked.taker_fee
    _, largest_hold = instrument.hold(Side.BUY, instrument.max_price, instrument.max_quantity)
    collar = (
        asked.collar_bp <= 10_000 and asked.collar_reference in set(CollarReference) and asked.flags <= ALL_RULE_FLAGS
    )
    return bounds and charges and asked.band_bp <= 10_000 and collar and largest_hold < AMOUNT_LIMIT
