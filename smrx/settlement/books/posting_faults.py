"""Name what can be wrong with an event, and format it as a sentence.

A kernel returns a Fault, the place of the event in its batch and up to four numbers; sentence() formats them.
"""

from enum import IntEnum
from typing import Any, Final

from smrx.wire.codes import EventKind


class Fault(IntEnum):
    """Why the books refuse an event."""

    NONE = 0
    # the stream
    SEQUENCE = 1
    COMMAND = 2
    TIME_WITHIN = 3
    TIME_BACK = 4
    KIND = 5
    # trades and their fills
    FILLS_MISSING = 10
    FILL_ALONE = 11
    MATCH_ID = 12
    TRADE_SIDE = 13
    TRADE_ORDER = 14
    TRADE_QUANTITY = 15
    MAKER_PRICE = 16
    TAKER_LIMIT = 17
    TAKER_FEE = 18
    MAKER_FEE = 19
    BUDGET = 20
    FILL_DIFFERS = 21
    FILL_COUNT = 22
    FILL_KIND = 23
    MAKER_TYPE = 24
    # orders
    UNKNOWN_INSTRUMENT = 30
    ORDER_OPEN = 31
    ORDER_NOT_OPEN = 32
    ORDER_IDENTITY = 33
    QUANTITY = 34
    PRICE = 35
    ORDER_SIDE = 36
    ORDER_DIFFERS = 37
    UNFILLABLE_FILLED = 38
    NOTHING_LEFT = 39
    NOT_A_STOP = 40
    # money
    UNKNOWN_ACCOUNT = 50
    UNKNOWN_ASSET = 51
    AMOUNT = 52
    AVAILABLE = 53
    HELD = 54
    SUPPLY = 55
    # definitions
    ACCOUNT_EXISTS = 60
    ASSET_EXISTS = 61
    INSTRUMENT_EXISTS = 62
    INSTRUMENT_RULES = 63
    FEES_WITH_ORDERS = 64
    FEE_RATES = 65
    # events that belong to the one before them
    FOLLOWING_COUNT = 70
    FOLLOWING_MISSING = 71
    FOLLOWING_ALONE = 72
    FOLLOWING_ORDER = 73
    FOLLOWING_DIFFERS = 74
    NETWORKS_COUNT = 75
    NETWORKS_ALONE = 76
    NETWORKS_DIFFER = 77


#: {0} to {3}: the kernel's numbers; any column of the event by its name.
_SENTENCES: Final = {
    Fault.SEQUENCE: "expected the next event sequence, found {found_sequence}",
    Fault.COMMAND: "expected command {0} or {1}, found {command_sequence}",
    Fault.TIME_WITHIN: "time went from {0} to {time_ns} within a command",
    Fault.TIME_BACK: "time went back from {0} to {time_ns}",
    Fault.KIND: "expected a known kind, found {kind_text}",
    Fault.FILLS_MISSING: "found a trade without the fills of maker and taker",
    Fault.FILL_ALONE: "found a fill without a trade",
    Fault.MATCH_ID: "expected match id {0}, found {match_id}",
    Fault.TRADE_SIDE: "expected side BUY or SELL, found {side}",
    Fault.TRADE_ORDER: "trade {match_id}: order {0} is not open, or differs from the trade",
    Fault.TRADE_QUANTITY: (
        "trade {match_id}: expected 1 to {0} lots, which both orders have left, found {quantity_lots}"
    ),
    Fault.MAKER_PRICE: "trade {match_id}: expected the maker's price, {0} ticks, found {price_ticks}",
    Fault.TAKER_LIMIT: "trade {match_id}: {price_ticks} ticks is beyond the taker's limit, {0}",
    Fault.TAKER_FEE: "trade {match_id}: expected a taker's fee of {0} by the instrument's rules, found {taker_fee}",
    Fault.MAKER_FEE: "trade {match_id}: expected a maker's fee of {0} by the instrument's rules, found {maker_fee}",
    Fault.BUDGET: "trade {match_id}: costs {0}, more than the {1} left of the taker's budget",
    Fault.FILL_DIFFERS: "trade {0}: the {party}'s fill has {field} {1}, expected {2}",
    Fault.FILL_COUNT: "order {order_id}: expected {0} lots filled and {1} left, found {cum_lots} and {leaves_lots}",
    Fault.FILL_KIND: "order {order_id}: a fill after which {leaves_lots} lots are left has kind {kind}",
    Fault.MAKER_TYPE: "trade {match_id}: order {0} is not in a book",
    Fault.UNKNOWN_INSTRUMENT: "expected a known instrument, found {instrument}",
    Fault.ORDER_OPEN: "order {order_id} is open already",
    Fault.ORDER_NOT_OPEN: "expected an open order, found order {order_id}, which is not open",
    Fault.ORDER_IDENTITY: (
        "order {order_id}: expected account {0}, instrument {1}, side {2}, found {account}, {instrument}, {side}"
    ),
    Fault.QUANTITY: (
        "order {order_id}: expected 1 to {0} lots, all of them open, found {quantity_lots} with {leaves_lots} open"
    ),
    Fault.PRICE: "order {order_id}: {price_ticks} ticks is not a valid price for it",
    Fault.ORDER_SIDE: "order {order_id}: expected side BUY or SELL, found {side}",
    Fault.ORDER_DIFFERS: (
        "order {order_id}: expected price {0}, quantity {1}, cum {2} and leaves {3}, found {price_ticks}, "
        "{quantity_lots}, {cum_lots} and {leaves_lots}"
    ),
    Fault.UNFILLABLE_FILLED: "an order that expired as unfillable was filled",
    Fault.NOTHING_LEFT: "no order is left",
    Fault.NOT_A_STOP: "order {order_id}: expected a pending stop order of the type that the event triggers",
    Fault.UNKNOWN_ACCOUNT: "expected a known account, found {account}",
    Fault.UNKNOWN_ASSET: "expected a known asset, found {0}",
    Fault.AMOUNT: "expected an amount of at least 1, found {amount}",
    Fault.AVAILABLE: (
        "account {account}, asset {asset_name}: expected {0} available after the transfer, found {available_after}"
    ),
    Fault.HELD: (
        "account {0}, asset {asset_name}: expected what orders hold to be between 0 and what is owned ({2}), found {3}"
    ),
    Fault.SUPPLY: "asset {asset_name}: {0} units in all are more than its cap, {1}",
    Fault.ACCOUNT_EXISTS: "account {account} exists already",
    Fault.ASSET_EXISTS: "asset {asset} exists already",
    Fault.INSTRUMENT_EXISTS: "instrument {instrument} exists already",
    Fault.INSTRUMENT_RULES: "instrument {instrument}: the worth of its largest order exceeds the largest amount",
    Fault.FEES_WITH_ORDERS: "instrument {instrument}: fee rates change while it has {0} open orders",
    Fault.FEE_RATES: "instrument {instrument}: expected -taker <= maker <= taker <= 1000000 millionths, found {0}, {1}",
    Fault.FOLLOWING_COUNT: "order {order_id}: expected at most {0} events that belong to it, found {following}",
    Fault.FOLLOWING_MISSING: "event {1}, order {2}: {0} more events must belong to it, found kind {kind_text}",
    Fault.FOLLOWING_ALONE: "found kind {kind_text}, and the event before it has nothing that follows",
    Fault.FOLLOWING_ORDER: "event {0}: expected CLIENT_ORDER_ID, then ORDER_TERMS, with {1} to come, found {kind_text}",
    Fault.FOLLOWING_DIFFERS: (
        "expected order {0}, account {1}, instrument {2}, as event {3} has, found {order_id}, {account}, {instrument}"
    ),
    Fault.NETWORKS_COUNT: "credential {instrument}: expected at most 1 event that belongs to it, found {following}",
    Fault.NETWORKS_ALONE: "event {1}: expected what belongs to it, found {kind_text}",
    Fault.NETWORKS_DIFFER: "expected the networks of credential {0}, as event {1} has, found those of {instrument}",
}

#: The fields of a trade that its fills repeat, in the order of the checks.
FILL_FIELDS: Final = (
    "match_id", "command_sequence", "instrument", "price_ticks", "quantity_lots", "order_id", "account", "side",
)  # fmt: skip


def sentence(fault: Fault, numbers: list[int], event: dict[str, Any], asset_name: dict[int, str]) -> str:
    """Return what is wrong with an event, in one sentence. HELD and AVAILABLE have the asset in numbers[1]."""
    known = dict(event, found_sequence=event["sequence"], kind_text=_kind_text(event["kind"]))
    if fault in (Fault.HELD, Fault.AVAILABLE, Fault.SUPPLY):
        known["asset_name"] = asset_name.get(numbers[1] if fault is not Fault.SUPPLY else numbers[2], "?")
    if fault is Fault.FILL_DIFFERS:
        known["field"], known["party"] = FILL_FIELDS[numbers[3] // 2], ("maker", "taker")[numbers[3] % 2]
    return _SENTENCES[fault].format(*numbers, **known)


def _kind_text(kind: int) -> str:
    """Return a kind with its name, if it has one."""
    return f"{kind} ({EventKind(kind).name})" if kind in set(EventKind) else str(kind)
