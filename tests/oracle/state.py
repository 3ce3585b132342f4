"""The oracle's state, in dictionaries, and the queries that the rules need.

Changed by the oracle's commands only; read by the checks and by tests.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from smrx.wire.codes import CommandKind, OrderType, Side, Stp, TimeInForce
from tests.oracle.book import Book
from tests.oracle.credentials import Credential
from tests.oracle.messages import Command
from tests.oracle.records import (
    MASK64,
    Account,
    Asset,
    Balance,
    Capacity,
    Instrument,
    Order,
    Retention,
    Session,
    Transfer,
    Words,
    hash_record,
    hash_words,
    id_form,
)


@dataclass
class State:
    """The initial state has the venue's account 0 and nothing else."""

    sequence: int = 0
    event_sequence: int = 0
    match_sequence: int = 0
    time_ns: int = 0
    hash: int = 0
    killed: bool = False
    rules_version: int = 2
    accounts: dict[int, Account] = field(default_factory=lambda: {0: Account(0)})
    assets: dict[int, Asset] = field(default_factory=dict)
    instruments: dict[int, Instrument] = field(default_factory=dict)
    books: dict[int, Book] = field(default_factory=dict)
    balances: dict[tuple[int, int], Balance] = field(default_factory=dict)
    sessions: dict[int, Session] = field(default_factory=dict)
    #: By number; those that are revoked, too.
    credentials: dict[int, Credential] = field(default_factory=dict)
    #: In the order in which they were made.
    transfers: dict[int, Transfer] = field(default_factory=dict)
    retention: Retention = field(default_factory=Retention)
    capacity: Capacity = field(default_factory=Capacity)
    #: (account, asset) that had money, or an order that gives or takes the asset, or fees.
    pairs: set[tuple[int, int]] = field(default_factory=set)
    #: Counts when a session's silence begins.
    activity: int = 0
    #: Orders that are due and had to wait, after the last command; 0 or less if none had.
    late_expiries: int = 0
    #: Open orders by id: those in a book, and pending stop orders.
    orders: dict[int, Order] = field(default_factory=dict)

    def records(self) -> Iterator[Words]:
        """Yield the canonical words of every live record."""
        for table in (self.assets, self.balances, self.transfers):
            for record in table.values():
                yield record.words()
        for more in (self.accounts, self.instruments, self.orders, self.sessions, self.credentials):
            for long_record in more.values():
                yield long_record.words()
                yield from long_record.extra_words()

    def content_hash(self) -> int:
        """Return the content hash, from scratch."""
        chains = sum(session.chain for session in self.sessions.values()) + hash_words(self.retention.words())
        chains += self.capacity.hash()
        head = 8 | self.killed << 8 | (self.rules_version - 1) << 16
        counters = (head, self.sequence, self.event_sequence, self.match_sequence, self.time_ns)
        return (sum(hash_record(words) for words in self.records()) + chains + hash_words(counters)) & MASK64

    @property
    def knows_credentials(self) -> bool:
        """Whether the version of the rules has credentials, and compares the contents of requests."""
        return self.rules_version >= 2

    @property
    def has_bounds(self) -> bool:
        """Whether the version of the rules has capacities, and bounds of what one command cancels."""
        return self.rules_version >= 2

    def most_cancels(self, orders: list[Order]) -> list[Order]:
        """Return those of some orders that one command may cancel: the first."""
        return orders[:256] if self.has_bounds else orders

    def pairs_of(self, order: Order) -> set[tuple[int, int]]:
        """Return the balances that an order gives from and is paid into."""
        listed = self.instruments[order.instrument]
        return {(order.account, listed.base_asset), (order.account, listed.quote_asset)}

    def window_of(self, command: Command) -> int:
        """Return how many answers the session that an OPEN_SESSION opens keeps."""
        return 1 << min((command.answers or 256) - 1, 65_535).bit_length()

    def credential_of_session(self, command: Command) -> int:
        """Return the number of the credential that the command's session belongs to, or is about to; 0 for none."""
        session = self.sessions.get(command.session_id)
        if not self.knows_credentials or (session is None and command.kind != CommandKind.OPEN_SESSION):
            return 0
        return command.credential if session is None else session.credential

    def is_foreign(self, session: Session) -> bool:
        """Whether a session of version 1 of the rules has an id that belongs to a credential by now."""
        return self.knows_credentials and not session.credential and session.session_id >> 32 in self.credentials

    def available(self, account: int, asset: int) -> int:
        balance = self.balances.get((account, asset))
        return balance.available if balance else 0

    def begin_silence(self, session: Session) -> None:
        self.activity += 1
        session.activity, session.last_active_ns = self.activity, self.time_ns

    # Orders.

    def named_order(self, command: Command) -> Order | None:
        """Return the account's open order that a CANCEL or REPLACE names by either id."""
        if command.order_id:
            order = self.orders.get(command.order_id)
            return order if order and order.account == command.account else None
        return self.order_by_client_id(command.account, command.client_order_id)

    def has_id_like(self, account: int, client_order_id: bytes) -> bool:
        """Whether an open order of the account has this client order id, or one with the same 64-bit form."""
        own = (order for order in self.orders.values() if order.account == account and order.client_order_id)
        return any(id_form(order.client_order_id) == id_form(client_order_id) for order in own)

    def order_by_client_id(self, account: int, client_order_id: bytes) -> Order | None:
        for order in self.orders.values():
            if order.account == account and order.client_order_id == client_order_id:
                return order
        return None

    def order_from(self, command: Command) -> Order:
        """Return the order that a well-formed PLACE describes, as it would be entered now."""
        session = self.sessions.get(command.session_id)
        return Order(
            self.sequence,
            command.account,
            command.instrument,
            command.client_order_id,
            Side(command.side),
            OrderType(command.order_type),
            TimeInForce(command.tif),
            Stp(command.stp),
            command.flags,
            command.price_ticks,
            command.quantity_lots,
            command.terms,
            command.session_id if session and session.cancels_on_disconnect else 0,
        )

    def replaced_order(self, command: Command) -> Order:
        """Return a copy of the order that a REPLACE names, with the new price and quantity."""
        order = self.named_order(command)
        assert order is not None
        return replace(order, price=command.price_ticks, quantity=command.quantity_lots)

    def open_orders(self, account: int) -> list[Order]:
        return [order for order in self.orders.values() if order.account == account]

    def stops(self, instrument: int) -> list[Order]:
        """Return the pending stop orders of an instrument."""
        return [order for order in self.orders.values() if order.is_stop and order.instrument == instrument]

    def hold(self, order: Order, lots: int) -> tuple[int, int]:
        """Return the asset and the amount that so many lots of an order hold.

        A market or stop order that buys has no price and holds nothing.
        """
        return self.instruments[order.instrument].hold(order.side, order.price, lots)

    def is_due(self, stop: Order) -> bool:
        """Whether the last trade price has reached a stop order's price."""
        last = self.instruments[stop.instrument].last_price
        if last is None:
            return False
        return last >= stop.stop_price if stop.side is Side.BUY else last <= stop.stop_price

    def is_unfillable(self, order: Order) -> bool:
        """Whether a fill-or-kill order would not fill completely, self-trade prevention included."""
        if order.tif is not TimeInForce.FOK or order.order_type is not OrderType.LIMIT:
            return False
        return self.books[order.instrument].lots_for(order) < order.leaves
