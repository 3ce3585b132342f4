"""The command of one step of the random flow, chosen among all kinds, valid and invalid.

Called by flow.py with the state reached so far.
"""

import random

import numpy as np

from smrx.wire.codes import (
    AccountStatus,
    CommandKind,
    InstrumentStatus,
    OrderFlags,
    OrderType,
    Side,
    Stp,
    TimeInForce,
)
from smrx.wire.records import COMMAND
from tests.commands import Commands, command, place
from tests.oracle import Oracle
from tests.oracle.records import NANOSECONDS
from tests.property.choices import Choices, pick_account, pick_instrument, pick_side, sender
from tests.property.venue_moves import lift_restriction, listing, move_money, session_change, venue_change

#: Values for bounds: just inside, just outside, and the extremes of the field.
EDGES = (0, 1, -1, 18, 19, 20, 21, 50, 51, 1 << 31, 1 << 32, (1 << 62) - 1, 1 << 62, (1 << 63) - 1, -(1 << 63))
STP_MODES = (Stp.CANCEL_NEWEST, Stp.CANCEL_OLDEST, Stp.CANCEL_BOTH, Stp.DECREMENT, Stp.NONE)


def next_command(choices: Choices, oracle: Oracle) -> Commands:
    """Return the command that a step describes in the oracle's present state."""
    action = choices.byte()
    if action % 3 == 1 and is_restricted(oracle):
        return lift_restriction(choices, oracle)
    for bound, make in (
        (84, plain_order),
        (126, special_order),
        (152, stop_order),
        (172, cancel),
        (196, replace),
        (200, mass_cancel),
        (209, move_money),
        (216, session_change),
        (220, listing),
        (233, venue_change),
        (236, raw_bytes),
        (247, changed_byte),
    ):
        if action < bound:
            return make(choices, oracle)
    return edge_value(choices, oracle)


def is_restricted(oracle: Oracle) -> bool:
    """Whether the venue has stopped something: a flow that stays stopped tests little."""
    state = oracle.state
    return (
        state.killed
        or any(account.status is not AccountStatus.ACTIVE for account in state.accounts.values())
        or any(known.status is not InstrumentStatus.TRADING for known in state.instruments.values())
    )


def plain_order(choices: Choices, oracle: Oracle) -> Commands:
    account = pick_account(choices)
    side = pick_side(choices)
    # Bids and asks overlap in half of their prices, so that there are deep books and many trades.
    quantity, price = 1 + choices.below(9), (1 if side is Side.BUY else 5) + choices.below(8)
    instrument = pick_instrument(choices)
    who = sender(choices, oracle, account)
    client_order_id = max(0, choices.byte() // 8 - 24)
    stp = choices.of(STP_MODES)
    return place(who, account, side, quantity, price, instrument=instrument, client_order_id=client_order_id, stp=stp)


GTC, IOC, FOK, GTD = TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK, TimeInForce.GTD
LIMIT, MARKET, STOP, STOP_LIMIT = OrderType.LIMIT, OrderType.MARKET, OrderType.STOP, OrderType.STOP_LIMIT
POST_ONLY, BUDGET = OrderFlags.POST_ONLY, OrderFlags.QUOTE_BUDGET
SPECIAL = (
    (LIMIT, IOC, 0),
    (MARKET, IOC, 0),
    (LIMIT, FOK, 0),
    (LIMIT, GTC, POST_ONLY),
    (MARKET, IOC, BUDGET),
    (LIMIT, GTD, 0),
    (LIMIT, GTC, 0),
    (LIMIT, GTD, POST_ONLY),
    (MARKET, IOC, BUDGET),
    (MARKET, IOC, 0),
)
UNSUPPORTED = (
    *((MARKET, GTC, 0), (MARKET, FOK, 0), (MARKET, GTD, 0), (MARKET, IOC, POST_ONLY)),
    *((LIMIT, IOC, POST_ONLY), (LIMIT, FOK, POST_ONLY), (LIMIT, GTC, BUDGET), (LIMIT, GTD, BUDGET | POST_ONLY)),
    *((STOP, GTC, 0), (STOP, IOC, POST_ONLY), (STOP_LIMIT, GTD, 0), (STOP_LIMIT, GTC, POST_ONLY)),
    *((STOP, IOC, BUDGET), (STOP_LIMIT, GTC, BUDGET)),
)


def special_order(choices: Choices, oracle: Oracle) -> Commands:
    """Return an immediate, fill-or-kill, market, budget, GTD, iceberg or post-only order; seldom an unsupported one."""
    record = plain_order(choices, oracle)
    pick, hide = choices.byte(), choices.byte()
    order_type, tif, flags = UNSUPPORTED[pick % len(UNSUPPORTED)] if pick >= 240 else SPECIAL[pick % len(SPECIAL)]
    record["order_type"], record["tif"], record["flags"] = order_type, tif, flags
    if order_type in (MARKET, STOP):
        record["price_ticks"] = 0
    else:
        # A limit far into the book, which reaches many levels.
        record["price_ticks"] = 4 + choices.below(9) if record["side"] == Side.BUY else 1 + choices.below(9)
    # Sometimes a market order beyond any account's funds.
    record["quantity_lots"] += 30 if order_type is MARKET and hide >= 160 else choices.below(12)
    if flags & BUDGET:
        record["side"] = Side.BUY if pick < 240 else record["side"]
        record["quantity_lots"] *= 1 + choices.below(12)
    extra = 0
    if order_type is LIMIT and (hide >= 250 or (tif in (GTC, GTD) and hide < 160)):
        extra = 1 + hide % 4
    if record["tif"] == GTD and order_type is LIMIT:
        extra |= (oracle.time_ns // NANOSECONDS + choices.below(8)) << 32
    if order_type in (STOP, STOP_LIMIT):
        extra = 1 + hide % 20
    record["order_id"] = extra
    return record


def stop_order(choices: Choices, oracle: Oracle) -> Commands:
    """Return a stop or stop-limit order around the last price, mostly on its far side."""
    record = plain_order(choices, oracle)
    listed = oracle.state.instruments.get(int(record["instrument"][0]))
    last = (listed.last_price if listed else None) or 7
    pick = choices.byte()
    record["order_type"], record["tif"] = (
        (STOP, IOC), (STOP_LIMIT, GTC), (STOP_LIMIT, IOC), (STOP_LIMIT, FOK), (STOP_LIMIT, GTC)
    )[pick % 5]  # fmt: skip
    distance = choices.below(5) if pick >= 24 else -choices.below(3)
    stop = last + distance if record["side"] == Side.BUY else last - distance
    record["order_id"] = max(0, stop)
    record["price_ticks"] = 0 if record["order_type"] == STOP else max(1, stop + choices.below(5) - 2)
    return record


def named_order(choices: Choices, oracle: Oracle) -> tuple[int, dict[str, int]]:
    """Choose an account and mostly one of its open orders, by client order id if it has one and the step says so."""
    account, pick, by_client_id = pick_account(choices), choices.byte(), choices.byte()
    own = [order for order in oracle.state.orders.values() if order.account == account]
    if pick >= 244 or not own:
        own = list(oracle.state.orders.values())
    if not own:
        return account, {"order_id": 1 + pick}
    order = own[pick % len(own)]
    if pick < 244:
        account = order.account
    if by_client_id >= 128 and order.client_order_id:
        return account, {"client_order_id": order.client_order_id}
    return account, {"order_id": order.order_id}


def cancel(choices: Choices, oracle: Oracle) -> Commands:
    account, named = named_order(choices, oracle)
    return command(CommandKind.CANCEL, sender(choices, oracle, account), account=account, **named)


def replace(choices: Choices, oracle: Oracle) -> Commands:
    """Return a REPLACE: smaller, larger, at another price, or into the other side."""
    account, named = named_order(choices, oracle)
    order = oracle.state.orders.get(named.get("order_id", 0))
    price, quantity = (order.price, order.quantity) if order else (5, 1)
    how, by = choices.byte(), choices.below(5)
    if how < 100:
        quantity -= 1 + by
    elif how < 150:
        quantity += by
    elif order and order.order_type is not OrderType.STOP:
        price += (by - 2) if how < 220 else (3 if order.side is Side.BUY else -3)
        quantity += how % 3 - 1
    who = sender(choices, oracle, account)
    return command(CommandKind.REPLACE, who, account=account, price_ticks=price, quantity_lots=quantity, **named)


def mass_cancel(choices: Choices, oracle: Oracle) -> Commands:
    account = pick_account(choices)
    who = sender(choices, oracle, account)
    return command(CommandKind.MASS_CANCEL, who, account=account, instrument=choices.below(4), side=choices.below(3))


def raw_bytes(choices: Choices, oracle: Oracle) -> Commands:
    """Return sixty-four random bytes, sometimes with a known kind and sender."""
    record = np.frombuffer(random.Random(choices.step).randbytes(COMMAND.itemsize), dtype=COMMAND).copy()
    believable = choices.byte()
    if believable >= 64:
        record["session_id"], record["request_id"] = sender(choices, oracle, pick_account(choices))
    if believable >= 128:
        record["kind"] = choices.of(tuple(CommandKind))
    return record


def changed_byte(choices: Choices, oracle: Oracle) -> Commands:
    """Return a valid command with one byte changed."""
    position, value = choices.byte(), choices.byte()
    # Half of the time one of the enumeration fields, with a value close to the valid ones.
    position, value = (position % 6, value % 8) if position < 128 else (position % COMMAND.itemsize, value)
    make = choices.of(
        (
            *(plain_order, special_order, stop_order, cancel, replace, mass_cancel),
            *(move_money, session_change, listing, venue_change),
        )
    )
    record = make(choices, oracle)
    record.view(np.uint8)[position] = value
    return record


def edge_value(choices: Choices, oracle: Oracle) -> Commands:
    """Return a valid command with one field at a bound of its type or its limit."""
    edge = choices.of(EDGES)
    field = choices.of(("price_ticks", "quantity_lots", "order_id", "client_order_id", "account", "instrument", "stp"))
    make = choices.of(
        (plain_order, special_order, stop_order, replace, move_money, move_money, listing, cancel, venue_change)
    )
    record = make(choices, oracle)
    info = np.iinfo(COMMAND[field])
    record[field] = edge & int(info.max) if info.min == 0 else edge
    return record
