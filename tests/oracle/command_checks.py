"""Check a command: the checks in order of precedence; the first that fails is the reason reported.

Changes nothing. oracle.py calls `rejection_reason` for every command that gets a sequence.
"""

from dataclasses import replace

from smrx.wire.codes import (
    AccountStatus,
    CommandKind,
    InstrumentStatus,
    OrderFlags,
    Permission,
    Reason,
    Scope,
    TimeInForce,
)
from tests.oracle import credentials, order_checks
from tests.oracle.form_checks import check_form
from tests.oracle.messages import Command
from tests.oracle.records import AMOUNT_LIMIT, Instrument
from tests.oracle.state import State

PLACE = CommandKind.PLACE
CANCEL = CommandKind.CANCEL
REPLACE = CommandKind.REPLACE
MASS_CANCEL = CommandKind.MASS_CANCEL
DEPOSIT = CommandKind.DEPOSIT
WITHDRAW = CommandKind.WITHDRAW
OPEN_ACCOUNT = CommandKind.OPEN_ACCOUNT
SUSPEND_ACCOUNT = CommandKind.SUSPEND_ACCOUNT
RESUME_ACCOUNT = CommandKind.RESUME_ACCOUNT
OPEN_SESSION = CommandKind.OPEN_SESSION
ADD_ASSET = CommandKind.ADD_ASSET
ADD_INSTRUMENT = CommandKind.ADD_INSTRUMENT
SET_STATUS = CommandKind.SET_STATUS
SET_LIMITS = CommandKind.SET_LIMITS
SET_RULES = CommandKind.SET_RULES
SET_RETENTION = CommandKind.SET_RETENTION
KILL = CommandKind.KILL
REVIVE = CommandKind.REVIVE
TICK = CommandKind.TICK
DISCONNECT = CommandKind.DISCONNECT
SET_VERSION = CommandKind.SET_VERSION
ADD_CREDENTIAL = CommandKind.ADD_CREDENTIAL
SET_CREDENTIAL = CommandKind.SET_CREDENTIAL
REVOKE_CREDENTIAL = CommandKind.REVOKE_CREDENTIAL
SET_CAPACITY = CommandKind.SET_CAPACITY

TRANSFERS = (DEPOSIT, WITHDRAW)
#: May be sent by a session of the account or by the venue.
OWN_ACCOUNT = (PLACE, CANCEL, REPLACE, MASS_CANCEL, WITHDRAW)
#: May be sent by the venue only.
VENUE_ONLY = (
    *(DEPOSIT, OPEN_ACCOUNT, SUSPEND_ACCOUNT, RESUME_ACCOUNT, ADD_ASSET, ADD_INSTRUMENT),
    *(SET_STATUS, SET_LIMITS, SET_RULES, SET_RETENTION, KILL, REVIVE),
    *(ADD_CREDENTIAL, SET_CREDENTIAL, REVOKE_CREDENTIAL, SET_CAPACITY),
)
#: Name an account that must exist.
OF_AN_ACCOUNT = (*OWN_ACCOUNT, DEPOSIT, SUSPEND_ACCOUNT, RESUME_ACCOUNT, OPEN_SESSION, SET_LIMITS)


def rejection_reason(state: State, command: Command) -> Reason:
    """Return the first reason to reject, or NONE."""
    reason = check_form(command, state.rules_version)
    for check in (
        session,
        kill_switch,
        account,
        listing,
        credential,
        identity,
        order_terms,
        limits,
        combination,
        feasibility,
        funds,
        space,
    ):
        reason = reason or check(state, command)
    return reason


def session(state: State, command: Command) -> Reason:
    found = state.sessions.get(command.session_id)
    if command.kind == TICK:
        return Reason.NONE
    if command.kind == SET_VERSION:
        return Reason.NONE if command.quantity_lots == state.rules_version + 1 else Reason.INVALID_VERSION
    if command.kind == OPEN_SESSION:
        # A session of the same account never gets here: it is a duplicate.
        reopened = found and found.closed and found.account == command.account and not state.is_foreign(found)
        return Reason.SESSION_IN_USE if found and not reopened else own_credential(state, command)
    if found is None:
        return Reason.UNKNOWN_SESSION
    if found.closed:
        return Reason.SESSION_CLOSED
    if command.kind == DISCONNECT:
        return Reason.NONE
    if command.request_id > found.last_request_id + 1:
        return Reason.REQUEST_GAP
    if state.credential_of_session(command):
        return own_credential(state, command) or person(state, command)
    if state.is_foreign(found):
        return Reason.NOT_AUTHORISED
    is_venue = found.account == 0
    if command.kind in OWN_ACCOUNT and not is_venue and found.account != command.account:
        return Reason.NOT_AUTHORISED
    if command.kind in VENUE_ONLY and not is_venue:
        return Reason.NOT_AUTHORISED
    return person(state, command)


def own_credential(state: State, command: Command) -> Reason:
    """Check the credential that the session belongs to, if it belongs to one."""
    number = state.credential_of_session(command)
    if number == 0:
        return Reason.NONE
    own = state.credentials.get(number)
    if own is None:
        return Reason.UNKNOWN_CREDENTIAL
    if command.kind == REVOKE_CREDENTIAL:
        named = state.credentials.get(command.number)
        return own.standing(state.time_ns) or credentials.revoker_reason(own, command.number, named, state.accounts)
    allowed = credentials.may_send(own, command.kind, command.account, state.accounts)
    return own.standing(state.time_ns) or (Reason.NONE if allowed else Reason.NOT_AUTHORISED)


def person_named(command: Command) -> int:
    """Return the credential of the person behind an order that the command names; 0 for none."""
    return command.person if command.kind in (PLACE, CANCEL, REPLACE) else 0


def person(state: State, command: Command) -> Reason:
    """Check the person behind an order, whom only a gateway may name, or a session of the venue without credential."""
    number = person_named(command)
    if number == 0:
        return Reason.NONE
    session = state.sessions[command.session_id]
    gateway = state.credentials.get(session.credential)
    if not (gateway.has_one_of(Permission.GATEWAY) if gateway else session.account == 0):
        return Reason.NOT_AUTHORISED
    named = state.credentials.get(number)
    if named is None:
        return Reason.UNKNOWN_CREDENTIAL
    allowed = named.has_one_of(Permission.TRADE) and named.covers(command.account, state.accounts)
    allowed = allowed and (gateway is None or gateway.covers_all_of(named, state.accounts))
    return named.standing(state.time_ns) or (Reason.NONE if allowed else Reason.NOT_AUTHORISED)


def kill_switch(state: State, command: Command) -> Reason:
    return Reason.KILLED if state.killed and command.kind in (PLACE, REPLACE) else Reason.NONE


def account(state: State, command: Command) -> Reason:
    found = state.accounts.get(command.account)
    if command.kind == OPEN_ACCOUNT:
        return Reason.ACCOUNT_EXISTS if found else Reason.NONE
    if command.kind not in OF_AN_ACCOUNT:
        return Reason.NONE
    if found is None:
        return Reason.UNKNOWN_ACCOUNT
    if found.status == AccountStatus.SUSPENDED and command.kind in (PLACE, REPLACE, WITHDRAW):
        return Reason.ACCOUNT_SUSPENDED
    return Reason.NONE


def listing(state: State, command: Command) -> Reason:
    """Check assets, instruments and their status; for CANCEL and REPLACE, the order that determines the instrument."""
    if command.kind in TRANSFERS:
        return Reason.NONE if command.asset in state.assets else Reason.UNKNOWN_ASSET
    if command.kind in (CANCEL, REPLACE):
        order = state.named_order(command)
        if order is None:
            return Reason.UNKNOWN_ORDER
        return trading(state.instruments[order.instrument]) if command.kind == REPLACE else Reason.NONE
    known = state.instruments.get(command.instrument)
    needed = command.kind in (PLACE, SET_STATUS, SET_RULES)
    if known is None and (needed or (command.kind == MASS_CANCEL and command.instrument != 0)):
        return Reason.UNKNOWN_INSTRUMENT
    if known and command.kind == PLACE:
        return trading(known)
    if known and command.kind == SET_RULES:
        return new_rules(state, command, known)
    if command.kind == ADD_ASSET:
        return new_asset(state, command)
    if command.kind == ADD_INSTRUMENT:
        return new_instrument(state, command)
    return Reason.NONE


def trading(instrument: Instrument) -> Reason:
    is_trading = instrument.status == InstrumentStatus.TRADING
    return Reason.NONE if is_trading else Reason.INSTRUMENT_NOT_TRADING


def new_asset(state: State, command: Command) -> Reason:
    if command.asset == 0:
        return Reason.INVALID_ID
    if command.asset in state.assets:
        return Reason.ASSET_EXISTS
    if command.decimals > 18:
        return Reason.INVALID_QUANTITY
    return Reason.NONE if 0 <= command.supply_cap < AMOUNT_LIMIT else Reason.INVALID_AMOUNT


def new_instrument(state: State, command: Command) -> Reason:
    if command.instrument == 0:
        return Reason.INVALID_ID
    if command.instrument in state.instruments:
        return Reason.INSTRUMENT_EXISTS
    base, quote, lot_units, scale_units, max_price, max_quantity = command.listing
    if base not in state.assets or quote not in state.assets:
        return Reason.UNKNOWN_ASSET
    if base == quote:
        return Reason.INVALID_INSTRUMENT
    if min(lot_units, scale_units, max_price, max_quantity) < 1:
        return Reason.INVALID_INSTRUMENT
    if max_price * max_quantity * scale_units >= AMOUNT_LIMIT or max_quantity * lot_units >= AMOUNT_LIMIT:
        return Reason.INVALID_INSTRUMENT
    return Reason.NONE


def new_rules(state: State, command: Command, known: Instrument) -> Reason:
    asked, old = command.rules, known.rules
    if not order_checks.rules(replace(known, rules=asked)):
        return Reason.INVALID_RULES
    # The holds of open orders were computed with the present rates.
    rates_change = (asked.taker_fee, asked.maker_fee) != (old.taker_fee, old.maker_fee)
    has_orders = any(order.instrument == known.instrument for order in state.orders.values())
    return Reason.INSTRUMENT_HAS_ORDERS if rates_change and has_orders else Reason.NONE


def credential(state: State, command: Command) -> Reason:
    """Check the credential that a command is about, and what the command says of it."""
    if command.kind not in (ADD_CREDENTIAL, SET_CREDENTIAL, REVOKE_CREDENTIAL):
        return Reason.NONE
    is_new = command.kind == ADD_CREDENTIAL
    known = state.credentials.get(command.number)
    if not is_new and known is None:
        return Reason.UNKNOWN_CREDENTIAL
    if known and known.revoked and not is_new:
        return Reason.CREDENTIAL_REVOKED
    if command.kind == REVOKE_CREDENTIAL:
        return Reason.NONE
    terms = credentials.terms_of(command.bytes_of_details(0, 128))
    if is_new:
        if terms.scope == Scope.ACCOUNT and terms.subject not in state.accounts:
            return Reason.UNKNOWN_ACCOUNT
        if known:
            return Reason.CREDENTIAL_EXISTS
        if any(terms.key == other.key for other in state.credentials.values()):
            return Reason.KEY_IN_USE
    past = terms.expires_ns != 0 and terms.expires_ns <= state.time_ns
    return Reason.INVALID_EXPIRY if past else Reason.NONE


def identity(state: State, command: Command) -> Reason:
    if command.kind == PLACE and command.client_order_id:
        taken = state.has_id_like(command.account, command.client_order_id)
        return Reason.DUPLICATE_CLIENT_ORDER_ID if taken else Reason.NONE
    return transfer_identity(state, command) if command.kind in TRANSFERS else Reason.NONE


def transfer_identity(state: State, command: Command) -> Reason:
    if not 1 <= command.amount < AMOUNT_LIMIT:
        return Reason.INVALID_AMOUNT
    done = state.transfers.get(command.transfer_id)
    if done is None:
        return Reason.NONE
    same = (done.kind, done.account, done.asset, done.amount) == (
        command.kind,
        command.account,
        command.asset,
        command.amount,
    )
    return Reason.TRANSFER_ALREADY_DONE if same else Reason.TRANSFER_ID_REUSED


def order_terms(state: State, command: Command) -> Reason:
    """Check the terms against the rules of the instrument and the bounds of numbers."""
    reason = Reason.NONE
    if command.kind == PLACE:
        for check in order_checks.CHECKS_OF_PLACE:
            reason = reason or check(state, state.order_from(command))
    elif command.kind == REPLACE:
        for check in order_checks.CHECKS_OF_REPLACE:
            reason = reason or check(state, state.replaced_order(command))
    elif command.kind == SET_LIMITS:
        _, *amounts = command.limits
        reason = Reason.NONE if all(0 <= amount < AMOUNT_LIMIT for amount in amounts) else Reason.INVALID_LIMIT
    elif command.kind == SET_RETENTION:
        too_many = state.has_bounds and command.retention.transfers > 16_000_000
        reason = Reason.NONE if all(command.retention) and not too_many else Reason.INVALID_LIMIT
    elif command.kind == SET_CAPACITY:
        reason = Reason.NONE if command.capacity.is_valid else Reason.INVALID_LIMIT
    elif command.kind == DEPOSIT:
        asset = state.assets[command.asset]
        reason = Reason.SUPPLY_EXCEEDED if asset.supply + command.amount > asset.max_supply else Reason.NONE
    return reason


def keeps_place(state: State, command: Command) -> bool:
    """Whether a REPLACE reduces an order in place."""
    order = state.named_order(command)
    assert order is not None
    return order.keeps_place(command.price_ticks, command.quantity_lots)


def limits(state: State, command: Command) -> Reason:
    if command.kind == PLACE:
        return order_checks.account_limits(state, state.order_from(command), state.open_orders(command.account))
    if command.kind == REPLACE and not keeps_place(state, command):
        order = state.replaced_order(command)
        others = [other for other in state.open_orders(command.account) if other.order_id != order.order_id]
        return order_checks.account_limits(state, order, others)
    return Reason.NONE


def combination(state: State, command: Command) -> Reason:
    return order_checks.combination(state.order_from(command)) if command.kind == PLACE else Reason.NONE


def feasibility(state: State, command: Command) -> Reason:
    if command.kind not in (PLACE, REPLACE):
        return Reason.NONE
    order = state.order_from(command) if command.kind == PLACE else state.replaced_order(command)
    if not order.is_stop and order.flags & OrderFlags.POST_ONLY and state.books[order.instrument].would_take(order):
        return Reason.POST_ONLY_WOULD_TAKE
    if command.kind == PLACE and order.is_stop and state.is_due(order):
        return Reason.STOP_WOULD_TRIGGER
    return Reason.NONE


def funds(state: State, command: Command) -> Reason:
    asset, need, released = command.asset, 0, 0
    if command.kind == WITHDRAW:
        need = command.amount
    elif command.kind == PLACE:
        order = state.order_from(command)
        # An unfillable fill-or-kill order ends before its funds are checked; a market buy spends what is available.
        if not state.is_unfillable(order):
            asset, need = state.hold(order, order.leaves)
    elif command.kind == REPLACE:
        old, new = state.named_order(command), state.replaced_order(command)
        assert old is not None
        asset, need = state.hold(new, new.leaves)
        released = state.hold(old, old.leaves)[1]
    return Reason.INSUFFICIENT_FUNDS if need > state.available(command.account, asset) + released else Reason.NONE


def space(state: State, command: Command) -> Reason:
    """Check that the records that the command adds have space."""
    if not state.has_bounds:
        return Reason.NONE
    most = state.capacity
    accounts, instruments, assets = len(state.accounts), len(state.instruments), len(state.assets)
    full = {
        OPEN_ACCOUNT: accounts >= most.accounts,
        ADD_INSTRUMENT: instruments >= most.instruments,
        ADD_ASSET: assets >= most.assets,
        ADD_CREDENTIAL: len(state.credentials) >= most.credentials,
    }.get(CommandKind(command.kind), False)
    if command.kind == DEPOSIT:
        full = len(state.pairs | {(command.account, command.asset)}) > max(most.balances, len(state.pairs))
    if command.kind == OPEN_SESSION and command.session_id not in state.sessions:
        kept = sum(session.window for session in state.sessions.values())
        full = len(state.sessions) >= most.sessions or kept + state.window_of(command) > most.answers
    if command.kind == PLACE and not state.is_unfillable(state.order_from(command)):
        order = state.order_from(command)
        rests = order.is_stop or order.tif in (TimeInForce.GTC, TimeInForce.GTD)
        full = rests and len(state.orders) >= most.orders
        pairs = state.pairs | state.pairs_of(order)
        full = full or len(pairs) > max(most.balances, len(state.pairs))
    return Reason.CAPACITY_REACHED if full else Reason.NONE
