"""The binary records of the protocol: fixed size, little-endian, the same bytes on sockets, in the log and in memory.

`np.frombuffer` decodes them. Sizes and offsets are checked at import. Money, price and quantity are integers: price in
ticks, quantity in lots, money in the minimal unit of its asset.
"""

from typing import Final

import numpy as np

COMMAND_SIZE: Final = 64
EVENT_SIZE: Final = 128
OUTCOME_SIZE: Final = 64

#: A request to the engine. Fields by kind; those not listed must be 0, else the command is RESERVED_NOT_ZERO:
#:   every kind but OPEN_SESSION, TICK, DISCONNECT, SET_VERSION: session_id, request_id (= the session's last + 1)
#:   PLACE          side order_type tif stp flags account instrument client_order_id price_ticks quantity_lots
#:                  (price_ticks 0 for MARKET and STOP; quantity_lots = quote units with QUOTE_BUDGET), and
#:                  order_id = the extra word: the stop price of a STOP or STOP_LIMIT; for a LIMIT the display lots
#:                  of an iceberg in the low half and the expiry of a GTD order, in seconds since 1970, in the high half
#:   CANCEL         account, and order_id or else client_order_id (exactly one of them non-zero)
#:   REPLACE        account, order_id or else client_order_id, price_ticks, quantity_lots (the new total)
#:   MASS_CANCEL    account, instrument (0 = all), side (ANY = both)
#:   DEPOSIT        account, instrument = asset id, order_id = transfer id, quantity_lots = amount in minimal units
#:   WITHDRAW       as DEPOSIT
#:   OPEN_ACCOUNT   account (the new one)
#:   SUSPEND_ACCOUNT, RESUME_ACCOUNT   account
#:   OPEN_SESSION   session_id (chosen by the client, not 0), account, flags (SessionFlags), request_id 0
#:   CLOSE_SESSION  no other field
#:   DISCONNECT     session_id, request_id 0
#:   ADD_ASSET      instrument = asset id, client_order_id = symbol, quantity_lots = display decimals (0..18),
#:                  price_ticks = supply cap in minimal units (0: the general limit)
#:   ADD_INSTRUMENT see INSTRUMENT_COMMAND
#:   SET_STATUS     instrument, side = InstrumentStatus
#:   SET_LIMITS     see LIMITS_COMMAND
#:   SET_RULES      see RULES_COMMAND
#:   KILL, REVIVE   no other field
#:   TICK           session_id 0, request_id 0, no other field
#:   SET_VERSION    session_id 0, request_id 0, quantity_lots = the version of the rules that follows the present one
COMMAND: Final = np.dtype(
    {
        "names": [
            "kind", "side", "order_type", "tif", "stp", "flags", "reserved", "session_id", "request_id",
            "account", "instrument", "client_order_id", "order_id", "price_ticks", "quantity_lots",
        ],
        "formats": ["u1", "u1", "u1", "u1", "u1", "u1", "<u2", "<u8", "<u8", "<u4", "<u4", "<u8", "<u8", "<i8", "<i8"],
        "offsets": [0, 1, 2, 3, 4, 5, 6, 8, 16, 24, 28, 32, 40, 48, 56],
        "itemsize": COMMAND_SIZE,
    }
)  # fmt: skip

#: ADD_INSTRUMENT with its own field names: the same 64 bytes as COMMAND.
#:   reserved bytes 1..3 must be 0.
#:   scale_units     quote units that one tick x one lot is worth, >= 1
#:   lot_units       base units in one lot, >= 1
#:   symbol          up to 8 ASCII bytes (A-Z 0-9 - . / _), NUL-padded, first byte in the low byte of the u64; not 0
INSTRUMENT_COMMAND: Final = np.dtype(
    {
        "names": [
            "kind", "scale_units", "session_id", "request_id", "lot_units", "instrument", "symbol",
            "base_asset", "quote_asset", "max_price_ticks", "max_quantity_lots",
        ],
        "formats": ["u1", "<u4", "<u8", "<u8", "<u4", "<u4", "<u8", "<u4", "<u4", "<i8", "<i8"],
        "offsets": [0, 4, 8, 16, 24, 28, 32, 40, 44, 48, 56],
        "itemsize": COMMAND_SIZE,
    }
)  # fmt: skip

#: SET_LIMITS with its own field names: the same 64 bytes as COMMAND. 0 = no limit.
#:   max_open_orders      orders that are open at once
#:   max_open_notional    of all open orders with one quote asset, in its minimal units
#:   max_order_notional   of one order, in quote units
#:   max_order_quantity   of one order, in lots
LIMITS_COMMAND: Final = np.dtype(
    {
        "names": [
            "kind", "session_id", "request_id", "account", "max_open_orders",
            "max_open_notional", "max_order_notional", "max_order_quantity",
        ],
        "formats": ["u1", "<u8", "<u8", "<u4", "<u4", "<i8", "<i8", "<i8"],
        "offsets": [0, 8, 16, 24, 28, 40, 48, 56],
        "itemsize": COMMAND_SIZE,
    }
)  # fmt: skip

#: SET_RULES with its own field names: the same 64 bytes as COMMAND. Byte 1 must be 0; 0 = no rule.
#:   band_bp         how far a limit price may be from the last trade price, in hundredths of a percent (0..10,000)
#:   maker_fee       millionths of the notional; negative is a rebate; -taker_fee <= maker_fee <= taker_fee
#:   taker_fee       millionths of the notional (0..1,000,000)
#:   min_notional, max_notional   of one order, in quote units
RULES_COMMAND: Final = np.dtype(
    {
        "names": [
            "kind", "band_bp", "maker_fee", "session_id", "request_id", "taker_fee", "instrument",
            "min_price_ticks", "min_notional", "max_notional", "min_quantity_lots",
        ],
        "formats": ["u1", "<u2", "<i4", "<u8", "<u8", "<u4", "<u4", "<i8", "<i8", "<i8", "<i8"],
        "offsets": [0, 2, 4, 8, 16, 24, 28, 32, 40, 48, 56],
        "itemsize": COMMAND_SIZE,
    }
)  # fmt: skip

#: An event. Fields by kind (all others are 0); every event has sequence, command_sequence, time_ns, kind, and the
#: session_id and request_id of the command that caused it:
#:   NEW              side order_type tif stp flags account instrument order_id client_order_id price_ticks
#:                    quantity_lots leaves_lots, and counter_order_id = the order's extra word (see PLACE)
#:   TRIGGERED        as NEW, after a stop order became a market or limit order; cum_lots
#:   PARTIALLY_FILLED, FILLED   the order's side order_type tif stp flags account instrument order_id client_order_id
#:                    counter_order_id (the extra word) and match_id; price_ticks and quantity_lots of this fill;
#:                    cum_lots and leaves_lots after it (leaves_lots 0 with QUOTE_BUDGET, in NEW too)
#:   CANCELLED, EXPIRED   the order's fields as in NEW (quantity_lots = order quantity; cum_lots with QUOTE_BUDGET),
#:                    reason, cum_lots; leaves_lots = 0; the lots not filled = quantity_lots - cum_lots
#:   REPLACED         the order's fields as in NEW after the change, cum_lots, leaves_lots; reason SELF_TRADE where
#:                    self-trade prevention reduced it
#:   REJECTED         reason; and side order_type tif stp flags account instrument order_id client_order_id price_ticks
#:                    quantity_lots copied from the command as sent (for ADD_INSTRUMENT through the names of COMMAND);
#:                    command_kind
#:   TRADE            side = taker's side; instrument; account, order_id = taker's; counter_account, counter_order_id =
#:                    maker's; match_id; price_ticks; quantity_lots; cum_lots = taker's fee, leaves_lots = maker's fee
#:                    (quote units)
#:   DEPOSITED, WITHDRAWN   account, instrument = asset, order_id = transfer id, quantity_lots = amount, cum_lots =
#:                    available after
#:   ACCOUNT_OPENED, ACCOUNT_SUSPENDED, ACCOUNT_RESUMED   account
#:   SESSION_OPENED   account, flags
#:   SESSION_CLOSED, SESSION_DISCONNECTED   account; quantity_lots = orders cancelled. After the CANCELLED events
#:   ASSET_ADDED      instrument = asset, client_order_id = symbol, quantity_lots = decimals, price_ticks = supply cap
#:   INSTRUMENT_ADDED instrument, client_order_id = symbol, account = lot_units, counter_account = scale_units,
#:                    order_id = base_asset, counter_order_id = quote_asset, price_ticks = max_price_ticks,
#:                    quantity_lots = max_quantity_lots
#:   MASS_CANCELLED   account, instrument, side as in the command; quantity_lots = orders cancelled. It comes after the
#:                    CANCELLED events
#:   STATUS_SET       instrument, side = status, quantity_lots = orders cancelled. After the CANCELLED events
#:   LIMITS_SET       account, instrument = max_open_orders, order_id = max_open_notional, price_ticks =
#:                    max_order_notional, quantity_lots = max_order_quantity
#:   RULES_SET        instrument, account = taker_fee, counter_account = maker_fee (two's complement), cum_lots =
#:                    band_bp, client_order_id = min_price_ticks, order_id = min_notional, price_ticks = max_notional,
#:                    quantity_lots = min_quantity_lots
#:   VERSION_SET      quantity_lots = the version of the rules, which applies from the next command on
#:   KILLED, REVIVED, TICKED   no other field
EVENT: Final = np.dtype(
    {
        "names": [
            "sequence", "command_sequence", "time_ns", "kind", "side", "order_type", "tif", "stp", "flags", "reason",
            "instrument", "account", "counter_account", "command_kind", "order_id", "counter_order_id", "match_id",
            "client_order_id", "session_id", "request_id", "price_ticks", "quantity_lots", "cum_lots", "leaves_lots",
        ],
        "formats": [
            "<u8", "<u8", "<i8", "u1", "u1", "u1", "u1", "u1", "u1", "<u2",
            "<u4", "<u4", "<u4", "<u4", "<u8", "<u8", "<u8",
            "<u8", "<u8", "<u8", "<i8", "<i8", "<i8", "<i8",
        ],
        "offsets": [
            0, 8, 16, 24, 25, 26, 27, 28, 29, 30, 32, 36, 40, 44, 48, 56, 64, 72, 80, 88, 96, 104, 112, 120,
        ],
        "itemsize": EVENT_SIZE,
    }
)  # fmt: skip

#: The answer to one command, for its sender: one per command, in the order of the commands.
#:   sequence        the command's sequence; 0 for a DUPLICATE (nothing was applied)
#:   order_id        the order created or changed (PLACE, CANCEL, REPLACE), the transfer id (DEPOSIT, WITHDRAW), else 0.
#:                   For OPEN_SESSION of an existing session of the same account (a resumption, status DUPLICATE): the
#:                   session's last request id, from which the client can continue; the same for any DUPLICATE
#:   event_kind      the order's state after the command: PLACE: NEW, PARTIALLY_FILLED, FILLED, EXPIRED or REJECTED;
#:                   others: the kind of the command's own event
#:   first_event, event_count   the command's events (sequence of the first, 0 if none; number of them)
#:   cum_lots, leaves_lots      of the order after the command (PLACE, CANCEL, REPLACE), before any triggered stop;
#:                   MASS_CANCEL, SET_STATUS, CLOSE_SESSION, DISCONNECT: cum_lots = orders cancelled; DEPOSIT, WITHDRAW:
#:                   cum_lots = available after
OUTCOME: Final = np.dtype(
    {
        "names": [
            "status", "event_kind", "reason", "event_count", "session_id", "request_id", "sequence", "order_id",
            "first_event", "cum_lots", "leaves_lots",
        ],
        "formats": ["u1", "u1", "<u2", "<u4", "<u8", "<u8", "<u8", "<u8", "<u8", "<i8", "<i8"],
        "offsets": [0, 1, 2, 4, 8, 16, 24, 32, 40, 48, 56],
        "itemsize": OUTCOME_SIZE,
    }
)  # fmt: skip

for _name, _dtype, _size in (
    ("COMMAND", COMMAND, COMMAND_SIZE),
    ("INSTRUMENT_COMMAND", INSTRUMENT_COMMAND, COMMAND_SIZE),
    ("LIMITS_COMMAND", LIMITS_COMMAND, COMMAND_SIZE),
    ("RULES_COMMAND", RULES_COMMAND, COMMAND_SIZE),
    ("EVENT", EVENT, EVENT_SIZE),
    ("OUTCOME", OUTCOME, OUTCOME_SIZE),
):
    if _dtype.itemsize != _size:
        raise ImportError(f"{_name}: expected {_size} bytes, found {_dtype.itemsize}")


def pack_symbol(text: str) -> int:
    """Return the u64 of a symbol: 1 to 8 characters of A-Z 0-9 - . / _, the first in the low byte.

    Raises ValueError for anything else.
    """
    allowed = set("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-./_")
    too_long = f" ({len(text)} characters)" if len(text) > 8 else ""
    if not 1 <= len(text) <= 8 or not set(text) <= allowed:
        raise ValueError(f"symbol: expected 1 to 8 characters of A-Z 0-9 - . / _, found {text!r}{too_long}")
    return int.from_bytes(text.encode("ascii").ljust(8, b"\0"), "little")


def unpack_symbol(value: int) -> str:
    """Return the text of a symbol's u64, the inverse of pack_symbol."""
    return int(value).to_bytes(8, "little").rstrip(b"\0").decode("ascii", "replace")
