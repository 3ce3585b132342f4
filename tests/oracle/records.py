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
#: A client order id of at most so many characters is its own 64-bit form.
SHORT_ID = 8
MASK64 = (1 << 64) - 1
MASK32 = (1 << 32) - 1
#: No sum or product of money may reach this.
AMOUNT_LIMIT = 1 << 62

SYMBOL_BYTES = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-./_")


class Terms(NamedTuple):
    """The terms of an order that few orders have; 0 is none. The venue offers the first three and the credential."""

    stop_price: int = 0
    display: int = 0
    expiry: int = 0
    trailing_offset: int = 0
    peg_offset: int = 0
    order_list: int = 0
    credential: int = 0
    peg_reference: int = 0


@dataclass
class Order:
    order_id: int
    account: int
    instrument: int
    #: Its text; b"" for none.
    client_order_id: bytes
    side: Side
    order_type: OrderType
    tif: TimeInForce
    stp: Stp
    flags: int
    price: int
    quantity: int
    terms: Terms = field(default_factory=Terms)
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
    #: Of a market order that is being matched: the worst price its instrument's collar allows; None is no collar.
    worst_price: int | None = None

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
    def stop_price(self) -> int:
        return self.terms.stop_price

    @property
    def display(self) -> int:
        """Lots that an iceberg shows at a time; 0 for any other order."""
        return self.terms.display

    @property
    def expiry_ns(self) -> int | None:
        return self.terms.expiry if self.tif is TimeInForce.GTD else None

    @property
    def has_long_id(self) -> bool:
        return len(self.client_order_id) > SHORT_ID

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
            id_form(self.client_order_id),
            self.price,
            self.quantity,
            self.cum,
            self.priority,
        )

    def extra_words(self) -> Iterator[Words]:
        """Yield the records that only some orders have."""
        if self.shown or self.session_id:
            yield (9, self.order_id, self.shown, self.session_id)
        if self.has_long_id:
            yield (13, self.order_id, *text_words(self.client_order_id, 64))
        if any(self.terms):
            *amounts, credential, peg_reference = self.terms
            yield (14, self.order_id, *amounts, credential | peg_reference << 32)


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
    #: 0 for none.
    firm: int = 0
    status: AccountStatus = AccountStatus.ACTIVE
    limits: Limits = field(default_factory=Limits)

    def words(self) -> Words:
        return (3 | self.status << 8, self.account)

    def extra_words(self) -> Iterator[Words]:
        if any(self.limits):
            orders, *amounts = self.limits
            yield (10, self.account | orders << 32, *amounts)
        if self.firm:
            yield (22, self.account | self.firm << 32)


@dataclass
class Asset:
    asset: int
    #: Its text.
    symbol: bytes
    decimals: int
    #: The supply cap; 0 is the general limit.
    cap: int = 0
    supply: int = 0

    @property
    def max_supply(self) -> int:
        return self.cap or AMOUNT_LIMIT - 1

    def words(self) -> Words:
        return (4 | self.decimals << 8, self.asset, *text_words(self.symbol, 16), self.supply, self.cap)


class Rules(NamedTuple):
    """The rules and fee rates of an instrument; 0 is no rule."""

    band_bp: int = 0
    taker_fee: int = 0
    maker_fee: int = 0
    min_price: int = 0
    min_quantity: int = 0
    min_notional: int = 0
    max_notional: int = 0
    collar_bp: int = 0
    collar_reference: int = 0
    flags: int = 0


@dataclass
class Instrument:
    instrument: int
    #: Its text.
    symbol: bytes
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
            *text_words(self.symbol, 24),
            self.base_asset | self.quote_asset << 32,
            self.lot_units | self.scale_units << 32,
            self.max_price,
            self.max_quantity,
        )

    def extra_words(self) -> Iterator[Words]:
        if any(self.rules):
            band, taker_fee, maker_fee, *bounds, collar, reference, flags = self.rules
            shares = 11 | band << 8 | collar << 24 | reference << 40 | flags << 48
            yield (shares, self.instrument, taker_fee | (maker_fee & MASK32) << 32, *bounds)
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
    #: The credential that it belongs to; 0 for none, and of a session that was opened under version 1 of the rules.
    credential: int = 0
    flags: int = 0
    #: The logarithm of how many answers it keeps.
    run: int = 8
    closed: bool = False
    last_request_id: int = 0
    last_active_ns: int = 0
    #: The number of the time when its silence began.
    activity: int = 0
    #: The kept answers by request id, and the chain of the hashes of all its answers.
    answers: dict[int, tuple[int, ...]] = field(default_factory=dict)
    #: The contents of these requests; 0 under version 1 of the rules, which compares none.
    contents: dict[int, int] = field(default_factory=dict)
    chain: int = 0

    @property
    def cancels_on_disconnect(self) -> bool:
        return bool(self.flags & SessionFlags.CANCEL_ON_DISCONNECT)

    @property
    def window(self) -> int:
        return 1 << self.run

    def words(self) -> Words:
        head = 6 | self.flags << 8 | self.closed << 16 | self.run << 24 | self.account << 32
        return (head, self.session_id, self.last_active_ns, self.activity)

    def extra_words(self) -> Iterator[Words]:
        if self.credential:
            yield (20 | self.credential << 32, self.session_id)

    def keep(self, outcome: tuple[int, ...], content: int) -> None:
        """Keep the answer to the last request, in the order of the OUTCOME record, and the request's content."""
        status, kind, reason, count, _, request_id, sequence, order_id, first_event, cum, leaves = outcome
        self.answers[request_id] = outcome
        self.answers.pop(request_id - self.window, None)
        self.contents[request_id] = content
        self.contents.pop(request_id - self.window, None)
        head = 16 + status | kind << 8 | reason << 16 | count << 32
        chained = self.chain ^ self.session_id
        self.chain = hash_words((head, chained, request_id + content, sequence, order_id, first_event, cum, leaves))


@dataclass
class Transfer:
    kind: int
    transfer_id: int
    account: int
    asset: int
    amount: int
    time_ns: int
    sequence: int

    def words(self) -> Words:
        head, parties = 7 | self.kind << 8, self.account | self.asset << 32
        return (head, self.transfer_id, parties, self.amount, self.time_ns, self.sequence)


class Retention(NamedTuple):
    """How long silent sessions and transfer ids are kept, and how many of these."""

    session_silence_s: int = 86_400
    transfer_age_s: int = 7 * 86_400
    transfers: int = 1_000_000

    def words(self) -> Words:
        return (15, self.session_silence_s | self.transfer_age_s << 32, self.transfers)


class Capacity(NamedTuple):
    """The most records of each kind."""

    accounts: int = 16_000_000
    orders: int = 16_000_000
    balances: int = 16_000_000
    sessions: int = 16_000_000
    answers: int = 64_000_000
    instruments: int = 16_000_000
    assets: int = 16_000_000
    credentials: int = 16_000_000

    @property
    def is_valid(self) -> bool:
        return all(1 <= value <= most for value, most in zip(self, Capacity(), strict=True))

    def hash(self) -> int:
        numbers = list(self)
        pairs = (low | high << 32 for low, high in zip(numbers[::2], numbers[1::2], strict=True))
        return hash_words((24, *pairs)) if self != Capacity() else 0


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


def text_words(text: bytes, size: int) -> Words:
    """Return a text, padded with NULs to a size, as 64-bit words."""
    return struct.unpack(f"<{size // 8}Q", text.ljust(size, b"\0"))


def id_form(text: bytes) -> int:
    """Return the 64-bit form of a client order id."""
    if len(text) <= SHORT_ID:
        return int.from_bytes(text, "little")
    return xxhash.xxh3_64_intdigest(text.ljust(64, b"\0")) | 1 << 63


def valid_symbol(padded: bytes, rules: int) -> bool:
    """Whether the bytes are at least one permitted character, then only NULs.

    With version 2 of the rules it begins with a letter or a digit and has a letter.
    """
    text = padded.rstrip(b"\0")
    if not text or not set(text) <= SYMBOL_BYTES:
        return False
    return rules < 2 or (text[:1].isalnum() and any(65 <= character <= 90 for character in text))


def valid_id(padded: bytes) -> bool:
    """Whether the bytes are printable ASCII characters, then only NULs."""
    return all(0x20 <= character <= 0x7E for character in padded.rstrip(b"\0"))
