"""Transfers, accounts, sessions, listings and the venue's own commands in the oracle."""

from smrx.wire.codes import AccountStatus, EventKind, InstrumentStatus, Reason, Side
from tests.oracle.matching import Matching
from tests.oracle.messages import Outcome
from tests.oracle.records import Account, Asset, Instrument, Order, Session, Transfer


class Venue(Matching):
    def deposit(self) -> Outcome:
        return self.transfer(EventKind.DEPOSITED, self.command.quantity_lots)

    def withdraw(self) -> Outcome:
        return self.transfer(EventKind.WITHDRAWN, -self.command.quantity_lots)

    def transfer(self, kind: EventKind, amount: int) -> Outcome:
        command = self.command
        self.credit(command.account, command.instrument, amount)
        available = self.state.available(command.account, command.instrument)
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
            cum_lots=available,
        )
        return self.outcome(kind, order_id=command.order_id, cum=available)

    # Accounts.

    def open_account(self) -> Outcome:
        self.state.accounts[self.command.account] = Account(self.command.account)
        return self.report(EventKind.ACCOUNT_OPENED, account=self.command.account)

    def suspend_account(self) -> Outcome:
        self.state.accounts[self.command.account].status = AccountStatus.SUSPENDED
        return self.report(EventKind.ACCOUNT_SUSPENDED, account=self.command.account)

    def resume_account(self) -> Outcome:
        self.state.accounts[self.command.account].status = AccountStatus.ACTIVE
        return self.report(EventKind.ACCOUNT_RESUMED, account=self.command.account)

    def set_limits(self) -> Outcome:
        command = self.command
        self.state.accounts[command.account].limits = command.limits
        return self.report(
            EventKind.LIMITS_SET,
            account=command.account,
            instrument=command.limits.open_orders,
            order_id=command.limits.open_notional,
            price_ticks=command.limits.order_notional,
            quantity_lots=command.limits.order_quantity,
        )

    # Sessions.

    def open_session(self) -> Outcome:
        command = self.command
        self.state.sessions[command.session_id] = Session(command.session_id, command.account, command.flags)
        return self.report(EventKind.SESSION_OPENED, account=command.account, flags=command.flags)

    def close_session(self) -> Outcome:
        count = self.cancel_orders_of_session()
        session = self.state.sessions.pop(self.command.session_id)
        return self.report(EventKind.SESSION_CLOSED, count, account=session.account, quantity_lots=count)

    def disconnect(self) -> Outcome:
        count = self.cancel_orders_of_session()
        session = self.state.sessions[self.command.session_id]
        return self.report(EventKind.SESSION_DISCONNECTED, count, account=session.account, quantity_lots=count)

    def cancel_orders_of_session(self) -> int:
        """Cancel the orders that end with the session, oldest first; return how many."""
        return self.cancel_all(
            [
                order
                for _, order in sorted(self.state.orders.items())
                if order.session_id == self.command.session_id and order.session_id != 0
            ],
            Reason.DISCONNECTED,
        )

    def cancel_all(self, orders: list[Order], reason: Reason) -> int:
        for order in orders:
            self.cancel_order(order, reason)
        return len(orders)

    # Listings.

    def add_asset(self) -> Outcome:
        command = self.command
        self.state.assets[command.instrument] = Asset(
            command.instrument, command.symbol, command.quantity_lots, command.price_ticks
        )
        return self.report(
            EventKind.ASSET_ADDED,
            instrument=command.instrument,
            client_order_id=command.symbol,
            quantity_lots=command.quantity_lots,
            price_ticks=command.price_ticks,
        )

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
        return self.report(
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

    def set_rules(self) -> Outcome:
        command, rules = self.command, self.command.rules
        self.state.instruments[command.instrument].rules = rules
        return self.report(
            EventKind.RULES_SET,
            instrument=command.instrument,
            account=rules.taker_fee,
            # The bytes as sent: two's complement.
            counter_account=command.scale_units,
            cum_lots=rules.band_bp,
            client_order_id=rules.min_price,
            order_id=rules.min_notional,
            price_ticks=rules.max_notional,
            quantity_lots=rules.min_quantity,
        )

    def set_status(self) -> Outcome:
        command = self.command
        status = InstrumentStatus(command.side)
        count = 0
        if status is InstrumentStatus.CLOSED:
            count = self.cancel_all(self.closing_order(command.instrument), Reason.INSTRUMENT_CLOSED)
        self.state.instruments[command.instrument].status = status
        return self.report(EventKind.STATUS_SET, count, instrument=command.instrument, side=status, quantity_lots=count)

    def closing_order(self, instrument: int) -> list[Order]:
        """Return bids and asks in priority, buy stops from the lowest price up, sell stops from the highest down."""
        book, stops = self.state.books[instrument], self.state.stops(instrument)
        buys = [order for order in stops if order.side is Side.BUY]
        sells = [order for order in stops if order.side is Side.SELL]
        return [
            *book.in_priority(Side.BUY),
            *book.in_priority(Side.SELL),
            *sorted(buys, key=lambda order: (order.extra, order.order_id)),
            *sorted(sells, key=lambda order: (-order.extra, order.order_id)),
        ]

    # The whole venue.

    def kill(self) -> Outcome:
        self.state.killed = True
        return self.report(EventKind.KILLED)

    def revive(self) -> Outcome:
        self.state.killed = False
        return self.report(EventKind.REVIVED)

    def tick(self) -> Outcome:
        return self.report(EventKind.TICKED)

    def set_version(self) -> Outcome:
        self.state.rules_version = self.command.quantity_lots
        return self.report(EventKind.VERSION_SET, quantity_lots=self.state.rules_version)

    def report(self, kind: EventKind, count: int = 0, **fields: int) -> Outcome:
        """Emit the one event that answers a command; return its outcome."""
        self.emit(kind, **fields)
        return self.outcome(kind, cum=count)
