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
}


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A command was applied, as number `sequence`.

    `duplicate`: it was applied before, its answer was lost on the way and no node remembers it any more; then sequence
    is 0 and the other fields say nothing. Ask for orders or balances to see what it did.
    """

    request_id: int
    sequence: int
    duplicate: bool = False


class OrderAnswer(Answer, frozen=True, kw_only=True):
    """An order after the command: New, PartiallyFilled, Filled, Cancelled, Replaced or Expired (with `reason`)."""

    order_id: int
    state: str
    reason: str | None
    cum_lots: int
    leaves_lots: int
    #: Decimals of the quantity; None where the instrument was not named (cancel by id).
    filled: str | None = None
    remaining: str | None = None


class MassCancelAnswer(Answer, frozen=True, kw_only=True):
    """How many orders were cancelled."""

    cancelled: int


class TransferAnswer(Answer, frozen=True, kw_only=True):
    """A deposit or withdrawal. `already_done`: the same transfer had been made before; nothing was changed now."""

    transfer_id: int
    already_done: bool = False
    #: Available after it, in minimal units and as a decimal; None where it was already done.
    available_units: int | None = None
    available: str | None = None


class AccountAnswer(Answer, frozen=True, kw_only=True):
    """An account was opened."""

    account: int


class AssetAnswer(Answer, frozen=True, kw_only=True):
    """An asset was added under this id."""

    asset: int
    symbol: str


class InstrumentAnswer(Answer, frozen=True, kw_only=True):
    """An instrument was added under this id."""

    instrument: int
    symbol: str


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """What an account owns of one asset."""

    account: int
    asset: str
    available: str
    held: str
    available_units: int
    held_units: int


class OpenOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order that rests in a book."""

    order_id: int
    client_order_id: int
    account: int
    symbol: str
    side: str
    price: str
    quantity: str
    filled: str
    remaining: str
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
