"""The oracle's messages: commands with their details, events and outcomes."""

import struct
from functools import cached_property
from typing import NamedTuple

import numpy as np
import xxhash

from smrx.wire.codes import EventKind, Reason
from smrx.wire.records import EVENT_FIELDS, EVENT_LAYOUTS
from tests.oracle.records import MASK64, Capacity, Limits, Retention, Rules, Terms, signed

#: The fields that every event has.
EVERY_EVENT = ("sequence", "command_sequence", "time_ns", "kind", "session_id", "request_id")
COMMAND_FORMAT = struct.Struct("<BBBBBBHQQIIQQqq")


class Fields(NamedTuple):
    """The fields of a command, in the order of the record and in the names of orders."""

    kind: int = 0
    side: int = 0
    order_type: int = 0
    tif: int = 0
    stp: int = 0
    flags: int = 0
    details: int = 0
    session_id: int = 0
    request_id: int = 0
    account: int = 0
    instrument: int = 0
    client_order_id: int = 0
    order_id: int = 0
    price_ticks: int = 0
    quantity_lots: int = 0


class Command:
    """A command as sent; many kinds use the same bytes under other names."""

    def __init__(self, data: bytes = bytes(64), details: bytes | None = None) -> None:
        """`details` are the 128 bytes that the command names, None if it names none or more than there are."""
        self.data = data
        self.fields = Fields(*COMMAND_FORMAT.unpack(data))
        self.details_data = details
        f = self.fields
        self.kind, self.side, self.order_type, self.tif, self.stp, self.flags = f[:6]
        self.session_id, self.request_id, self.account, self.instrument = f[7:11]
        self.order_id, self.price_ticks, self.quantity_lots = f[12:]
        #: The id in the command itself.
        self.id_word = f.client_order_id

    def bytes_of_details(self, first: int, size: int) -> bytes:
        """Return a part of the details; NULs if there are none."""
        return self.details_data[first : first + size] if self.details_data else bytes(size)

    # PLACE, CANCEL, REPLACE.

    @cached_property
    def id_text(self) -> bytes:
        """The text in the details, with its NULs."""
        return self.bytes_of_details(0, 64)

    @cached_property
    def client_order_id(self) -> bytes:
        """The client order id of a well-formed command; b"" for none."""
        return (self.id_word.to_bytes(8, "little") if self.id_word else self.id_text).rstrip(b"\0")

    @cached_property
    def terms(self) -> Terms:
        return Terms(*struct.unpack("<qqqqqQIB", self.bytes_of_details(64, 53)))

    @property
    def person(self) -> int:
        """The credential of the person behind the order; 0 for none."""
        return self.terms.credential

    # DEPOSIT and WITHDRAW.

    @property
    def asset(self) -> int:
        return self.instrument

    @property
    def transfer_id(self) -> int:
        return self.order_id

    @property
    def amount(self) -> int:
        return self.quantity_lots

    # ADD_ASSET.

    @property
    def decimals(self) -> int:
        return self.side

    @property
    def asset_symbol(self) -> bytes:
        return self.data[32:48]

    @property
    def supply_cap(self) -> int:
        return self.price_ticks

    # ADD_INSTRUMENT.

    @property
    def instrument_symbol(self) -> bytes:
        return self.bytes_of_details(0, 24)

    @property
    def listing(self) -> tuple[int, int, int, int, int, int]:
        """Base and quote asset, lot and scale units, largest price and quantity."""
        base, quote, lot, scale, price, quantity = struct.unpack("<IIIIqq", self.bytes_of_details(24, 32))
        return base, quote, lot, scale, price, quantity

    # OPEN_ACCOUNT and the commands about credentials.

    @property
    def firm(self) -> int:
        return self.instrument

    @property
    def number(self) -> int:
        """The number of the credential that the command is about."""
        return self.instrument

    # The session's credential and the content of the request, with version 2 of the rules.

    @property
    def credential(self) -> int:
        return self.session_id >> 32

    @property
    def content(self) -> int:
        """A hash of what the request says, never 0: of its ids and of its details' number only whether there is one."""
        content = xxhash.xxh3_64_intdigest(self.data[:6] + bytes([self.fields.details != 0, 0]) + self.data[24:])
        if self.details_data:
            for half in (self.details_data[:64], self.details_data[64:]):
                content = xxhash.xxh3_64_intdigest(content.to_bytes(8, "little") + half)
        return content or 1

    # OPEN_SESSION.

    @property
    def answers(self) -> int:
        return self.instrument

    # SET_STATUS, SET_LIMITS, SET_RULES and SET_RETENTION.

    @property
    def retention(self) -> Retention:
        return Retention(self.account, self.instrument, self.order_id)

    # SET_CAPACITY.

    @property
    def capacity(self) -> Capacity:
        return Capacity(*struct.unpack("<8I", self.data[24:56]))

    @property
    def status(self) -> int:
        return self.side

    @property
    def limits(self) -> Limits:
        return Limits(self.instrument, signed(self.order_id, 64), self.price_ticks, self.quantity_lots)

    @property
    def rules(self) -> Rules:
        fields = struct.unpack("<qqqqIiHHBB", self.bytes_of_details(0, 46))
        bounds, fees, (band, collar, reference, flags) = fields[:4], fields[4:6], fields[6:]
        return Rules(*(band, *fees, *bounds, collar, reference, flags))


class Event(NamedTuple):
    """An event: what the oracle itself looks at, and the record."""

    sequence: int
    kind: EventKind
    reason: Reason
    data: bytes


#: Where an event says who did it; None where it does not.
CREDENTIAL_AT: dict[EventKind, int | None] = {
    EventKind.TRADE: 64,
    EventKind.CLIENT_ORDER_ID: None,
    # It repeats the details of the command.
    EventKind.ORDER_TERMS: None,
    EventKind.CREDENTIAL_NETWORKS: None,
}


def event(kind: EventKind, fields: dict[str, int | bytes], credential: int) -> Event:
    """Return an event of a kind with fields of the names that this kind has; the others are 0."""
    unknown = set(fields) - {*EVERY_EVENT, *EVENT_FIELDS[kind]}
    assert not unknown, f"{kind.name} has no field {sorted(unknown)}"
    record = np.zeros((), EVENT_LAYOUTS[kind])
    for name, value in fields.items():
        record[name] = value
    record["kind"] = kind
    sequence, data = int(record["sequence"]), bytearray(record.tobytes())
    at = CREDENTIAL_AT.get(kind, 120)
    if at is not None:
        struct.pack_into("<I", data, at, credential)
    return Event(sequence, kind, Reason(int(record["reason"])), bytes(data))


def unsigned(value: int) -> int:
    """Return a number as an unsigned field holds it."""
    return value & MASK64


class Outcome(NamedTuple):
    """An outcome, fields in the order of the OUTCOME record."""

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
