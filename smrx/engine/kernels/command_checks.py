"""Check a command before the checks of its kind: form, session, authorisation, kill switch, account.

Changes nothing but `turn`, where it records the account it finds. Called by apply.py; the first check that fails is
the reason reported.
"""

from typing import Any, Final

import numpy as np

from smrx.engine.kernels.command_traits import (
    ACTIVE_ACCOUNT,
    MAY_HAVE_DETAILS,
    MUST_HAVE_DETAILS,
    NAMES_ACCOUNT,
    NUMBERED,
    PASSES_KILL,
    UNKNOWN,
    VENUE_ONLY,
    has_trait,
)
from smrx.engine.kernels.credential_rules import (
    check_credential_form,
    check_opener,
    check_permission,
    check_person,
    is_foreign,
    number_of,
)
from smrx.engine.kernels.jit import (
    NIL,
    U0,
    U1,
    U32,
    Record,
    Tables,
    inlined,
    kernel,
    view_as,
)
from smrx.engine.kernels.layouts import (
    ASSET_COMMAND_WORDS,
    COMMAND_UNUSED,
    COMMAND_WORDS,
    DETAILS_UNUSED,
    DETAILS_WORDS,
    INSTRUMENT_DETAILS_WORDS,
)
from smrx.engine.kernels.lookup import details_of, find_account
from smrx.engine.kernels.order_details import has_terms, has_text
from smrx.engine.kernels.rules_version import check_version, has_credentials
from smrx.engine.kernels.xxh3 import hash8
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
from smrx.wire.records import ACCOUNT_COMMAND, COMMAND, LONG_ID, STATUS_COMMAND, TRANSFER_COMMAND

_BYTE: Final = np.uint64(0xFF)
_BYTE_BITS: Final = np.uint64(8)
_LONG_ID: Final = np.uint64(LONG_ID)
#: All flags as integers: Numba supports IntEnum, not IntFlag.
ORDER_FLAGS: Final = int(OrderFlags.POST_ONLY | OrderFlags.QUOTE_BUDGET)
SESSION_FLAGS: Final = int(SessionFlags.CANCEL_ON_DISCONNECT)


#: Bytes of a word: each 0x7F, each 0x60, each 0x01, the high bit of each.
_SEVEN_BITS: Final = np.uint64(0x7F7F7F7F7F7F7F7F)
_TO_PRINTABLE: Final = np.uint64(0x6060606060606060)
_ONES: Final = np.uint64(0x0101010101010101)
_HIGH_BITS: Final = np.uint64(0x8080808080808080)
_BITS_56: Final = np.uint64(56)


def _in_bytes(**fields: int) -> np.uint64:
    """Return the first word of a command with these fields, and 0 in all others."""
    row = np.zeros(1, COMMAND)
    for name, value in fields.items():
        row[name] = value
    return np.uint64(row.view(np.uint64)[0])


#: The enumerations of a PLACE: the least of each, 127 minus the greatest, and the high bits of their bytes.
_LEAST: Final = _in_bytes(side=Side.BUY, order_type=OrderType.LIMIT, tif=TimeInForce.GTC)
_ABOVE: Final = _in_bytes(
    side=127 - Side.SELL, order_type=127 - OrderType.STOP_LIMIT, tif=127 - TimeInForce.GTD, stp=127 - Stp.DECREMENT,
    flags=127 - ORDER_FLAGS,
)  # fmt: skip
_FORM_BITS: Final = _in_bytes(side=128, order_type=128, tif=128, stp=128, flags=128)
_BITS_16: Final = np.uint64(16)


@inlined
def is_padded_text(word: Any) -> Any:
    """Whether a word is printable ASCII characters (space to ~), and then only NULs; the first is the low byte."""
    # Each byte of `smeared` is not 0 if a character follows there or later, so it must be one.
    smeared = word | (word >> _BYTE_BITS)
    smeared |= smeared >> _BITS_16
    smeared |= smeared >> U32
    used = (smeared + _SEVEN_BITS) & _HIGH_BITS
    # With the high bits clear, no byte carries into the next: from 0x20 on +0x60 sets the high bit, of 0x7F +1 does.
    printable = (word + _TO_PRINTABLE) & _HIGH_BITS
    return ((word | (word + _ONES)) & _HIGH_BITS) == U0 and printable == used


@inlined
def is_padded_word(word: Any, before: Any) -> Any:
    """Whether a word continues a text whose word before it is `before`: after one that is not full there are NULs."""
    return word == U0 or ((before >> _BITS_56) != U0 and is_padded_text(word))


@kernel
def is_long_id(details: Record) -> Any:
    """Whether the client order id in some details is a text of 9 to 64 printable characters."""
    if details.client_order_id_1 == U0 or not is_padded_text(details.client_order_id_0):
        return False
    return (
        is_padded_word(details.client_order_id_1, details.client_order_id_0)
        and is_padded_word(details.client_order_id_2, details.client_order_id_1)
        and is_padded_word(details.client_order_id_3, details.client_order_id_2)
        and is_padded_word(details.client_order_id_4, details.client_order_id_3)
        and is_padded_word(details.client_order_id_5, details.client_order_id_4)
        and is_padded_word(details.client_order_id_6, details.client_order_id_5)
        and is_padded_word(details.client_order_id_7, details.client_order_id_6)
    )


@kernel
def long_id_form(details: Record) -> Any:
    """Return the 64-bit form of the client order id in some details, see client_order_ids.py."""
    return _LONG_ID | hash8(
        details.client_order_id_0,
        details.client_order_id_1,
        details.client_order_id_2,
        details.client_order_id_3,
        details.client_order_id_4,
        details.client_order_id_5,
        details.client_order_id_6,
        details.client_order_id_7,
    )


@kernel
def is_symbol_of(core: Record, first: Any, second: Any, third: Any) -> Any:
    """Whether three words are a symbol by the rules in force: with version 2 it needs more than allowed characters."""
    if not is_symbol(first, second, third):
        return False
    if not has_credentials(core):
        return True
    begins = first & _BYTE
    # Of the allowed bytes only letters and _ are above 64; - . / are below the digits, _ is 95.
    if begins < 48 or begins == 95:
        return False
    return has_letter(first) or has_letter(second) or has_letter(third)


@kernel
def has_letter(word: Any) -> Any:
    """Whether a word of a symbol has a letter."""
    while word != U0:
        byte = word & _BYTE
        if 65 <= byte <= 90:
            return True
        word >>= _BYTE_BITS
    return False


@kernel
def is_symbol(first: Any, second: Any, third: Any) -> Any:
    """Whether three words are bytes of A-Z 0-9 - . / _, at least one, and then only NULs."""
    if first == U0 or not is_symbol_word(first):
        return False
    if second != U0 and ((first >> _BITS_56) == U0 or not is_symbol_word(second)):
        return False
    return third == U0 or ((second >> _BITS_56) != U0 and is_symbol_word(third))


@kernel
def is_symbol_word(word: Any) -> Any:
    """Whether a word is bytes of A-Z 0-9 - . / _ and then only NULs."""
    while word != U0:
        byte = word & _BYTE
        letter = 65 <= byte <= 90
        # 45 to 57 are - . / and the digits.
        if not (letter or 45 <= byte <= 57 or byte == 95):
            return False
        word >>= _BYTE_BITS
    return True


@kernel
def has_unused_bits(command: Record) -> Any:
    """Whether a command sets bits, also of bytes without a name, that its kind does not use."""
    words = view_as(command, COMMAND_WORDS)
    row = 8 * np.int64(command.kind)
    first = (words.word_0 & COMMAND_UNUSED[row]) | (words.word_1 & COMMAND_UNUSED[row + 1])
    first |= (words.word_2 & COMMAND_UNUSED[row + 2]) | (words.word_3 & COMMAND_UNUSED[row + 3])
    first |= (words.word_4 & COMMAND_UNUSED[row + 4]) | (words.word_5 & COMMAND_UNUSED[row + 5])
    first |= (words.word_6 & COMMAND_UNUSED[row + 6]) | (words.word_7 & COMMAND_UNUSED[row + 7])
    return first != U0


@kernel
def has_unused_details(kind: Any, details: Record) -> Any:
    """Whether a command's details set bits that its kind does not use."""
    words = view_as(details, DETAILS_WORDS)
    row = 16 * np.int64(kind)
    first = (words.word_0 & DETAILS_UNUSED[row]) | (words.word_1 & DETAILS_UNUSED[row + 1])
    first |= (words.word_2 & DETAILS_UNUSED[row + 2]) | (words.word_3 & DETAILS_UNUSED[row + 3])
    first |= (words.word_4 & DETAILS_UNUSED[row + 4]) | (words.word_5 & DETAILS_UNUSED[row + 5])
    first |= (words.word_6 & DETAILS_UNUSED[row + 6]) | (words.word_7 & DETAILS_UNUSED[row + 7])
    first |= (words.word_8 & DETAILS_UNUSED[row + 8]) | (words.word_9 & DETAILS_UNUSED[row + 9])
    first |= (words.word_10 & DETAILS_UNUSED[row + 10]) | (words.word_11 & DETAILS_UNUSED[row + 11])
    first |= (words.word_12 & DETAILS_UNUSED[row + 12]) | (words.word_13 & DETAILS_UNUSED[row + 13])
    first |= (words.word_14 & DETAILS_UNUSED[row + 14]) | (words.word_15 & DETAILS_UNUSED[row + 15])
    return first != U0


@inlined
def has_unused_terms(command: Record, details: Record) -> Any:
    """Whether a PLACE has terms that its order type and time in force do not use."""
    kind = command.order_type
    has_stop = kind == OrderType.STOP or kind == OrderType.STOP_LIMIT
    has_limit = kind == OrderType.LIMIT or kind == OrderType.STOP_LIMIT
    if (details.stop_price_ticks != 0 and not has_stop) or (details.display_lots != 0 and not has_limit):
        return True
    may_wait = (has_stop or has_limit) and command.tif == TimeInForce.GTD
    return details.expiry_ns != 0 and not may_wait


@inlined
def is_unnumbered(kind: Any) -> Any:
    """Whether a kind has no request id."""
    return not has_trait(kind, NUMBERED)


@inlined
def check_order_form(command: Record) -> Any:
    """Check the enumerations of a PLACE."""
    word = view_as(command, COMMAND_WORDS).word_0
    # The high bit of a byte is set where it is below the least or above the greatest; no byte carries into the next
    # if all are below 128.
    wrong = word | (((word | _HIGH_BITS) - _LEAST) ^ _HIGH_BITS) | (word + _ABOVE)
    return Reason.NONE if (wrong & _FORM_BITS) == U0 else wrong_form(command)


@kernel
def wrong_form(command: Record) -> Any:
    """Return why the enumerations of a PLACE are wrong, or NONE."""
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


@kernel
def check_details(state: Tables, command: Record) -> Any:
    """Check that the details of a command exist, that its kind has them, and that they set nothing unused."""
    if command.details > len(state.details) or not has_trait(command.kind, MAY_HAVE_DETAILS):
        return Reason.INVALID_DETAILS
    details = details_of(state, command)
    if has_unused_details(command.kind, details):
        return Reason.RESERVED_NOT_ZERO
    if command.kind <= CommandKind.REPLACE and details.credential != 0 and not has_credentials(state.core[0]):
        return Reason.RESERVED_NOT_ZERO
    return Reason.NONE


@kernel
def check_text(state: Tables, command: Record, has_id: Any) -> Any:
    """Check the client order id in a command's details, if there is one, and record its 64-bit form in `turn`.

    `has_id` says whether the command names an order by another id. Also counts the events that will follow its own.
    """
    turn = state.turn[0]
    details = details_of(state, command)
    following = 0
    if has_text(details):
        if has_id or not is_long_id(details):
            return Reason.INVALID_CLIENT_ORDER_ID
        turn.client_order_id = long_id_form(details)
        following += 1
    if has_terms(details):
        following += 1
    turn.following = np.uint32(following)
    return Reason.NONE


@inlined
def check_client_order_id(state: Tables, command: Record) -> Any:
    """Check the client order id of a PLACE, CANCEL or REPLACE, in the command or in its details."""
    if command.client_order_id != U0 and not is_padded_text(command.client_order_id):
        return Reason.INVALID_CLIENT_ORDER_ID
    return check_text(state, command, command.client_order_id != U0) if command.details != 0 else Reason.NONE


@inlined
def check_form(state: Tables, command: Record) -> Any:
    """Check a command without regard to the state. The most frequent kinds are tested first."""
    turn = state.turn[0]
    turn.client_order_id = command.client_order_id
    turn.following = 0
    kind = command.kind
    if kind == CommandKind.PLACE or kind == CommandKind.CANCEL:
        if command.details != 0:
            reason = check_details(state, command)
            if reason != Reason.NONE:
                return reason
        if kind == CommandKind.CANCEL:
            reason = Reason.RESERVED_NOT_ZERO if has_unused_bits(command) else check_order_reference(state, command)
        elif command.order_id != U0 or (command.details != 0 and has_unused_terms(command, details_of(state, command))):
            reason = Reason.RESERVED_NOT_ZERO
        else:
            reason = check_order_form(command)
        return reason if reason != Reason.NONE else check_client_order_id(state, command)
    return check_other_form(state, command)


@inlined
def check_order_reference(state: Tables, command: Record) -> Any:
    """Check that a CANCEL or REPLACE names its order by exactly one id."""
    has_short = command.client_order_id != U0
    has_long = command.details != 0 and has_text(details_of(state, command))
    if command.order_id != U0:
        return Reason.INVALID_ID if has_short or has_long else Reason.NONE
    return Reason.INVALID_ID if has_short == has_long else Reason.NONE


@kernel
def check_other_form(state: Tables, command: Record) -> Any:
    """Check the form of a command that is neither a PLACE nor a CANCEL."""
    kind = command.kind
    if has_trait(kind, UNKNOWN) or (kind >= CommandKind.ADD_CREDENTIAL and not has_credentials(state.core[0])):
        return Reason.UNKNOWN_KIND
    if command.details != 0:
        reason = check_details(state, command)
        if reason != Reason.NONE:
            return reason
    elif has_trait(kind, MUST_HAVE_DETAILS):
        return Reason.INVALID_DETAILS
    if has_unused_bits(command):
        return Reason.RESERVED_NOT_ZERO
    if kind == CommandKind.REPLACE:
        reason = check_order_reference(state, command)
        return reason if reason != Reason.NONE else check_client_order_id(state, command)
    if kind == CommandKind.MASS_CANCEL:
        if command.side > Side.SELL:
            return Reason.INVALID_SIDE
    elif kind == CommandKind.DEPOSIT or kind == CommandKind.WITHDRAW:
        if view_as(command, TRANSFER_COMMAND).transfer_id == U0:
            return Reason.INVALID_ID
    elif kind == CommandKind.ADD_ASSET:
        asset = view_as(command, ASSET_COMMAND_WORDS)
        if not is_symbol_of(state.core[0], asset.symbol_0, asset.symbol_1, U0):
            return Reason.INVALID_ID
    elif kind == CommandKind.ADD_INSTRUMENT:
        added = view_as(details_of(state, command), INSTRUMENT_DETAILS_WORDS)
        if not is_symbol_of(state.core[0], added.symbol_0, added.symbol_1, added.symbol_2):
            return Reason.INVALID_ID
    elif kind == CommandKind.OPEN_ACCOUNT:
        if view_as(command, ACCOUNT_COMMAND).firm != 0 and not has_credentials(state.core[0]):
            return Reason.RESERVED_NOT_ZERO
    elif kind >= CommandKind.ADD_CREDENTIAL and kind != CommandKind.SET_CAPACITY:
        return check_credential_form(state, command)
    elif kind == CommandKind.SUSPEND_ACCOUNT or kind == CommandKind.RESUME_ACCOUNT:
        if command.account == 0:
            return Reason.INVALID_ID
    elif kind == CommandKind.SET_STATUS:
        status = view_as(command, STATUS_COMMAND).status
        if status < InstrumentStatus.TRADING or status > InstrumentStatus.CLOSED:
            return Reason.INVALID_STATUS
    elif kind == CommandKind.OPEN_SESSION:
        if command.flags > SESSION_FLAGS:
            return Reason.INVALID_FLAGS
        if command.session_id == U0:
            return Reason.INVALID_ID
    return Reason.NONE


@inlined
def check_opening(state: Tables, command: Record) -> Any:
    """Check that a session id is free, or of a closed session of the account, and that its credential may open it."""
    slot = state.turn[0].session
    if slot == NIL:
        return check_opener(state, command)
    session = state.sessions[slot]
    free = session.closed != 0 and session.account_id == command.account
    if not free or is_foreign(state, session):
        return Reason.SESSION_IN_USE
    return check_opener(state, command) if session.credential != NIL else Reason.NONE


@inlined
def check_sender(state: Tables, command: Record) -> Any:
    """Check session, request id, authorisation and kill switch. Records the account if it is the session's."""
    turn = state.turn[0]
    turn.account = 0
    kind = command.kind
    if kind > CommandKind.CANCEL:
        if kind == CommandKind.OPEN_SESSION:
            return check_opening(state, command)
        if kind == CommandKind.TICK:
            return Reason.NONE
        if kind == CommandKind.SET_VERSION:
            return check_version(state.core[0], command)
    if turn.session == NIL:
        return Reason.UNKNOWN_SESSION
    session = state.sessions[turn.session]
    if session.closed != 0:
        return Reason.SESSION_CLOSED
    if kind == CommandKind.DISCONNECT:
        return Reason.NONE
    if command.request_id > session.last_request_id + U1:
        return Reason.REQUEST_GAP
    # The id says first whether there may be a credential: it is at hand.
    if number_of(command.session_id) != U0 and session.credential != NIL:
        reason = check_permission(state, command)
        if reason != Reason.NONE or kind == CommandKind.CLOSE_SESSION:
            return reason
    else:
        if number_of(command.session_id) != U0 and is_foreign(state, session):
            return Reason.NOT_AUTHORISED
        if kind == CommandKind.CLOSE_SESSION:
            return Reason.NONE
        if session.account_id == command.account:
            turn.account = session.account
        if session.account_id != 0 and (has_trait(kind, VENUE_ONLY) or turn.account == NIL):
            return Reason.NOT_AUTHORISED
    if command.details != 0 and kind <= CommandKind.REPLACE and details_of(state, command).credential != 0:
        reason = check_person(state, command)
        if reason != Reason.NONE:
            return reason
    if state.core[0].killed != 0 and not has_trait(kind, PASSES_KILL):
        return Reason.KILLED
    return Reason.NONE


@inlined
def check_account(state: Tables, command: Record) -> Any:
    """Return UNKNOWN_ACCOUNT, ACCOUNT_EXISTS, ACCOUNT_SUSPENDED or NONE. Records the account in `turn`."""
    turn = state.turn[0]
    opening = command.kind == CommandKind.OPEN_ACCOUNT
    if not opening and not has_trait(command.kind, NAMES_ACCOUNT):
        return Reason.NONE
    if turn.account == NIL:
        turn.account = find_account(state, command.account)
    if opening:
        return Reason.NONE if turn.account == NIL else Reason.ACCOUNT_EXISTS
    if turn.account == NIL:
        return Reason.UNKNOWN_ACCOUNT
    if state.accounts[turn.account].status == AccountStatus.SUSPENDED and has_trait(command.kind, ACTIVE_ACCOUNT):
        return Reason.ACCOUNT_SUSPENDED
    return Reason.NONE
