"""The oracle's records: one small class each, with its canonical words for the state hash.

Written to be read beside the rules, not to be fast, and from the text of the rules alone: nothing here is taken from
the compiled engine. Used by tests only.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import xxhash

from smrx.wire.codes import (
    AccountStatus,
    InstrumentStatus,
    OrderFlags,
    OrderType,
    SessionFlags,
    Side,
    Stp,
    TimeInForce,
)

Words = tuple[int, ...]
MASK64 = (1 << 64) - 1
MASK32 = (1 << 32) - 1
NANOSECONDS = 1_000_000_000
#: No sum or product of money may reach this.
AMOUNT_LIMIT = 1 << 62

SYMBOL_BYTES = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-./_")


@dataclass
class Order:
    order_id: int
    account: int
    instrument: int
    client_order_id: int
    side: Side
    order_type: OrderType
    tif: TimeInForce
    stp: Stp
    flags: int
    price: int
    quantity: int
    extra: int = 0
    #: The session whose end cancels the order; 0 for none.
    session_id: int = 0
    #: The sequence of the event that gave the order its place.
    priority: int = 0
    cum: int = 0
    #: Lots of an iceberg that the book shows; 0 for any other order, and outside the book.
    shown: int = 0
    #: Of a market buy that is being matched: what it may spend, what it has spent, whether the budget is spent.
    spendable: int = 0
    spent: int = 0
    budget_done: bool = False

    @property
    def is_budget(self) -> bool:
        return bool(self.flags & OrderFlags.QUOTE_BUDGET)

    @property
    def is_stop(self) -> bool:
        return self.order_type in (OrderType.STOP, OrderType.STOP_LIMIT)

    @property
    def is_market_buy(self) -> bool:
        return self.order_type is OrderType.MARKET and self.side is Side.BUY

    @property
    def leaves(self) -> int:
        """Lots still wanted; a budget is not counted in lots."""
        return 0 if self.is_budget else self.quantity - self.cum

    @property
    def is_filled(self) -> bool:
        return self.budget_done if self.is_budget else self.leaves == 0

    @property
    def display(self) -> int:
        """Lots that an iceberg shows at a time; 0 for any other order."""
        return self.extra & MASK32 if self.order_type is OrderType.LIMIT else 0

    @property
    def expiry_ns(self) -> int | None:
        good_till_date = self.order_type is OrderType.LIMIT and self.tif is TimeInForce.GTD
        return (self.extra >> 32) * NANOSECONDS if good_till_date else None

    def keeps_place(self, price: int, quantity: int) -> bool:
        """Whether a new price and quantity leave the order at its place: queue position is property."""
        return price == self.price and quantity < self.quantity

    @property
    def visible(self) -> int:
        """Lots that a taker meets when it reaches the order."""
        return self.shown if self.display else self.leaves

    def words(self) -> Words:
        modes = self.side << 8 | self.order_type << 16 | self.tif << 24 | self.stp << 32 | self.flags << 40
        parties = self.account | self.instrument << 32
        return (
            1 | modes,
            self.order_id,
            parties,
            self.client_order_id,
            self.price,
            self.quantity,
            self.cum,
            self.priority,
        )

    def extra_words(self) -> Iterator[Words]:
        """Yield the extension record, for orders that have one."""
        if self.extra or self.shown or self.session_id:
            yield (9, self.order_id, self.extra, self.shown, self.session_id)


@dataclass
class Balance:
    account: int
    asset: int
    available: int = 0
    held: int = 0

    def words(self) -> Words:
        return (2, self.account | self.asset << 32, self.available, self.held)


class Limits(NamedTuple):
    """The limits of an account; 0 is no limit."""

    open_orders: int = 0
    open_notional: int = 0
    order_notional: int = 0
    order_quantity: int = 0


@dataclass
class Account:
    account: int
    status: AccountStatus = AccountStatus.ACTIVE
    limits: Limits = field(default_factory=Limits)

    def words(self) -> Words:
        return (3 | self.status << 8, self.account)

    def extra_words(self) -> Iterator[Words]:
        if any(self.limits):
            orders, *amounts = self.limits
            yield (10, self.account | orders << 32, *amounts)


@dataclass
class Asset:
    asset: int
    symbol: int
    decimals: int
    #: The supply cap; 0 is the general limit.
    cap: int = 0
    supply: int = 0

    @property
    def max_supply(self) -> int:
        return self.cap or AMOUNT_LIMIT - 1

    def words(self) -> Words:
        return (4 | self.decimals << 8, self.asset, self.symbol, self.supply, self.cap)


class Rules(NamedTuple):
    """The rules and fee rates of an instrument; 0 is no rule."""

    band_bp: int = 0
    taker_fee: int = 0
    maker_fee: int = 0
    min_price: int = 0
    min_quantity: int = 0
    min_notional: int = 0
    max_notional: int = 0


@dataclass
class Instrument:
    instrument: int
    symbol: int
    base_asset: int
    quote_asset: int
    lot_units: int
    scale_units: int
    max_price: int
    max_quantity: int
    status: InstrumentStatus = InstrumentStatus.TRADING
    rules: Rules = field(default_factory=Rules)
    #: Of the last trade; None before the first.
    last_price: int | None = None

    def words(self) -> Words:
        return (
            5 | self.status << 8,
            self.instrument,
            self.symbol,
            self.base_asset | self.quote_asset << 32,
            self.lot_units | self.scale_units << 32,
            self.max_price,
            self.max_quantity,
        )

    def extra_words(self) -> Iterator[Words]:
        if any(self.rules):
            band, taker_fee, maker_fee, *bounds = self.rules
            yield (11 | band << 8, self.instrument, taker_fee | (maker_fee & MASK32) << 32, *bounds)
        if self.last_price is not None:
            yield (12 | self.instrument << 32, self.last_price)

    # Amounts are in quote units unless stated otherwise.

    def notional(self, price: int, lots: int) -> int:
        return price * lots * self.scale_units

    def hold(self, side: Side, price: int, lots: int) -> tuple[int, int]:
        """Return the asset and the amount that so many lots of an order hold; a price of 0 holds nothing."""
        if side is Side.SELL:
            return self.base_asset, lots * self.lot_units
        one = self.notional(price, 1)
        return self.quote_asset, lots * (one + fee(one, self.rules.taker_fee))

    def cost_to_take(self, price: int, lots: int) -> int:
        """Return what a taker pays for lots at a price, its fee included."""
        return self.notional(price, lots) + fee(self.notional(price, lots), self.rules.taker_fee)

    def affordable(self, price: int, money: int) -> int:
        """Return the most lots that so much money buys at a price."""
        low, high = 0, money // self.notional(price, 1)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.cost_to_take(price, middle) <= money else (low, middle - 1)
        return low


@dataclass
class Session:
    session_id: int
    account: int
    flags: int = 0
    last_request_id: int = 0

    @property
    def cancels_on_disconnect(self) -> bool:
        return bool(self.flags & SessionFlags.CANCEL_ON_DISCONNECT)

    def words(self) -> Words:
        return (6 | self.flags << 8, self.session_id, self.account, self.last_request_id)


@dataclass
class Transfer:
    kind: int
    transfer_id: int
    account: int
    asset: int
    amount: int

    def words(self) -> Words:
        return (7 | self.kind << 8, self.transfer_id, self.account | self.asset << 32, self.amount)


def fee(notional: int, rate: int) -> int:
    """Return millionths of a notional, rounded up: against the payer of a fee and the receiver of a rebate (< 0)."""
    return -(-notional * rate // 1_000_000)


def signed(value: int, bits: int) -> int:
    """Return the number that an unsigned field contains in two's complement."""
    return value - (1 << bits) if value >> (bits - 1) else value


def hash_words(words: Words) -> int:
    """Return the xxh3 of 64-bit little-endian words."""
    return xxhash.xxh3_64_intdigest(struct.pack(f"<{len(words)}Q", *(word & MASK64 for word in words)))


#: The same for records, cached: few of them change between two commands.
hash_record = lru_cache(maxsize=1 << 16)(hash_words)


def valid_symbol(symbol: int) -> bool:
    """Whether the u64 is 1 to 8 permitted bytes, then only NULs."""
    text = symbol.to_bytes(8, "little").rstrip(b"\0")
    return len(text) > 0 and set(text) <= SYMBOL_BYTES
