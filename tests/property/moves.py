"""The command of one step of the random flow, chosen among all kinds, valid and invalid.

Called by flow.py with the state reached so far.
"""

import random
from collections.abc import Sequence
from typing import Any

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
from smrx.wire.command_list import CommandList
from smrx.wire.records import COMMAND, DETAILS, DETAILS_FIELDS, DETAILS_LAYOUTS
from tests.commands import Commands, command, open_session, place
from tests.oracle import Oracle
from tests.property.choices import (
    CLIENT_ORDER_IDS,
    VENUE_SESSION,
    Choices,
    pick_account,
    pick_client_order_id,
    pick_instrument,
    pick_person,
    pick_side,
    sender,
)
from tests.property.credential_moves import credential_change
from tests.property.venue_moves import lift_restriction, listing, move_money, session_change, venue_change

#: Values for bounds: just inside, just outside, and the extremes of the field.
EDGES = (0, 1, -1, 18, 19, 20, 21, 50, 51, 1 << 31, 1 << 32, (1 << 62) - 1, 1 << 62, (1 << 63) - 1, -(1 << 63))
STP_MODES = (Stp.CANCEL_NEWEST, Stp.CANCEL_OLDEST, Stp.CANCEL_BOTH, Stp.DECREMENT, Stp.NONE)


def next_command(choices: Choices, oracle: Oracle, sent: Sequence[Commands]) -> Commands:
    """Return the command that a step describes in the oracle's present state; `sent` are those before it."""
    action = choices.byte()
    if action % 3 == 1 and is_restricted(oracle):
        return lift_restriction(choices, oracle)
    if action % 3 == 2 and not has_venue(oracle):
        return open_session(VENUE_SESSION, 0)
    if 234 <= action < 238 and sent:
        return again(choices, sent)
    for bound, make in (
        (84, plain_order),
        (124, special_order),
        (148, stop_order),
        (168, cancel),
        (190, replace),
        (194, mass_cancel),
        (202, move_money),
        (209, session_change),
        (213, listing),
        (225, venue_change),
        (234, credential_change),
        (240, raw_bytes),
        (245, changed_byte),
        (250, changed_details),
    ):
        if action < bound:
            return make(choices, oracle)
    return edge_value(choices, oracle)


def has_venue(oracle: Oracle) -> bool:
    """Whether the session of the venue is open: without it nothing that the venue does is valid."""
    session = oracle.state.sessions.get(VENUE_SESSION)
    return session is not None and not session.closed


def is_restricted(oracle: Oracle) -> bool:
    """Whether the venue has stopped something: a flow that stays stopped tests little."""
    state = oracle.state
    return (
        state.killed
        or any(account.status is not AccountStatus.ACTIVE for account in state.accounts.values())
        or any(known.status is not InstrumentStatus.TRADING for known in state.instruments.values())
    )


def plain_fields(choices: Choices, oracle: Oracle) -> dict[str, Any]:
    """Return the arguments of `place` for a limit order."""
    account = pick_account(choices)
    side = pick_side(choices)
    # Bids and asks overlap in half of their prices, so that there are deep books and many trades.
    quantity, price = 1 + choices.below(9), (1 if side is Side.BUY else 5) + choices.below(8)
    return {
        "instrument": pick_instrument(choices),
        "sender": sender(choices, oracle, account),
        "account": account,
        "side": side,
        "quantity_lots": quantity,
        "price_ticks": price,
        "client_order_id": pick_client_order_id(choices),
        "stp": choices.of(STP_MODES),
    }


def with_person(choices: Choices, oracle: Oracle, order: dict[str, Any]) -> Commands:
    """Return a PLACE, sometimes with the person behind it."""
    return place(**order, credential=pick_person(choices, oracle, order["sender"], order["account"]))


def plain_order(choices: Choices, oracle: Oracle) -> Commands:
    return with_person(choices, oracle, plain_fields(choices, oracle))


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
    *((STOP, GTC, 0), (STOP, FOK, 0), (STOP, IOC, POST_ONLY), (STOP, GTD, POST_ONLY), (STOP_LIMIT, GTD, POST_ONLY)),
    *((STOP, IOC, BUDGET), (STOP_LIMIT, GTC, POST_ONLY), (STOP_LIMIT, GTC, BUDGET)),
)


def special_order(choices: Choices, oracle: Oracle) -> Commands:
    """Return an immediate, fill-or-kill, market, budget, GTD, iceberg or post-only order; seldom an unsupported one."""
    order = plain_fields(choices, oracle)
    pick, hide = choices.byte(), choices.byte()
    order_type, tif, flags = UNSUPPORTED[pick % len(UNSUPPORTED)] if pick >= 240 else SPECIAL[pick % len(SPECIAL)]
    order |= {"order_type": order_type, "tif": tif, "flags": flags}
    if order_type in (MARKET, STOP):
        order["price_ticks"] = 0
    else:
        # A limit far into the book, which reaches many levels.
        order["price_ticks"] = 4 + choices.below(9) if order["side"] == Side.BUY else 1 + choices.below(9)
    # Sometimes a market order beyond any account's funds.
    order["quantity_lots"] += 30 if order_type is MARKET and hide >= 160 else choices.below(12)
    if flags & BUDGET:
        order["side"] = Side.BUY if pick < 240 else order["side"]
        order["quantity_lots"] *= 1 + choices.below(12)
    if order_type is LIMIT and (hide >= 250 or (tif in (GTC, GTD) and hide < 160)):
        order["display_lots"] = 1 + hide % 4
    if tif is GTD and order_type is not MARKET:
        order["expiry_ns"] = pick_expiry(choices, oracle)
    if order_type in (STOP, STOP_LIMIT):
        order["stop_ticks"] = 1 + hide % 20
    return with_person(choices, oracle, order)


def pick_expiry(choices: Choices, oracle: Oracle) -> int:
    """Choose an expiry within a few seconds, to the nanosecond; sometimes too early or missing."""
    return max(0, oracle.time_ns + (choices.below(16) - 1) * 500_000_000 + choices.below(3) - 1)


def stop_order(choices: Choices, oracle: Oracle) -> Commands:
    """Return a stop or stop-limit order around the last price, mostly on its far side."""
    order = plain_fields(choices, oracle)
    listed = oracle.state.instruments.get(order["instrument"])
    last = (listed.last_price if listed else None) or 7
    pick = choices.byte()
    order_type, tif = STOPS[pick % len(STOPS)]
    distance = max(1, choices.below(5)) if pick >= 24 else -choices.below(3)
    stop = last + distance if order["side"] == Side.BUY else last - distance
    order |= {"order_type": order_type, "tif": tif, "stop_ticks": max(0, stop)}
    order["price_ticks"] = 0 if order_type is STOP else max(1, stop + choices.below(5) - 2)
    if tif is GTD:
        order["expiry_ns"] = pick_expiry(choices, oracle)
    if order_type is STOP_LIMIT and (tif in (GTC, GTD) or pick >= 240):
        order["display_lots"] = max(0, choices.below(8) - 4)
    return with_person(choices, oracle, order)


STOPS = (
    *((STOP, IOC), (STOP_LIMIT, GTC), (STOP_LIMIT, IOC), (STOP_LIMIT, FOK)),
    *((STOP_LIMIT, GTC), (STOP_LIMIT, GTD), (STOP, GTD)),
)


def named_order(choices: Choices, oracle: Oracle) -> tuple[int, dict[str, Any]]:
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
        return account, {"client_order_id": order.client_order_id.decode("ascii")}
    if 120 <= by_client_id < 128:
        return account, {"client_order_id": CLIENT_ORDER_IDS[pick % len(CLIENT_ORDER_IDS)]}
    return account, {"order_id": order.order_id}


def cancel(choices: Choices, oracle: Oracle) -> Commands:
    account, named = named_order(choices, oracle)
    who = sender(choices, oracle, account)
    named |= {"credential": person} if (person := pick_person(choices, oracle, who, account)) else {}
    return command(CommandKind.CANCEL, who, account=account, **named)


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
    named |= {"credential": person} if (person := pick_person(choices, oracle, who, account)) else {}
    return command(CommandKind.REPLACE, who, account=account, price_ticks=price, quantity_lots=quantity, **named)


def mass_cancel(choices: Choices, oracle: Oracle) -> Commands:
    account = pick_account(choices)
    who = sender(choices, oracle, account)
    return command(CommandKind.MASS_CANCEL, who, account=account, instrument=choices.below(4), side=choices.below(3))


def again(choices: Choices, sent: Sequence[Commands]) -> Commands:
    """Return one of the last commands again; sometimes with one byte of it or of its details changed."""
    found = sent[-1 - choices.byte() % min(len(sent), 40)]
    records, details = found.records.copy(), found.details.copy()
    how, position, value = choices.byte(), choices.byte(), choices.byte()
    if how >= 128:
        changed = details if how >= 192 and len(details) else records[-1:]
        # Not the session and the request: then it is another request.
        at = position % changed.nbytes
        changed.view(np.uint8)[at if changed is details or not 8 <= at < 24 else at + 16] ^= 1 + value % 255
    return CommandList(records, details)


def raw_bytes(choices: Choices, oracle: Oracle) -> Commands:
    """Return random bytes as a command, sometimes with a known kind and sender, and as its details."""
    source = random.Random(choices.step)
    record = np.frombuffer(source.randbytes(COMMAND.itemsize), dtype=COMMAND).copy()
    believable = choices.byte()
    if believable >= 64:
        record["session_id"], record["request_id"] = sender(choices, oracle, pick_account(choices))
    if believable >= 128:
        record["kind"] = choices.of(tuple(CommandKind))
    if believable % 4:
        record["details"] = believable % 4 - 1
    return CommandList(record, np.frombuffer(source.randbytes(DETAILS.itemsize), DETAILS))


#: What a changed command is made of.
VALID = (
    *(plain_order, special_order, stop_order, cancel, replace, mass_cancel),
    *(move_money, session_change, listing, venue_change, credential_change),
)


def changed_byte(choices: Choices, oracle: Oracle) -> Commands:
    """Return a valid command with one byte changed."""
    position, value = choices.byte(), choices.byte()
    # Half of the time one of the enumeration fields, with a value close to the valid ones.
    position, value = (position % 6, value % 8) if position < 128 else (position % COMMAND.itemsize, value)
    found = choices.of(VALID)(choices, oracle)
    found.records.view(np.uint8)[position] = value
    return found


def changed_details(choices: Choices, oracle: Oracle) -> Commands:
    """Return a valid command with one byte of its details changed, or another number of them."""
    how, position, value = choices.byte(), choices.byte(), choices.byte()
    records, details = choices.of((*VALID[:5], listing, venue_change, credential_change))(choices, oracle)
    if how >= 160:
        records["details"] = choices.of((0, 1, 2, 255, (1 << 16) - 1))
    if how % 8 == 0 or len(details):
        details = details if len(details) else np.zeros(1, DETAILS)
        records["details"] = records["details"] if how >= 160 else 1
        if how < 128:
            # A byte of a client order id that is not an id of more than 8 characters.
            position %= 64
        details.view(np.uint8)[position % DETAILS.itemsize] = value
    return CommandList(records, details)


def edge_value(choices: Choices, oracle: Oracle) -> Commands:
    """Return a valid command with one field at a bound of its type or its limit."""
    edge = choices.of(EDGES)
    make = choices.of(
        (
            *(plain_order, special_order, stop_order, replace, move_money, move_money, listing, cancel, venue_change),
            credential_change,
        )
    )
    records, details = make(choices, oracle)
    field = choices.of(("price_ticks", "quantity_lots", "order_id", "client_order_id", "account", "instrument", "stp"))
    changed, layout = records, COMMAND
    if len(details) and choices.below(2):
        kind = CommandKind(int(records["kind"][0]))
        own = DETAILS_LAYOUTS[kind]
        numbers = tuple(name for name in DETAILS_FIELDS[kind] if own[name].kind not in "SV")
        if numbers:
            field, changed, layout = choices.of(numbers), details.view(own), own
    info = np.iinfo(layout[field])
    changed[field] = edge & int(info.max) if info.min == 0 else max(int(info.min), min(int(info.max), edge))
    return CommandList(records, details)
