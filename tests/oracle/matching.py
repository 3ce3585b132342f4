"""Matching in the oracle: a taker against the book, self-trade prevention, and settlement of the trades.

Each step is a method of its own, so that a test can break one on purpose and check that a comparison notices it.
"""

from typing import NamedTuple

from smrx.wire.codes import (
    CollarReference,
    EventKind,
    OrderType,
    Reason,
    Side,
    Stp,
    TimeInForce,
)
from tests.oracle.book import OPPOSITE, Book, crosses
from tests.oracle.records import Balance, Order, fee
from tests.oracle.reporting import Reporter

VENUE = 0


class OrderResult(NamedTuple):
    """The state of an order when its matching is over."""

    kind: EventKind
    reason: Reason
    cum: int
    leaves: int


class Matching(Reporter):
    make_book = Book

    def execute(self, order: Order, resting_kind: EventKind) -> OrderResult:
        """Match an announced order, then rest or expire its remainder.

        `resting_kind` is its event kind if it rests without having traded.
        """
        before = order.cum
        self.take_hold(order)
        order.worst_price = self.worst_price(order)
        stopped = self.match(order)
        if order.is_filled:
            return OrderResult(EventKind.FILLED, Reason.NONE, order.cum, 0)
        if stopped is None and self.may_rest(order):
            self.rest(order)
            kind = EventKind.PARTIALLY_FILLED if order.cum > before else resting_kind
            return OrderResult(kind, Reason.NONE, order.cum, order.leaves)
        self.release_hold(order, order.leaves)
        if stopped is None:
            stopped = self.reason_without_maker(order)
        return self.expire(order, stopped)

    def worst_price(self, order: Order) -> int | None:
        """Return the worst price that the collar of a market order allows, None if there is no collar."""
        instrument = self.state.instruments[order.instrument]
        rules = instrument.rules
        if order.order_type is not OrderType.MARKET or not rules.collar_bp:
            return None
        reference = self.state.books[order.instrument].best_price(OPPOSITE[order.side])
        if rules.collar_reference == CollarReference.LAST_TRADE:
            reference = instrument.last_price
        if reference is None:
            return None
        width = reference * rules.collar_bp // 10_000
        return reference + width if order.side is Side.BUY else reference - width

    def reason_without_maker(self, order: Order) -> Reason:
        """Return why an order without an acceptable maker ends."""
        if order.order_type is not OrderType.MARKET:
            return Reason.IOC_REMAINDER
        beyond = self.state.books[order.instrument].best_price(OPPOSITE[order.side]) is not None
        return Reason.COLLAR_REACHED if beyond else Reason.NO_LIQUIDITY

    def may_rest(self, order: Order) -> bool:
        return order.order_type is OrderType.LIMIT and order.tif in (TimeInForce.GTC, TimeInForce.GTD)

    def rest(self, order: Order) -> None:
        self.state.orders[order.order_id] = order
        self.state.books[order.instrument].add(order)

    def remove_order(self, order: Order) -> None:
        """Remove an open order from its book, if it is in one, and from the open orders."""
        if not order.is_stop:
            self.state.books[order.instrument].remove(order)
        del self.state.orders[order.order_id]

    def expire(self, order: Order, reason: Reason) -> OrderResult:
        self.emit_order(EventKind.EXPIRED, order, reason)
        return OrderResult(EventKind.EXPIRED, reason, order.cum, 0)

    def cancel_order(self, order: Order, reason: Reason) -> None:
        self.release_hold(order, order.leaves)
        self.remove_order(order)
        self.emit_order(EventKind.CANCELLED, order, reason)

    # The loop over the makers.

    def match(self, taker: Order) -> Reason | None:
        """Fill the taker from the book; return what stopped it while an acceptable maker remained, if anything did."""
        book = self.state.books[taker.instrument]
        taker.spendable = self.spendable_amount(taker)
        while not taker.is_filled:
            maker = self.next_maker(book, taker)
            if maker is None:
                return None
            if self.is_self_trade(taker, maker):
                if self.prevent_self_trade(taker, maker):
                    return Reason.SELF_TRADE
                continue
            lots = min(maker.visible, self.takeable_lots(taker, maker.price))
            if lots == 0:
                return self.unaffordable_reason(taker, maker.price)
            self.trade(taker, maker, lots)
        return None

    def next_maker(self, book: Book, taker: Order) -> Order | None:
        maker = book.first(OPPOSITE[taker.side])
        return maker if maker and crosses(taker, maker.price) else None

    def spendable_amount(self, taker: Order) -> int:
        """Return what a market buy may spend: what is available when it starts, at most its budget."""
        if not taker.is_market_buy:
            return 0
        available = self.state.available(taker.account, self.state.instruments[taker.instrument].quote_asset)
        return min(available, taker.quantity) if taker.is_budget else available

    def takeable_lots(self, taker: Order, price: int) -> int:
        """Return the lots that the taker wants and can pay at a price; a limit order's hold covers all of them."""
        if not taker.is_market_buy:
            return taker.leaves
        affordable = self.state.instruments[taker.instrument].affordable(price, taker.spendable - taker.spent)
        return affordable if taker.is_budget else min(affordable, taker.leaves)

    def unaffordable_reason(self, taker: Order, price: int) -> Reason:
        """Return whether the budget or the available balance does not pay for one more lot."""
        one = self.state.instruments[taker.instrument].cost_to_take(price, 1)
        return Reason.BUDGET_SPENT if taker.is_budget and one > taker.quantity - taker.spent else Reason.FUNDS_EXHAUSTED

    def trade(self, taker: Order, maker: Order, lots: int) -> None:
        state = self.state
        price = maker.price
        instrument = state.instruments[taker.instrument]
        notional = instrument.notional(price, lots)
        fees = {"taker": fee(notional, instrument.rules.taker_fee), "maker": fee(notional, instrument.rules.maker_fee)}
        state.match_sequence += 1
        instrument.last_price = price
        taker.cum += lots
        maker.cum += lots
        if maker.display:
            maker.shown -= lots
        if taker.is_market_buy:
            taker.spent += notional + fees["taker"]
            rest = taker.quantity - taker.spent
            taker.budget_done = taker.is_budget and rest < instrument.cost_to_take(price, 1)
        self.emit(
            EventKind.TRADE,
            side=taker.side,
            instrument=taker.instrument,
            account=taker.account,
            order_id=taker.order_id,
            counter_account=maker.account,
            counter_order_id=maker.order_id,
            match_id=state.match_sequence,
            price_ticks=price,
            quantity_lots=lots,
            taker_fee=fees["taker"],
            maker_fee=fees["maker"],
        )
        maker_event = self.emit_fill(maker, price, lots)
        self.emit_fill(taker, price, lots)
        for order, own_fee in ((taker, fees["taker"]), (maker, fees["maker"])):
            self.settle(order, price, lots, own_fee)
        self.credit(VENUE, instrument.quote_asset, fees["taker"] + fees["maker"])
        if maker.leaves == 0:
            self.remove_order(maker)
        elif maker.display and maker.shown == 0:
            self.refresh(maker, maker_event)

    def refresh(self, iceberg: Order, event_sequence: int) -> None:
        self.state.books[iceberg.instrument].refresh(iceberg)
        iceberg.priority = event_sequence

    # Self-trade prevention.

    def is_self_trade(self, taker: Order, maker: Order) -> bool:
        return taker.account == maker.account and taker.stp is not Stp.NONE

    def prevent_self_trade(self, taker: Order, maker: Order) -> bool:
        """Apply the taker's mode; return whether the taker stops."""
        if taker.stp is Stp.DECREMENT:
            return self.decrement(taker, maker)
        if taker.stp in (Stp.CANCEL_OLDEST, Stp.CANCEL_BOTH):
            self.cancel_order(maker, Reason.SELF_TRADE)
        return taker.stp in (Stp.CANCEL_NEWEST, Stp.CANCEL_BOTH)

    def decrement(self, taker: Order, maker: Order) -> bool:
        """Reduce both orders by the overlap; the smaller one ends."""
        overlap = min(taker.leaves, maker.leaves)
        if maker.leaves == overlap:
            self.cancel_order(maker, Reason.SELF_TRADE)
        else:
            self.reduce_order(maker, overlap)
            self.emit_order(EventKind.REPLACED, maker, Reason.SELF_TRADE)
        if taker.leaves == overlap:
            return True
        self.reduce_order(taker, overlap)
        self.emit_order(EventKind.REPLACED, taker, Reason.SELF_TRADE)
        return False

    def reduce_order(self, order: Order, lots: int) -> None:
        """Reduce an order in place."""
        self.release_hold(order, lots)
        order.quantity -= lots
        order.shown = min(order.shown, order.leaves)

    # Money.

    def settle(self, order: Order, price: int, lots: int, own_fee: int) -> None:
        instrument = self.state.instruments[order.instrument]
        notional = instrument.notional(price, lots)
        self.move_hold(order, -lots)
        if order.side is Side.BUY:
            self.state.balances[order.account, instrument.quote_asset].available -= notional + own_fee
            self.credit(order.account, instrument.base_asset, lots * instrument.lot_units)
        else:
            self.state.balances[order.account, instrument.base_asset].available -= lots * instrument.lot_units
            self.credit(order.account, instrument.quote_asset, notional - own_fee)

    def credit(self, account: int, asset: int, amount: int) -> None:
        """Add to the available balance; the first amount that is not 0 creates the balance."""
        if amount:
            self.state.balances.setdefault((account, asset), Balance(account, asset)).available += amount

    def take_hold(self, order: Order) -> None:
        self.move_hold(order, order.leaves)

    def release_hold(self, order: Order, lots: int) -> None:
        self.move_hold(order, -lots)

    def move_hold(self, order: Order, lots: int) -> None:
        asset, amount = self.state.hold(order, lots)
        if amount:
            balance = self.state.balances[order.account, asset]
            balance.available -= amount
            balance.held += amount
