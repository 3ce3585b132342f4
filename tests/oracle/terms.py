"""What an order may ask for: its price, quantity, display, expiry, worth and the limits of its account.

Judges an order as it would be, after PLACE or REPLACE; changes nothing. Called by refusals.py.
"""

from smrx.wire.codes import (
    OrderFlags,
    OrderType,
    Reason,
    Side,
    Stp,
    TimeInForce,
)
from tests.oracle.records import NANOSECONDS, TOO_MUCH, Instrument, Order
from tests.oracle.state import State

#: An iceberg refreshes at most so often: no single order may cause events without end.
MOST_REFRESHES = 1_000

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
    if order.is_stop and not lowest <= order.extra <= instrument.max_price:
        return Reason.INVALID_STOP_PRICE
    return Reason.NONE


def band(state: State, order: Order) -> Reason:
    instrument = state.instruments[order.instrument]
    reference = {OrderType.LIMIT: instrument.last_price, OrderType.STOP_LIMIT: order.extra}.get(order.order_type)
    if instrument.rules.band_bp == 0 or reference is None:
        return Reason.NONE
    width = reference * instrument.rules.band_bp // 10_000
    return Reason.PRICE_OUTSIDE_BAND if abs(order.price - reference) > width else Reason.NONE


def quantity(state: State, order: Order) -> Reason:
    if order.is_budget:
        return Reason.NONE if 1 <= order.quantity < TOO_MUCH else Reason.INVALID_QUANTITY
    instrument = state.instruments[order.instrument]
    # The new quantity of an order that has traded must leave something to do; of a new one, be anything at all.
    if order.quantity <= order.cum:
        return Reason.INVALID_QUANTITY
    if order.quantity < instrument.rules.min_quantity:
        return Reason.QUANTITY_BELOW_MINIMUM
    return Reason.QUANTITY_ABOVE_MAXIMUM if order.quantity > instrument.max_quantity else Reason.NONE


def display(state: State, order: Order) -> Reason:
    if order.display and not order.display < order.quantity <= MOST_REFRESHES * order.display:
        return Reason.INVALID_DISPLAY
    return Reason.NONE


def expiry(state: State, order: Order) -> Reason:
    if order.expiry_ns is None:
        return Reason.NONE
    past = order.expiry_ns < NANOSECONDS or order.expiry_ns <= state.time_ns
    return Reason.INVALID_EXPIRY if past else Reason.NONE


def worth(state: State, order: Order) -> int | None:
    """The notional of an order before it trades, as far as that can be known."""
    if order.is_budget:
        return order.quantity
    if order.order_type in PRICED:
        return state.instruments[order.instrument].notional(order.price, order.quantity)
    return None


def notional(state: State, order: Order) -> Reason:
    rules = state.instruments[order.instrument].rules
    amount = worth(state, order)
    if amount is None:
        return Reason.NONE
    if amount < rules.min_notional:
        return Reason.NOTIONAL_BELOW_MINIMUM
    return Reason.NOTIONAL_ABOVE_MAXIMUM if 0 < rules.max_notional < amount else Reason.NONE


CHECKS_OF_PLACE = (price, stop_price, band, quantity, display, expiry, notional)
#: The stop price and the expiry of an order stay what they were when it was entered.
CHECKS_OF_REPLACE = (price, band, quantity, display, notional)


def account_limits(state: State, order: Order, others: list[Order]) -> Reason:
    """An order against the limits of its account, whose other open orders are given."""
    limits = state.accounts[order.account].limits
    amount = worth(state, order)
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
    """What the record can say and the venue does not do."""
    gtc, ioc, fok, gtd = TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK, TimeInForce.GTD
    tifs: dict[OrderType, tuple[TimeInForce, ...]] = {
        OrderType.LIMIT: (gtc, ioc, fok, gtd),
        OrderType.MARKET: (ioc,),
        OrderType.STOP: (ioc,),
        OrderType.STOP_LIMIT: (gtc, ioc, fok),
    }
    may_rest_at_once = order.order_type is OrderType.LIMIT and order.tif in (gtc, gtd)
    supported = (
        order.tif in tifs[order.order_type]
        and (may_rest_at_once or not order.flags & OrderFlags.POST_ONLY)
        and (may_rest_at_once or not order.display)
        and (not order.is_budget or is_market_buy_that_may_spend(order))
    )
    return Reason.NONE if supported else Reason.UNSUPPORTED_COMBINATION


def is_market_buy_that_may_spend(order: Order) -> bool:
    """A budget counts money, and DECREMENT counts lots."""
    return order.order_type is OrderType.MARKET and order.side is Side.BUY and order.stp is not Stp.DECREMENT


def rules(instrument: Instrument) -> bool:
    """Whether an instrument with these rules is one that can be traded and reckoned with."""
    asked = instrument.rules
    bounds = (
        0 <= asked.min_price <= instrument.max_price
        and 0 <= asked.min_quantity <= instrument.max_quantity
        and 0 <= asked.min_notional < TOO_MUCH
        and 0 <= asked.max_notional < TOO_MUCH
        and (asked.max_notional == 0 or asked.min_notional <= asked.max_notional)
    )
    charges = asked.taker_fee <= 1_000_000 and -asked.taker_fee <= asked.maker_fee <= asked.taker_fee
    _, dearest = instrument.hold(Side.BUY, instrument.max_price, instrument.max_quantity)
    return bounds and charges and asked.band_bp <= 10_000 and dearest < TOO_MUCH
