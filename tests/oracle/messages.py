"""The oracle's messages: commands, events and outcomes, with fields in the order of the records on the wire."""

from typing import NamedTuple

from tests.oracle.records import MASK32, Limits, Rules, signed


class Command(NamedTuple):
    """A command as sent; some kinds use the same bytes under the names at the bottom."""

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
    def extra(self) -> int:
        """The extra word of a PLACE: a stop price, or display lots and expiry."""
        return self.order_id

    # ADD_ASSET and ADD_INSTRUMENT.

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
        return self.order_id & MASK32

    @property
    def quote_asset(self) -> int:
        return self.order_id >> 32

    # SET_LIMITS and SET_RULES.

    @property
    def limits(self) -> Limits:
        return Limits(self.instrument, signed(self.order_id, 64), self.price_ticks, self.quantity_lots)

    @property
    def rules(self) -> Rules:
        return Rules(
            self.order_type | self.tif << 8,
            self.account,
            signed(self.scale_units, 32),
            signed(self.client_order_id, 64),
            self.quantity_lots,
            signed(self.order_id, 64),
            self.price_ticks,
        )


class Event(NamedTuple):
    """An event, fields in the order of the EVENT record."""

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
