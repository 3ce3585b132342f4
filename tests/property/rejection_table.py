"""The rejections as a table: a valid command of every kind, and all its faults in order of precedence.

test_rejections.py tries every fault alone and every two faults of a kind together.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from smrx.wire.codes import (
    CommandKind,
    OrderFlags,
    OrderType,
    Reason,
    RuleFlags,
    Scope,
    Side,
    Stp,
    TimeInForce,
)
from smrx.wire.records import CAPACITIES, COMMAND_SIZE, DETAILS_LAYOUTS, MAX_CAPACITY, MAX_KEPT_ANSWERS, pack_symbol
from tests.property.rejection_setup import (
    ADMIN,
    ALICE,
    ALICE_SESSION,
    BOB,
    BOB_SESSION,
    BOBS,
    BTC,
    CAP,
    CLOSED_SESSION,
    DEPOSITED,
    EXPIRED,
    FIRM,
    FIRMS_ADMIN,
    FIRMS_READER,
    GATEWAY,
    ICEBERG,
    KEY_IN_USE,
    LONG,
    MARKET,
    NOW_NS,
    OTHER_DEPOSIT,
    OWN_ADMIN,
    POST_ONLY,
    READER,
    RESTING,
    REVOKED,
    RISK,
    TRADER,
    UNNUMBERED,
    USD,
    VENUE_SESSION,
    WITHDRAWN,
    Setup,
    meaningful_bytes,
    session_of,
)
from tests.raw_credentials import credential_key

R = Reason
UNKNOWN_ACCOUNT_ID = 77
UNKNOWN_ID = 999


@dataclass(frozen=True)
class Fault:
    """A fault of a command: the reason it causes, the changed fields of the command, the changed setup."""

    reason: Reason
    fields: dict[str, Any] = field(default_factory=dict)
    setup: Setup = field(default_factory=dict)
    #: Reasons that it cannot be combined with, because one undoes the other.
    not_with: frozenset[Reason] = frozenset()
    #: The versions of the rules under which it is a fault.
    rules: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class CommandCase:
    """A command that is accepted, and its faults in order of precedence."""

    kind: CommandKind
    good: dict[str, Any]
    faults: list[Fault]
    session: int = ALICE_SESSION
    #: The versions of the rules that have the command.
    rules: tuple[int, ...] = (1, 2)

    def under(self, rules: int) -> "CommandCase":
        """Return the case under a version of the rules: with the faults of that version."""
        return replace(self, faults=[fault for fault in self.faults if rules in fault.rules])


def fault(reason: Reason, not_with: tuple[Reason, ...] = (), setup: Setup | None = None, **fields: Any) -> Fault:
    """Return a fault, with the changed fields as keyword arguments."""
    return Fault(reason, fields, setup or {}, frozenset(not_with))


def since_2(reason: Reason, not_with: tuple[Reason, ...] = (), setup: Setup | None = None, **fields: Any) -> Fault:
    """Return a fault that version 2 of the rules brought."""
    return replace(fault(reason, not_with, setup, **fields), rules=(2,))


#: The last request again, with another content. It is noticed before anything else.
MISMATCH = since_2(R.REQUEST_MISMATCH, (R.UNKNOWN_SESSION, R.SESSION_CLOSED), request_id=(1 << 64) - 1)


def malformed(kind: CommandKind) -> list[Fault]:
    """Return the faults that every kind can have: its details, and a byte that it has no use for."""
    byte = min(set(range(COMMAND_SIZE)) - meaningful_bytes(kind))
    missing = [fault(R.INVALID_DETAILS, details=0)] if kind in MUST_HAVE_DETAILS else []
    in_details = [fault(R.RESERVED_NOT_ZERO, details_byte_127=1)] if kind in DETAILS_LAYOUTS else []
    beyond = fault(R.INVALID_DETAILS, details=2 if kind in DETAILS_LAYOUTS else 1)
    again = [MISMATCH] if kind not in UNNUMBERED else []
    return [*again, beyond, *missing, fault(R.RESERVED_NOT_ZERO, **{f"byte_{byte}": 1}), *in_details]


MUST_HAVE_DETAILS = (
    *(CommandKind.ADD_INSTRUMENT, CommandKind.SET_RULES),
    *(CommandKind.ADD_CREDENTIAL, CommandKind.SET_CREDENTIAL),
)
NO_SESSION = fault(R.UNKNOWN_SESSION, session_id=UNKNOWN_ID)
CLOSED = fault(R.SESSION_CLOSED, session_id=CLOSED_SESSION)
GAP = fault(R.REQUEST_GAP, request_id=1)
#: A credential that no longer counts, of a session that it opened before.
UNUSABLE = [
    since_2(R.CREDENTIAL_REVOKED, session_id=session_of(REVOKED)),
    since_2(R.CREDENTIAL_EXPIRED, session_id=session_of(EXPIRED)),
]
OTHER_ACCOUNT = fault(R.NOT_AUTHORISED, account=BOB)
#: Of a command about an account: those that may not send it at all, and the one that may not for this account.
NOT_OWN = [
    *UNUSABLE,
    OTHER_ACCOUNT,
    since_2(R.NOT_AUTHORISED, session_id=session_of(READER)),
    since_2(R.NOT_AUTHORISED, session_id=session_of(FIRMS_READER)),
    since_2(R.NOT_AUTHORISED, session_id=session_of(BOBS)),
    since_2(R.NOT_AUTHORISED, session_id=session_of(OWN_ADMIN), account=BOB),
    since_2(R.NOT_AUTHORISED, session_id=session_of(GATEWAY), account=BOB),
]
#: The person behind an order, whom alice's session may not name and the gateway of her firm may.
PERSONS = [
    since_2(R.NOT_AUTHORISED, credential=TRADER),
    since_2(R.NOT_AUTHORISED, session_id=session_of(TRADER), credential=TRADER),
    since_2(R.UNKNOWN_CREDENTIAL, session_id=session_of(GATEWAY), credential=UNKNOWN_ID),
    # Which may act for any account.
    since_2(R.UNKNOWN_CREDENTIAL, (R.NOT_AUTHORISED,), session_id=VENUE_SESSION, credential=UNKNOWN_ID),
    since_2(R.CREDENTIAL_REVOKED, session_id=session_of(GATEWAY), credential=REVOKED),
    since_2(R.CREDENTIAL_EXPIRED, session_id=session_of(GATEWAY), credential=EXPIRED),
    since_2(R.NOT_AUTHORISED, session_id=session_of(GATEWAY), credential=READER),
    since_2(R.NOT_AUTHORISED, session_id=session_of(GATEWAY), credential=BOBS),
    # Which acts for more accounts than the gateway.
    since_2(R.NOT_AUTHORISED, session_id=session_of(GATEWAY), credential=RISK),
]
#: With version 1 of the rules no sender may name one.
NO_PERSON = replace(fault(R.RESERVED_NOT_ZERO, credential=TRADER), rules=(1,))
NOT_VENUE = fault(R.NOT_AUTHORISED, session_id=ALICE_SESSION)


def not_venue(without: int) -> list[Fault]:
    """Return the faults of a sender of a venue's command; one credential of ALL lacks the permission."""
    return [
        *UNUSABLE,
        NOT_VENUE,
        since_2(R.NOT_AUTHORISED, session_id=session_of(without)),
        since_2(R.NOT_AUTHORISED, session_id=session_of(OWN_ADMIN)),
        since_2(R.NOT_AUTHORISED, session_id=session_of(FIRMS_ADMIN)),
    ]


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
#: A market order for 10 lots, where the best offer is 120.
MARKET_ORDER: dict[str, Any] = {"order_type": OrderType.MARKET, "tif": TimeInForce.IOC, "price_ticks": 0}
#: A price of 0 is right for it, and it has no use for the terms of a limit order.
WITH_A_MARKET_ORDER = (R.INVALID_PRICE, R.INVALID_DISPLAY, R.INVALID_EXPIRY, R.UNSUPPORTED_COMBINATION)
MARKET_NOTIONALS = [
    fault(
        R.NOTIONAL_BELOW_MINIMUM, (R.NOTIONAL_ABOVE_MAXIMUM, *WITH_A_MARKET_ORDER),
        {"rules": {"min_notional": 1_201, "rule_flags": RuleFlags.MIN_NOTIONAL_OF_MARKET}}, **MARKET_ORDER,
    ),
    fault(
        R.NOTIONAL_ABOVE_MAXIMUM, WITH_A_MARKET_ORDER,
        {"rules": {"max_notional": 1_199, "rule_flags": RuleFlags.MAX_NOTIONAL_OF_MARKET}}, **MARKET_ORDER,
    ),
]  # fmt: skip
LIMITS = [
    fault(R.OPEN_ORDERS_LIMIT, (R.FOK_UNFILLABLE,), {"limits": {"max_open_orders": 1}}),
    fault(R.ORDER_QUANTITY_LIMIT, setup={"limits": {"max_order_quantity": 3}}),
    fault(R.ORDER_NOTIONAL_LIMIT, setup={"limits": {"max_order_notional": 200}}),
    fault(R.OPEN_NOTIONAL_LIMIT, (R.FOK_UNFILLABLE,), {"limits": {"max_open_notional": 1_600}}),
]


def full(**capacity: int) -> Fault:
    """Return the fault of a command that has no space; the capacity is lower than the number of records."""
    return since_2(R.CAPACITY_REACHED, setup={"capacity": capacity})


#: Malformed client order ids; the good commands have a short one, or none.
BAD_IDS = [
    fault(R.INVALID_CLIENT_ORDER_ID, client_order_id=0x1F),
    fault(R.INVALID_CLIENT_ORDER_ID, client_order_id=0x7F << 56 | int.from_bytes(b"letters", "little")),
    fault(R.INVALID_CLIENT_ORDER_ID, client_order_id=ord("a") << 16 | ord("a")),
    fault(R.INVALID_CLIENT_ORDER_ID, client_order_id=ord("a") << 8),
    fault(R.INVALID_CLIENT_ORDER_ID, client_order_id=0, client_order_id_text=b"eight ch"),
    fault(R.INVALID_CLIENT_ORDER_ID, client_order_id=0, client_order_id_text=b"nine ch\x80r"),
    fault(R.INVALID_CLIENT_ORDER_ID, client_order_id=0, client_order_id_text=b"a character\0after a NUL"),
    fault(R.INVALID_CLIENT_ORDER_ID, client_order_id=0, client_order_id_text=b"\0" * 63 + b"z"),
    fault(R.INVALID_CLIENT_ORDER_ID, client_order_id=0, client_order_id_text=b"a" * 63 + b"\x7f"),
]

PLACE = CommandCase(
    CommandKind.PLACE,
    {
        "side": Side.BUY, "order_type": OrderType.LIMIT, "tif": TimeInForce.GTC, "stp": Stp.CANCEL_NEWEST,
        "account": ALICE, "instrument": MARKET, "price_ticks": 100, "quantity_lots": 10,
    },
    [
        *malformed(CommandKind.PLACE),
        NO_PERSON,
        fault(R.RESERVED_NOT_ZERO, order_type=OrderType.MARKET, display_lots=1),
        fault(R.RESERVED_NOT_ZERO, order_type=OrderType.STOP, display_lots=1),
        fault(R.RESERVED_NOT_ZERO, order_type=OrderType.LIMIT, stop_price_ticks=1),
        fault(R.RESERVED_NOT_ZERO, order_type=OrderType.MARKET, tif=TimeInForce.GTD, expiry_ns=NOW_NS + 1),
        fault(R.RESERVED_NOT_ZERO, tif=TimeInForce.GTC, expiry_ns=NOW_NS + 1),
        fault(R.INVALID_SIDE, side=3),
        # Terms have no meaning for an unknown type.
        fault(R.INVALID_ORDER_TYPE, order_type=5, not_with=(R.INVALID_DISPLAY, R.INVALID_EXPIRY)),
        fault(R.INVALID_TIME_IN_FORCE, tif=5),
        fault(R.INVALID_STP, stp=5),
        fault(R.INVALID_FLAGS, flags=4),
        *BAD_IDS,
        fault(R.INVALID_CLIENT_ORDER_ID, client_order_id=RESTING, client_order_id_text=LONG),
        NO_SESSION,
        CLOSED,
        GAP,
        *NOT_OWN,
        *PERSONS,
        KILLED,
        NO_ACCOUNT,
        SUSPENDED,
        fault(R.UNKNOWN_INSTRUMENT, instrument=UNKNOWN_ID),
        HALTED,
        fault(R.DUPLICATE_CLIENT_ORDER_ID, client_order_id=RESTING),
        fault(R.DUPLICATE_CLIENT_ORDER_ID, client_order_id_text=LONG),
        *PRICES,
        fault(
            R.INVALID_PRICE, order_type=OrderType.MARKET,
            not_with=(R.PRICE_BELOW_MINIMUM, R.PRICE_ABOVE_MAXIMUM, R.INVALID_DISPLAY, R.INVALID_EXPIRY),
        ),
        fault(R.INVALID_STOP_PRICE, order_type=OrderType.STOP_LIMIT, stop_price_ticks=0),
        fault(R.INVALID_STOP_PRICE, order_type=OrderType.STOP_LIMIT, stop_price_ticks=9),
        fault(R.INVALID_STOP_PRICE, order_type=OrderType.STOP_LIMIT, stop_price_ticks=1_001),
        BAND,
        fault(R.PRICE_OUTSIDE_BAND, order_type=OrderType.STOP_LIMIT, stop_price_ticks=300),
        *QUANTITIES,
        fault(R.INVALID_DISPLAY, display_lots=600),
        fault(R.INVALID_DISPLAY, display_lots=-1),
        fault(R.INVALID_EXPIRY, tif=TimeInForce.GTD, expiry_ns=NOW_NS),
        fault(R.INVALID_EXPIRY, tif=TimeInForce.GTD),
        fault(R.INVALID_EXPIRY, tif=TimeInForce.GTD, expiry_ns=-1),
        *NOTIONALS,
        *MARKET_NOTIONALS,
        *LIMITS,
        fault(
            R.UNSUPPORTED_COMBINATION, tif=TimeInForce.IOC, flags=OrderFlags.POST_ONLY,
            not_with=(R.OPEN_ORDERS_LIMIT, R.OPEN_NOTIONAL_LIMIT),
        ),
        fault(
            R.UNSUPPORTED_COMBINATION,
            order_type=OrderType.STOP_LIMIT, stop_price_ticks=120, flags=OrderFlags.POST_ONLY,
            # The band of a stop-limit order is around its stop price.
            not_with=(R.PRICE_OUTSIDE_BAND,),
        ),
        fault(
            R.UNSUPPORTED_COMBINATION, tif=TimeInForce.IOC, display_lots=1,
            not_with=(
                R.INVALID_ORDER_TYPE, R.INVALID_PRICE, R.OPEN_ORDERS_LIMIT, R.OPEN_NOTIONAL_LIMIT,
                R.POST_ONLY_WOULD_TAKE,
            ),
        ),
        fault(
            R.POST_ONLY_WOULD_TAKE, flags=OrderFlags.POST_ONLY, price_ticks=130,
            not_with=(R.STOP_WOULD_TRIGGER, R.FOK_UNFILLABLE),
        ),
        fault(R.STOP_WOULD_TRIGGER, order_type=OrderType.STOP_LIMIT, stop_price_ticks=100),
        fault(R.FOK_UNFILLABLE, tif=TimeInForce.FOK),
        LOW_FUNDS,
        full(orders=1),
    ],
)  # fmt: skip

#: REPLACE and CANCEL name their orders by client order id.
REPLACE = CommandCase(
    CommandKind.REPLACE,
    {"account": ALICE, "client_order_id": RESTING, "price_ticks": 95, "quantity_lots": 12},
    [
        *malformed(CommandKind.REPLACE),
        NO_PERSON,
        fault(R.RESERVED_NOT_ZERO, stop_price_ticks=100),
        fault(R.INVALID_ID, order_id=1),
        fault(R.INVALID_ID, client_order_id=0, not_with=(R.INVALID_CLIENT_ORDER_ID, R.UNKNOWN_ORDER)),
        fault(R.INVALID_ID, client_order_id_text=LONG),
        *BAD_IDS,
        NO_SESSION,
        CLOSED,
        GAP,
        *NOT_OWN,
        *PERSONS,
        KILLED,
        NO_ACCOUNT,
        SUSPENDED,
        fault(R.UNKNOWN_ORDER, client_order_id=ord("x")),
        fault(R.UNKNOWN_ORDER, client_order_id=0, client_order_id_text=LONG + b"!"),
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
        *malformed(CommandKind.CANCEL),
        NO_PERSON,
        fault(R.RESERVED_NOT_ZERO, price_ticks=1),
        fault(R.RESERVED_NOT_ZERO, display_lots=1),
        fault(R.INVALID_ID, order_id=1),
        fault(R.INVALID_ID, client_order_id=0, not_with=(R.INVALID_CLIENT_ORDER_ID, R.UNKNOWN_ORDER)),
        fault(R.INVALID_ID, client_order_id_text=LONG),
        *BAD_IDS,
        NO_SESSION,
        CLOSED,
        GAP,
        *NOT_OWN,
        *PERSONS,
        NO_ACCOUNT,
        fault(R.UNKNOWN_ORDER, client_order_id=ord("x")),
        fault(R.UNKNOWN_ORDER, client_order_id=0, client_order_id_text=LONG + b"!"),
    ],
)

MASS_CANCEL = CommandCase(
    CommandKind.MASS_CANCEL,
    {"account": ALICE, "instrument": MARKET, "side": Side.BUY},
    [
        *malformed(CommandKind.MASS_CANCEL),
        fault(R.INVALID_SIDE, side=3),
        NO_SESSION,
        CLOSED,
        GAP,
        *NOT_OWN,
        NO_ACCOUNT,
        fault(R.UNKNOWN_INSTRUMENT, instrument=UNKNOWN_ID),
    ],
)

DEPOSIT = CommandCase(
    CommandKind.DEPOSIT,
    {"account": ALICE, "asset": USD, "amount": 5, "transfer_id": 500},
    [
        *malformed(CommandKind.DEPOSIT),
        fault(R.INVALID_ID, transfer_id=0),
        NO_SESSION,
        CLOSED,
        GAP,
        *not_venue(RISK),
        NO_SUCH_ACCOUNT,
        fault(R.UNKNOWN_ASSET, asset=UNKNOWN_ID),
        fault(R.INVALID_AMOUNT, amount=0),
        fault(R.INVALID_AMOUNT, amount=1 << 62),
        fault(R.TRANSFER_ALREADY_DONE, transfer_id=DEPOSITED, not_with=(R.SUPPLY_EXCEEDED,)),
        fault(R.TRANSFER_ID_REUSED, transfer_id=OTHER_DEPOSIT),
        fault(R.SUPPLY_EXCEEDED, amount=CAP),
        # Of an account without the balance.
        replace(full(balances=1), fields={"account": 0}, not_with=frozenset({R.TRANSFER_ALREADY_DONE})),
    ],
    VENUE_SESSION,
)

WITHDRAW = CommandCase(
    CommandKind.WITHDRAW,
    {"account": ALICE, "asset": USD, "amount": 5, "transfer_id": 500},
    [
        *malformed(CommandKind.WITHDRAW),
        fault(R.INVALID_ID, transfer_id=0),
        NO_SESSION,
        CLOSED,
        GAP,
        *NOT_OWN,
        NO_ACCOUNT,
        SUSPENDED,
        fault(R.UNKNOWN_ASSET, asset=UNKNOWN_ID),
        fault(R.INVALID_AMOUNT, amount=-1),
        fault(R.TRANSFER_ALREADY_DONE, transfer_id=WITHDRAWN, not_with=(R.INSUFFICIENT_FUNDS,)),
        fault(R.TRANSFER_ID_REUSED, transfer_id=DEPOSITED),
        fault(R.INSUFFICIENT_FUNDS, amount=CAP),
    ],
)

OPEN_ACCOUNT = CommandCase(
    CommandKind.OPEN_ACCOUNT,
    {"account": UNKNOWN_ACCOUNT_ID},
    [
        *malformed(CommandKind.OPEN_ACCOUNT),
        replace(fault(R.RESERVED_NOT_ZERO, firm=FIRM), rules=(1,)),
        NO_SESSION,
        CLOSED,
        GAP,
        *not_venue(RISK),
        fault(R.ACCOUNT_EXISTS, account=ALICE),
        full(accounts=3),
    ],
    VENUE_SESSION,
)


def account_case(kind: CommandKind) -> CommandCase:
    """Return the case of a venue command about an account."""
    faults = [
        *malformed(kind),
        fault(R.INVALID_ID, account=0),
        NO_SESSION,
        CLOSED,
        GAP,
        *not_venue(ADMIN),
        NO_SUCH_ACCOUNT,
    ]
    return CommandCase(kind, {"account": ALICE}, faults, VENUE_SESSION)


OPEN_SESSION = CommandCase(
    CommandKind.OPEN_SESSION,
    {"account": ALICE},
    [
        *malformed(CommandKind.OPEN_SESSION),
        fault(R.RESERVED_NOT_ZERO, request_id=1),
        fault(R.INVALID_FLAGS, flags=2),
        fault(R.INVALID_ID, session_id=0),
        fault(R.SESSION_IN_USE, session_id=BOB_SESSION),
        since_2(R.SESSION_IN_USE, session_id=session_of(BOBS)),
        since_2(R.UNKNOWN_CREDENTIAL, session_id=UNKNOWN_ID << 32 | 1),
        since_2(R.CREDENTIAL_REVOKED, session_id=REVOKED << 32 | 9),
        since_2(R.CREDENTIAL_EXPIRED, session_id=EXPIRED << 32 | 9),
        since_2(R.NOT_AUTHORISED, session_id=BOBS << 32 | 9),
        since_2(R.NOT_AUTHORISED, session_id=GATEWAY << 32 | 9, account=BOB),
        since_2(R.NOT_AUTHORISED, session_id=GATEWAY << 32 | 9, account=UNKNOWN_ACCOUNT_ID),
        fault(R.UNKNOWN_ACCOUNT, account=UNKNOWN_ACCOUNT_ID),
        full(sessions=1),
        full(answers=1),
    ],
    500,
)
CLOSE_SESSION = CommandCase(
    CommandKind.CLOSE_SESSION, {}, [*malformed(CommandKind.CLOSE_SESSION), NO_SESSION, CLOSED, GAP, *UNUSABLE]
)
DISCONNECT = CommandCase(
    CommandKind.DISCONNECT,
    {},
    [*malformed(CommandKind.DISCONNECT), fault(R.RESERVED_NOT_ZERO, request_id=1), NO_SESSION, CLOSED],
    ALICE_SESSION,
)
TICK = CommandCase(CommandKind.TICK, {}, [*malformed(CommandKind.TICK), fault(R.RESERVED_NOT_ZERO, session_id=1)], 0)


def version_case(rules: int) -> CommandCase:
    """Return the case of SET_VERSION under a version of the rules."""
    faults = [
        *malformed(CommandKind.SET_VERSION),
        fault(R.RESERVED_NOT_ZERO, session_id=1),
        fault(R.INVALID_VERSION, version=rules),
        fault(R.INVALID_VERSION, version=rules + 2),
    ]
    return CommandCase(CommandKind.SET_VERSION, {"version": rules + 1}, faults, 0, (rules,))


ADD_ASSET = CommandCase(
    CommandKind.ADD_ASSET,
    {"asset": 9, "symbol": pack_symbol("SIXTEEN-LETTERS."), "decimals": 2, "supply_cap": 100},
    [
        *malformed(CommandKind.ADD_ASSET),
        fault(R.INVALID_ID, symbol=b""),
        fault(R.INVALID_ID, symbol=b"lower"),
        fault(R.INVALID_ID, symbol=b"A\0B"),
        fault(R.INVALID_ID, symbol=b"FIFTEEN-LETTERS\x80"),
        since_2(R.INVALID_ID, symbol=b"-A"),
        since_2(R.INVALID_ID, symbol=b"_A"),
        since_2(R.INVALID_ID, symbol=b"2"),
        since_2(R.INVALID_ID, symbol=b".."),
        since_2(R.INVALID_ID, symbol=b"123456789-./_321"),
        NO_SESSION,
        CLOSED,
        GAP,
        *not_venue(RISK),
        fault(R.INVALID_ID, asset=0),
        fault(R.ASSET_EXISTS, asset=USD),
        fault(R.INVALID_QUANTITY, decimals=19),
        fault(R.INVALID_AMOUNT, supply_cap=-1),
        fault(R.INVALID_AMOUNT, supply_cap=1 << 62),
        full(assets=2),
    ],
    VENUE_SESSION,
)
ADD_INSTRUMENT = CommandCase(
    CommandKind.ADD_INSTRUMENT,
    {
        "instrument": 9, "symbol": pack_symbol("TWENTY-FOUR-CHARACTERS/X"), "base_asset": BTC, "quote_asset": USD,
        "lot_units": 1, "scale_units": 1, "max_price_ticks": 100, "max_quantity_lots": 100,
    },
    [
        *malformed(CommandKind.ADD_INSTRUMENT),
        fault(R.INVALID_ID, symbol=b""),
        fault(R.INVALID_ID, symbol=b"lower"),
        fault(R.INVALID_ID, symbol=b"A\0B"),
        fault(R.INVALID_ID, symbol=b"\0" * 23 + b"X"),
        since_2(R.INVALID_ID, symbol=b"-A"),
        since_2(R.INVALID_ID, symbol=b"_A"),
        since_2(R.INVALID_ID, symbol=b"2"),
        since_2(R.INVALID_ID, symbol=b".."),
        since_2(R.INVALID_ID, symbol=b"123456789-./_321"),
        NO_SESSION,
        CLOSED,
        GAP,
        *not_venue(RISK),
        fault(R.INVALID_ID, instrument=0),
        fault(R.INSTRUMENT_EXISTS, instrument=MARKET),
        fault(R.UNKNOWN_ASSET, quote_asset=UNKNOWN_ID),
        fault(R.INVALID_INSTRUMENT, quote_asset=BTC),
        fault(R.INVALID_INSTRUMENT, lot_units=0),
        fault(R.INVALID_INSTRUMENT, scale_units=0),
        fault(R.INVALID_INSTRUMENT, max_price_ticks=0),
        fault(R.INVALID_INSTRUMENT, max_quantity_lots=1 << 62),
        full(instruments=2),
    ],
    VENUE_SESSION,
)  # fmt: skip
SET_STATUS = CommandCase(
    CommandKind.SET_STATUS,
    {"instrument": MARKET, "status": 2},
    [
        *malformed(CommandKind.SET_STATUS),
        fault(R.INVALID_STATUS, status=0),
        fault(R.INVALID_STATUS, status=5),
        NO_SESSION,
        CLOSED,
        GAP,
        *not_venue(ADMIN),
        fault(R.UNKNOWN_INSTRUMENT, instrument=UNKNOWN_ID),
    ],
    VENUE_SESSION,
)
SET_LIMITS = CommandCase(
    CommandKind.SET_LIMITS,
    {"account": ALICE, "max_open_orders": 5, "max_order_quantity": 7},
    [
        *malformed(CommandKind.SET_LIMITS),
        NO_SESSION,
        CLOSED,
        GAP,
        *not_venue(ADMIN),
        NO_SUCH_ACCOUNT,
        fault(R.INVALID_LIMIT, max_order_quantity=-1),
        fault(R.INVALID_LIMIT, max_open_notional=1 << 62),
        fault(R.INVALID_LIMIT, max_order_notional=1 << 62),
    ],
    VENUE_SESSION,
)
SET_RULES = CommandCase(
    CommandKind.SET_RULES,
    {"instrument": MARKET, "max_notional": 5_000},
    [
        *malformed(CommandKind.SET_RULES),
        NO_SESSION,
        CLOSED,
        GAP,
        *not_venue(RISK),
        fault(R.UNKNOWN_INSTRUMENT, instrument=UNKNOWN_ID),
        fault(R.INVALID_RULES, min_quantity_lots=-1),
        fault(R.INVALID_RULES, max_notional=1 << 62),
        fault(R.INVALID_RULES, min_price_ticks=1_001),
        fault(R.INVALID_RULES, taker_fee=1_000_001),
        fault(R.INVALID_RULES, band_bp=0xFFFF),
        fault(R.INVALID_RULES, collar_bp=10_001),
        fault(R.INVALID_RULES, collar_reference=2),
        fault(R.INVALID_RULES, rule_flags=4),
        fault(R.INSTRUMENT_HAS_ORDERS, taker_fee=10),
    ],
    VENUE_SESSION,
)


SET_RETENTION = CommandCase(
    CommandKind.SET_RETENTION,
    {"session_silence_s": 1, "transfer_age_s": 1, "transfers": 1_000},
    [
        *malformed(CommandKind.SET_RETENTION),
        NO_SESSION,
        CLOSED,
        GAP,
        *not_venue(RISK),
        fault(R.INVALID_LIMIT, session_silence_s=0),
        fault(R.INVALID_LIMIT, transfer_age_s=0),
        fault(R.INVALID_LIMIT, transfers=0),
        since_2(R.INVALID_LIMIT, transfers=MAX_CAPACITY + 1),
    ],
    VENUE_SESSION,
)
SET_CAPACITY = CommandCase(
    CommandKind.SET_CAPACITY,
    dict.fromkeys(CAPACITIES, 1) | {"answers": MAX_KEPT_ANSWERS, "orders": MAX_CAPACITY},
    [
        *malformed(CommandKind.SET_CAPACITY),
        NO_SESSION,
        CLOSED,
        GAP,
        *not_venue(RISK),
        *(fault(R.INVALID_LIMIT, **{name: 0}) for name in CAPACITIES),
        *(fault(R.INVALID_LIMIT, **{name: MAX_KEPT_ANSWERS + 1}) for name in CAPACITIES),
        fault(R.INVALID_LIMIT, orders=MAX_CAPACITY + 1),
    ],
    VENUE_SESSION,
    (2,),
)


#: The terms of a credential that does not exist yet.
NEW_TERMS: dict[str, Any] = {
    "key": credential_key(61), "permissions": 2, "scope": Scope.ACCOUNT, "subject": ALICE,
    "expires_ns": NOW_NS + 1, "networks": b"\x10" + bytes(63), "prefixes": bytes((4, 0, 0, 0)),
}  # fmt: skip
#: Faults in the terms of an ADD_CREDENTIAL and a SET_CREDENTIAL.
BAD_PERMISSIONS = [fault(R.INVALID_PERMISSIONS, permissions=0), fault(R.INVALID_PERMISSIONS, permissions=0x80)]
BAD_NETWORKS = [
    fault(R.INVALID_NETWORK, prefixes=bytes((3, 0, 0, 0))),
    fault(R.INVALID_NETWORK, prefixes=bytes(4)),
    fault(R.INVALID_NETWORK, prefixes=bytes((4, 129, 0, 0))),
    fault(R.INVALID_NETWORK, networks=bytes(63) + b"\1", prefixes=bytes((4, 0, 0, 127))),
]
PAST = [fault(R.INVALID_EXPIRY, expires_ns=expires_ns) for expires_ns in (NOW_NS, 1, -1)]

ADD_CREDENTIAL = CommandCase(
    CommandKind.ADD_CREDENTIAL,
    {"number": 61, **NEW_TERMS},
    [
        *malformed(CommandKind.ADD_CREDENTIAL),
        fault(R.INVALID_ID, number=0),
        fault(R.INVALID_ID, key=bytes(32)),
        *BAD_PERMISSIONS,
        fault(R.INVALID_SCOPE, scope=0),
        fault(R.INVALID_SCOPE, scope=4),
        fault(R.INVALID_SCOPE, scope=Scope.ALL),
        fault(R.INVALID_SCOPE, scope=Scope.FIRM, subject=0),
        *BAD_NETWORKS,
        NO_SESSION,
        CLOSED,
        GAP,
        *not_venue(RISK),
        fault(R.UNKNOWN_ACCOUNT, subject=UNKNOWN_ACCOUNT_ID),
        fault(R.CREDENTIAL_EXISTS, number=TRADER),
        fault(R.CREDENTIAL_EXISTS, number=REVOKED),
        fault(R.KEY_IN_USE, key=KEY_IN_USE),
        fault(R.KEY_IN_USE, key=credential_key(REVOKED)),
        *PAST,
        full(credentials=1),
    ],
    VENUE_SESSION,
    (2,),
)
SET_CREDENTIAL = CommandCase(
    CommandKind.SET_CREDENTIAL,
    {"number": TRADER, **{name: NEW_TERMS[name] for name in ("permissions", "expires_ns", "networks", "prefixes")}},
    [
        *malformed(CommandKind.SET_CREDENTIAL),
        fault(R.RESERVED_NOT_ZERO, key=KEY_IN_USE),
        fault(R.RESERVED_NOT_ZERO, subject=ALICE),
        fault(R.RESERVED_NOT_ZERO, scope=Scope.ACCOUNT),
        fault(R.INVALID_ID, number=0),
        *BAD_PERMISSIONS,
        *BAD_NETWORKS,
        NO_SESSION,
        CLOSED,
        GAP,
        *not_venue(RISK),
        fault(R.UNKNOWN_CREDENTIAL, number=UNKNOWN_ID),
        fault(R.CREDENTIAL_REVOKED, number=REVOKED),
        *PAST,
    ],
    VENUE_SESSION,
    (2,),
)
REVOKE_CREDENTIAL = CommandCase(
    CommandKind.REVOKE_CREDENTIAL,
    {"number": TRADER},
    [
        *malformed(CommandKind.REVOKE_CREDENTIAL),
        fault(R.INVALID_ID, number=0),
        NO_SESSION,
        CLOSED,
        GAP,
        *UNUSABLE,
        # Not an administrator; not of this account; not of this firm.
        fault(R.NOT_AUTHORISED, session_id=BOB_SESSION),
        fault(R.NOT_AUTHORISED, session_id=session_of(RISK)),
        fault(R.NOT_AUTHORISED, session_id=session_of(READER)),
        fault(R.NOT_AUTHORISED, (R.UNKNOWN_CREDENTIAL,), session_id=session_of(BOBS)),
        fault(R.NOT_AUTHORISED, session_id=session_of(OWN_ADMIN), number=GATEWAY),
        fault(R.NOT_AUTHORISED, session_id=session_of(FIRMS_ADMIN), number=BOBS),
        fault(R.NOT_AUTHORISED, session_id=session_of(FIRMS_ADMIN), number=ADMIN),
        fault(R.UNKNOWN_CREDENTIAL, number=UNKNOWN_ID),
        fault(R.UNKNOWN_CREDENTIAL, session_id=session_of(OWN_ADMIN), number=UNKNOWN_ID),
        fault(R.CREDENTIAL_REVOKED, number=REVOKED),
    ],
    VENUE_SESSION,
    (2,),
)


def switch_case(kind: CommandKind) -> CommandCase:
    """Return the case of KILL or REVIVE."""
    faults = [*malformed(kind), NO_SESSION, CLOSED, GAP, *not_venue(ADMIN)]
    return CommandCase(kind, {}, faults, VENUE_SESSION)


TABLE: list[CommandCase] = [
    *(PLACE, REPLACE, CANCEL, MASS_CANCEL, DEPOSIT, WITHDRAW, OPEN_ACCOUNT),
    *(account_case(CommandKind.SUSPEND_ACCOUNT), account_case(CommandKind.RESUME_ACCOUNT)),
    *(OPEN_SESSION, CLOSE_SESSION, DISCONNECT, TICK, version_case(1), version_case(2), ADD_ASSET, ADD_INSTRUMENT),
    *(SET_STATUS, SET_LIMITS, SET_RULES, SET_RETENTION, switch_case(CommandKind.KILL), switch_case(CommandKind.REVIVE)),
    *(ADD_CREDENTIAL, SET_CREDENTIAL, REVOKE_CREDENTIAL, SET_CAPACITY),
]


def cases(rules: int) -> list[CommandCase]:
    """Return the table under a version of the rules."""
    return [case.under(rules) for case in TABLE if rules in case.rules]


def combined(first: Fault, second: Fault) -> Fault | None:
    """Return both faults together, with the reason of the first; None if they exclude each other."""
    if second.reason in first.not_with or first.reason in second.not_with or first.reason == second.reason:
        return None
    fields, setup = _merged(first.fields, second.fields), _merged_setups(first.setup, second.setup)
    return None if fields is None or setup is None else Fault(first.reason, fields, setup)


def _merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any] | None:
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
