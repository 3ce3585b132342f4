"""Describe every Reason in a sentence: why a command was rejected, or why an order ended.

Messages show the name of the reason beside the text, because programs and manuals use the name.
"""

from typing import Final

from smrx.wire.codes import Reason

REASON_TEXTS: Final[dict[Reason, str]] = {
    Reason.NONE: "no reason",
    Reason.UNKNOWN_KIND: "the kind of command is unknown to the exchange",
    Reason.RESERVED_NOT_ZERO: "a field that this command does not use is set",
    Reason.INVALID_SIDE: "the side is neither buy nor sell",
    Reason.INVALID_ORDER_TYPE: "there is no such order type",
    Reason.INVALID_TIME_IN_FORCE: "there is no such time in force",
    Reason.INVALID_STP: "there is no such self-trade prevention mode",
    Reason.INVALID_FLAGS: "there are no such flags",
    Reason.INVALID_ID: "an id is missing or not allowed",
    Reason.INVALID_STATUS: "there is no such instrument status",
    Reason.INVALID_CLIENT_ORDER_ID: "the client order id is not 1 to 64 printable ASCII characters in its one form",
    Reason.INVALID_DETAILS: "the command's details are missing, or it names details that it may not have",
    Reason.UNKNOWN_SESSION: "the session is unknown to the exchange",
    Reason.REQUEST_GAP: "an earlier request of the session is missing",
    Reason.SESSION_IN_USE: "the session belongs to another account",
    Reason.NOT_AUTHORISED: "the session's account may not do this",
    Reason.SESSION_CLOSED: "the session is closed; open it again first",
    Reason.INVALID_VERSION: "the version of the rules is not the next one",
    Reason.KILLED: "the kill switch is on: no new or replaced orders until the venue revives trading",
    Reason.UNKNOWN_ACCOUNT: "there is no such account",
    Reason.ACCOUNT_EXISTS: "the account exists already",
    Reason.ACCOUNT_SUSPENDED: "the account is suspended and may only cancel orders",
    Reason.UNKNOWN_ASSET: "there is no such asset",
    Reason.ASSET_EXISTS: "the asset exists already",
    Reason.UNKNOWN_INSTRUMENT: "there is no such instrument",
    Reason.INSTRUMENT_EXISTS: "the instrument exists already",
    Reason.INSTRUMENT_NOT_TRADING: "the instrument is halted, cancel-only or closed",
    Reason.INVALID_INSTRUMENT: "the instrument's scales or maximums are out of range",
    Reason.INVALID_RULES: "the rules contradict each other or the instrument's maximums",
    Reason.INSTRUMENT_HAS_ORDERS: "fees change only while the instrument has no open orders",
    Reason.DUPLICATE_CLIENT_ORDER_ID: "an open order of the account has this client order id",
    Reason.UNKNOWN_ORDER: "the account has no such open order",
    Reason.TRANSFER_ALREADY_DONE: "this transfer was made before",
    Reason.TRANSFER_ID_REUSED: "another transfer was made under this transfer id",
    Reason.INVALID_PRICE: "the price is missing, or not allowed for this order",
    Reason.PRICE_BELOW_MINIMUM: "the price is below the instrument's minimum",
    Reason.PRICE_ABOVE_MAXIMUM: "the price is above the instrument's maximum",
    Reason.INVALID_STOP_PRICE: "the stop price is missing or outside the instrument's minimum and maximum",
    Reason.PRICE_OUTSIDE_BAND: "the price is too far from the last trade, or from the order's stop price",
    Reason.INVALID_QUANTITY: "the quantity is not above 0, or not above the filled quantity",
    Reason.QUANTITY_BELOW_MINIMUM: "the quantity is below the instrument's minimum",
    Reason.QUANTITY_ABOVE_MAXIMUM: "the quantity is above the instrument's maximum",
    Reason.INVALID_DISPLAY: "the displayed quantity is not below the order's quantity",
    Reason.INVALID_EXPIRY: "the expiry is not in the future",
    Reason.NOTIONAL_BELOW_MINIMUM: "price times quantity is below the instrument's minimum",
    Reason.NOTIONAL_ABOVE_MAXIMUM: "price times quantity is above the instrument's maximum",
    Reason.INVALID_LIMIT: "a limit is negative or too large",
    Reason.INVALID_AMOUNT: "the amount is not above 0, or too large",
    Reason.SUPPLY_EXCEEDED: "the supply of the asset would exceed its maximum",
    Reason.OPEN_ORDERS_LIMIT: "the account has as many open orders as its limit allows",
    Reason.ORDER_QUANTITY_LIMIT: "the quantity is above the account's limit for one order",
    Reason.ORDER_NOTIONAL_LIMIT: "price times quantity is above the account's limit for one order",
    Reason.OPEN_NOTIONAL_LIMIT: "the notional of the account's open orders would exceed its limit",
    Reason.UNSUPPORTED_COMBINATION: "the order type, time in force and flags cannot be combined",
    Reason.POST_ONLY_WOULD_TAKE: "the order is post-only and would take liquidity",
    Reason.STOP_WOULD_TRIGGER: "the last trade has reached the stop price already",
    Reason.FOK_UNFILLABLE: "the whole quantity cannot be filled at once",
    Reason.INSUFFICIENT_FUNDS: "the account's available balance is too small",
    Reason.REQUESTED: "as requested",
    Reason.MASS_CANCEL: "by a mass cancel",
    Reason.IOC_REMAINDER: "an immediate order does not rest in the book",
    Reason.NO_LIQUIDITY: "the book has no more liquidity",
    Reason.FUNDS_EXHAUSTED: "the available balance is spent",
    Reason.SELF_TRADE: "the order met an order of its own account",
    Reason.TIME_REACHED: "the expiry time was reached",
    Reason.DISCONNECTED: "the session disconnected",
    Reason.INSTRUMENT_CLOSED: "the instrument was closed",
    Reason.COLLAR_REACHED: "what was left could trade only beyond the instrument's price collar",
    Reason.BUDGET_SPENT: "the rest of the budget is less than one lot",
}


def reason_text(code: int) -> str:
    """Return the text of a reason code, also of one that is unknown to this version."""
    known = {int(reason): text for reason, text in REASON_TEXTS.items()}
    return known.get(code, f"reason {code}, unknown to this version")
