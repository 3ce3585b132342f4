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
from tests.oracle.messages import Command
from tests.oracle.records import valid_symbol

#: The fields of COMMAND that a kind uses, without session and request id (see below); all others must be 0.
NAMED_FIELDS: dict[CommandKind, set[str]] = {
    CommandKind.PLACE: {
        *("side", "order_type", "tif", "stp", "flags", "account", "instrument"),
        *("client_order_id", "order_id", "price_ticks", "quantity_lots"),
    },
    CommandKind.CANCEL: {"account", "order_id", "client_order_id"},
    CommandKind.REPLACE: {"account", "order_id", "client_order_id", "price_ticks", "quantity_lots"},
    CommandKind.MASS_CANCEL: {"account", "instrument", "side"},
    CommandKind.DEPOSIT: {"account", "instrument", "order_id", "quantity_lots"},
    CommandKind.WITHDRAW: {"account", "instrument", "order_id", "quantity_lots"},
    CommandKind.OPEN_ACCOUNT: {"account"},
    CommandKind.SUSPEND_ACCOUNT: {"account"},
    CommandKind.RESUME_ACCOUNT: {"account"},
    CommandKind.OPEN_SESSION: {"account", "flags"},
    CommandKind.CLOSE_SESSION: set(),
    CommandKind.DISCONNECT: set(),
    CommandKind.ADD_ASSET: {"instrument", "client_order_id", "price_ticks", "quantity_lots"},
    # Bytes 4 to 7 are the scale, 40 to 47 the two assets.
    CommandKind.ADD_INSTRUMENT: {
        *("stp", "flags", "reserved", "account", "instrument", "client_order_id"),
        *("order_id", "price_ticks", "quantity_lots"),
    },
    CommandKind.SET_STATUS: {"instrument", "side"},
    CommandKind.SET_LIMITS: {"account", "instrument", "order_id", "price_ticks", "quantity_lots"},
    # Bytes 2 to 3 are the band, 4 to 7 the maker fee.
    CommandKind.SET_RULES: {
        *("order_type", "tif", "stp", "flags", "reserved", "account", "instrument", "client_order_id"),
        *("order_id", "price_ticks", "quantity_lots"),
    },
    CommandKind.KILL: set(),
    CommandKind.REVIVE: set(),
    CommandKind.TICK: set(),
    CommandKind.SET_VERSION: {"quantity_lots"},
}
#: Kinds without a request id.
WITHOUT_REQUEST = (CommandKind.OPEN_SESSION, CommandKind.DISCONNECT, CommandKind.TICK, CommandKind.SET_VERSION)


def check_form(command: Command) -> Reason:
    if command.kind not in set(CommandKind):
        return Reason.UNKNOWN_KIND
    kind = CommandKind(command.kind)
    named = {"kind"} | NAMED_FIELDS[kind]
    if kind not in (CommandKind.TICK, CommandKind.SET_VERSION):
        named |= {"session_id"}
    if kind not in WITHOUT_REQUEST:
        named |= {"request_id"}
    if any(value != 0 for name, value in command._asdict().items() if name not in named):
        return Reason.RESERVED_NOT_ZERO
    if kind is CommandKind.PLACE:
        return check_place_form(command)
    if kind is CommandKind.MASS_CANCEL and command.side > Side.SELL:
        return Reason.INVALID_SIDE
    if kind is CommandKind.OPEN_SESSION and command.flags not in (0, SessionFlags.CANCEL_ON_DISCONNECT):
        return Reason.INVALID_FLAGS
    if not has_valid_ids(command, kind):
        return Reason.INVALID_ID
    if kind is CommandKind.SET_STATUS and command.side not in set(InstrumentStatus):
        return Reason.INVALID_STATUS
    return Reason.NONE


def check_place_form(command: Command) -> Reason:
    expiry = command.extra >> 32
    if command.order_type == OrderType.MARKET and command.extra:
        return Reason.RESERVED_NOT_ZERO
    if command.order_type == OrderType.LIMIT and command.tif != TimeInForce.GTD and expiry:
        return Reason.RESERVED_NOT_ZERO
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


def has_valid_ids(command: Command, kind: CommandKind) -> bool:
    if kind is CommandKind.OPEN_SESSION:
        return command.session_id != 0
    if kind in (CommandKind.CANCEL, CommandKind.REPLACE):
        return (command.order_id == 0) != (command.client_order_id == 0)
    if kind in (CommandKind.DEPOSIT, CommandKind.WITHDRAW):
        return command.order_id != 0
    if kind in (CommandKind.SUSPEND_ACCOUNT, CommandKind.RESUME_ACCOUNT):
        return command.account != 0
    if kind in (CommandKind.ADD_ASSET, CommandKind.ADD_INSTRUMENT):
        return valid_symbol(command.symbol)
    return True
