"""What happens on the exchange, one typed record for each kind of event, under the names the outside knows.

Data only; smrx/feed/typed.py turns the bytes into these and back. Times in nanoseconds since 1970, prices in ticks,
quantities in lots, money in minimal units.
"""

from typing import ClassVar, Final, NewType

import msgspec

from smrx.wire.codes import (
    InstrumentStatus,
    OrderFlags,
    OrderType,
    Reason,
    SessionFlags,
    Side,
    Stp,
    TimeInForce,
)

#: The halves of a limit order's extra word.
_HALF: Final = 32
_LOW_HALF: Final = (1 << _HALF) - 1

#: A signed number in an unsigned column of 32 bits, as two's complement.
Signed32 = NewType("Signed32", int)


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What every event says."""

    #: Field -> column of the record, where the names differ.
    columns: ClassVar[dict[str, str]] = {}

    sequence: int
    command_sequence: int
    time_ns: int
    session_id: int
    request_id: int


class Order(Event, frozen=True, kw_only=True):
    """The order an event is about.

    `extra` is the extra word of its PLACE: the stop price of a pending stop; of a limit order the displayed lots and
    the second at which it expires.
    """

    columns: ClassVar[dict[str, str]] = {"extra": "counter_order_id"}

    side: Side
    order_type: OrderType
    tif: TimeInForce
    stp: Stp
    flags: OrderFlags
    account: int
    instrument: int
    order_id: int
    client_order_id: int
    price_ticks: int
    quantity_lots: int
    extra: int

    @property
    def stop_price_ticks(self) -> int:
        """The price at which it becomes a live order; 0 for one that is."""
        return self.extra if self.order_type in (OrderType.STOP, OrderType.STOP_LIMIT) else 0

    @property
    def display_lots(self) -> int:
        """The most lots of it the public book shows at once; 0 if it shows all."""
        return self.extra & _LOW_HALF if self.order_type == OrderType.LIMIT else 0

    @property
    def expiry_s(self) -> int:
        """The second since 1970 at which it expires; 0 if none was given."""
        return self.extra >> _HALF if self.order_type == OrderType.LIMIT else 0


class OrderAccepted(Order, frozen=True, kw_only=True, tag="OrderAccepted"):
    """The order is live, or waits for its stop price. `price_ticks` is 0 without a limit price.

    With QUOTE_BUDGET `quantity_lots` is the budget in quote units, and `leaves_lots` is 0.
    """

    leaves_lots: int


class OrderTriggered(Order, frozen=True, kw_only=True, tag="OrderTriggered"):
    """A stop order after it became a market or limit order; it is matched next."""

    cum_lots: int
    leaves_lots: int


class OrderReplaced(Order, frozen=True, kw_only=True, tag="OrderReplaced"):
    """The order after the change; reason SELF_TRADE where self-trade prevention made it smaller."""

    reason: Reason
    cum_lots: int
    leaves_lots: int


class OrderEnded(Order, frozen=True, kw_only=True):
    """An order died; the lots that died are quantity_lots - cum_lots."""

    reason: Reason
    cum_lots: int


class OrderCancelled(OrderEnded, frozen=True, kw_only=True, tag="OrderCancelled"):
    """It was cancelled, on request or for the reason given."""


class OrderExpired(OrderEnded, frozen=True, kw_only=True, tag="OrderExpired"):
    """Its rest could not or may not rest."""


class Fill(Order, frozen=True, kw_only=True):
    """One order's share of a match: price and quantity of this fill, cum and leaves after it."""

    match_id: int
    cum_lots: int
    leaves_lots: int


class PartialFill(Fill, frozen=True, kw_only=True, tag="PartialFill"):
    """The order lives on."""


class CompleteFill(Fill, frozen=True, kw_only=True, tag="CompleteFill"):
    """Nothing of the order is left."""


class Rejected(Event, frozen=True, kw_only=True, tag="Rejected"):
    """A command was refused. Its fields as they were sent: they may hold anything."""

    reason: Reason
    command_kind: int
    side: int
    order_type: int
    tif: int
    stp: int
    flags: int
    account: int
    instrument: int
    order_id: int
    client_order_id: int
    price_ticks: int
    quantity_lots: int


class Trade(Event, frozen=True, kw_only=True, tag="Trade"):
    """One match of two orders, at the maker's price. Fees in quote units."""

    columns: ClassVar[dict[str, str]] = {
        "taker_side": "side",
        "taker_account": "account",
        "taker_order_id": "order_id",
        "taker_fee": "cum_lots",
        "maker_account": "counter_account",
        "maker_order_id": "counter_order_id",
        "maker_fee": "leaves_lots",
    }

    match_id: int
    instrument: int
    price_ticks: int
    quantity_lots: int
    taker_side: Side
    taker_account: int
    taker_order_id: int
    taker_fee: int
    maker_account: int
    maker_order_id: int
    maker_fee: int


class Transfer(Event, frozen=True, kw_only=True):
    """Money crossed the border of the venue."""

    columns: ClassVar[dict[str, str]] = {
        "asset": "instrument",
        "transfer_id": "order_id",
        "amount": "quantity_lots",
        "available_after": "cum_lots",
    }

    account: int
    asset: int
    transfer_id: int
    amount: int
    available_after: int


class Deposited(Transfer, frozen=True, kw_only=True, tag="Deposited"):
    """Into an account."""


class Withdrawn(Transfer, frozen=True, kw_only=True, tag="Withdrawn"):
    """Out of an account."""


class AccountOpened(Event, frozen=True, kw_only=True, tag="AccountOpened"):
    """An account exists."""

    account: int


class AccountSuspended(Event, frozen=True, kw_only=True, tag="AccountSuspended"):
    """It may cancel and nothing else."""

    account: int


class AccountResumed(Event, frozen=True, kw_only=True, tag="AccountResumed"):
    """It may do everything again."""

    account: int


class LimitsSet(Event, frozen=True, kw_only=True, tag="LimitsSet"):
    """An account's limits from now on; 0 = none. Notionals in quote units, the quantity in lots."""

    columns: ClassVar[dict[str, str]] = {
        "max_open_orders": "instrument",
        "max_open_notional": "order_id",
        "max_order_notional": "price_ticks",
        "max_order_quantity": "quantity_lots",
    }

    account: int
    max_open_orders: int
    max_open_notional: int
    max_order_notional: int
    max_order_quantity: int


class SessionOpened(Event, frozen=True, kw_only=True, tag="SessionOpened"):
    """A client may send commands."""

    account: int
    flags: SessionFlags


class SessionEnded(Event, frozen=True, kw_only=True):
    """What a session took along: the orders that were cancelled; their own events came before."""

    columns: ClassVar[dict[str, str]] = {"orders": "quantity_lots"}

    account: int
    orders: int


class SessionClosed(SessionEnded, frozen=True, kw_only=True, tag="SessionClosed"):
    """The session is gone."""


class SessionDisconnected(SessionEnded, frozen=True, kw_only=True, tag="SessionDisconnected"):
    """The session was silent for too long; it stays open."""


class AssetAdded(Event, frozen=True, kw_only=True, tag="AssetAdded"):
    """An asset exists; decimals are for display only. `supply_cap`: the most that may exist, in minimal units."""

    columns: ClassVar[dict[str, str]] = {
        "asset": "instrument",
        "symbol": "client_order_id",
        "decimals": "quantity_lots",
        "supply_cap": "price_ticks",
    }

    asset: int
    symbol: str
    decimals: int
    supply_cap: int


class InstrumentAdded(Event, frozen=True, kw_only=True, tag="InstrumentAdded"):
    """An instrument trades: one lot is `lot_units` of base, one tick x one lot is `scale_units` of quote."""

    columns: ClassVar[dict[str, str]] = {
        "symbol": "client_order_id",
        "base_asset": "order_id",
        "quote_asset": "counter_order_id",
        "lot_units": "account",
        "scale_units": "counter_account",
        "max_price_ticks": "price_ticks",
        "max_quantity_lots": "quantity_lots",
    }

    instrument: int
    symbol: str
    base_asset: int
    quote_asset: int
    lot_units: int
    scale_units: int
    max_price_ticks: int
    max_quantity_lots: int


class MassCancelled(Event, frozen=True, kw_only=True, tag="MassCancelled"):
    """A mass cancel is done; the orders' own events came before. instrument 0: all of them."""

    columns: ClassVar[dict[str, str]] = {"orders": "quantity_lots"}

    account: int
    instrument: int
    side: Side
    orders: int


class StatusSet(Event, frozen=True, kw_only=True, tag="StatusSet"):
    """An instrument's status from now on; closing it cancelled so many orders, their own events came before."""

    columns: ClassVar[dict[str, str]] = {"status": "side", "orders": "quantity_lots"}

    instrument: int
    status: InstrumentStatus
    orders: int


class RulesSet(Event, frozen=True, kw_only=True, tag="RulesSet"):
    """An instrument's rules from now on; 0 = none. Fees in millionths, a negative one is a rebate."""

    columns: ClassVar[dict[str, str]] = {
        "taker_fee": "account",
        "maker_fee": "counter_account",
        "band_bp": "cum_lots",
        "min_price_ticks": "client_order_id",
        "min_notional": "order_id",
        "max_notional": "price_ticks",
        "min_quantity_lots": "quantity_lots",
    }

    instrument: int
    taker_fee: int
    maker_fee: Signed32
    band_bp: int
    min_price_ticks: int
    min_notional: int
    max_notional: int
    min_quantity_lots: int


class Killed(Event, frozen=True, kw_only=True, tag="Killed"):
    """New and replaced orders are refused from now on."""


class Revived(Event, frozen=True, kw_only=True, tag="Revived"):
    """They are accepted again."""


class Ticked(Event, frozen=True, kw_only=True, tag="Ticked"):
    """Time passed; the orders that expired by it came before."""


AnyEvent = (
    OrderAccepted
    | OrderTriggered
    | OrderReplaced
    | OrderCancelled
    | OrderExpired
    | PartialFill
    | CompleteFill
    | Rejected
    | Trade
    | Deposited
    | Withdrawn
    | AccountOpened
    | AccountSuspended
    | AccountResumed
    | LimitsSet
    | SessionOpened
    | SessionClosed
    | SessionDisconnected
    | AssetAdded
    | InstrumentAdded
    | MassCancelled
    | StatusSet
    | RulesSet
    | Killed
    | Revived
    | Ticked
)
