"""The refusals as a table: for every kind of command a good one, and each thing that can be wrong with it, in the order
in which the first failure is the reason reported.

Used by test_refusals.py, which tries every row alone and every two of a kind together.
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
from tests.property.refusal_world import (
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
    World,
)

R = Reason
NOBODY = 77
NOTHING = 999


@dataclass(frozen=True)
class Wrong:
    """One thing that is wrong: the reason it gives, the fields of the command, the world it happens in."""

    reason: Reason
    fields: dict[str, int] = field(default_factory=dict)
    world: World = field(default_factory=dict)
    #: Reasons it cannot be put together with, for each undoes the other.
    not_with: frozenset[Reason] = frozenset()


@dataclass(frozen=True)
class Kind:
    """A command that is accepted, and its refusals in order of precedence."""

    kind: CommandKind
    good: dict[str, int]
    wrong: list[Wrong]
    session: int = ALICE_SESSION


def wrong(reason: Reason, not_with: tuple[Reason, ...] = (), world: World | None = None, **fields: int) -> Wrong:
    return Wrong(reason, fields, world or {}, frozenset(not_with))


RESERVED = wrong(R.RESERVED_NOT_ZERO, reserved=1)
NO_SESSION = wrong(R.UNKNOWN_SESSION, session_id=NOTHING)
GAP = wrong(R.REQUEST_GAP, request_id=1)
FOREIGN = wrong(R.NOT_AUTHORISED, account=BOB)
NOT_VENUE = wrong(R.NOT_AUTHORISED, session_id=ALICE_SESSION)
NO_ACCOUNT = wrong(R.UNKNOWN_ACCOUNT, session_id=VENUE_SESSION, account=NOBODY)
NO_SUCH_ACCOUNT = wrong(R.UNKNOWN_ACCOUNT, account=NOBODY)
KILLED = wrong(R.KILLED, world={"killed": True})
SUSPENDED = wrong(R.ACCOUNT_SUSPENDED, world={"suspended": True})
HALTED = wrong(R.INSTRUMENT_NOT_TRADING, world={"halted": True})
POOR = wrong(R.INSUFFICIENT_FUNDS, world={"poor": True})

#: Of both PLACE and REPLACE, whose good commands are worth 1,000 or more.
PRICES = [
    wrong(R.INVALID_PRICE, price_ticks=0),
    wrong(R.PRICE_BELOW_MINIMUM, price_ticks=9),
    wrong(R.PRICE_ABOVE_MAXIMUM, price_ticks=1_001),
]
BAND = wrong(R.PRICE_OUTSIDE_BAND, price_ticks=151)
QUANTITIES = [
    wrong(R.INVALID_QUANTITY, quantity_lots=0),
    wrong(R.QUANTITY_BELOW_MINIMUM, quantity_lots=1),
    wrong(R.QUANTITY_ABOVE_MAXIMUM, quantity_lots=501),
]
NOTIONALS = [
    wrong(R.NOTIONAL_BELOW_MINIMUM, (R.NOTIONAL_ABOVE_MAXIMUM,), world={"rules": {"min_notional": 100_000}}),
    wrong(R.NOTIONAL_ABOVE_MAXIMUM, world={"rules": {"max_notional": 500}}),
]
LIMITS = [
    wrong(R.OPEN_ORDERS_LIMIT, (R.FOK_UNFILLABLE,), {"limits": {"max_open_orders": 1}}),
    wrong(R.ORDER_QUANTITY_LIMIT, world={"limits": {"max_order_quantity": 3}}),
    wrong(R.ORDER_NOTIONAL_LIMIT, world={"limits": {"max_order_notional": 200}}),
    wrong(R.OPEN_NOTIONAL_LIMIT, (R.FOK_UNFILLABLE,), {"limits": {"max_open_notional": 1_600}}),
]

PLACE = Kind(
    CommandKind.PLACE,
    {
        "side": Side.BUY, "order_type": OrderType.LIMIT, "tif": TimeInForce.GTC, "stp": Stp.CANCEL_NEWEST,
        "account": ALICE, "instrument": MARKET, "price_ticks": 100, "quantity_lots": 10,
    },
    [
        RESERVED,
        wrong(R.RESERVED_NOT_ZERO, order_type=OrderType.MARKET, order_id=1),
        wrong(R.RESERVED_NOT_ZERO, order_id=1 << 32, not_with=(R.INVALID_ORDER_TYPE, R.STOP_WOULD_TRIGGER)),
        wrong(R.INVALID_SIDE, side=3),
        wrong(R.INVALID_ORDER_TYPE, order_type=5),
        wrong(R.INVALID_TIME_IN_FORCE, tif=5),
        wrong(R.INVALID_STP, stp=5),
        wrong(R.INVALID_FLAGS, flags=4),
        NO_SESSION,
        GAP,
        FOREIGN,
        KILLED,
        NO_ACCOUNT,
        SUSPENDED,
        wrong(R.UNKNOWN_INSTRUMENT, instrument=NOTHING),
        HALTED,
        wrong(R.DUPLICATE_CLIENT_ORDER_ID, client_order_id=RESTING),
        *PRICES,
        wrong(
            R.INVALID_PRICE, order_type=OrderType.MARKET,
            not_with=(R.PRICE_BELOW_MINIMUM, R.PRICE_ABOVE_MAXIMUM, R.INVALID_DISPLAY, R.INVALID_EXPIRY),
        ),
        wrong(R.INVALID_STOP_PRICE, order_type=OrderType.STOP_LIMIT, order_id=0),
        wrong(R.INVALID_STOP_PRICE, order_type=OrderType.STOP_LIMIT, order_id=9),
        wrong(R.INVALID_STOP_PRICE, order_type=OrderType.STOP_LIMIT, order_id=1_001),
        BAND,
        wrong(R.PRICE_OUTSIDE_BAND, order_type=OrderType.STOP_LIMIT, order_id=300),
        *QUANTITIES,
        wrong(R.INVALID_DISPLAY, order_id=600),
        wrong(R.INVALID_EXPIRY, tif=TimeInForce.GTD, order_id=5 << 32),
        *NOTIONALS,
        *LIMITS,
        wrong(
            R.UNSUPPORTED_COMBINATION, tif=TimeInForce.IOC, flags=OrderFlags.POST_ONLY,
            not_with=(R.OPEN_ORDERS_LIMIT, R.OPEN_NOTIONAL_LIMIT),
        ),
        wrong(
            R.UNSUPPORTED_COMBINATION, order_type=OrderType.STOP_LIMIT, order_id=120, flags=OrderFlags.POST_ONLY,
            # A stop-limit order has its band around its stop price.
            not_with=(R.PRICE_OUTSIDE_BAND,),
        ),
        wrong(
            R.POST_ONLY_WOULD_TAKE, flags=OrderFlags.POST_ONLY, price_ticks=130,
            not_with=(R.STOP_WOULD_TRIGGER, R.FOK_UNFILLABLE),
        ),
        wrong(R.STOP_WOULD_TRIGGER, order_type=OrderType.STOP_LIMIT, order_id=100),
        wrong(R.FOK_UNFILLABLE, tif=TimeInForce.FOK),
        POOR,
    ],
)  # fmt: skip

#: The numbers of orders are put in by the client order id that stands for them.
REPLACE = Kind(
    CommandKind.REPLACE,
    {"account": ALICE, "client_order_id": RESTING, "price_ticks": 95, "quantity_lots": 12},
    [
        RESERVED,
        wrong(R.INVALID_ID, order_id=1),
        wrong(R.INVALID_ID, client_order_id=0),
        NO_SESSION,
        GAP,
        FOREIGN,
        KILLED,
        NO_ACCOUNT,
        SUSPENDED,
        wrong(R.UNKNOWN_ORDER, client_order_id=NOTHING),
        HALTED,
        *PRICES,
        BAND,
        *QUANTITIES,
        wrong(R.INVALID_DISPLAY, client_order_id=ICEBERG, quantity_lots=4),
        *NOTIONALS,
        *LIMITS,
        wrong(R.POST_ONLY_WOULD_TAKE, client_order_id=POST_ONLY, price_ticks=120),
        POOR,
    ],
)

CANCEL = Kind(
    CommandKind.CANCEL,
    {"account": ALICE, "client_order_id": RESTING},
    [
        RESERVED,
        wrong(R.RESERVED_NOT_ZERO, price_ticks=1),
        wrong(R.INVALID_ID, order_id=1),
        wrong(R.INVALID_ID, client_order_id=0),
        NO_SESSION,
        GAP,
        FOREIGN,
        NO_ACCOUNT,
        wrong(R.UNKNOWN_ORDER, client_order_id=NOTHING),
    ],
)

MASS_CANCEL = Kind(
    CommandKind.MASS_CANCEL,
    {"account": ALICE, "instrument": MARKET, "side": Side.BUY},
    [
        RESERVED,
        wrong(R.INVALID_SIDE, side=3),
        NO_SESSION,
        GAP,
        FOREIGN,
        NO_ACCOUNT,
        wrong(R.UNKNOWN_INSTRUMENT, instrument=NOTHING),
    ],
)

DEPOSIT = Kind(
    CommandKind.DEPOSIT,
    {"account": ALICE, "instrument": USD, "quantity_lots": 5, "order_id": 500},
    [
        RESERVED,
        wrong(R.INVALID_ID, order_id=0),
        NO_SESSION,
        GAP,
        NOT_VENUE,
        NO_SUCH_ACCOUNT,
        wrong(R.UNKNOWN_ASSET, instrument=NOTHING),
        wrong(R.INVALID_AMOUNT, quantity_lots=0),
        wrong(R.INVALID_AMOUNT, quantity_lots=1 << 62),
        wrong(R.TRANSFER_ALREADY_DONE, order_id=DEPOSITED, not_with=(R.SUPPLY_EXCEEDED,)),
        wrong(R.TRANSFER_ID_REUSED, order_id=OTHER_DEPOSIT),
        wrong(R.SUPPLY_EXCEEDED, quantity_lots=CAP),
    ],
    VENUE_SESSION,
)

WITHDRAW = Kind(
    CommandKind.WITHDRAW,
    {"account": ALICE, "instrument": USD, "quantity_lots": 5, "order_id": 500},
    [
        RESERVED,
        wrong(R.INVALID_ID, order_id=0),
        NO_SESSION,
        GAP,
        FOREIGN,
        NO_ACCOUNT,
        SUSPENDED,
        wrong(R.UNKNOWN_ASSET, instrument=NOTHING),
        wrong(R.INVALID_AMOUNT, quantity_lots=-1),
        wrong(R.TRANSFER_ALREADY_DONE, order_id=WITHDRAWN, not_with=(R.INSUFFICIENT_FUNDS,)),
        wrong(R.TRANSFER_ID_REUSED, order_id=DEPOSITED),
        wrong(R.INSUFFICIENT_FUNDS, quantity_lots=CAP),
    ],
)

OPEN_ACCOUNT = Kind(
    CommandKind.OPEN_ACCOUNT,
    {"account": NOBODY},
    [RESERVED, NO_SESSION, GAP, NOT_VENUE, wrong(R.ACCOUNT_EXISTS, account=ALICE)],
    VENUE_SESSION,
)


def of_account(kind: CommandKind) -> Kind:
    no_id = wrong(R.INVALID_ID, account=0)
    return Kind(kind, {"account": ALICE}, [RESERVED, no_id, NO_SESSION, GAP, NOT_VENUE, NO_SUCH_ACCOUNT], VENUE_SESSION)


OPEN_SESSION = Kind(
    CommandKind.OPEN_SESSION,
    {"account": ALICE},
    [
        RESERVED,
        wrong(R.RESERVED_NOT_ZERO, request_id=1),
        wrong(R.INVALID_FLAGS, flags=2),
        wrong(R.INVALID_ID, session_id=0),
        wrong(R.SESSION_IN_USE, session_id=BOB_SESSION),
        wrong(R.UNKNOWN_ACCOUNT, account=NOBODY),
    ],
    500,
)
CLOSE_SESSION = Kind(
    CommandKind.CLOSE_SESSION, {}, [RESERVED, wrong(R.RESERVED_NOT_ZERO, account=ALICE), NO_SESSION, GAP]
)
DISCONNECT = Kind(
    CommandKind.DISCONNECT, {}, [RESERVED, wrong(R.RESERVED_NOT_ZERO, request_id=1), NO_SESSION], ALICE_SESSION
)
TICK = Kind(
    CommandKind.TICK, {}, [RESERVED, wrong(R.RESERVED_NOT_ZERO, session_id=1), wrong(R.RESERVED_NOT_ZERO, flags=1)], 0
)

ADD_ASSET = Kind(
    CommandKind.ADD_ASSET,
    {"instrument": 9, "client_order_id": pack_symbol("NEW"), "quantity_lots": 2, "price_ticks": 100},
    [
        RESERVED,
        wrong(R.INVALID_ID, client_order_id=0),
        NO_SESSION,
        GAP,
        NOT_VENUE,
        wrong(R.INVALID_ID, instrument=0),
        wrong(R.ASSET_EXISTS, instrument=USD),
        wrong(R.INVALID_QUANTITY, quantity_lots=19),
        wrong(R.INVALID_AMOUNT, price_ticks=-1),
        wrong(R.INVALID_AMOUNT, price_ticks=1 << 62),
    ],
    VENUE_SESSION,
)
ADD_INSTRUMENT = Kind(
    CommandKind.ADD_INSTRUMENT,
    {
        "instrument": 9, "client_order_id": pack_symbol("NEW"), "order_id": BTC | USD << 32, "account": 1,
        "stp": 1, "price_ticks": 100, "quantity_lots": 100,
    },
    [
        wrong(R.RESERVED_NOT_ZERO, side=1),
        wrong(R.INVALID_ID, client_order_id=0),
        NO_SESSION,
        GAP,
        NOT_VENUE,
        wrong(R.INVALID_ID, instrument=0),
        wrong(R.INSTRUMENT_EXISTS, instrument=MARKET),
        wrong(R.UNKNOWN_ASSET, order_id=BTC | NOTHING << 32),
        wrong(R.INVALID_INSTRUMENT, order_id=BTC | BTC << 32),
        wrong(R.INVALID_INSTRUMENT, price_ticks=0),
        wrong(R.INVALID_INSTRUMENT, quantity_lots=1 << 62),
    ],
    VENUE_SESSION,
)  # fmt: skip
SET_STATUS = Kind(
    CommandKind.SET_STATUS,
    {"instrument": MARKET, "side": 2},
    [
        RESERVED,
        wrong(R.INVALID_STATUS, side=0),
        wrong(R.INVALID_STATUS, side=5),
        NO_SESSION,
        GAP,
        NOT_VENUE,
        wrong(R.UNKNOWN_INSTRUMENT, instrument=NOTHING),
    ],
    VENUE_SESSION,
)
SET_LIMITS = Kind(
    CommandKind.SET_LIMITS,
    {"account": ALICE, "instrument": 5, "quantity_lots": 7},
    [
        RESERVED,
        wrong(R.RESERVED_NOT_ZERO, client_order_id=1),
        NO_SESSION,
        GAP,
        NOT_VENUE,
        NO_SUCH_ACCOUNT,
        wrong(R.INVALID_LIMIT, quantity_lots=-1),
        wrong(R.INVALID_LIMIT, order_id=1 << 62),
        wrong(R.INVALID_LIMIT, price_ticks=1 << 62),
    ],
    VENUE_SESSION,
)
SET_RULES = Kind(
    CommandKind.SET_RULES,
    {"instrument": MARKET, "price_ticks": 5_000},
    [
        wrong(R.RESERVED_NOT_ZERO, side=1),
        NO_SESSION,
        GAP,
        NOT_VENUE,
        wrong(R.UNKNOWN_INSTRUMENT, instrument=NOTHING),
        wrong(R.INVALID_RULES, quantity_lots=-1),
        wrong(R.INVALID_RULES, price_ticks=1 << 62),
        wrong(R.INVALID_RULES, client_order_id=1_001),
        wrong(R.INVALID_RULES, account=1_000_001),
        wrong(R.INVALID_RULES, order_type=0xFF, tif=0xFF),
        wrong(R.INSTRUMENT_HAS_ORDERS, account=10),
    ],
    VENUE_SESSION,
)


def of_switch(kind: CommandKind) -> Kind:
    return Kind(kind, {}, [RESERVED, wrong(R.RESERVED_NOT_ZERO, account=1), NO_SESSION, GAP, NOT_VENUE], VENUE_SESSION)


TABLE: list[Kind] = [
    *(PLACE, REPLACE, CANCEL, MASS_CANCEL, DEPOSIT, WITHDRAW, OPEN_ACCOUNT),
    *(of_account(CommandKind.SUSPEND_ACCOUNT), of_account(CommandKind.RESUME_ACCOUNT)),
    *(OPEN_SESSION, CLOSE_SESSION, DISCONNECT, TICK, ADD_ASSET, ADD_INSTRUMENT),
    *(SET_STATUS, SET_LIMITS, SET_RULES, of_switch(CommandKind.KILL), of_switch(CommandKind.REVIVE)),
]


def together(first: Wrong, second: Wrong) -> Wrong | None:
    """Both things wrong at once, for the reason of the first; None where they cannot be."""
    if second.reason in first.not_with or first.reason in second.not_with or first.reason == second.reason:
        return None
    fields, world = _merged(first.fields, second.fields), _merged_worlds(first.world, second.world)
    return None if fields is None or world is None else Wrong(first.reason, fields, world)


def _merged(first: dict[str, int], second: dict[str, int]) -> dict[str, int] | None:
    agree = all(second.get(name, value) == value for name, value in first.items())
    return {**first, **second} if agree else None


def _merged_worlds(first: World, second: World) -> World | None:
    merged: dict[str, Any] = dict(first)
    for name, change in second.items():
        known = merged.get(name, {} if isinstance(change, dict) else change)
        if isinstance(known, dict) and isinstance(change, dict):
            both = _merged(known, change)
            if both is None:
                return None
            merged[name] = both
        else:
            merged[name] = change
    return merged
