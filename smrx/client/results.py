"""Define the results of operations, with exact decimals as text beside the integers."""

import msgspec

#: Order states, by EventKind.
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
    """Base class of command results: the command was applied, at `sequence`.

    `duplicate`: it had been applied before, but its outcome was lost and no node still has it. `sequence` is then 0 and
    the other fields have no meaning; query orders or balances to see its effect.
    """

    request_id: int
    sequence: int
    duplicate: bool = False


class OrderResult(CommandResult, frozen=True, kw_only=True):
    """An order after the command: New, PartiallyFilled, Filled, Cancelled, Replaced or Expired.

    `reason` names why the order ended, `reason_text` describes it; both are None if it has not.
    """

    order_id: int
    state: str
    reason: str | None
    cum_lots: int
    leaves_lots: int
    #: None if the operation did not name the instrument (cancel).
    filled: str | None = None
    remaining: str | None = None
    reason_text: str | None = None


class MassCancelResult(CommandResult, frozen=True, kw_only=True):
    """The result of a mass cancel: how many orders were cancelled."""

    cancelled: int


class TransferResult(CommandResult, frozen=True, kw_only=True):
    """A deposit or withdrawal. `already_done`: the same transfer was applied before, so this one had no effect."""

    transfer_id: int
    already_done: bool = False
    #: The available balance after it, in minimal units and as a decimal; None if already done.
    available_units: int | None = None
    available: str | None = None


class AccountResult(CommandResult, frozen=True, kw_only=True):
    """An account after the command: ACTIVE or SUSPENDED."""

    account: int
    status: str


class LimitsResult(CommandResult, frozen=True, kw_only=True):
    """The new limits of an account; 0 = no limit. Notionals in minimal units, the quantity in lots."""

    account: int
    max_open_orders: int
    max_open_notional: int
    max_order_notional: int
    max_order_quantity: int


class StatusResult(CommandResult, frozen=True, kw_only=True):
    """The new status of an instrument, and how many orders were cancelled because it was closed."""

    symbol: str
    status: str
    cancelled: int


class RulesResult(CommandResult, frozen=True, kw_only=True):
    """The new rules of an instrument, as decimals; None = no such rule."""

    symbol: str
    maker_fee: str
    taker_fee: str
    band: str | None
    collar: str | None
    collar_reference: str
    min_price: str | None
    min_quantity: str | None
    min_notional: str | None
    max_notional: str | None
    notional_of_market: bool


class RetentionResult(CommandResult, frozen=True, kw_only=True):
    """How long the exchange keeps what is over: sessions and transfer ids in seconds, and how many transfer ids."""

    session_silence_s: int
    transfer_age_s: int
    transfers: int


class CapacityResult(CommandResult, frozen=True, kw_only=True):
    """The most records of each kind that the exchange has; `answers` of all sessions together."""

    accounts: int
    orders: int
    balances: int
    sessions: int
    answers: int
    instruments: int
    assets: int
    credentials: int


class KillSwitchResult(CommandResult, frozen=True, kw_only=True):
    """The new state of the kill switch."""

    killed: bool


class CredentialResult(CommandResult, frozen=True, kw_only=True):
    """A credential that was added, changed or revoked."""

    number: int


class CredentialState(msgspec.Struct, frozen=True, kw_only=True):
    """A credential: what the holder of a public key may do, and for whom.

    `scope`: ACCOUNT, FIRM or ALL; `subject` is the account or the firm. `expires` is a time in ISO 8601, or None.
    """

    number: int
    key: str
    permissions: tuple[str, ...]
    scope: str
    subject: int
    networks: tuple[str, ...]
    expires: str | None
    revoked: bool


class AssetResult(CommandResult, frozen=True, kw_only=True):
    """The id of a new asset."""

    asset: int
    symbol: str


class InstrumentResult(CommandResult, frozen=True, kw_only=True):
    """The id of a new instrument."""

    instrument: int
    symbol: str


class MarketChange(msgspec.Struct, frozen=True, kw_only=True):
    """What apply_market() did about one item of a market file.

    `state`: "unchanged", "changed" ("would change" in a dry run), or "differs" (cannot be changed).
    """

    what: str
    state: str
    detail: str


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """An account's balance of an asset."""

    account: int
    asset: str
    available: str
    held: str
    available_units: int
    held_units: int


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """An account's position in an instrument of which it owns the base asset or has open orders.

    Balances are those of the account; instruments with the same asset share them. Quantities are the open quantities of
    orders, pending stop orders included. Notionals are in quote at the limit prices, without fees and without orders
    that have no limit price. Each value is given as a decimal and in minimal units or lots.
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
    """Status, open orders and limits of an account (0 = none; notionals in minimal units, the quantity in lots)."""

    account: int
    status: str
    open_orders: int
    max_open_orders: int
    max_open_notional: int
    max_order_notional: int
    max_order_quantity: int


class OpenOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A resting order or a pending stop order.

    `shown` is the part of `remaining` that the public book shows, `hidden` the rest. `price` is None without a limit
    price, `stop` without a stop price, `expires` (a time in UTC) unless the order is GTD. `session`: the session whose
    disconnect cancels the order, or None.
    """

    order_id: int
    #: "" if its owner gave it none.
    client_order_id: str
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
    """One price level of a book."""

    price: str
    quantity: str
    orders: int
    price_ticks: int
    quantity_lots: int


class Book(msgspec.Struct, frozen=True, kw_only=True):
    """A book after command `sequence`, best price first on both sides.

    `age_ms`: how old it may be; 0 unless it was read at another level than linearizable, None if the node cannot tell.
    """

    symbol: str
    sequence: int
    age_ms: float | None = 0.0
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """An event that concerns an account, attested by a majority of the nodes.

    `kind` is the name of its EventKind: NEW, FILLED, CANCELLED, TRADE, DEPOSITED ... Decimals stand beside the integers
    that the event has; what the kind does not have is None, or 0 for an integer. In a FILLED, PARTIALLY_FILLED and
    TRADE price and quantity are those of this fill. A TRADE shows the order, account and fee of the own side only.
    """

    sequence: int
    command_sequence: int
    time_ns: int
    kind: str
    account: int
    #: The instrument of an order or trade, the asset of a deposit or withdrawal.
    symbol: str | None
    #: The side of the order; of a TRADE the own side.
    side: str | None
    order_id: int
    #: "" if the order has none. Of a long id None: its text is in a CLIENT_ORDER_ID update.
    client_order_id: str | None
    price: str | None
    quantity: str | None
    filled: str | None
    remaining: str | None
    reason: str | None
    #: Of a fill or TRADE: the number of the match.
    match_id: int
    #: Of a TRADE: whether the own order was in the book, and the own fee in quote; negative is a rebate.
    maker: bool
    fee: str | None
    #: Of a deposit or withdrawal.
    amount: str | None
    available: str | None
    #: The credential whose command it was, 0 if there is none or it belongs to another account.
    credential: int
    price_ticks: int
    quantity_lots: int
    cum_lots: int
    leaves_lots: int
