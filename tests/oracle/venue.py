"""Transfers, accounts, sessions, listings and the venue's own commands in the oracle."""

from smrx.wire.codes import AccountStatus, EventKind, InstrumentStatus, Reason, Scope, Side
from tests.oracle.credentials import Credential, Terms, terms_of
from tests.oracle.matching import Matching
from tests.oracle.messages import Outcome
from tests.oracle.records import Account, Asset, Instrument, Order, Session, Transfer


class Venue(Matching):
    make_credential: type[Credential] = Credential

    def deposit(self) -> Outcome:
        return self.transfer(EventKind.DEPOSITED, self.command.amount)

    def withdraw(self) -> Outcome:
        return self.transfer(EventKind.WITHDRAWN, -self.command.amount)

    def transfer(self, kind: EventKind, amount: int) -> Outcome:
        command = self.command
        self.state.pairs.add((command.account, command.asset))
        self.credit(command.account, command.asset, amount)
        available = self.state.available(command.account, command.asset)
        self.state.assets[command.asset].supply += amount
        self.state.transfers[command.transfer_id] = Transfer(
            *(command.kind, command.transfer_id, command.account, command.asset, command.amount),
            *(self.state.time_ns, self.state.sequence),
        )
        if len(self.state.transfers) > self.state.retention.transfers:
            self.forget_transfer()
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
        command = self.command
        self.state.accounts[command.account] = Account(command.account, command.firm)
        told = {"firm": command.firm} if command.firm else {}
        return self.report(EventKind.ACCOUNT_OPENED, account=command.account, **told)

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

    # Credentials.

    def add_credential(self) -> Outcome:
        number, terms = self.command.number, self.credential_terms()
        added = self.make_credential(number, terms.key, terms.permissions, terms.scope, terms.subject, terms.expires_ns)
        added.networks = terms.networks
        self.state.credentials[number] = added
        return self.report_credential(EventKind.CREDENTIAL_ADDED, added)

    def set_credential(self) -> Outcome:
        known, terms = self.state.credentials[self.command.number], self.credential_terms()
        known.permissions, known.expires_ns, known.networks = terms.permissions, terms.expires_ns, terms.networks
        return self.report_credential(EventKind.CREDENTIAL_SET, known)

    def revoke_credential(self) -> Outcome:
        known = self.state.credentials[self.command.number]
        known.revoked = True
        return self.report_credential(EventKind.CREDENTIAL_REVOKED, known)

    def credential_terms(self) -> Terms:
        return terms_of(self.command.bytes_of_details(0, 128))

    def report_credential(self, kind: EventKind, changed: Credential) -> Outcome:
        """Report a whole credential; its networks, unless it is gone, in an event of their own."""
        tells_networks = changed.has_networks and kind is not EventKind.CREDENTIAL_REVOKED
        self.emit(
            kind,
            number=changed.number,
            account=changed.subject if changed.scope == Scope.ACCOUNT else 0,
            key=changed.key,
            permissions=changed.permissions,
            scope=changed.scope,
            expires_ns=changed.expires_ns,
            subject=changed.subject,
            following=int(tells_networks),
        )
        if tells_networks:
            self.emit(
                EventKind.CREDENTIAL_NETWORKS,
                number=changed.number,
                account=changed.subject if changed.scope == Scope.ACCOUNT else 0,
                networks=b"".join(network.address for network in changed.networks),
                prefixes=bytes(network.prefix for network in changed.networks),
            )
        return self.outcome(kind, order_id=changed.number)

    # Sessions.

    def open_session(self) -> Outcome:
        command = self.command
        session = self.state.sessions.get(command.session_id)
        if session is None:
            session = self.new_session()
        session.flags, session.closed = command.flags, False
        self.state.begin_silence(session)
        self.emit(
            EventKind.SESSION_OPENED,
            account=command.account,
            flags=command.flags,
            answers=session.window,
            last_request_id=session.last_request_id,
        )
        return self.outcome(EventKind.SESSION_OPENED, order_id=session.last_request_id)

    def new_session(self) -> Session:
        command = self.command
        run = self.state.window_of(command).bit_length() - 1
        session = Session(command.session_id, command.account, self.state.credential_of_session(command), run=run)
        self.state.sessions[command.session_id] = session
        return session

    def close_session(self) -> Outcome:
        session = self.state.sessions[self.command.session_id]
        if len(self.orders_of_session()) > len(self.state.most_cancels(self.orders_of_session())):
            return self.disconnect()
        count = self.cancel_orders_of_session()
        session.closed = True
        return self.report(EventKind.SESSION_CLOSED, count, account=session.account, cancelled=count)

    def disconnect(self) -> Outcome:
        count = self.cancel_orders_of_session()
        session = self.state.sessions[self.command.session_id]
        outcome = self.report(EventKind.SESSION_DISCONNECTED, count, account=session.account, cancelled=count)
        return outcome._replace(leaves_lots=len(self.orders_of_session()))

    def cancel_orders_of_session(self) -> int:
        """Cancel the orders that end with the session, oldest first, as many as one command may; return how many."""
        return self.cancel_all(self.state.most_cancels(self.orders_of_session()), Reason.DISCONNECTED)

    def orders_of_session(self) -> list[Order]:
        """Return the orders that end with the session, oldest first."""
        return [
            order
            for _, order in sorted(self.state.orders.items())
            if order.session_id == self.command.session_id and order.session_id != 0
        ]

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
        listed = self.state.instruments[command.instrument]
        listed.rules = rules
        if rules.taker_fee:
            self.state.pairs.add((0, listed.quote_asset))
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
        count = left = 0
        if status is InstrumentStatus.CLOSED:
            orders = self.closing_order(command.instrument)
            count = self.cancel_all(self.state.most_cancels(orders), Reason.INSTRUMENT_CLOSED)
            left = len(orders) - count
        status = InstrumentStatus.CANCEL_ONLY if left else status
        self.state.instruments[command.instrument].status = status
        fields = {"instrument": command.instrument, "status": status, "cancelled": count}
        return self.report(EventKind.STATUS_SET, count, **fields)._replace(leaves_lots=left)

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

    # What ends with time.

    def end_silent_sessions(self) -> None:
        """End silent sessions, those silent longest first; one that has open orders of its own begins again."""
        state = self.state
        owners = {order.session_id for order in state.orders.values()}
        for session in sorted(state.sessions.values(), key=lambda session: session.activity)[:16]:
            if state.time_ns - session.last_active_ns < state.retention.session_silence_s * 1_000_000_000:
                break
            if session.session_id in owners:
                state.begin_silence(session)
                continue
            del state.sessions[session.session_id]
            self.emit(
                EventKind.SESSION_EXPIRED,
                session_id=session.session_id,
                request_id=session.last_request_id,
                account=session.account,
            )

    def forget_transfers(self) -> None:
        """Forget the oldest transfer ids: those that are too old, and those that are too many."""
        state = self.state
        for _ in range(16):
            oldest = next(iter(state.transfers.values()), None)
            if oldest is None:
                break
            age = state.time_ns - oldest.time_ns
            kept = age < state.retention.transfer_age_s * 1_000_000_000
            if kept and len(state.transfers) <= state.retention.transfers:
                break
            self.forget_transfer()

    def forget_transfer(self) -> None:
        del self.state.transfers[next(iter(self.state.transfers))]

    def set_retention(self) -> Outcome:
        self.state.retention = self.command.retention
        return self.report(EventKind.RETENTION_SET, **self.command.retention._asdict())

    def set_capacity(self) -> Outcome:
        self.state.capacity = self.command.capacity
        return self.report(EventKind.CAPACITY_SET, **self.command.capacity._asdict())

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
        return self.report(EventKind.VERSION_SET, version=self.state.rules_version)

    def report(self, kind: EventKind, count: int = 0, **fields: int | bytes) -> Outcome:
        """Emit the one event that answers a command; return its outcome."""
        self.emit(kind, **fields)
        return self.outcome(kind, cum=count)
