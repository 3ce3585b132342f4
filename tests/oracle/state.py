"""Everything the oracle knows, in dictionaries, and the questions the rules ask of it.

Changed by machine.py alone; read by refusals.py and by tests.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from smrx.engine.codes import OrderType, Side, TimeInForce
from tests.oracle.book import OPPOSITE, Book, crosses
from tests.oracle.records import (
    MASK64,
    Account,
    Asset,
    Balance,
    Command,
    Instrument,
    Order,
    Session,
    Transfer,
    Words,
    hash_record,
    hash_words,
)


@dataclass
class State:
    """Genesis: the venue's account 0 and nothing else."""

    sequence: int = 0
    event_sequence: int = 0
    match_sequence: int = 0
    time_ns: int = 0
    hash: int = 0
    accounts: dict[int, Account] = field(default_factory=lambda: {0: Account(0)})
    assets: dict[int, Asset] = field(default_factory=dict)
    instruments: dict[int, Instrument] = field(default_factory=dict)
    books: dict[int, Book] = field(default_factory=dict)
    balances: dict[tuple[int, int], Balance] = field(default_factory=dict)
    sessions: dict[int, Session] = field(default_factory=dict)
    transfers: dict[int, Transfer] = field(default_factory=dict)
    #: Open orders, which are the resting ones, by id.
    orders: dict[int, Order] = field(default_factory=dict)

    def records(self) -> Iterator[Words]:
        """The canonical words of every live record."""
        for table in (
            self.accounts,
            self.assets,
            self.instruments,
            self.balances,
            self.sessions,
            self.transfers,
            self.orders,
        ):
            for record in table.values():
                yield record.words()

    def content_digest(self) -> int:
        """The digest of all content, from scratch."""
        counters = (8, self.sequence, self.event_sequence, self.match_sequence, self.time_ns)
        return (sum(hash_record(words) for words in self.records()) + hash_words(counters)) & MASK64

    def available(self, account: int, asset: int) -> int:
        balance = self.balances.get((account, asset))
        return balance.available if balance else 0

    def named_order(self, command: Command) -> Order | None:
        """The account's open order that a CANCEL or REPLACE names by either id."""
        if command.order_id:
            order = self.orders.get(command.order_id)
            return order if order and order.account == command.account else None
        return self.order_by_client_id(command.account, command.client_order_id)

    def order_by_client_id(self, account: int, client_order_id: int) -> Order | None:
        for order in self.orders.values():
            if order.account == account and order.client_order_id == client_order_id:
                return order
        return None

    def hold(self, side: Side, instrument: Instrument, price: int, lots: int) -> tuple[int, int]:
        """The asset and the amount that an order of so many lots keeps out of reach."""
        if side is Side.BUY:
            return instrument.quote_asset, price * lots * instrument.scale_units
        return instrument.base_asset, lots * instrument.lot_units

    def would_take(self, command: Command) -> bool:
        """Whether any part of a limit order would trade at once."""
        side = Side(command.side)
        best = self.books[command.instrument].best_price(OPPOSITE[side])
        return best is not None and crosses(side, command.price_ticks, best)

    def is_unfillable_fok(self, command: Command) -> bool:
        """Whether a fill-or-kill order finds too few lots before its limit or its own account stops it."""
        if command.tif != TimeInForce.FOK or command.order_type != OrderType.LIMIT:
            return False
        side = Side(command.side)
        missing = command.quantity_lots
        for maker in self.books[command.instrument].in_priority(OPPOSITE[side]):
            if missing <= 0 or maker.account == command.account or not crosses(side, command.price_ticks, maker.price):
                break
            missing -= maker.leaves
        return missing > 0
