"""Why a command is refused: the checks, in the order in which the first failure is the reason reported.

Judges only; changes nothing. `refusal` is called by machine.py for every command that gets a sequence.
"""

from smrx.engine.codes import (
    CommandKind,
    InstrumentStatus,
    OrderFlags,
    OrderType,
    Reason,
    Side,
    Stp,
    TimeInForce,
)
from tests.oracle.records import TOO_MUCH, Command, Instrument, valid_symbol
from tests.oracle.state import State

PLACE = CommandKind.PLACE
CANCEL = CommandKind.CANCEL
REPLACE = CommandKind.REPLACE
MASS_CANCEL = CommandKind.MASS_CANCEL
DEPOSIT = CommandKind.DEPOSIT
WITHDRAW = CommandKind.WITHDRAW
OPEN_ACCOUNT = CommandKind.OPEN_ACCOUNT
OPEN_SESSION = CommandKind.OPEN_SESSION
CLOSE_SESSION = CommandKind.CLOSE_SESSION
ADD_ASSET = CommandKind.ADD_ASSET
ADD_INSTRUMENT = CommandKind.ADD_INSTRUMENT

TRANSFERS = (DEPOSIT, WITHDRAW)
#: May be sent by a session of the account or by the venue; the other kinds, sessions apart, by the venue alone.
OWN_ACCOUNT = (PLACE, CANCEL, REPLACE, MASS_CANCEL, WITHDRAW)
VENUE_ONLY = (DEPOSIT, OPEN_ACCOUNT, ADD_ASSET, ADD_INSTRUMENT)

SESSION_FIELDS = {"kind", "session_id", "request_id"}
#: The fields a kind names beside those; all others must be 0.
NAMED_FIELDS = {
    PLACE: {
        *("side", "order_type", "tif", "stp", "flags", "account", "instrument"),
        *("client_order_id", "price_ticks", "quantity_lots"),
    },
    CANCEL: {"account", "order_id", "client_order_id"},
    REPLACE: {"account", "order_id", "client_order_id", "price_ticks", "quantity_lots"},
    MASS_CANCEL: {"account", "instrument", "side"},
    DEPOSIT: {"account", "instrument", "order_id", "quantity_lots"},
    WITHDRAW: {"account", "instrument", "order_id", "quantity_lots"},
    OPEN_ACCOUNT: {"account"},
    OPEN_SESSION: {"account"},
    CLOSE_SESSION: set(),
    ADD_ASSET: {"instrument", "client_order_id", "quantity_lots"},
    # Bytes 4 to 7 are the scale, 40 to 47 the two assets.
    ADD_INSTRUMENT: {
        *("stp", "flags", "reserved", "account", "instrument", "client_order_id"),
        *("order_id", "price_ticks", "quantity_lots"),
    },
}


def refusal(state: State, command: Command) -> Reason:
    """The first reason to refuse, or NONE."""
    for check in (malformed, session, account, listing, identity, terms, combination, feasibility, funds):
        reason = check(state, command)
        if reason:
            return reason
    return Reason.NONE


def malformed(state: State, command: Command) -> Reason:
    if command.kind not in set(CommandKind):
        return Reason.UNKNOWN_KIND
    named = NAMED_FIELDS[CommandKind(command.kind)] | SESSION_FIELDS
    if command.kind == OPEN_SESSION:
        named = named - {"request_id"}
    if any(value != 0 for name, value in command._asdict().items() if name not in named):
        return Reason.RESERVED_NOT_ZERO
    if command.kind == PLACE:
        return malformed_place(command)
    if command.kind == MASS_CANCEL and command.side > Side.SELL:
        return Reason.INVALID_SIDE
    return malformed_id(command)


def malformed_place(command: Command) -> Reason:
    if command.side not in (Side.BUY, Side.SELL):
        return Reason.INVALID_SIDE
    if command.order_type not in set(OrderType):
        return Reason.INVALID_ORDER_TYPE
    if command.tif not in set(TimeInForce):
        return Reason.INVALID_TIME_IN_FORCE
    if command.stp not in set(Stp):
        return Reason.INVALID_STP
    if command.flags not in (0, OrderFlags.POST_ONLY):
        return Reason.INVALID_FLAGS
    return Reason.NONE


def malformed_id(command: Command) -> Reason:
    valid = True
    if command.kind == OPEN_SESSION:
        valid = command.session_id != 0
    elif command.kind in (CANCEL, REPLACE):
        valid = (command.order_id == 0) != (command.client_order_id == 0)
    elif command.kind in TRANSFERS:
        valid = command.order_id != 0
    elif command.kind in (ADD_ASSET, ADD_INSTRUMENT):
        valid = valid_symbol(command.symbol)
    return Reason.NONE if valid else Reason.INVALID_ID


def session(state: State, command: Command) -> Reason:
    found = state.sessions.get(command.session_id)
    if command.kind == OPEN_SESSION:
        # One of the same account never comes here: it is a duplicate.
        return Reason.SESSION_IN_USE if found else Reason.NONE
    if found is None:
        return Reason.UNKNOWN_SESSION
    if command.request_id > found.last_request_id + 1:
        return Reason.REQUEST_GAP
    is_venue = found.account == 0
    if command.kind in OWN_ACCOUNT and not is_venue and found.account != command.account:
        return Reason.NOT_AUTHORISED
    if command.kind in VENUE_ONLY and not is_venue:
        return Reason.NOT_AUTHORISED
    return Reason.NONE


def account(state: State, command: Command) -> Reason:
    exists = command.account in state.accounts
    if command.kind in (*OWN_ACCOUNT, DEPOSIT, OPEN_SESSION) and not exists:
        return Reason.UNKNOWN_ACCOUNT
    if command.kind == OPEN_ACCOUNT and exists:
        return Reason.ACCOUNT_EXISTS
    return Reason.NONE


def listing(state: State, command: Command) -> Reason:
    """Assets and instruments: those that must be there, and those that must not."""
    known = state.instruments.get(command.instrument)
    if command.kind in TRANSFERS and command.instrument not in state.assets:
        return Reason.UNKNOWN_ASSET
    if command.kind == PLACE and known is None:
        return Reason.UNKNOWN_INSTRUMENT
    if command.kind == PLACE and known and known.status != InstrumentStatus.TRADING:
        return Reason.INSTRUMENT_NOT_TRADING
    if command.kind == MASS_CANCEL and command.instrument != 0 and known is None:
        return Reason.UNKNOWN_INSTRUMENT
    if command.kind == ADD_ASSET:
        return new_asset(state, command)
    if command.kind == ADD_INSTRUMENT:
        return new_instrument(state, command)
    return Reason.NONE


def new_asset(state: State, command: Command) -> Reason:
    if command.instrument == 0:
        return Reason.INVALID_ID
    if command.instrument in state.assets:
        return Reason.ASSET_EXISTS
    if not 0 <= command.quantity_lots <= 18:
        return Reason.INVALID_QUANTITY
    return Reason.NONE


def new_instrument(state: State, command: Command) -> Reason:
    if command.instrument == 0:
        return Reason.INVALID_ID
    if command.instrument in state.instruments:
        return Reason.INSTRUMENT_EXISTS
    if command.base_asset not in state.assets or command.quote_asset not in state.assets:
        return Reason.UNKNOWN_ASSET
    max_price, max_quantity = command.price_ticks, command.quantity_lots
    if command.base_asset == command.quote_asset:
        return Reason.INVALID_INSTRUMENT
    if min(command.lot_units, command.scale_units, max_price, max_quantity) < 1:
        return Reason.INVALID_INSTRUMENT
    if max_price * max_quantity * command.scale_units >= TOO_MUCH or max_quantity * command.lot_units >= TOO_MUCH:
        return Reason.INVALID_INSTRUMENT
    return Reason.NONE


def identity(state: State, command: Command) -> Reason:
    if command.kind == PLACE and command.client_order_id != 0:
        taken = state.order_by_client_id(command.account, command.client_order_id)
        return Reason.DUPLICATE_CLIENT_ORDER_ID if taken else Reason.NONE
    if command.kind in (CANCEL, REPLACE):
        return Reason.NONE if state.named_order(command) else Reason.UNKNOWN_ORDER
    if command.kind in TRANSFERS:
        return transfer_identity(state, command)
    return Reason.NONE


def transfer_identity(state: State, command: Command) -> Reason:
    if not 1 <= command.quantity_lots < TOO_MUCH:
        return Reason.INVALID_AMOUNT
    done = state.transfers.get(command.order_id)
    if done is None:
        return Reason.NONE
    same = (done.kind, done.account, done.asset, done.amount) == (
        command.kind,
        command.account,
        command.instrument,
        command.quantity_lots,
    )
    return Reason.TRANSFER_ALREADY_DONE if same else Reason.TRANSFER_ID_REUSED


def terms(state: State, command: Command) -> Reason:
    """Price, quantity and amount against their bounds."""
    if command.kind == PLACE:
        instrument = state.instruments[command.instrument]
        if command.order_type == OrderType.MARKET:
            if command.price_ticks != 0:
                return Reason.INVALID_PRICE
            return quantity_terms(command, instrument)
        return limit_price_terms(command, instrument) or quantity_terms(command, instrument)
    if command.kind == REPLACE:
        order = state.named_order(command)
        assert order is not None
        instrument = state.instruments[order.instrument]
        return limit_price_terms(command, instrument) or quantity_terms(command, instrument)
    if command.kind == DEPOSIT and state.assets[command.instrument].supply + command.quantity_lots >= TOO_MUCH:
        return Reason.SUPPLY_EXCEEDED
    return Reason.NONE


def limit_price_terms(command: Command, instrument: Instrument) -> Reason:
    if command.price_ticks < 1:
        return Reason.INVALID_PRICE
    return Reason.PRICE_ABOVE_MAXIMUM if command.price_ticks > instrument.max_price else Reason.NONE


def quantity_terms(command: Command, instrument: Instrument) -> Reason:
    if command.quantity_lots < 1:
        return Reason.INVALID_QUANTITY
    return Reason.QUANTITY_ABOVE_MAXIMUM if command.quantity_lots > instrument.max_quantity else Reason.NONE


def combination(state: State, command: Command) -> Reason:
    """What the records can say and the venue does not do."""
    supported = True
    if command.kind == PLACE:
        is_market = command.order_type == OrderType.MARKET
        post_only = bool(command.flags & OrderFlags.POST_ONLY)
        supported = (
            command.tif != TimeInForce.GTD
            and command.stp == Stp.CANCEL_NEWEST
            and not (is_market and command.tif != TimeInForce.IOC)
            and not (post_only and (is_market or command.tif != TimeInForce.GTC))
        )
    elif command.kind == REPLACE:
        order = state.named_order(command)
        assert order is not None
        supported = command.price_ticks == order.price and order.cum < command.quantity_lots < order.quantity
    return Reason.NONE if supported else Reason.UNSUPPORTED_COMBINATION


def feasibility(state: State, command: Command) -> Reason:
    if command.kind == PLACE and command.flags & OrderFlags.POST_ONLY and state.would_take(command):
        return Reason.POST_ONLY_WOULD_TAKE
    return Reason.NONE


def funds(state: State, command: Command) -> Reason:
    need = 0
    asset = command.instrument
    if command.kind == WITHDRAW:
        need = command.quantity_lots
    elif command.kind == PLACE and not is_checked_later(state, command):
        instrument = state.instruments[command.instrument]
        asset, need = state.hold(Side(command.side), instrument, command.price_ticks, command.quantity_lots)
    return Reason.INSUFFICIENT_FUNDS if need > state.available(command.account, asset) else Reason.NONE


def is_checked_later(state: State, command: Command) -> bool:
    """A market buy spends what there is, match by match; a fill-or-kill that cannot fill ends before funds count."""
    is_market_buy = command.order_type == OrderType.MARKET and command.side == Side.BUY
    return is_market_buy or state.is_unfillable_fok(command)
