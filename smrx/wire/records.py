"""The binary records of the protocol: fixed size, little-endian, the same bytes on sockets, in the log and in memory.

`np.frombuffer` decodes them. Sizes and offsets are checked at import. Money, price and quantity are integers: price in
ticks, quantity in lots, money in the minimal unit of its asset. Text is ASCII, padded with NULs.

A request is a COMMAND of 64 bytes. What few requests need stands in a second record of 128 bytes, its *details*:
`COMMAND.details` is the number of that record among the details of the same frame or log entry, counted from 1; 0 means
none. An event is an EVENT of 128 bytes; what few events need follows it as events of their own (CLIENT_ORDER_ID,
ORDER_TERMS, CREDENTIAL_NETWORKS), which `EVENT.following` counts.

From version 2 of the rules on, an event says which credential caused it: that of the command's session, or the person
whom a gateway's command names. It is 0 without one, and in what time alone causes (EXPIRED with TIME_REACHED,
SESSION_EXPIRED). The upper 32 bits of a session id are the number of the credential that the session belongs to.

COMMAND and EVENT have the field names of orders. A kind whose fields mean something else has a layout of its own for
the same bytes: COMMAND_LAYOUTS, DETAILS_LAYOUTS and EVENT_LAYOUTS say which, and *_FIELDS which of them each kind uses.
The others must be 0 in a command (else it is RESERVED_NOT_ZERO) and are 0 in an event.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from smrx.wire.codes import CommandKind, EventKind

COMMAND_SIZE: Final = 64
DETAILS_SIZE: Final = 128
EVENT_SIZE: Final = 128
OUTCOME_SIZE: Final = 64

#: Characters of a client order id, of the symbol of an instrument and of an asset.
CLIENT_ORDER_ID_SIZE: Final = 64
INSTRUMENT_SYMBOL_SIZE: Final = 24
ASSET_SYMBOL_SIZE: Final = 16
#: Bytes of a public key, networks of a credential, bytes of an address: IPv6, IPv4 as ::ffff:a.b.c.d.
KEY_SIZE: Final = 32
NETWORKS: Final = 4
ADDRESS_SIZE: Final = 16
#: The number of its credential is a session id shifted to the right by so many bits.
CREDENTIAL_SHIFT: Final = 32

#: A client order id of at most so many characters stands in the command itself; a longer one in its details.
SHORT_ID_SIZE: Final = 8
#: Set in the 64-bit form of a longer client order id, which is otherwise 63 bits of a hash; see client_order_ids.py.
LONG_ID: Final = 1 << 63


def _layout(size: int, fields: dict[str, tuple[str, int]]) -> "np.dtype[Any]":
    """Return a record of `size` bytes with fields of a format at an offset."""
    return np.dtype(
        {
            "names": list(fields),
            "formats": [form for form, _ in fields.values()],
            "offsets": [offset for _, offset in fields.values()],
            "itemsize": size,
        }
    )


#: A request to the engine. Every kind that counts as a request has session_id and request_id (the session's last + 1).
COMMAND: Final = _layout(
    COMMAND_SIZE,
    {
        "kind": ("u1", 0),
        "side": ("u1", 1),
        "order_type": ("u1", 2),
        "tif": ("u1", 3),
        "stp": ("u1", 4),
        "flags": ("u1", 5),
        "details": ("<u2", 6),
        "session_id": ("<u8", 8),
        "request_id": ("<u8", 16),
        "account": ("<u4", 24),
        "instrument": ("<u4", 28),
        "client_order_id": ("<u8", 32),  # up to 8 characters, the first in the low byte
        "order_id": ("<u8", 40),
        "price_ticks": ("<i8", 48),  # 0 for MARKET and STOP
        "quantity_lots": ("<i8", 56),  # of a REPLACE: the new total; with QUOTE_BUDGET: quote units
    },
)

_SENDER: Final = {"kind": ("u1", 0), "details": ("<u2", 6), "session_id": ("<u8", 8), "request_id": ("<u8", 16)}

#: DEPOSIT, WITHDRAW: an amount in minimal units of an asset; transfer_id makes a repetition harmless.
TRANSFER_COMMAND: Final = _layout(
    COMMAND_SIZE,
    _SENDER | {"account": ("<u4", 24), "asset": ("<u4", 28), "transfer_id": ("<u8", 40), "amount": ("<i8", 56)},
)

#: OPEN_SESSION: session_id is chosen by the client, with the number of its credential in the upper 32 bits (0 without
#: one; anything with version 1 of the rules); request_id is 0. `answers`: how many of its last answers are kept;
#: 0 means DEFAULT_ANSWERS; see MAX_ANSWERS.
SESSION_COMMAND: Final = _layout(
    COMMAND_SIZE, _SENDER | {"flags": ("u1", 5), "account": ("<u4", 24), "answers": ("<u4", 28)}
)
DEFAULT_ANSWERS: Final = 256
MAX_ANSWERS: Final = 1 << 16

#: ADD_ASSET. decimals: display decimals (0..18); supply_cap in minimal units, 0 for the general limit.
ASSET_COMMAND: Final = _layout(
    COMMAND_SIZE,
    _SENDER
    | {
        "decimals": ("u1", 1),
        "asset": ("<u4", 28),
        "symbol": (f"S{ASSET_SYMBOL_SIZE}", 32),
        "supply_cap": ("<i8", 48),
    },
)

#: SET_STATUS of an instrument.
STATUS_COMMAND: Final = _layout(COMMAND_SIZE, _SENDER | {"status": ("u1", 1), "instrument": ("<u4", 28)})

#: SET_LIMITS of an account; 0 is no limit.
LIMITS_COMMAND: Final = _layout(
    COMMAND_SIZE,
    _SENDER
    | {
        "account": ("<u4", 24),
        "max_open_orders": ("<u4", 28),  # orders that are open at once
        "max_open_notional": ("<i8", 40),  # of all open orders with one quote asset, in its minimal units
        "max_order_notional": ("<i8", 48),  # of one order, in quote units
        "max_order_quantity": ("<i8", 56),  # of one order, in lots
    },
)

#: SET_RETENTION: how long the state keeps what is over.
RETENTION_COMMAND: Final = _layout(
    COMMAND_SIZE,
    _SENDER
    | {
        "session_silence_s": ("<u4", 24),  # a session without open orders of its own ends after so long a silence
        "transfer_age_s": ("<u4", 28),  # a transfer id is kept for so long,
        "transfers": ("<u8", 40),  # but no more than so many of them
    },
)

#: SET_CAPACITY: how many records of each kind the exchange has at most, 1 to MAX_CAPACITY. It needs version 2 of the
#: rules. A command that would add one more is rejected with CAPACITY_REACHED.
CAPACITY_COMMAND: Final = _layout(
    COMMAND_SIZE,
    _SENDER
    | {
        "accounts": ("<u4", 24),  # the venue's included
        "orders": ("<u4", 28),  # open orders, pending stops included
        "balances": ("<u4", 32),  # pairs of account and asset that had money or an order
        "sessions": ("<u4", 36),  # open and closed ones
        "answers": ("<u4", 40),  # that these keep, in all: 1 to MAX_KEPT_ANSWERS
        "instruments": ("<u4", 44),
        "assets": ("<u4", 48),
        "credentials": ("<u4", 52),  # those that are revoked or expired included
    },
)
#: Until SET_CAPACITY these are the capacities.
MAX_CAPACITY: Final = 16_000_000
MAX_KEPT_ANSWERS: Final = 64_000_000
CAPACITIES: Final = ("accounts", "orders", "balances", "sessions", "answers", "instruments", "assets", "credentials")

#: OPEN_ACCOUNT; firm 0 is none. It needs version 2 of the rules.
ACCOUNT_COMMAND: Final = _layout(COMMAND_SIZE, _SENDER | {"account": ("<u4", 24), "firm": ("<u4", 28)})

#: ADD_CREDENTIAL, SET_CREDENTIAL, REVOKE_CREDENTIAL: a credential's number, chosen by the venue, not 0.
CREDENTIAL_COMMAND: Final = _layout(COMMAND_SIZE, _SENDER | {"number": ("<u4", 28)})

#: SET_VERSION: the version of the rules that follows the present one.
VERSION_COMMAND: Final = _layout(COMMAND_SIZE, _SENDER | {"version": ("<i8", 56)})

#: The details of a PLACE; of a CANCEL and REPLACE only the id, which names their order, and the credential.
ORDER_DETAILS: Final = _layout(
    DETAILS_SIZE,
    {
        "client_order_id": (f"S{CLIENT_ORDER_ID_SIZE}", 0),  # an id of more than 8 characters
        "stop_price_ticks": ("<i8", 64),  # of STOP and STOP_LIMIT
        "display_lots": ("<i8", 72),  # of an iceberg
        "expiry_ns": ("<i8", 80),  # of a GTD order, since 1970
        # Reserved for orders that the engine does not have yet; they must be 0.
        "trailing_offset_ticks": ("<i8", 88),
        "peg_offset_ticks": ("<i8", 96),
        "order_list_id": ("<u8", 104),
        # The person behind the command, named by a gateway; 0 for none. It needs version 2 of the rules.
        "credential": ("<u4", 112),
        "peg_reference": ("u1", 116),
        "reserved_117": ("u1", 117),
        "reserved_118": ("<u2", 118),
        "reserved_120": ("<u8", 120),
    },
)

#: The details of an ADD_INSTRUMENT.
INSTRUMENT_DETAILS: Final = _layout(
    DETAILS_SIZE,
    {
        "symbol": (f"S{INSTRUMENT_SYMBOL_SIZE}", 0),
        "base_asset": ("<u4", 24),
        "quote_asset": ("<u4", 28),
        "lot_units": ("<u4", 32),  # base units in one lot, >= 1
        "scale_units": ("<u4", 36),  # quote units that one tick x one lot is worth, >= 1
        "max_price_ticks": ("<i8", 40),
        "max_quantity_lots": ("<i8", 48),
    },
)

#: The details of a SET_RULES; 0 is no rule.
RULES_DETAILS: Final = _layout(
    DETAILS_SIZE,
    {
        "min_price_ticks": ("<i8", 0),
        "min_quantity_lots": ("<i8", 8),
        "min_notional": ("<i8", 16),  # of one order, in quote units
        "max_notional": ("<i8", 24),
        "taker_fee": ("<u4", 32),  # millionths of the notional (0..1,000,000)
        "maker_fee": ("<i4", 36),  # negative is a rebate; -taker_fee <= maker_fee <= taker_fee
        "band_bp": ("<u2", 40),  # how far a limit price may be from the last trade price, in 0.01 % (0..10,000)
        "collar_bp": ("<u2", 42),  # how far a market or triggered stop order may trade from its reference (0..10,000)
        "collar_reference": ("u1", 44),  # CollarReference
        "rule_flags": ("u1", 45),  # RuleFlags
    },
)

#: The details of an ADD_CREDENTIAL; of a SET_CREDENTIAL without key, subject and scope, which never change.
CREDENTIAL_DETAILS: Final = _layout(
    DETAILS_SIZE,
    {
        "key": (f"V{KEY_SIZE}", 0),  # a public key of CURVE, not 0
        # Where it may connect from: addresses, in the first `NETWORKS` places; without any: from everywhere.
        "networks": (f"V{NETWORKS * ADDRESS_SIZE}", 32),
        "prefixes": (f"V{NETWORKS}", 96),  # a byte for each: how many of its 128 bits count; 0 for an unused place
        "permissions": ("<u4", 100),  # Permission
        "expires_ns": ("<i8", 104),  # engine time from which on it is not accepted; 0 for never
        "subject": ("<u4", 112),  # its account or its firm; 0 with Scope.ALL
        "scope": ("u1", 116),  # Scope
    },
)

#: Any details record; its kind follows from the command. Like COMMAND and EVENT it names every byte: NumPy drops bytes
#: without a name when it joins arrays of records or picks some of them.
DETAILS: Final = ORDER_DETAILS

#: The first 64 bytes of every event. session_id and request_id are those of the command that caused it.
_HEADER: Final = {
    "sequence": ("<u8", 0),
    "command_sequence": ("<u8", 8),
    "time_ns": ("<i8", 16),
    "kind": ("u1", 24),
    "side": ("u1", 25),
    "order_type": ("u1", 26),
    "tif": ("u1", 27),
    "stp": ("u1", 28),
    "flags": ("u1", 29),
    "reason": ("<u2", 30),
    "session_id": ("<u8", 32),
    "request_id": ("<u8", 40),
    "order_id": ("<u8", 48),
    "instrument": ("<u4", 56),
    "account": ("<u4", 60),
}

#: An event.
EVENT: Final = _layout(
    EVENT_SIZE,
    _HEADER
    | {
        "client_order_id": ("<u8", 64),  # the 64-bit form of the id, see client_order_ids.py
        "price_ticks": ("<i8", 72),
        "quantity_lots": ("<i8", 80),
        "cum_lots": ("<i8", 88),
        "leaves_lots": ("<i8", 96),
        "match_id": ("<u8", 104),
        "counter_order_id": ("<u8", 112),
        "credential": ("<u4", 120),  # who caused it
        "command_kind": ("u1", 124),
        "following": ("u1", 125),  # events that follow and belong to this one
        "reserved": ("<u2", 126),
    },
)

#: EVENT as files describe it (record_schema.py): its field at 120 has the name that it had when only TRADE used it, so
#: that files of format 2 are read as they are.
STORED_EVENT: Final = _layout(
    EVENT_SIZE,
    {
        "counter_account" if name == "credential" else name: (EVENT.fields[name][0].str, EVENT.fields[name][1])  # type: ignore[index]
        for name in EVENT.names or ()
    },
)


def _renamed(names: dict[str, str], **fields: tuple[str, int]) -> "np.dtype[Any]":
    """Return the layout of an event: the header, with other names for some of its fields, and fields of its own.

    The credential that caused it is among them: at 120, unless the fields have it elsewhere.
    """
    return _following(names, **{"credential": ("<u4", 120), **fields})


def _following(names: dict[str, str], **fields: tuple[str, int]) -> "np.dtype[Any]":
    """Return such a layout without a credential: that of an event which follows another, and has the other's."""
    header = {names.get(name, name): place for name, place in _HEADER.items()}
    return _layout(EVENT_SIZE, dict(sorted((header | fields).items(), key=lambda field: field[1][1])))


#: TRADE: side, account, order_id are the taker's; the counter fields are the maker's. Fees in quote units.
TRADE_EVENT: Final = _renamed(
    {},
    credential=("<u4", 64),
    price_ticks=("<i8", 72),
    quantity_lots=("<i8", 80),
    taker_fee=("<i8", 88),
    maker_fee=("<i8", 96),
    match_id=("<u8", 104),
    counter_order_id=("<u8", 112),
    counter_account=("<u4", 120),
)

#: CLIENT_ORDER_ID follows the NEW or REJECTED of an order whose id has more than 8 characters (or its EXPIRED, if it
#: has no NEW).
CLIENT_ORDER_ID_EVENT: Final = _following({}, client_order_id=(f"S{CLIENT_ORDER_ID_SIZE}", 64))

#: ORDER_TERMS follows the NEW or REJECTED of an order with a stop price, a display, an expiry or a person behind it:
#: `credential` is the one that the command's details name, 0 for none.
ORDER_TERMS_EVENT: Final = _following(
    {},
    stop_price_ticks=("<i8", 64),
    display_lots=("<i8", 72),
    expiry_ns=("<i8", 80),
    trailing_offset_ticks=("<i8", 88),
    peg_offset_ticks=("<i8", 96),
    order_list_id=("<u8", 104),
    credential=("<u4", 112),
    peg_reference=("u1", 116),
)

#: DEPOSITED, WITHDRAWN, in minimal units of the asset.
TRANSFER_EVENT: Final = _renamed(
    {"instrument": "asset", "order_id": "transfer_id"}, amount=("<i8", 80), available_after=("<i8", 88)
)

#: SESSION_OPENED; last_request_id is not 0 where a closed session is opened again.
SESSION_EVENT: Final = _renamed({}, answers=("<u4", 64), last_request_id=("<u8", 72))

#: MASS_CANCELLED, SESSION_CLOSED, SESSION_DISCONNECTED: after the CANCELLED events of the orders.
CANCELS_EVENT: Final = _renamed({}, cancelled=("<i8", 80))

ASSET_EVENT: Final = _renamed(
    {"instrument": "asset"}, symbol=(f"S{ASSET_SYMBOL_SIZE}", 64), supply_cap=("<i8", 80), decimals=("u1", 88)
)

INSTRUMENT_EVENT: Final = _renamed(
    {},
    symbol=(f"S{INSTRUMENT_SYMBOL_SIZE}", 64),
    base_asset=("<u4", 88),
    quote_asset=("<u4", 92),
    lot_units=("<u4", 96),
    scale_units=("<u4", 100),
    max_price_ticks=("<i8", 104),
    max_quantity_lots=("<i8", 112),
)

#: STATUS_SET: after the CANCELLED events of the orders that it cancels.
STATUS_EVENT: Final = _renamed({"side": "status"}, cancelled=("<i8", 80))

LIMITS_EVENT: Final = _renamed(
    {},
    max_open_notional=("<i8", 64),
    max_order_notional=("<i8", 72),
    max_order_quantity=("<i8", 80),
    max_open_orders=("<u4", 88),
)

RULES_EVENT: Final = _renamed(
    {},
    min_price_ticks=("<i8", 64),
    min_quantity_lots=("<i8", 72),
    min_notional=("<i8", 80),
    max_notional=("<i8", 88),
    taker_fee=("<u4", 96),
    maker_fee=("<i4", 100),
    band_bp=("<u2", 104),
    collar_bp=("<u2", 106),
    collar_reference=("u1", 108),
    rule_flags=("u1", 109),
)

RETENTION_EVENT: Final = _renamed({}, session_silence_s=("<u4", 64), transfer_age_s=("<u4", 68), transfers=("<u8", 72))

CAPACITY_EVENT: Final = _renamed({}, **{name: ("<u4", 64 + 4 * at) for at, name in enumerate(CAPACITIES)})

#: ACCOUNT_OPENED.
ACCOUNT_EVENT: Final = _renamed({"instrument": "firm"})

#: CREDENTIAL_ADDED, CREDENTIAL_SET, CREDENTIAL_REVOKED: the whole credential afterwards; `account` is its account, 0 if
#: its scope is another. `credential` is, as everywhere, the one that caused the event.
CREDENTIAL_EVENT: Final = _renamed(
    {"instrument": "number"},
    key=(f"V{KEY_SIZE}", 64),
    permissions=("<u4", 96),
    scope=("u1", 100),
    expires_ns=("<i8", 104),
    subject=("<u4", 112),
    following=("u1", 125),
)

#: CREDENTIAL_NETWORKS follows CREDENTIAL_ADDED and CREDENTIAL_SET of a credential with networks.
CREDENTIAL_NETWORKS_EVENT: Final = _following(
    {"order_id": "prefixes", "instrument": "number"},
    prefixes=(f"V{NETWORKS}", 48),
    networks=(f"V{NETWORKS * ADDRESS_SIZE}", 64),
)

#: VERSION_SET: the version of the rules from the next command on.
VERSION_EVENT: Final = _renamed({}, version=("<i8", 80))

#: The answer to one command, for its sender: one per command, in the order of the commands.
OUTCOME: Final = _layout(
    OUTCOME_SIZE,
    {
        "status": ("u1", 0),
        "event_kind": ("u1", 1),  # PLACE: the order's state after it; others: the kind of the command's own event
        "reason": ("<u2", 2),
        "event_count": ("<u4", 4),
        "session_id": ("<u8", 8),
        "request_id": ("<u8", 16),
        "sequence": ("<u8", 24),  # the command's; 0 for a DUPLICATE, of which nothing was applied
        # The order created or changed, or the transfer id. For a DUPLICATE (also an OPEN_SESSION of a session that
        # the account has open): the session's last request id, from which the client can continue.
        "order_id": ("<u8", 32),
        "first_event": ("<u8", 40),  # 0 if there are none
        # Of the order after the command, before any triggered stop. MASS_CANCEL, SET_STATUS, CLOSE_SESSION, DISCONNECT:
        # cum_lots = orders cancelled; leaves_lots = orders left to cancel or look at, because one command cancels
        # MAX_CANCELS at most: send it again. DEPOSIT, WITHDRAW: cum_lots = available after.
        "cum_lots": ("<i8", 48),
        "leaves_lots": ("<i8", 56),
    },
)

#: The most orders that one MASS_CANCEL, SET_STATUS, CLOSE_SESSION or DISCONNECT cancels, with version 2 of the rules.
MAX_CANCELS: Final = 256

for _whole in (COMMAND, DETAILS, EVENT, OUTCOME):
    assert sum(_whole[_name].itemsize for _name in _whole.names or ()) == _whole.itemsize

#: The layout of a command's 64 bytes, by kind.
COMMAND_LAYOUTS: Final[Mapping[CommandKind, "np.dtype[Any]"]] = dict.fromkeys(CommandKind, COMMAND) | {
    CommandKind.DEPOSIT: TRANSFER_COMMAND,
    CommandKind.WITHDRAW: TRANSFER_COMMAND,
    CommandKind.OPEN_SESSION: SESSION_COMMAND,
    CommandKind.ADD_ASSET: ASSET_COMMAND,
    CommandKind.SET_STATUS: STATUS_COMMAND,
    CommandKind.SET_LIMITS: LIMITS_COMMAND,
    CommandKind.SET_RETENTION: RETENTION_COMMAND,
    CommandKind.SET_VERSION: VERSION_COMMAND,
    CommandKind.OPEN_ACCOUNT: ACCOUNT_COMMAND,
    CommandKind.ADD_CREDENTIAL: CREDENTIAL_COMMAND,
    CommandKind.SET_CREDENTIAL: CREDENTIAL_COMMAND,
    CommandKind.REVOKE_CREDENTIAL: CREDENTIAL_COMMAND,
    CommandKind.SET_CAPACITY: CAPACITY_COMMAND,
}

#: The layout of a command's details, for the kinds that may have them; see COMMAND_TRAITS for those that must.
DETAILS_LAYOUTS: Final[Mapping[CommandKind, "np.dtype[Any]"]] = {
    CommandKind.PLACE: ORDER_DETAILS,
    CommandKind.CANCEL: ORDER_DETAILS,
    CommandKind.REPLACE: ORDER_DETAILS,
    CommandKind.ADD_INSTRUMENT: INSTRUMENT_DETAILS,
    CommandKind.SET_RULES: RULES_DETAILS,
    CommandKind.ADD_CREDENTIAL: CREDENTIAL_DETAILS,
    CommandKind.SET_CREDENTIAL: CREDENTIAL_DETAILS,
}

#: The fields of each kind of command beside kind, session_id and request_id, in the names of its layout.
COMMAND_FIELDS: Final[Mapping[CommandKind, tuple[str, ...]]] = {
    CommandKind.PLACE: (
        "side", "order_type", "tif", "stp", "flags", "details", "account", "instrument", "client_order_id",
        "price_ticks", "quantity_lots",
    ),
    # Exactly one of the two ids; client_order_id may stand in the details.
    CommandKind.CANCEL: ("details", "account", "client_order_id", "order_id"),
    CommandKind.REPLACE: ("details", "account", "client_order_id", "order_id", "price_ticks", "quantity_lots"),
    CommandKind.MASS_CANCEL: ("side", "account", "instrument"),  # instrument 0 = all, side ANY = both
    CommandKind.DEPOSIT: ("account", "asset", "transfer_id", "amount"),
    CommandKind.WITHDRAW: ("account", "asset", "transfer_id", "amount"),
    CommandKind.OPEN_ACCOUNT: ("account", "firm"),
    CommandKind.SUSPEND_ACCOUNT: ("account",),
    CommandKind.RESUME_ACCOUNT: ("account",),
    CommandKind.OPEN_SESSION: ("flags", "account", "answers"),
    CommandKind.CLOSE_SESSION: (),
    CommandKind.ADD_ASSET: ("decimals", "asset", "symbol", "supply_cap"),
    CommandKind.ADD_INSTRUMENT: ("details", "instrument"),
    CommandKind.SET_STATUS: ("status", "instrument"),
    CommandKind.SET_LIMITS: (
        "account", "max_open_orders", "max_open_notional", "max_order_notional", "max_order_quantity",
    ),
    CommandKind.KILL: (),
    CommandKind.REVIVE: (),
    CommandKind.TICK: (),
    CommandKind.SET_RULES: ("details", "instrument"),
    CommandKind.DISCONNECT: (),
    CommandKind.SET_VERSION: ("version",),
    CommandKind.SET_RETENTION: ("session_silence_s", "transfer_age_s", "transfers"),
    CommandKind.ADD_CREDENTIAL: ("details", "number"),
    CommandKind.SET_CREDENTIAL: ("details", "number"),
    CommandKind.REVOKE_CREDENTIAL: ("number",),
    CommandKind.SET_CAPACITY: CAPACITIES,
}  # fmt: skip

#: The fields of the details of each kind.
DETAILS_FIELDS: Final[Mapping[CommandKind, tuple[str, ...]]] = {
    CommandKind.PLACE: ("client_order_id", "stop_price_ticks", "display_lots", "expiry_ns", "credential"),
    CommandKind.CANCEL: ("client_order_id", "credential"),
    CommandKind.REPLACE: ("client_order_id", "credential"),
    CommandKind.ADD_INSTRUMENT: INSTRUMENT_DETAILS.names or (),
    CommandKind.SET_RULES: RULES_DETAILS.names or (),
    CommandKind.ADD_CREDENTIAL: CREDENTIAL_DETAILS.names or (),
    CommandKind.SET_CREDENTIAL: ("networks", "prefixes", "permissions", "expires_ns"),
}

#: The layout of an event, by kind.
EVENT_LAYOUTS: Final[Mapping[EventKind, "np.dtype[Any]"]] = dict.fromkeys(EventKind, EVENT) | {
    EventKind.TRADE: TRADE_EVENT,
    EventKind.CLIENT_ORDER_ID: CLIENT_ORDER_ID_EVENT,
    EventKind.ORDER_TERMS: ORDER_TERMS_EVENT,
    EventKind.DEPOSITED: TRANSFER_EVENT,
    EventKind.WITHDRAWN: TRANSFER_EVENT,
    EventKind.SESSION_OPENED: SESSION_EVENT,
    EventKind.MASS_CANCELLED: CANCELS_EVENT,
    EventKind.SESSION_CLOSED: CANCELS_EVENT,
    EventKind.SESSION_DISCONNECTED: CANCELS_EVENT,
    EventKind.ASSET_ADDED: ASSET_EVENT,
    EventKind.INSTRUMENT_ADDED: INSTRUMENT_EVENT,
    EventKind.STATUS_SET: STATUS_EVENT,
    EventKind.LIMITS_SET: LIMITS_EVENT,
    EventKind.RULES_SET: RULES_EVENT,
    EventKind.RETENTION_SET: RETENTION_EVENT,
    EventKind.VERSION_SET: VERSION_EVENT,
    EventKind.ACCOUNT_OPENED: ACCOUNT_EVENT,
    EventKind.CREDENTIAL_ADDED: CREDENTIAL_EVENT,
    EventKind.CREDENTIAL_SET: CREDENTIAL_EVENT,
    EventKind.CREDENTIAL_REVOKED: CREDENTIAL_EVENT,
    EventKind.CREDENTIAL_NETWORKS: CREDENTIAL_NETWORKS_EVENT,
    EventKind.CAPACITY_SET: CAPACITY_EVENT,
}

_ORDER: Final = ("side", "order_type", "tif", "stp", "flags", "order_id", "instrument", "account", "client_order_id")
_ORDER_LOTS: Final = (*_ORDER, "price_ticks", "quantity_lots", "cum_lots", "leaves_lots")

_CREDENTIAL_FIELDS: Final = (
    "number", "account", "key", "permissions", "scope", "expires_ns", "subject", "following"
)  # fmt: skip

_EVENT_FIELDS: Final[Mapping[EventKind, tuple[str, ...]]] = {
    # leaves_lots is 0 with QUOTE_BUDGET, also in the fills.
    EventKind.NEW: (*_ORDER, "price_ticks", "quantity_lots", "leaves_lots", "following"),
    # A stop order became a market or limit order.
    EventKind.TRIGGERED: _ORDER_LOTS,
    # price_ticks and quantity_lots of this fill; cum_lots and leaves_lots after it.
    EventKind.PARTIALLY_FILLED: (*_ORDER_LOTS, "match_id"),
    EventKind.FILLED: (*_ORDER_LOTS, "match_id"),
    # leaves_lots is 0; the lots not filled are quantity_lots - cum_lots (quantity_lots = cum_lots with QUOTE_BUDGET).
    EventKind.CANCELLED: (*_ORDER_LOTS, "reason"),
    # A fill-or-kill order that cannot fill has no NEW; what would follow that follows its EXPIRED.
    EventKind.EXPIRED: (*_ORDER_LOTS, "reason", "following"),
    # reason SELF_TRADE where self-trade prevention reduced the order.
    EventKind.REPLACED: (*_ORDER_LOTS, "reason"),
    # The command as it was sent, in the names of COMMAND. Of a malformed command no details follow.
    EventKind.REJECTED: (*_ORDER, "reason", "price_ticks", "quantity_lots", "command_kind", "following"),
    EventKind.TRADE: (
        "side", "instrument", "account", "order_id", "counter_account", "counter_order_id", "match_id", "price_ticks",
        "quantity_lots", "taker_fee", "maker_fee",
    ),
    EventKind.CLIENT_ORDER_ID: ("order_id", "instrument", "account", "client_order_id"),
    EventKind.ORDER_TERMS: ("order_id", "instrument", "account", "stop_price_ticks", "display_lots", "expiry_ns"),
    EventKind.DEPOSITED: ("account", "asset", "transfer_id", "amount", "available_after"),
    EventKind.WITHDRAWN: ("account", "asset", "transfer_id", "amount", "available_after"),
    EventKind.ACCOUNT_OPENED: ("account", "firm"),
    EventKind.ACCOUNT_SUSPENDED: ("account",),
    EventKind.ACCOUNT_RESUMED: ("account",),
    EventKind.SESSION_OPENED: ("account", "flags", "answers", "last_request_id"),
    EventKind.SESSION_CLOSED: ("account", "cancelled"),
    EventKind.SESSION_DISCONNECTED: ("account", "cancelled"),
    # Its session_id is the session that ended, its request_id that session's last.
    EventKind.SESSION_EXPIRED: ("account",),
    EventKind.ASSET_ADDED: ("asset", "symbol", "supply_cap", "decimals"),
    EventKind.INSTRUMENT_ADDED: (
        "instrument", "symbol", "base_asset", "quote_asset", "lot_units", "scale_units", "max_price_ticks",
        "max_quantity_lots",
    ),
    EventKind.MASS_CANCELLED: ("side", "instrument", "account", "cancelled"),
    EventKind.STATUS_SET: ("status", "instrument", "cancelled"),
    EventKind.LIMITS_SET: (
        "account", "max_open_orders", "max_open_notional", "max_order_notional", "max_order_quantity",
    ),
    EventKind.RULES_SET: ("instrument", *(RULES_DETAILS.names or ())),
    EventKind.VERSION_SET: ("version",),
    EventKind.RETENTION_SET: ("session_silence_s", "transfer_age_s", "transfers"),
    EventKind.KILLED: (),
    EventKind.REVIVED: (),
    EventKind.TICKED: (),
    EventKind.CREDENTIAL_ADDED: _CREDENTIAL_FIELDS,
    EventKind.CREDENTIAL_SET: _CREDENTIAL_FIELDS,
    EventKind.CREDENTIAL_REVOKED: _CREDENTIAL_FIELDS,
    EventKind.CREDENTIAL_NETWORKS: ("number", "account", "prefixes", "networks"),
    EventKind.CAPACITY_SET: CAPACITIES,
}  # fmt: skip

#: The fields of each kind of event beside sequence, command_sequence, time_ns, kind, session_id and request_id.
EVENT_FIELDS: Final[Mapping[EventKind, tuple[str, ...]]] = {
    kind: (*fields, "credential") if "credential" in (EVENT_LAYOUTS[kind].names or ()) else fields
    for kind, fields in _EVENT_FIELDS.items()
}


def as_words(layout: "np.dtype[Any]") -> "np.dtype[Any]":
    """Return the layout with each field of text or bytes as u64 words, `name_0` the first; kernels read them so.

    A field of less than a word becomes one number.
    """
    fields: dict[str, tuple[str, int]] = {}
    assert layout.names is not None
    assert layout.fields is not None
    for name in layout.names:
        form, offset = layout.fields[name][:2]
        if form.itemsize < 8 and form.kind == "V":
            fields[name] = (f"<u{form.itemsize}", offset)
        elif form.kind in "SV":
            fields |= {f"{name}_{at}": ("<u8", offset + 8 * at) for at in range(form.itemsize // 8)}
        else:
            fields[name] = (form.str, offset)
    return _layout(layout.itemsize, fields)


def signed_words(layout: "np.dtype[Any]") -> "np.dtype[Any]":
    """Return the layout with text as words and every word signed.

    For the kernels of projections: Numba makes a float of int64 with uint64, and nothing there needs the 64th bit.
    """
    words = as_words(layout)
    assert words.fields is not None
    return _layout(
        words.itemsize,
        {name: (form.str.replace("u8", "i8"), offset) for name, (form, offset, *_) in words.fields.items()},
    )


_LETTERS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_SYMBOL_CHARACTERS: Final = _LETTERS | frozenset("0123456789-./_")


def pack_symbol(text: str, size: int = INSTRUMENT_SYMBOL_SIZE) -> bytes:
    """Return the bytes of a symbol. Raises ValueError for anything else.

    A symbol has 1 to `size` characters of A-Z 0-9 - . / _, begins with a letter or a digit, and holds a letter.
    """
    too_long = f" ({len(text)} characters)" if len(text) > size else ""
    if not 1 <= len(text) <= size or not set(text) <= _SYMBOL_CHARACTERS:
        raise ValueError(f"symbol: expected 1 to {size} characters of A-Z 0-9 - . / _, found {text!r}{too_long}")
    if text[0] in "-./_" or not _LETTERS & set(text):
        raise ValueError(f"symbol: expected a letter or digit first, and at least one letter, found {text!r}")
    return text.encode("ascii")


def unpack_symbol(value: bytes) -> str:
    """Return the text of a symbol."""
    return bytes(value).rstrip(b"\0").decode("ascii", "replace")
