"""The oracle: commands in, outcomes, events and hashes out, the slow and plain way.

The compiled engine must agree with it byte for byte. Each step is a method of its own, so that a test can break one
on purpose and see that the comparison notices.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from smrx.engine.codes import CommandKind, EventKind, OrderType, OutcomeStatus, Reason, Side, TimeInForce
from smrx.engine.records import COMMAND, EVENT, OUTCOME
from tests.oracle import refusals
from tests.oracle.book import OPPOSITE, Book, crosses
from tests.oracle.inspect import Inspect
from tests.oracle.invariants import violations
from tests.oracle.records import (
    Account,
    Asset,
    Balance,
    Command,
    Event,
    Instrument,
    Order,
    Outcome,
    Session,
    Transfer,
    hash_words,
)
from tests.oracle.state import State


class Result(NamedTuple):
    """The same three arrays the engine returns."""

    outcomes: NDArray[np.void]
    events: NDArray[np.void]
    hashes: NDArray[np.uint64]


class Oracle:
    make_book = Book

    def __init__(self) -> None:
        self.state = State()
        #: The command at work and what it has caused so far.
        self.command = Command(*[0] * len(Command._fields))
        self.events: list[Event] = []

    # What the engine answers too.

    @property
    def sequence(self) -> int:
        return self.state.sequence

    @property
    def event_sequence(self) -> int:
        return self.state.event_sequence

    @property
    def match_sequence(self) -> int:
        return self.state.match_sequence

    @property
    def trade_count(self) -> int:
        return self.state.match_sequence

    @property
    def time_ns(self) -> int:
        return self.state.time_ns

    @property
    def state_hash(self) -> int:
        return self.state.hash

    @property
    def inspect(self) -> Inspect:
        return Inspect(self.state)

    def content_digest(self) -> int:
        return self.state.content_digest()

    def content_digest_from_scratch(self) -> int:
        return self.state.content_digest()

    def check_invariants(self) -> list[str]:
        return violations(self.state)

    def apply(self, commands: NDArray[np.void] | Sequence[np.void], time_ns: int) -> Result:
        """Apply commands in order at a time stamp."""
        outcomes: list[Outcome] = []
        events: list[Event] = []
        hashes: list[int] = []
        for record in np.asarray(commands, dtype=COMMAND).reshape(-1):
            outcome, caused = self.apply_one(Command(*record.item()), time_ns)
            outcomes.append(outcome)
            events.extend(caused)
            hashes.append(self.state.hash)
        return Result(
            np.array(outcomes, dtype=OUTCOME), np.array(events, dtype=EVENT), np.array(hashes, dtype=np.uint64)
        )

    def apply_one(self, command: Command, stamp: int) -> tuple[Outcome, list[Event]]:
        state = self.state
        self.command, self.events = command, []
        if self.is_duplicate(command):
            last = state.sessions[command.session_id].last_request_id
            return (
                Outcome(
                    OutcomeStatus.DUPLICATE,
                    session_id=command.session_id,
                    request_id=command.request_id,
                    order_id=last,
                ),
                [],
            )
        state.sequence += 1
        state.time_ns = max(state.time_ns, stamp)
        reason = refusals.refusal(state, command)
        self.consume_request_id()
        outcome = self.reject(reason) if reason else self.carry_out()
        self.chain_hash()
        return outcome, self.events

    def is_duplicate(self, command: Command) -> bool:
        session = self.state.sessions.get(command.session_id)
        if session is None:
            return False
        if command.kind == CommandKind.OPEN_SESSION:
            return session.account == command.account
        return command.request_id <= session.last_request_id

    def consume_request_id(self) -> None:
        session = self.state.sessions.get(self.command.session_id)
        if session and self.command.request_id == session.last_request_id + 1:
            session.last_request_id = self.command.request_id

    def chain_hash(self) -> None:
        state = self.state
        events = xxhash.xxh3_64_intdigest(np.array(self.events, dtype=EVENT).tobytes())
        state.hash = hash_words((state.hash, state.content_digest(), events))

    # Saying what happened.

    def emit(self, kind: EventKind, **fields: int) -> None:
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

    def emit_order(self, kind: EventKind, order: Order, reason: Reason = Reason.NONE) -> None:
        """An event of an order's life other than a fill."""
        gone = kind in (EventKind.CANCELLED, EventKind.EXPIRED)
        self.emit(
            kind,
            **self.order_names(order),
            reason=reason,
            price_ticks=order.price,
            quantity_lots=order.quantity,
            cum_lots=order.cum,
            leaves_lots=0 if gone else order.leaves,
        )

    def emit_fill(self, order: Order, price: int, lots: int) -> None:
        self.emit(
            EventKind.PARTIALLY_FILLED if order.leaves else EventKind.FILLED,
            **self.order_names(order),
            match_id=self.state.match_sequence,
            price_ticks=price,
            quantity_lots=lots,
            cum_lots=order.cum,
            leaves_lots=order.leaves,
        )

    def order_names(self, order: Order) -> dict[str, int]:
        return {
            "side": order.side,
            "order_type": order.order_type,
            "tif": order.tif,
            "stp": order.stp,
            "flags": order.flags,
            "account": order.account,
            "instrument": order.instrument,
            "order_id": order.order_id,
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

    # What each kind does, once nothing speaks against it.

    def carry_out(self) -> Outcome:
        return {
            CommandKind.PLACE: self.place,
            CommandKind.CANCEL: self.cancel,
            CommandKind.REPLACE: self.replace,
            CommandKind.MASS_CANCEL: self.mass_cancel,
            CommandKind.DEPOSIT: self.deposit,
            CommandKind.WITHDRAW: self.withdraw,
            CommandKind.OPEN_ACCOUNT: self.open_account,
            CommandKind.OPEN_SESSION: self.open_session,
            CommandKind.CLOSE_SESSION: self.close_session,
            CommandKind.ADD_ASSET: self.add_asset,
            CommandKind.ADD_INSTRUMENT: self.add_instrument,
        }[CommandKind(self.command.kind)]()

    def place(self) -> Outcome:
        command = self.command
        order = Order(
            self.state.sequence,
            command.account,
            command.instrument,
            command.client_order_id,
            Side(command.side),
            OrderType(command.order_type),
            TimeInForce(command.tif),
            command.stp,
            command.flags,
            command.price_ticks,
            command.quantity_lots,
        )
        if self.state.is_unfillable_fok(command):
            return self.expire(order, Reason.FOK_UNFILLABLE)
        self.take_hold(order)
        self.emit_order(EventKind.NEW, order)
        stopped = self.match(order)
        if order.leaves == 0:
            return self.outcome(EventKind.FILLED, order_id=order.order_id, cum=order.cum)
        if stopped is None and self.may_rest(order):
            self.state.orders[order.order_id] = order
            self.state.books[order.instrument].add(order)
            kind = EventKind.PARTIALLY_FILLED if order.cum else EventKind.NEW
            return self.outcome(kind, order_id=order.order_id, cum=order.cum, leaves=order.leaves)
        self.release_hold(order, order.leaves)
        if stopped is None:
            stopped = Reason.NO_LIQUIDITY if order.order_type is OrderType.MARKET else Reason.IOC_REMAINDER
        return self.expire(order, stopped)

    def may_rest(self, order: Order) -> bool:
        return order.order_type is OrderType.LIMIT and order.tif is TimeInForce.GTC

    def expire(self, order: Order, reason: Reason) -> Outcome:
        self.emit_order(EventKind.EXPIRED, order, reason)
        return self.outcome(EventKind.EXPIRED, reason, order.order_id, order.cum)

    def match(self, taker: Order) -> Reason | None:
        """Fill the taker from the book; return what stopped it while a maker stood ready, if anything did."""
        book = self.state.books[taker.instrument]
        while taker.leaves:
            maker = self.next_maker(book, taker)
            if maker is None:
                return None
            if self.is_self_trade(taker, maker):
                return Reason.SELF_TRADE
            lots = min(taker.leaves, maker.leaves, self.affordable_lots(taker, maker.price))
            if lots == 0:
                return Reason.FUNDS_EXHAUSTED
            self.trade(taker, maker, lots)
        return None

    def next_maker(self, book: Book, taker: Order) -> Order | None:
        maker = book.first(OPPOSITE[taker.side])
        if maker is None:
            return None
        if taker.order_type is OrderType.LIMIT and not crosses(taker.side, taker.price, maker.price):
            return None
        return maker

    def is_self_trade(self, taker: Order, maker: Order) -> bool:
        return taker.account == maker.account

    def affordable_lots(self, taker: Order, price: int) -> int:
        """Lots the taker has money for; all of them where its hold covers them."""
        if taker.order_type is OrderType.LIMIT or taker.side is Side.SELL:
            return taker.leaves
        instrument = self.state.instruments[taker.instrument]
        return self.state.available(taker.account, instrument.quote_asset) // (price * instrument.scale_units)

    def trade(self, taker: Order, maker: Order, lots: int) -> None:
        state = self.state
        price = maker.price
        state.match_sequence += 1
        taker.cum += lots
        maker.cum += lots
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
        )
        self.emit_fill(maker, price, lots)
        self.emit_fill(taker, price, lots)
        buyer, seller = (taker, maker) if taker.side is Side.BUY else (maker, taker)
        self.settle_buyer(buyer, price, lots)
        self.settle_seller(seller, price, lots)
        if maker.leaves == 0:
            self.forget(maker)

    def settle_buyer(self, buyer: Order, price: int, lots: int) -> None:
        instrument = self.state.instruments[buyer.instrument]
        quote = self.state.balances[buyer.account, instrument.quote_asset]
        if buyer.order_type is OrderType.MARKET:
            quote.available -= price * lots * instrument.scale_units
        else:
            quote.held -= buyer.price * lots * instrument.scale_units
            quote.available += self.improvement(buyer.price, price) * lots * instrument.scale_units
        self.credit(buyer.account, instrument.base_asset, lots * instrument.lot_units)

    def improvement(self, limit: int, price: int) -> int:
        """Ticks the buyer was ready to pay and need not."""
        return limit - price

    def settle_seller(self, seller: Order, price: int, lots: int) -> None:
        instrument = self.state.instruments[seller.instrument]
        self.state.balances[seller.account, instrument.base_asset].held -= lots * instrument.lot_units
        self.credit(seller.account, instrument.quote_asset, price * lots * instrument.scale_units)

    def credit(self, account: int, asset: int, amount: int) -> Balance:
        """Add to what is available; the first credit brings the balance to life."""
        balance = self.state.balances.setdefault((account, asset), Balance(account, asset))
        balance.available += amount
        return balance

    def take_hold(self, order: Order) -> None:
        self.move_hold(order, order.quantity)

    def release_hold(self, order: Order, lots: int) -> None:
        self.move_hold(order, -lots)

    def move_hold(self, order: Order, lots: int) -> None:
        if order.order_type is OrderType.MARKET and order.side is Side.BUY:
            return
        asset, amount = self.state.hold(order.side, self.state.instruments[order.instrument], order.price, lots)
        balance = self.state.balances[order.account, asset]
        balance.available -= amount
        balance.held += amount

    def forget(self, order: Order) -> None:
        """Take a resting order from the book and from the open orders."""
        self.state.books[order.instrument].remove(order)
        del self.state.orders[order.order_id]

    def cancel(self) -> Outcome:
        order = self.named_order()
        self.cancel_order(order, Reason.REQUESTED)
        return self.outcome(EventKind.CANCELLED, order_id=order.order_id, cum=order.cum)

    def named_order(self) -> Order:
        order = self.state.named_order(self.command)
        assert order is not None
        return order

    def cancel_order(self, order: Order, reason: Reason) -> None:
        self.release_hold(order, order.leaves)
        self.forget(order)
        self.emit_order(EventKind.CANCELLED, order, reason)

    def replace(self) -> Outcome:
        order = self.named_order()
        # A smaller quantity keeps its place: queue position is property.
        self.release_hold(order, order.quantity - self.command.quantity_lots)
        order.quantity = self.command.quantity_lots
        self.emit_order(EventKind.REPLACED, order)
        return self.outcome(EventKind.REPLACED, order_id=order.order_id, cum=order.cum, leaves=order.leaves)

    def mass_cancel(self) -> Outcome:
        command = self.command
        chosen = [
            order
            for _, order in sorted(self.state.orders.items())
            if order.account == command.account
            and command.instrument in (0, order.instrument)
            and command.side in (Side.ANY, order.side)
        ]
        for order in chosen:
            self.cancel_order(order, Reason.MASS_CANCEL)
        self.emit(
            EventKind.MASS_CANCELLED,
            account=command.account,
            instrument=command.instrument,
            side=command.side,
            quantity_lots=len(chosen),
        )
        return self.outcome(EventKind.MASS_CANCELLED, cum=len(chosen))

    def deposit(self) -> Outcome:
        return self.transfer(EventKind.DEPOSITED, self.command.quantity_lots)

    def withdraw(self) -> Outcome:
        return self.transfer(EventKind.WITHDRAWN, -self.command.quantity_lots)

    def transfer(self, kind: EventKind, amount: int) -> Outcome:
        command = self.command
        balance = self.credit(command.account, command.instrument, amount)
        self.state.assets[command.instrument].supply += amount
        self.state.transfers[command.order_id] = Transfer(
            command.kind, command.order_id, command.account, command.instrument, command.quantity_lots
        )
        self.emit(
            kind,
            account=command.account,
            instrument=command.instrument,
            order_id=command.order_id,
            quantity_lots=command.quantity_lots,
            cum_lots=balance.available,
        )
        return self.outcome(kind, order_id=command.order_id, cum=balance.available)

    def open_account(self) -> Outcome:
        self.state.accounts[self.command.account] = Account(self.command.account)
        self.emit(EventKind.ACCOUNT_OPENED, account=self.command.account)
        return self.outcome(EventKind.ACCOUNT_OPENED)

    def open_session(self) -> Outcome:
        command = self.command
        self.state.sessions[command.session_id] = Session(command.session_id, command.account)
        self.emit(EventKind.SESSION_OPENED, account=command.account)
        return self.outcome(EventKind.SESSION_OPENED)

    def close_session(self) -> Outcome:
        session = self.state.sessions.pop(self.command.session_id)
        self.emit(EventKind.SESSION_CLOSED, account=session.account)
        return self.outcome(EventKind.SESSION_CLOSED)

    def add_asset(self) -> Outcome:
        command = self.command
        self.state.assets[command.instrument] = Asset(command.instrument, command.symbol, command.quantity_lots)
        self.emit(
            EventKind.ASSET_ADDED,
            instrument=command.instrument,
            client_order_id=command.symbol,
            quantity_lots=command.quantity_lots,
        )
        return self.outcome(EventKind.ASSET_ADDED)

    def add_instrument(self) -> Outcome:
        command = self.command
        self.state.instruments[command.instrument] = Instrument(
            command.instrument,
            command.symbol,
            command.base_asset,
            command.quote_asset,
            command.lot_units,
            command.scale_units,
            command.price_ticks,
            command.quantity_lots,
        )
        self.state.books[command.instrument] = self.make_book()
        self.emit(
            EventKind.INSTRUMENT_ADDED,
            instrument=command.instrument,
            client_order_id=command.symbol,
            account=command.lot_units,
            counter_account=command.scale_units,
            order_id=command.base_asset,
            counter_order_id=command.quote_asset,
            price_ticks=command.price_ticks,
            quantity_lots=command.quantity_lots,
        )
        return self.outcome(EventKind.INSTRUMENT_ADDED)
