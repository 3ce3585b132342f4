"""Check the form of a command without regard to the state: the first checks of command_checks.py."""

from smrx.wire.codes import (
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
from tests.oracle.credentials import terms_of, terms_reason
from tests.oracle.messages import Command
from tests.oracle.records import SHORT_ID, valid_id, valid_symbol

#: The fields of a command that a kind uses, in the names of orders, without session and request id (see below) and
#: details; all others must be 0.
NAMED_FIELDS: dict[CommandKind, set[str]] = {
    CommandKind.PLACE: {
        *("side", "order_type", "tif", "stp", "flags", "account", "instrument"),
        *("client_order_id", "price_ticks", "quantity_lots"),
    },
    CommandKind.CANCEL: {"account", "order_id", "client_order_id"},
    CommandKind.REPLACE: {"account", "order_id", "client_order_id", "price_ticks", "quantity_lots"},
    CommandKind.MASS_CANCEL: {"account", "instrument", "side"},
    # Asset, transfer id, amount.
    CommandKind.DEPOSIT: {"account", "instrument", "order_id", "quantity_lots"},
    CommandKind.WITHDRAW: {"account", "instrument", "order_id", "quantity_lots"},
    CommandKind.OPEN_ACCOUNT: {"account"},
    CommandKind.SUSPEND_ACCOUNT: {"account"},
    CommandKind.RESUME_ACCOUNT: {"account"},
    # Bytes 28 to 31: the answers kept.
    CommandKind.OPEN_SESSION: {"account", "instrument", "flags"},
    CommandKind.CLOSE_SESSION: set(),
    CommandKind.DISCONNECT: set(),
    # Decimals, asset, symbol (bytes 32 to 47), supply cap.
    CommandKind.ADD_ASSET: {"side", "instrument", "client_order_id", "order_id", "price_ticks"},
    CommandKind.ADD_INSTRUMENT: {"instrument"},
    CommandKind.SET_STATUS: {"instrument", "side"},
    CommandKind.SET_LIMITS: {"account", "instrument", "order_id", "price_ticks", "quantity_lots"},
    CommandKind.SET_RULES: {"instrument"},
    # The three numbers of what is kept.
    CommandKind.SET_RETENTION: {"account", "instrument", "order_id"},
    CommandKind.KILL: set(),
    CommandKind.REVIVE: set(),
    CommandKind.TICK: set(),
    CommandKind.SET_VERSION: {"quantity_lots"},
    # The number of the credential.
    CommandKind.ADD_CREDENTIAL: {"instrument"},
    CommandKind.SET_CREDENTIAL: {"instrument"},
    CommandKind.REVOKE_CREDENTIAL: {"instrument"},
    # Bytes 24 to 55.
    CommandKind.SET_CAPACITY: {"account", "instrument", "client_order_id", "order_id", "price_ticks"},
}
#: The bytes of the details that a kind uses; all others must be 0.
DETAILS_BYTES = {
    CommandKind.PLACE: range(88),
    CommandKind.CANCEL: range(64),
    CommandKind.REPLACE: range(64),
    CommandKind.ADD_INSTRUMENT: range(56),
    CommandKind.SET_RULES: range(46),
    CommandKind.ADD_CREDENTIAL: range(117),
    # Not the key, the subject and the scope.
    CommandKind.SET_CREDENTIAL: range(32, 112),
}
NEEDS_DETAILS = (
    *(CommandKind.ADD_INSTRUMENT, CommandKind.SET_RULES),
    *(CommandKind.ADD_CREDENTIAL, CommandKind.SET_CREDENTIAL),
)
#: With version 2 of the rules: the person behind an order, in its details, and the kinds that are new.
PERSON_BYTES = range(112, 116)
OF_CREDENTIALS = (CommandKind.ADD_CREDENTIAL, CommandKind.SET_CREDENTIAL, CommandKind.REVOKE_CREDENTIAL)
SINCE_2 = (*OF_CREDENTIALS, CommandKind.SET_CAPACITY)
#: Kinds without a request id.
WITHOUT_REQUEST = (CommandKind.OPEN_SESSION, CommandKind.DISCONNECT, CommandKind.TICK, CommandKind.SET_VERSION)


def check_form(command: Command, rules: int) -> Reason:
    """Return the reason under a version of the rules."""
    if command.kind not in NAMED_FIELDS or (command.kind in SINCE_2 and rules < 2):
        return Reason.UNKNOWN_KIND
    kind = CommandKind(command.kind)
    if not has_valid_details(command, kind):
        return Reason.INVALID_DETAILS
    if has_meaningless_bytes(command, kind, rules):
        return Reason.RESERVED_NOT_ZERO
    reason = Reason.NONE
    if kind is CommandKind.PLACE:
        reason = check_place_form(command)
    if kind is CommandKind.MASS_CANCEL and command.side > Side.SELL:
        return Reason.INVALID_SIDE
    if kind is CommandKind.OPEN_SESSION and command.flags not in (0, SessionFlags.CANCEL_ON_DISCONNECT):
        return Reason.INVALID_FLAGS
    if not has_valid_ids(command, kind, rules):
        return Reason.INVALID_ID
    if kind in (CommandKind.ADD_CREDENTIAL, CommandKind.SET_CREDENTIAL):
        return terms_reason(terms_of(command.bytes_of_details(0, 128)), is_new=kind is CommandKind.ADD_CREDENTIAL)
    if kind is CommandKind.SET_STATUS and command.status not in set(InstrumentStatus):
        return Reason.INVALID_STATUS
    if kind in (CommandKind.PLACE, CommandKind.CANCEL, CommandKind.REPLACE):
        reason = reason or check_client_order_id(command)
    return reason


def has_valid_details(command: Command, kind: CommandKind) -> bool:
    """Whether the command names details that exist, and has them if and only if its kind may."""
    if command.fields.details == 0:
        return kind not in NEEDS_DETAILS
    return kind in DETAILS_BYTES and command.details_data is not None


def has_meaningless_bytes(command: Command, kind: CommandKind, rules: int) -> bool:
    """Whether a byte is set that the kind, the order type or the time in force has no use for."""
    named = {"kind", "details"} | NAMED_FIELDS[kind]
    if kind not in (CommandKind.TICK, CommandKind.SET_VERSION):
        named |= {"session_id"}
    if kind not in WITHOUT_REQUEST:
        named |= {"request_id"}
    if kind is CommandKind.OPEN_ACCOUNT and rules >= 2:
        # The firm.
        named |= {"instrument"}
    if any(value != 0 for name, value in command.fields._asdict().items() if name not in named):
        return True
    used = set(DETAILS_BYTES.get(kind, ()))
    if kind in (CommandKind.PLACE, CommandKind.CANCEL, CommandKind.REPLACE) and rules >= 2:
        used |= set(PERSON_BYTES)
    details = command.bytes_of_details(0, 128)
    # Most commands have no details.
    if any(details) and any(byte and at not in used for at, byte in enumerate(details)):
        return True
    return kind is CommandKind.PLACE and has_meaningless_terms(command)


def has_meaningless_terms(command: Command) -> bool:
    order_type, terms = command.order_type, command.terms
    is_stop = order_type in (OrderType.STOP, OrderType.STOP_LIMIT)
    has_limit = order_type in (OrderType.LIMIT, OrderType.STOP_LIMIT)
    may_wait = (is_stop or has_limit) and command.tif == TimeInForce.GTD
    return bool(
        (terms.stop_price and not is_stop) or (terms.display and not has_limit) or (terms.expiry and not may_wait)
    )


def check_place_form(command: Command) -> Reason:
    if command.side not in (Side.BUY, Side.SELL):
        return Reason.INVALID_SIDE
    if command.order_type not in set(OrderType):
        return Reason.INVALID_ORDER_TYPE
    if command.tif not in set(TimeInForce):
        return Reason.INVALID_TIME_IN_FORCE
    if command.stp not in set(Stp):
        return Reason.INVALID_STP
    if command.flags > OrderFlags.POST_ONLY | OrderFlags.QUOTE_BUDGET:
        return Reason.INVALID_FLAGS
    return Reason.NONE


def check_client_order_id(command: Command) -> Reason:
    """Check that an id is printable, and in the command if and only if it has at most 8 characters."""
    word, text = command.id_word.to_bytes(8, "little"), command.id_text
    is_long = len(text.rstrip(b"\0")) > SHORT_ID
    valid = valid_id(word) and valid_id(text) and (is_long or not any(text)) and not (any(word) and any(text))
    return Reason.NONE if valid else Reason.INVALID_CLIENT_ORDER_ID


def has_valid_ids(command: Command, kind: CommandKind, rules: int) -> bool:
    if kind is CommandKind.OPEN_SESSION:
        return command.session_id != 0
    if kind in (CommandKind.CANCEL, CommandKind.REPLACE):
        return [command.order_id != 0, command.id_word != 0, any(command.id_text)].count(True) == 1
    if kind in (CommandKind.DEPOSIT, CommandKind.WITHDRAW):
        return command.transfer_id != 0
    if kind in (CommandKind.SUSPEND_ACCOUNT, CommandKind.RESUME_ACCOUNT):
        return command.account != 0
    if kind is CommandKind.ADD_ASSET:
        return valid_symbol(command.asset_symbol, rules)
    if kind is CommandKind.ADD_INSTRUMENT:
        return valid_symbol(command.instrument_symbol, rules)
    if kind in OF_CREDENTIALS:
        has_key = kind is not CommandKind.ADD_CREDENTIAL or any(command.bytes_of_details(0, 32))
        return command.number != 0 and has_key
    return True
