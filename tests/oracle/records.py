"""What the oracle remembers and says: one small class a record, with its canonical words for the state hash.

Written to be read beside the rules, never to be fast, and from the text of the rules alone: nothing here is taken
from the compiled engine. Used by tests only.
"""

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import xxhash

from smrx.engine.codes import AccountStatus, InstrumentStatus, OrderType, Side, TimeInForce

Words = tuple[int, ...]
MASK64 = (1 << 64) - 1
#: No sum or product of money may reach this.
TOO_MUCH = 1 << 62

SYMBOL_BYTES = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-./_")


class Command(NamedTuple):
    """One command as sent; ADD_INSTRUMENT reads the same bytes through the names at the bottom."""

    kind: int
    side: int
    order_type: int
    tif: int
    stp: int
    flags: int
    reserved: int
    session_id: int
    request_id: int
    account: int
    instrument: int
    client_order_id: int
    order_id: int
    price_ticks: int
    quantity_lots: int

    @property
    def scale_units(self) -> int:
        return self.stp | self.flags << 8 | self.reserved << 16

    @property
    def lot_units(self) -> int:
        return self.account

    @property
    def symbol(self) -> int:
        return self.client_order_id

    @property
    def base_asset(self) -> int:
        return self.order_id & 0xFFFFFFFF

    @property
    def quote_asset(self) -> int:
        return self.order_id >> 32


class Event(NamedTuple):
    """One event, fields in the order of the EVENT record."""

    sequence: int
    command_sequence: int
    time_ns: int
    kind: int
    side: int = 0
    order_type: int = 0
    tif: int = 0
    stp: int = 0
    flags: int = 0
    reason: int = 0
    instrument: int = 0
    account: int = 0
    counter_account: int = 0
    command_kind: int = 0
    order_id: int = 0
    counter_order_id: int = 0
    match_id: int = 0
    client_order_id: int = 0
    session_id: int = 0
    request_id: int = 0
    price_ticks: int = 0
    quantity_lots: int = 0
    cum_lots: int = 0
    leaves_lots: int = 0


class Outcome(NamedTuple):
    """One answer, fields in the order of the OUTCOME record."""

    status: int
    event_kind: int = 0
    reason: int = 0
    event_count: int = 0
    session_id: int = 0
    request_id: int = 0
    sequence: int = 0
    order_id: int = 0
    first_event: int = 0
    cum_lots: int = 0
    leaves_lots: int = 0


@dataclass
class Order:
    order_id: int
    account: int
    instrument: int
    client_order_id: int
    side: Side
    order_type: OrderType
    tif: TimeInForce
    stp: int
    flags: int
    price: int
    quantity: int
    cum: int = 0

    @property
    def leaves(self) -> int:
        return self.quantity - self.cum

    def words(self) -> Words:
        modes = self.side << 8 | self.order_type << 16 | self.tif << 24 | self.stp << 32 | self.flags << 40
        parties = self.account | self.instrument << 32
        priority = self.order_id
        return (
            1 | modes,
            self.order_id,
            parties,
            self.client_order_id,
            self.price,
            self.quantity,
            self.cum,
            priority,
        )


@dataclass
class Balance:
    account: int
    asset: int
    available: int = 0
    held: int = 0

    def words(self) -> Words:
        return (2, self.account | self.asset << 32, self.available, self.held)


@dataclass
class Account:
    account: int
    status: AccountStatus = AccountStatus.ACTIVE

    def words(self) -> Words:
        return (3 | self.status << 8, self.account)


@dataclass
class Asset:
    asset: int
    symbol: int
    decimals: int
    supply: int = 0

    def words(self) -> Words:
        return (4 | self.decimals << 8, self.asset, self.symbol, self.supply)


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


@dataclass
class Session:
    session_id: int
    account: int
    last_request_id: int = 0

    def words(self) -> Words:
        return (6, self.session_id, self.account, self.last_request_id)


@dataclass
class Transfer:
    kind: int
    transfer_id: int
    account: int
    asset: int
    amount: int

    def words(self) -> Words:
        return (7 | self.kind << 8, self.transfer_id, self.account | self.asset << 32, self.amount)


def hash_words(words: Words) -> int:
    """xxh3 of 64-bit little-endian words."""
    return xxhash.xxh3_64_intdigest(struct.pack(f"<{len(words)}Q", *(word & MASK64 for word in words)))


#: The same for records: a pure function of few distinct values, so remembering its results changes nothing but speed.
hash_record = lru_cache(maxsize=1 << 16)(hash_words)


def valid_symbol(symbol: int) -> bool:
    """Whether the u64 is 1 to 8 permitted bytes, then only NULs."""
    text = symbol.to_bytes(8, "little").rstrip(b"\0")
    return len(text) > 0 and set(text) <= SYMBOL_BYTES
