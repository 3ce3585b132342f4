"""PLACE, CANCEL, REPLACE, MASS_CANCEL, expiry and triggered stops in the oracle."""

from collections import deque

from smrx.wire.codes import CommandKind, EventKind, OrderType, Reason, Side, TimeInForce
from tests.oracle.matching import Matching, OrderResult
from tests.oracle.messages import Outcome
from tests.oracle.records import Order

TRIGGERED_TYPE = {OrderType.STOP: OrderType.MARKET, OrderType.STOP_LIMIT: OrderType.LIMIT}


class Orders(Matching):
    def place(self) -> Outcome:
        order = self.state.order_from(self.command)
        if self.state.is_unfillable(order):
            self.emit_unfillable(order)
            return self.answer(order, OrderResult(EventKind.EXPIRED, Reason.FOK_UNFILLABLE, 0, 0))
        self.state.pairs |= self.state.pairs_of(order)
        order.priority = self.emit_new(order)
        if order.is_stop:
            self.take_hold(order)
            self.state.orders[order.order_id] = order
            return self.answer(order, OrderResult(EventKind.NEW, Reason.NONE, 0, order.leaves))
        return self.execute_and_trigger(order, EventKind.NEW)

    def execute_and_trigger(self, order: Order, resting_kind: EventKind) -> Outcome:
        before = order.cum
        ending = self.execute(order, resting_kind)
        if order.cum > before:
            self.trigger_stops(order.instrument)
        return self.answer(order, ending)

    def answer(self, order: Order, ending: OrderResult) -> Outcome:
        return self.outcome(ending.kind, ending.reason, order.order_id, ending.cum, ending.leaves)

    def cancel(self) -> Outcome:
        order = self.named_order()
        self.cancel_order(order, Reason.REQUESTED)
        return self.outcome(EventKind.CANCELLED, order_id=order.order_id, cum=order.cum)

    def named_order(self) -> Order:
        order = self.state.named_order(self.command)
        assert order is not None
        return order

    def replace(self) -> Outcome:
        order, command = self.named_order(), self.command
        if order.keeps_place(command.price_ticks, command.quantity_lots):
            self.reduce_order(order, order.quantity - command.quantity_lots)
            self.emit_order(EventKind.REPLACED, order)
            return self.answer(order, OrderResult(EventKind.REPLACED, Reason.NONE, order.cum, order.leaves))
        self.release_hold(order, order.leaves)
        if order.is_stop:
            order.price, order.quantity = command.price_ticks, command.quantity_lots
            self.take_hold(order)
            self.emit_order(EventKind.REPLACED, order)
            return self.answer(order, OrderResult(EventKind.REPLACED, Reason.NONE, order.cum, order.leaves))
        self.remove_order(order)
        order.price, order.quantity = command.price_ticks, command.quantity_lots
        order.priority = self.emit_order(EventKind.REPLACED, order)
        return self.execute_and_trigger(order, EventKind.REPLACED)

    def mass_cancel(self) -> Outcome:
        command = self.command
        own = [order for _, order in sorted(self.state.orders.items()) if order.account == command.account]
        wanted = [
            order
            for order in own
            if command.instrument in (0, order.instrument) and command.side in (Side.ANY, order.side)
        ]
        chosen = self.state.most_cancels(wanted)
        full = self.state.has_bounds and len(chosen) == 256
        left = [order for order in own if full and order.order_id > chosen[-1].order_id]
        for order in chosen:
            self.cancel_order(order, Reason.MASS_CANCEL)
        self.emit(
            EventKind.MASS_CANCELLED,
            account=command.account,
            instrument=command.instrument,
            side=command.side,
            cancelled=len(chosen),
        )
        return self.outcome(EventKind.MASS_CANCELLED, cum=len(chosen), leaves=len(left))

    # Time.

    def expire_orders(self) -> None:
        """Expire due orders, the earliest time first, then the oldest: a bounded number when the time has advanced."""
        due = sorted(
            (order.expiry_ns, order.order_id)
            for order in self.state.orders.values()
            if order.expiry_ns is not None and order.expiry_ns <= self.state.time_ns
        )
        if self.state.has_bounds:
            may = self.state.time_ns > self.before_ns or self.command.kind == CommandKind.TICK
            self.state.late_expiries = len(due) - (256 if may else 0)
            due = due[:256] if may else []
        for _, order_id in due:
            order = self.state.orders[order_id]
            self.release_hold(order, order.leaves)
            self.remove_order(order)
            self.expire(order, Reason.TIME_REACHED)

    # Stops.

    def trigger_stops(self, instrument: int) -> None:
        """After a taker that traded: trigger stops whose price is reached, and those that their trades reach."""
        waiting = deque(self.elect(instrument, ()))
        while waiting:
            order = waiting.popleft()
            if self.trigger(order):
                waiting.extend(self.elect(instrument, waiting))

    def elect(self, instrument: int, elected: "tuple[()] | deque[Order]") -> list[Order]:
        """Return the stops that are due and not elected yet: the greatest distance first, then the oldest."""
        last = self.state.instruments[instrument].last_price
        assert last is not None
        due = [order for order in self.state.stops(instrument) if self.state.is_due(order) and order not in elected]
        return sorted(due, key=lambda order: (-abs(last - order.stop_price), order.order_id))

    def trigger(self, order: Order) -> bool:
        """Turn a stop order into a market or limit order and match it; return whether it traded."""
        self.release_hold(order, order.leaves)
        self.remove_order(order)
        order.order_type = TRIGGERED_TYPE[order.order_type]
        order.terms = order.terms._replace(stop_price=0)
        order.priority = self.emit_order(EventKind.TRIGGERED, order)
        if order.tif is TimeInForce.FOK and self.state.is_unfillable(order):
            self.expire(order, Reason.FOK_UNFILLABLE)
        else:
            self.execute(order, EventKind.TRIGGERED)
        return order.cum > 0
