"""Every enumeration that appears in a record, with its stable values.

A value, once assigned, is never used for anything else: it is written into logs, snapshots and feeds. Imported
everywhere; imports nothing of smrx.
"""

from collections.abc import Mapping
from enum import IntEnum, IntFlag
from typing import Final


class CommandKind(IntEnum):
    """What a command asks for (offset 0 of a command record)."""

    PLACE = 1
    CANCEL = 2
    REPLACE = 3
    MASS_CANCEL = 4
    DEPOSIT = 5
    WITHDRAW = 6
    OPEN_ACCOUNT = 7
    SUSPEND_ACCOUNT = 8
    RESUME_ACCOUNT = 9
    OPEN_SESSION = 10
    CLOSE_SESSION = 11
    ADD_ASSET = 12
    ADD_INSTRUMENT = 13
    SET_STATUS = 14
    SET_LIMITS = 15
    KILL = 16
    REVIVE = 17
    TICK = 18
    SET_RULES = 19
    DISCONNECT = 20
    SET_VERSION = 21
    SET_RETENTION = 22
    # From version 2 of the rules on.
    ADD_CREDENTIAL = 23
    SET_CREDENTIAL = 24
    REVOKE_CREDENTIAL = 25
    SET_CAPACITY = 26


class CommandTraits(IntFlag):
    """What a kind of command is and needs: code asks for traits, so that no list of kinds can miss a new one."""

    NONE = 0
    PLACES = 1  # enters an order, or changes one so that it may trade
    CANCELS = 2  # may end open orders of its sender
    MOVES_MONEY = 4  # changes the supply of an asset
    VENUE_ONLY = 8  # only a session of the venue may send it, or one whose credential acts for all accounts
    LEADER = 16  # only the leader's node submits it, by itself or for an operator
    PASSES_HALT = 32  # accepted while its instrument is halted
    PASSES_KILL = 64  # accepted while the kill switch is on
    NUMBERED = 128  # counts as a request of its session
    NAMES_ACCOUNT = 256  # names an account, which must exist
    ACTIVE_ACCOUNT = 512  # which must not be suspended
    MAY_HAVE_DETAILS = 1024
    MUST_HAVE_DETAILS = 2048


_T = CommandTraits
_PASSES = _T.PASSES_HALT | _T.PASSES_KILL
_OWN = _PASSES | _T.NUMBERED | _T.NAMES_ACCOUNT
_VENUE = _PASSES | _T.NUMBERED | _T.VENUE_ONLY

#: The traits of every kind.
COMMAND_TRAITS: Final[Mapping[CommandKind, CommandTraits]] = {
    CommandKind.PLACE: _T.PLACES | _T.NUMBERED | _T.NAMES_ACCOUNT | _T.ACTIVE_ACCOUNT | _T.MAY_HAVE_DETAILS,
    CommandKind.CANCEL: _OWN | _T.CANCELS | _T.MAY_HAVE_DETAILS,
    CommandKind.REPLACE: _T.PLACES | _T.NUMBERED | _T.NAMES_ACCOUNT | _T.ACTIVE_ACCOUNT | _T.MAY_HAVE_DETAILS,
    CommandKind.MASS_CANCEL: _OWN | _T.CANCELS,
    CommandKind.DEPOSIT: _VENUE | _T.MOVES_MONEY | _T.NAMES_ACCOUNT,
    CommandKind.WITHDRAW: _OWN | _T.MOVES_MONEY | _T.ACTIVE_ACCOUNT,
    CommandKind.OPEN_ACCOUNT: _VENUE,
    CommandKind.SUSPEND_ACCOUNT: _VENUE | _T.NAMES_ACCOUNT,
    CommandKind.RESUME_ACCOUNT: _VENUE | _T.NAMES_ACCOUNT,
    CommandKind.OPEN_SESSION: _PASSES | _T.NAMES_ACCOUNT,
    CommandKind.CLOSE_SESSION: _PASSES | _T.NUMBERED | _T.CANCELS,
    CommandKind.ADD_ASSET: _VENUE,
    CommandKind.ADD_INSTRUMENT: _VENUE | _T.MAY_HAVE_DETAILS | _T.MUST_HAVE_DETAILS,
    CommandKind.SET_STATUS: _VENUE,
    CommandKind.SET_LIMITS: _VENUE | _T.NAMES_ACCOUNT,
    CommandKind.KILL: _VENUE,
    CommandKind.REVIVE: _VENUE,
    CommandKind.TICK: _PASSES | _T.LEADER,
    CommandKind.SET_RULES: _VENUE | _T.MAY_HAVE_DETAILS | _T.MUST_HAVE_DETAILS,
    CommandKind.DISCONNECT: _PASSES | _T.LEADER | _T.CANCELS,
    CommandKind.SET_VERSION: _PASSES | _T.LEADER,
    CommandKind.SET_RETENTION: _VENUE,
    CommandKind.ADD_CREDENTIAL: _VENUE | _T.MAY_HAVE_DETAILS | _T.MUST_HAVE_DETAILS,
    CommandKind.SET_CREDENTIAL: _VENUE | _T.MAY_HAVE_DETAILS | _T.MUST_HAVE_DETAILS,
    # Also a credential itself, and some credentials of the same account or firm.
    CommandKind.REVOKE_CREDENTIAL: _PASSES | _T.NUMBERED,
    CommandKind.SET_CAPACITY: _VENUE,
}
#: Of a kind that does not exist: it is rejected, and its request counts.
UNKNOWN_KIND_TRAITS: Final = CommandTraits.NUMBERED


class Permission(IntFlag):
    """What a credential may do, for the accounts in its scope."""

    NONE = 0
    READ = 1  # orders, balances, positions, transfers and the private stream
    TRADE = 2
    WITHDRAW = 4
    ADMINISTER = 8  # accounts, deposits, assets, instruments, rules, retention, capacity, credentials; the nodes
    RISK = 16  # suspend, resume, limits, kill, revive, instrument status; cancel the orders of others
    GATEWAY = 32  # name the person behind an order
    FOLLOW = 64  # the whole event feed, the log and state images


ALL_PERMISSIONS: Final = Permission(127)


class Scope(IntEnum):
    """The accounts that a credential acts for: one; those of a firm; all, the venue's included."""

    ACCOUNT = 1
    FIRM = 2
    ALL = 3


_P = Permission

#: What a credential needs for each kind of command: one of these permissions; none of them for NONE.
COMMAND_PERMISSIONS: Final[Mapping[CommandKind, Permission]] = {
    CommandKind.PLACE: _P.TRADE,
    CommandKind.CANCEL: _P.TRADE | _P.RISK,
    CommandKind.REPLACE: _P.TRADE,
    CommandKind.MASS_CANCEL: _P.TRADE | _P.RISK,
    CommandKind.DEPOSIT: _P.ADMINISTER,
    CommandKind.WITHDRAW: _P.WITHDRAW,
    CommandKind.OPEN_ACCOUNT: _P.ADMINISTER,
    CommandKind.SUSPEND_ACCOUNT: _P.RISK,
    CommandKind.RESUME_ACCOUNT: _P.RISK,
    CommandKind.OPEN_SESSION: _P.NONE,
    CommandKind.CLOSE_SESSION: _P.NONE,
    CommandKind.ADD_ASSET: _P.ADMINISTER,
    CommandKind.ADD_INSTRUMENT: _P.ADMINISTER,
    CommandKind.SET_STATUS: _P.RISK,
    CommandKind.SET_LIMITS: _P.RISK,
    CommandKind.KILL: _P.RISK,
    CommandKind.REVIVE: _P.RISK,
    CommandKind.TICK: _P.NONE,
    CommandKind.SET_RULES: _P.ADMINISTER,
    CommandKind.DISCONNECT: _P.NONE,
    CommandKind.SET_VERSION: _P.NONE,
    CommandKind.SET_RETENTION: _P.ADMINISTER,
    CommandKind.ADD_CREDENTIAL: _P.ADMINISTER,
    CommandKind.SET_CREDENTIAL: _P.ADMINISTER,
    # None to revoke itself.
    CommandKind.REVOKE_CREDENTIAL: _P.ADMINISTER,
    CommandKind.SET_CAPACITY: _P.ADMINISTER,
}


class EventKind(IntEnum):
    """What happened (offset 24 of an event record)."""

    NEW = 1
    PARTIALLY_FILLED = 2
    FILLED = 3
    CANCELLED = 4
    REPLACED = 5
    REJECTED = 6
    EXPIRED = 7
    TRADE = 8
    DEPOSITED = 9
    WITHDRAWN = 10
    ACCOUNT_OPENED = 11
    ACCOUNT_SUSPENDED = 12
    ACCOUNT_RESUMED = 13
    SESSION_OPENED = 14
    SESSION_CLOSED = 15
    ASSET_ADDED = 16
    INSTRUMENT_ADDED = 17
    MASS_CANCELLED = 18
    STATUS_SET = 19
    LIMITS_SET = 20
    KILLED = 21
    REVIVED = 22
    TICKED = 23
    RULES_SET = 24
    TRIGGERED = 25
    SESSION_DISCONNECTED = 26
    VERSION_SET = 27
    CLIENT_ORDER_ID = 28
    ORDER_TERMS = 29
    SESSION_EXPIRED = 30
    RETENTION_SET = 31
    CREDENTIAL_ADDED = 32
    CREDENTIAL_SET = 33
    CREDENTIAL_REVOKED = 34
    CREDENTIAL_NETWORKS = 35
    CAPACITY_SET = 36


class OutcomeStatus(IntEnum):
    """How a command ended, for its sender (offset 0 of an outcome record)."""

    ACCEPTED = 1
    REJECTED = 2
    DUPLICATE = 3


class Side(IntEnum):
    """The side of an order; for MASS_CANCEL, ANY means both."""

    ANY = 0
    BUY = 1
    SELL = 2


class OrderType(IntEnum):
    """STOP becomes MARKET, and STOP_LIMIT becomes LIMIT, when the last trade price reaches the stop price."""

    LIMIT = 1
    MARKET = 2
    STOP = 3
    STOP_LIMIT = 4


class TimeInForce(IntEnum):
    """Good till cancelled, immediate or cancel, fill or kill, good till date."""

    GTC = 1
    IOC = 2
    FOK = 3
    GTD = 4


class Stp(IntEnum):
    """Self-trade prevention; the taker's mode applies."""

    NONE = 0
    CANCEL_NEWEST = 1
    CANCEL_OLDEST = 2
    CANCEL_BOTH = 3
    DECREMENT = 4


class OrderFlags(IntFlag):
    """QUOTE_BUDGET: the quantity of a market buy is an amount of the quote asset, fees included."""

    NONE = 0
    POST_ONLY = 1
    QUOTE_BUDGET = 2


class SessionFlags(IntFlag):
    """CANCEL_ON_DISCONNECT: the session's orders are cancelled when it is closed or disconnected."""

    NONE = 0
    CANCEL_ON_DISCONNECT = 1


class RuleFlags(IntFlag):
    """Whether an instrument's bounds of the notional hold for market orders, valued at the best price, too."""

    NONE = 0
    MIN_NOTIONAL_OF_MARKET = 1
    MAX_NOTIONAL_OF_MARKET = 2


class CollarReference(IntEnum):
    """The price that a collar is counted from: the best opposite price at entry, or the last trade price."""

    BEST_PRICE = 0
    LAST_TRADE = 1


class AccountStatus(IntEnum):
    """A suspended account may cancel, but not place, replace or withdraw."""

    ACTIVE = 1
    SUSPENDED = 2


class InstrumentStatus(IntEnum):
    """Orders are placed and replaced in TRADING only; CLOSED cancels them all."""

    TRADING = 1
    HALTED = 2
    CANCEL_ONLY = 3
    CLOSED = 4


class Reason(IntEnum):
    """Why a command was rejected or an order ended (u16); NONE if no reason applies.

    The reasons of rejections are listed in order of precedence: the first check that fails is the one reported.
    """

    NONE = 0
    # malformed
    UNKNOWN_KIND = 10
    INVALID_DETAILS = 24
    RESERVED_NOT_ZERO = 11
    INVALID_SIDE = 12
    INVALID_ORDER_TYPE = 13
    INVALID_TIME_IN_FORCE = 14
    INVALID_STP = 15
    INVALID_FLAGS = 16
    INVALID_ID = 17
    INVALID_STATUS = 18
    INVALID_CLIENT_ORDER_ID = 19
    INVALID_PERMISSIONS = 27
    INVALID_SCOPE = 28
    INVALID_NETWORK = 29
    # session and request
    UNKNOWN_SESSION = 20
    REQUEST_MISMATCH = 31
    SESSION_CLOSED = 25
    REQUEST_GAP = 21
    SESSION_IN_USE = 22
    UNKNOWN_CREDENTIAL = 32
    CREDENTIAL_REVOKED = 33
    CREDENTIAL_EXPIRED = 34
    NOT_AUTHORISED = 23
    INVALID_VERSION = 26
    # kill switch
    KILLED = 30
    # account
    UNKNOWN_ACCOUNT = 40
    ACCOUNT_EXISTS = 41
    ACCOUNT_SUSPENDED = 42
    # credential
    CREDENTIAL_EXISTS = 35
    KEY_IN_USE = 36
    # asset, instrument and status
    UNKNOWN_ASSET = 50
    ASSET_EXISTS = 51
    UNKNOWN_INSTRUMENT = 52
    INSTRUMENT_EXISTS = 53
    INSTRUMENT_NOT_TRADING = 54
    INVALID_INSTRUMENT = 55
    INVALID_RULES = 56
    INSTRUMENT_HAS_ORDERS = 57
    # identity of orders and transfers
    DUPLICATE_CLIENT_ORDER_ID = 60
    UNKNOWN_ORDER = 61
    TRANSFER_ALREADY_DONE = 62
    TRANSFER_ID_REUSED = 63
    # price, tick, band, quantity, notional
    INVALID_PRICE = 70
    PRICE_BELOW_MINIMUM = 76
    PRICE_ABOVE_MAXIMUM = 71
    INVALID_STOP_PRICE = 77
    PRICE_OUTSIDE_BAND = 78
    INVALID_QUANTITY = 72
    QUANTITY_BELOW_MINIMUM = 79
    QUANTITY_ABOVE_MAXIMUM = 73
    INVALID_DISPLAY = 64
    INVALID_EXPIRY = 65
    NOTIONAL_BELOW_MINIMUM = 66
    NOTIONAL_ABOVE_MAXIMUM = 67
    INVALID_LIMIT = 68
    INVALID_AMOUNT = 74
    SUPPLY_EXCEEDED = 75
    # account limits
    OPEN_ORDERS_LIMIT = 80
    ORDER_QUANTITY_LIMIT = 81
    ORDER_NOTIONAL_LIMIT = 82
    OPEN_NOTIONAL_LIMIT = 83
    # unsupported combination
    UNSUPPORTED_COMBINATION = 90
    # feasibility
    POST_ONLY_WOULD_TAKE = 100
    STOP_WOULD_TRIGGER = 102
    FOK_UNFILLABLE = 101
    # funds
    INSUFFICIENT_FUNDS = 110
    # space
    CAPACITY_REACHED = 120
    # why an accepted order ended
    REQUESTED = 200
    MASS_CANCEL = 201
    IOC_REMAINDER = 202
    NO_LIQUIDITY = 203
    FUNDS_EXHAUSTED = 204
    SELF_TRADE = 205
    TIME_REACHED = 206
    DISCONNECTED = 207
    INSTRUMENT_CLOSED = 208
    BUDGET_SPENT = 209
    COLLAR_REACHED = 210
