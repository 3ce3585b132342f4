"""Transfers, accounts, sessions, listings and the venue's own commands in the oracle."""

from smrx.wire.codes import AccountStatus, EventKind, InstrumentStatus, Reason, Side
from tests.oracle.matching import Matching
from tests.oracle.messages import Outcome
from tests.oracle.records import Account, Asset, Instrument, Order, Session, Transfer


class Venue(Matching):
    def deposit(self) -> Outcome:
        return self.transfer(EventKind.DEPOSITED, self.command.amount)

    def withdraw(self) -> Outcome:
        return self.transfer(EventKind.WITHDRAWN, -self.command.amount)

    def transfer(self, kind: EventKind, amount: int) -> Outcome:
        command = self.command
        self.credit(command.account, command.asset, amount)
        available = self.state.available(command.account, command.asset)
        self.state.assets[command.asset].supply += amount
        self.state.transfers[command.transfer_id] = Transfer(
            command.kind, command.transfer_id, command.account, command.asset, command.amount
        )
        self.emit(
            kind,
            account=command.account,
            asset=command.asset,
            transfer_id=command.transfer_id,
            amount=command.amount,
            available_after=available,
        )
        return self.outcome(kind, order_id=command.transfer_id, cum=available)

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
            max_open_orders=command.limits.open_orders,
            max_open_notional=command.limits.open_notional,
            max_order_notional=command.limits.order_notional,
            max_order_quantity=command.limits.order_quantity,
        )

    # Sessions.

    def open_session(self) -> Outcome:
        command = self.command
        self.state.sessions[command.session_id] = Session(command.session_id, command.account, command.flags)
        return self.report(EventKind.SESSION_OPENED, account=command.account, flags=command.flags)

    def close_session(self) -> Outcome:
        count = self.cancel_orders_of_session()
        session = self.state.sessions.pop(self.command.session_id)
        return self.report(EventKind.SESSION_CLOSED, count, account=session.account, cancelled=count)

    def disconnect(self) -> Outcome:
        count = self.cancel_orders_of_session()
        session = self.state.sessions[self.command.session_id]
        return self.report(EventKind.SESSION_DISCONNECTED, count, account=session.account, cancelled=count)

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
        symbol = command.asset_symbol.rstrip(b"\0")
        self.state.assets[command.asset] = Asset(command.asset, symbol, command.decimals, command.supply_cap)
        return self.report(
            EventKind.ASSET_ADDED,
            asset=command.asset,
            symbol=symbol,
            decimals=command.decimals,
            supply_cap=command.supply_cap,
        )

    def add_instrument(self) -> Outcome:
        command = self.command
        symbol = command.instrument_symbol.rstrip(b"\0")
        listed = Instrument(command.instrument, symbol, *command.listing)
        self.state.instruments[command.instrument] = listed
        self.state.books[command.instrument] = self.make_book()
        return self.report(
            EventKind.INSTRUMENT_ADDED,
            instrument=command.instrument,
            symbol=symbol,
            base_asset=listed.base_asset,
            quote_asset=listed.quote_asset,
            lot_units=listed.lot_units,
            scale_units=listed.scale_units,
            max_price_ticks=listed.max_price,
            max_quantity_lots=listed.max_quantity,
        )

    def set_rules(self) -> Outcome:
        command, rules = self.command, self.command.rules
        self.state.instruments[command.instrument].rules = rules
        return self.report(
            EventKind.RULES_SET,
            instrument=command.instrument,
            taker_fee=rules.taker_fee,
            maker_fee=rules.maker_fee,
            band_bp=rules.band_bp,
            min_price_ticks=rules.min_price,
            min_quantity_lots=rules.min_quantity,
            min_notional=rules.min_notional,
            max_notional=rules.max_notional,
            collar_bp=rules.collar_bp,
            collar_reference=rules.collar_reference,
            rule_flags=rules.flags,
        )

    def set_status(self) -> Outcome:
        command = self.command
        status = InstrumentStatus(command.status)
        count = 0
        if status is InstrumentStatus.CLOSED:
            count = self.cancel_all(self.closing_order(command.instrument), Reason.INSTRUMENT_CLOSED)
        self.state.instruments[command.instrument].status = status
        return self.report(EventKind.STATUS_SET, count, instrument=command.instrument, status=status, cancelled=count)

    def closing_order(self, instrument: int) -> list[Order]:
        """Return bids and asks in priority, buy stops from the lowest price up, sell stops from the highest down."""
        book, stops = self.state.books[instrument], self.state.stops(instrument)
        buys = [order for order in stops if order.side is Side.BUY]
        sells = [order for order in stops if order.side is Side.SELL]
        return [
            *book.in_priority(Side.BUY),
            *book.in_priority(Side.SELL),
            *sorted(buys, key=lambda order: (order.stop_price, order.order_id)),
            *sorted(sells, key=lambda order: (-order.stop_price, order.order_id)),
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

    def report(self, kind: EventKind, count: int = 0, **fields: int | bytes) -> Outcome:
        """Emit the one event that answers a command; return its outcome."""
        self.emit(kind, **fields)
        return self.outcome(kind, cum=count)
