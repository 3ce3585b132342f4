"""The oracle's output: events while it handles a command, and one outcome at the end."""

from smrx.wire.codes import EventKind, OutcomeStatus, Reason
from tests.oracle.messages import Command, Event, Outcome
from tests.oracle.records import Order
from tests.oracle.state import State


class Reporter:
    def __init__(self) -> None:
        self.state = State()
        #: The present command and the events it has caused so far.
        self.command = Command(*[0] * len(Command._fields))
        self.events: list[Event] = []

    def emit(self, kind: EventKind, **fields: int) -> int:
        """Add an event of the present command; return its sequence."""
        self.state.event_sequence += 1
        self.events.append(
            Event(
                self.state.event_sequence,
                self.state.sequence,
                self.state.time_ns,
                kind,
                session_id=self.command.session_id,
                request_id=self.command.request_id,
                **fields,
            )
        )
        return self.state.event_sequence

    def emit_order(self, kind: EventKind, order: Order, reason: Reason = Reason.NONE) -> int:
        """Add an order event other than a fill."""
        gone = kind in (EventKind.CANCELLED, EventKind.EXPIRED)
        return self.emit(
            kind,
            **self.order_fields(order),
            reason=reason,
            price_ticks=order.price,
            # The quantity of an ended budget order is the lots it bought.
            quantity_lots=order.cum if gone and order.is_budget else order.quantity,
            cum_lots=order.cum,
            leaves_lots=0 if gone else order.leaves,
        )

    def emit_fill(self, order: Order, price: int, lots: int) -> int:
        return self.emit(
            EventKind.FILLED if order.is_filled else EventKind.PARTIALLY_FILLED,
            **self.order_fields(order),
            match_id=self.state.match_sequence,
            price_ticks=price,
            quantity_lots=lots,
            cum_lots=order.cum,
            leaves_lots=order.leaves,
        )

    def order_fields(self, order: Order) -> dict[str, int]:
        return {
            "side": order.side,
            "order_type": order.order_type,
            "tif": order.tif,
            "stp": order.stp,
            "flags": order.flags,
            "account": order.account,
            "instrument": order.instrument,
            "order_id": order.order_id,
            "counter_order_id": order.extra,
            "client_order_id": order.client_order_id,
        }

    def outcome(
        self, kind: EventKind, reason: Reason = Reason.NONE, order_id: int = 0, cum: int = 0, leaves: int = 0
    ) -> Outcome:
        rejected = kind == EventKind.REJECTED
        return Outcome(
            OutcomeStatus.REJECTED if rejected else OutcomeStatus.ACCEPTED,
            kind,
            reason,
            len(self.events),
            self.command.session_id,
            self.command.request_id,
            self.state.sequence,
            order_id,
            self.events[0].sequence,
            cum,
            leaves,
        )

    def reject(self, reason: Reason) -> Outcome:
        command = self.command
        copied = (
            *("side", "order_type", "tif", "stp", "flags", "account", "instrument"),
            *("order_id", "client_order_id", "price_ticks", "quantity_lots"),
        )
        self.emit(
            EventKind.REJECTED,
            reason=reason,
            command_kind=command.kind,
            **{name: getattr(command, name) for name in copied},
        )
        return self.outcome(EventKind.REJECTED, reason)
