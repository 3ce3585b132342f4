"""What the verbs return: typed, with decimals as exact text beside the integers they stand for."""

import msgspec

#: The states of an order as people know them, by EventKind.
STATES = {
    1: "New",
    2: "PartiallyFilled",
    3: "Filled",
    4: "Cancelled",
    5: "Replaced",
    6: "Rejected",
    7: "Expired",
    25: "Triggered",
}


class CommandResult(msgspec.Struct, frozen=True, kw_only=True):
    """A command was applied, as number `sequence`.

    `duplicate`: it was applied before, its answer was lost on the way and no node remembers it any more; then sequence
    is 0 and the other fields say nothing. Ask for orders or balances to see what it did.
    """

    request_id: int
    sequence: int
    duplicate: bool = False


class OrderResult(CommandResult, frozen=True, kw_only=True):
    """An order after the command: New, PartiallyFilled, Filled, Cancelled, Replaced or Expired.

    `reason` names why it ended, `why` says it in words; None where it did not.
    """

    order_id: int
    state: str
    reason: str | None
    cum_lots: int
    leaves_lots: int
    #: Decimals of the quantity; None where the instrument was not named (cancel by id).
    filled: str | None = None
    remaining: str | None = None
    reason_text: str | None = None


class MassCancelResult(CommandResult, frozen=True, kw_only=True):
    """How many orders were cancelled."""

    cancelled: int


class TransferResult(CommandResult, frozen=True, kw_only=True):
    """A deposit or withdrawal. `already_done`: the same transfer had been made before; nothing was changed now."""

    transfer_id: int
    already_done: bool = False
    #: Available after it, in minimal units and as a decimal; None where it was already done.
    available_units: int | None = None
    available: str | None = None


class AccountResult(CommandResult, frozen=True, kw_only=True):
    """An account after the command: ACTIVE or SUSPENDED."""

    account: int
    status: str


class LimitsResult(CommandResult, frozen=True, kw_only=True):
    """The limits of an account from now on; 0 = no limit. Amounts in minimal units, the quantity in lots."""

    account: int
    max_open_orders: int
    max_open_notional: int
    max_order_notional: int
    max_order_quantity: int


class StatusResult(CommandResult, frozen=True, kw_only=True):
    """An instrument's status from now on, and how many orders closing it cancelled."""

    symbol: str
    status: str
    cancelled: int


class RulesResult(CommandResult, frozen=True, kw_only=True):
    """An instrument's rules from now on, as decimals; None = no such rule."""

    symbol: str
    maker_fee: str
    taker_fee: str
    band: str | None
    min_price: str | None
    min_quantity: str | None
    min_notional: str | None
    max_notional: str | None


class KillSwitchResult(CommandResult, frozen=True, kw_only=True):
    """Whether the kill switch is on from now on."""

    killed: bool


class AssetResult(CommandResult, frozen=True, kw_only=True):
    """An asset was added under this id."""

    asset: int
    symbol: str


class InstrumentResult(CommandResult, frozen=True, kw_only=True):
    """An instrument was added under this id."""

    instrument: int
    symbol: str


class MarketChange(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one thing that a market's file asks for.

    `state`: "unchanged" (was there already), "changed" ("would change" of a dry run), "differs" (cannot be changed).
    """

    what: str
    state: str
    detail: str


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """What an account owns of one asset."""

    account: int
    asset: str
    available: str
    held: str
    available_units: int
    held_units: int


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """What an account has in an instrument: where it owns some of the base asset, or has open orders.

    Balances are the whole account's: instruments with the same asset share them. What is open is what may still trade,
    pending stops among it; the notional is its worth at its limits without fees, in quote, and leaves out what has no
    limit. The same in minimal units and in lots.
    """

    account: int
    symbol: str
    base: str
    quote: str
    base_available: str
    base_held: str
    base_total: str
    quote_available: str
    quote_held: str
    quote_total: str
    buy_orders: int
    buy_quantity: str
    buy_notional: str
    sell_orders: int
    sell_quantity: str
    sell_notional: str
    base_available_units: int
    base_held_units: int
    quote_available_units: int
    quote_held_units: int
    buy_lots: int
    buy_notional_units: int
    sell_lots: int
    sell_notional_units: int


class AccountState(msgspec.Struct, frozen=True, kw_only=True):
    """An account: status, open orders and limits (0 = none; amounts in minimal units, the quantity in lots)."""

    account: int
    status: str
    open_orders: int
    max_open_orders: int
    max_open_notional: int
    max_order_notional: int
    max_order_quantity: int


class OpenOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order that rests in a book, or a stop that waits for its price.

    Of `remaining`, the public book shows `shown` and not `hidden`. None: a stop order has no limit price, others no
    stop price; only GTD orders expire (a time in UTC); `session` takes the order along when it disconnects.
    """

    order_id: int
    client_order_id: int
    account: int
    symbol: str
    side: str
    order_type: str
    tif: str
    stp: str
    post_only: bool
    price: str | None
    stop: str | None
    quantity: str
    filled: str
    remaining: str
    shown: str
    hidden: str
    expires: str | None
    session: int | None
    price_ticks: int
    quantity_lots: int
    cum_lots: int
    leaves_lots: int


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """One price of a book."""

    price: str
    quantity: str
    orders: int
    price_ticks: int
    quantity_lots: int


class Book(msgspec.Struct, frozen=True, kw_only=True):
    """A book after command `sequence`, best price first on both sides."""

    symbol: str
    sequence: int
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
