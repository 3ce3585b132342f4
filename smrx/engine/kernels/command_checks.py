"""Check a command before the checks of its kind: form, session, authorisation, kill switch, account.

Changes nothing but `turn`, where it records the account it finds. Called by apply.py; the first check that fails is
the reason reported.
"""

from typing import Any, Final

import numpy as np

from smrx.engine.kernels.jit import (
    NIL,
    U0,
    U1,
    U32,
    Record,
    Tables,
    inlined,
    kernel,
)
from smrx.engine.kernels.lookup import find_account
from smrx.engine.kernels.rules_version import check_version
from smrx.wire.codes import (
    AccountStatus,
    CommandKind,
    InstrumentStatus,
    OrderFlags,
    OrderType,
    Reason,
    SessionFlags,
    Side,
    Stp,
    TimeInForce,
)

_BYTE: Final = np.uint64(0xFF)
_BYTE_BITS: Final = np.uint64(8)
#: All flags as integers: Numba supports IntEnum, not IntFlag.
ORDER_FLAGS: Final = int(OrderFlags.POST_ONLY | OrderFlags.QUOTE_BUDGET)
SESSION_FLAGS: Final = int(SessionFlags.CANCEL_ON_DISCONNECT)


@kernel
def is_symbol(word: Any) -> Any:
    """Whether a word is 1 to 8 bytes of A-Z 0-9 - . / _ and then only NULs."""
    if word == U0:
        return False
    while word != U0:
        byte = word & _BYTE
        letter = 65 <= byte <= 90
        # 45 to 57 are - . / and the digits.
        if not (letter or 45 <= byte <= 57 or byte == 95):
            return False
        word >>= _BYTE_BITS
    return True


@inlined
def has_order_terms(command: Record) -> Any:
    """Whether order type, time in force, self-trade prevention or flags are set."""
    return (command.order_type | command.tif | command.stp | command.flags) != 0


@inlined
def has_price_or_lots(command: Record) -> Any:
    """Whether price or quantity is set."""
    return command.price_ticks != 0 or command.quantity_lots != 0


@inlined
def has_unused_extra(command: Record) -> Any:
    """Whether a PLACE sets an extra word, or half of one, that its order type and time in force do not use."""
    if command.order_id == U0:
        return False
    if command.order_type == OrderType.MARKET:
        return True
    return command.order_type == OrderType.LIMIT and command.tif != TimeInForce.GTD and (command.order_id >> U32) != U0


@inlined
def has_fields_beyond_cancel(command: Record) -> Any:
    """Whether a CANCEL sets more than the reference to its order."""
    return has_order_terms(command) or command.side != 0 or command.instrument != 0 or has_price_or_lots(command)


@inlined
def has_unused_fields(command: Record) -> Any:
    """Whether a field that has no meaning for the kind, neither PLACE nor CANCEL, is not 0."""
    kind = command.kind
    if kind == CommandKind.ADD_INSTRUMENT:
        return (command.side | command.order_type | command.tif) != 0
    if kind == CommandKind.SET_RULES:
        return command.side != 0
    if command.reserved != 0:
        return True
    if kind == CommandKind.OPEN_SESSION:
        return (command.order_type | command.tif | command.stp) != 0 or has_more_than_sender(command, True)
    if has_order_terms(command):
        return True
    if kind == CommandKind.MASS_CANCEL:
        return command.client_order_id != U0 or command.order_id != U0 or has_price_or_lots(command)
    if kind == CommandKind.SET_STATUS:
        return (
            command.account != 0
            or command.client_order_id != U0
            or command.order_id != U0
            or has_price_or_lots(command)
        )
    if command.side != 0:
        return True
    if kind == CommandKind.REPLACE:
        return command.instrument != 0
    if kind == CommandKind.DEPOSIT or kind == CommandKind.WITHDRAW:
        return command.client_order_id != U0 or command.price_ticks != 0
    if kind == CommandKind.ADD_ASSET:
        return command.account != 0 or command.order_id != U0
    if kind == CommandKind.SET_LIMITS:
        return command.client_order_id != U0
    return has_more_than_sender(command, names_account(kind) or kind == CommandKind.OPEN_ACCOUNT)


@kernel
def has_more_than_sender(command: Record, account: Any) -> Any:
    """Whether a command with no fields but its sender, and an account if `account`, sets any other field."""
    if command.side != 0 or command.instrument != 0 or command.client_order_id != U0 or command.order_id != U0:
        return True
    is_switch = command.kind == CommandKind.SET_VERSION
    if command.price_ticks != 0 or (command.quantity_lots != 0 and not is_switch):
        return True
    if command.account != 0 and not account:
        return True
    if command.kind == CommandKind.TICK or is_switch:
        return command.session_id != U0 or command.request_id != U0
    return is_unnumbered(command.kind) and command.request_id != U0


@inlined
def is_unnumbered(kind: Any) -> Any:
    """Whether a kind has no request id."""
    # The first comparison decides for all order commands.
    return kind >= CommandKind.OPEN_SESSION and (
        kind == CommandKind.OPEN_SESSION
        or kind == CommandKind.DISCONNECT
        or kind == CommandKind.TICK
        or kind == CommandKind.SET_VERSION
    )


@inlined
def check_order_form(command: Record) -> Any:
    """Check the enumerations of a PLACE."""
    if command.side != Side.BUY and command.side != Side.SELL:
        return Reason.INVALID_SIDE
    if command.order_type < OrderType.LIMIT or command.order_type > OrderType.STOP_LIMIT:
        return Reason.INVALID_ORDER_TYPE
    if command.tif < TimeInForce.GTC or command.tif > TimeInForce.GTD:
        return Reason.INVALID_TIME_IN_FORCE
    if command.stp > Stp.DECREMENT:
        return Reason.INVALID_STP
    if command.flags > ORDER_FLAGS:
        return Reason.INVALID_FLAGS
    return Reason.NONE


@inlined
def check_form(command: Record) -> Any:
    """Check a command without regard to the state. The most frequent kinds are tested first."""
    kind = command.kind
    if kind == CommandKind.PLACE:
        if command.reserved != 0 or has_unused_extra(command):
            return Reason.RESERVED_NOT_ZERO
        return check_order_form(command)
    if kind == CommandKind.CANCEL:
        if command.reserved != 0 or has_fields_beyond_cancel(command):
            return Reason.RESERVED_NOT_ZERO
        return check_order_reference(command)
    return check_other_form(command)


@inlined
def check_order_reference(command: Record) -> Any:
    """Check that a CANCEL or REPLACE names its order by exactly one id."""
    return Reason.INVALID_ID if (command.order_id == U0) == (command.client_order_id == U0) else Reason.NONE


@kernel
def check_other_form(command: Record) -> Any:
    """Check the form of a command that is neither a PLACE nor a CANCEL."""
    kind = command.kind
    if kind < CommandKind.PLACE or kind > CommandKind.SET_VERSION:
        return Reason.UNKNOWN_KIND
    if has_unused_fields(command):
        return Reason.RESERVED_NOT_ZERO
    if kind == CommandKind.REPLACE:
        return check_order_reference(command)
    if kind == CommandKind.MASS_CANCEL:
        if command.side > Side.SELL:
            return Reason.INVALID_SIDE
    elif kind == CommandKind.DEPOSIT or kind == CommandKind.WITHDRAW:
        if command.order_id == U0:
            return Reason.INVALID_ID
    elif kind == CommandKind.ADD_ASSET or kind == CommandKind.ADD_INSTRUMENT:
        if not is_symbol(command.client_order_id):
            return Reason.INVALID_ID
    elif kind == CommandKind.SUSPEND_ACCOUNT or kind == CommandKind.RESUME_ACCOUNT:
        if command.account == 0:
            return Reason.INVALID_ID
    elif kind == CommandKind.SET_STATUS:
        if command.side < InstrumentStatus.TRADING or command.side > InstrumentStatus.CLOSED:
            return Reason.INVALID_STATUS
    elif kind == CommandKind.OPEN_SESSION:
        if command.flags > SESSION_FLAGS:
            return Reason.INVALID_FLAGS
        if command.session_id == U0:
            return Reason.INVALID_ID
    return Reason.NONE


@inlined
def names_account(kind: Any) -> Any:
    """Whether a kind is about an account that must exist."""
    return (
        kind <= CommandKind.WITHDRAW
        or kind == CommandKind.OPEN_SESSION
        or kind == CommandKind.SUSPEND_ACCOUNT
        or kind == CommandKind.RESUME_ACCOUNT
        or kind == CommandKind.SET_LIMITS
    )


@inlined
def is_venue_only(kind: Any) -> Any:
    """Whether only a session of the venue (account 0) may send this kind."""
    if kind <= CommandKind.MASS_CANCEL or kind == CommandKind.WITHDRAW:
        return False
    return kind != CommandKind.OPEN_SESSION and kind != CommandKind.CLOSE_SESSION


@inlined
def check_sender(state: Tables, command: Record) -> Any:
    """Check session, request id, authorisation and kill switch. Records the account if it is the session's."""
    turn = state.turn[0]
    turn.account = 0
    kind = command.kind
    if kind > CommandKind.CANCEL:
        if kind == CommandKind.OPEN_SESSION:
            return Reason.NONE if turn.session == NIL else Reason.SESSION_IN_USE
        if kind == CommandKind.TICK:
            return Reason.NONE
        if kind == CommandKind.SET_VERSION:
            return check_version(state.core[0], command)
    if turn.session == NIL:
        return Reason.UNKNOWN_SESSION
    if kind == CommandKind.DISCONNECT:
        return Reason.NONE
    session = state.sessions[turn.session]
    if command.request_id > session.last_request_id + U1:
        return Reason.REQUEST_GAP
    if kind == CommandKind.CLOSE_SESSION:
        return Reason.NONE
    if session.account_id == command.account:
        turn.account = session.account
    if session.account_id != 0 and (is_venue_only(kind) or turn.account == NIL):
        return Reason.NOT_AUTHORISED
    if state.core[0].killed != 0 and (kind == CommandKind.PLACE or kind == CommandKind.REPLACE):
        return Reason.KILLED
    return Reason.NONE


@inlined
def needs_active_account(kind: Any) -> Any:
    """Whether a kind is rejected for a suspended account."""
    return kind == CommandKind.PLACE or kind == CommandKind.REPLACE or kind == CommandKind.WITHDRAW


@inlined
def check_account(state: Tables, command: Record) -> Any:
    """Return UNKNOWN_ACCOUNT, ACCOUNT_EXISTS, ACCOUNT_SUSPENDED or NONE. Records the account in `turn`."""
    turn = state.turn[0]
    opening = command.kind == CommandKind.OPEN_ACCOUNT
    if not opening and not names_account(command.kind):
        return Reason.NONE
    if turn.account == NIL:
        turn.account = find_account(state, command.account)
    if opening:
        return Reason.NONE if turn.account == NIL else Reason.ACCOUNT_EXISTS
    if turn.account == NIL:
        return Reason.UNKNOWN_ACCOUNT
    if state.accounts[turn.account].status == AccountStatus.SUSPENDED and needs_active_account(command.kind):
        return Reason.ACCOUNT_SUSPENDED
    return Reason.NONE
