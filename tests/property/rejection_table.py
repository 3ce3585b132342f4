"""The rejections as a table: a valid command of every kind, and all its faults in order of precedence.

test_rejections.py tries every fault alone and every two faults of a kind together.
"""

from dataclasses import dataclass, field
from typing import Any

from smrx.wire.codes import (
    CommandKind,
    OrderFlags,
    OrderType,
    Reason,
    Side,
    Stp,
    TimeInForce,
)
from smrx.wire.records import pack_symbol
from tests.property.rejection_setup import (
    ALICE,
    ALICE_SESSION,
    BOB,
    BOB_SESSION,
    BTC,
    CAP,
    DEPOSITED,
    ICEBERG,
    MARKET,
    OTHER_DEPOSIT,
    POST_ONLY,
    RESTING,
    USD,
    VENUE_SESSION,
    WITHDRAWN,
    Setup,
)

R = Reason
UNKNOWN_ACCOUNT_ID = 77
UNKNOWN_ID = 999


@dataclass(frozen=True)
class Fault:
    """A fault of a command: the reason it causes, the changed fields of the command, the changed setup."""

    reason: Reason
    fields: dict[str, int] = field(default_factory=dict)
    setup: Setup = field(default_factory=dict)
    #: Reasons that it cannot be combined with, because one undoes the other.
    not_with: frozenset[Reason] = frozenset()


@dataclass(frozen=True)
class CommandCase:
    """A command that is accepted, and its faults in order of precedence."""

    kind: CommandKind
    good: dict[str, int]
    faults: list[Fault]
    session: int = ALICE_SESSION


def fault(reason: Reason, not_with: tuple[Reason, ...] = (), setup: Setup | None = None, **fields: int) -> Fault:
    """Return a fault, with the changed fields as keyword arguments."""
    return Fault(reason, fields, setup or {}, frozenset(not_with))


RESERVED = fault(R.RESERVED_NOT_ZERO, reserved=1)
NO_SESSION = fault(R.UNKNOWN_SESSION, session_id=UNKNOWN_ID)
GAP = fault(R.REQUEST_GAP, request_id=1)
OTHER_ACCOUNT = fault(R.NOT_AUTHORISED, account=BOB)
NOT_VENUE = fault(R.NOT_AUTHORISED, session_id=ALICE_SESSION)
NO_ACCOUNT = fault(R.UNKNOWN_ACCOUNT, session_id=VENUE_SESSION, account=UNKNOWN_ACCOUNT_ID)
NO_SUCH_ACCOUNT = fault(R.UNKNOWN_ACCOUNT, account=UNKNOWN_ACCOUNT_ID)
KILLED = fault(R.KILLED, setup={"killed": True})
SUSPENDED = fault(R.ACCOUNT_SUSPENDED, setup={"suspended": True})
HALTED = fault(R.INSTRUMENT_NOT_TRADING, setup={"halted": True})
LOW_FUNDS = fault(R.INSUFFICIENT_FUNDS, setup={"low_funds": True})

#: Faults of PLACE and REPLACE, whose valid commands have a notional of 1,000 or more.
PRICES = [
    fault(R.INVALID_PRICE, price_ticks=0),
    fault(R.PRICE_BELOW_MINIMUM, price_ticks=9),
    fault(R.PRICE_ABOVE_MAXIMUM, price_ticks=1_001),
]
BAND = fault(R.PRICE_OUTSIDE_BAND, price_ticks=151)
QUANTITIES = [
    fault(R.INVALID_QUANTITY, quantity_lots=0),
    fault(R.QUANTITY_BELOW_MINIMUM, quantity_lots=1),
    fault(R.QUANTITY_ABOVE_MAXIMUM, quantity_lots=501),
]
NOTIONALS = [
    fault(R.NOTIONAL_BELOW_MINIMUM, (R.NOTIONAL_ABOVE_MAXIMUM,), setup={"rules": {"min_notional": 100_000}}),
    fault(R.NOTIONAL_ABOVE_MAXIMUM, setup={"rules": {"max_notional": 500}}),
]
LIMITS = [
    fault(R.OPEN_ORDERS_LIMIT, (R.FOK_UNFILLABLE,), {"limits": {"max_open_orders": 1}}),
    fault(R.ORDER_QUANTITY_LIMIT, setup={"limits": {"max_order_quantity": 3}}),
    fault(R.ORDER_NOTIONAL_LIMIT, setup={"limits": {"max_order_notional": 200}}),
    fault(R.OPEN_NOTIONAL_LIMIT, (R.FOK_UNFILLABLE,), {"limits": {"max_open_notional": 1_600}}),
]

PLACE = CommandCase(
    CommandKind.PLACE,
    {
        "side": Side.BUY, "order_type": OrderType.LIMIT, "tif": TimeInForce.GTC, "stp": Stp.CANCEL_NEWEST,
        "account": ALICE, "instrument": MARKET, "price_ticks": 100, "quantity_lots": 10,
    },
    [
        RESERVED,
        fault(R.RESERVED_NOT_ZERO, order_type=OrderType.MARKET, order_id=1),
        fault(R.RESERVED_NOT_ZERO, order_id=1 << 32, not_with=(R.INVALID_ORDER_TYPE, R.STOP_WOULD_TRIGGER)),
        fault(R.INVALID_SIDE, side=3),
        fault(R.INVALID_ORDER_TYPE, order_type=5),
        fault(R.INVALID_TIME_IN_FORCE, tif=5),
        fault(R.INVALID_STP, stp=5),
        fault(R.INVALID_FLAGS, flags=4),
        NO_SESSION,
        GAP,
        OTHER_ACCOUNT,
        KILLED,
        NO_ACCOUNT,
        SUSPENDED,
        fault(R.UNKNOWN_INSTRUMENT, instrument=UNKNOWN_ID),
        HALTED,
        fault(R.DUPLICATE_CLIENT_ORDER_ID, client_order_id=RESTING),
        *PRICES,
        fault(
            R.INVALID_PRICE, order_type=OrderType.MARKET,
            not_with=(R.PRICE_BELOW_MINIMUM, R.PRICE_ABOVE_MAXIMUM, R.INVALID_DISPLAY, R.INVALID_EXPIRY),
        ),
        fault(R.INVALID_STOP_PRICE, order_type=OrderType.STOP_LIMIT, order_id=0),
        fault(R.INVALID_STOP_PRICE, order_type=OrderType.STOP_LIMIT, order_id=9),
        fault(R.INVALID_STOP_PRICE, order_type=OrderType.STOP_LIMIT, order_id=1_001),
        BAND,
        fault(R.PRICE_OUTSIDE_BAND, order_type=OrderType.STOP_LIMIT, order_id=300),
        *QUANTITIES,
        fault(R.INVALID_DISPLAY, order_id=600),
        fault(R.INVALID_EXPIRY, tif=TimeInForce.GTD, order_id=5 << 32),
        *NOTIONALS,
        *LIMITS,
        fault(
            R.UNSUPPORTED_COMBINATION, tif=TimeInForce.IOC, flags=OrderFlags.POST_ONLY,
            not_with=(R.OPEN_ORDERS_LIMIT, R.OPEN_NOTIONAL_LIMIT),
        ),
        fault(
            R.UNSUPPORTED_COMBINATION, order_type=OrderType.STOP_LIMIT, order_id=120, flags=OrderFlags.POST_ONLY,
            # The band of a stop-limit order is around its stop price.
            not_with=(R.PRICE_OUTSIDE_BAND,),
        ),
        fault(
            R.POST_ONLY_WOULD_TAKE, flags=OrderFlags.POST_ONLY, price_ticks=130,
            not_with=(R.STOP_WOULD_TRIGGER, R.FOK_UNFILLABLE),
        ),
        fault(R.STOP_WOULD_TRIGGER, order_type=OrderType.STOP_LIMIT, order_id=100),
        fault(R.FOK_UNFILLABLE, tif=TimeInForce.FOK),
        LOW_FUNDS,
    ],
)  # fmt: skip

#: REPLACE and CANCEL name their orders by client order id.
REPLACE = CommandCase(
    CommandKind.REPLACE,
    {"account": ALICE, "client_order_id": RESTING, "price_ticks": 95, "quantity_lots": 12},
    [
        RESERVED,
        fault(R.INVALID_ID, order_id=1),
        fault(R.INVALID_ID, client_order_id=0),
        NO_SESSION,
        GAP,
        OTHER_ACCOUNT,
        KILLED,
        NO_ACCOUNT,
        SUSPENDED,
        fault(R.UNKNOWN_ORDER, client_order_id=UNKNOWN_ID),
        HALTED,
        *PRICES,
        BAND,
        *QUANTITIES,
        fault(R.INVALID_DISPLAY, client_order_id=ICEBERG, quantity_lots=4),
        *NOTIONALS,
        *LIMITS,
        fault(R.POST_ONLY_WOULD_TAKE, client_order_id=POST_ONLY, price_ticks=120),
        LOW_FUNDS,
    ],
)

CANCEL = CommandCase(
    CommandKind.CANCEL,
    {"account": ALICE, "client_order_id": RESTING},
    [
        RESERVED,
        fault(R.RESERVED_NOT_ZERO, price_ticks=1),
        fault(R.INVALID_ID, order_id=1),
        fault(R.INVALID_ID, client_order_id=0),
        NO_SESSION,
        GAP,
        OTHER_ACCOUNT,
        NO_ACCOUNT,
        fault(R.UNKNOWN_ORDER, client_order_id=UNKNOWN_ID),
    ],
)

MASS_CANCEL = CommandCase(
    CommandKind.MASS_CANCEL,
    {"account": ALICE, "instrument": MARKET, "side": Side.BUY},
    [
        RESERVED,
        fault(R.INVALID_SIDE, side=3),
        NO_SESSION,
        GAP,
        OTHER_ACCOUNT,
        NO_ACCOUNT,
        fault(R.UNKNOWN_INSTRUMENT, instrument=UNKNOWN_ID),
    ],
)

DEPOSIT = CommandCase(
    CommandKind.DEPOSIT,
    {"account": ALICE, "instrument": USD, "quantity_lots": 5, "order_id": 500},
    [
        RESERVED,
        fault(R.INVALID_ID, order_id=0),
        NO_SESSION,
        GAP,
        NOT_VENUE,
        NO_SUCH_ACCOUNT,
        fault(R.UNKNOWN_ASSET, instrument=UNKNOWN_ID),
        fault(R.INVALID_AMOUNT, quantity_lots=0),
        fault(R.INVALID_AMOUNT, quantity_lots=1 << 62),
        fault(R.TRANSFER_ALREADY_DONE, order_id=DEPOSITED, not_with=(R.SUPPLY_EXCEEDED,)),
        fault(R.TRANSFER_ID_REUSED, order_id=OTHER_DEPOSIT),
        fault(R.SUPPLY_EXCEEDED, quantity_lots=CAP),
    ],
    VENUE_SESSION,
)

WITHDRAW = CommandCase(
    CommandKind.WITHDRAW,
    {"account": ALICE, "instrument": USD, "quantity_lots": 5, "order_id": 500},
    [
        RESERVED,
        fault(R.INVALID_ID, order_id=0),
        NO_SESSION,
        GAP,
        OTHER_ACCOUNT,
        NO_ACCOUNT,
        SUSPENDED,
        fault(R.UNKNOWN_ASSET, instrument=UNKNOWN_ID),
        fault(R.INVALID_AMOUNT, quantity_lots=-1),
        fault(R.TRANSFER_ALREADY_DONE, order_id=WITHDRAWN, not_with=(R.INSUFFICIENT_FUNDS,)),
        fault(R.TRANSFER_ID_REUSED, order_id=DEPOSITED),
        fault(R.INSUFFICIENT_FUNDS, quantity_lots=CAP),
    ],
)

OPEN_ACCOUNT = CommandCase(
    CommandKind.OPEN_ACCOUNT,
    {"account": UNKNOWN_ACCOUNT_ID},
    [RESERVED, NO_SESSION, GAP, NOT_VENUE, fault(R.ACCOUNT_EXISTS, account=ALICE)],
    VENUE_SESSION,
)


def account_case(kind: CommandKind) -> CommandCase:
    """Return the case of a venue command about an account."""
    faults = [RESERVED, fault(R.INVALID_ID, account=0), NO_SESSION, GAP, NOT_VENUE, NO_SUCH_ACCOUNT]
    return CommandCase(kind, {"account": ALICE}, faults, VENUE_SESSION)


OPEN_SESSION = CommandCase(
    CommandKind.OPEN_SESSION,
    {"account": ALICE},
    [
        RESERVED,
        fault(R.RESERVED_NOT_ZERO, request_id=1),
        fault(R.INVALID_FLAGS, flags=2),
        fault(R.INVALID_ID, session_id=0),
        fault(R.SESSION_IN_USE, session_id=BOB_SESSION),
        fault(R.UNKNOWN_ACCOUNT, account=UNKNOWN_ACCOUNT_ID),
    ],
    500,
)
CLOSE_SESSION = CommandCase(
    CommandKind.CLOSE_SESSION, {}, [RESERVED, fault(R.RESERVED_NOT_ZERO, account=ALICE), NO_SESSION, GAP]
)
DISCONNECT = CommandCase(
    CommandKind.DISCONNECT, {}, [RESERVED, fault(R.RESERVED_NOT_ZERO, request_id=1), NO_SESSION], ALICE_SESSION
)
TICK = CommandCase(
    CommandKind.TICK, {}, [RESERVED, fault(R.RESERVED_NOT_ZERO, session_id=1), fault(R.RESERVED_NOT_ZERO, flags=1)], 0
)
SET_VERSION = CommandCase(
    CommandKind.SET_VERSION,
    {"quantity_lots": 2},
    [
        RESERVED,
        fault(R.RESERVED_NOT_ZERO, session_id=1),
        fault(R.RESERVED_NOT_ZERO, price_ticks=1),
        fault(R.INVALID_VERSION, quantity_lots=1),
        fault(R.INVALID_VERSION, quantity_lots=3),
    ],
    0,
)

ADD_ASSET = CommandCase(
    CommandKind.ADD_ASSET,
    {"instrument": 9, "client_order_id": pack_symbol("NEW"), "quantity_lots": 2, "price_ticks": 100},
    [
        RESERVED,
        fault(R.INVALID_ID, client_order_id=0),
        NO_SESSION,
        GAP,
        NOT_VENUE,
        fault(R.INVALID_ID, instrument=0),
        fault(R.ASSET_EXISTS, instrument=USD),
        fault(R.INVALID_QUANTITY, quantity_lots=19),
        fault(R.INVALID_AMOUNT, price_ticks=-1),
        fault(R.INVALID_AMOUNT, price_ticks=1 << 62),
    ],
    VENUE_SESSION,
)
ADD_INSTRUMENT = CommandCase(
    CommandKind.ADD_INSTRUMENT,
    {
        "instrument": 9, "client_order_id": pack_symbol("NEW"), "order_id": BTC | USD << 32, "account": 1,
        "stp": 1, "price_ticks": 100, "quantity_lots": 100,
    },
    [
        fault(R.RESERVED_NOT_ZERO, side=1),
        fault(R.INVALID_ID, client_order_id=0),
        NO_SESSION,
        GAP,
        NOT_VENUE,
        fault(R.INVALID_ID, instrument=0),
        fault(R.INSTRUMENT_EXISTS, instrument=MARKET),
        fault(R.UNKNOWN_ASSET, order_id=BTC | UNKNOWN_ID << 32),
        fault(R.INVALID_INSTRUMENT, order_id=BTC | BTC << 32),
        fault(R.INVALID_INSTRUMENT, price_ticks=0),
        fault(R.INVALID_INSTRUMENT, quantity_lots=1 << 62),
    ],
    VENUE_SESSION,
)  # fmt: skip
SET_STATUS = CommandCase(
    CommandKind.SET_STATUS,
    {"instrument": MARKET, "side": 2},
    [
        RESERVED,
        fault(R.INVALID_STATUS, side=0),
        fault(R.INVALID_STATUS, side=5),
        NO_SESSION,
        GAP,
        NOT_VENUE,
        fault(R.UNKNOWN_INSTRUMENT, instrument=UNKNOWN_ID),
    ],
    VENUE_SESSION,
)
SET_LIMITS = CommandCase(
    CommandKind.SET_LIMITS,
    {"account": ALICE, "instrument": 5, "quantity_lots": 7},
    [
        RESERVED,
        fault(R.RESERVED_NOT_ZERO, client_order_id=1),
        NO_SESSION,
        GAP,
        NOT_VENUE,
        NO_SUCH_ACCOUNT,
        fault(R.INVALID_LIMIT, quantity_lots=-1),
        fault(R.INVALID_LIMIT, order_id=1 << 62),
        fault(R.INVALID_LIMIT, price_ticks=1 << 62),
    ],
    VENUE_SESSION,
)
SET_RULES = CommandCase(
    CommandKind.SET_RULES,
    {"instrument": MARKET, "price_ticks": 5_000},
    [
        fault(R.RESERVED_NOT_ZERO, side=1),
        NO_SESSION,
        GAP,
        NOT_VENUE,
        fault(R.UNKNOWN_INSTRUMENT, instrument=UNKNOWN_ID),
        fault(R.INVALID_RULES, quantity_lots=-1),
        fault(R.INVALID_RULES, price_ticks=1 << 62),
        fault(R.INVALID_RULES, client_order_id=1_001),
        fault(R.INVALID_RULES, account=1_000_001),
        fault(R.INVALID_RULES, order_type=0xFF, tif=0xFF),
        fault(R.INSTRUMENT_HAS_ORDERS, account=10),
    ],
    VENUE_SESSION,
)


def switch_case(kind: CommandKind) -> CommandCase:
    """Return the case of KILL or REVIVE."""
    faults = [RESERVED, fault(R.RESERVED_NOT_ZERO, account=1), NO_SESSION, GAP, NOT_VENUE]
    return CommandCase(kind, {}, faults, VENUE_SESSION)


TABLE: list[CommandCase] = [
    *(PLACE, REPLACE, CANCEL, MASS_CANCEL, DEPOSIT, WITHDRAW, OPEN_ACCOUNT),
    *(account_case(CommandKind.SUSPEND_ACCOUNT), account_case(CommandKind.RESUME_ACCOUNT)),
    *(OPEN_SESSION, CLOSE_SESSION, DISCONNECT, TICK, SET_VERSION, ADD_ASSET, ADD_INSTRUMENT),
    *(SET_STATUS, SET_LIMITS, SET_RULES, switch_case(CommandKind.KILL), switch_case(CommandKind.REVIVE)),
]


def combined(first: Fault, second: Fault) -> Fault | None:
    """Return both faults together, with the reason of the first; None if they exclude each other."""
    if second.reason in first.not_with or first.reason in second.not_with or first.reason == second.reason:
        return None
    fields, setup = _merged(first.fields, second.fields), _merged_setups(first.setup, second.setup)
    return None if fields is None or setup is None else Fault(first.reason, fields, setup)


def _merged(first: dict[str, int], second: dict[str, int]) -> dict[str, int] | None:
    agree = all(second.get(name, value) == value for name, value in first.items())
    return {**first, **second} if agree else None


def _merged_setups(first: Setup, second: Setup) -> Setup | None:
    merged: dict[str, Any] = dict(first)
    for name, apply_setup in second.items():
        known = merged.get(name, {} if isinstance(apply_setup, dict) else apply_setup)
        if isinstance(known, dict) and isinstance(apply_setup, dict):
            both = _merged(known, apply_setup)
            if both is None:
                return None
            merged[name] = both
        else:
            merged[name] = apply_setup
    return merged
