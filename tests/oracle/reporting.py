"""The oracle's output: events while it handles a command, and one outcome at the end."""

from smrx.wire.codes import CommandKind, EventKind, OutcomeStatus, Reason
from tests.oracle.messages import Command, Event, Outcome, event
from tests.oracle.records import SHORT_ID, Order, id_form
from tests.oracle.state import State

OF_ORDERS = (CommandKind.PLACE, CommandKind.CANCEL, CommandKind.REPLACE)
#: Reasons that leave open what a command means.
MALFORMED = (
    *(Reason.UNKNOWN_KIND, Reason.INVALID_DETAILS, Reason.RESERVED_NOT_ZERO, Reason.INVALID_SIDE),
    *(Reason.INVALID_ORDER_TYPE, Reason.INVALID_TIME_IN_FORCE, Reason.INVALID_STP, Reason.INVALID_FLAGS),
    *(Reason.INVALID_ID, Reason.INVALID_STATUS, Reason.INVALID_CLIENT_ORDER_ID),
)


class Reporter:
    make_state = State

    def __init__(self) -> None:
        self.state = self.make_state()
        #: The present command and the events it has caused so far.
        self.command = Command()
        self.events: list[Event] = []
        #: The credential behind the command.
        self.credential = 0

    def emit(self, kind: EventKind, **fields: int | bytes) -> int:
        """Add an event of the present command; return its sequence."""
        self.state.event_sequence += 1
        header = {
            "sequence": self.state.event_sequence,
            "command_sequence": self.state.sequence,
            "time_ns": self.state.time_ns,
            "session_id": self.command.session_id,
            "request_id": self.command.request_id,
        }
        self.events.append(event(kind, {**header, **fields}, self.credential))
        return self.state.event_sequence

    def emit_order(self, kind: EventKind, order: Order, reason: Reason = Reason.NONE) -> int:
        """Add an event of an order that is known already, other than a fill."""
        gone = kind in (EventKind.CANCELLED, EventKind.EXPIRED)
        return self.emit(
            kind,
            **self.order_fields(order),
            **({} if kind is EventKind.TRIGGERED else {"reason": reason}),
            price_ticks=order.price,
            # The quantity of an ended budget order is the lots it bought.
            quantity_lots=order.cum if gone and order.is_budget else order.quantity,
            cum_lots=order.cum,
            leaves_lots=0 if gone else order.leaves,
        )

    def emit_new(self, order: Order) -> int:
        """Add NEW and what follows it; return the sequence of NEW."""
        following = self.following(order)
        first = self.emit(
            EventKind.NEW,
            **self.order_fields(order),
            price_ticks=order.price,
            quantity_lots=order.quantity,
            leaves_lots=order.leaves,
            following=len(following),
        )
        self.emit_following(following, order)
        return first

    def emit_unfillable(self, order: Order) -> None:
        """Add the only event of a fill-or-kill order that cannot fill, and what follows it."""
        following = self.following(order)
        self.emit(
            EventKind.EXPIRED,
            **self.order_fields(order),
            reason=Reason.FOK_UNFILLABLE,
            price_ticks=order.price,
            quantity_lots=order.quantity,
            following=len(following),
        )
        self.emit_following(following, order)

    def following(self, of: Order | Command) -> list[tuple[EventKind, dict[str, int | bytes]]]:
        """Return the kinds and fields of the events that tell a long client order id and the terms of an order."""
        found: list[tuple[EventKind, dict[str, int | bytes]]] = []
        if len(of.client_order_id) > SHORT_ID:
            found.append((EventKind.CLIENT_ORDER_ID, {"client_order_id": of.client_order_id}))
        if any(of.terms):
            stop_price, display, expiry = of.terms[:3]
            terms: dict[str, int | bytes] = {"stop_price_ticks": stop_price, "display_lots": display}
            found.append((EventKind.ORDER_TERMS, {**terms, "expiry_ns": expiry, "credential": of.terms.credential}))
        return found

    def emit_following(self, following: list[tuple[EventKind, dict[str, int | bytes]]], of: Order | Command) -> None:
        for kind, fields in following:
            self.emit(kind, order_id=of.order_id, instrument=of.instrument, account=of.account, **fields)

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

    def order_fields(self, order: Order) -> dict[str, int | bytes]:
        return {
            "side": order.side,
            "order_type": order.order_type,
            "tif": order.tif,
            "stp": order.stp,
            "flags": order.flags,
            "account": order.account,
            "instrument": order.instrument,
            "order_id": order.order_id,
            "client_order_id": id_form(order.client_order_id),
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
        """Report the command as it was sent; of a well-formed one of an order, what its details say, too."""
        command = self.command
        copied = (
            *("side", "order_type", "tif", "stp", "flags", "account", "instrument"),
            *("order_id", "client_order_id", "price_ticks", "quantity_lots"),
        )
        sent: dict[str, int | bytes] = {name: getattr(command.fields, name) for name in copied}
        following = []
        if command.kind in OF_ORDERS and reason not in MALFORMED:
            sent["client_order_id"] = id_form(command.client_order_id)
            following = self.following(command)
        self.emit(EventKind.REJECTED, reason=reason, command_kind=command.kind, following=len(following), **sent)
        self.emit_following(following, command)
        return self.outcome(EventKind.REJECTED, reason)
